"""Export a run as a SavedModel that TensorFlow Serving loads.

    python -m siamese_keras.export RUN [--name NAME] [--output saved_models/NAME] [--far 0.001]

Writes the folder `saved_models/NAME/<n>/`, n one higher than the highest there, whole or not at
all. Before it appears there, it is loaded again and must answer as the Keras model does. With
`--threshold`, `--far` or `--prior` the served `same` is decided at another threshold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.model_options import add_threshold_options, at_threshold


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.export") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(prog, "Export a run as a SavedModel for TensorFlow Serving.")
    parser.add_argument("run", type=local_path, metavar="RUN", help="folder that training wrote")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--name", help="export to saved_models/NAME (default: the name of the dataset)"
    )
    target.add_argument("--output", type=local_path, help="export to this folder instead")
    add_threshold_options(parser)
    options = parser.parse_args(argv)

    def program() -> None:
        from siamese_keras.verifier import load_verifier

        verifier = at_threshold(load_verifier(options.run), options)
        folder = options.output or Path("saved_models") / (options.name or verifier.name)
        print(f"exported: {verifier.export(folder)}")

    return run_program(program, traceback=options.traceback)


if __name__ == "__main__":
    sys.exit(main())

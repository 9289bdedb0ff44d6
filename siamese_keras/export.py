"""Export a run for TensorFlow Serving, LiteRT or ONNX.

    python -m siamese_keras.export RUN [--name NAME] [--output FOLDER] [--far 0.001]
    python -m siamese_keras.export RUN --format litert [--quantize int8]
    python -m siamese_keras.export RUN --format onnx

Writes the folder `saved_models/NAME/<n>/`, n one higher than the highest there, whole or not at
all; LiteRT goes to `saved_models/NAME-litert/`, ONNX to `saved_models/NAME-onnx/`. Before a version
appears, it is loaded again and must answer as the Keras model does. With `--threshold`, `--far` or
`--prior` the exported `same` is decided at another threshold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from siamese_keras.command_line import local_path, make_parser, model_name, run_program
from siamese_keras.model_options import add_threshold_options, at_threshold
from siamese_keras.serving.formats import MODEL_FILES


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.export") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(prog, "Export a run for TensorFlow Serving, LiteRT or ONNX.")
    parser.add_argument("run", type=local_path, metavar="RUN", help="folder that training wrote")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--name",
        type=model_name,
        help="export to saved_models/NAME, NAME-litert or NAME-onnx (default: that of the "
        "dataset, its folder or file)",
    )
    target.add_argument("--output", type=local_path, help="export to this folder instead")
    parser.add_argument(
        "--format",
        choices=list(MODEL_FILES),
        default="saved_model",
        help="saved_model for TensorFlow Serving; litert for phones and small machines; onnx, the "
        "base model alone, for other runtimes (default: saved_model)",
    )
    parser.add_argument(
        "--quantize", choices=["int8"], help="round the weights of a LiteRT model to 8 bits"
    )
    add_threshold_options(parser)
    options = parser.parse_args(argv)
    if options.quantize and options.format != "litert":
        parser.error("argument --quantize: needs --format litert")

    def program() -> None:
        from siamese_keras.verifier import load_verifier

        verifier = at_threshold(load_verifier(options.run), options)
        suffix = "" if options.format == "saved_model" else f"-{options.format}"
        name = (options.name or verifier.name) + suffix
        version = verifier.export(
            options.output or Path("saved_models") / name,
            format=options.format,
            quantize=options.quantize,
        )
        print(f"exported: {version}")

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())

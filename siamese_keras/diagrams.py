"""Draw the architecture diagrams.

    python -m siamese_keras.diagrams [--preset NAME] [--output diagrams]

Writes `base-model.png` and `outer-model.png` with names and shapes, by Keras's `plot_model`.
Without Graphviz, the PyPI package `graphviz-pure` draws the same pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from siamese_keras.command_line import (
    add_config_options,
    config_from_options,
    local_path,
    make_parser,
    run_program,
)


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.diagrams") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog,
        "Draw the architecture diagrams of the base and the outer model.",
        usage="%(prog)s [options]",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        default=Path("diagrams"),
        help="folder to write to (default: diagrams)",
    )
    parser.add_argument(
        "--image-shape",
        type=int,
        nargs=3,
        default=(28, 28, 1),
        metavar=("HEIGHT", "WIDTH", "CHANNELS"),
        help="shape of the images (default: 28 28 1)",
    )
    add_config_options(parser, group="base model")
    options = parser.parse_args(argv)
    config = config_from_options(parser, options)
    if options.output.suffix.lower() == ".png" and not options.output.is_dir():
        parser.error(
            "argument --output: expected a folder, to which two files are written, not "
            f"{str(options.output)!r}"
        )

    def program() -> None:
        from siamese_keras.models.diagrams import draw_diagrams

        for path in draw_diagrams(config, tuple(options.image_shape), options.output):
            print(f"drawn: {path}")

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())

"""Embed a folder of images once, for quick searches.

    python -m siamese_keras.index FOLDER --output gallery.npz [--model MODEL]
    python -m siamese_keras.predict QUERY --index gallery.npz

Writes an index: the embeddings of all image files below FOLDER, with their names, sizes and
modification times. When the index exists, only files that are new or changed are embedded, and
those that are gone are dropped.
"""

from __future__ import annotations

import sys

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.model_options import add_model_options, load_from_options


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.index") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(prog, "Embed a folder of images once, for quick searches.")
    parser.add_argument("folder", type=local_path, metavar="FOLDER", help="folder of images")
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="FILE.npz",
        help="the index to write; when it exists it is brought up to date",
    )
    add_model_options(parser)
    options = parser.parse_args(argv)

    def program() -> None:
        from siamese_keras.files import check_output
        from siamese_keras.progress import progress_line

        check_output(options.output, ".npz")
        verifier = load_from_options(options)
        changes = verifier.index(options.folder, options.output, progress=progress_line("images"))
        print(
            f"{options.output}: {changes.embedded + changes.kept} images, {changes.embedded} of "
            f"them embedded now; {changes.removed} dropped"
        )

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())

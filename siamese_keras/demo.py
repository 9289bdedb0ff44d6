"""Compare and search images in a browser.

    python -m siamese_keras.demo [MODEL] [--gallery FOLDER | --index gallery.npz]

Opens a page of this machine where one picks or uploads two pictures and sees both as the network
sees them, their distance and similarity, and the decision, which follows a slider of the
threshold. With a gallery, the page finds the pictures that are nearest to another one. The page
loads nothing from elsewhere and keeps no upload once the program has ended. Needs the extra
`demo`: pip install -e '.[demo]'.
"""

from __future__ import annotations

import argparse
import sys

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.model_options import add_invert_option, index_path, load_chosen


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.demo") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(prog, "Open a page to compare and search images in a browser.")
    parser.add_argument(
        "model",
        nargs="?",
        type=local_path,
        metavar="MODEL",
        help="folder of an exported model, of one of its versions, or of a run (default: the only "
        "model below saved_models/)",
    )
    gallery = parser.add_mutually_exclusive_group()
    gallery.add_argument(
        "--gallery", type=local_path, metavar="FOLDER", help="folder of images to search"
    )
    gallery.add_argument(
        "--index",
        type=index_path,
        metavar="FILE.npz",
        help="index to search, written by `siamese-keras index`",
    )
    add_invert_option(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, only this machine); 0.0.0.0 opens the "
        "page to other machines, without a password",
    )
    parser.add_argument(
        "--port",
        type=_port,
        help="port to listen on (default: 7860, or a free one if that is in use)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args(argv)

    def program() -> None:
        from siamese_keras.demo_server import check_gradio, serve

        check_gradio()
        serve(
            load_chosen(options.model, invert=options.invert),
            options.index or options.gallery,
            host=options.host,
            port=options.port,
            open_browser=not options.no_browser,
        )

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port between 1 and 65535, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

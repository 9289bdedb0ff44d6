"""The command `siamese-keras`: `siamese-keras train ...` is `python -m siamese_keras.train ...`."""

from __future__ import annotations

import argparse
import importlib
import sys

from siamese_keras._version import __version__

PROGRAMS = {
    "train": "train a Siamese network, score it and write a run",
    "evaluate": "score a run on its test images",
    "report": "write the report page of a run, or compare several",
    "export": "export a run for TensorFlow Serving, LiteRT or ONNX",
    "predict": "compare image files, or search a folder or an index",
    "demo": "open a page to compare and search images in a browser",
    "index": "embed a folder of images, for quick searches",
    "embed": "write the embeddings of a folder of images",
    "diagrams": "draw the architecture diagrams",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    lines = "\n".join(f"  {name:10s} {text}" for name, text in PROGRAMS.items())
    parser = argparse.ArgumentParser(
        prog="siamese-keras",
        usage="%(prog)s COMMAND ...",
        description="Siamese networks in Keras: do two images show the same class?",
        epilog=f"commands:\n{lines}\n\n`siamese-keras COMMAND --help` lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=PROGRAMS, metavar="COMMAND", help="command to run")
    arguments = sys.argv[1:] if argv is None else argv
    command = parser.parse_args(arguments[:1]).command
    program = importlib.import_module(f"siamese_keras.{command}")
    return program.main(arguments[1:], prog=f"siamese-keras {command}")


if __name__ == "__main__":
    sys.exit(main())

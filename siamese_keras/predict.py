"""Ask a model about image files.

    python -m siamese_keras.predict LEFT RIGHT
    python -m siamese_keras.predict QUERY --gallery FOLDER [--top 5]

The first command compares two images, the second finds the images of a folder that are nearest to
one image. Image files of any usual kind, size and color are accepted. Asks the only model below
`saved_models/`, the one named with `--model`, or with `--url` a running TensorFlow Serving.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.errors import ArgumentError
from siamese_keras.serving.address import check_model_url


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.predict") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog,
        "Compare two image files, or find the nearest images of a folder.",
        usage="%(prog)s [options] LEFT RIGHT\n       %(prog)s [options] QUERY --gallery FOLDER",
    )
    parser.add_argument("images", type=local_path, nargs="+", metavar="IMAGE", help="image file")
    parser.add_argument("--gallery", type=local_path, help="folder of images to search")
    parser.add_argument("--top", type=int, default=5, help="how many to find (default: 5)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--model",
        type=local_path,
        help="folder of an exported model, of one of its versions, or of a run (default: the only "
        "model below saved_models/)",
    )
    model.add_argument(
        "--url",
        type=_model_url,
        help="ask a TensorFlow Serving: http://HOST:8501/v1/models/fashion_mnist",
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="seconds to wait for --url (default: 10)"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="invert the images: for dark things on a light ground, as in most photos; "
        "Fashion-MNIST shows light things on black",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    options = parser.parse_intermixed_args(argv)
    if len(options.images) != (2 if options.gallery is None else 1):
        parser.error("expected LEFT and RIGHT, or QUERY and --gallery FOLDER")
    if options.top < 1:
        parser.error(f"--top must be at least 1. Received: {options.top}")
    if not (options.timeout > 0 and math.isfinite(options.timeout)):
        parser.error(f"--timeout must be positive. Received: {options.timeout:g}")

    def program() -> None:
        from siamese_keras.serving.client import only_model
        from siamese_keras.verifier import load_verifier

        source = options.url or options.model or only_model(Path("saved_models"))
        verifier = load_verifier(source, timeout=options.timeout, invert=options.invert)
        if options.gallery is None:
            answer = verifier.compare(*options.images)
            pair = {
                "distance": float(answer.distance),
                "similarity": float(answer.similarity),
                "same": bool(answer.same),
            }
            decision = "same" if answer.same else "different"
            text = f"{decision}  distance {answer.distance:.3f}  similarity {answer.similarity:.3f}"
            print(json.dumps(pair) if options.json else text)
            return
        found = verifier.search(options.images[0], options.gallery, top=options.top)
        matches = [{"file": match.file, "distance": match.distance} for match in found]
        lines = (f"{match['distance']:.3f}  {match['file']}" for match in matches)
        print(json.dumps(matches) if options.json else "\n".join(lines))

    return run_program(program, traceback=options.traceback)


def _model_url(text: str) -> str:
    try:
        check_model_url(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


if __name__ == "__main__":
    sys.exit(main())

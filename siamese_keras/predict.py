"""Ask an exported model about image files.

    python -m siamese_keras.predict LEFT RIGHT
    python -m siamese_keras.predict QUERY --gallery FOLDER [--top 5]

The first tells whether two images show the same kind of thing, the second finds the images of a
folder that are nearest to one image. PNG and JPEG files of any size and colour will do. Asks the
newest version of saved_models/fashion_mnist, or by `--url` a running TensorFlow Serving.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from siamese_keras.command_line import run_program
from siamese_keras.data.decode import invert_image
from siamese_keras.serving.client import (
    Ask,
    ModelError,
    RefusedError,
    connect,
    load_saved_model,
    newest_version,
    plain_reason,
)

_log = logging.getLogger(__name__)
_SUFFIXES = (".png", ".jpg", ".jpeg")


def compare(ask: Ask, left: Path, right: Path, *, invert: bool = False) -> dict[str, Any]:
    """Compare two image files.

    Args:
        ask: The model, from `load_saved_model` or `connect`.
        left: A PNG or JPEG file.
        right: Another.
        invert: Ask about the negatives.

    Returns:
        `"distance"`; `"similarity"` in [0, 1], 0.5 at the threshold; `"same"`, the decision.

    Raises:
        OSError: When a file cannot be read.
        ModelError: When a file is no image, or the model cannot be asked.
    """
    files = {"left": [_read(left, invert)], "right": [_read(right, invert)]}
    try:
        answer = ask("compare_bytes", files)
    except RefusedError as error:
        raise RefusedError(f"`{left}`, `{right}`: {error}") from None
    return {name: _only(answer, name, rank=1).item() for name in ("distance", "similarity", "same")}


def nearest(
    ask: Ask, query: Path, gallery: Path, *, top: int = 5, invert: bool = False
) -> list[dict[str, Any]]:
    """Find the images of a folder that are nearest to one image.

    A file that is no image is left out with a warning, and so is the query itself without one.

    Args:
        ask: The model, from `load_saved_model` or `connect`.
        query: A PNG or JPEG file.
        gallery: Folder with such files; those in its subfolders count.
        top: How many to return at most.
        invert: Ask about the negatives.

    Returns:
        `"file"` and `"distance"` of each, the nearest first.

    Raises:
        OSError: When a file or the folder cannot be read.
        ModelError: When the query is no image, the folder has none, or the model cannot be asked.
    """
    if not gallery.is_dir():
        raise ModelError(f"The gallery `{gallery}` is not a folder.")
    wanted = _embed(ask, query, invert)
    found: list[dict[str, Any]] = []
    for path in sorted(gallery.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file() or path.samefile(query):
            continue
        try:
            distance = float(np.linalg.norm(_embed(ask, path, invert) - wanted))
        except RefusedError as error:
            _log.warning("Left out: %s", error)
            continue
        found.append({"file": str(path), "distance": distance})
    if not found:
        raise ModelError(f"The gallery `{gallery}` has no image that can be read: PNG or JPEG.")
    return sorted(found, key=lambda item: item["distance"])[:top]


def _embed(ask: Ask, path: Path, invert: bool) -> np.ndarray:
    content = _read(path, invert)
    try:
        return _only(ask("embed_bytes", {"images": [content]}), "embedding", rank=2)
    except RefusedError as error:
        raise RefusedError(f"`{path}`: {error}") from None


def _read(path: Path, invert: bool) -> bytes:
    content = path.read_bytes()
    if not invert:
        return content
    try:
        return invert_image(tf.constant(content)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise RefusedError(f"`{path}`: {plain_reason(error.message)}") from None


def _only(answer: dict[str, np.ndarray], name: str, *, rank: int) -> np.ndarray:
    """Return the one row of an output of numbers, `[1]` or `[1, d]` by its rank."""
    values = answer.get(name, np.empty(0))
    if values.ndim != rank or len(values) != 1 or values.dtype.kind not in "bif":
        raise ModelError("The model that was asked is not an export of this package.")
    return values[0]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m siamese_keras.predict",
        usage="%(prog)s [options] LEFT RIGHT\n       %(prog)s [options] QUERY --gallery FOLDER",
        description="Tell whether two images show the same kind of thing, or find the nearest.",
        allow_abbrev=False,
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG or JPEG file")
    parser.add_argument("--gallery", type=Path, help="folder of images to search")
    parser.add_argument("--top", type=int, default=5, help="how many to find (default: 5)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--model",
        type=Path,
        default=Path("saved_models/fashion_mnist"),
        help="folder of an exported model, or of one version (default: saved_models/fashion_mnist)",
    )
    model.add_argument(
        "--url", help="ask a TensorFlow Serving: http://host:8501/v1/models/fashion_mnist"
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="seconds to wait for --url (default: 10)"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="take the images' negatives: for dark things on a light ground, as in most photos; "
        "Fashion-MNIST shows light things on black",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    options = parser.parse_intermixed_args(argv)
    if len(options.images) != (2 if options.gallery is None else 1):
        parser.error("expected LEFT and RIGHT, or QUERY and --gallery FOLDER")
    if options.top < 1:
        parser.error(f"--top must be at least 1. Received: {options.top}")
    if not 0 < options.timeout < float("inf"):
        parser.error(f"--timeout must be positive. Received: {options.timeout:g}")
    if options.url is not None and not _is_model_url(options.url):
        parser.error(f"--url must be http://HOST:PORT/v1/models/NAME. Received: {options.url}")

    def program() -> None:
        if options.url is not None:
            ask = connect(options.url.rstrip("/"), timeout=options.timeout)
        else:
            ask = load_saved_model(newest_version(options.model))
        if options.gallery is None:
            pair = compare(ask, *options.images, invert=options.invert)
            decision = "same" if pair["same"] else "different"
            text = "{}  distance {distance:.3f}  similarity {similarity:.3f}".format(
                decision, **pair
            )
            print(json.dumps(pair) if options.json else text)
        else:
            (query,) = options.images
            found = nearest(ask, query, options.gallery, top=options.top, invert=options.invert)
            lines = (f"{item['distance']:.3f}  {item['file']}" for item in found)
            print(json.dumps(found) if options.json else "\n".join(lines))

    return run_program(program)


def _is_model_url(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and parts.path.startswith("/v1/models/")
        )
    except ValueError:  # a port that is no number
        return False


if __name__ == "__main__":
    sys.exit(main())

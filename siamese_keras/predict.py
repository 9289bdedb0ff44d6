"""Compare and search image files with a model.

    python -m siamese_keras.predict LEFT RIGHT
    python -m siamese_keras.predict QUERY [QUERY ...] --gallery FOLDER [--top 5]
    python -m siamese_keras.predict QUERY [QUERY ...] --index gallery.npz [--top 5]
    python -m siamese_keras.predict --pairs pairs.csv --output out.csv
    python -m siamese_keras.predict --all-pairs FOLDER [--threshold 0.1]

Compares two images; finds the images of a folder, or of an index that `siamese-keras index` wrote,
that are nearest to each query; compares the pairs of a CSV file, or all images of a folder with
each other. Image files of any usual kind, size and color are accepted. Asks the only model below
`saved_models/`, the one named with `--model`, or with `--url` a running TensorFlow Serving.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.errors import ModelError
from siamese_keras.model_options import (
    add_model_options,
    add_threshold_options,
    at_threshold,
    has_threshold,
    index_path,
    load_from_options,
)

if TYPE_CHECKING:
    from siamese_keras.verifier import Verifier

_FORMS = "LEFT and RIGHT, QUERY and --gallery FOLDER or --index FILE, --pairs FILE, or --all-pairs"


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.predict") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog,
        "Compare image files, or find the nearest images of a folder or an index.",
        usage="%(prog)s [options] LEFT RIGHT\n"
        "       %(prog)s [options] QUERY [QUERY ...] --gallery FOLDER\n"
        "       %(prog)s [options] QUERY [QUERY ...] --index FILE.npz\n"
        "       %(prog)s [options] --pairs FILE.csv --output FILE.csv\n"
        "       %(prog)s [options] --all-pairs FOLDER",
    )
    parser.add_argument("images", type=local_path, nargs="*", metavar="IMAGE", help="image file")
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--gallery", type=local_path, metavar="FOLDER", help="folder to search")
    task.add_argument(
        "--index",
        type=index_path,
        metavar="FILE.npz",
        help="index to search, written by `siamese-keras index`; lists only images within the "
        "threshold",
    )
    task.add_argument(
        "--pairs",
        type=local_path,
        metavar="FILE",
        help="CSV file of pairs to compare: the columns left and right hold paths relative to it",
    )
    task.add_argument(
        "--all-pairs",
        type=local_path,
        metavar="FOLDER|FILE.npz",
        help="compare all images of a folder or index with each other, and list the pairs within "
        "the threshold, nearest first; a small --threshold finds near-duplicates",
    )
    parser.add_argument(
        "--top",
        type=int,
        help="how many to find for each query (default: 5), or pairs to list (default: all)",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="CSV file to write for --pairs, with distance, similarity, same and error added",
    )
    add_model_options(parser)
    add_threshold_options(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    options = parser.parse_intermixed_args(argv)
    _check_options(parser, options)

    def program() -> int:
        from siamese_keras.files import check_output

        if options.pairs is not None:
            check_output(options.output, ".csv")
        verifier = at_threshold(load_from_options(options), options)
        if options.pairs is not None:
            return _compare_file(verifier, options)
        if options.all_pairs is not None:
            _near_duplicates(verifier, options)
        elif options.gallery is not None or options.index is not None:
            _search(verifier, options)
        else:
            _compare(verifier, options)
        return 0

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


def _check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    searches = options.gallery is not None or options.index is not None
    lists = options.pairs is not None or options.all_pairs is not None
    number = len(options.images)
    if not (number >= 1 if searches else number == 0 if lists else number == 2):
        parser.error(f"expected {_FORMS}. Received: {number} images")
    if (options.pairs is None) != (options.output is None):
        parser.error("--pairs and --output must be given together")
    if options.pairs is not None and options.json:
        parser.error("argument --json: not allowed with --pairs, which writes a CSV file")
    if options.top is not None and options.top < 1:
        parser.error(f"--top must be at least 1. Received: {options.top}")
    if options.top is not None and not (searches or options.all_pairs is not None):
        parser.error("argument --top: needs --gallery, --index or --all-pairs")


def _compare(verifier: Verifier, options: argparse.Namespace) -> None:
    answer = verifier.compare(*options.images, prior=options.prior or 0.5)
    pair = {
        "distance": float(answer.distance),
        "similarity": float(answer.similarity),
        "same": bool(answer.same),
    }
    decision = "same" if answer.same else "different"
    text = f"{decision}  distance {answer.distance:.3f}  similarity {answer.similarity:.3f}"
    print(json.dumps(pair) if options.json else text)


def _search(verifier: Verifier, options: argparse.Namespace) -> None:
    from siamese_keras.progress import progress_line

    filters = options.index is not None or has_threshold(options)
    if filters and verifier.threshold is None:
        raise ModelError("A server does not report its threshold: set one with --threshold.")
    found = verifier.search(
        options.images,
        options.index or options.gallery,
        top=options.top or 5,
        within=verifier.threshold if filters else None,
        progress=progress_line("images"),
    )
    queries = list(map(str, options.images))
    if options.json:
        listed = [[{"file": m.file, "distance": m.distance} for m in ms] for ms in found]
        pairs = zip(queries, listed, strict=True)
        print(json.dumps([{"query": query, "matches": matches} for query, matches in pairs]))
        return
    for query, matches in zip(queries, found, strict=True):
        start = f"{query}  " if len(queries) > 1 else ""
        lines = [f"{match.distance:.3f}  {match.file}" for match in matches] or ["no match"]
        for line in lines:
            print(start + line)


def _near_duplicates(verifier: Verifier, options: argparse.Namespace) -> None:
    from siamese_keras.progress import progress_line

    pairs = verifier.near_duplicates(options.all_pairs, progress=progress_line("images"))
    pairs = pairs[: options.top]
    if options.json:
        print(json.dumps([{"left": a, "right": b, "distance": d} for a, b, d in pairs]))
        return
    for left, right, distance in pairs:
        print(f"{distance:.3f}  {left}  {right}")


def _compare_file(verifier: Verifier, options: argparse.Namespace) -> int:
    from siamese_keras.progress import progress_line

    compared, failed = verifier.compare_file(
        options.pairs,
        options.output,
        prior=options.prior or 0.5,
        progress=progress_line("pairs"),
    )
    print(f"{options.output}: {compared + failed} pairs")
    if failed:
        print(
            f"error: {failed} of {compared + failed} pairs could not be compared: see the column "
            f"`error` of {options.output}",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Options that several programs share: which model to ask, and at which threshold."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from siamese_keras.command_line import local_path
from siamese_keras.errors import ArgumentError
from siamese_keras.serving.address import check_model_url

if TYPE_CHECKING:
    from siamese_keras.verifier import Verifier

_log = logging.getLogger(__name__)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options `--model`, `--url`, `--timeout` and `--invert`."""
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
        help="query a TensorFlow Serving server: http://HOST:8501/v1/models/fashion_mnist",
    )
    parser.add_argument(
        "--timeout",
        type=_number("a number of seconds up to 1e6", lambda x: 0 < x <= 1e6),
        help="seconds to wait for --url (default: 10)",
    )
    add_invert_option(parser)


def add_invert_option(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--invert`."""
    parser.add_argument(
        "--invert",
        action="store_true",
        help="invert the images: for dark objects on a light background when the training images "
        "show light objects on black, as Fashion-MNIST does",
    )


def add_threshold_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options `--threshold`, `--far` and `--prior`, of which one may be used."""
    group = parser.add_argument_group(
        "threshold",
        "Largest distance at which two images count as same (default: the model's own).",
    ).add_mutually_exclusive_group()
    group.add_argument(
        "--threshold",
        type=_number("a distance of at least 0", lambda x: x >= 0),
        metavar="DISTANCE",
        help="decide at this distance",
    )
    group.add_argument(
        "--far",
        type=_number("a share between 0 and 1", lambda x: 0 < x < 1),
        metavar="RATE",
        help="the threshold that accepts at most this share of different pairs, such as 0.001, "
        "counted on validation pairs",
    )
    group.add_argument(
        "--prior",
        type=_number("a share between 0 and 1", lambda x: 0 < x < 1),
        metavar="SHARE",
        help="the threshold with the fewest errors if this share of all pairs is same, such as "
        "0.01",
    )


def load_from_options(options: argparse.Namespace) -> Verifier:
    """Load the model that the options of `add_model_options` name."""
    if options.timeout is not None and options.url is None:
        raise ArgumentError("--timeout is for --url, the server to wait for.")
    source = options.url or options.model
    timeout = 10.0 if options.timeout is None else options.timeout
    return load_chosen(source, timeout=timeout, invert=options.invert)


def load_chosen(
    source: str | Path | None, *, timeout: float = 10.0, invert: bool = False
) -> Verifier:
    """Load a model; None is the only model below `saved_models/`, which is named in a message."""
    from siamese_keras.serving.client import only_model
    from siamese_keras.verifier import load_verifier

    if source is None:
        source = only_model(Path("saved_models"))
        _log.info("Using the model %s.", source)
    return load_verifier(source, timeout=timeout, invert=invert)


def at_threshold(verifier: Verifier, options: argparse.Namespace) -> Verifier:
    """Apply the options of `add_threshold_options`, and say what a rate rests on."""
    if not has_threshold(options):
        return verifier
    chosen = verifier.with_threshold(options.threshold, far=options.far, prior=options.prior)
    if options.far is not None:
        point = verifier.operating_point(options.far)
        low, high = point.rate_ci95
        _log.info(
            "Threshold %.4f: false accept rate %.3g (95 %% interval %.3g to %.3g) on %s different "
            "validation pairs.",
            point.threshold, point.rate, low, high, f"{point.different_pairs:,}",
        )  # fmt: skip
    elif options.prior is not None:
        _log.info("Threshold %.4f for a prior of %g.", chosen.threshold, options.prior)
    return chosen


def has_threshold(options: argparse.Namespace) -> bool:
    """Return whether one of the options of `add_threshold_options` was used."""
    return (options.threshold, options.far, options.prior) != (None, None, None)


def index_path(text: str) -> Path:
    """Parse the path of an index."""
    path = local_path(text)
    if path.suffix.lower() != ".npz":
        raise argparse.ArgumentTypeError(f"expected an index, FILE.npz, not {text!r}")
    return path


def _number(expected: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
        return value

    return parse


def _model_url(text: str) -> str:
    try:
        check_model_url(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text

"""The address of a model of a TensorFlow Serving. Importing it does not load TensorFlow."""

from __future__ import annotations

import urllib.parse

from siamese_keras.errors import ArgumentError


def check_model_url(url: str) -> None:
    """Raise unless `url` is the address of a model of a TensorFlow Serving.

    Raises:
        ArgumentError: When it is not `http://HOST:PORT/v1/models/NAME`.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        fits = False
    fits &= url.isascii() and url.isprintable() and " " not in url
    if not fits or not parts.path.startswith("/v1/models/"):
        raise ArgumentError(f"`url` must be http://HOST:PORT/v1/models/NAME. Received: {url}")

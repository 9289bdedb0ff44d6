"""The answers of the demo page as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from siamese_keras.data.image_files import printable

CSS = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
.demo-upload img { width: 100%; height: 100%; object-fit: contain; }
.demo-seen { display: flex; flex-wrap: wrap; gap: 0.5rem 1rem; align-items: center; margin: 0; }
.demo-seen figcaption { flex: 1 1 8rem; }
.demo-seen img { width: 7rem; height: 7rem; object-fit: contain; image-rendering: pixelated;
    background: #000; border-radius: 4px; flex: none; }
.demo-small { color: var(--body-text-color-subdued); font-size: 0.875rem; }
.demo-decision { font-size: 1.75rem; font-weight: 600; margin: 0 0 0.5rem; }
.demo-decision::before { margin-right: 0.5rem; }
.demo-same .demo-decision { color: #15803d; }
.demo-same .demo-decision::before { content: "="; }
.demo-different .demo-decision { color: #b45309; }
.demo-different .demo-decision::before { content: "≠"; }
.dark .demo-same .demo-decision { color: #4ade80; }
.dark .demo-different .demo-decision { color: #fbbf24; }
.demo-answer dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.5rem 1rem;
    align-items: baseline; margin: 0; }
.demo-answer dd { margin: 0; }
.demo-answer dd b { font-variant-numeric: tabular-nums; margin-right: 0.5rem; }
.demo-problem { border-left: 4px solid #dc2626; padding: 0.25rem 0.75rem; margin: 0;
    overflow-wrap: anywhere; }
.demo-matches { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem;
    list-style: none; padding: 0; margin: 0; }
@media (max-width: 640px) { .demo-matches { grid-template-columns: repeat(2, 1fr); } }
.demo-matches img, .demo-gone { width: 100%; aspect-ratio: 1; object-fit: contain; background: #000;
    border-radius: 4px; image-rendering: pixelated; }
.demo-gone { display: grid; place-items: center; color: #fff; }
.demo-matches figure { margin: 0; }
.demo-matches figcaption { overflow-wrap: anywhere; }
"""


def problem_html(message: str) -> str:
    """Return an error in one line."""
    return f'<p class="demo-problem" role="alert">{escape(" ".join(message.split()))}</p>'


def seen_html(png: bytes, shape: Sequence[int], side: str, *, flat: bool) -> str:
    """Return an image as the network sees it, with its size.

    Args:
        png: The image.
        shape: Height, width and channels.
        side: Which image it is, such as "left".
        flat: Whether it is of nearly one color.
    """
    height, width, channels = shape
    kind = "gray" if channels == 1 else "color"
    note = " It is nearly one color: the network sees next to nothing." if flat else ""
    return (
        f'<figure class="demo-seen"><img src="{_data(png)}" alt="The {side} image as the network '
        f'sees it"><figcaption class="demo-small">As the network sees it: {width} x {height} '
        f"pixels, {kind}.{note}</figcaption></figure>"
    )


def answer_html(distance: float, similarity: float, *, same: bool) -> str:
    """Return the answer about two images."""
    decision = "same" if same else "different"
    return (
        f'<div class="demo-answer demo-{decision}" role="status">'
        f'<p class="demo-decision">{decision}</p><dl>'
        f'<dt>Distance</dt><dd><b class="demo-distance">{distance:.3f}</b><span '
        'class="demo-small">Euclidean distance of the two embeddings; 0 for identical images.'
        "</span></dd>"
        f'<dt>Similarity</dt><dd><b class="demo-similarity">{similarity:.3f}</b><span '
        'class="demo-small">Estimated probability that both show the same class, when half of '
        "all pairs do. It does not depend on the slider.</span></dd></dl></div>"
    )


def within_html(same: int, found: int) -> str:
    """Return how many of the nearest images are within the threshold."""
    text = f"{same} of the {found} nearest images are within this threshold."
    return f'<p class="demo-within" role="status">{text}</p>'


def matches_html(matches: Sequence[tuple[str, float, bytes | None]]) -> str:
    """Return the images that a search found.

    Args:
        matches: Name, distance and PNG file of each; None where the file cannot be read any more.
    """
    return f'<ol class="demo-matches">{"".join(_match(*match) for match in matches)}</ol>'


def _match(name: str, distance: float, png: bytes | None) -> str:
    name = printable(name)
    image = '<span class="demo-gone">file is gone</span>'
    if png is not None:
        image = f'<img src="{_data(png)}" alt="{escape(name)}">'
    return (
        f'<li><figure>{image}<figcaption><b>{distance:.3f}</b> <span class="demo-small">'
        f"{escape(name)}</span></figcaption></figure></li>"
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()

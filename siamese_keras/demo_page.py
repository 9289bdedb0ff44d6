"""The page of `siamese-keras demo`: what it computes, and its layout.

Gradio draws the page. It is imported only when a page is built, since it is an extra.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamese_keras.data.datasets import FASHION_MNIST_CLASSES, load_local
from siamese_keras.data.photo import is_flat, png_of, read_photo, thumbnail
from siamese_keras.demo_html import (
    answer_html,
    matches_html,
    problem_html,
    seen_html,
    within_html,
)
from siamese_keras.errors import ModelError, SiameseKerasError
from siamese_keras.gallery_index import Index
from siamese_keras.search import search

if TYPE_CHECKING:
    from siamese_keras.verifier import Verifier

_MATCHES = 8
_EXAMPLES_OF_A_CLASS = 20
_EXAMPLE_PAIRS = (
    ("sneaker-1", "sneaker-2"),
    ("sneaker-1", "boot-1"),
    ("dress-1", "dress-2"),
    ("shirt-1", "T-shirt-1"),
    ("bag-1", "trouser-1"),
)


# What the page keeps of two images, distance and similarity, so that a new threshold needs no new
# embedding.
Pair = list[float]


class Demo:
    """The functions behind the page: paths of uploaded files in, HTML out.

    Args:
        verifier: The model; not a server, which does not report its threshold.
        gallery: Images to search, from `Verifier.open_gallery`, or None.
    """

    def __init__(self, verifier: Verifier, gallery: Index | None = None) -> None:
        if verifier.calibration is None or verifier.config is None:
            raise ModelError(
                "The demo needs a run or an export: a server does not report its threshold."
            )
        self.verifier = verifier
        self.gallery = gallery
        self.threshold = verifier.calibration.threshold
        is_fitted = self.threshold == verifier.calibration.midpoint
        self.origin = "fitted on validation pairs" if is_fitted else "chosen by the user"
        self.shown_threshold = round(self.threshold, 3)  # the slider has steps of 0.001
        is_described = not verifier.training.get("own_base_model")
        unit_length = is_described and verifier.config.unit_length and self.threshold < 2
        self.max_distance = 2.0 if unit_length else math.ceil(3 * self.threshold)
        # Asked about pixels that `decode` has inverted already.
        self._decoded = copy.copy(verifier)
        self._decoded.invert = False

    def compare(self, left: str | None, right: str | None) -> tuple[str, str, Pair | None]:
        """Compare two image files.

        Args:
            left: Path of the left file, or None while there is none.
            right: Path of the right one.

        Returns:
            Each image as the model sees it, or what is wrong with its file, and the pair.
        """
        left_pixels, left_shown = self._look(left, "left")
        right_pixels, right_shown = self._look(right, "right")
        if left_pixels is None or right_pixels is None:
            return left_shown, right_shown, None
        answer = self._decoded.compare(left_pixels, right_pixels)
        return left_shown, right_shown, [float(answer.distance), float(answer.similarity)]

    def decide(self, pair: Pair | None, threshold: float) -> str:
        """Return the answer about a pair at a threshold."""
        if pair is None:
            return ""
        distance, similarity = pair
        return answer_html(distance, similarity, same=distance <= self._exact(threshold))

    def search(self, query: str | None) -> tuple[str, list[float] | None, str]:
        """Find the images of the gallery that are nearest to an image file; there must be one.

        Args:
            query: Path of the file, or None while there is none.

        Returns:
            The query as the model sees it, or what is wrong with its file; the distances of the
            nearest images; and the images.
        """
        pixels, shown = self._look(query, "query")
        if pixels is None or self.gallery is None:
            return shown, None, ""
        found: Any = search(self._decoded.embed, pixels, self.gallery, top=_MATCHES, batch_size=1)
        folder = Path(self.gallery.folder)
        figures = [(m.file, m.distance, _thumbnail(folder / m.file)) for m in found]
        return shown, [match.distance for match in found], matches_html(figures)

    def count(self, distances: list[float] | None, threshold: float) -> str:
        """Return how many of the images that a search found are same at a threshold."""
        if distances is None:
            return ""
        limit = self._exact(threshold)
        return within_html(sum(distance <= limit for distance in distances), len(distances))

    def _exact(self, threshold: float) -> float:
        """Return the threshold of the model where the slider shows it, rounded."""
        return self.threshold if threshold == self.shown_threshold else threshold

    def _look(self, path: str | None, side: str) -> tuple[np.ndarray | None, str]:
        """Return the pixels of a file as the model sees it, and their picture or a problem."""
        if path is None:
            return None, ""
        try:
            pixels = self.verifier.decode(path)
        except (SiameseKerasError, OSError) as error:
            return None, problem_html(str(error).replace(path, Path(path).name))
        return pixels, seen_html(_png(pixels), pixels.shape, side, flat=is_flat(pixels))


def _thumbnail(path: Path) -> bytes | None:
    """Return a small picture of an image file as PNG; None where it is gone or damaged."""
    try:
        return png_of(thumbnail(read_photo(path.read_bytes())))
    except (SiameseKerasError, OSError):
        return None


def _png(pixels: np.ndarray) -> bytes:
    """Return uint8 `[height, width, 1 or 3]` as the bytes of a PNG file."""
    color = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return png_of(np.concatenate([color, opaque], axis=2))


def write_examples(folder: Path) -> list[list[str]]:
    """Write Fashion-MNIST test images, if they are on this machine, as `CLASS-NUMBER.png`.

    Args:
        folder: An empty folder.

    Returns:
        Pairs of files to compare; none when the images are not on this machine.
    """
    source = load_local("fashion_mnist")
    if source is None or source.test is None:
        return []
    for label, name in enumerate(FASHION_MNIST_CLASSES):
        places = np.flatnonzero(source.test.labels == label)[:_EXAMPLES_OF_A_CLASS]
        for number, image in enumerate(source.test.images[places], 1):
            (folder / f"{name}-{number}.png").write_bytes(_png(image))
    return [[str(folder / f"{name}.png") for name in pair] for pair in _EXAMPLE_PAIRS]


def build_page(demo: Demo, examples: list[list[str]]) -> Any:
    """Return the page as Gradio's `Blocks`.

    Args:
        demo: The functions behind it.
        examples: Pairs of image files to offer.
    """
    import gradio as gr

    verifier = demo.verifier
    # Each output is computed by one function, which is called again with the latest inputs when it
    # was busy: a stale answer never replaces a newer one. Gradio's queue loses answers that
    # overlap.
    options = {
        "api_visibility": "private",
        "queue": False,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }

    def image(label: str, elem_id: str) -> Any:
        made = gr.Image(
            label=label, elem_id=elem_id, elem_classes="demo-upload", type="filepath",
            sources=["upload", "clipboard"], height=220, buttons=[], alt_text=label,
        )  # fmt: skip
        # Gradio would open the file with Pillow, beyond our limit of pixels and our messages.
        made.preprocess = lambda payload: payload and payload.path
        return made

    with gr.Blocks(title="siamese_keras demo", analytics_enabled=False) as page:
        gr.Markdown(f"# Do two images show the same class?\n\n{_about(verifier)}")
        threshold = gr.Slider(
            0, demo.max_distance, demo.shown_threshold, step=0.001, label="Threshold",
            elem_id="threshold",
            info="Two images count as same when their distance is at most this. The threshold of "
            f"the model is {demo.threshold:.3f}, {demo.origin}. A smaller one accepts "
            "fewer different pairs, a larger one misses fewer same pairs.",
        )  # fmt: skip
        with gr.Tab("Compare"):
            pair = gr.JSON(visible="hidden")
            with gr.Row():
                with gr.Column(min_width=130):
                    left = image("Left image", "left")
                    left_seen = gr.HTML(elem_id="left-seen")
                with gr.Column(min_width=130):
                    right = image("Right image", "right")
                    right_seen = gr.HTML(elem_id="right-seen")
            answer = gr.HTML(elem_id="answer")
            if examples:
                gr.Examples(examples, [left, right], label="Examples (test images)")
            gr.on(
                [left.change, right.change], demo.compare, [left, right],
                [left_seen, right_seen, pair], **options,
            )  # fmt: skip
            gr.on(
                [pair.change, threshold.change], demo.decide, [pair, threshold], answer, **options
            )
        if demo.gallery is None:
            gr.Markdown(
                "To search images with a picture, start the demo with `--gallery FOLDER` or "
                "`--index FILE.npz`."
            )
            return page
        with gr.Tab("Search"):
            distances = gr.JSON(visible="hidden")
            gr.Markdown(f"Finds the nearest of {len(demo.gallery):,} images.")
            with gr.Row():
                with gr.Column(min_width=130):
                    query = image("Query image", "query")
                with gr.Column(min_width=130):
                    query_seen = gr.HTML(elem_id="query-seen")
            count = gr.HTML(elem_id="count")
            matches = gr.HTML(elem_id="matches")
            if examples:
                firsts = list(dict.fromkeys(path for row in examples for path in row))
                gr.Examples([[path] for path in firsts], [query], label="Examples (test images)")
            query.change(demo.search, query, [query_seen, distances, matches], **options)
            gr.on(
                [distances.change, threshold.change], demo.count, [distances, threshold], count,
                **options,
            )  # fmt: skip
    return page


def _about(verifier: Verifier) -> str:
    names = verifier.training.get("classes", verifier.class_names)
    listed = f": {', '.join(names)}" if len(names) <= 20 else ""
    inverted = " Images are inverted." if verifier.invert else ""
    return f"Model `{verifier.name}`, trained on {len(names)} classes{listed}.{inverted}"

import itertools

import numpy as np
import pytest

from siamese_keras.data.pairs import evaluation_pairs
from siamese_keras.data.splits import Split
from siamese_keras.evaluation.figures import report_figures
from siamese_keras.evaluation.metrics import pair_distances
from siamese_keras.models.calibration import Calibration

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("cat", "dog", "cow", "hen")
HISTORY = {
    prefix + name: [0.5, 0.4]
    for prefix in ("", "val_")
    for name in ("contrastive_loss", "midpoint_accuracy")
}


def drawn(rng, *, names=NAMES, labels=None, noise=0.6, dimensions=4, history=HISTORY):
    """Draw the figures of made embeddings of about eight images a class; return the distances."""
    labels = np.repeat(np.arange(len(names)), 8) if labels is None else labels
    centers = rng.normal(size=(len(names), dimensions)) * 2
    embeddings = centers[labels] + rng.normal(size=(len(labels), dimensions)) * noise
    test = Split(rng.integers(0, 256, (len(labels), 6, 6, 1), np.uint8), labels)
    pairs = evaluation_pairs(labels)
    distance = pair_distances(embeddings, pairs)
    figures = report_figures(
        test, names, embeddings, pairs, distance, Calibration(1.8, 3.0), history
    )
    return figures, pairs, distance


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def draw(figures):
    for figure in figures.values():
        figure.draw_without_rendering()


def test_there_is_a_figure_for_each_question(rng):
    figures, _, _ = drawn(rng)
    assert set(figures) == {
        "class-errors", "distances", "embedding", "history", "reliability", "roc-and-det",
        "test-pairs", "worst-mistakes",
    }  # fmt: skip
    draw(figures)


def test_without_a_history_there_is_no_figure_of_it(rng):
    figures, _, _ = drawn(rng, history={})
    assert "history" not in figures
    assert "test-pairs" in figures


def test_the_worst_mistakes_are_those_farthest_from_the_threshold(rng):
    figures, pairs, distance = drawn(rng, noise=1.5)
    wrong = (distance <= 1.8) == (pairs.different == 1)
    worst = sorted(distance[wrong], key=lambda d: -abs(d - 1.8))[:16]
    assert len(worst) == 16 < wrong.sum()
    verdicts = [text for text in texts(figures["worst-mistakes"]) if "distance" in text]
    assert all("wrong" in text for text in verdicts)
    assert [text.rsplit(" ", 1)[1] for text in verdicts] == [f"{d:.2f}" for d in worst]


def test_without_mistakes_there_is_no_figure_of_them(rng):
    figures, pairs, distance = drawn(rng, noise=0.01)
    assert ((distance <= 1.8) == (pairs.different == 0)).all()
    assert "worst-mistakes" not in figures
    draw(figures)


def test_classes_without_test_images_are_not_drawn(rng):
    figures, _, _ = drawn(rng, labels=np.repeat([0, 2, 3], 8))
    assert [t.get_text() for t in figures["class-errors"].axes[0].get_yticklabels()] == [
        "cat",
        "cow",
        "hen",
    ]
    written = {text.get_position() for text in figures["class-errors"].axes[0].texts}
    assert written == set(itertools.product(range(3), repeat=2))
    assert set(texts(figures["embedding"])) == {"cat", "cow", "hen"}


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_smallest_test_set_has_figures(rng, dimensions):
    figures, _, _ = drawn(rng, labels=np.array([0, 0, 1, 1]), dimensions=dimensions)
    draw(figures)


def test_names_that_no_font_can_draw_become_numbers(rng):
    names = ("кошка", "\U00018b00 plane", "caf\udce9", "$5 $6_x")
    figures, _, _ = drawn(rng, names=names)
    draw(figures)  # a missing glyph would warn
    assert texts(figures["embedding"]) == ["кошка", "class 1", "caf?", r"\$5 \$6_x"]
    assert any("class 1" in text for text in texts(figures["test-pairs"]))

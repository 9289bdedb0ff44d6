import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from scipy.stats import norm

from siamese_keras.evaluation import plots
from siamese_keras.models.calibration import Calibration

pytestmark = pytest.mark.filterwarnings("error")

GREEN, RED = "#009e73", "#cc3311"
HARD_NAMES = [
    "$5 and $6", "caf\udce9", "\\frac{", "кошка", "two\nlines", "$", "x" * 200, "",
]  # fmt: skip


def draw(figure):
    """Lay everything out, which is where matplotlib warns."""
    figure.draw_without_rendering()


def png(figure):
    """Return the figure's picture, `[height, width, 4]`, and the size of its file."""
    file = io.BytesIO()
    figure.savefig(file)
    size = file.tell()
    file.seek(0)
    return imread(file), size


def texts(axes):
    return [text.get_text() for text in axes.texts]


# Training


def history(epochs):
    values = np.linspace(0.9, 0.1, epochs)
    keys = ("contrastive_loss", "midpoint_accuracy")
    return {
        **{key: list(values + i) for i, key in enumerate(keys)},
        **{f"val_{key}": list(values - i) for i, key in enumerate(keys)},
    }


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_history(epochs):
    values = history(epochs)
    figure = plots.plot_history(values)
    draw(figure)
    for axes, key in zip(figure.axes, ("contrastive_loss", "midpoint_accuracy"), strict=True):
        train, validation = axes.lines
        np.testing.assert_array_equal(train.get_xdata(), np.arange(1, epochs + 1))
        np.testing.assert_array_equal(train.get_ydata(), values[key])
        np.testing.assert_array_equal(validation.get_ydata(), values[f"val_{key}"])
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)  # no epoch 0.995


# Pairs


def pairs_figure(rng, *, n=3, shape=(28, 28, 1), names=None, distance=None):
    left, right = rng.integers(0, 256, (2, n, *shape), np.uint8)
    names = [("cat", "cat")] * n if names is None else names
    distance = np.linspace(0.2, 1.8, n) if distance is None else distance
    figure = plots.plot_pairs(left, right, names, distance, Calibration(1.0, 4.0), title="Some")
    return figure, left, right


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pairs_show_the_pixels_as_they_are(rng, channels):
    figure, left, right = pairs_figure(rng, shape=(4, 5, channels))
    picture, _ = png(figure)
    assert picture[..., :3].min() < 0.1  # not scaled, not inverted: some pixels are near black
    shown = figure.axes[0].images
    assert len(shown) == 3
    for image, a, b in zip(shown, left, right, strict=True):
        pixels = np.asarray(image.get_array())
        color = slice(3) if channels >= 3 else 0
        np.testing.assert_array_equal(pixels[:, :5], a[..., color])
        np.testing.assert_array_equal(pixels[:, -5:], b[..., color])
        if channels < 3:
            gray = image.to_rgba(np.array([[0, 128, 255]], float), norm=True)[0, :, 0]
            np.testing.assert_allclose(gray, [0, 128 / 255, 1], atol=0.01)


def test_pairs_are_framed_by_whether_the_decision_is_correct(rng):
    # Threshold 1: the pairs are decided same, same, different, different.
    figure, _, _ = pairs_figure(
        rng,
        n=4,
        names=[("cat", "cat"), ("cat", "dog"), ("cat", "dog"), ("dog", "dog")],
        distance=np.array([0.5, 1.0, 1.5, 2.0]),
    )
    axes = figure.axes[0]
    frames = [to_hex(patch.get_edgecolor()) for patch in axes.patches]
    assert frames == [GREEN, RED, GREEN, RED]
    assert texts(axes) == [
        "Some",
        "cat | cat", "same: correct\nsimilarity 0.88, distance 0.50",
        "cat | dog", "same: wrong\nsimilarity 0.50, distance 1.00",
        "cat | dog", "different: correct\nsimilarity 0.12, distance 1.50",
        "dog | dog", "different: wrong\nsimilarity 0.02, distance 2.00",
    ]  # fmt: skip


@pytest.mark.parametrize("n", [1, 4, 5, 16])
@pytest.mark.parametrize("shape", [(28, 28, 1), (3, 90, 3), (90, 3, 3), (1, 1, 1)])
def test_pairs_lie_side_by_side_inside_the_figure(rng, n, shape):
    figure, _, _ = pairs_figure(rng, n=n, shape=shape, names=[("x" * 99, "W" * 99)] * n)
    figure.draw_without_rendering()
    axes, whole = figure.axes[0], figure.bbox
    boxes = [image.get_window_extent() for image in axes.images]
    boxes += [text.get_window_extent() for text in axes.texts]
    for box in boxes:
        assert all(whole.padded(0.01).contains(*corner) for corner in box.corners())
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    pictures = boxes[:n]
    assert np.ptp([box.width / box.height for box in pictures]) < 1e-6
    gap = max(shape[1] // 14, 1)
    assert pictures[0].width / pictures[0].height == pytest.approx((2 * shape[1] + gap) / shape[0])


# Curves


def separated(n=50):
    return np.arange(n) % 2 == 0, np.where(np.arange(n) % 2 == 0, 0.25, 1.5)


def noise(rng, n=400):
    return rng.random(n) < 0.5, rng.random(n)


def test_roc_and_det(rng):
    same = np.arange(400) % 2 == 0
    distance = np.where(same, 0.5, 1.0) + rng.normal(size=400) * 0.3
    figure = plots.plot_roc_and_det(same, distance)
    draw(figure)
    roc, det = figure.axes
    wins = (distance[same][:, np.newaxis] < distance[~same]).mean()
    assert roc.get_title() == f"ROC, area {wins:.4f}"
    far, tar = roc.lines[0].get_data()
    assert np.trapezoid(tar, far) == pytest.approx(wins)
    # The axes of the DET curve are quantiles of the normal distribution.
    inside = (far > 0) & (tar < 1)
    np.testing.assert_allclose(norm.cdf(det.lines[0].get_xdata()), far[inside])
    np.testing.assert_allclose(norm.cdf(det.lines[0].get_ydata()), 1 - tar[inside])
    percent = [float(t.get_text().removesuffix(" %")) for t in det.get_xticklabels()]
    np.testing.assert_allclose(100 * norm.cdf(det.get_xticks()), percent)


@pytest.mark.parametrize("n", [2, 4, 50])
def test_curves_of_pairs_that_separate_perfectly(n):
    same, distance = separated(n)
    figure = plots.plot_roc_and_det(same, distance)
    draw(figure)
    assert figure.axes[0].get_title() == "ROC, area 1.0000"
    assert texts(figure.axes[1]) == ["some thresholds make no errors"]
    similarity = np.where(same, 1.0, 0.0)
    draw(plots.plot_reliability(same, similarity, 0.0))
    draw(plots.plot_distances(1 - same, distance, Calibration(0.9, 20.0)))


def test_the_curve_of_a_weak_model_is_in_sight(rng):
    strong, weak = (plots.plot_roc_and_det(*pairs).axes[1] for pairs in (separated(), noise(rng)))
    assert weak.get_xlim()[1] > strong.get_xlim()[1]
    x, y = weak.lines[0].get_data()
    inside = (x < weak.get_xlim()[1]) & (y < weak.get_ylim()[1])
    assert inside.mean() > 0.8
    draw(weak.figure)


@pytest.mark.parametrize("peak", ["same", "different"])
def test_the_legend_of_the_distances_leaves_the_highest_bar_in_sight(rng, peak):
    different = np.repeat([0, 1], 100)
    spread = np.where((different == 1) == (peak == "different"), 0.02, 0.2)
    distance = np.where(different, 1.5, 0.4) + spread * rng.uniform(-1, 1, 200)
    figure = plots.plot_distances(different, distance, Calibration(0.9, 20.0))
    draw(figure)
    (axes,) = figure.axes
    bar = max(axes.patches, key=lambda patch: patch.get_height())
    assert not axes.get_legend().get_window_extent().overlaps(bar.get_window_extent())


def test_distances(rng):
    same, distance = noise(rng)
    distance[same] = 0.0
    figure = plots.plot_distances(1 - same, distance, Calibration(0.4321, 5.0))
    draw(figure)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "same class",
        "different classes",
        "threshold 0.432",
    ]
    assert axes.lines[0].get_xdata() == [0.4321, 0.4321]
    same_bars, different_bars = axes.containers
    heights = np.array([bar.get_height() for bar in same_bars])
    assert heights[0] > 0
    assert not heights[1:].any()
    widths = np.array([bar.get_width() for bar in different_bars])
    area = (widths * [bar.get_height() for bar in different_bars]).sum()
    assert area == pytest.approx(1)


def test_reliability_by_hand():
    # 15 bins: similarities 0.1, 0.1 and 0.12 are in the second, 0.5 in the eighth, 1.0 in the last.
    same = np.array([True, False, False, True, True])
    similarity = np.array([0.1, 0.1, 0.12, 0.5, 1.0])
    figure = plots.plot_reliability(same, similarity, 0.1234)
    draw(figure)
    axes, counts = figure.axes
    assert "0.1234" in axes.get_title()
    mean, share = axes.lines[1].get_data()
    np.testing.assert_allclose(mean, [0.32 / 3, 0.5, 1.0])
    np.testing.assert_allclose(share, [1 / 3, 1.0, 1.0])
    heights = [bar.get_height() for bar in counts.patches]
    assert len(heights) == 15
    assert [(i, h) for i, h in enumerate(heights) if h] == [(1, 3), (7, 1), (14, 1)]


# Classes


def class_rows(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("k", [2, 3, 10])
def test_class_errors(rng, k):
    rates = rng.random((k, k))
    rates[0, 1] = np.nan
    names = [f"class {i}" for i in range(k)]
    figure = plots.plot_class_errors(rates, names)
    picture, _ = png(figure)
    axes = figure.axes[0]
    assert class_rows(axes) == [t.get_text() for t in axes.get_xticklabels()] == names
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written == {
        (j, i): f"{100 * value:.1f}" for (i, j), value in np.ndenumerate(rates) if value == value
    }
    # Nothing is cut off: a margin of white all around, and the squares have room.
    for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        assert edge.min() == 1
    assert axes.get_window_extent().width > 300


@pytest.mark.parametrize("k", [2, 3])
def test_class_errors_of_few_classes_with_long_names(k):
    figure = plots.plot_class_errors(np.eye(k), ["W" * 200] * k)
    draw(figure)
    assert figure.axes[0].get_window_extent().width > 100


def test_class_errors_of_hundreds_of_classes_stay_small(rng):
    rates = rng.random((300, 300)) * 0.1
    chosen = np.arange(5, 300, 10)
    rates[chosen, chosen] = 0.9
    figure = plots.plot_class_errors(rates, [f"n{i:03d}" for i in range(300)])
    axes = figure.axes[0]
    assert class_rows(axes) == [f"n{i:03d}" for i in chosen]  # the largest errors, in order
    assert len(axes.texts) == 900
    assert "30 of 300 classes" in axes.get_title()
    assert max(figure.get_size_inches()) < 25  # before it takes all memory
    picture, size = png(figure)
    assert max(picture.shape) < 4000
    assert size < 1_000_000


def test_class_errors_without_any_error():
    draw(plots.plot_class_errors(np.zeros((2, 2)), ["a", "b"]))


def test_embedding(rng):
    labels = np.repeat([0, 2, 5], [10, 20, 30])
    points = rng.normal(size=(60, 2))
    figure = plots.plot_embedding(points, labels, list("abcdef"))
    draw(figure)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), points)
    colors = axes.collections[0].get_facecolor()
    for label in (0, 2, 5):
        assert len(np.unique(colors[labels == label], axis=0)) == 1
    assert len(np.unique(colors, axis=0)) == 3
    assert set(texts(axes)) == set("acf")
    places = {t.get_text(): t.get_position() for t in axes.texts}
    np.testing.assert_allclose(places["c"], np.median(points[10:30], axis=0))


def test_of_hundreds_of_classes_an_embedding_names_the_largest(rng):
    labels = np.concatenate([np.arange(200), np.repeat(np.arange(100, 130), 2)])
    figure = plots.plot_embedding(
        rng.normal(size=(len(labels), 2)), labels, [str(i) for i in range(200)]
    )
    draw(figure)
    assert sorted(texts(figure.axes[0])) == [str(i) for i in range(100, 130)]


# Names


def test_names_of_any_kind_are_drawn(rng):
    k = len(HARD_NAMES)
    draw(plots.plot_class_errors(rng.random((k, k)), HARD_NAMES))
    draw(plots.plot_embedding(rng.normal(size=(40, 2)), np.arange(40) % k, HARD_NAMES))
    names = [(a, b) for a, b in zip(HARD_NAMES, HARD_NAMES[::-1], strict=True)]
    draw(pairs_figure(rng, n=k, names=names)[0])


def test_a_dollar_sign_is_not_a_formula():
    figure = plots.plot_class_errors(np.eye(2), ["$a^2$", "b"])
    label = figure.axes[0].get_yticklabels()[0]
    figure.draw_without_rendering()
    formula = plots.plot_class_errors(np.eye(2), ["a2", "b"]).axes[0].get_yticklabels()[0]
    formula.figure.draw_without_rendering()
    assert label.get_window_extent().width > 1.8 * formula.get_window_extent().width


def test_names_without_glyphs_become_numbers():
    # Khitan small script, of the tenth century.
    names = ["cat", "\U00018b00", "собака", "caf\udce9", "a\U00018b01b"]
    assert plots.drawable_names(names) == ["cat", "class 1", "собака", "caf\udce9", "class 4"]

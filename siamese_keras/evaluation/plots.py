"""Figures, in one style: numbers go in, a matplotlib `Figure` comes out.

The module is long since it has one function for each figure.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm
from sklearn import metrics

from siamese_keras.evaluation.metrics import ECE_BINS
from siamese_keras.models.calibration import Calibration

# Okabe & Ito's colors, which color-blind people can tell apart.
_SAME, _DIFFERENT, _CORRECT, _WRONG, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC3311", "#777777"
_MAX_CLASSES = 30  # that a figure names
_LONGEST = 24  # characters of a class name
_DPI = 160  # sharp on most screens at the size that the report page shows
_FONT = "DejaVu Sans"  # comes with matplotlib


def _figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, figure.subplots(**subplots)


def _style(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(name: str) -> str:
    """Return a class name as matplotlib can draw it: valid Unicode, no formula, not too long."""
    name = "".join(c if c.isprintable() else "?" for c in name)  # surrogates are not printable
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return name.replace("$", r"\$")


def drawable_names(class_names: Sequence[str]) -> list[str]:
    """Return the class names; those that no installed font can draw become `class <label>`."""
    _, undrawable = _fonts(class_names)
    return [
        f"class {label}" if undrawable & set(_label(name)) else name
        for label, name in enumerate(class_names)
    ]


def _fonts(names: Iterable[str]) -> tuple[list[str], frozenset[str]]:
    """Return the fonts to draw class names with, and the characters that none of them has."""
    characters = frozenset("".join(map(_label, names)))
    return _fonts_of(characters - _characters(font_manager.findfont(_FONT)))


@functools.cache
def _fonts_of(missing: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return the default font and others for the characters that it lacks, as `_fonts`."""
    fonts = [_FONT]
    for entry in font_manager.fontManager.ttflist:
        if not missing:
            break
        # The font of last resort has a box for every character.
        if not entry.name.startswith("Last Resort") and missing & _characters(entry.fname):
            fonts.append(entry.name)
            missing -= _characters(entry.fname)
    return fonts, missing


def _characters(font: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(font).get_charmap()))


def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw loss and accuracy over the epochs, for training and validation pairs.

    Args:
        history: The values after every epoch of `contrastive_loss`, `midpoint_accuracy` and the
            two with `val_` before them.
    """
    figure, panels = _figure(10, 3.6, ncols=2)
    epochs = np.arange(1, len(history["contrastive_loss"]) + 1)
    for axes, key, title in (
        (panels[0], "contrastive_loss", "Contrastive loss, mean over all pairs"),
        (panels[1], "midpoint_accuracy", "Balanced accuracy midway between the margins"),
    ):
        axes.plot(epochs, history[key], "o-", color=_SAME, markersize=4, label="train")
        axes.plot(
            epochs, history[f"val_{key}"], "s-", color=_DIFFERENT, markersize=4, label="validation"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _style(axes, title, "epoch", key.split("_")[1])
        axes.legend(loc="upper right" if "loss" in key else "lower right", frameon=False)
    return figure


def plot_pairs(
    left: np.ndarray,
    right: np.ndarray,
    names: Sequence[tuple[str, str]],
    distance: np.ndarray,
    calibration: Calibration,
    *,
    title: str,
    columns: int = 4,
) -> Figure:
    """Draw a grid of pairs, framed by whether the decision is correct.

    Args:
        left: uint8 `[n, height, width, channels]`; of three and more channels the first three are
            red, green and blue, otherwise the first is gray.
        right: The same for the right images.
        names: The two class names of each pair.
        distance: float `[n]`.
        calibration: Threshold and slope of the decision.
        title: Heading of the figure.
        columns: Pairs in a row.
    """
    # One set of axes in inches, y down: a set for each pair takes ten times as long to draw.
    gap = np.full((left.shape[1], max(left.shape[2] // 14, 1), left.shape[3]), 110, np.uint8)
    rows, columns_of_pixels = left.shape[1], 2 * left.shape[2] + gap.shape[1]
    scale = min(2.5 / columns_of_pixels, 1.3 / rows)
    width, height = scale * columns_of_pixels, scale * rows
    cell_width, cell_height, header = 2.7, height + 0.7, 0.4
    size = cell_width * columns, header + cell_height * -(-len(left) // columns)
    figure = Figure(figsize=size, dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.text(size[0] / 2, 0.1, title, fontsize=12, ha="center", va="top")
    similarity, same = calibration.similarity(distance), calibration.same(distance)
    fonts, _ = _fonts(name for pair in names for name in pair)
    for i in range(len(left)):
        picture = np.concatenate([left[i], gap, right[i]], axis=1)
        middle = (i % columns + 0.5) * cell_width
        x, y = middle - width / 2, header + i // columns * cell_height + 0.25
        axes.imshow(
            picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0],
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(x, x + width, y + height, y),
        )
        is_correct = bool(same[i]) == (names[i][0] == names[i][1])
        color = _CORRECT if is_correct else _WRONG
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=2.5))
        both = axes.text(
            middle,
            y - 0.06,
            " | ".join(map(_label, names[i])),
            fontsize=9,
            fontfamily=fonts,
            ha="center",
            va="bottom",
        )
        room = 0.9 * cell_width * figure.dpi / both.get_window_extent().width
        both.set_fontsize(9 * min(room, 1))
        axes.text(
            middle,
            y + height + 0.06,
            f"{'same' if same[i] else 'different'}: {'correct' if is_correct else 'wrong'}\n"
            f"similarity {similarity[i]:.2f}, distance {distance[i]:.2f}",
            fontsize=8,
            color=color,
            ha="center",
            va="top",
        )
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.set_axis_off()
    return figure


def plot_roc_and_det(same: np.ndarray, distance: np.ndarray) -> Figure:
    """Draw the ROC curve and the detection error trade-off (DET).

    Args:
        same: bool `[n]`, whether each pair is of one class.
        distance: float `[n]`.
    """
    figure, (roc, det) = _figure(9.5, 4.6, ncols=2)
    far, tar, _ = metrics.roc_curve(same, -distance)
    style = {"color": _SAME}
    metrics.RocCurveDisplay(fpr=far, tpr=tar).plot(ax=roc, curve_kwargs=style)
    roc.plot([0, 1], [0, 1], ":", color=_GREY)
    _style(roc, f"ROC, area {metrics.auc(far, tar):.4f}", "false accept rate", "true accept rate")
    # Without the ends of the curve, which the axes of a DET curve put at infinity.
    inside = (far > 0) & (tar < 1)
    metrics.DetCurveDisplay(fpr=far[inside], fnr=1 - tar[inside]).plot(ax=det, **style)
    if not inside.any():
        box = {"facecolor": "white", "edgecolor": "none"}
        note = "some thresholds make no errors"
        det.text(0.5, 0.5, note, ha="center", bbox=box, transform=det.transAxes)
    ticks = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6]
    if np.maximum(far, 1 - tar).min() > 0.3:  # most of the curve lies beyond 60 %
        ticks = [0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95]
    places, names = norm.ppf(ticks), [f"{100 * tick:g} %" for tick in ticks]
    det.set_xticks(places, names)
    det.set_yticks(places, names)
    det.set(xlim=places[[0, -1]], ylim=places[[0, -1]])
    det.plot([0, 1], [0, 1], ":", color=_GREY, transform=det.transAxes)
    _style(det, "Detection error trade-off", "false accept rate", "false reject rate")
    return figure


def plot_distances(different: np.ndarray, distance: np.ndarray, calibration: Calibration) -> Figure:
    """Draw the distributions of the distances of same and of different pairs.

    Args:
        different: `[n]`, 1 = different classes, 0 = same class.
        distance: float `[n]`.
        calibration: Its threshold is drawn.
    """
    figure, axes = _figure(7, 3.8)
    bins = np.linspace(0, distance.max(), 61)
    heights = [
        axes.hist(
            distance[different == label], bins, color=color, alpha=0.55, label=name, density=True
        )[0]
        for label, name, color in ((0, "same class", _SAME), (1, "different classes", _DIFFERENT))
    ]
    axes.axvline(
        calibration.threshold,
        color="black",
        linestyle="--",
        label=f"threshold {calibration.threshold:.3f}",
    )
    _style(axes, "Distances of test pairs", "Euclidean distance of the embeddings", "density")
    peak = np.max(heights, axis=0).argmax()
    loc = "upper left" if peak >= len(bins) // 2 else "upper right"
    axes.legend(loc=loc, facecolor="white", framealpha=1, edgecolor="none")
    return figure


def plot_class_errors(error_rates: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the error rates of the pairs of every two classes.

    Args:
        error_rates: float `[k, k]`; on the diagonal same pairs that were rejected, elsewhere
            different pairs that were accepted; NaN where there are no pairs.
        class_names: `k` names. Of more than 30 classes, the 30 with the largest errors are drawn.
    """
    title = "Error rate of pairs, in % (diagonal: same class)"
    if len(class_names) > _MAX_CLASSES:
        title += f", {_MAX_CLASSES} of {len(class_names)} classes with the largest errors"
        order = np.argsort(-np.nanmax(np.nan_to_num(error_rates), axis=1), kind="stable")
        worst = np.sort(order[:_MAX_CLASSES])
        error_rates = error_rates[np.ix_(worst, worst)]
        class_names = [class_names[i] for i in worst]
    size = max(0.62 * len(class_names) + 2.2, 4.5)
    figure, axes = _figure(size + 0.6, size)
    percent = 100 * error_rates
    highest = max(np.nanmax(percent), 1)
    shown = axes.imshow(percent, cmap="Oranges", vmin=0, vmax=highest)
    for (i, j), value in np.ndenumerate(percent):
        if np.isfinite(value):
            color = "white" if value > 0.6 * highest else "black"
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color=color)
    ticks, names = range(len(class_names)), list(map(_label, class_names))
    fonts, _ = _fonts(class_names)
    axes.set_xticks(ticks, names, rotation=45, ha="right", fontfamily=fonts)
    axes.set_yticks(ticks, names, fontfamily=fonts)
    axes.set_title(title, fontsize=11)
    figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def plot_embedding(points: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw a 2-D map of embeddings, each class in its color, with its name at its center.

    Of more than 30 classes, the 30 with the most points are named.

    Args:
        points: float `[n, 2]`.
        labels: int `[n]`.
        class_names: Names by label.
    """
    figure, axes = _figure(7, 6.2)
    present, index, count = np.unique(labels, return_inverse=True, return_counts=True)
    # Ten colors, then their lighter twins: enough to tell twenty classes apart.
    colors = colormaps["tab10" if len(present) <= 10 else "tab20"]
    axes.scatter(*points.T, s=7, alpha=0.6, linewidths=0, color=colors(index % colors.N))
    named = present[np.argsort(-count, kind="stable")[:_MAX_CLASSES]]
    fonts, _ = _fonts(class_names[label] for label in named)
    size = 10 if len(named) <= 20 else 8
    for label in named:
        middle = np.median(points[labels == label], axis=0)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
        style = {"ha": "center", "va": "center", "fontsize": size, "fontfamily": fonts, "bbox": box}
        axes.text(*middle, _label(class_names[label]), **style)
    axes.set(xticks=[], yticks=[])
    axes.set_title("Embeddings of test images (t-SNE)", fontsize=11)
    axes.spines[:].set_color("#cccccc")
    return figure


def plot_reliability(same: np.ndarray, similarity: np.ndarray, ece: float) -> Figure:
    """Draw the share of same pairs over the similarity: the diagonal is perfect calibration.

    Args:
        same: bool `[n]`.
        similarity: float `[n]`, in [0, 1].
        ece: Expected calibration error, for the heading.
    """
    figure, (axes, counts) = _figure(5.2, 5.6, nrows=2, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, ECE_BINS + 1)
    index = np.minimum((similarity * ECE_BINS).astype(int), ECE_BINS - 1)
    number = np.bincount(index, minlength=ECE_BINS)
    filled = number > 0
    share = np.bincount(index, weights=same, minlength=ECE_BINS)[filled] / number[filled]
    mean = np.bincount(index, weights=similarity, minlength=ECE_BINS)[filled] / number[filled]
    axes.plot([0, 1], [0, 1], ":", color=_GREY, label="perfect")
    axes.plot(mean, share, "o-", color=_SAME, label="calibration")
    _style(axes, f"Reliability, expected calibration error {ece:.4f}", "", "share of same pairs")
    axes.legend(loc="upper left", frameon=False)
    counts.bar(edges[:-1], number, width=1 / ECE_BINS, align="edge", color=_SAME, edgecolor="white")
    _style(counts, "", "similarity", "pairs")
    return figure

"""Figures, in one style: numbers go in, a matplotlib `Figure` comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from sklearn import metrics

from siamese_keras.models.calibration import Classifier

# Okabe & Ito's colours, which the colour-blind tell apart.
_SAME, _DIFFERENT, _RIGHT, _WRONG, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC3311", "#777777"


def _figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.subplots(**subplots)


def _plain(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw loss and pair accuracy over the epochs, for training and validation pairs.

    Args:
        history: Of each of `loss`, `val_loss`, `pair_accuracy`, `val_pair_accuracy` the value
            after every epoch.
    """
    figure, panels = _figure(9, 3.6, ncols=2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axes, key, title in (
        (panels[0], "loss", "Contrastive loss"),
        (panels[1], "pair_accuracy", "Pair accuracy midway between the margins"),
    ):
        axes.plot(epochs, history[key], "o-", color=_SAME, markersize=4, label="train")
        axes.plot(
            epochs, history[f"val_{key}"], "s-", color=_DIFFERENT, markersize=4, label="validation"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes, title, "epoch", key.replace("_", " "))
        axes.legend(frameon=False)
    return figure


def plot_pairs(
    left: np.ndarray,
    right: np.ndarray,
    names: Sequence[tuple[str, str]],
    distance: np.ndarray,
    classifier: Classifier,
    *,
    title: str,
    columns: int = 4,
) -> Figure:
    """Draw a grid of pairs, each framed by whether the decision on it is right.

    Args:
        left: uint8 `[n, height, width, channels]`.
        right: The same for the right images.
        names: The two class names of each pair.
        distance: float `[n]`.
        classifier: What decides.
        title: Heading of the figure.
        columns: Pairs in a row.
    """
    rows = -(-len(left) // columns)
    figure, grid = _figure(
        2.7 * columns, 2.05 * rows + 0.7, nrows=rows, ncols=columns, squeeze=False
    )
    figure.suptitle(title, fontsize=12)
    similarity, same = classifier.similarity(distance), classifier.same(distance)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, axes in zip(range(len(left)), grid.flat, strict=False):
        gap = np.full((left.shape[1], max(left.shape[2] // 14, 1), left.shape[3]), 110, np.uint8)
        picture = np.concatenate([left[i], gap, right[i]], axis=1)
        axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray_r")
        is_right = bool(same[i]) == (names[i][0] == names[i][1])
        colour = _RIGHT if is_right else _WRONG
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2.5)
        axes.set_title(" | ".join(names[i]), fontsize=9, pad=4)
        verdict = "same" if same[i] else "different"
        axes.set_xlabel(
            f"{verdict}: {'right' if is_right else 'wrong'}\n"
            f"similarity {similarity[i]:.2f}, distance {distance[i]:.2f}",
            fontsize=8,
            color=colour,
        )
    return figure


def plot_roc_and_det(same: np.ndarray, distance: np.ndarray) -> Figure:
    """Draw the ROC curve and the detection error trade-off (DET).

    Args:
        same: bool `[n]`, whether each pair is of one class.
        distance: float `[n]`.
    """
    far, tar, _ = metrics.roc_curve(same, -distance)
    figure, (roc, det) = _figure(9.5, 4.2, ncols=2)
    roc.plot(far, tar, color=_SAME)
    roc.plot([0, 1], [0, 1], ":", color=_GREY)
    _plain(roc, f"ROC, area {metrics.auc(far, tar):.4f}", "false accept rate", "true accept rate")
    inside = (far > 0) & (tar < 1)
    det.loglog(far[inside], 1 - tar[inside], color=_SAME)
    limits = (max(1e-4, 1 / (~same).sum()), 1)
    det.plot(limits, limits, ":", color=_GREY)
    det.text(6e-3, 8e-3, "equal error rate", color=_GREY, fontsize=9, ha="right")
    det.set(xlim=limits, ylim=(max(1e-3, 1 / same.sum()), 1))
    for axis in (det.xaxis, det.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    _plain(det, "Detection error trade-off", "false accept rate", "false reject rate")
    return figure


def plot_distances(different: np.ndarray, distance: np.ndarray, classifier: Classifier) -> Figure:
    """Draw the distributions of the distances of same and of different pairs.

    Args:
        different: `[n]`, 1 = different classes, 0 = same class.
        distance: float `[n]`.
        classifier: Its threshold is drawn in.
    """
    figure, axes = _figure(7, 3.8)
    bins = np.linspace(0, distance.max(), 61)
    for label, name, colour in ((0, "same class", _SAME), (1, "different classes", _DIFFERENT)):
        axes.hist(
            distance[different == label], bins, color=colour, alpha=0.55, label=name, density=True
        )
    axes.axvline(
        classifier.threshold,
        color="black",
        linestyle="--",
        label=f"threshold {classifier.threshold:.3f}",
    )
    _plain(axes, "Distances of test pairs", "Euclidean distance of the embeddings", "density")
    axes.legend(facecolor="white", framealpha=1, edgecolor="none")
    return figure


def plot_class_errors(error_rates: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the matrix of pair error rates, class by class.

    Args:
        error_rates: float `[k, k]`; on the diagonal same pairs that were rejected, elsewhere
            different pairs that were accepted; NaN where there are no pairs.
        class_names: `k` names.
    """
    size = 0.62 * len(class_names) + 2.2
    figure, axes = _figure(size + 0.6, size)
    percent = 100 * error_rates
    shown = axes.imshow(percent, cmap="Oranges", vmin=0, vmax=max(np.nanmax(percent), 1))
    for (i, j), value in np.ndenumerate(percent):
        if np.isfinite(value):
            dark = value > 0.6 * np.nanmax(percent)
            axes.text(
                j, i, f"{value:.1f}", ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
            )  # fmt: skip
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right")
    axes.set_yticks(ticks, class_names)
    axes.set_title("Pairs decided wrongly, in % (diagonal: same class)", fontsize=11)
    figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def plot_embedding(points: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw a 2-D map of embeddings, each class in its colour with its name in its midst.

    Args:
        points: float `[n, 2]`.
        labels: int `[n]`.
        class_names: Names by label.
    """
    figure, axes = _figure(7, 6.2)
    present = np.unique(labels)
    # Ten colours, then their lighter twins: enough to tell twenty classes apart.
    colours = colormaps["tab10" if len(present) <= 10 else "tab20"]
    for i, label in enumerate(present):
        cloud = points[labels == label]
        axes.scatter(*cloud.T, s=7, alpha=0.6, linewidths=0, color=colours(i % colours.N))
    for label in present:
        middle = np.median(points[labels == label], axis=0)
        axes.text(
            *middle, class_names[label], ha="center", va="center", fontsize=9, weight="bold",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
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
    edges = np.linspace(0, 1, 16)
    index = np.minimum((similarity * 15).astype(int), 14)
    number = np.bincount(index, minlength=15)
    filled = number > 0
    share = np.bincount(index, weights=same, minlength=15)[filled] / number[filled]
    mean = np.bincount(index, weights=similarity, minlength=15)[filled] / number[filled]
    axes.plot([0, 1], [0, 1], ":", color=_GREY, label="perfect")
    axes.plot(mean, share, "o-", color=_SAME, label="classifier")
    _plain(axes, f"Reliability, expected calibration error {ece:.4f}", "", "share of same pairs")
    axes.legend(frameon=False)
    counts.bar(edges[:-1], number, width=1 / 15, align="edge", color=_SAME, edgecolor="white")
    _plain(counts, "", "similarity", "pairs")
    return figure

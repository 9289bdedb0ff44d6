"""Write README's tables of results, and the figure of accuracy over time.

    python benchmarks/results.py

The comparison is that of `benchmarks/results.json`, which `benchmarks/compare.py` writes: medians
over the seeds. The table of unseen classes is that of `benchmarks/unseen/*.json`, the summaries of

    python -m siamese_keras.train --seeds 0,1,2 --unseen-classes dress,shirt,sneaker,bag \
        --run-dir runs/fast && cp runs/fast/summary.json benchmarks/unseen/fast.json
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "diagrams" / "accuracy-over-time.png"
_NAMES = {
    "classic-mlp": "`classic-mlp`: the classic exercise",
    "classic-cnn": "`classic-cnn`: random pairs, margin 2",
    "keras-example": "Keras's `siamese_contrastive`",
    "metric-learning": "PyTorch Metric Learning",
    "metric-learning-tuned": "PyTorch Metric Learning, tuned as `fast`",
    "fast": "**`fast`**",
    "best": "**`best`**",
}
_UNSEEN_COLUMNS = (
    ("unseen ROC-AUC", "unseen", "roc_auc"),
    ("unseen accuracy", "unseen", "accuracy"),
    ("unseen EER", "unseen", "eer"),
    ("seen ROC-AUC", "test", "roc_auc"),
    ("seen accuracy", "test", "accuracy"),
)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def seconds_to(goal: float, curve: list[list[float]]) -> float | None:
    """Return when accuracy first reached `goal`, on the line between two points of the curve."""
    for before, after in zip([curve[0], *curve], curve, strict=False):
        if after[1] >= goal:
            along = (goal - before[1]) / (after[1] - before[1]) if after != before else 0
            return round(before[0] + along * (after[0] - before[0]), 2)
    return None


def medians() -> dict[str, dict[str, float | None]]:
    """Return the figures of each row of `results.json`, each the median over its seeds.

    None where half of the seeds or more never reached the goal.
    """
    stored = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    rows: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys(result["row"] for result in stored["results"]):
        results = [result for result in stored["results"] if result["row"] == name]

        def middle(*path: str, results: list[Any] = results) -> float | None:
            values = []
            for value in results:
                for key in path:
                    value = value[key]
                values.append(float("inf") if value is None else value)
            found = median(values)
            return None if found == float("inf") else found

        keys = ("fit_seconds", "images_per_second", "pairs_per_second", "seconds_to_goal")
        rows[name] = {key: middle(key) for key in (*keys, "peak_memory_mb")}
        rows[name] |= {key: middle("test", key) for key in ("accuracy", "roc_auc", "eer", "ece")}
        rows[name] |= {key: middle("retrieval", key) for key in ("recall_at_1", "map_at_r")}
        ratios = [
            r["fit_seconds"] / stored["sittings"][r["sitting"]]["reference_fit_seconds"]
            for r in results
        ]
        rows[name] |= {"seeds": len(results), "fit_ratio": median(ratios)}
    return {name: rows[name] for name in _NAMES if name in rows}


def comparison_tables() -> list[str]:
    """Return three Markdown tables: how good, at what cost, and how soon."""
    rows = medians()
    most = max(row["seeds"] for row in rows.values())
    names = {
        name: _NAMES[name] + ("" if row["seeds"] == most else f" ({row['seeds']} of {most} seeds)")
        for name, row in rows.items()
    }
    goods = {
        "pair accuracy": "accuracy",
        "ROC-AUC": "roc_auc",
        "EER": "eer",
        "Recall@1": "recall_at_1",
        "MAP@R": "map_at_r",
        "calibration error": "ece",
    }
    good = [
        [names[name], *(f"{row[key]:.4f}" for key in goods.values())] for name, row in rows.items()
    ]
    cost = [
        [
            names[name],
            f"{row['fit_seconds']:.0f} s",
            f"{row['fit_ratio']:.2f}",
            "never" if row["seconds_to_goal"] is None else f"{row['seconds_to_goal']:.1f} s",
            f"{row['images_per_second']:,.0f}",
            f"{row['pairs_per_second']:,.0f}",
            f"{row['peak_memory_mb']:,.0f} MB",
        ]
        for name, row in rows.items()
    ]
    levels = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96)
    pace = [[names[name], *map(_seconds, seconds_to_levels(name, levels))] for name in rows]
    costs = ["", "fit", "to the first row", "to 0.9146", "images/s", "pairs/s", "peak memory"]
    paces = ["seconds to", *(f"{level:.2f}" for level in levels)]
    tables = (["", *goods], good), (costs, cost), (paces, pace)
    return [line for table in tables for line in (*_table(*table), "")][:-1]


def seconds_to_levels(row: str, levels: Sequence[float]) -> list[float | None]:
    """Return when a row first reached each accuracy, the median over its seeds; None: never."""
    stored = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    curves = [result["curve"] for result in stored["results"] if result["row"] == row]
    never = float("inf")
    found = []
    for level in levels:
        reached = [seconds_to(level, curve) for curve in curves]
        found.append(median(never if seconds is None else seconds for seconds in reached))
    return [None if seconds == never else seconds for seconds in found]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def unseen_table() -> list[str]:
    """Return a Markdown table of the unseen classes: mean and standard deviation over seeds."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "benchmarks" / "unseen").glob("*.json")):
        summary = json.loads(path.read_text())
        preset = f"`{path.stem}`"
        rows[preset] = summary
        for control, scored in summary["controls"].items():
            own = control == "untrained_base"
            rows.setdefault(
                f"{preset} before training" if own else control.replace("_", " "), scored
            )
    cells = []
    for name, summary in rows.items():
        values = [summary[group][key] for _, group, key in _UNSEEN_COLUMNS]
        cells.append([name, *(f"{v['mean']:.4f} ± {v['std']:.4f}" for v in values)])
    return _table(["", *(title for title, *_ in _UNSEEN_COLUMNS)], cells)


def updated(readme: str) -> str:
    """Return `readme` with what stands between its pairs of marks replaced."""
    for name, lines in (("results", comparison_tables()), ("unseen classes", unseen_table())):
        readme = re.sub(
            rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)",
            lambda marks, lines=lines: marks[1] + "\n".join(lines) + "\n" + marks[2],
            readme,
            flags=re.DOTALL,
        )
    return readme


def plot_accuracy_over_time() -> Figure:
    """Draw how accuracy on test pairs grows with the seconds of the fit, a line for every seed."""
    stored = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    # Okabe & Ito's colours, which the colour-blind tell apart.
    colours = ["#777777", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#009E73", "#0072B2"]
    for (name, title), colour in zip(_NAMES.items(), colours, strict=True):
        label = re.sub(r"[*`]", "", title)
        for result in stored["results"]:
            if result["row"] == name:
                seconds, accuracy = zip(*result["curve"], strict=True)
                axes.plot(seconds, accuracy, color=colour, linewidth=1.3, alpha=0.8, label=label)
                label = "_"  # one entry of the legend for all seeds
    axes.axhline(stored["goal"], color="#999999", linestyle=":", linewidth=1)
    axes.set(xscale="log", xlim=(0.1, None), ylim=(0.74, 0.97))
    axes.set(xlabel="seconds of fit, 2 CPU cores", ylabel="pair accuracy, test pairs")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text()))
    plot_accuracy_over_time().savefig(FIGURE)

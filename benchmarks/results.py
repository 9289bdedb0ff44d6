"""Write the tables of README and `docs/results.md`, and the figure of accuracy over time.

    python benchmarks/results.py [RUN]

With the folder of a run, such as `make train` writes, its figures take the place of those in
`diagrams/` that the pages show.

README has one small table and the report of the shipped model, `docs/results.md` all tables. Each
stands between two marks.

The comparison is read from `benchmarks/results.json`, which `benchmarks/compare.py` writes: medians
over the seeds. The table of unseen classes is read from `benchmarks/unseen/*.json`, each the
`summary.json`
of

    python -m siamese_keras.train --seeds 0,1,2 --baselines \
        --unseen-classes dress,shirt,sneaker,bag --run-dir runs/unseen

That of many classes is read from `benchmarks/many_classes.json`, which `benchmarks/many_classes.py`
writes.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from siamese_keras.evaluation.table import report_table

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "README.md", ROOT / "docs" / "results.md"
MODEL = ROOT / "saved_models" / "fashion_mnist" / "1" / "assets.extra" / "model.json"
FIGURE = ROOT / "diagrams" / "accuracy-over-time.png"
_FIGURES = ("test-pairs", "roc-and-det", "distances", "class-errors", "embedding")  # of a run
_NAMES = {
    "classic-mlp": "`classic-mlp`: the classic exercise",
    "classic-cnn": "`classic-cnn`: random pairs, margin 2",
    "keras-example": "Keras's `siamese_contrastive`",
    "metric-learning": "PyTorch Metric Learning",
    "metric-learning-tuned": "PyTorch Metric Learning, tuned like `fast`",
    "metric-learning-multi-similarity": "PyTorch Metric Learning, multi-similarity loss",
    "metric-learning-semi-hard": "PyTorch Metric Learning, semi-hard triplets",
    "fast": "**`fast`**",
    "best": "**`best`**",
}
_RETRIEVAL = {
    "Recall@1": "recall_at_1",
    "Recall@2": "recall_at_2",
    "MAP@R": "map_at_r",
    "mAP": "map",
    "AP@10": "ap_at_10",
    "NMI": "nmi",
}
# The best of 23 losses for each figure, with two convolutions and two dense layers:
# https://github.com/cdluminate/robrank, doc/dmltab-fashion.txt.
_PUBLISHED = {"Recall@1": "0.907", "Recall@2": "0.942", "mAP": "0.889", "AP@10": "0.882"}
_PUBLISHED |= {"NMI": "0.831"}
# Accuracies, to tell how soon each was reached.
_LEVELS = ("0.80", "0.85", "0.90", "0.92", "0.94", "0.95", "0.96")
_UNSEEN_COLUMNS = (
    ("unseen ROC-AUC", "unseen", "roc_auc"),
    ("unseen accuracy", "unseen", "accuracy"),
    ("unseen EER", "unseen", "eer"),
    ("seen ROC-AUC", "test", "roc_auc"),
    ("seen accuracy", "test", "accuracy"),
)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table whose figures do not break from their units."""
    rows = [
        [name, *(cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row)] for name, *row in rows
    ]
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def seconds_to(target: float, curve: list[list[float]]) -> float | None:
    """Return when accuracy first reached `target`, on the line between two points of the curve."""
    before = curve[0]
    for seconds, accuracy in curve:
        if accuracy >= target:
            along = (target - before[1]) / max(accuracy - before[1], 1e-9)
            return before[0] + along * (seconds - before[0])
        before = [seconds, accuracy]
    return None


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median where None is more than any number."""
    found = median(float("inf") if value is None else value for value in values)
    return None if found == float("inf") else found


def medians() -> dict[str, dict[str, float | None]]:
    """Return the figures of each row of `results.json`, each the median over its seeds.

    None where half of the seeds or more never reached the target, or a result is of a version of
    this package that did not compute the figure.
    """
    stored = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    rows: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys(result["row"] for result in stored["results"]):
        results = [result for result in stored["results"] if result["row"] == name]

        def middle(*path: str, results: list[Any] = results) -> float | None:
            values = results
            for key in path:
                values = [value.get(key) for value in values]
            return None if None in values and path[0] == "retrieval" else _median(values)

        keys = ("fit_seconds", "images_per_second", "pairs_per_second", "seconds_to_target")
        rows[name] = {key: middle(key) for key in (*keys, "peak_memory_mb")}
        rows[name] |= {key: middle("test", key) for key in ("accuracy", "roc_auc", "eer", "ece")}
        rows[name] |= {key: middle("retrieval", key) for key in _RETRIEVAL.values()}
        ratios = [
            r["fit_seconds"] / stored["sessions"][r["session"]]["reference_fit_seconds"]
            for r in results
        ]
        rows[name] |= {"seeds": len(results), "fit_ratio": median(ratios)}
        rows[name] |= {
            level: _median(seconds_to(float(level), result["curve"]) for result in results)
            for level in _LEVELS
        }
    return {name: rows[name] for name in _NAMES if name in rows}


def _titles(rows: dict[str, dict[str, float | None]]) -> dict[str, str]:
    """Return what each row is called, with the number of its seeds where it has fewer."""
    most = max(row["seeds"] for row in rows.values())
    return {
        name: _NAMES[name] + ("" if row["seeds"] == most else f" ({row['seeds']} of {most} seeds)")
        for name, row in rows.items()
    }


def summary_table() -> list[str]:
    """Return README's Markdown table: how good, and how long the fit takes."""
    rows = medians()
    names = _titles(rows)
    cells = [
        [
            names[name],
            *(f"{row[key]:.4f}" for key in ("accuracy", "roc_auc", "recall_at_1")),
            f"{row['fit_seconds']:.0f} s",
        ]
        for name, row in rows.items()
    ]
    return _table(["", "pair accuracy", "ROC-AUC", "Recall@1", "training time"], cells)


def model_report() -> list[str]:
    """Return the report of the shipped model, as `train` and `evaluate` print it."""
    return ["```text", report_table(json.loads(MODEL.read_text())["metrics"]), "```"]


def comparison_tables() -> list[str]:
    """Return four Markdown tables: pairs, retrieval, at what cost, and how soon."""
    rows = medians()
    names = _titles(rows)
    goods = {
        "pair accuracy": "accuracy",
        "ROC-AUC": "roc_auc",
        "EER": "eer",
        "calibration error": "ece",
    }
    good, retrieval = (
        [
            [names[name], *("" if row[key] is None else f"{row[key]:.4f}" for key in keys.values())]
            for name, row in rows.items()
        ]
        for keys in (goods, _RETRIEVAL)
    )
    cost = [
        [
            names[name],
            f"{row['fit_seconds']:.0f} s",
            f"{row['fit_ratio']:.2f}",
            "never" if row["seconds_to_target"] is None else f"{row['seconds_to_target']:.1f} s",
            f"{row['images_per_second']:,.0f}",
            f"{row['pairs_per_second']:,.0f}",
            f"{row['peak_memory_mb']:,.0f} MB",
        ]
        for name, row in rows.items()
    ]
    pace = [
        [
            names[name],
            *("never" if row[level] is None else f"{row[level]:.1f}" for level in _LEVELS),
        ]
        for name, row in rows.items()
    ]
    costs = [
        "",
        "training time",
        "relative to `classic-mlp`",
        "to 0.9146",
        "images/s",
        "pairs/s",
        "peak memory",
    ]
    paces = ["seconds to", *_LEVELS]
    tables = (["", *goods], good), (["", *_RETRIEVAL], retrieval), (costs, cost), (paces, pace)
    return [line for table in tables for line in (*_table(*table), "")][:-1]


def published_table() -> list[str]:
    """Return a Markdown table of retrieval: published figures, the shipped model, and `best`."""
    ours = {
        "the shipped model, preset `fast`": json.loads(MODEL.read_text())["metrics"]["retrieval"],
        "`best`": medians()["best"],
    }
    cells = [["robrank, published", *_PUBLISHED.values()]]
    for name, row in ours.items():
        cells.append([name, *(f"{row[_RETRIEVAL[title]]:.4f}" for title in _PUBLISHED)])
    return _table(["", *_PUBLISHED], cells)


def unseen_table() -> list[str]:
    """Return a Markdown table of the unseen classes: mean and standard deviation over seeds."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "benchmarks" / "unseen").glob("*.json")):
        summary = json.loads(path.read_text())
        preset = f"`{path.stem}`"
        rows[preset] = summary
        for baseline, scored in summary["baselines"].items():
            own = baseline == "random_base_model"
            rows.setdefault(
                f"{preset} with random weights" if own else baseline.replace("_", " "), scored
            )
    cells = []
    for name, summary in rows.items():
        values = [summary[group][key] for _, group, key in _UNSEEN_COLUMNS]
        cells.append([name, *(f"{v['mean']:.4f} ± {v['std']:.4f}" for v in values)])
    return _table(["", *(title for title, *_ in _UNSEEN_COLUMNS)], cells)


_MANY_CLASSES_NAMES = {
    "raw-pixels": "raw pixels",
    "before": "contrastive loss on random batches",
    "metric-learning": "PyTorch Metric Learning, multi-similarity loss",
    "many-classes": "**`many-classes`**",
    "pretrained": "**`pretrained`**, EfficientNet-Lite0",
}


def many_classes_table() -> list[str]:
    """Return a Markdown table of the classes that training never showed: medians over seeds."""
    results = json.loads((ROOT / "benchmarks" / "many_classes.json").read_text())
    cells = []
    for row, title in _MANY_CLASSES_NAMES.items():
        line = [title]
        for data in ("emoji", "glyphs"):
            found = [r for r in results if (r["data"], r["row"]) == (data, row)]
            line += [
                "" if not found else f"{median(result[key] for result in found):.4f}"
                for key in ("one_shot", "roc_auc")
            ]
            seconds = median(r.get("fit_seconds", 0) for r in found) if found else 0
            line.append(f"{seconds:.0f} s" if seconds else "")
        if any(line[1:]):
            cells.append(line)
    columns = [
        f"{data}: {key}" for data in ("emoji", "glyphs") for key in ("one-shot", "AUC", "fit")
    ]
    return _table(["", *columns], cells)


def updated(page: str) -> str:
    """Return `page` with what stands between its pairs of marks replaced."""
    contents = {
        "report": model_report(),
        "summary": summary_table(),
        "results": comparison_tables(),
        "published": published_table(),
        "unseen classes": unseen_table(),
        "many classes": many_classes_table(),
    }
    for name, lines in contents.items():
        page = re.sub(
            rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)",
            lambda marks, lines=lines: marks[1] + "\n".join(lines) + "\n" + marks[2],
            page,
            flags=re.DOTALL,
        )
    return page


def plot_accuracy_over_time() -> Figure:
    """Draw how accuracy on test pairs grows with the seconds of the fit, a line for every seed."""
    stored = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    # Okabe & Ito's colours, which the colour-blind tell apart.
    colours = ["#777777", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442", "#D55E00"]
    colours += ["#009E73", "#0072B2"]
    for (name, title), colour in zip(_NAMES.items(), colours, strict=True):
        label = re.sub(r"[*`]", "", title)
        for result in stored["results"]:
            if result["row"] == name:
                seconds, accuracy = zip(*result["curve"], strict=True)
                axes.plot(seconds, accuracy, color=colour, linewidth=1.3, alpha=0.8, label=label)
                label = "_"  # one entry of the legend for all seeds
    axes.axhline(stored["target"], color="#999999", linestyle=":", linewidth=1)
    axes.set_xscale("symlog", linthresh=1)  # the first second as it is
    axes.set(xlim=(0, None), ylim=(0.74, 0.97))
    axes.set(xlabel="seconds of fit, 2 CPU cores", ylabel="pair accuracy, test pairs")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=0.9, edgecolor="none", fontsize=8, loc="lower right")
    return figure


def main() -> None:
    """Write the pages and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="run whose figures the pages show")
    run = parser.parse_args().run
    for path in PAGES:
        path.write_text(updated(path.read_text()))
    plot_accuracy_over_time().savefig(FIGURE)
    for name in _FIGURES if run is not None else ():
        shutil.copyfile(run / "figures" / f"{name}.png", FIGURE.parent / f"{name}.png")


if __name__ == "__main__":
    main()

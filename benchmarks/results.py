"""Write README's table of results from `benchmarks/results/*.json`.

    python -m siamese_keras.train --preset fast --seeds 0,1,2 --run-dir runs/fast
    cp runs/fast/summary.json benchmarks/results/fast.json
    python benchmarks/results.py

The same goes for the other presets; `open-set.json` and `fast-unseen.json` come of trainings with
`--unseen-classes dress,shirt,sneaker,bag`. Each file is the summary that `train --seeds` writes.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_COLUMNS = (
    ("pair accuracy", "test", "accuracy", 4),
    ("ROC-AUC", "test", "roc_auc", 4),
    ("EER", "test", "eer", 4),
    ("TAR at FAR 1 %", "test", "tar_at_far_1e-2", 3),
    ("calibration error", "test", "ece", 4),
    ("Recall@1", "retrieval", "recall_at_1", 4),
    ("MAP@R", "retrieval", "map_at_r", 4),
    ("fit", "training", "fit_seconds", 0),
)


_UNSEEN_COLUMNS = (
    ("unseen ROC-AUC", "unseen", "roc_auc", 4),
    ("unseen accuracy", "unseen", "accuracy", 4),
    ("unseen EER", "unseen", "eer", 4),
    ("seen ROC-AUC", "test", "roc_auc", 4),
    ("seen accuracy", "test", "accuracy", 4),
)


def _rows(summaries: dict[str, dict[str, Any]], columns: tuple[Any, ...]) -> list[str]:
    """Return a Markdown table: mean and standard deviation over the seeds."""
    lines = [
        "| | " + " | ".join(title for title, *_ in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, summary in summaries.items():
        cells = []
        for title, group, key, digits in columns:
            value = summary[group][key]
            unit = " s" if title == "fit" else ""
            cells.append(f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}{unit}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def results_table() -> str:
    """Return two tables as Markdown: all classes seen, and four classes unseen."""
    summaries = {
        path.stem: json.loads(path.read_text())
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    }
    unseen: dict[str, dict[str, Any]] = {}
    for name, summary in summaries.items():
        if "unseen" in summary:
            preset = f"`{name.removesuffix('-unseen')}`"
            unseen[preset] = summary
            for control, scored in summary["controls"].items():
                own = control == "untrained_base"
                row = f"{preset} before training" if own else control.replace("_", " ")
                unseen.setdefault(row, scored)
    seen = {f"`{name}`": s for name, s in summaries.items() if "unseen" not in s}
    heading = "Trained without dress, shirt, sneaker and bag, and asked about pairs of these:"
    return "\n".join([*_rows(seen, _COLUMNS), "", heading, "", *_rows(unseen, _UNSEEN_COLUMNS)])


def updated(readme: str) -> str:
    """Return `readme` with the table between its two marks replaced."""
    return re.sub(
        r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)",
        lambda marks: f"{marks[1]}{results_table()}\n{marks[2]}",
        readme,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text()))

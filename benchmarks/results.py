"""Write README's table of results from `benchmarks/results/*.json`.

    python -m siamese_keras.train --preset fast --seeds 0,1,2 --run-dir runs/fast
    cp runs/fast/summary.json benchmarks/results/fast.json
    python benchmarks/results.py

Each file is the summary that `train --seeds` writes, under the name of its row.
"""

import json
import re
from pathlib import Path

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


def results_table() -> str:
    """Return the table as Markdown: mean and standard deviation over the seeds."""
    lines = [
        "| preset | " + " | ".join(title for title, *_ in _COLUMNS) + " |",
        "| --- |" + " --- |" * len(_COLUMNS),
    ]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        summary = json.loads(path.read_text())
        cells = []
        for title, group, key, digits in _COLUMNS:
            value = summary[group][key]
            unit = " s" if title == "fit" else ""
            cells.append(f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}{unit}")
        lines.append(f"| `{path.stem}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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

"""The report page of a run: one HTML file with its figures, readable without a network.

It is made of the files of a run alone, so that it can be written again at any time.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import json
import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.evaluation.glossary import (
    FIGURES,
    GROUP_NOTES,
    GROUPS,
    PAIR_ROWS,
    RETRIEVAL_ROWS,
)
from siamese_keras.files import atomic_path

PAGE = "report.html"  # in the folder of a run
_NEEDED = {
    "model": ("name", "siamese_keras", "class_names", "training.epochs", "training.images.train"),
    "metrics": ("test.accuracy_ci95", "test.threshold", "retrieval.recall_at_1"),
}
_LISTED_CLASSES = 50  # of more, those that are answered worst


@dataclasses.dataclass(frozen=True)
class RunResults:
    """What the files of a scored run say.

    Attributes:
        folder: The folder of the run.
        config: Its settings.
        facts: Content of `model.json`.
        metrics: Content of `metrics.json`.
        classes: Name, images, sensitivity and specificity of each class, the worst class first.
        figures: PNG files by name.
    """

    folder: Path
    config: Config
    facts: dict[str, Any]
    metrics: dict[str, Any]
    classes: list[tuple[str, int, float, float]]
    figures: dict[str, bytes]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name


def _distinct_names(runs: Sequence[RunResults]) -> list[str]:
    """Return the names of the runs, or their paths where two have the same name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def read_results(folder: str | os.PathLike[str]) -> RunResults:
    """Read the files of a scored run.

    Args:
        folder: The folder of a run.

    Raises:
        ModelError: When it is not one, it has not been scored, or a file is damaged; the message
            names the file.
        ArgumentError: When its settings are damaged.
        OSError: When a file cannot be read.
    """
    folder = Path(folder)
    for name in ("config.json", "model.json"):
        if not (folder / name).is_file():
            raise ModelError(f"`{folder}` is not the folder of a complete run: it has no {name}.")
    if not (folder / "metrics.json").is_file():
        raise ModelError(
            f"`{folder}` has no metrics.json. Score it first: "
            f"python -m siamese_keras.evaluate {folder}"
        )
    content = {}
    for name, needed in _NEEDED.items():
        path = folder / f"{name}.json"
        try:
            content[name] = json.loads(path.read_text(encoding="utf-8"))
            for keys in needed:
                functools.reduce(operator.getitem, keys.split("."), content[name])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"`{path}` is damaged: {error!r}") from None
    return RunResults(
        folder,
        Config.load(folder / "config.json"),
        content["model"],
        content["metrics"],
        _read_classes(folder / "classes.csv"),
        {path.stem: path.read_bytes() for path in (folder / "figures").glob("*.png")},
    )


def write_run_page(
    folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report page of a scored run, and return its path.

    Args:
        folder: The folder of the run.
        path: Where to write the page; None writes `report.html` into the folder.

    Raises:
        ModelError, ArgumentError, OSError: As `read_results`.
    """
    results = read_results(folder)
    path = results.folder / PAGE if path is None else Path(path)
    return _write(path, "run.html", run=results, **_run_tables(results))


def write_comparison_page(
    folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> Path:
    """Write a page that shows several scored runs side by side, and return its path.

    Args:
        folders: The folders of two or more runs.
        path: Where to write the page; its folder exists.

    Raises:
        ArgumentError: When there are fewer than two.
        ModelError, ArgumentError, OSError: As `read_results`.
    """
    if len(folders) < 2:
        raise ArgumentError(f"A comparison needs two runs. Received: {len(folders)}")
    runs = [read_results(folder) for folder in folders]
    names = _distinct_names(runs)
    settings = [_described(run) for run in runs]
    differing = [
        (setting, [_shown(values[setting]) for values in settings])
        for setting in settings[0]
        if len({_shown(values[setting]) for values in settings}) > 1
    ]
    sections = [
        (title, rows)
        for title, group, described in (
            ("Test pairs", "test", PAIR_ROWS),
            ("Pairs of unseen classes", "unseen", PAIR_ROWS),
            ("Search among the test images", "retrieval", RETRIEVAL_ROWS),
        )
        if (rows := _compared([run.metrics.get(group, {}) for run in runs], described))
    ]
    fits = [
        ("fit", [f"{run.facts['training'].get('fit_seconds', 0):,.0f} s" for run in runs]),
        ("epochs", [run.facts["training"]["epochs"] for run in runs]),
    ]
    figures = [
        (
            title,
            meaning,
            kind,
            [
                (name, _data_uri(run.figures[figure]))
                for name, run in zip(names, runs, strict=True)
                if figure in run.figures
            ],
        )
        for figure, (title, meaning, kind) in FIGURES.items()
        if any(figure in run.figures for run in runs)
    ]
    return _write(
        Path(path),
        "comparison.html",
        names=names,
        version=runs[0].facts["siamese_keras"],
        same_data=len({_tested_on(run) for run in runs}) == 1,
        sections=sections,
        fits=fits,
        differing=differing,
        figures=figures,
    )


def _tested_on(run: RunResults) -> tuple[Any, ...]:
    """Return what runs have in common whose figures can be compared."""
    classes = frozenset(name for name, *_ in run.classes)
    return run.facts["training"].get("data"), run.metrics["test"].get("num_pairs"), classes


def run_folders(folder: Path) -> list[Path]:
    """Return the runs of a folder: itself, or one for each seed of `train --seeds`."""
    if (folder / "summary.json").is_file() and not (folder / "config.json").exists():
        return sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    return [folder]


def _described(run: RunResults) -> dict[str, Any]:
    """Return the settings of a run; those of a base model are None where it was the user's own."""
    settings = {"base_model": None, **dataclasses.asdict(run.config)}
    if run.facts["training"].get("own_base_model"):
        unused = dict.fromkeys(run.config.base_model_options())
        settings |= {"base_model": "your own", **unused}
    return settings


def _run_tables(run: RunResults) -> dict[str, Any]:
    groups = {name: run.metrics[name] for name in GROUPS if "accuracy" in run.metrics.get(name, {})}
    if not groups.get("test_deduplicated", {}).get("removed_images"):
        groups.pop("test_deduplicated", None)  # the test pairs once more
    default = dataclasses.asdict(Config())
    settings = [
        (name, _shown(value), value != default.get(name))
        for name, value in _described(run).items()
        if value is not None
    ]
    notes = [GROUP_NOTES[name].format(**groups[name]) for name in groups if name in GROUP_NOTES]
    retrieval = {name: run.metrics[name] for name in ("retrieval", "unseen") if "map" in
                 run.metrics.get(name, {})}  # fmt: skip
    return {
        "groups": [GROUPS[name] for name in groups],
        "pair_rows": _rows(list(groups.values()), PAIR_ROWS),
        "notes": notes,
        "retrieval_groups": ["test images", "unseen classes"][: len(retrieval)],
        "retrieval_rows": _rows(list(retrieval.values()), RETRIEVAL_ROWS),
        "few_shot": _few_shot(run.metrics),
        "compared": _with_baselines(run),
        "thresholds": [
            row
            for row in run.facts.get("false_accepts", {}).get("thresholds", [])
            if row["threshold"] is not None
        ],
        "classes": run.classes[:_LISTED_CLASSES],
        "num_classes": len(run.classes),
        "figures": [
            (title, meaning, kind, _data_uri(run.figures[name]))
            for name, (title, meaning, kind) in FIGURES.items()
            if name in run.figures
        ],
        "settings": settings,
    }


def _rows(groups: Sequence[dict[str, Any]], names: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return name, values and meaning of each figure that some group has."""
    return [
        (name, [group.get(key) for group in groups], meaning)
        for key, name, meaning, _ in names
        if any(group.get(key) is not None for group in groups)
    ]


def _compared(groups: Sequence[dict[str, Any]], names: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return name, values and the best value of each figure that some group has."""
    rows = []
    for key, name, _, more_is_better in names:
        values = [group.get(key) for group in groups]
        known = [value for value in values if value is not None]
        if known:
            rows.append((name, values, max(known) if more_is_better else min(known)))
    return rows


def _few_shot(metrics: dict[str, Any]) -> list[tuple[str, float, list[float]]]:
    """Return name, share and interval of the one-shot and five-shot figures."""
    found = metrics.get("open_set") or {"one_shot": metrics.get("one_shot", {})}
    names = {
        "one_shot": "one-shot",
        "five_shot": "five-shot",
        "one_shot_within_superclass": "one-shot within a superclass",
    }
    return [
        (f"{name}, {key.removesuffix('_way')} classes", share, found[kind][f"{key}_ci95"])
        for kind, name in names.items()
        for key, share in found.get(kind, {}).items()
        if not key.endswith("_ci95")
    ]


def _with_baselines(run: RunResults) -> list[tuple[str, list[float | None]]]:
    """Return the main figures of the model and of each baseline, of unseen classes if there are."""
    group = "unseen" if "unseen" in run.metrics else "test"
    models = {"this model": run.metrics, **run.metrics.get("baselines", {})}
    return [
        (
            name.replace("_", " "),
            [scores[group].get(key) for key in ("accuracy", "roc_auc", "eer")]
            + [scores["retrieval" if group == "test" else group].get("recall_at_1")],
        )
        for name, scores in models.items()
        if group in scores
    ]


def _read_classes(path: Path) -> list[tuple[str, int, float, float]]:
    """Return name, images, sensitivity and specificity of each class, the worst class first."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            classes = [
                (row["class"], int(row["images"]), float(row["sensitivity"]),
                 float(row["specificity"]))
                for row in csv.DictReader(file)
            ]  # fmt: skip
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ModelError(f"`{path}` is damaged: {error!r}") from None
    # A class of one image has no same pair: its sensitivity is NaN.
    return sorted(classes, key=lambda c: (1.0 if math.isnan(c[2]) else c[2]) + c[3])


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _figure(value: float | None) -> str:
    """Return a figure with four decimals, or a dash when there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _write(path: Path, template: str, **content: Any) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("siamese_keras.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = _figure
    try:
        text = environment.get_template(template).render(content)
    except (jinja2.UndefinedError, TypeError, ValueError) as error:
        raise ModelError(f"The metrics.json of a run is damaged: {error}") from None
    with atomic_path(path) as temporary:
        # Names of folders may hold bytes that are not UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path

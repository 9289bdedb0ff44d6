"""The main figures of a report as lines of text."""

from __future__ import annotations

from typing import Any

_SHOTS = (
    ("one_shot", "one-shot"),
    ("five_shot", "five-shot"),
    ("one_shot_within_superclass", "within superclass"),  # one-shot
)


def report_table(report: dict[str, Any]) -> str:
    """Return the main figures of `Report.metrics`, a line each."""
    test, interval = report["test"], report["test"]["accuracy_ci95"]

    def brief(group: dict[str, Any]) -> str:
        return f"{group['accuracy']:.4f} accuracy, {group['roc_auc']:.4f} AUC"

    origin = "from validation pairs"
    midpoint = test.get("midpoint", test["threshold"])  # which earlier versions did not write
    if midpoint != test["threshold"]:
        origin = f"chosen; {midpoint:.4f} {origin}"
    rows = [
        (
            "pair accuracy",
            f"{test['accuracy']:.4f}  (95 % interval {interval[0]:.4f} to {interval[1]:.4f}; "
            f"{test['num_pairs']} test pairs)",
        ),
        ("ROC-AUC", f"{test['roc_auc']:.4f}"),
        ("equal error rate", f"{test['eer']:.4f}"),
        ("TAR at FAR 1 %", f"{test['tar_at_far_1e-2']:.4f}"),
        ("calibration error", f"{test['ece']:.4f}"),
        ("threshold", f"{test['threshold']:.4f}  ({origin})"),
        ("Recall@1", f"{report['retrieval']['recall_at_1']:.4f}"),
        ("MAP@R", f"{report['retrieval']['map_at_r']:.4f}"),
        ("mAP", f"{report['retrieval']['map']:.4f}"),
    ]
    if "test_hard" in report:
        rows.insert(6, ("hard pairs", brief(report["test_hard"])))
    if removed := report["test_deduplicated"]["removed_images"]:
        left = report["test_deduplicated"]
        result = brief(left) if "accuracy" in left else "too few are left to score"
        images = "test image is" if removed == 1 else "test images are"
        rows.append(("without duplicates", f"{result}  ({removed} {images} also in training data)"))
    if "unseen" in report:
        unseen = report["unseen"]
        rows.append(("unseen classes", f"{brief(unseen)}, {unseen['map']:.4f} mAP"))
    if "given_pairs" in report:
        given = report["given_pairs"]
        about = f"{given['num_pairs']} pairs"
        if trained := given["trained_images"]:
            about += f"; {trained} of their images are also in training data"
        rows.append(("given pairs", f"{brief(given)}  ({about})"))
    if "open_set" in report:
        rows += _open_set_rows(report["open_set"])
    if report["baselines"]:
        group = "unseen" if "unseen" in report else "test"
        name, best = max(report["baselines"].items(), key=lambda item: item[1][group]["roc_auc"])
        label = "best baseline" if len(report["baselines"]) > 1 else "baseline"
        about = f"{name.replace('_', ' ')}, {group} pairs"
        if best[group]["roc_auc"] > report[group]["roc_auc"]:
            about += "; better than the model"
        rows.append((label, f"{brief(best[group])}  ({about})"))
    return "\n".join(f"{name:19s}  {value}" for name, value in rows)


def _open_set_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    number, single = figures["num_classes"], figures["single_images"]
    about = f"{figures['num_images']} images of {number} unseen classes"
    about += f", {single} with one image" if single else ""
    rows = [("open set", about)]
    for kind, name in _SHOTS:
        shares = [
            f"{share:.4f} {key.replace('_', '-')}"
            for key, share in figures.get(kind, {}).items()
            if not key.endswith("_ci95")
        ]
        if shares:
            rows.append((name, ", ".join(shares)))
    rows.append(
        ("OPIS", f"{figures['opis']:.4f}  (how differently one threshold fits the classes)")
    )
    return rows

"""The report page of a run: complete, self-contained, and true to the files of the run."""

import json
import re
import shutil

import pytest
from helpers.browser import until

from siamese_keras import SiameseKerasError
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.evaluation.report_page import (
    run_folders,
    write_comparison_page,
    write_run_page,
)


@pytest.fixture(scope="module")
def scored(tiny, tiny_run, sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "scored"
    shutil.copytree(tiny_run, folder)
    tiny.evaluate(sample).save(folder)
    return folder


@pytest.fixture
def run(scored, tmp_path):
    """A copy of the run that a test may change."""
    shutil.copytree(scored, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    return tmp_path / "run"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_shows_the_figures_of_the_run(scored):
    page = write_run_page(scored).read_text()
    metrics = json.loads((scored / "metrics.json").read_text())
    for group, key in (("test", "accuracy"), ("test_hard", "roc_auc"), ("retrieval", "map")):
        assert f"{metrics[group][key]:.4f}" in page
    assert f"{metrics['baselines']['raw_pixels']['test']['accuracy']:.4f}" in page
    assert page.count("<img") == len(list((scored / "figures").glob("*.png"))) == 8
    assert "filters" in page and "4, 8" in page  # a setting that differs from the preset fast


def test_settings_that_do_not_describe_the_users_own_base_model_are_not_shown(run):
    model = json.loads((run / "model.json").read_text())
    edit(run / "model.json", training={**model["training"], "own_base_model": True})
    page = write_run_page(run).read_text()
    assert "base_model" in page and "your own" in page
    assert "embedding_dim" not in page and "filters" not in page
    assert "margin" in page


def test_a_base_model_of_the_users_own_differs_from_that_of_the_settings(scored, run, tmp_path):
    model = json.loads((run / "model.json").read_text())
    edit(run / "model.json", training={**model["training"], "own_base_model": True})
    edit(run / "config.json", embedding_dim=77)  # which does not describe it
    page = write_comparison_page([scored, run], tmp_path / "comparison.html").read_text()
    assert "base_model" in page and "your own" in page
    assert "77" not in page.partition("base_model")[2].partition("</table>")[0]


def test_it_needs_no_other_file_and_no_network(scored):
    page = write_run_page(scored).read_text()
    links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]*)\)|@import""", page)
    assert links
    assert all(link.startswith("data:") for link, _ in links), links
    assert "<script" not in page


def test_every_picture_has_a_text_for_those_who_cannot_see_it(scored):
    page = write_run_page(scored).read_text()
    assert all(re.search(r'alt="[^"]{40,}"', tag) for tag in re.findall(r"<img[^>]*>", page))


def test_names_are_text_and_never_markup(run):
    edit(run / "model.json", name="<script>alert(1)</script>")
    page = write_run_page(run).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_worst_of_many_classes_are_listed(run):
    rows = ["class,images,sensitivity,specificity", "single,1,nan,0.9"]
    rows += [f"class-{n},20,{0.5 + n / 1000},1.0" for n in range(100)]
    (run / "classes.csv").write_text("\n".join(rows))
    page = write_run_page(run).read_text()
    assert ">class-0<" in page and ">class-49<" in page and ">class-50<" not in page
    assert "50 of 101 classes" in page


def test_unseen_classes_have_their_column_and_their_few_shot_figures(run):
    metrics = json.loads((run / "metrics.json").read_text())
    unseen = {**metrics["test"], **metrics["retrieval"], "accuracy": 0.71234}
    open_set = {"one_shot": {"5_way": 0.61234, "5_way_ci95": [0.6, 0.63]}}
    edit(run / "metrics.json", unseen=unseen, open_set=open_set)
    page = write_run_page(run).read_text()
    assert "unseen classes" in page and "0.7123" in page
    assert "one-shot, 5 classes" in page and "0.6123" in page


def test_a_run_without_scores_or_with_damaged_files_is_named(run):
    (run / "classes.csv").write_text("class,images\nboot,many\n")
    with pytest.raises(ModelError, match=r"classes\.csv` is damaged: ValueError"):
        write_run_page(run)
    (run / "metrics.json").write_text('{"test": {}}')
    with pytest.raises(ModelError, match=r"metrics\.json` is damaged: KeyError"):
        write_run_page(run)
    (run / "metrics.json").unlink()
    with pytest.raises(ModelError, match=r"has no metrics\.json\. Score it first: python -m"):
        write_run_page(run)
    (run / "model.json").unlink()
    with pytest.raises(
        ModelError, match=r"not the folder of a complete run: it has no model\.json"
    ):
        write_run_page(run)
    assert not (run / "report.html").exists()


def test_runs_are_compared_side_by_side(scored, run, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    edit(run / "metrics.json", test={**metrics["test"], "accuracy": 0.98765, "eer": 0.98764})
    edit(run / "config.json", margin=1.777)
    page = write_comparison_page([scored, run], tmp_path / "comparison.html").read_text()
    assert 'best">0.9877' in page  # more is better here
    assert "0.9876<" in page and 'best">0.9876' not in page  # and less here
    assert "1.777" in page and ">filters<" not in page  # settings that differ, and no other
    assert page.count("<img") == 16
    assert "cannot be compared" not in page


def test_runs_on_other_data_are_not_ranked(scored, run, tmp_path):
    model = json.loads((run / "model.json").read_text())
    edit(run / "model.json", training={**model["training"], "data": "0" * 64})
    page = write_comparison_page([scored, run], tmp_path / "comparison.html").read_text()
    assert "cannot be compared" in page
    assert 'best">' not in page


def test_one_run_is_no_comparison(scored, tmp_path):
    with pytest.raises(ArgumentError, match=r"needs two runs\. Received: 1"):
        write_comparison_page([scored], tmp_path / "comparison.html")


def test_the_seeds_of_a_folder_are_its_runs(tmp_path):
    for name in ("seed-10", "seed-2"):
        (tmp_path / name).mkdir()
    assert run_folders(tmp_path) == [tmp_path]
    (tmp_path / "summary.json").write_text("{}")
    assert [path.name for path in run_folders(tmp_path)] == ["seed-2", "seed-10"]


def test_a_page_that_was_there_stays_when_the_run_is_damaged(run):
    page = write_run_page(run)
    before = page.read_bytes()
    (run / "metrics.json").write_text("{")
    with pytest.raises(SiameseKerasError):
        write_run_page(run)
    assert page.read_bytes() == before


def test_runs_of_the_same_name_are_told_apart(scored, tmp_path):
    for parent in ("first", "second"):
        shutil.copytree(scored, tmp_path / parent / "run")
    folders = [tmp_path / parent / "run" for parent in ("first", "second")]
    page = write_comparison_page(folders, tmp_path / "comparison.html").read_text()
    assert all(f">{folder}</th>" in page for folder in folders)


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_all_of_it_at_the_width_of_a_desk_and_of_a_phone(scored, browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    pages = [write_run_page(scored), write_comparison_page([scored, scored], scored / "two.html")]
    for page, pictures in zip(pages, (8, 16), strict=True):
        browser.get(page.as_uri())
        sizes = "return [...document.images].map(i => [i.naturalWidth, i.clientWidth])"

        def drawn(pictures=pictures, sizes=sizes):
            shown = browser.execute_script(sizes)
            return len(shown) == pictures and all(full >= width > 200 for full, width in shown)

        until(drawn)  # a page of a megabyte may still be read
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        loaded = "return performance.getEntriesByType('resource').map(r => r.name.slice(0, 5))"
        assert set(browser.execute_script(loaded)) <= {"data:"}
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_dark_page_for_those_who_prefer_it(scored, browser):
    browser.get(write_run_page(scored).as_uri())
    brightness = (
        "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
        ".reduce((sum, value) => sum + Number(value), 0)"
    )
    found = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found.append(browser.execute_script(brightness))
    assert found[0] > 700 and found[1] < 120


def test_runs_that_were_tested_on_other_classes_are_not_ranked(scored, run, tmp_path):
    """As with and without `--unseen-classes`, of one dataset."""
    lines = (run / "classes.csv").read_text().splitlines(keepends=True)
    (run / "classes.csv").write_text("".join(lines[:-1]))
    page = write_comparison_page([scored, run], tmp_path / "comparison.html").read_text()
    assert "cannot be compared" in page
    assert 'best">' not in page


def test_metrics_of_another_kind_are_named_as_damaged(run):
    metrics = json.loads((run / "metrics.json").read_text())
    edit(run / "metrics.json", test={**metrics["test"], "roc_auc": "high"})
    with pytest.raises(ModelError, match=r"The metrics\.json of a run is damaged"):
        write_run_page(run)

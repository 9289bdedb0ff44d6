import json
from pathlib import Path

import pytest

from siamese_keras.errors import ArgumentError, DataError
from siamese_keras.files import (
    atomic_path,
    new_folder,
    read_columns,
    write_columns,
    write_json,
)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_file_appears_whole(tmp_path, as_type):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with atomic_path(as_type(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".json"  # Keras and NumPy choose the format by it
        assert temporary.parent.stat().st_dev == tmp_path.stat().st_dev
    assert path.read_text() == "new"
    assert listing(tmp_path) == ["metrics.json"]


def test_a_failed_write_leaves_the_good_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("good")
    with pytest.raises(OSError, match="disk full"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "good"
    assert listing(tmp_path) == ["metrics.json"]


def test_nothing_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "metrics.json"):
        pass
    assert listing(tmp_path) == []


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_new_folder_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path, as_type):
    folder = new_folder(as_type(tmp_path / "runs" / "a"))
    assert folder == tmp_path / "runs" / "a"
    assert folder.is_dir()
    assert new_folder(folder) == folder


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path):
    (tmp_path / ".precious").write_text("mine")
    with pytest.raises(ArgumentError) as refused:
        new_folder(tmp_path)
    assert str(refused.value) == (
        f"`run_dir` must be a new or empty folder. Received: `{tmp_path}`"
    )
    assert (tmp_path / ".precious").read_text() == "mine"
    with pytest.raises(OSError, match="precious"):
        new_folder(tmp_path / ".precious")


def test_an_address_is_not_made_into_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"on this machine\. Received: gs://bucket/run"):
        new_folder("gs://bucket/run")
    assert listing(tmp_path) == []


def test_json_is_written_as_others_read_it(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"accuracy": 0.5, "names": ("a", "é"), "none": None})
    assert json.loads(path.read_bytes()) == {"accuracy": 0.5, "names": ["a", "é"], "none": None}
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "facts.json"
    write_json(path, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"accuracy": [value]})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert listing(tmp_path) == ["facts.json"]


def test_columns_are_read_as_they_were_written(tmp_path):
    columns = {"loss": [0.1 + 0.2, 1e-30], "val_loss": [float("inf"), 3]}
    write_columns(tmp_path / "history.csv", columns)
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "loss,val_loss"
    assert read_columns(tmp_path / "history.csv") == columns
    write_columns(tmp_path / "history.csv", {"loss": []})
    assert read_columns(str(tmp_path / "history.csv")) == {"loss": []}


def test_columns_of_unequal_length_are_refused_and_the_old_file_stays(tmp_path):
    write_columns(tmp_path / "history.csv", {"loss": [1.0]})
    with pytest.raises(ValueError, match="shorter"):
        write_columns(tmp_path / "history.csv", {"loss": [1.0, 2.0], "val_loss": [1.0]})
    assert read_columns(tmp_path / "history.csv") == {"loss": [1.0]}


def test_a_missing_file_has_no_columns(tmp_path):
    assert read_columns(tmp_path / "history.csv") == {}


@pytest.mark.parametrize("text", ["", "loss,val_loss\n1\n", "loss\nlow\n"])
def test_damaged_columns_are_named(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match=r"history\.csv` must hold columns of numbers"):
        read_columns(tmp_path / "history.csv")

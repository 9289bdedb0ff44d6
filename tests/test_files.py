import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from siamese_keras.errors import ArgumentError, DataError
from siamese_keras.files import (
    atomic_path,
    clear_unused,
    locked_run,
    read_columns,
    write_columns,
    write_json,
    writing_folder,
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
def test_the_folder_of_a_run_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path, as_type):
    for _ in range(2):
        with locked_run(as_type(tmp_path / "runs" / "a")) as folder:
            assert folder == tmp_path / "runs" / "a"
            assert folder.is_dir()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path, resume):
    (tmp_path / ".precious").write_text("mine")
    message = "There is no run to resume in" if resume else "must be a new or empty folder"
    with pytest.raises(ArgumentError, match=message), locked_run(tmp_path, resume=resume):
        pass
    assert listing(tmp_path) == [".precious"]
    with (
        pytest.raises((OSError, ArgumentError), match="precious"),
        locked_run(tmp_path / ".precious", resume=resume),
    ):
        pass


def test_an_address_is_not_made_into_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"on this machine\. Received: gs://bucket/run"
    with pytest.raises(ArgumentError, match=message), locked_run("gs://bucket/run"):
        pass
    assert listing(tmp_path) == []


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_into_one_folder_are_refused_and_a_killed_one_is_not_in_the_way(
    tmp_path, resume
):
    program = (
        "import sys, time; from siamese_keras.files import locked_run\n"
        "with locked_run(sys.argv[1]): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout.readline() == b"locked\n"
            with (
                pytest.raises(
                    ArgumentError, match=f"Another training run is writing to `{tmp_path}`"
                ),
                locked_run(tmp_path, resume=resume),
            ):
                pass
        finally:
            other.kill()
    with locked_run(tmp_path, resume=resume), locked_run(tmp_path, resume=resume):
        pass  # the second one as `fit` does within the program that holds the first one


def test_settings_of_another_training_are_not_taken_for_a_new_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArgumentError, match="must be a new or empty folder"), locked_run(tmp_path):
        pass
    with locked_run(tmp_path, resume=True):  # killed before the first checkpoint
        pass
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_folder_is_cleared_unless_something_was_written(tmp_path):
    (tmp_path / ".writing-abc").mkdir()  # by a program that was killed
    with locked_run(tmp_path):
        (tmp_path / "command.json").write_text("{}")
        clear_unused(tmp_path)
        assert listing(tmp_path) == []
    (tmp_path / "history.csv").write_text("loss")
    (tmp_path / "command.json").write_text("{}")
    clear_unused(tmp_path)
    assert {"command.json", "history.csv"} <= set(listing(tmp_path))


def test_what_a_killed_training_was_writing_is_removed_when_it_is_resumed(tmp_path):
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / ".writing-abc").mkdir(parents=True)
        (folder / ".writing-abc" / "half").write_text("ha")
    with locked_run(tmp_path, resume=True):
        assert listing(tmp_path) == [".lock", "checkpoints"]
        assert listing(tmp_path / "checkpoints") == []


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


def test_what_another_program_is_writing_into_a_run_is_left_alone(tmp_path):
    """As `predict --pairs` does while a training there is resumed, or a model is saved."""
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs = tmp_path / f".writing-{other.pid}-abc"
        theirs.mkdir()
        os.utime(theirs, (0, 0))
        (tmp_path / "config.json").touch()
        with locked_run(tmp_path, resume=True), writing_folder(tmp_path, stale_seconds=1):
            assert theirs.is_dir()
        other.kill()
    with locked_run(tmp_path, resume=True):
        assert not theirs.exists()


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "data" / "real.json")
    write_json(tmp_path / "link.json", 1)
    write_json(tmp_path / "link.json", 2)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "data" / "real.json").read_text() == "2\n"


def test_what_killed_programs_have_written_of_a_file_goes_after_a_day(tmp_path):
    for name, seconds in (("old", 90_000), ("young", 3600)):
        left = tmp_path / f".writing-1-{name}" / "a[1].json"
        left.parent.mkdir()
        left.touch()
        now = left.stat().st_mtime
        os.utime(left, (now - seconds, now - seconds))
    write_json(tmp_path / "b.json", 1)
    assert listing(tmp_path) == [".writing-1-old", ".writing-1-young", "b.json"]
    write_json(tmp_path / "a[1].json", 1)
    assert listing(tmp_path) == [".writing-1-young", "a[1].json", "b.json"]

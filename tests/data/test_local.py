from pathlib import Path

import pytest

from siamese_keras.data.idx import IDX_FILES
from siamese_keras.data.local import find_local, idx_folders, tfds_folder
from siamese_keras.files import expanded


def test_the_home_folder_is_put_for_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/photos") == tmp_path / "photos"
    assert expanded(Path("~")) == tmp_path
    assert expanded("photos/~") == Path("photos/~")


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """A container that runs as a user of whom the machine knows nothing."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_home")
def test_a_tilde_stays_where_there_is_no_home():
    with pytest.raises(RuntimeError):
        Path("~").expanduser()  # what this is about
    assert expanded("~/photos") == Path("~/photos")
    assert tfds_folder() == Path("~/tensorflow_datasets")
    assert Path("FashionMNIST/raw") in list(idx_folders())
    assert find_local() in (None, Path("/usr/share/datasets/fashion-mnist"))


def test_the_home_of_an_unknown_user_stays_as_it_is():
    assert expanded("~nobody-of-that-name/photos") == Path("~nobody-of-that-name/photos")


PLACES = {
    "make data": "cache/siamese_keras/fashion-mnist",
    "Keras": "keras/datasets/fashion-mnist",
    "torchvision, here": "here/FashionMNIST/raw",
    "torchvision, data": "here/data/FashionMNIST/raw",
    "torchvision, home": "home/data/FashionMNIST/raw",
}


@pytest.fixture
def places(monkeypatch, tmp_path):
    """A folder of everything that `idx_folders` and `tfds_folder` depend on."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_idx_files_are_found_where_programs_put_them(places, place):
    folder = places / place
    assert folder in [path.resolve() for path in idx_folders()]
    folder.mkdir(parents=True)
    before = find_local()
    for name in IDX_FILES[:3]:
        (folder / f"{name}.gz").touch()
    assert find_local() == before  # not with one file missing
    (folder / f"{IDX_FILES[3]}.gz").touch()
    usual = {folder, Path("/usr/share/datasets/fashion-mnist")}
    assert find_local().resolve() in usual


def test_without_variables_the_caches_are_in_the_home_folder(places, monkeypatch):
    for name in ("XDG_CACHE_HOME", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name)
    home = places / "home"
    assert home / ".cache/siamese_keras/fashion-mnist" in list(idx_folders())
    assert home / ".keras/datasets/fashion-mnist" in list(idx_folders())
    assert tfds_folder() == home / "tensorflow_datasets"


def test_what_tfds_has_prepared_is_found_first(places):
    for name in IDX_FILES:
        path = places / PLACES["make data"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    prepared = places / "tfds" / "fashion_mnist"
    (prepared / "3.0.1").mkdir(parents=True)
    assert find_local() == places / PLACES["make data"]  # the folder alone does not count
    (prepared / "3.0.1" / "dataset_info.json").touch()
    assert find_local() == prepared

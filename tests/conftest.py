"""A small real sample of Fashion-MNIST, and a tiny model trained on it once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import siamese_keras  # turns on oneDNN before TensorFlow is imported, as late as a test needs it

# isort: split
import numpy as np
import pytest
from helpers.tiny import SAMPLE, TINY

if TYPE_CHECKING:
    from helpers.c_api import CApiModel
    from helpers.loopback import LoopbackServer
    from selenium import webdriver

    from siamese_keras import Dataset, Verifier

# Modules whose tests take longest come first: of two processes, none is left with one of them. The
# first two go together, since only one of them starts processes itself.
SLOW = (
    "test_distribution.py",
    "test_resume.py",
    "test_trainer.py",
    "test_faults.py",
    "test_notebooks.py",
)


def pytest_collection_modifyitems(items):
    """Put the tests of slow modules first, and leave the order as it is otherwise."""
    order = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.name, len(SLOW)))


@pytest.fixture(scope="session")
def sample() -> Dataset:
    """500 train, 100 validation and 200 test images of all ten classes."""
    return siamese_keras.load_dataset("idx", SAMPLE, validation_size=100)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of `tiny`; complete once `tiny` is there."""
    return tmp_path_factory.mktemp("tiny") / "run"


@pytest.fixture(scope="session")
def tiny(sample: Dataset, tiny_run: Path) -> Verifier:
    """A verifier that saw the sample for three epochs: weak, but trained, saved and complete."""
    return siamese_keras.fit(sample, TINY, run_dir=tiny_run, verbose=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window; the test sets its size."""
    from helpers.browser import start_browser

    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def exported(tiny: Verifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny model as an exported version, `.../tiny/1`, whose graph is loaded only once."""
    from siamese_keras.serving import portable

    version = tiny.export(tmp_path_factory.mktemp("saved_models") / "tiny").resolve()
    load = portable.load_saved_model
    loaded = load(version)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            portable,
            "load_saved_model",
            lambda folder: loaded if folder.resolve() == version else load(folder),
        )
        yield version


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export and verify the two signatures that are soon traced, which decode no files."""
    from siamese_keras.serving import exporter

    names = ("serving_default", "embed")
    build_signatures, example_requests = exporter.build_signatures, exporter.example_requests

    def signatures(*arguments):
        return {name: build_signatures(*arguments)[name] for name in names}

    def requests(*arguments, **options):
        return {name: example_requests(*arguments, **options)[name] for name in names}

    monkeypatch.setattr(exporter, "build_signatures", signatures)
    monkeypatch.setattr(exporter, "example_requests", requests)


@pytest.fixture(scope="session")
def c_api_model(exported: Path) -> Iterator[CApiModel]:
    """The exported version in the C++ loader."""
    from helpers.c_api import CApiModel

    model = CApiModel(exported)
    yield model
    model.close()


@pytest.fixture(scope="session")
def server(c_api_model: CApiModel) -> Iterator[LoopbackServer]:
    """A server of the C++ loader's answers under the name fashion_mnist, over gRPC and REST."""
    from helpers.loopback import LoopbackServer

    with LoopbackServer(c_api_model, "fashion_mnist") as running:
        yield running

"""A small real sample of Fashion-MNIST, and a tiny model trained on it once per session."""

from collections.abc import Iterator
from pathlib import Path

import siamese_keras  # noqa: F401 (turns on oneDNN before TensorFlow is imported)

# isort: split
import numpy as np
import pytest
from helpers.browser import start_browser
from helpers.c_api import CApiModel
from helpers.loopback import LoopbackServer
from helpers.tiny import SAMPLE, TINY
from selenium import webdriver

from siamese_keras import Dataset, Verifier, fit, load_dataset

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
    return load_dataset("idx", SAMPLE, validation_size=100)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of `tiny`; complete once `tiny` is there."""
    return tmp_path_factory.mktemp("tiny") / "run"


@pytest.fixture(scope="session")
def tiny(sample: Dataset, tiny_run: Path) -> Verifier:
    """A verifier that saw the sample for three epochs: weak, but trained, saved and complete."""
    return fit(sample, TINY, run_dir=tiny_run, verbose=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window; the test sets its size."""
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def exported(tiny: Verifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as an exported version, `.../tiny/1`."""
    return tiny.export(tmp_path_factory.mktemp("saved_models") / "tiny")


@pytest.fixture(scope="session")
def c_api_model(exported: Path) -> Iterator[CApiModel]:
    """The exported version in the C++ loader."""
    model = CApiModel(exported)
    yield model
    model.close()


@pytest.fixture(scope="session")
def server(c_api_model: CApiModel) -> Iterator[LoopbackServer]:
    """A server of the C++ loader's answers under the name fashion_mnist, over gRPC and REST."""
    with LoopbackServer(c_api_model, "fashion_mnist") as running:
        yield running

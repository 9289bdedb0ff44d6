"""The package as a whole: what an import does, and the names that it offers."""

import importlib
import os
import pkgutil
import platform
import subprocess
import sys
import types

import pytest

import siamese_keras

PUBLIC = {
    "PRESETS",
    "Config",
    "ContrastiveLoss",
    "Dataset",
    "MultiSimilarityLoss",
    "SiameseKerasError",
    "Split",
    "SupervisedContrastiveLoss",
    "TripletSemiHardLoss",
    "Verifier",
    "build_base_model",
    "build_outer_model",
    "connect_workers",
    "contrastive_loss",
    "fit",
    "load_dataset",
    "load_verifier",
    "pair_pipeline",
}
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
# The environment and the file behind standard error, before and after.
IMPORT = """
import os, sys, warnings

def state():
    file = os.fstat(2)
    others = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    return others, file.st_dev, file.st_ino, warnings.showwarning

before = state()
import siamese_keras
dir(siamese_keras), siamese_keras.__version__
assert state() == before
siamese_keras.Config, siamese_keras.PRESETS, siamese_keras.SiameseKerasError, siamese_keras.Dataset
assert state() == before
loaded = {"tensorflow", "keras", "sklearn", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
"""


def modules():
    prefix = "siamese_keras."
    for module in pkgutil.walk_packages(siamese_keras.__path__, prefix):
        if module.name != "siamese_keras.__main__":
            yield importlib.import_module(module.name)


def test_importing_loads_no_framework_and_leaves_standard_error_and_the_rest_of_the_environment():
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="TensorFlow has oneDNN for Linux on x86",
)
def test_importing_turns_on_onednn():
    code = (
        "import siamese_keras\n"
        "from tensorflow.python.util import _pywrap_util_port as build\n"
        "print(build.IsMklEnabled())"
    )
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert finished.stdout == "True\n"


def test_importing_leaves_onednn_as_the_user_chose():
    code = f"import os, siamese_keras; print(os.environ[{VARIABLE!r}])"
    environment = {**os.environ, VARIABLE: "0"}
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert finished.stdout == "0\n"


def test_the_public_names_are_these_and_can_be_imported():
    assert set(siamese_keras.__all__) == PUBLIC
    assert len(siamese_keras.__all__) == len(PUBLIC)
    assert set(dir(siamese_keras)) >= PUBLIC
    imported = {}
    exec("from siamese_keras import *", imported)
    assert set(imported) - {"__builtins__"} == PUBLIC
    for name in PUBLIC - {"PRESETS"}:
        assert imported[name].__module__.startswith("siamese_keras."), name
        assert imported[name].__name__ == name


def test_no_public_name_is_a_module_so_none_is_replaced_when_a_program_is_imported():
    names = {module.name for module in pkgutil.iter_modules(siamese_keras.__path__)}
    assert {"train", "evaluate", "export", "predict", "diagrams", "__main__"} <= names
    assert not names & PUBLIC
    assert len(list(modules())) > len(names)
    for name in PUBLIC:
        assert not isinstance(getattr(siamese_keras, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'siamese_keras' has no attribute 'nonsense'"):
        _ = siamese_keras.nonsense
    assert not hasattr(siamese_keras, "train_and_evaluate")


def test_every_exception_is_in_errors_and_every_public_name_has_a_docstring():
    exceptions = [
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException)
        if value.__module__.startswith("siamese_keras")
    ]
    assert {error.__module__ for error in exceptions} == {"siamese_keras.errors"}
    for error in exceptions:
        assert issubclass(error, siamese_keras.SiameseKerasError), error
    assert all(getattr(siamese_keras, name).__doc__ for name in PUBLIC - {"PRESETS"})

import dataclasses
import inspect
import json
import types
from pathlib import Path
from typing import get_type_hints

import pytest

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.presets import PRESETS, as_config

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
HINTS = get_type_hints(Config)
OTHER = Config(filters=(8, 16), unseen_classes=("bag", "shirt"), margin=1.5, seed=7, epochs=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margin": -1}, "`margin` must be greater than 0. Received: margin=-1.0"),
        ({"margin": 2.5}, "`margin` must be at most 2, the largest distance of unit-length"),
        ({"positive_margin": 1.4}, "`positive_margin` must be less than `margin`. Received: posi"),
        ({"positive_margin": -0.1}, "`positive_margin` must be at least 0"),
        ({"epochs": 0}, "`epochs` must be at least 1. Received: epochs=0"),
        ({"filters": (8, 0)}, "`filters` must be at least 1. Received: filters=0"),
        ({"dropout": 1.0}, "`dropout` must be at most 0.95"),
        ({"learning_rate": 0}, "`learning_rate` must be greater than 0"),
        ({"validation_size": -1}, "`validation_size` must be at least 0"),
        ({"images_per_class": -1}, "`images_per_class` must be at least 0"),
        ({"classes_per_batch": 1}, "`classes_per_batch` must be 0 or at least 2"),
        (
            {"images_per_class": 5, "batch_size": 4},
            "`images_per_class` must be at most `batch_size`",
        ),
        ({"classes_per_batch": 3, "images_per_class": 3}, "`classes_per_batch` times `images_per_"),
        (
            {"images_per_class": 4, "pairs": "random"},
            "`images_per_class` needs pairs 'all'. Received",
        ),
        (
            {"classes_per_batch": 8, "pairs": "classic"},
            "`classes_per_batch` needs pairs 'all'. Rec",
        ),
        ({"loss": "multi-similarity", "pairs": "random"}, "`loss` 'multi-similarity' needs pairs"),
        ({"loss": "semi-hard-triplet", "unit_length": False}, "of unit length. Received: pairs='"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"seed": 2**31}, "`seed` must be at most 2147483647"),
        ({"kept_features": 0.5, "architecture": "mlp"}, "`kept_features` needs the architecture"),
        ({"dropout": 0.5}, "`dropout` needs `units` or a `backbone`"),
        (
            {"weights": "w.h5", "backbone": "n.keras"},
            "`weights` cannot be set for a .keras backbone",
        ),
        ({"weights": "none"}, "`weights` needs a `backbone`. Received: weights='none'"),
        ({"backbone_stages": 2}, "`backbone_stages` needs a `backbone`. Received: backbone_stages"),
        ({"fine_tune": 2}, "`fine_tune` needs a `backbone`. Received: fine_tune=2"),
        ({"fine_tune_learning_rate": 1e-4}, "`fine_tune_learning_rate` needs a `backbone`. Recei"),
        (
            {"backbone": "mobilenet_v2", "augment": "flip-shift"},
            "`augment` needs `fine_tune` with a backbone",
        ),
    ],
)
def test_a_value_out_of_range_is_named(values, message):
    with pytest.raises(ArgumentError) as refused:
        Config(**values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("unit_length", "false", "true or false"),  # a text is truthy
        ("unit_length", 0, "true or false"),
        ("bfloat16", None, "true or false"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", 2.0, "a whole number"),
        ("epochs", "2", "a whole number"),
        ("epochs", True, "a whole number"),
        ("seed", 0.5, "a whole number"),
        ("margin", float("nan"), "a finite number"),
        ("learning_rate", float("inf"), "a finite number"),
        ("kept_features", float("inf"), "a finite number"),
        ("kept_features", "0.5", "a finite number"),
        ("dropout", False, "a finite number"),
        ("dataset", 3, "a string"),
        ("filters", 32, "a list"),
        ("filters", "32,64", "a list"),
        ("unseen_classes", "bag", "a list"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(name, value, expected):
    with pytest.raises(ArgumentError) as refused:
        Config(**{name: value})
    assert str(refused.value) == f"`{name}` must be {expected}. Received: {name}={value!r}"


def test_items_of_a_list_have_a_type_as_well():
    for name, items, expected in (
        ("filters", [32, 64.0], "a whole number. Received: filters=64.0"),
        ("units", [True], "a whole number. Received: units=True"),
        ("unseen_classes", ["bag", 3], "a string. Received: unseen_classes=3"),
    ):
        with pytest.raises(ArgumentError) as refused:
            Config(**{name: items})
        assert str(refused.value) == f"`{name}` must be {expected}"


def test_lists_and_whole_numbers_are_accepted_where_tuples_and_floats_are_declared():
    config = Config(filters=[32, 64], unseen_classes=["bag", "shirt"], margin=1, dropout=0)
    assert config.filters == (32, 64)
    assert config.unseen_classes == ("bag", "shirt")
    assert isinstance(config.margin, float)
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if "Literal" in str(HINTS[n])])
def test_an_unknown_choice_lists_those_that_there_are(name):
    with pytest.raises(ArgumentError) as refused:
        Config(**{name: "nonsense"})
    assert f"`{name}` must be one of '" in str(refused.value)
    assert repr(FIELDS[name].default) in str(refused.value)


def test_settings_cannot_be_changed_and_are_given_by_name():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3
    with pytest.raises(TypeError):
        Config("fashion_mnist")
    with pytest.raises(TypeError, match="nonsense"):
        Config(nonsense=1)


@pytest.mark.parametrize("config", [OTHER, *PRESETS.values()])
@pytest.mark.parametrize("as_type", [str, Path])
def test_settings_are_loaded_as_they_were_saved(tmp_path, config, as_type):
    config.save(as_type(tmp_path / "config.json"))
    assert Config.load(as_type(tmp_path / "config.json")) == config
    assert set(json.loads((tmp_path / "config.json").read_text())) == set(FIELDS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "mapping"),
        ("3", "mapping"),
        ('{"margin": -1}', "`margin` must be greater than 0"),
        ('{"margin": NaN}', "`margin` must be a finite number"),
        ('{"unit_length": "false"}', "`unit_length` must be true or false"),
        ('{"epochs": 2.5}', "`epochs` must be a whole number"),
        ('{"nonsense": 1}', "nonsense"),
        ("[" * 100_000, ""),
        (b"\xff\xfe", "utf-8"),
    ],
    ids=repr,
)
def test_a_damaged_file_is_named(tmp_path, text, reason):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArgumentError) as refused:
        Config.load(path)
    assert str(refused.value).startswith(f"`{path}` must hold the settings of a run. ")
    assert reason in str(refused.value)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Config.load(tmp_path / "config.json")


def test_the_default_is_the_preset_fast_and_presets_stay_as_they_are():
    assert PRESETS["fast"] == Config()
    assert isinstance(PRESETS, types.MappingProxyType)
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert list(map(as_config, PRESETS)) == list(PRESETS.values())
    with pytest.raises(ArgumentError) as refused:
        as_config("slow")
    assert str(refused.value) == (
        "`config` must be a `Config` or one of fast, best, open-set, many-classes, pretrained, "
        "classic-mlp, classic-cnn. Received: 'slow'"
    )


def test_the_options_of_the_base_model_are_those_of_build_base_model():
    parameters = set(inspect.signature(build_base_model).parameters)
    assert set(Config().base_model_options()) == parameters - {"image_shape"}
    assert OTHER.base_model_options()["filters"] == (8, 16)


def test_settings_are_taken_as_they_are():
    assert as_config(OTHER) is OTHER
    with pytest.raises(ArgumentError, match=r"one of fast.* Received: \{\}"):
        as_config({})

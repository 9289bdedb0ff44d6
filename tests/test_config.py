import argparse
import dataclasses

import pytest

from siamese_keras.config import PRESETS, Config, add_config_options, config_from_options


def parse(*arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_config_options(parser)
    return config_from_options(parser, parser.parse_args(arguments))


def test_every_field_is_an_option_that_overrides_the_preset():
    assert parse() == Config() == PRESETS["fast"]
    assert parse("--preset", "classic-mlp") == PRESETS["classic-mlp"]
    config = parse(
        "--preset", "classic-cnn", "--filters", "8, 16", "--no-unit-length", "--margin", "1.5",
        "--epochs", "2", "--unseen-classes", "bag,3", "--units", "", "--unit-length",
    )  # fmt: skip
    assert config == dataclasses.replace(
        PRESETS["classic-cnn"],
        filters=(8, 16),
        units=(),
        margin=1.5,
        epochs=2,
        unit_length=True,
        unseen_classes=("bag", "3"),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "-1"], "`margin` must be greater than 0. Received: margin=-1.0"),
        (["--margin", "nan"], "`margin` must be greater than 0"),
        (["--margin", "2.5"], "`margin` must be at most 2"),
        (["--positive-margin", "1.2"], "`positive_margin` must be less than `margin`"),
        (["--epochs", "0"], "`epochs` must be at least 1"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--filters", "8,x"], "argument --filters: invalid list of int value: '8,x'"),
        (["--filters", "8,0"], "`filters` must be at least 1"),
        (["--dropout", "1"], "`dropout` must be at most 0.95"),
        (["--dropout", "nan"], "`dropout` must be at least 0"),
        (["--learning-rate", "inf"], "`learning_rate` must be greater than 0"),
        (["--pairs", "some"], "argument --pairs: invalid choice: 'some'"),
        (["--preset", "slow"], "argument --preset: invalid choice: 'slow'"),
        (["--margins", "1"], "unrecognized arguments: --margins"),
        (["--marg", "1"], "unrecognized arguments: --marg"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_settings_are_saved_and_loaded(tmp_path):
    config = parse("--filters", "8,16", "--unseen-classes", "bag,shirt", "--seed", "7")
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize("text", ["", "[]", "3", '{"margin": -1}', '{"nonsense": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json` must hold the settings of a run"):
        Config.load(tmp_path / "config.json")


def test_every_knob_says_what_it_does():
    assert all(field.metadata["help"] for field in dataclasses.fields(Config))

"""The program `diagrams`; tests/models/test_diagrams.py tests how they are drawn."""

import pytest
from matplotlib.image import imread

from siamese_keras.diagrams import main


def test_both_diagrams_are_drawn(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    for name in ("base-model", "outer-model"):
        path = tmp_path / "new" / "folder" / f"{name}.png"
        assert f"drawn: {path}" in out
        picture = imread(path)
        assert picture.shape[0] > 200
        assert picture[..., :3].std() > 0.05


def test_the_settings_and_the_shape_are_those_of_the_options(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(
        "keras.utils.plot_model",
        lambda model, path, **options: (drawn.append(model), path.write_bytes(b"png")),
    )
    options = ["--preset", "classic-mlp", "--embedding-dim", "5", "--image-shape", "9", "8", "3"]
    assert main([*options, "--output", str(tmp_path)]) == 0
    assert [model.name for model in drawn] == ["base", "outer"]
    assert [model.input_shape[1:] for model in drawn[:1]] == [(9, 8, 3)]
    assert drawn[0].output_shape == (None, 5)
    assert not [layer for layer in drawn[0].layers if "conv" in layer.name]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_any_program_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert main(["--output", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: Drawing needs Graphviz (command `dot`) or `pip install graphviz-pure`."
    assert list(tmp_path.iterdir()) == []


def test_an_empty_image_is_refused(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "new"), "--image-shape", "0", "0", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: `image_shape` must be positive. Received: ")
    assert not (tmp_path / "new").exists()


def test_a_pretrained_network_is_refused_and_not_drawn_as_another_one(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "new"), "--preset", "pretrained"]) == 1
    assert capsys.readouterr().err.startswith("error: `backbone` must be empty")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-shape", "28", "28"], "--image-shape: expected 3 arguments"),
        (["--embedding-dim", "0"], "`embedding_dim` must be at least 1"),
        (["--output", "base.png"], "expected a folder, to which two files are written, not 'base."),
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["--run-dir", "run"], "unrecognized arguments: --run-dir run"),
    ],
)
def test_wrong_options_are_refused(capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err

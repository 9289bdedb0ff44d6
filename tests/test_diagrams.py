import shutil

import pytest
from matplotlib.image import imread

from siamese_keras import diagrams
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


def test_graphviz_is_used_where_it_is_installed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(diagrams.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(
        diagrams.keras.utils,
        "plot_model",
        lambda model, path, **options: (drawn.append(model.name), path.write_bytes(b"png")),
    )
    assert main(["--output", str(tmp_path)]) == 0
    assert drawn == ["base", "outer"]


def test_without_any_program_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diagrams.shutil, "which", lambda name, path=None: None)
    assert main(["--output", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: Drawing needs Graphviz (command `dot`) or `pip install graphviz-pure`."
    assert list(tmp_path.iterdir()) == []


def test_a_failing_program_keeps_the_good_picture(tmp_path, monkeypatch, capsys):
    (tmp_path / "base-model.png").write_text("good")
    false = shutil.which("false")
    monkeypatch.setattr(
        diagrams.shutil, "which", lambda name, path=None: None if name == "dot" else false
    )
    assert main(["--output", str(tmp_path)]) == 1
    assert "failed" in capsys.readouterr().err
    assert (tmp_path / "base-model.png").read_text() == "good"


def test_wrong_options_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--image-shape", "28", "28"])
    assert stopped.value.code == 2
    assert "--image-shape: expected 3 arguments" in capsys.readouterr().err

import os
import shlex
import stat

import numpy as np
import pytest
from matplotlib.image import imread

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError, SiameseKerasError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.diagrams import draw_diagrams, plot_model

SMALL = Config(filters=(2, 4), embedding_dim=3)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make the only programs on PATH, from shell commands by name."""
    path = os.environ["PATH"]

    def make(**commands):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, command in commands.items():
            program = folder / name.replace("_", "-")
            program.write_text(f"#!/bin/sh\nPATH={shlex.quote(path)}\n{command}\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))

    return make


def test_both_diagrams_are_drawn(tmp_path):
    folder = tmp_path / "new" / "folder"
    paths = draw_diagrams(SMALL, (12, 10, 1), folder)
    assert paths == [folder / "base-model.png", folder / "outer-model.png"]
    assert sorted(folder.iterdir()) == paths
    pictures = [imread(path)[..., :3] for path in paths]
    for picture in pictures:
        assert 0.005 < np.mean(picture.min(axis=2) < 0.5) < 0.5  # dark letters on a light ground
    # A column of ten layers and more; and two inputs side by side above base and distance.
    assert pictures[0].shape[0] > 2 * pictures[0].shape[1]
    assert pictures[1].shape[1] > pictures[1].shape[0] / 2


# The "pictures" of these programs are the graph that they were to draw.
WITHOUT_GRAPHVIZ = {"graphviz_pure": 'cat > "$3"'}
WITH_GRAPHVIZ = {
    "graphviz_pure": "exit 1",
    "dot": 'for file; do :; done; if test -f "$file"; then cat "$file"; else cat; fi',
}


@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
@pytest.mark.parametrize("commands", [WITHOUT_GRAPHVIZ, WITH_GRAPHVIZ], ids=["pure", "graphviz"])
def test_names_and_shapes_of_the_layers_are_drawn(tmp_path, programs, commands):
    programs(**commands)
    base, outer = (
        path.read_text() for path in draw_diagrams(SMALL, (12, 10, 1), str(tmp_path / "drawn"))
    )
    for text in ("image", "conv1", "norm2", "embedding", "unit_length", "(None, 12, 10, 1)"):
        assert text in base
    assert "(None, 3)" in base
    for text in ("left", "right", "base", "distance", "(None, 12, 10, 1)"):
        assert text in outer
    assert "conv1" not in outer


def test_without_any_program_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(SiameseKerasError) as refused:
        plot_model(build_base_model((8, 8, 1), filters=(2,)), tmp_path / "base.png")
    assert str(refused.value) == (
        "Drawing needs Graphviz (command `dot`) or `pip install graphviz-pure`."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_a_failing_program_keeps_the_good_picture(tmp_path, programs):
    programs(graphviz_pure="echo out of ink >&2; exit 1")
    folder = tmp_path / "drawn"
    folder.mkdir()
    (folder / "base.png").write_text("good")
    with pytest.raises(SiameseKerasError, match="graphviz-pure failed: out of ink"):
        plot_model(build_base_model((8, 8, 1), filters=(2,)), folder / "base.png")
    assert (folder / "base.png").read_text() == "good"
    assert [path.name for path in folder.iterdir()] == ["base.png"]


@pytest.mark.parametrize("shape", [(0, 28, 1), (28, 28, 0), (28, -1, 1)])
def test_an_empty_image_has_no_diagram(tmp_path, shape):
    with pytest.raises(ArgumentError, match=r"`image_shape` must be positive. Received: image_sha"):
        draw_diagrams(SMALL, shape, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()

"""Bad input on the command line: one line that names it, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.__main__ import main


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny, exported, sample):
    """A folder with images, an index, indexes and CSV files that are wrong, and the model."""
    place = tmp_path_factory.mktemp("place")
    for name in ("photos", "empty", "folder.npz"):
        (place / name).mkdir()
    for i, image in enumerate(sample.test.images[:3]):
        (place / "photos" / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    tiny.index(place / "photos", place / "good.npz")
    with np.load(place / "good.npz") as content:
        arrays = dict(content)
    np.savez(place / "other.npz", **{**arrays, "fingerprint": -arrays["fingerprint"]})
    np.savez(place / "inverted.npz", **{**arrays, "invert": True})
    np.savez(place / "short.npz", **{**arrays, "sizes": arrays["sizes"][:-1]})
    np.savez(place / "pickle.npz", **{**arrays, "names": np.array([None] * 3)})
    np.savez(place / "embeddings.npz", embeddings=arrays["embeddings"])
    (place / "text.npz").write_text("text")
    (place / "cut.npz").write_bytes((place / "good.npz").read_bytes()[:-100])
    (place / "broken.png").write_text("text")
    pair = "photos/0.png,photos/1.png"
    for name, text in {
        "good": f"left,right\n{pair}\n",
        "empty": "",
        "headless": f"{pair}\n",
        "labels": f"left,right,same\n{pair},1\n",
        "missing": f"left,right\n{pair}\nphotos/none.png,photos/1.png\n",
        "broken": f"left,right\n{pair}\nbroken.png,photos/1.png\n",
        "fields": f"left,right\n{pair}\nphotos/0.png\n",
        "blank": f"left,right\n{pair}\n,photos/0.png\n",
        "folder": f"left,right\n{pair}\nphotos,photos/0.png\n",
    }.items():
        (place / f"{name}.csv").write_text(text)
    (place / "utf-16.csv").write_bytes(f"left,right\n{pair}\n".encode("utf-16"))
    (place / "model").symlink_to(exported)
    return place


def listing(place: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() if p.is_file() else b"" for p in place.iterdir()}


Q = "photos/0.png"

OPTIONS = [
    ("predict {q} {q} --threshold -1", "--threshold: expected a distance of at least 0, not '-1'"),
    (
        "predict {q} {q} --threshold near",
        "--threshold: expected a distance of at least 0, not 'near'",
    ),
    ("predict {q} {q} --far 0", "--far: expected a share between 0 and 1, not '0'"),
    ("predict {q} {q} --far 1%", "--far: expected a share between 0 and 1, not '1%'"),
    ("predict {q} {q} --prior 1", "--prior: expected a share between 0 and 1, not '1'"),
    ("predict {q} {q} --far 0.1 --prior 0.1", "--prior: not allowed with argument --far"),
    ("predict {q} {q} --timeout 0", "--timeout: expected a number of seconds up to 1e6, not '0'"),
    ("predict {q} {q} --timeout 1e10", "--timeout: expected a number of seconds up to 1e6, not"),
    ("predict {q} --index good.npz --top 0", "--top must be at least 1. Received: 0"),
    ("predict {q} --index good.npz --gallery photos", "--gallery: not allowed with argument"),
    ("predict --pairs good.csv", "--pairs and --output must be given together"),
    ("predict {q} --pairs good.csv --output out.csv", "Received: 1 images"),
    ("predict {q} --index photos", "--index: expected an index, FILE.npz, not 'photos'"),
    ("index photos", "the following arguments are required: --output"),
    ("export model --far 2", "--far: expected a share between 0 and 1, not '2'"),
]


@pytest.mark.parametrize(("command", "line"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_options(place, monkeypatch, capsys, command, line):
    monkeypatch.chdir(place)
    before = listing(place)
    with pytest.raises(SystemExit) as stopped:
        main(command.format(q=Q).split())
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert line in err.splitlines()[-1]
    assert listing(place) == before


FILES = [
    ("predict {q} {q} --far 0.0001", ["`far` of 0.0001 needs at least 100,000", "Received: 4,500"]),
    ("predict {q} {q} --prior 1e-9", ["`prior` must be at least", "Received: 1e-09"]),
    ("predict {q} --index none.npz", ["`none.npz` cannot be read as an index", "No such file"]),
    ("predict {q} --index text.npz", ["`text.npz` must be an index"]),
    ("predict {q} --index cut.npz", ["`cut.npz` cannot be read as an index"]),
    ("predict {q} --index short.npz", ["`short.npz` must be an index"]),
    ("predict {q} --index pickle.npz", ["`pickle.npz` must be an index"]),
    ("predict {q} --index embeddings.npz", ["`embeddings.npz` must be an index"]),
    ("predict {q} --index folder.npz", ["`folder.npz` cannot be read as an index"]),
    ("predict {q} --index other.npz", ["`other.npz` is an index of another model"]),
    ("predict {q} --index inverted.npz", ["`inverted.npz` was made with --invert. Received: "]),
    ("predict {q} --index good.npz --invert", ["`good.npz` was made without --invert. Received: "]),
    ("predict broken.png --index good.npz", ["`broken.png`", "must be a PNG, JPEG, "]),
    ("predict none.png --index good.npz", ["No such file", "none.png"]),
    ("predict --all-pairs none", ["`none` is not a folder"]),
    ("predict --all-pairs empty", ["`empty` has no image that can be read"]),
    ("index none --output new.npz", ["`none` is not a folder"]),
    ("index empty --output new.npz", ["`empty` has no image that can be read"]),
    ("index photos --output new.zip", ["must end in .npz. Received: `new.zip`"]),
    ("index photos --output none/new.npz", ["in a folder that exists. Received: `none/new.npz`"]),
    ("index photos --output folder.npz", ["must not be a folder. Received: `folder.npz`"]),
    ("index photos --output text.npz", ["`text.npz` must be an index"]),
    ("index photos --output embeddings.npz", ["`embeddings.npz` must be an index"]),
    ("embed photos --output new.txt", ["must end in .npz or .csv. Received: `new.txt`"]),
    ("embed empty --output new.csv", ["`empty` has no image that can be read"]),
    ("predict --pairs none.csv --output out.csv", ["No such file", "none.csv"]),
    ("predict --pairs good.csv --output good.csv", ["another file than the pairs", "`good.csv`"]),
    ("predict --pairs good.csv --output out.txt", ["must end in .csv. Received: `out.txt`"]),
    ("predict --pairs empty.csv --output out.csv", ["`empty.csv`", "Missing: left, right", "none"]),
    ("predict --pairs headless.csv --output out.csv", ["`headless.csv`", "Received: photos/0.png"]),
    ("predict --pairs labels.csv --output out.csv", ["`labels.csv`", "rename same"]),
    ("predict --pairs utf-16.csv --output out.csv", ["`utf-16.csv`"]),
]


@pytest.mark.parametrize(("command", "parts"), FILES, ids=[row[0] for row in FILES])
def test_files(place, monkeypatch, capsys, command, parts):
    monkeypatch.chdir(place)
    before = listing(place)
    assert main([*command.format(q=Q).split(), "--model", "model"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert listing(place) == before


ROWS = [
    ("missing", "photos/none.png"),
    ("broken", "`broken.png`: "),
    ("fields", "expected 2 values, received 1"),
    ("blank", "expected a path, received nothing: left"),
    ("folder", "Is a directory: 'photos'"),
]


@pytest.mark.parametrize(("name", "part"), ROWS, ids=[row[0] for row in ROWS])
def test_rows(place, monkeypatch, capsys, tmp_path, name, part):
    """The good row is answered, the bad one is named by its line, and the status says so."""
    monkeypatch.chdir(place)
    output = tmp_path / "out.csv"
    command = ["predict", "--pairs", f"{name}.csv", "--output", str(output), "--model", "model"]
    assert main(command) == 1
    row, last = capsys.readouterr().err.splitlines()
    assert row.startswith(f"{name}.csv line 3: ")
    assert part in row
    assert last == (
        f"error: 1 of 2 pairs could not be compared: see the column `error` of {output}"
    )
    _, good, bad = output.read_text().splitlines()
    assert good.startswith("photos/0.png,photos/1.png,1.")
    assert good.endswith(",")
    assert not bad.endswith(",")

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.data.pair_file import read_pair_file
from siamese_keras.errors import DataError

SHAPE = (6, 6, 3)


@pytest.fixture
def folder(tmp_path, rng):
    """Four images, one of them in a folder below, another one of another size."""
    (tmp_path / "more").mkdir()
    for name, side in (("a", 6), ("b", 6), ("c", 12), ("more/d", 6)):
        picture = rng.integers(0, 256, (side, side, 3), np.uint8)
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(picture).numpy())
    return tmp_path


def write(folder, *lines, header="left,right,same"):
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_pairs_of_files_relative_to_the_csv_file(folder, monkeypatch):
    monkeypatch.chdir("/")
    path = write(folder, "a.png,b.png,1", "a.png,more/d.png,0", "c.png,b.png,True")
    found = read_pair_file(path, SHAPE)
    assert found.images.shape == (4, *SHAPE)  # each file once
    np.testing.assert_array_equal(found.pairs.left, [0, 0, 3])
    np.testing.assert_array_equal(found.pairs.right, [1, 2, 1])
    np.testing.assert_array_equal(found.pairs.different, [0, 1, 0])
    original = tf.io.decode_png((folder / "more" / "d.png").read_bytes())
    np.testing.assert_array_equal(found.images[2], original)


def test_the_order_of_columns_others_and_a_byte_order_mark_do_not_matter(folder):
    path = write(
        folder, "0,x,b.png,a.png", "1,y,c.png,a.png", header="\ufeffsame,comment,right,left"
    )
    found = read_pair_file(path, SHAPE)
    np.testing.assert_array_equal(found.pairs.left, [0, 0])
    np.testing.assert_array_equal(found.pairs.right, [1, 2])
    np.testing.assert_array_equal(found.pairs.different, [1, 0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,b.png,1", "a.png,c.png,maybe"], r"line 3: `same` must be 1 or 0\. .*'maybe'"),
        (["a.png,b.png"], "line 2: expected 3 values"),
        (["a.png,b.png,1,7"], "line 2: expected 3 values"),
        (["a.png,b.png,1"], r"must have same and different pairs\. Received: 1 pairs"),
        ([], r"must have same and different pairs\. Received: 0 pairs"),
        (["a.png,b.png,1", "a.png,z.png,0"], r"z\.png` cannot be read"),
        (
            ["a.png,b.png,1", "a.png,pairs.csv,0"],
            r"pairs\.csv` cannot be read\. An image must",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_or_file(folder, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        read_pair_file(write(folder, *lines), SHAPE)
    assert "\n" not in str(caught.value)


def test_values_may_be_separated_by_semicolons(folder):
    path = write(folder, "a.png;b.png;1", "a.png;c.png;0", header="left;right;same")
    np.testing.assert_array_equal(read_pair_file(path, SHAPE).pairs.different, [0, 1])


def test_columns_are_found_in_any_case(folder):
    path = write(folder, "1,a.png,b.png", "0,a.png,c.png", header="Same,LEFT,right")
    np.testing.assert_array_equal(read_pair_file(path, SHAPE).pairs.different, [0, 1])


def test_a_file_that_is_no_list_of_pairs_is_named(folder):
    with pytest.raises(DataError, match=r"columns left, right, same\. Missing: right, same"):
        read_pair_file(write(folder, "a.png,1", header="left,equal"), SHAPE)
    twice = write(folder, "a.png,b.png,1,c.png", header="left,right,same,right")
    with pytest.raises(DataError, match=r"one column of each name\. Twice: right"):
        read_pair_file(twice, SHAPE)
    with pytest.raises(DataError, match=r"missing\.csv` cannot be read"):
        read_pair_file(folder / "missing.csv", SHAPE)
    with pytest.raises(DataError, match=r"a\.png` cannot be read"):
        read_pair_file(folder / "a.png", SHAPE)


def test_a_path_that_no_file_can_have_is_named_with_its_line(tmp_path):
    (tmp_path / "pairs.csv").write_text("left,right,same\na\0.png,b.png,1\n")
    with pytest.raises(DataError, match="line 2: paths must not hold the character NUL"):
        read_pair_file(tmp_path / "pairs.csv", (28, 28, 1))

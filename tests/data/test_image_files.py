"""Image files in a list: sizes, color, what is skipped and what is warned of."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_keras.data.image_files import (
    ClassFiles,
    load_image_files,
    part_of,
    printable,
)
from siamese_keras.data.pair_file import image_reader
from siamese_keras.errors import DataError

HERE = Path("here")


@pytest.fixture
def draw(tmp_path):
    """A function that writes an image of noise and returns it as the file of a class."""

    def write(name, class_name, part="train", *, seed=None, size=(12, 9), mode="RGB"):
        rng = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed)
        noise = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).convert(mode).save(tmp_path / name)
        return ClassFiles([str(tmp_path / name)], class_name, part)

    return write


def two_classes(draw, **options):
    return [draw(f"{name}{i}.png", name, **options) for name in "ab" for i in range(4)]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train_set", "training set")),
        *((name, "train") for name in ("trainset", "seg_train", "train-data", "Training_images")),
        *((name, "test") for name in ("test", "Testing", "test_set", "seg_test", "testset")),
        *((name, "validation") for name in ("val", "valid", "Validation", "validation_set")),
        ("query", "query"),
        ("gallery", "gallery"),
        *((name, None) for name in ("trains", "cat", "tester", "attest", "training wheels", "")),
    ],
)
def test_parts_are_known_under_their_customary_names(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("color_mode", ["auto", "rgb", "grayscale"])
def test_channels_are_chosen_from_the_images_or_asked_for(draw, mode, color_mode):
    files = two_classes(draw, mode=mode)
    source = load_image_files(files, HERE, color_mode=color_mode)
    gray = color_mode == "grayscale" or (color_mode == "auto" and mode != "RGB")
    assert source.train.images.shape == (8, 9, 9, 1 if gray else 3)
    read = image_reader(source.train.images.shape[1:])  # what `predict` sees
    for file, image in zip(files, source.train.images, strict=True):
        np.testing.assert_array_equal(image, read(Path(file.paths[0])))


def test_unreadable_files_are_skipped_or_refused_all_at_once(draw, tmp_path, caplog):
    files = two_classes(draw)
    for i in range(60):
        (tmp_path / f"broken{i}.png").write_bytes(b"oh")
        files.append(ClassFiles([str(tmp_path / f"broken{i}.png")], "b"))
    files.append(ClassFiles([str(tmp_path / "missing.png")], "a"))
    assert len(load_image_files(files, HERE).train) == 8
    (message,) = caplog.messages
    assert re.match(r"Skipping 61 of 69 images: `.*broken0.png`: An image must be", message)
    assert message.endswith("; and 58 more")
    with pytest.raises(DataError, match=r"^61 of 69 images cannot be read\.") as caught:
        load_image_files(files, HERE, strict=True)
    assert str(caught.value).count("/broken") == 50
    assert str(caught.value).endswith("; and 11 more")
    assert len(load_image_files(files[:8], HERE, strict=True).train) == 8


def test_a_class_that_nothing_is_left_of_is_an_error(draw, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"oh")
    files = [*two_classes(draw), ClassFiles([str(tmp_path / "broken.png")], "c")]
    with pytest.raises(DataError, match="Class 'c' in the train images of `here` has no image"):
        load_image_files(files, HERE)


def test_a_huge_photo_does_not_end_the_training(draw, tmp_path, caplog):
    """A JPEG is decoded at a part of its size, a PNG is skipped."""
    for suffix in ("jpg", "png"):
        Image.effect_noise((100, 100), 99).resize((6_000, 5_000)).save(tmp_path / f"huge.{suffix}")
    huge = ClassFiles([str(tmp_path / f"huge.{suffix}") for suffix in ("jpg", "png")], "a")
    source = load_image_files([*two_classes(draw), huge], HERE)
    assert len(source.train) == 9
    (message,) = caplog.messages
    assert re.match(r"Skipping 1 of 10 images: `.*huge\.png`: .*25000000 pixels.*6000", message)


def test_the_same_image_in_two_classes_is_named(draw, caplog):
    files = [*two_classes(draw), draw("copy.png", "a", seed=1), draw("other.png", "b", seed=1)]
    load_image_files(files, HERE)
    (message,) = caplog.messages
    assert re.fullmatch(
        r"The same image in two classes: `.*(copy|other).png` and `.*(copy|other).png`", message
    )


def test_test_images_that_are_training_images_are_counted(draw, caplog):
    files = two_classes(draw)
    files += [
        draw(f"{c}-test{i}.png", c, "test", seed=50 * i + ord(c)) for c in "ab" for i in (0, 1)
    ]
    load_image_files(files, HERE)
    assert not caplog.messages
    files += [ClassFiles(file.paths, file.class_name, "test") for file in files[:3]]
    load_image_files(files, HERE)
    assert caplog.messages == ["3 of 7 test images are also training images."]


def test_images_of_nearly_one_color_are_named(draw, tmp_path, caplog):
    """Black ink on a transparent ground becomes black on black."""
    files = two_classes(draw)
    for name in "ab":
        ink = np.zeros((9, 9, 4), np.uint8)
        ink[3:6, 2 : 4 + ord(name) % 2, 3] = 255
        Image.fromarray(ink).save(tmp_path / f"ink-{name}.png")
        files.append(ClassFiles([str(tmp_path / f"ink-{name}.png")], name))
    load_image_files(files, HERE)
    assert re.match("Nearly one color .*: `.*ink-a.png`, `.*ink-b.png`. Tr", caplog.messages[0])


def test_names_that_are_no_text_are_made_text():
    assert printable("caf\udce9") == "caf\\xe9"
    assert printable("猫 é") == "猫 é"


def test_a_long_reading_tells_how_far_it_is(draw, monkeypatch):
    monkeypatch.setattr("siamese_keras.data.image_cache._CHUNK", 3)
    told = []
    load_image_files(two_classes(draw), HERE, progress=lambda *counts: told.append(counts))
    assert told == [(3, 8), (6, 8), (8, 8)]

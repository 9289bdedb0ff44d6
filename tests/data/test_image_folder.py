import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from siamese_keras.data.image_folder import find_image_files, load_image_folder
from siamese_keras.data.inputs import as_images
from siamese_keras.errors import DataError


def png(image):
    return tf.io.encode_png(np.asarray(image, np.uint8)).numpy()


@pytest.fixture
def parts(photos, tmp_path):
    """The photos as `train` with 8 and `test` with 4 images of each class."""
    for part, numbers in (("train", range(8)), ("test", range(8, 12))):
        for name in ("bag", "boot", "coat"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
            for i in numbers:
                (source,) = (photos / name).glob(f"{i:02d}.*")
                shutil.copy(source, tmp_path / "parts" / part / name)
    return tmp_path / "parts"


def test_a_folder_of_images_is_read_by_class(photos, sample):
    source = load_image_folder(photos, 28)
    images = source.train
    assert source.class_names == ("bag", "boot", "coat")  # in the order of their names
    assert source.test is source.validation is None
    assert images.images.shape == (36, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(images.labels), [12, 12, 12])
    boots = images.images[images.labels == 1]
    originals = sample.train.images[sample.train.labels == 0][:12].astype(int)
    gaps = np.abs(boots[:, None].astype(int) - originals[None]).mean(axis=(2, 3, 4))
    assert (gaps.min(axis=0) < 3).all()  # JPEG is not exact
    assert (gaps.argmin(axis=0) == np.arange(12)).all()


def test_images_are_resized(photos):
    assert load_image_folder(photos, 16).train.images.shape == (36, 16, 16, 1)
    assert load_image_folder(photos, 16, color_mode="rgb").train.images.shape == (36, 16, 16, 3)


def test_train_and_test_folders_are_kept_apart(parts):
    source = load_image_folder(parts, 28)
    assert source.class_names == ("bag", "boot", "coat")
    np.testing.assert_array_equal(np.bincount(source.train.labels), [8, 8, 8])
    np.testing.assert_array_equal(np.bincount(source.test.labels), [4, 4, 4])
    shutil.rmtree(parts / "test" / "bag")
    expected = r"the same classes, or all parts .* Only in train: bag\. Only in test: none$"
    with pytest.raises(DataError, match=expected):
        load_image_folder(parts, 28)


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_a_validation_folder_is_read_too(parts, name):
    shutil.copytree(parts / "test", parts / name)
    source = load_image_folder(parts, 28)
    np.testing.assert_array_equal(source.validation.images, source.test.images)
    np.testing.assert_array_equal(source.validation.labels, source.test.labels)
    (parts / name / "bag").rename(parts / name / "cap")
    with pytest.raises(DataError, match=r"Only in train: bag\. Only in validation: cap$"):
        load_image_folder(parts, 28)


def test_the_test_folder_may_have_other_classes(parts):
    for old, new in (("bag", "cap"), ("boot", "apron"), ("coat", "scarf")):
        (parts / "test" / old).rename(parts / "test" / new)
    source = load_image_folder(parts, 28)
    assert source.class_names == ("apron", "bag", "boot", "cap", "coat", "scarf")
    assert sorted(set(source.train.labels)) == [1, 2, 4]
    assert sorted(set(source.test.labels)) == [0, 3, 5]
    shutil.copytree(parts / "test", parts / "validation")
    with pytest.raises(DataError, match="or all parts different ones"):
        load_image_folder(parts, 28)
    for number, path in enumerate(sorted((parts / "validation").iterdir())):
        path.rename(parts / "validation" / f"hat {number}")
    assert len(set(load_image_folder(parts, 28).validation.labels)) == 3


def test_query_and_gallery_take_the_place_of_test(parts):
    (parts / "test").rename(parts / "gallery")
    for name in ("bag", "coat"):
        (parts / "query" / name).mkdir(parents=True)
        shutil.copy(next((parts / "train" / name).iterdir()), parts / "query" / name)
    source = load_image_folder(parts, 28)
    assert len(source.test) == 3 * 4 + 2
    np.testing.assert_array_equal(source.test.labels[source.queries], [0, 2])
    np.testing.assert_array_equal(np.bincount(source.test.labels[~source.queries]), [4, 4, 4])
    (parts / "query" / "coat").rename(parts / "query" / "cap")
    with pytest.raises(DataError, match=r"query images .* of its gallery .* Received: cap$"):
        load_image_folder(parts, 28)


def test_images_in_subfolders_of_a_class_belong_to_it(photos):
    (photos / "bag" / "2024" / "may").mkdir(parents=True)
    for name in ("00.JPG", "01.png"):
        (photos / "bag" / name).rename(photos / "bag" / "2024" / "may" / name)
    source = load_image_folder(photos, 28)
    assert source.class_names == ("bag", "boot", "coat")
    np.testing.assert_array_equal(np.bincount(source.train.labels), [12, 12, 12])


def test_files_of_other_kinds_are_counted(photos, caplog):
    (photos / "bag" / "notes.txt").write_text("not an image")
    (photos / "bag" / "clip.mp4").write_bytes(b"ftyp")
    (photos / "README.md").write_text("not a class")
    (photos / "bag" / "album.png").mkdir()  # a folder
    assert len(load_image_folder(photos, 28).train) == 36
    (message,) = caplog.messages
    assert re.fullmatch(
        r"Skipping files below `.*photos` that are not images: 1 \.txt, 1 \.mp4", message
    ) or (
        re.fullmatch(
            r"Skipping files below `.*photos` that are not images: 1 \.mp4, 1 \.txt", message
        )
    )


HIDDEN = [".ipynb_checkpoints", ".git", "@eaDir", "__MACOSX"]


@pytest.mark.parametrize("place", [".", "bag", "bag/2024"])
def test_hidden_folders_and_files_are_skipped_at_any_depth(photos, place):
    (photos / place).mkdir(exist_ok=True)
    for hidden in HIDDEN:
        (photos / place / hidden / "bag").mkdir(parents=True)
        for folder in (photos / place / hidden, photos / place / hidden / "bag"):
            (folder / "broken.png").write_bytes(b"not an image")
    for name in ("._01.png", ".01.jpg", ".png"):
        (photos / place / name).write_bytes(b"\x00\x05\x16\x07not an image")
    source = load_image_folder(photos, 28)
    assert source.class_names == ("bag", "boot", "coat")
    assert len(source.train) == 36
    assert len(find_image_files(photos)) == 36


@pytest.mark.parametrize("place", [".", "bag"])
def test_links_that_lead_nowhere_are_passed_over(photos, place):
    (photos / place / "loop.png").symlink_to(photos / place / "loop.png")
    (photos / place / "dangling.png").symlink_to(photos / place / "none.png")
    assert len(load_image_folder(photos, 28).train) == 36
    assert len(find_image_files(photos)) == 36


@pytest.mark.parametrize("place", [".", "bag"])
def test_a_link_that_cannot_be_followed_does_not_hide_the_files_beside_it(photos, place, caplog):
    (photos / place / "through.png").symlink_to(photos / "bag" / "01.png" / "none.png")
    assert len(load_image_folder(photos, 28).train) == 36
    assert "through.png" in caplog.text
    assert len(find_image_files(photos)) == 37


def test_hidden_folders_are_no_classes_of_train_or_test(parts):
    for hidden in HIDDEN:
        (parts / "train" / hidden).mkdir()
        shutil.copy(parts / "train" / "bag" / "01.png", parts / "train" / hidden)
    source = load_image_folder(parts, 28)
    assert source.class_names == ("bag", "boot", "coat")
    assert len(source.train) == 24


def test_a_folder_may_itself_lie_below_a_hidden_one(photos, tmp_path):
    (tmp_path / ".cache").mkdir()
    moved = photos.rename(tmp_path / ".cache" / "photos")
    assert len(load_image_folder(moved, 28).train) == 36


def test_what_is_wrong_with_a_folder_is_named(photos):
    shutil.rmtree(photos / "bag")
    (photos / "bag").mkdir()
    with pytest.raises(DataError, match=r"bag` must hold PNG, JPEG, .* Received: no file$"):
        load_image_folder(photos, 28)
    with pytest.raises(DataError, match=r"two classes\. Received: none"):
        load_image_folder(photos / "bag", 28)
    shutil.rmtree(photos / "bag")
    shutil.rmtree(photos / "boot")
    with pytest.raises(DataError, match=r"two classes\. Received: coat"):
        load_image_folder(photos, 28)


@pytest.mark.parametrize("kind", ["empty", "cut"])
def test_a_damaged_image_is_skipped_by_name(photos, kind, caplog):
    path = photos / "coat" / "03.png"
    path.write_bytes(path.read_bytes()[:100] if kind == "cut" else b"")
    source = load_image_folder(photos, 28)
    assert len(source.train) == 35
    (message,) = caplog.messages
    assert re.match(r"Skipping 1 of 36 images: `.*coat/03\.png`: .", message)
    with pytest.raises(
        DataError, match=r"^1 of 36 images cannot be read\. `.*03\.png`: ."
    ) as caught:
        load_image_folder(photos, 28, strict=True)
    assert "\n" not in message + str(caught.value)


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Test"), ("train", "validation")])
def test_train_and_validation_are_not_taken_for_two_classes(photos, names):
    (photos / "bag").rename(photos / names[0])
    (photos / "coat").rename(photos / names[1])
    received = ", ".join(sorted([*names, "boot"]))
    with pytest.raises(DataError, match=f"either `train`, with .* Received: {received}"):
        load_image_folder(photos, 28)


def test_files_are_found_in_order_and_by_any_spelling_of_their_suffix(tmp_path):
    for name in ("b/2.PNG", "a/1.jpeg", "a/0.Jpg", "c.png", "c.webp", "d.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_image_files(tmp_path)]
    assert found == ["a/0.Jpg", "a/1.jpeg", "b/2.PNG", "c.png", "c.webp"]


def test_a_folder_that_cannot_be_read_is_named_or_handed_on(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match="missing` cannot be read"):
        find_image_files(missing)
    errors = []
    assert find_image_files(missing, errors.append) == []
    assert [error.filename for error in errors] == [str(missing)]


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("Train", "TEST", "Val"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train", "valid"),
        ("train",),
    ],
)
def test_parts_are_known_in_any_combination_and_spelling(parts, names):
    (parts / "train").rename(parts / "other")
    (parts / "test").rename(parts / "held out")
    for name in names:
        source = "other" if "train" in name.casefold() else "held out"
        shutil.copytree(parts / source, parts / name)
    for name in ("other", "held out"):
        shutil.rmtree(parts / name)
    source = load_image_folder(parts)
    assert source.class_names == ("bag", "boot", "coat")
    assert len(source.train) == 24
    assert (source.test is not None) == any("test" in name.casefold() for name in names)
    assert (source.validation is not None) == any("val" in name.casefold() for name in names)


def test_a_class_may_be_called_train(photos):
    (photos / "bag").rename(photos / "train")
    assert load_image_folder(photos).class_names == ("boot", "coat", "train")


def test_folders_beside_the_parts_are_named(parts, caplog):
    shutil.copytree(parts / "train", parts / "seg_pred")
    assert len(load_image_folder(parts).train) == 24
    assert re.fullmatch("Skipping folders beside `.*train`: seg_pred", caplog.messages[0])


def test_doubled_folders_are_entered(photos, parts, tmp_path):
    (tmp_path / "archive").mkdir()
    photos.rename(tmp_path / "archive" / "photos")
    assert len(load_image_folder(tmp_path / "archive").train) == 36
    for part in ("train", "test"):
        (parts / part).rename(parts / "moved")
        (parts / f"seg_{part}").mkdir()
        (parts / "moved").rename(parts / f"seg_{part}" / f"seg_{part}")
    source = load_image_folder(parts)
    assert (len(source.train), len(source.test)) == (24, 12)


def test_a_folder_that_repeats_the_classes_is_not_a_class(photos, caplog):
    """As in cell_images/cell_images of the malaria images."""
    shutil.copytree(photos, photos / "photos", ignore=shutil.ignore_patterns("photos"))
    source = load_image_folder(photos)
    assert source.class_names == ("bag", "boot", "coat")
    assert len(source.train) == 36
    assert caplog.messages[0].endswith("`, which repeats the folders beside it")


def test_a_class_folder_that_cannot_be_read_is_named(photos, monkeypatch):
    scandir, broken = os.scandir, str(photos / "boot")

    def fail(folder):
        if str(folder) == broken:
            raise PermissionError(13, "Permission denied", broken)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(DataError) as refused:
        load_image_folder(photos)
    assert str(refused.value) == f"`{broken}` cannot be read. Permission denied"


def test_files_of_a_class_are_listed_once(photos, monkeypatch):
    """Where they are many, that is a good part of reading a folder again."""
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    load_image_folder(photos)
    assert listed.count(str(photos / "boot")) == listed.count(str(photos / "coat")) == 1


def test_images_beside_the_classes_are_counted(photos, caplog):
    for i in range(5):
        shutil.copy(photos / "bag" / "01.png", photos / f"{i}.png")
    assert len(load_image_folder(photos).train) == 36
    expected = (
        r"Skipping 5 image files in `.*`, which are not in a class folder: 0\.png, 1\.png, 2\.png"
    )
    assert re.match(expected, caplog.messages[0])


def test_links_to_folders_are_followed_once(photos, tmp_path):
    (photos / "bag").rename(tmp_path / "elsewhere")
    (photos / "bag").mkdir()
    (photos / "bag" / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "bag" / "again").symlink_to(tmp_path / "elsewhere")
    (photos / "bag" / "loop").symlink_to(photos / "bag")
    (tmp_path / "elsewhere" / "up").symlink_to(photos)
    (photos / "bag" / "nowhere").symlink_to(tmp_path / "nothing")
    assert len(find_image_files(photos / "boot")) == 12
    assert len(find_image_files(tmp_path / "elsewhere")) == 36
    (tmp_path / "elsewhere" / "up").unlink()
    source = load_image_folder(photos)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [12, 12, 12])


def test_a_class_name_that_is_no_text_is_made_text(photos):
    (photos / "bag").rename(photos / "caf\udce9")
    assert load_image_folder(photos).class_names == ("boot", "caf\\xe9", "coat")


KINDS = {"PGM": "PPM", "bmp": "BMP", "GIF": "GIF", "webp": "WEBP", "tif": "TIFF", "jfif": "JPEG"}


@pytest.mark.parametrize("suffix", KINDS)
def test_every_format_is_read_from_a_folder_as_from_predict(photos, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    for path in list(photos.glob("*/*.png")):
        with Image.open(path) as image:
            image.convert("L").save(path.with_suffix(f".{suffix}"), KINDS[suffix], **options)
        path.unlink()
    images = load_image_folder(photos, 20, color_mode="rgb").train.images
    ((batch, _),) = as_images(find_image_files(photos)).batches(99, (20, 20, 3))
    np.testing.assert_array_equal(images, batch)

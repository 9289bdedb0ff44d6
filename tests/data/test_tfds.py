"""TensorFlow Datasets: small builders of the tests' own, and the real one of Fashion-MNIST."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tensorflow_datasets as tfds

from siamese_keras.data import datasets
from siamese_keras.data import tfds as tfds_source
from siamese_keras.data.datasets import load_dataset
from siamese_keras.data.idx import IDX_FILES, idx_path, read_idx
from siamese_keras.data.tfds import load_tfds
from siamese_keras.errors import DataError, NotPreparedError
from siamese_keras.evaluation.baselines import raw_pixels
from siamese_keras.evaluation.protocol import score

# Debian strips the gzip header's name and time; TFDS verifies the compressed bytes.
PUBLISHED_MTIME = {"train": 1504176606, "t10k": 1504176627}

LABEL = tfds.features.ClassLabel(names=["circle", "square"])
IMAGE = tfds.features.Image(shape=(4, 4, 1))


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two classes of ten images in each part."""

    VERSION = tfds.core.Version("1.0.0")
    PARTS = ("train", "test")
    FEATURES = {"image": IMAGE, "label": LABEL}  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.FEATURES)
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(i) for i, part in enumerate(self.PARTS)}

    def _generate_examples(self, part):
        for i in range(20):
            image = np.full((4, 4, 1), 100 * part + i, np.uint8)
            yield i, {"image": image, "label": i % 2}


class ShapesComplete(Shapes):
    pass


class ShapesWithValidation(Shapes):
    PARTS = ("validation", "train")


class ShapesWithBoth(Shapes):
    PARTS = ("train", "validation", "test")


class ShapesForTrainingOnly(Shapes):
    PARTS = ("train",)


class ShapesWithoutLabels(Shapes):
    FEATURES = {"image": IMAGE}  # noqa: RUF012


class ShapesWithNumbers(Shapes):
    FEATURES = {"image": IMAGE, "label": tfds.features.Scalar(np.float32)}  # noqa: RUF012


class ShapesOfAnySize(Shapes):
    FEATURES = {"image": tfds.features.Image(shape=(None, None, 1)), "label": LABEL}  # noqa: RUF012


class ShapesWithoutImages(Shapes):
    FEATURES = {"text": tfds.features.Text(), "label": LABEL}  # noqa: RUF012


class MadeOmniglot(tfds.core.GeneratorBasedBuilder):
    """Alphabets as in Omniglot, no alphabet in both parts: 24 characters, then 10, five times."""

    VERSION = tfds.core.Version("1.0.0")
    ALPHABETS = {"train": (0, 1, 2), "test": (3, 4)}  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(21, 21, 3)),
                    "alphabet": tfds.features.ClassLabel(num_classes=50),
                    "alphabet_char_id": np.int64,
                    "label": tfds.features.ClassLabel(num_classes=100),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(part) for part in self.ALPHABETS}

    def _generate_examples(self, part):
        rng = np.random.default_rng(len(part))
        for alphabet in self.ALPHABETS[part]:
            for character in range(8 if part == "train" else 5):
                for drawer in range(5):
                    yield (
                        f"{alphabet}_{character}_{drawer}",
                        {
                            "image": rng.integers(0, 256, (21, 21, 3), np.uint8),
                            "alphabet": alphabet,
                            "alphabet_char_id": character,
                            "label": 10 * alphabet + character,
                        },
                    )


def values(split):
    return sorted(split.images[:, 0, 0, 0].tolist())


def test_images_labels_and_names_are_taken_from_tfds(tmp_path):
    source = load_tfds("shapes_complete", tmp_path)
    train, test, names = source.train, source.test, source.class_names
    assert names == ("circle", "square")
    assert values(train) == list(range(20))
    assert values(test) == list(range(100, 120))
    assert train.images.shape == (20, 4, 4, 1)
    for split in (train, test):
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] % 2)


def test_validation_stands_in_for_a_missing_test_split(tmp_path):
    source = load_tfds("shapes_with_validation", tmp_path)
    train, test = source.train, source.test
    assert values(train) == list(range(100, 120))
    assert values(test) == list(range(20))


def test_test_is_preferred_to_validation(tmp_path):
    source = load_tfds("shapes_with_both", tmp_path)
    train, test = source.train, source.test
    assert values(train) == list(range(20))
    assert values(test) == list(range(200, 220))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapes_without_labels", "must have images and labels of classes"),
        ("shapes_without_images", "must have images and labels of classes"),
        ("shapes_with_numbers", "must have images and labels of classes"),
        ("shapes_of_any_size", r"images of one size, not \(None, None, 1\)"),
        ("shapes_for_training_only", "must have the splits train and test"),
    ],
)
def test_a_dataset_of_another_kind_is_refused(name, message, tmp_path):
    with pytest.raises(DataError, match=f"TFDS dataset '{name}' .*{message}"):
        load_tfds(name, tmp_path)


@pytest.mark.parametrize("name", ["fashion_mints", "shapes_complete:9.9.9", "no/such/data", "a b"])
def test_an_unknown_dataset_is_reported(name, tmp_path):
    with pytest.raises(DataError, match=f"TFDS has no dataset '{name}'"):
        load_tfds(name, tmp_path)


def test_omniglot_keeps_its_classes_and_its_alphabets(tmp_path):
    """Of made images: the real one is 1,623 characters by twenty people."""
    real = tfds.builder("omniglot", data_dir=tmp_path).info.features
    made = MadeOmniglot(data_dir=tmp_path).info.features
    assert {name: feature.np_dtype for name, feature in made.items()} == {
        name: feature.np_dtype for name, feature in real.items()
    }
    (tmp_path / "made_omniglot").mkdir()
    dataset = load_dataset("made_omniglot", tmp_path, image_size=14)
    assert dataset.is_open_set
    assert dataset.image_shape == (14, 14, 3)
    assert len(dataset.test) == 2 * 5 * 5
    classes = {part: set(split.labels.tolist()) for part, split in dataset.splits.items()}
    assert classes["train"] | classes["validation"] == {
        10 * a + c for a in range(3) for c in range(8)
    }
    assert not classes["train"] & classes["validation"]
    assert classes["test"] == {10 * a + c for a in (3, 4) for c in range(5)}
    for label in set.union(*classes.values()):
        assert dataset.superclasses[label] == label // 10
    scored = score(raw_pixels, dataset).metrics["open_set"]
    assert set(scored["one_shot"]) == {"5_way", "5_way_ci95", "10_way", "10_way_ci95"}
    assert set(scored["one_shot_within_superclass"]) == {"5_way", "5_way_ci95"}


def test_nothing_is_prepared_unless_it_may_be(tmp_path):
    with pytest.raises(NotPreparedError):
        load_tfds("shapes_complete", tmp_path, download=False)
    assert not list(tmp_path.rglob("*.json"))
    load_tfds("shapes_complete", tmp_path)
    assert len(load_tfds("shapes_complete", tmp_path, download=False).train) == 20


def test_a_dataset_of_tfds_is_split_and_resized_by_its_name(empty_machine, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty_machine / "prepared"))
    dataset = load_dataset("shapes_complete", validation_size=6, image_size=8)
    assert dataset.name == "shapes_complete"
    assert dataset.class_names == ("circle", "square")
    assert [len(split) for split in dataset.splits.values()] == [14, 6, 20]
    assert dataset.image_shape == (8, 8, 1)
    named = load_dataset(
        "shapes_complete", empty_machine / "prepared", validation_size=6, image_size=8
    )
    assert named.fingerprint == dataset.fingerprint


@pytest.mark.usefixtures("no_network")
def test_an_unreachable_host_is_named_at_once_with_the_ways_out(tmp_path):
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_tfds("mnist", tmp_path)
    assert time.monotonic() - started < 10  # TFDS alone retries for minutes
    message = str(caught.value)
    assert message.startswith("'mnist' is not on this machine and storage.googleapis.com cannot be")
    assert "connect once" in message
    assert "make data" not in message  # which is for Fashion-MNIST
    with pytest.raises(DataError, match=r"run `make data` .* with --data-dir"):
        load_tfds("fashion_mnist", tmp_path)


def test_a_host_that_does_not_answer_is_given_up_in_time(tmp_path, use_proxy, monkeypatch):
    """As with a name server that is down: the look-up of a name takes no time-out."""
    use_proxy("")
    answer = threading.Event()

    def look_up(*_, **__):
        answer.wait(60)
        raise OSError("no such host")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr(tfds_source, "PROBE_SECONDS", 0.3)
    before = set(threading.enumerate())
    started = time.monotonic()
    with pytest.raises(DataError, match=r"and fashion-mnist\.s3-website\S* does not answer: conne"):
        load_tfds("fashion_mnist", tmp_path)
    assert time.monotonic() - started < 5
    hanging = set(threading.enumerate()) - before
    try:
        assert hanging  # the program is told while the look-up goes on,
        assert all(thread.daemon for thread in hanging)  # and may end before it does
    finally:
        answer.set()
        for thread in hanging:
            thread.join(10)


def test_a_host_that_takes_long_with_its_answer_is_given_up_too(tmp_path, use_proxy, monkeypatch):
    release = threading.Event()
    with serve(lambda handler: release.wait(60)) as address:
        use_proxy(address)
        monkeypatch.setattr(tfds_source, "PROBE_SECONDS", 0.3)
        with pytest.raises(DataError, match=r"does not answer|cannot be reached \(timed out\)"):
            load_tfds("fashion_mnist", tmp_path)
        release.set()


def test_a_host_that_refuses_is_asked_for_the_files(tmp_path, use_proxy):
    """Some servers refuse HEAD: the probe says no more than that the host answers."""
    asked = []

    def refuse(handler):
        asked.append(handler.command)
        handler.send_error(404)

    with serve(refuse) as address:
        use_proxy(address)
        with pytest.raises(DataError, match=r"TFDS could not prepare 'fashion_mnist'. .*404"):
            load_tfds("fashion_mnist", tmp_path)
        # TFDS gives up at the first of four files. The threads of the others try again for minutes,
        # and keep the process alive, when the server has gone before it has answered them.
        deadline = time.monotonic() + 20
        while asked.count("GET") < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert asked[0] == "HEAD"
    assert asked.count("GET") == 4


class serve:  # noqa: N801, used as a function
    """A server on the loopback interface that answers every request by `answer(handler)`."""

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            do_HEAD = do_GET  # noqa: N815, the name in the protocol

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("localhost", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://localhost:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.usefixtures("no_network")
def test_tfds_prepares_and_loads_the_same_dataset_as_the_idx_files(
    fashion_mnist_folder, empty_machine, write_idx, monkeypatch
):
    """The real builder, fed the published archives made again from the files on this machine."""
    archives = empty_machine / "archives"
    archives.mkdir()
    for name in IDX_FILES:
        source = fashion_mnist_folder / f"{name}.gz"
        if not source.is_file():
            pytest.skip("the archives cannot be made again from files that are not compressed")
        raw = source.read_bytes()
        if raw[3] == 0:  # without the name
            mtime = PUBLISHED_MTIME[name.split("-")[0]].to_bytes(4, "little")
            raw = raw[:3] + b"\x08" + mtime + raw[8:10] + name.encode() + b"\x00" + raw[10:]
        (archives / f"{name}.gz").write_bytes(raw)
    builder = tfds.builder("fashion_mnist", data_dir=empty_machine / "tfds")
    number = 2000  # of the first images of each part, since all of them take half a minute
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=str(archives), max_examples_per_split=number
        )
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty_machine / "tfds"))
    monkeypatch.setattr(datasets, "FASHION_MNIST_SHA256", (None,) * 4)
    from_tfds = load_dataset("fashion_mnist")  # no IDX file is where it looks
    arrays = (read_idx(idx_path(fashion_mnist_folder, name)) for name in IDX_FILES)
    from_idx = load_dataset(
        "fashion_mnist", write_idx(empty_machine / "idx", *(array[:number] for array in arrays))
    )
    for part, split in from_idx.splits.items():
        np.testing.assert_array_equal(split.images, from_tfds.splits[part].images)
        np.testing.assert_array_equal(split.labels, from_tfds.splits[part].labels)
    assert from_tfds.class_names == from_idx.class_names
    assert from_tfds.fingerprint == from_idx.fingerprint
    # What TFDS holds is in another order: the cut by content makes them equal.
    first = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))["image"]
    published = read_idx(idx_path(fashion_mnist_folder, IDX_FILES[0]))[0]
    assert not np.array_equal(first[..., 0], published)

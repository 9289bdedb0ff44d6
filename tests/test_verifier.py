"""The verifier: the same answers from a training, a run, a SavedModel and a server."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras import SiameseKerasError, Verifier, load_verifier
from siamese_keras.errors import ArgumentError, DataError, ModelError, RequestError

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def run(tiny, tiny_run):
    return load_verifier(tiny_run)


@pytest.fixture(scope="module")
def saved_model(exported):
    return load_verifier(str(exported.parent))


@pytest.fixture(scope="module")
def remote(server):
    return load_verifier(server.url)


@pytest.fixture(scope="module", params=["run", "saved_model", "remote"])
def verifier(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def paths(tmp_path_factory, sample):
    """Files of the first 70 test images: more than a client asks about at once."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.png" for i in range(70)]
    for path, image in zip(paths, sample.test.images, strict=False):
        path.write_bytes(tf.io.encode_png(image).numpy())
    return paths


@pytest.fixture(scope="module")
def answer(tiny):
    """Return what Keras and the formulas of the calibration say about pairs of images."""

    def expected(left, right, prior=0.5):
        embeddings = [tiny.base_model.predict(side, verbose=0) for side in (left, right)]
        distance = np.sqrt(((embeddings[0] - embeddings[1]) ** 2).sum(axis=1))
        odds = np.exp(tiny.calibration.slope * (tiny.calibration.threshold - distance))
        odds *= prior / (1 - prior)
        return {
            "distance": distance,
            "similarity": odds / (1 + odds),
            "same": distance <= tiny.calibration.threshold,
        }

    return expected


def assert_answers(found, expected):
    np.testing.assert_allclose(found.distance, expected["distance"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.similarity, expected["similarity"], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(found.same, expected["same"])
    assert found.distance.dtype == np.float32
    assert found.similarity.dtype == np.float64
    assert found.same.dtype == bool


def test_arrays_are_compared(verifier, sample, answer):
    left, right = sample.test.images[:66], sample.test.images[100:166]
    expected = answer(left, right)
    assert set(expected["same"]) == {True, False}
    assert_answers(verifier.compare(left, right), expected)


@pytest.mark.parametrize("prior", [0.1, 0.999])
def test_a_prior_changes_the_similarity_alone(verifier, sample, answer, prior):
    left, right = sample.test.images[:9], sample.test.images[100:109]
    expected = answer(left, right, prior)
    assert set(expected["same"]) == {True, False}
    assert_answers(verifier.compare(left, right, prior=prior), expected)
    similarity = verifier.similarity(left, right, prior=prior)
    np.testing.assert_allclose(similarity, expected["similarity"], rtol=0, atol=2e-5)


def test_a_version_and_the_training_itself_answer_as_well(tiny, exported, sample, answer, paths):
    images = sample.test.images
    for verifier in (tiny, load_verifier(exported)):
        expected = answer(images[:3], images[3:6], prior=0.2)
        assert_answers(verifier.compare(images[:3], images[3:6], prior=0.2), expected)
        assert_answers(verifier.compare(paths[:3], paths[3:6], prior=0.2), expected)


def test_each_part_of_the_answer_has_a_method(verifier, sample, answer):
    left, right = sample.test.images[:9], sample.test.images[100:109]
    expected = answer(left, right)
    np.testing.assert_allclose(verifier.distance(left, right), expected["distance"], atol=TOLERANCE)
    np.testing.assert_allclose(verifier.similarity(left, right), expected["similarity"], atol=2e-5)
    np.testing.assert_array_equal(verifier.same(left, right), expected["same"])


def test_files_get_the_answers_of_their_pixels(verifier, sample, answer, paths):
    images = sample.test.images
    assert_answers(verifier.compare(paths[:66], paths[4:]), answer(images[:66], images[4:70]))
    left, right = paths[:3], paths[3:6]
    expected = answer(images[:3], images[3:6])
    names = list(map(str, right))
    contents = [path.read_bytes() for path in right]
    for other in (right, names, contents, tuple(right), [names[0], *right[1:-1], contents[-1]]):
        assert_answers(verifier.compare(left, other), expected)


@pytest.mark.parametrize("source", ["run", "saved_model"])
def test_files_are_decoded_to_what_the_model_sees(source, request, sample, paths, tmp_path):
    verifier = request.getfixturevalue(source)
    images = sample.test.images
    np.testing.assert_array_equal(verifier.decode(paths), images[:70])
    np.testing.assert_array_equal(verifier.decode(str(paths[1])), images[1])
    np.testing.assert_array_equal(verifier.decode(images[2]), images[2])
    wide = tmp_path / "wide.png"
    wide.write_bytes(tf.io.encode_png(np.full((40, 80, 3), 255, np.uint8)).numpy())
    seen = verifier.decode(wide)
    assert seen.shape == (28, 28, 1)
    assert (seen[[0, 13, -1], 14].ravel() == [0, 255, 0]).all()  # scaled to fit, and centered


def test_what_a_server_sees_of_a_file_is_not_known(remote, sample, paths):
    with pytest.raises(ModelError, match="A server decodes image files itself"):
        remote.decode(paths[0])
    np.testing.assert_array_equal(remote.decode(sample.test.images[0]), sample.test.images[0])


def test_one_image_gets_one_answer_and_many_an_array(verifier, sample, answer, paths):
    images = sample.test.images
    expected = answer(images[:1], images[1:2], prior=0.2)
    singles = [
        (images[0], images[1]),
        (paths[0], paths[1]),
        (str(paths[0]), paths[1].read_bytes()),
    ]
    for left, right in singles:
        found = verifier.compare(left, right, prior=0.2)
        assert np.ndim(found.distance) == np.ndim(found.similarity) == np.ndim(found.same) == 0
        assert_answers(found, {name: values[0] for name, values in expected.items()})
    for left, right in (
        (images[:1], images[1:2]),
        (paths[:1], paths[1:2]),
        ([images[0]], [images[1]]),
    ):
        found = verifier.compare(left, right, prior=0.2)
        assert np.shape(found.distance) == np.shape(found.same) == (1,)
        assert_answers(found, expected)


def test_embeddings_are_those_of_the_base_model(verifier, tiny, sample, paths):
    images = sample.test.images[:3]
    expected = tiny.base_model.predict(images, verbose=0)
    for many in (images, list(images), paths[:3], [path.read_bytes() for path in paths[:3]]):
        found = verifier.embed(many)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    for one in (images[0], paths[0], str(paths[0]), paths[0].read_bytes()):
        np.testing.assert_allclose(verifier.embed(one), expected[0], rtol=0, atol=TOLERANCE)


def test_more_images_than_are_embedded_at_once(tiny, sample):
    images = np.concatenate([sample.train.images, sample.test.images])
    assert len(images) > 500
    expected = tiny.base_model.predict(images, verbose=0)
    np.testing.assert_allclose(tiny.embed(images), expected, rtol=0, atol=TOLERANCE)


def test_inverting_undoes_dark_on_white(tiny_run, exported, server, tiny, sample, tmp_path):
    images = sample.test.images[:3]
    expected = tiny.base_model.predict(images, verbose=0)
    inverted = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(inverted, images, strict=True):
        path.write_bytes(tf.io.encode_png(255 - image).numpy())
    for source in (tiny_run, exported, server.url):
        verifier = load_verifier(source, invert=True)
        assert verifier.invert
        for many in (255 - images, inverted, list(map(str, inverted))):
            np.testing.assert_allclose(verifier.embed(many), expected, rtol=0, atol=TOLERANCE)
        distance = verifier.distance(inverted[0], inverted[1])
        assert distance == pytest.approx(tiny.distance(images[0], images[1]), abs=TOLERANCE)
        match, *_ = verifier.search(inverted[1], inverted, top=1)
        assert match.file == str(inverted[1])
        inverted[2].write_bytes(b"no image")
        with pytest.raises(RequestError, match=r"2\.png`: An image must be a PNG, JPEG, "):
            verifier.embed(inverted)
        inverted[2].write_bytes(tf.io.encode_png(255 - images[2]).numpy())


@pytest.mark.parametrize("method", ["embed", "left", "right", "gallery", "query"])
@pytest.mark.parametrize(
    "change",
    [
        lambda images: images / 255.0,
        lambda images: images.astype(np.float32),
        lambda images: images.astype(np.int64),
        lambda images: images > 127,
        lambda images: (images / 255.0)[0],
        lambda images: images[0, :, :, 0],
        lambda images: images[..., :0],
        lambda images: images[np.newaxis],
    ],
    ids=["divided", "float32", "int64", "bool", "one", "two axes", "empty", "five axes"],
)
def test_arrays_that_are_not_uint8_images_are_refused(verifier, sample, change, method):
    good = sample.test.images[:2]
    bad = change(good)
    calls = {
        "embed": lambda: verifier.embed(bad),
        "left": lambda: verifier.compare(bad, good),
        "right": lambda: verifier.compare(good, bad),
        "gallery": lambda: verifier.search(good, bad),
        "query": lambda: verifier.search(bad, good),
    }
    with pytest.raises(DataError, match=r"^Images must (be uint8, 0 to 255|have the shape)"):
        calls[method]()


def test_images_of_another_shape_are_refused(verifier, sample):
    good = sample.test.images[:2]
    for bad in (good[:, :14], np.concatenate([good, good, good], axis=-1), good[0, :, 1:]):
        with pytest.raises((DataError, RequestError), match=r"28, ?28, ?1"):
            verifier.embed(bad)
        with pytest.raises((DataError, RequestError), match=r"28, ?28, ?1"):
            verifier.compare(bad, bad)


def test_no_image_and_mixed_forms_are_refused(verifier, sample, paths):
    images = sample.test.images
    for none in ([], (), images[:0]):
        with pytest.raises(ArgumentError, match=r"at least one image\. Received: none"):
            verifier.embed(none)
    with pytest.raises(ArgumentError, match=r"files or arrays\. Received: both"):
        verifier.embed([paths[0], images[0]])


def test_an_array_is_compared_with_a_file_unless_by_a_server(verifier, sample, answer, paths):
    images = sample.test.images
    for left, right in ((images[:2], paths[2:4]), (paths[:2], images[2:4])):
        if verifier.calibration is None:
            with pytest.raises(ArgumentError, match="both arrays or both files: a server compares"):
                verifier.compare(left, right)
        else:
            assert_answers(verifier.compare(left, right), answer(images[:2], images[2:4]))


def test_as_many_left_as_right_images_are_needed(verifier, sample, paths):
    images = sample.test.images
    for left, right, received in (
        (images[:2], images[:3], "2 images and 3 images"),
        (images[:1], images[:3], "1 images and 3 images"),
        (images[0], images[:3], "one image and 3 images"),
        (paths[0], paths[:1], "one image and 1 images"),
        (paths[:2], images[:3], "2 images and 3 images"),
    ):
        with pytest.raises(ArgumentError) as refused:
            verifier.compare(left, right)
        assert str(refused.value) == (
            f"`left` and `right` must hold equally many images. Received: {received}"
        )


@pytest.mark.parametrize("prior", [0, 1, -0.1, 2, float("nan"), "0.1"])
def test_a_prior_out_of_range_is_refused_before_files_are_read(verifier, prior):
    with pytest.raises(ArgumentError, match="`prior` must be greater than 0 and less than 1"):
        verifier.compare("none.png", "none.png", prior=prior)


def test_a_broken_file_among_many_is_named(verifier, paths, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    many = [*paths[:65], broken, *paths[66:]]
    few = [paths[0], broken, paths[67]]
    for call in (
        lambda: verifier.embed(many),
        lambda: verifier.compare(few, paths[:3]),
        lambda: verifier.compare(paths[:3], list(map(str, few))),
    ):
        with pytest.raises(RequestError) as refused:
            call()
        message = str(refused.value)
        assert f"`{broken}`" in message
        assert "`: An image must be a PNG, JPEG, " in message
        for name in ("64.png", "66.png", "67.png", "0.png"):
            assert f"/{name}" not in message
        assert "\n" not in message
    with pytest.raises(RequestError, match=r"^image 1: .*An image must be a PNG, JPEG, "):
        verifier.embed([path.read_bytes() for path in few])


def test_a_missing_file_is_an_os_error(verifier, paths, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        verifier.embed([paths[0], tmp_path / "none.png"])
    with pytest.raises(IsADirectoryError):
        verifier.distance(paths[0], tmp_path)


def test_an_exported_model_knows_what_its_training_knew(saved_model, tiny):
    for name in ("config", "calibration", "class_names", "training", "false_accepts"):
        assert getattr(saved_model, name) == getattr(tiny, name), name
    assert saved_model.name == "tiny"  # that it was exported under
    assert saved_model.base_model is None
    assert saved_model.outer_model is None
    assert repr(saved_model) == (
        f"<Verifier tiny: 10 classes, threshold {tiny.calibration.threshold:.3f}>"
    )


def test_a_server_keeps_what_it_knows_to_itself(remote):
    assert remote.name == "fashion_mnist"
    assert (remote.calibration, remote.config, remote.class_names) == (None, None, ())
    assert repr(remote) == "<Verifier fashion_mnist: 0 classes>"


def test_a_run_and_its_export_are_scored_alike(run, saved_model, sample):
    reports = [verifier.evaluate(sample) for verifier in (run, saved_model)]
    for group in ("test", "test_hard", "test_deduplicated", "retrieval", "one_shot"):
        found, expected = (report.metrics[group] for report in reversed(reports))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, abs=TOLERANCE), (group, key)
    assert run.metrics is reports[0].metrics
    assert saved_model.metrics is reports[1].metrics
    for name, embeddings in reports[0].embeddings.items():
        np.testing.assert_allclose(reports[1].embeddings[name], embeddings, atol=TOLERANCE)


def test_a_server_cannot_be_scored(remote, sample):
    with pytest.raises(ModelError, match="A server's model cannot be evaluated"):
        remote.evaluate(sample)


@pytest.mark.parametrize("change", ["pixel", "label", "split", "name"])
def test_other_data_than_those_of_the_training_are_refused(saved_model, tiny, sample, change):
    images, labels = sample.test.images.copy(), sample.test.labels.copy()
    if change == "pixel":
        images[0, 0, 0, 0] ^= 1
    if change == "label":
        labels[[0, -1]] = labels[[-1, 0]]
    other = dataclasses.replace(sample, test=type(sample.test)(images, labels))
    if change == "split":
        other = dataclasses.replace(sample, train=sample.validation, validation=sample.train)
    if change == "name":
        other = dataclasses.replace(sample, class_names=(*sample.class_names[:-1], "shoe"))
    for verifier in (saved_model, tiny):
        with pytest.raises(DataError, match="must be the one that the model was trained on"):
            verifier.evaluate(other)


def test_an_exported_model_is_neither_saved_nor_exported_again(saved_model, remote, tmp_path):
    for verifier in (saved_model, remote):
        with pytest.raises(ModelError, match="cannot be saved again: load its run instead"):
            verifier.save(tmp_path / "run")
        with pytest.raises(ModelError, match="cannot be exported again: load its run instead"):
            verifier.export(tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_inverts_is_neither_saved_nor_exported_nor_scored(tiny_run, sample, tmp_path):
    inverting = load_verifier(tiny_run, invert=True)
    for act in (
        lambda: inverting.save(tmp_path / "run"),
        lambda: inverting.export(tmp_path / "models"),
        lambda: inverting.evaluate(sample),
    ):
        with pytest.raises(ModelError, match="A verifier with `invert` cannot be "):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_calibration_embeds_and_does_not_compare(tiny, sample):
    verifier = Verifier.of_model(tiny.outer_model, None)
    images = sample.test.images[:3]
    np.testing.assert_array_equal(verifier.embed(images), tiny.embed(images))
    assert verifier.search(images[1], images)[0].index == 1
    with pytest.raises(ModelError, match="no calibration"):
        verifier.distance(images, images)
    with pytest.raises(ModelError):
        verifier.evaluate(None)


def test_embeddings_that_are_not_finite_are_refused(tiny_run, sample):
    verifier = load_verifier(tiny_run)
    base = verifier.base_model
    base.set_weights([np.full_like(weights, np.nan) for weights in base.get_weights()])
    for ask in (verifier.embed, lambda images: verifier.compare(images, images)):
        with pytest.raises(RequestError, match=r"^image 0: its embedding is not finite\.$"):
            ask(sample.test.images[:2])


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/run",
        "http://localhost:8501",
        "http://localhost:x/v1/models/m",
        "http:///v1/models/m",
        "ftp://localhost/v1/models/m",
    ],
)
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(ArgumentError) as refused:
        load_verifier(address)
    assert str(refused.value) == (
        f"`url` must be http://HOST:PORT/v1/models/NAME. Received: {address}"
    )


def test_a_folder_that_holds_no_model_is_refused_with_how_to_make_one(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "notes.txt"):
        with pytest.raises(ModelError) as refused:
            load_verifier(folder)
        message = str(refused.value)
        assert message.startswith(f"`{folder}` must be the folder of a run")
        assert "siamese_keras.train" in message
        assert "siamese_keras.export" in message


def test_the_highest_version_is_loaded(exported, tmp_path, sample, tiny):
    (tmp_path / "2").mkdir()  # which could not be loaded
    (tmp_path / ".writing-99").mkdir()
    (tmp_path / "11").write_text("a file")
    (tmp_path / "10").symlink_to(exported)
    found = load_verifier(tmp_path).embed(sample.test.images[0])
    np.testing.assert_allclose(found, tiny.embed(sample.test.images[0]), atol=TOLERANCE)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    version = tmp_path / "1"
    version.mkdir()
    for folder in (tmp_path, version):
        with pytest.raises(ModelError):
            load_verifier(folder)
    (version / "saved_model.pb").write_bytes(b"broken")
    for folder in (tmp_path, version):
        with pytest.raises(ModelError, match=r"1` cannot be loaded\. ") as refused:
            load_verifier(folder)
        assert "\n" not in str(refused.value)


def test_another_saved_model_is_not_an_export_of_this_package(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "2"))
    with pytest.raises(ModelError, match=r"2` is not an export of this package: .*model\.json"):
        load_verifier(tmp_path)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Another SavedModel, loaded in no time, to which `model.json` is added."""
    version = tmp_path_factory.mktemp("copied") / "1"
    tf.saved_model.save(tf.Module(), str(version))
    (version / "assets.extra").mkdir()
    return version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: "{", "cannot be read"),
        (lambda facts: "[]", "must be a JSON object"),
        (lambda facts: {**facts, "threshold": "0.5"}, "is damaged: .*`threshold` must be a finite"),
        (lambda facts: {**facts, "slope": float("nan")}, "is damaged: .*`slope` must be a finite"),
        (lambda facts: {**facts, "config": {"epochs": "3"}}, "is damaged: .*`epochs` must be"),
        (lambda facts: {**facts, "config": {"scale": 3}}, "is damaged: .*scale"),
        (lambda facts: {**facts, "class_names": None}, "is damaged: .*NoneType"),
        *(
            (lambda facts, key=key: {k: v for k, v in facts.items() if k != key}, f"damaged.*{key}")
            for key in ("threshold", "slope", "config", "class_names", "name", "training")
        ),
    ],
)
def test_a_damaged_model_json_is_named_in_one_line(exported, copied, change, message):
    path = copied / "assets.extra" / "model.json"
    changed = change(json.loads((exported / "assets.extra" / "model.json").read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ModelError, match=message) as refused:
        load_verifier(copied)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, SiameseKerasError)


def test_another_threshold_changes_decisions_alone(verifier, sample):
    left, right = sample.test.images[:60], sample.test.images[100:160]
    before = verifier.compare(left, right)
    middle = float(np.median(before.distance)) + 1e-6
    strict = verifier.with_threshold(middle)
    found = strict.compare(left, right)
    np.testing.assert_array_equal(found.same, before.distance <= middle)
    assert 0 < found.same.sum() < 60
    np.testing.assert_array_equal(found.distance, before.distance)
    np.testing.assert_array_equal(found.similarity, before.similarity)
    assert strict.threshold == middle
    np.testing.assert_array_equal(verifier.same(left, right), before.same)


def test_a_false_accept_rate_chooses_the_threshold_that_has_it(tiny, sample):
    strict = tiny.with_threshold(far=0.01)
    x, y = sample.validation.images, sample.validation.labels
    left, right = np.triu_indices(len(x), 1)
    different = y[left] != y[right]
    accepted = strict.same(x[left[different]], x[right[different]])
    assert accepted.mean() == pytest.approx(tiny.operating_point(0.01).rate, abs=3e-4)
    assert 0.008 < accepted.mean() <= 0.0103
    assert tiny.operating_point(0.01).different_pairs == different.sum()
    with pytest.raises(ModelError, match=r"`far` of 0.0001 needs at least 100,000 different"):
        tiny.with_threshold(far=1e-4)


def test_a_prior_chooses_the_threshold_where_its_similarity_is_a_half(tiny, sample):
    verifier = tiny.with_threshold(prior=0.2)
    left, right = sample.test.images[:60], sample.test.images[100:160]
    similarity = tiny.similarity(left, right, prior=0.2)
    np.testing.assert_array_equal(verifier.same(left, right), similarity >= 0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"far": 0.1, "prior": 0.1},
        {"threshold": 0.1, "far": 0.1},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": 1e200},
        {"threshold": "0.1"},
        {"far": "0.1"},
        {"far": 0.0},
        {"far": 1.0},
        {"prior": 0.0},
        {"prior": 1e-12},
    ],
    ids=str,
)
def test_a_threshold_that_makes_no_sense_is_refused(tiny, arguments):
    with pytest.raises(ArgumentError, match=r"`(threshold|far|prior)`.* Received: "):
        tiny.with_threshold(**arguments)


def test_a_server_has_no_table_of_false_accepts_and_no_calibration(remote):
    with pytest.raises(ModelError, match="no table of false accepts"):
        remote.with_threshold(far=0.01)
    with pytest.raises(ModelError, match="a server does not report its calibration"):
        remote.with_threshold(prior=0.01)
    assert remote.threshold is None


def test_a_distance_of_the_model_may_become_the_threshold(tiny, sample):
    distance = tiny.distance(sample.test.images[0], sample.test.images[1])
    assert tiny.with_threshold(distance).threshold == float(distance)

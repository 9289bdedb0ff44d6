"""The functions that a served model offers; `test_served_model` asks them in the C++ loader."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ModelError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.outer_model import build_outer_model
from siamese_keras.serving.signatures import build_signatures, example_requests

CALIBRATION = Calibration(threshold=0.75, slope=4.0)


@pytest.fixture(scope="module")
def outer():
    keras.utils.set_random_seed(0)
    return build_outer_model(build_base_model((6, 5, 1), filters=(2,), embedding_dim=3))


@pytest.fixture(scope="module")
def functions(outer):
    return {name: function for name, (function, _) in build_signatures(outer, CALIBRATION).items()}


def test_signatures_have_named_inputs_and_outputs(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    pixels, files = ((None, 28, 28, 1), "uint8"), ((None,), "string")
    answer = {
        "distance": ((None,), "float32"),
        "similarity": ((None,), "float32"),
        "same": ((None,), "bool"),
    }

    def described(specs):
        return {name: (tuple(spec.shape), spec.dtype.name) for name, spec in specs.items()}

    found = {
        name: (
            described(function.structured_input_signature[1]),
            described(function.structured_outputs),
        )
        for name, function in signatures.items()
    }
    embedding = {"embedding": ((None, 8), "float32")}
    assert found == {
        "serving_default": ({"left": pixels, "right": pixels}, answer),
        "compare_bytes": ({"left": files, "right": files}, answer),
        "embed": ({"images": pixels}, embedding),
        "embed_bytes": ({"images": files}, embedding),
    }


def test_answers_follow_from_the_distance(outer, functions, rng):
    left, right = rng.integers(0, 256, (2, 40, 6, 5, 1), np.uint8)
    answer = functions["serving_default"](left, right)
    distance = outer.predict({"left": left, "right": right}, verbose=0)
    np.testing.assert_allclose(answer["distance"], distance, atol=1e-6)
    similarity = 1 / (1 + np.exp(-4 * (0.75 - distance)))
    np.testing.assert_allclose(answer["similarity"], similarity, atol=1e-6)
    assert set(answer["same"].numpy()) == {True, False}
    np.testing.assert_array_equal(answer["same"], distance <= 0.75)


def test_at_the_threshold_a_pair_is_same(outer):
    """Equal images have the distance 0."""
    images = np.full((1, 6, 5, 1), 9, np.uint8)
    distance = float(outer({"left": images, "right": images})[0])
    for threshold, expected in ((distance, True), (distance - 1e-4, False)):
        function, _ = build_signatures(outer, Calibration(threshold, 4.0))["serving_default"]
        answer = function(images, images)
        assert bool(answer["same"][0]) is expected
        assert float(answer["similarity"][0]) == pytest.approx(0.5, abs=1e-3)


def test_inputs_are_checked_when_the_functions_run(functions):
    images = np.zeros((2, 6, 5, 1), np.uint8)
    for bad in (images[0], images[:, :5], images[..., 0], np.zeros((2, 6, 5, 3), np.uint8)):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="compatible"):
            functions["embed"](bad)
    for left, right in ((images, images[:1]), (images[:0], images[:0])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="equally many images, at least 1"):
            functions["serving_default"](left, right)


def test_other_channels_than_grey_and_color_are_refused():
    outer = build_outer_model(build_base_model((8, 8, 2), filters=(2,)))
    with pytest.raises(ModelError, match=r"1 or 3 channels\. Received: 2"):
        build_signatures(outer, CALIBRATION)


@pytest.mark.parametrize("channels", [1, 3])
def test_example_requests_hold_the_same_images_as_pixels_and_as_files(channels):
    requests = example_requests((6, 5, channels), batch_size=3)
    assert set(requests) == {"serving_default", "compare_bytes", "embed", "embed_bytes"}
    for pixels, files in (("serving_default", "compare_bytes"), ("embed", "embed_bytes")):
        assert requests[pixels].keys() == requests[files].keys()
        for name, images in requests[pixels].items():
            assert images.shape == (3, 6, 5, channels)
            assert images.dtype == np.uint8
            decoded = [tf.io.decode_png(file).numpy() for file in requests[files][name]]
            np.testing.assert_array_equal(images, decoded)
    left, right = requests["serving_default"].values()
    assert (left != right).mean() > 0.9

import keras
import numpy as np
import pytest
from keras import layers

from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.models import backbone as module
from siamese_keras.models.backbone import (
    BACKBONES,
    build_backbone,
    build_head,
    unfreeze,
    with_head,
)


def small_network(size=16, *, dtype="float32", pooled=False):
    """Stages of 8 x 8, 4 x 4 and 2 x 2 with 4, 6 and 8 channels, and a look at the channels."""
    keras.utils.set_random_seed(1)
    image = keras.Input((size, size, 3), dtype=dtype, name="x")
    x = layers.Rescaling(1 / 255, name="scaled")(image)
    for number, channels in enumerate((4, 6, 8), start=1):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"mean{number}")(x)
        x = layers.Multiply(name=f"stage{number}")([x, weight])
    if pooled:
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, x, name="small")


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 16, 16, 3), np.uint8)


@pytest.fixture
def saved(tmp_path):
    def save(**options):
        small_network(**options).save(tmp_path / "small.keras")
        return str(tmp_path / "small.keras")

    return save


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_features_are_the_last_stage_averaged_over_positions(saved, images, dtype, pooled):
    backbone = build_backbone(saved(dtype=dtype, pooled=pooled), (16, 16, 3))
    assert backbone.name == "backbone"
    expected = small_network(dtype=dtype)(images.astype(dtype), training=False)
    np.testing.assert_allclose(
        backbone(images), np.mean(expected, axis=(1, 2)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("stages", "length"), [(1, 8), (2, 14), (3, 18)])
def test_earlier_stages_come_first(saved, images, stages, length):
    backbone = build_backbone(saved(), (16, 16, 3), stages=stages)
    features = np.array(backbone(images))
    assert features.shape == (5, length)
    network = small_network()
    maps = keras.Model(network.input, [network.get_layer(f"stage{n}").output for n in (1, 2, 3)])
    expected = [np.mean(x, axis=(1, 2)) for x in maps(images.astype(np.float32), training=False)]
    np.testing.assert_allclose(features, np.concatenate(expected[-stages:], axis=1), atol=1e-5)


def test_too_many_stages_are_refused(saved):
    with pytest.raises(ArgumentError, match=r"at most 3, the stages of the backbone\. Recei"):
        build_backbone(saved(), (16, 16, 3), stages=4)


def test_a_network_of_any_size_gives_its_last_stage_alone(saved, images):
    network = saved(size=None)
    assert build_backbone(network, (16, 16, 3), stages=1)(images).shape == (5, 8)
    with pytest.raises(ArgumentError, match=r"must be 1 for a backbone without maps of a fixed"):
        build_backbone(network, (16, 16, 3), stages=2)


def test_a_pooled_network_has_as_many_stages(saved, images):
    features = build_backbone(saved(pooled=True), (16, 16, 3), stages=3)(images)
    expected = build_backbone(saved(), (16, 16, 3), stages=3)(images)
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_gray_images_get_three_equal_channels(saved, images):
    gray = images[..., :1]
    path = saved()
    found = build_backbone(path, (16, 16, 1))(gray)
    expected = build_backbone(path, (16, 16, 3))(np.repeat(gray, 3, axis=-1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_the_preprocessing_of_each_model_is_inside(name, images):
    """`preprocess_input` of `keras.applications` before the model, and ours within it."""
    color = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    keras.utils.set_random_seed(2)
    ours = build_backbone(name, (32, 32, 3), weights="none")(color)
    keras.utils.set_random_seed(2)
    build = getattr(keras.applications, BACKBONES[name][0])
    theirs = build(include_top=False, input_shape=(32, 32, 3), weights=None, pooling="avg")
    prepare = getattr(keras.applications, name if name == "mobilenet_v2" else "mobilenet_v3")
    expected = theirs(prepare.preprocess_input(color.astype(np.float32)), training=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_every_name_is_a_model_of_keras():
    for name, (attribute, _) in BACKBONES.items():
        assert callable(getattr(keras.applications, attribute)), name


def test_weights_come_from_a_file(tmp_path, images):
    color = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    keras.utils.set_random_seed(3)
    network = keras.applications.MobileNetV3Small(
        include_top=False, input_shape=(32, 32, 3), weights=None, pooling="avg"
    )
    path = tmp_path / "mine.weights.h5"
    network.save_weights(path)
    keras.utils.set_random_seed(4)
    found = build_backbone("mobilenet_v3_small", (32, 32, 3), weights=str(path))(color)
    expected = network(color.astype(np.float32), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_download_that_fails_names_the_ways_out(monkeypatch):
    def fail(**_):
        raise Exception("URL fetch failure on https://example.org/x: None -- no network")

    monkeypatch.setattr(module.keras.applications, "MobileNetV2", fail)
    with pytest.raises(ModelError, match=r"mobilenet_v2 cannot be downloaded.*--weights none"):
        build_backbone("mobilenet_v2", (32, 32, 3))


@pytest.mark.parametrize(
    ("name", "shape", "weights", "message"),
    [
        ("resnet_1000", (32, 32, 3), "none", "`backbone` must be one of convnext_tiny, .*'resnet_"),
        ("mobilenet_v2", (32, 32, 4), "none", "needs gray or color images. Received: 4 channels"),
        ("mobilenet_v2", (8, 8, 3), "none", r"cannot be built for images of \(8, 8, 3\)"),
        ("mobilenet_v2", (32, 32, 3), "missing.weights.h5", "with weights 'missing.weights.h5'"),
    ],
)
def test_what_does_not_fit_is_named(name, shape, weights, message):
    with pytest.raises((ArgumentError, ModelError), match=message) as caught:
        build_backbone(name, shape, weights=weights)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_backbone_is_named(saved, tmp_path):
    with pytest.raises(ModelError, match=r"missing\.keras` is missing"):
        build_backbone(str(tmp_path / "missing.keras"), (16, 16, 3))
    (tmp_path / "broken.keras").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.keras` cannot be loaded as a backbone"):
        build_backbone(str(tmp_path / "broken.keras"), (16, 16, 3))
    with pytest.raises(ArgumentError, match=r"must take images of .* images of \(16, 16, 3\)"):
        build_backbone(saved(), (20, 20, 3))


def test_the_head_standardizes_the_features(rng):
    features = (rng.normal(size=(200, 6)) * [1, 2, 3, 4, 5, 0] + 7).astype(np.float32)
    head = build_head(features, embedding_dim=3, unit_length=False)
    standardized = keras.Model(head.input, head.get_layer("standardized").output)(features)
    np.testing.assert_allclose(np.mean(standardized, axis=0), np.zeros(6), atol=1e-4)
    np.testing.assert_allclose(np.std(standardized, axis=0), [1, 1, 1, 1, 1, 0], atol=1e-3)
    assert head.output_shape == (None, 3)


def test_the_head_has_the_layers_that_the_settings_name(rng):
    features = rng.normal(size=(20, 6)).astype(np.float32)
    head = build_head(
        features, units=(5, 4), dropout=0.5, embedding_dim=3, embedding_activation="tanh"
    )
    names = [layer.name for layer in head.layers][2:]
    assert names == [
        "dropout1", "dense1", "dropout2", "dense2", "dropout3", "embedding", "unit_length",
    ]  # fmt: skip
    assert head.get_layer("embedding").activation is keras.activations.tanh
    np.testing.assert_allclose(np.linalg.norm(head(features), axis=1), np.ones(20), rtol=1e-5)


def test_a_base_model_with_a_head_takes_images_and_can_be_saved(saved, images, tmp_path):
    backbone = build_backbone(saved(), (16, 16, 3), stages=2)
    head = build_head(np.array(backbone(images)), embedding_dim=3)
    base = with_head(backbone, head)
    assert base.name == "base"
    np.testing.assert_allclose(base(images), head(backbone(images)), rtol=1e-6)
    base.save(tmp_path / "base.keras")
    again = keras.models.load_model(tmp_path / "base.keras", compile=False)
    np.testing.assert_allclose(again(images), base(images), rtol=1e-6)


def test_a_backbone_learns_only_when_it_may_and_its_normalization_never(saved, images):
    backbone = build_backbone(saved(), (16, 16, 3))
    assert not backbone.trainable_variables
    unfreeze(backbone)
    learning = {variable.path.split("/")[-2] for variable in backbone.trainable_variables}
    assert learning == {"conv1", "conv2", "conv3"}
    before = [v.numpy() for v in backbone.non_trainable_variables]
    expected = np.array(backbone(images, training=False))
    np.testing.assert_allclose(backbone(images, training=True), expected, rtol=1e-6)
    for variable, value in zip(backbone.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

import keras
import numpy as np
import pytest

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError
from siamese_keras.models.base_model import (
    average_flipped,
    average_shifted,
    build_base_model,
    extend_base_model,
    keep_features,
)
from siamese_keras.presets import PRESETS


def images(rng, n, shape=(28, 28, 1)):
    return rng.integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture(scope="module")
def base():
    keras.utils.set_random_seed(0)
    return build_base_model((28, 28, 1), filters=(4, 8), embedding_dim=6)


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 1, 1), (33, 20, 3), (64, 48, 4)])
@pytest.mark.parametrize("architecture", ["cnn", "resnet", "mlp"])
def test_any_image_size_gives_embeddings_of_unit_length(rng, shape, architecture):
    model = build_base_model(shape, architecture=architecture, filters=(8, 8, 8), units=(16,))
    embeddings = model.predict_on_batch(images(rng, 2, shape))
    assert embeddings.shape == (2, 64)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_base_model_rescales_by_itself():
    model = build_base_model((28, 28, 1))
    assert model.name == "base"
    assert model.input.dtype == "uint8"
    rescaled = model.get_layer("rescaling")(np.array([[0, 255]], np.uint8))
    np.testing.assert_allclose(rescaled, [[0, 1]])


@pytest.mark.parametrize(
    ("pooling", "features"), [("flatten", 8 * 4 * 3), ("average", 8), ("max", 8)]
)
def test_pooling_decides_the_features_before_the_embedding(pooling, features):
    model = build_base_model((28, 20, 1), filters=(2, 4, 8), pooling=pooling)
    assert model.get_layer("embedding").input.shape == (None, features)


def test_dropout_follows_every_dense_layer_and_acts_in_training_alone(rng):
    plain = build_base_model((8, 8, 1), architecture="mlp", units=(32, 16), embedding_dim=4)
    model = build_base_model(
        (8, 8, 1), architecture="mlp", units=(32, 16), dropout=0.5, embedding_dim=4
    )
    model.set_weights(plain.get_weights())
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in layers] == [0.5, 0.5]
    x = images(rng, 3, (8, 8, 1))
    np.testing.assert_allclose(model(x, training=False), plain(x, training=False), atol=1e-6)
    assert np.abs(model(x, training=True) - plain(x, training=True)).max() > 1e-3


@pytest.mark.parametrize(
    ("argument", "choices"),
    [
        ("architecture", "'cnn', 'resnet', 'mlp'"),
        ("pooling", "'flatten', 'average', 'max'"),
        ("embedding_activation", "'linear', 'relu', 'tanh'"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_choices(argument, choices):
    with pytest.raises(ArgumentError) as refused:
        build_base_model((28, 28, 1), **{argument: "sum"})
    assert str(refused.value) == (
        f"`{argument}` must be one of {choices}. Received: {argument}='sum'"
    )


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_embedding_has_its_activation(rng, activation):
    model = build_base_model(
        (8, 8, 1), architecture="mlp", embedding_activation=activation, unit_length=False
    )
    dense = model.get_layer("embedding")
    dense.set_weights([10 * weight for weight in dense.get_weights()])
    x = images(rng, 20, (8, 8, 1))
    kernel, bias = dense.get_weights()
    expected = x.reshape(20, -1) / 255 @ kernel + bias
    expected = {
        "linear": expected, "relu": np.maximum(expected, 0), "tanh": np.tanh(expected)
    }[activation]  # fmt: skip
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        # 784*128+128 and twice 128*128+128
        ("classic-mlp", 133_504),
        # 3*3*(1*32 + 32*64), 4 per filter to normalize, 7*7*64*256 + 256, 256*16 + 16
        ("classic-cnn", 18_720 + 384 + 803_072 + 4_112),
        # 3*3*(1*32 + 32*64 + 64*96 + 96*128), 4 per filter to normalize, 2*2*128*64 + 64
        ("fast", 184_608 + 1_280 + 32_832),
        # 3*3*(1*32 + 32*64 + 64*128), 4 per filter to normalize, 3*3*2*(64*64 + 128*128) and
        # 4*2*(64 + 128) beside the shortcuts, 4*4*128*128 + 128, and the projection of 2048
        # features to as many numbers
        ("best", 92_448 + 896 + 368_640 + 1_536 + 262_272 + 262_144),
        # 784*128 + 128
        ("open-set", 100_480),
    ],
)
def test_number_of_parameters(preset, parameters):
    model = build_base_model((28, 28, 1), **PRESETS[preset].base_model_options())
    assert model.count_params() == parameters


def test_residual_model_adds_to_what_it_had(rng):
    """With nothing coming out of the added convolutions, it is the plain one."""
    plain = build_base_model((28, 28, 1), filters=(2, 4, 8))
    residual = build_base_model((28, 28, 1), architecture="resnet", filters=(2, 4, 8))
    for layer in plain.layers:
        residual.get_layer(layer.name).set_weights(layer.get_weights())
    x = images(rng, 3)
    assert np.abs(plain(x) - residual(x)).max() > 1e-3
    for block in (2, 3):
        norm = residual.get_layer(f"norm{block}b")
        norm.gamma.assign(norm.gamma * 0)
    np.testing.assert_allclose(residual(x), plain(x), atol=1e-6)


def test_flip_averaged_embeddings_are_the_mean_of_both_views(base, rng):
    x = images(rng, 3)
    averaged = average_flipped(base, unit_length=True)
    assert averaged.name == "base"
    mean = base.predict_on_batch(x) + base.predict_on_batch(x[:, :, ::-1].copy())
    plain = average_flipped(base, unit_length=False)
    np.testing.assert_allclose(plain.predict_on_batch(x), mean / 2, atol=1e-6)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(averaged.predict_on_batch(x), mean, atol=1e-6)
    np.testing.assert_allclose(averaged(x), averaged(x[:, :, ::-1].copy()), atol=1e-6)
    assert averaged.count_params() == base.count_params()


def test_flips_are_averaged_of_a_sequential_model_that_was_never_called(rng):
    own = keras.Sequential(
        [keras.Input((4, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(2)], name="mine"
    )
    averaged = average_flipped(own, unit_length=False)
    x = images(rng, 3, (4, 5, 1)).astype(np.float32)
    mean = (own.predict_on_batch(x) + own.predict_on_batch(x[:, :, ::-1].copy())) / 2
    np.testing.assert_allclose(averaged.predict_on_batch(x), mean, rtol=1e-4)


def test_shifts_are_averaged(base, rng):
    x = images(rng, 3)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    views = [np.ascontiguousarray(wide[:, y : y + 28, x_ : x_ + 28]) for y, x_ in corners]
    mean = sum(base.predict_on_batch(view) for view in views) / 5
    plain = average_shifted(base, unit_length=False)
    np.testing.assert_allclose(plain.predict_on_batch(x), mean, atol=1e-6)
    averaged = average_shifted(base, unit_length=True)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(averaged.predict_on_batch(x), mean, atol=1e-6)
    assert averaged.name == "base"
    assert averaged.count_params() == base.count_params()


def test_one_shift_counts_half_as_much_as_the_image(base, rng):
    x = images(rng, 3)
    left = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :, 1:]
    mean = (2 * base.predict_on_batch(x) + base.predict_on_batch(left)) / 3
    averaged = average_shifted(base, "left", unit_length=False)
    np.testing.assert_allclose(averaged.predict_on_batch(x), mean, atol=1e-6)


def test_flips_and_shifts_are_averaged_together(base, rng):
    x = images(rng, 3)
    both = extend_base_model(base, unit_length=True, flip_averaging=True, shift_averaging="all")
    flipped = average_flipped(base, unit_length=True)
    expected = average_shifted(flipped, unit_length=True).predict_on_batch(x)
    np.testing.assert_allclose(both.predict_on_batch(x), expected, atol=1e-6)


def test_kept_features_stand_beside_the_embedding_with_their_length(base, rng):
    x = images(rng, 3)
    embedding = base.predict_on_batch(x)
    kept = keep_features(base, 0.5, unit_length=False)
    assert kept.name == "base"
    assert kept.output_shape == (None, 12)
    whole = kept.predict_on_batch(x)
    np.testing.assert_allclose(whole[:, :6], embedding, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole[:, 6:], axis=1), 0.5, atol=1e-6)
    assert np.ptp(whole[:, 6:], axis=0).max() > 1e-3  # they tell images apart
    unit = keep_features(base, 0.5, unit_length=True).predict_on_batch(x)
    np.testing.assert_allclose(unit[:, :6], embedding / 1.25**0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


def test_the_projection_is_saved_but_not_trained(base):
    kept = keep_features(base, 0.5, unit_length=True)
    assert len(kept.trainable_weights) == len(base.trainable_weights)
    assert len(kept.weights) == len(base.weights) + 1


def test_a_base_model_is_extended_only_when_asked_to(base, rng):
    x = images(rng, 3)
    options = {"kept_features": 0.0, "flip_averaging": False, "unit_length": True}
    assert extend_base_model(base, **options) is base
    both = extend_base_model(base, **{**options, "kept_features": 0.5, "flip_averaging": True})
    embedded = both.predict_on_batch(x)
    assert embedded.shape == (3, 12)
    np.testing.assert_allclose(embedded, both(x[:, :, ::-1].copy()), atol=1e-6)
    averaged = average_flipped(base, unit_length=True).predict_on_batch(x)
    kept = embedded[:, :6] / np.linalg.norm(embedded[:, :6], axis=1, keepdims=True)
    np.testing.assert_allclose(kept, averaged, atol=1e-5)


def test_features_without_convolutions_are_refused():
    with pytest.raises(ArgumentError, match=r"`kept_features`.*cnn or resnet.*kept_features=0\.5"):
        build_base_model((28, 28, 1), architecture="mlp", kept_features=0.5)
    with pytest.raises(ArgumentError, match=r"`kept_features`.*cnn or resnet.*mlp"):
        Config(architecture="mlp", kept_features=0.5)

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.config import PRESETS
from siamese_keras.models.base_model import (
    build_base_model,
    build_outer_model,
    edge_strengths,
    euclidean_distance,
    pairwise_euclidean_distance,
    silhouette,
)


def images(rng, n, shape=(28, 28, 1)):
    return rng.integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture(scope="module")
def base():
    keras.utils.set_random_seed(0)
    return build_base_model((28, 28, 1), filters=(4, 8), embedding_dim=6)


def test_distance_by_hand():
    # (3, 4) - (0, 0): sqrt(9 + 16) = 5;  (1, 1) - (1, 1): 0
    left, right = np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(euclidean_distance([left, right]), [5, 0])
    np.testing.assert_allclose(
        pairwise_euclidean_distance([left, right]), [[5, 13**0.5], [2**0.5, 0]], rtol=1e-6
    )


def test_pairwise_distances_equal_a_plain_loop(rng):
    left, right = rng.normal(size=(5, 7)), rng.normal(size=(4, 7))
    expected = [
        [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5 for y in right] for x in left
    ]
    np.testing.assert_allclose(pairwise_euclidean_distance([left, right]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("distance", "diagonal"), [(euclidean_distance, False), (pairwise_euclidean_distance, True)]
)
def test_gradient_at_distance_0_is_0_and_not_nan(distance, diagonal):
    x = tf.constant([[0.6, 0.8], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        matrix_or_vector = distance([x, x + 0])
        total = tf.reduce_sum(
            tf.linalg.diag_part(matrix_or_vector) if diagonal else matrix_or_vector
        )
    assert float(total) == 0
    np.testing.assert_array_equal(tape.gradient(total, x), np.zeros((2, 2)))


def test_a_broken_embedding_has_no_distance():
    broken = np.array([[np.nan, 1.0]])
    assert np.isnan(euclidean_distance([broken, broken]))
    assert np.isnan(pairwise_euclidean_distance([broken, broken]))


def test_distance_is_computed_in_float32_and_refuses_unequal_shapes():
    half = tf.constant([[1.0, 2.0]], tf.float16)
    assert euclidean_distance([half, half]).dtype == tf.float32
    with pytest.raises(ValueError, match="same shape"):
        euclidean_distance([np.zeros((1, 3)), np.zeros((2, 3))])


def test_outer_model_shares_the_base_and_measures_its_embeddings(base, rng):
    outer = build_outer_model(base)
    assert outer.count_params() == base.count_params()
    left, right = images(rng, 3), images(rng, 3)
    distance = outer.predict_on_batch({"left": left, "right": right})
    embeddings = [base.predict_on_batch(x) for x in (left, right)]
    np.testing.assert_allclose(
        distance, np.linalg.norm(np.subtract(*embeddings), axis=1), rtol=1e-5
    )
    swapped = outer.predict_on_batch({"left": right, "right": left})
    np.testing.assert_array_equal(distance, swapped)
    np.testing.assert_array_equal(
        outer.predict_on_batch({"left": left, "right": left}), np.zeros(3)
    )


def test_all_pairs_form_holds_the_pairs_of_the_pair_form(base, rng):
    left, right = images(rng, 4), images(rng, 4)
    inputs = {"left": left, "right": right}
    matrix = build_outer_model(base, all_pairs=True).predict_on_batch(inputs)
    assert matrix.shape == (4, 4)
    pairwise = build_outer_model(base).predict_on_batch(inputs)
    np.testing.assert_allclose(np.diag(matrix), pairwise, rtol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 1, 1), (33, 20, 3), (64, 48, 4)])
@pytest.mark.parametrize("architecture", ["cnn", "mlp", "outline"])
def test_any_image_size_gives_embeddings_of_unit_length(rng, shape, architecture):
    model = build_base_model(shape, architecture=architecture, filters=(8, 8, 8), units=(16,))
    embeddings = model.predict_on_batch(images(rng, 2, shape))
    assert architecture == "outline" or embeddings.shape == (2, 64)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_base_model_rescales_by_itself():
    first = build_base_model((28, 28, 1)).layers[1]
    np.testing.assert_allclose(first(np.array([[0, 255]], np.uint8)), [[0, 1]])


@pytest.mark.parametrize(
    ("pooling", "features"), [("flatten", 8 * 4 * 3), ("average", 8), ("max", 8)]
)
def test_pooling_decides_the_features_before_the_embedding(pooling, features):
    model = build_base_model((28, 20, 1), filters=(2, 4, 8), pooling=pooling)
    assert model.get_layer("embedding").input.shape == (None, features)


def test_silhouette_and_edges_by_hand():
    # Far below 0.05, at it, far above: 0, 1/2, 1.
    shape = silhouette(np.array([[0.0, 0.05, 0.2]], np.float32))
    np.testing.assert_allclose(shape, [[0, 0.5, 1]], atol=1e-4)
    image = np.zeros((1, 3, 4, 1), np.float32)
    image[0, :, 2:] = 1  # the right half is white
    edges = np.asarray(edge_strengths(image))[0, 1]  # the middle row
    # Left to right: 0, 1 and 1 on both sides of the step, and the white meets black at the border.
    np.testing.assert_allclose(edges[:, 0], [0, 1, 1, 1])
    np.testing.assert_allclose(edges[:, 1], 0)  # top to bottom nothing changes
    np.testing.assert_allclose(edges[:, 2:], np.array([[0, 1, 1, 1]] * 2).T / 2**0.5, rtol=1e-6)


def test_outline_stays_in_the_embedding_whatever_is_learnt(rng):
    options = PRESETS["open-set"].base_model_options()
    model = build_base_model((28, 28, 1), **options)
    pictures = images(rng, 3)
    before = model.predict_on_batch(pictures)
    assert before.shape == (3, 49 + 4 * 49 + 64)
    np.testing.assert_allclose(np.linalg.norm(before[:, 49:245], axis=1), 2, rtol=1e-5)
    model.get_layer("embedding").set_weights(
        [w + 1 for w in model.get_layer("embedding").get_weights()]
    )
    after = model.predict_on_batch(pictures)
    np.testing.assert_array_equal(before[:, :245], after[:, :245])
    assert np.abs(before[:, 245:] - after[:, 245:]).max() > 1


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match=r"`pooling` must be one of .* Received: 'sum'"):
        build_base_model((28, 28, 1), pooling="sum")
    with pytest.raises(
        ValueError, match=r"`architecture` must be cnn, residual, mlp or outline. Received: 'vit'"
    ):
        build_base_model((28, 28, 1), architecture="vit")


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        # 784*128+128 and twice 128*128+128
        ("classic-mlp", 133_504),
        # 3*3*(1*32 + 32*64 + 64*128), 4 per filter to normalise, 4*4*128*64 + 64
        ("fast", 92_448 + 896 + 131_136),
        # (49 + 4*49)*64 + 64
        ("open-set", 15_744),
    ],
)
def test_number_of_parameters(preset, parameters):
    model = build_base_model((28, 28, 1), **PRESETS[preset].base_model_options())
    assert model.count_params() == parameters


def test_residual_model_adds_to_what_it_had(rng):
    """With nothing coming out of the added convolutions, it is the plain one."""
    plain = build_base_model((28, 28, 1), filters=(2, 4, 8))
    residual = build_base_model((28, 28, 1), architecture="residual", filters=(2, 4, 8))
    for layer in plain.layers:
        residual.get_layer(layer.name).set_weights(layer.get_weights())
    x = images(rng, 3)
    assert np.abs(plain(x) - residual(x)).max() > 1e-3
    for block in (2, 3):
        norm = residual.get_layer(f"norm{block}b")
        norm.gamma.assign(norm.gamma * 0)
    np.testing.assert_allclose(residual(x), plain(x), atol=1e-6)


def test_saved_models_load_in_a_fresh_process_in_safe_mode(base, rng, tmp_path):
    left, right = images(rng, 3), images(rng, 3)
    np.savez(tmp_path / "images.npz", left=left, right=right)
    for name, all_pairs in (("pair", False), ("all", True)):
        build_outer_model(base, all_pairs=all_pairs).save(tmp_path / f"{name}.keras")
    base.save(tmp_path / "base.keras")
    outline = build_base_model((28, 28, 1), architecture="outline")
    outline.save(tmp_path / "outline.keras")
    extended = build_base_model(
        (28, 28, 1), architecture="residual", filters=(2, 4), features=0.5, mirror=True
    )
    extended.save(tmp_path / "extended.keras")
    code = (
        "import sys, numpy as np, keras, siamese_keras.models.base_model\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "inputs = dict(np.load(folder / 'images.npz'))\n"
        "for name in ('pair', 'all'):\n"
        "    model = keras.models.load_model(folder / f'{name}.keras', safe_mode=True)\n"
        "    np.save(folder / f'{name}.npy', model.predict_on_batch(inputs))\n"
        "for name in ('base', 'outline', 'extended'):\n"
        "    model = keras.models.load_model(folder / f'{name}.keras', safe_mode=True)\n"
        "    np.save(folder / f'{name}.npy', model.predict_on_batch(inputs['left']))\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    a, b = base.predict_on_batch(left), base.predict_on_batch(right)
    np.testing.assert_allclose(np.load(tmp_path / "base.npy"), a, atol=1e-6)
    again = np.load(tmp_path / "outline.npy")
    np.testing.assert_allclose(again, outline.predict_on_batch(left), atol=1e-6)
    again = np.load(tmp_path / "extended.npy")
    np.testing.assert_allclose(again, extended.predict_on_batch(left), atol=1e-6)
    np.testing.assert_allclose(
        np.load(tmp_path / "pair.npy"), np.linalg.norm(a - b, axis=1), atol=1e-5
    )
    matrix = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), matrix, atol=1e-5)


def test_training_on_identical_images_leaves_finite_weights(rng):
    base = build_base_model((8, 8, 1), filters=(2,), embedding_dim=3)
    from siamese_keras.training.losses import ContrastiveLoss

    outer = build_outer_model(base)
    outer.compile("sgd", ContrastiveLoss(1.0))
    same = images(rng, 4, (8, 8, 1))
    outer.fit({"left": same, "right": same}, np.zeros(4, np.float32), epochs=2, verbose=0)
    assert all(np.isfinite(weight).all() for weight in outer.get_weights())

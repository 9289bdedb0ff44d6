import subprocess
import sys

import keras
import numpy as np
import pytest

from siamese_keras.errors import ModelError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.outer_model import base_model_of, build_outer_model
from siamese_keras.training.losses import ContrastiveLoss


def images(rng, n, shape=(28, 28, 1)):
    return rng.integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture(scope="module")
def base():
    keras.utils.set_random_seed(0)
    return build_base_model((28, 28, 1), filters=(4, 8), embedding_dim=6)


def test_outer_model_shares_the_base_and_measures_its_embeddings(base, rng):
    outer = build_outer_model(base)
    assert outer.name == "outer"
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


def test_any_model_from_image_to_embedding_is_a_base_model(rng):
    own = keras.Sequential(
        [keras.Input((4, 5, 3), name="x"), keras.layers.Flatten(), keras.layers.Dense(2)],
        name="mine",
    )
    outer = build_outer_model(own)
    assert base_model_of(outer) is own
    left, right = images(rng, 3, (4, 5, 3)), images(rng, 3, (4, 5, 3))
    a, b = (own.predict_on_batch(x.astype(np.float32)) for x in (left, right))
    np.testing.assert_allclose(
        outer.predict_on_batch({"left": left, "right": right}),
        np.linalg.norm(a - b, axis=1),
        rtol=1e-4,
    )


def vector_to_embedding():
    image = keras.Input((7,))
    return keras.Model(image, keras.layers.Dense(2)(image))


def image_to_map():
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Conv2D(2, 3)(image))


def two_images_to_embedding():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    both = keras.layers.Flatten()(keras.layers.Concatenate()(images))
    return keras.Model(images, keras.layers.Dense(2)(both))


def unbuilt_model():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    "make", [vector_to_embedding, image_to_map, two_images_to_embedding, unbuilt_model]
)
def test_a_base_model_of_other_shapes_is_refused(make):
    with pytest.raises(
        ModelError, match=r"must map \[batch, height, width, channels\] to .* Received: .* to "
    ):
        build_outer_model(make())


def test_base_model_of_finds_the_one_base_model(base):
    assert base_model_of(build_outer_model(base)) is base
    with pytest.raises(ModelError, match=r"must apply one base model\. Received: 0"):
        base_model_of(base)
    other = build_base_model((28, 28, 1), filters=(2,), embedding_dim=6)
    other.name = "other"
    x = keras.Input((28, 28, 1), dtype="uint8")
    two = keras.Model(x, keras.layers.Add()([base(x), other(x)]))
    with pytest.raises(ModelError, match="Received: 2"):
        base_model_of(two)


def test_saved_models_load_in_a_fresh_process_in_safe_mode(base, rng, tmp_path):
    left, right = images(rng, 3), images(rng, 3)
    np.savez(tmp_path / "images.npz", left=left, right=right)
    pair = build_outer_model(base)
    pair.compile(loss=ContrastiveLoss(1.5, 0.25, weighting="balanced"))
    pair.save(tmp_path / "pair.keras")
    build_outer_model(base, all_pairs=True).save(tmp_path / "all.keras")
    base.save(tmp_path / "base.keras")
    extended = build_base_model(
        (28, 28, 1),
        architecture="resnet",
        filters=(2, 4),
        kept_features=0.5,
        flip_averaging=True,
        shift_averaging="all",
    )
    extended.save(tmp_path / "extended.keras")
    code = (
        "import sys, numpy as np, keras\n"
        "from siamese_keras import ContrastiveLoss, build_base_model, build_outer_model\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "inputs = dict(np.load(folder / 'images.npz'))\n"
        "for name in ('pair', 'all', 'base', 'extended'):\n"
        "    model = keras.models.load_model(folder / f'{name}.keras', safe_mode=True)\n"
        "    x = inputs if name in ('pair', 'all') else inputs['left']\n"
        "    np.save(folder / f'{name}.npy', model.predict_on_batch(x))\n"
        "    if name == 'pair':\n"
        "        loss = model.loss\n"
        "        print(type(loss).__name__, loss.margin, loss.positive_margin, loss.weighting)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == ["ContrastiveLoss", "1.5", "0.25", "balanced"]
    a, b = base.predict_on_batch(left), base.predict_on_batch(right)
    np.testing.assert_allclose(np.load(tmp_path / "base.npy"), a, atol=1e-6)
    again = np.load(tmp_path / "extended.npy")
    np.testing.assert_allclose(again, extended.predict_on_batch(left), atol=1e-6)
    np.testing.assert_allclose(
        np.load(tmp_path / "pair.npy"), np.linalg.norm(a - b, axis=1), atol=1e-5
    )
    matrix = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), matrix, atol=1e-5)


def test_training_on_identical_images_leaves_finite_weights(rng):
    base = build_base_model((8, 8, 1), filters=(2,), embedding_dim=3)
    outer = build_outer_model(base)
    outer.compile("sgd", ContrastiveLoss(1.0))
    same = images(rng, 4, (8, 8, 1))
    outer.fit({"left": same, "right": same}, np.zeros(4, np.float32), epochs=2, verbose=0)
    assert all(np.isfinite(weight).all() for weight in outer.get_weights())

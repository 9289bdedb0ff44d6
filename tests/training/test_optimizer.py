import math

import keras
import numpy as np
import pytest

from siamese_keras.errors import ArgumentError
from siamese_keras.training.optimizer import Muon, build_optimizer


def rates(optimizer, steps):
    """Return the learning rates before each of `steps`."""
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", keras.optimizers.Adam), ("muon", Muon), ("rmsprop", keras.optimizers.RMSprop)],
)
def test_a_constant_rate_is_constant(name, kind):
    optimizer = build_optimizer(name, 0.01, schedule="constant", steps=400)
    assert type(optimizer) is kind
    assert rates(optimizer, [0, 100, 399]) == pytest.approx([0.01] * 3)


def test_warmup_cosine_rises_in_a_quarter_and_falls_along_a_cosine():
    optimizer = build_optimizer("adam", 0.01, schedule="warmup-cosine", steps=400)
    assert type(optimizer) is keras.optimizers.Adam
    # Linearly from 1/25 to 1, then (1 + cos(x)) / 2 with x from 0 to pi.
    assert rates(optimizer, [0, 50, 100]) == pytest.approx([0.0004, 0.0052, 0.01])
    assert rates(optimizer, [200, 250]) == pytest.approx(
        [0.01 * (1 + math.cos(math.pi / 3)) / 2, 0.005]
    )
    assert rates(optimizer, [400]) == pytest.approx([0], abs=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_so_short_a_training_begins_at_the_peak(steps):
    optimizer = build_optimizer("adam", 0.01, schedule="warmup-cosine", steps=steps)
    assert rates(optimizer, [0]) == pytest.approx([0.01])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "sgd", "schedule": "constant"},
            "`optimizer` must be one of 'adam', 'muon', 'rmsprop'. Received: optimizer='sgd'",
        ),
        (
            {"name": "adam", "schedule": "onecycle"},
            "`schedule` must be one of 'constant', 'warmup-cosine'. Received: schedule='onecycle'",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_choices(arguments, message):
    with pytest.raises(ArgumentError) as refused:
        build_optimizer(learning_rate=0.01, steps=4, **arguments)
    assert str(refused.value) == message


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5)])
def test_a_first_step_of_muon_is_the_orthonormal_matrix_nearest_to_the_gradient(rng, shape):
    gradient = rng.normal(size=shape).astype(np.float32)
    variable = keras.Variable(np.zeros(shape, np.float32))
    optimizer = Muon(0.1, ns_steps=9, muon_a=2.0, muon_b=-1.5, muon_c=0.5)  # converges, slowly
    optimizer.apply_gradients([(gradient, variable)])
    left, _, right = np.linalg.svd(gradient.reshape(-1, shape[-1]), full_matrices=False)
    # Scaled so that its root mean square is that of a step of Adam: 0.2 * sqrt(longer side).
    expected = -0.1 * 0.2 * max(np.prod(shape[:-1]), shape[-1]) ** 0.5 * (left @ right)
    np.testing.assert_allclose(variable.numpy(), expected.reshape(shape), atol=2e-3)


def test_muon_takes_vectors_as_adam_does(rng):
    values = rng.normal(size=7).astype(np.float32)
    found = []
    for optimizer in (Muon(0.01), keras.optimizers.Adam(0.01)):
        variable = keras.Variable(values)
        for step in range(3):
            optimizer.apply_gradients([(np.sin(values + step), variable)])
        found.append(variable.numpy())
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_muon_is_saved_and_loaded_with_its_model(tmp_path, rng):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(Muon(0.02), "mse")
    x = rng.normal(size=(8, 5))
    model.fit(x, x[:, :3], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    for one in (model, loaded):
        one.fit(x, x[:, :3], epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(*(one.get_weights()[0] for one in (model, loaded)), rtol=1e-5)

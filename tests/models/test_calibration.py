import dataclasses
import math
import warnings

import numpy as np
import pytest

from siamese_keras.errors import ArgumentError, TrainingError
from siamese_keras.models.calibration import Calibration, fit_calibration, prior_shift


def test_similarity_is_a_half_at_the_threshold_and_falls_with_distance():
    calibration = Calibration(threshold=0.7, slope=9.0)
    distance = np.array([0.0, 0.7, 1.4, 1e6])
    similarity = calibration.similarity(distance)
    np.testing.assert_allclose(similarity[:3], [1 / (1 + np.exp(-6.3)), 0.5, 1 / (1 + np.exp(6.3))])
    assert similarity[3] == 0.0
    np.testing.assert_array_equal(calibration.same(distance), [True, True, False, False])


@pytest.mark.parametrize("prior", [0.5, 0.1, 1e-4, 0.9])
def test_a_prior_shifts_the_log_odds(prior):
    calibration = Calibration(threshold=0.7, slope=9.0)
    distance = np.array([0.0, 0.6, 0.7, 1.4])
    # Bayes: the odds of the pairs are those at even odds times the odds of the prior.
    even = calibration.similarity(distance)
    odds = even / (1 - even) * prior / (1 - prior)
    np.testing.assert_allclose(calibration.similarity(distance, prior=prior), odds / (1 + odds))
    assert prior_shift(prior) == pytest.approx(math.log(prior / (1 - prior)))


@pytest.mark.parametrize("prior", [0, 1, -0.1, 1.5, math.nan])
def test_a_prior_out_of_range_is_refused(prior):
    with pytest.raises(ArgumentError, match=f"`prior` must be greater than 0 .*Received: {prior}"):
        Calibration(0.7, 9.0).similarity(np.array([0.5]), prior=prior)


@pytest.mark.parametrize("field", ["threshold", "slope"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.5", None, True, [0.5]])
def test_a_calibration_refuses_what_is_not_a_finite_number(field, value):
    with pytest.raises(ArgumentError, match=f"`{field}` must be a finite number. Received: "):
        Calibration(**{"threshold": 0.7, "slope": 9.0, field: value})


@pytest.mark.parametrize("slope", [0, 0.0, -1.0])
def test_a_calibration_refuses_a_slope_that_is_not_positive(slope):
    with pytest.raises(ArgumentError, match=f"`slope` must be positive. Received: slope={slope}"):
        Calibration(threshold=0.7, slope=slope)


def test_another_threshold_leaves_the_similarity_as_it_is():
    fitted = Calibration(threshold=0.7, slope=9.0)
    strict = dataclasses.replace(fitted, threshold=0.3)
    distance = np.array([0.0, 0.3, 0.5, 0.7])
    np.testing.assert_array_equal(strict.similarity(distance), fitted.similarity(distance))
    np.testing.assert_array_equal(strict.same(distance), [True, True, False, False])
    assert (fitted.midpoint, strict.midpoint) == (0.7, 0.7)


def test_the_threshold_at_a_prior_is_where_its_similarity_is_a_half():
    calibration = Calibration(threshold=0.7, slope=9.0)
    for prior in (0.5, 0.1, 0.99):
        threshold = calibration.threshold_at(prior)
        assert calibration.similarity(threshold, prior=prior) == pytest.approx(0.5)
    strict = dataclasses.replace(calibration, threshold=0.1)
    assert strict.threshold_at(0.1) == calibration.threshold_at(0.1)
    least = 1 / (1 + math.exp(9.0 * 0.7))  # the similarity at distance 0 is 0.5 there
    with pytest.raises(ArgumentError, match=rf"`prior` must be at least {least:.2g} for this"):
        calibration.threshold_at(least / 2)


def test_calibration_recovers_the_logistic_curve_that_made_the_data(rng):
    distance = rng.uniform(0, 2, 20_000)
    different = rng.random(20_000) < 1 / (1 + np.exp(-6 * (distance - 0.8)))
    found = fit_calibration(different, distance)
    assert found.threshold == pytest.approx(0.8, abs=0.02)
    assert found.slope == pytest.approx(6, abs=0.3)
    assert type(found.threshold) is type(found.slope) is float  # they print as numbers


def newton(different, distance):
    """Maximize the likelihood of Platt's targets; return threshold and slope."""
    num_same, num_different = (different == 0).sum(), (different == 1).sum()
    target = np.where(different == 1, (num_different + 1) / (num_different + 2), 1 / (num_same + 2))
    design = np.stack([np.ones_like(distance), distance], axis=1)
    beta = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (target - p)
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        beta += np.linalg.solve(hessian, gradient)
    assert np.abs(gradient).max() < 1e-9
    return -beta[0] / beta[1], beta[1]


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize(("num_same", "num_different"), [(12, 12), (30, 7)])
def test_targets_are_platts(rng, scale, num_same, num_different):
    different = np.repeat([0.0, 1.0], [num_same, num_different])
    distance = np.where(different, 0.9, 0.4) + 0.3 * rng.normal(size=len(different))
    threshold, slope = newton(different, distance)
    found = fit_calibration(different, distance * scale)
    assert found.threshold == pytest.approx(threshold * scale, rel=1e-6)
    assert found.slope == pytest.approx(slope / scale, rel=1e-6)


@pytest.mark.parametrize("number", [1, 3, 1000])
def test_pairs_that_are_all_right_have_the_slope_of_the_targets(number):
    # Same pairs at 0, different pairs at 1: by symmetry the threshold is 0.5, and the similarity
    # at 0 is the target (n + 1) / (n + 2), at log-odds of log(n + 1).
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_calibration(np.repeat([0, 1], number), np.repeat([0.0, 1.0], number))
    assert found.threshold == pytest.approx(0.5, rel=1e-6)
    assert found.slope == pytest.approx(2 * math.log(number + 1), rel=1e-6)


@pytest.mark.parametrize("gap", [1e-9, 0.1, 100.0])
def test_separable_pairs_have_a_finite_slope_and_no_warning(rng, gap):
    same, different = rng.uniform(0, 0.4, 500), 0.4 + gap + rng.uniform(0, 0.4, 500)
    distance = np.concatenate([same, different])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_calibration(np.repeat([0.0, 1.0], 500), distance)
    threshold, slope = newton(np.repeat([0.0, 1.0], 500), distance)
    assert found.threshold == pytest.approx(threshold, rel=1e-5)
    assert found.slope == pytest.approx(slope, rel=1e-4)
    similarity = found.similarity(np.array([same.min(), different.max()]))
    assert similarity[0] > 0.99
    assert similarity[1] < 0.01


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_distances_that_are_not_finite_have_no_threshold(broken):
    with pytest.raises(TrainingError, match="the training diverged"):
        fit_calibration(np.array([0, 1]), np.array([0.5, broken]))


def test_equal_distances_have_no_threshold():
    with pytest.raises(TrainingError, match="the embedding has collapsed"):
        fit_calibration(np.array([0, 0, 1, 1]), np.full(4, 0.5))


def test_a_model_that_learned_the_reverse_has_no_threshold():
    with pytest.raises(TrainingError, match="no further apart"):
        fit_calibration(np.array([0, 0, 1, 1]), np.array([2.0, 1.5, 0.5, 1.0]))


def test_distances_that_tell_nothing_have_no_threshold():
    with pytest.raises(TrainingError, match="no further apart"):
        fit_calibration(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 0.0, 1.0]))

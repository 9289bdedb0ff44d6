"""Exact search: the answers of a plain loop, whatever the sizes of the blocks."""

import tracemalloc

import numpy as np
import pytest

from siamese_keras import nearest as module
from siamese_keras.errors import DataError
from siamese_keras.nearest import near_pairs, nearest


def by_a_loop(queries, gallery, top):
    """Return indices and distances of the nearest, equal ones in their order."""
    indices = []
    for query in queries:
        distances = np.linalg.norm(gallery - query, axis=1)
        indices.append(np.argsort(distances, kind="stable")[:top])
    indices = np.array(indices)
    return indices, np.linalg.norm(gallery[indices] - queries[:, np.newaxis], axis=2)


@pytest.fixture(params=[(5, 16), (16_384, 4_194_304)], ids=["small blocks", "as it is"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(module, "_GALLERY_BLOCK", request.param[0])
    monkeypatch.setattr(module, "_CELLS", request.param[1])
    monkeypatch.setattr(module, "_PAIR_BLOCK", request.param[0])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("top", [1, 3, 5, 99, 200, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_nearest_are_those_of_a_loop(rng, top, scale):
    gallery = (scale * rng.normal(size=(200, 8))).astype(np.float32)
    queries = (scale * rng.normal(size=(7, 8))).astype(np.float32)
    indices, distances = nearest(queries, gallery, top)
    expected, exact = by_a_loop(queries, gallery, top)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, exact)
    assert distances.dtype == np.float32


@pytest.mark.usefixtures("blocks")
def test_equal_images_are_found_in_their_order_at_distance_0(rng):
    gallery = rng.normal(size=(60, 8)).astype(np.float32)
    gallery[10:50] = gallery[10]
    indices, distances = nearest(gallery[10:11], gallery, 7)
    np.testing.assert_array_equal(indices, [np.arange(10, 17)])
    np.testing.assert_array_equal(distances, np.zeros((1, 7)))


@pytest.mark.usefixtures("blocks")
def test_near_pairs_are_those_of_a_loop(rng):
    x = rng.normal(size=(60, 4)).astype(np.float32)
    x[[3, 20]] = x[40]
    threshold = 1.0
    expected = sorted(
        (float(np.linalg.norm(x[i] - x[j])), i, j)
        for i in range(60)
        for j in range(i + 1, 60)
        if np.linalg.norm(x[i] - x[j]) <= threshold
    )
    left, right, distance = near_pairs(x, threshold)
    found = list(zip(distance.tolist(), left.tolist(), right.tolist(), strict=True))
    assert [pair[1:] for pair in found] == [pair[1:] for pair in expected]
    np.testing.assert_allclose(distance, [pair[0] for pair in expected], rtol=1e-6)
    assert found[:3] == [(0.0, 3, 20), (0.0, 3, 40), (0.0, 20, 40)]
    assert len(found) > 10
    np.testing.assert_array_equal(near_pairs(x, 0.0)[0], [3, 3, 20])
    assert near_pairs(x[:1], 9.0)[0].size == 0


def test_too_many_near_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_MOST_PAIRS", 10)
    assert len(near_pairs(np.zeros((5, 2), np.float32), 0.5)[0]) == 10
    with pytest.raises(DataError, match=r"More than 10 pairs are within a distance of 0\.5: set a"):
        near_pairs(np.zeros((6, 2), np.float32), 0.5)


def test_a_copy_that_was_multiplied_by_other_code_is_found(rng):
    """Embeddings of one image in a batch of one and in a larger one differ by up to 2e-6."""
    embeddings = rng.normal(size=(50, 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    copy = embeddings[7].copy()
    copy[0] += 2e-6
    left, right, _ = near_pairs(np.concatenate([embeddings, [copy]]), 0.0)
    assert (left.tolist(), right.tolist()) == ([7], [50])


def test_all_pairs_within_a_distance_beyond_float32(rng):
    left, *_ = near_pairs(rng.normal(size=(5, 3)).astype(np.float32), 1e30)
    assert len(left) == 10


def test_many_equally_near_embeddings_are_found_in_their_order_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 500)
    gallery = np.zeros((300, 4), np.float32)
    indices, distances = nearest(np.zeros((9, 4), np.float32), gallery, 7)
    np.testing.assert_array_equal(indices, [range(7)] * 9)
    assert not distances.any()
    tracemalloc.start()
    nearest(np.zeros((200, 4), np.float32), np.zeros((20_000, 4), np.float32), 5)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()

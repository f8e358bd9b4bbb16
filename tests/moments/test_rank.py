"""Streaming covariance and effective rank, against NumPy on all values at once."""

import numpy as np
import pytest

from relucate.moments.rank import Covariance, effective_rank


def stream(values, axis, sizes):
    found, start = Covariance(axis), 0
    for size in sizes:
        found.add(values[start : start + size])
        start += size
    assert start == len(values)
    return found


@pytest.mark.parametrize("sizes", [[60], [1, 59], [7] * 8 + [4], [0, 60]])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_covariance_is_that_of_all_at_once(sizes, offset):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 5, 3, 3)) @ np.diag([1, 2, 3]) + offset
    rows = np.moveaxis(values, 1, -1).reshape(-1, 5)
    found = stream(values, 1, sizes)
    np.testing.assert_allclose(found.matrix, np.cov(rows.T, bias=True), rtol=1e-6, atol=1e-6)


def test_float32_values_with_an_offset_keep_their_digits():
    values = (1000 + np.random.default_rng(1).standard_normal((4000, 4))).astype(np.float32)
    wanted = np.cov(values.astype(float).T, bias=True)
    np.testing.assert_allclose(stream(values, -1, [4000]).matrix, wanted, rtol=1e-6, atol=1e-9)


def test_the_rank_counts_the_directions():
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((40_000, 6))
    assert stream(wide, -1, [40_000]).effective_rank == pytest.approx(6, abs=0.01)
    flat = rng.standard_normal((1000, 2)) @ rng.standard_normal((2, 6))
    assert 1 < stream(flat, -1, [1000]).effective_rank <= 2
    line = rng.standard_normal((1000, 1)) @ rng.standard_normal((1, 6)) + 5
    assert stream(line, -1, [1000]).effective_rank == pytest.approx(1, abs=1e-6)
    assert stream(np.ones((10, 3)), -1, [10]).effective_rank is None
    assert Covariance().effective_rank is None


@pytest.mark.parametrize(("shares", "wanted"), [([4, 4, 4], 3), ([9, 0, 0], 1), ([0, 0], None)])
def test_known_eigenvalues(shares, wanted):
    found = effective_rank(np.array(shares, float))
    assert found == (wanted if wanted is None else pytest.approx(wanted))


def test_two_eigenvalues_by_hand():
    p = np.array([0.8, 0.2])
    assert effective_rank(7 * p) == pytest.approx(0.8**-0.8 * 0.2**-0.2)

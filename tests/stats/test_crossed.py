"""Seeds and test examples as two sources of noise: known components come back."""

import json

import numpy as np
import pytest

import relucate.stats.crossed as module
from relucate.errors import InputError
from relucate.stats.crossed import crossed, pack, resampled_means, unpack, variance_split


def components(n, m, seed, example, rest, random, mean=0.3):
    return (
        mean
        + random.normal(size=(n, 1)) * seed
        + random.normal(size=(1, m)) * example
        + random.normal(size=(n, m)) * rest
    )


def test_known_components_come_back():
    random = np.random.default_rng(0)
    found = [variance_split(components(12, 200, 0.3, 0.5, 1.0, random)) for _ in range(200)]
    assert np.mean([split.seed for split in found]) == pytest.approx(0.09, rel=0.1)
    assert np.mean([split.example for split in found]) == pytest.approx(0.25, rel=0.05)
    assert np.mean([split.interaction for split in found]) == pytest.approx(1.0, rel=0.02)
    assert found[0].limit == "seed"


def test_the_split_is_the_anova_of_the_textbook():
    d = components(5, 7, 1.0, 2.0, 0.5, np.random.default_rng(1))
    rows, columns, mean = d.mean(1), d.mean(0), d.mean()
    left = ((d - rows[:, None] - columns[None] + mean) ** 2).sum() / (4 * 6)
    split = variance_split(d)
    assert split.interaction == pytest.approx(left)
    assert split.seed == pytest.approx((7 * ((rows - mean) ** 2).sum() / 4 - left) / 7)
    assert split.example == pytest.approx((5 * ((columns - mean) ** 2).sum() / 6 - left) / 5)


def test_weights_do_what_copies_do():
    """The means of the bootstrap have the variance of resampling rows and columns by index."""
    random = np.random.default_rng(2)
    d = np.round(components(6, 40, 0.5, 0.5, 0.5, random))
    fast = resampled_means(d, 40_000, seed=3)
    slow = [
        d[np.ix_(random.integers(0, 6, 6), random.integers(0, 40, 40))].mean() for _ in range(8000)
    ]
    assert fast.mean() == pytest.approx(d.mean(), abs=0.01)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.05)


def correct(n, m, seed=4):
    random = np.random.default_rng(seed)
    hard = random.uniform(size=(1, m))
    a = random.uniform(size=(n, m)) > hard
    return a, a | (random.uniform(size=(n, m)) < 0.05)


def test_same_generator_same_interval_and_swapping_mirrors():
    a, b = correct(8, 300)
    one, two, other = crossed(a, b), crossed(a, b), crossed(b, a)
    assert one == two
    assert other.estimate == pytest.approx(-one.estimate)
    assert (other.low, other.high) == (pytest.approx(-one.high), pytest.approx(-one.low))
    assert one.low < one.estimate < one.high
    json.dumps(one.to_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_right_and_wrong_as_numbers_are_the_same(kind):
    a, b = correct(8, 100)
    assert crossed(a.astype(kind), b.astype(kind)) == crossed(a, b)


def test_numbers_scale_with_their_unit():
    random = np.random.default_rng(6)
    a, b = random.exponential(size=(2, 8, 100))
    one, two = crossed(a, b), crossed(4 * a, 4 * b)
    assert (two.estimate, two.low, two.high) == (4 * one.estimate, 4 * one.low, 4 * one.high)
    assert two.split.seed == 16 * one.split.seed


def test_the_interval_is_never_narrower_than_the_verdicts():
    a, b = correct(8, 100)
    found = crossed(a, b, half_width=0.02)
    assert found.high - found.estimate >= 0.02


def test_no_difference_at_all():
    a, _ = correct(5, 50)
    found = crossed(a, a)
    assert (found.estimate, found.low, found.high, found.split.limit) == (0.0, 0.0, 0.0, None)


@pytest.mark.parametrize("m", [1, 7, 8, 9, 1000])
def test_bits_there_and_back(m):
    random = np.random.default_rng(5)
    rows = random.uniform(size=(3, m)) < 0.5
    assert pack(rows).shape == (3, -(-m // 8))
    np.testing.assert_array_equal(unpack(pack(rows), m), rows)
    with pytest.raises(InputError, match="bytes"):
        unpack(pack(rows), m + 8)


def test_the_bootstrap_draws_only_examples_that_differ_in_bounded_pieces(monkeypatch):
    drawn = []

    def counted(random, times, size):
        drawn.append((len(times), size))
        return multiplicities(random, times, size)

    multiplicities = module._multiplicities
    monkeypatch.setattr(module, "_multiplicities", counted)
    a, b = correct(30, 10_000)
    a[:, 5000:] = b[:, 5000:]
    crossed(a, b)
    examples, seeds = drawn[::2], drawn[1::2]
    assert {size for _, size in examples} == {np.count_nonzero((a != b).any(0))}
    assert {size for _, size in seeds} == {30}
    assert sum(rows for rows, _ in examples) == sum(rows for rows, _ in seeds) == 2000
    assert max(rows * size for rows, size in drawn) <= module.CHUNK


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.ones((1, 5), bool), np.ones((1, 5), bool), {}, "at least 2 by 2"),
        (np.ones((2, 5), bool), np.ones((2, 4), bool), {}, "got shapes"),
        (np.ones((2, 5), int), np.ones((2, 5), int), {}, "as booleans"),
        (np.full((2, 5), np.nan), np.ones((2, 5)), {}, "finite"),
        (np.ones((2, 5), bool), np.ones((2, 5), bool), {"resamples": 5}, "100 resamples"),
        (np.ones((2, 5), bool), np.ones((2, 5), bool), {"level": 1.5}, "level"),
        (np.ones((2, 5), bool), np.ones((2, 5), bool), {"half_width": -1.0}, "half-width"),
    ],
)
def test_bad_input(a, b, options, message):
    with pytest.raises(InputError, match=message):
        crossed(a, b, **options)

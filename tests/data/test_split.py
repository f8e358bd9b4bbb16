"""Stratified choices: proportions, determinism, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.data.split import allocate, stratified, train_and_test
from relucate.errors import InputError


@given(data=st.data(), keep=st.integers(0, 1))
def test_places_add_up_and_stay_within_each_class(data, keep):
    counts = np.array(data.draw(st.lists(st.integers(2, 60), min_size=1, max_size=8)))
    size = data.draw(st.integers(len(counts), int(counts.sum()) - keep * len(counts)))
    places = allocate(counts, size, keep)
    assert places.sum() == size
    assert (places >= 1).all()
    assert (places <= counts - keep).all()


def test_places_are_in_proportion():
    np.testing.assert_array_equal(allocate(np.array([600, 300, 100]), 10), [6, 3, 1])
    np.testing.assert_array_equal(allocate(np.array([1000, 1, 1]), 10), [8, 1, 1])


def test_the_same_seed_chooses_the_same_and_another_does_not():
    codes = np.arange(200) % 4
    first = stratified(codes, 40, seed=3)
    np.testing.assert_array_equal(first, stratified(codes, 40, seed=3))
    assert not np.array_equal(first, stratified(codes, 40, seed=4))
    assert not np.array_equal(first, stratified(codes, 40, seed=3, stream="test"))


def test_the_choice_is_pinned():
    # A change here changes every split that users have results on.
    chosen = stratified(np.arange(30) % 3, 6, seed=0)
    np.testing.assert_array_equal(chosen, [2, 3, 7, 14, 16, 18])


def test_indices_are_sorted_and_unique():
    chosen = stratified(np.arange(90) % 3, 30, seed=1)
    np.testing.assert_array_equal(chosen, np.unique(chosen))
    np.testing.assert_array_equal(np.bincount(chosen % 3), [10, 10, 10])


def test_a_larger_choice_contains_the_smaller():
    codes = np.arange(300) % 3
    assert set(stratified(codes, 30, seed=5)) < set(stratified(codes, 90, seed=5))


def test_train_and_test_share_nothing_and_cover_all():
    codes = np.repeat([0, 1, 2], [50, 30, 20])
    train, test = train_and_test(codes, "abc", 0.2, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(100))
    np.testing.assert_array_equal(np.bincount(codes[test]), [10, 6, 4])


def test_a_rare_class_stays_in_both_parts():
    codes = np.repeat([0, 1], [98, 2])
    train, test = train_and_test(codes, "ab", 0.98, seed=0)
    assert (codes[train] == 1).sum() == (codes[test] == 1).sum() == 1


def test_rounding_is_up_without_float_noise():
    codes = np.arange(100) % 2
    assert len(train_and_test(codes, "ab", 0.07, seed=0)[1]) == 7
    assert len(train_and_test(np.arange(1797) % 10, "abcdefghij", 0.2, seed=0)[1]) == 360


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_the_unit_interval_is_refused(fraction):
    with pytest.raises(InputError, match=str(fraction)):
        train_and_test(np.arange(10) % 2, "ab", fraction, seed=0)


def test_a_class_with_one_example_is_refused_by_name():
    with pytest.raises(InputError, match="'rare' has 1 example"):
        train_and_test(np.array([0, 0, 0, 1]), ["common", "rare"], 0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.05, 0.95])
def test_a_part_below_one_of_each_class_is_refused(fraction):
    with pytest.raises(InputError, match=f"test split of {fraction}"):
        train_and_test(np.arange(20) % 4, "abcd", fraction, seed=0)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match=r"seed must be .* at least 0, got -1"):
        stratified(np.arange(10) % 2, 4, seed=-1)


def test_fewer_places_than_classes_are_refused():
    with pytest.raises(InputError, match="2 places for 3 classes"):
        stratified(np.arange(9) % 3, 2, seed=0)

"""Random streams: the same name gives the same draws, another name or seed doesn't."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relucate.train.streams import (
    curve_sample,
    curve_statistics,
    derive,
    epoch_order,
    generator,
    statistics_sample,
)

SEEDS = st.integers(0, 2**31)


@given(SEEDS, SEEDS)
def test_a_stream_depends_on_seed_and_name(a, b):
    assert derive(a, "order", 0) == derive(a, "order", 0)
    assert (derive(a, "order", 0) == derive(b, "order", 0)) == (a == b)
    assert derive(a, "order", 0) != derive(a, "order", 1)
    assert 0 <= derive(a, "x") < 2**63


def test_a_stream_is_the_same_in_every_process():
    code = "from relucate.train.streams import derive; print(derive(7, 'order', 3))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == derive(7, "order", 3)


def test_an_epochs_order_visits_every_example_once():
    order = epoch_order(0, 0, 100)
    assert sorted(order) == list(range(100))
    assert (epoch_order(0, 0, 100) == order).all()
    assert (epoch_order(0, 1, 100) != order).any()
    assert (epoch_order(1, 0, 100) != order).any()


def test_streams_do_not_touch_the_global_generator():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    generator(5, "x").random(10)
    assert np.random.random() == expected


def test_the_statistics_sample_is_spread_over_data_stored_class_by_class():
    sample = statistics_sample(0, 1000, 100)
    assert len(set(sample.tolist())) == 100
    assert len(np.unique(sample // 100)) == 10  # every tenth of the data


def test_the_curve_is_drawn_by_evenly_spread_examples():
    # A sample drawn in float32 fell on other examples at this size.
    sample = curve_sample(60_000, 2000)
    assert len(sample) == 2000
    assert (sample[0], sample[-1]) == (0, 59_999)
    np.testing.assert_array_equal(sample, np.rint(np.linspace(0, 59_999, 2000)))
    assert len(curve_sample(7, 0)) == 0


def test_only_the_last_point_of_a_curve_has_all_statistics():
    sample = np.arange(2048)
    assert len(curve_statistics(sample, last=True)) == 2048
    np.testing.assert_array_equal(curve_statistics(sample, last=False), sample[:512])
    assert len(curve_statistics(sample[:100], last=False)) == 100

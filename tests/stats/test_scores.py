"""Scores of runs: a diverged run counts with the worst score."""

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.stats.paired import paired_difference
from relucate.stats.scores import score_runs
from relucate.train.metric import ACCURACY, Metric


def test_worst_accuracy_is_zero():
    assert ACCURACY.worst == 0.0


def test_a_metric_of_ones_own_gives_its_worst_score():
    error = Metric("MAE", lower_is_better=True, worst=100.0)
    np.testing.assert_array_equal(score_runs([3.0, None], [False, True], error), [3.0, 100.0])


def test_a_diverged_run_without_a_worst_score_is_refused():
    error = Metric("MAE", lower_is_better=True)
    with pytest.raises(InputError, match=r"'MAE' has no worst value .* \(worst=\)"):
        score_runs([3.0, None], [False, True], error)
    np.testing.assert_array_equal(score_runs([3.0, 4.0], [False, False], error), [3.0, 4.0])


@pytest.mark.parametrize("left", [None, float("nan"), float("inf"), 0.97])
def test_a_diverged_run_counts_with_the_worst_score_whatever_it_reported(left):
    scores = score_runs([0.9, left, 0.8], [False, True, False], ACCURACY)
    np.testing.assert_array_equal(scores, [0.9, 0.0, 0.8])
    assert scores.dtype == np.float64


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_score_of_a_sound_run_is_refused_later_not_hidden(missing):
    scores = score_runs([0.9, missing], [False, False], ACCURACY)
    with pytest.raises(InputError, match="nan at index 1 of arm b"):
        paired_difference([0.9, 0.9], scores)


def test_one_flag_per_score():
    with pytest.raises(InputError, match="3 scores and 2 flags"):
        score_runs([0.9, 0.8, 0.7], [False, True], ACCURACY)

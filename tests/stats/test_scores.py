"""Scores of runs: a diverged run counts with the worst score."""

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.stats.paired import paired_difference
from relucate.stats.scores import METRICS, find_metric, score_runs, worst_score


def test_worst_accuracy_is_zero():
    assert worst_score() == 0.0
    assert worst_score("accuracy") == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_finite_worst_score(name):
    assert np.isfinite(find_metric(name).worst)
    assert find_metric(name).name == name


def test_unknown_metric_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"'acuracy': did you mean 'accuracy'"):
        worst_score("acuracy")


@pytest.mark.parametrize("left", [None, float("nan"), float("inf"), 0.97])
def test_a_diverged_run_counts_with_the_worst_score_whatever_it_reported(left):
    scores = score_runs([0.9, left, 0.8], [False, True, False])
    np.testing.assert_array_equal(scores, [0.9, 0.0, 0.8])
    assert scores.dtype == np.float64


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_score_of_a_sound_run_is_refused_later_not_hidden(missing):
    scores = score_runs([0.9, missing], [False, False])
    with pytest.raises(InputError, match="nan at index 1 of arm b"):
        paired_difference([0.9, 0.9], scores)


def test_one_flag_per_score():
    with pytest.raises(InputError, match="3 scores and 2 flags"):
        score_runs([0.9, 0.8, 0.7], [False, True])

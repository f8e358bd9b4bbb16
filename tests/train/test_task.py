"""Classification as a task: outputs that fit, score, loss; what a subclass has to define."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from relucate.errors import InputError, Refused
from relucate.train import ACCURACY, CLASSIFICATION, Task
from relucate.train.task import Classification, are_probabilities


@pytest.fixture
def outputs():
    return np.random.default_rng(0).normal(size=(50, 4)) * 3


LABELS = np.arange(50) % 4


def test_the_score_is_the_share_that_was_right(outputs):
    right = CLASSIFICATION.per_example(outputs, LABELS)
    assert right.dtype == bool
    assert CLASSIFICATION.score(outputs, LABELS) == right.sum() / 50
    assert CLASSIFICATION.metric is ACCURACY


def test_the_loss_is_the_cross_entropy_of_logits_or_probabilities(outputs):
    expected = -log_softmax(outputs, 1)[np.arange(50), LABELS].mean()
    assert CLASSIFICATION.loss(outputs, LABELS) == pytest.approx(expected, rel=1e-12)
    found = CLASSIFICATION.loss(softmax(outputs, 1), LABELS)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_loss_of_float32_outputs_is_computed_in_float64():
    many = np.tile(np.float32([0.1, 0.0]), (200_000, 1))
    expected = np.log1p(np.exp(-np.float64(np.float32(0.1))))
    labels = np.zeros(200_000, int)
    assert CLASSIFICATION.loss(many, labels) == pytest.approx(expected, rel=1e-12)


def test_logits_are_no_probabilities(outputs):
    assert are_probabilities(softmax(outputs, 1).astype(np.float16))
    assert not are_probabilities(outputs)
    assert not are_probabilities(np.abs(outputs))
    assert not are_probabilities(np.zeros((3, 4)))


@pytest.mark.parametrize("shape", [(None, 3), (8, 4, 1), (8,), [(8, 4)], None])
def test_outputs_of_another_shape_are_refused(shape):
    with pytest.raises(Refused, match=r"expected \(batch, 4\)"):
        CLASSIFICATION.check_outputs(shape, 4)
    CLASSIFICATION.check_outputs((None, 4), 4)


def test_a_loss_that_an_engine_does_not_have_is_named():
    class Counts(Classification):
        training_loss = "poisson"

    assert Counts().loss_among({"poisson": 1}) == 1
    with pytest.raises(InputError, match=r"'poisson'.*Choose from: cross-entropy"):
        Counts().loss_among({"cross-entropy": 1})


def test_better_is_strictly_better():
    assert CLASSIFICATION.better(0.5, 0.4)
    assert not CLASSIFICATION.better(0.5, 0.5)
    assert not CLASSIFICATION.better(float("nan"), 0.5)


def test_a_task_without_values_per_example_has_to_define_its_score():
    class Bare(Task):
        pass

    with pytest.raises(NotImplementedError, match="Bare must define score"):
        Bare().score(np.zeros((2, 2)), np.zeros(2))

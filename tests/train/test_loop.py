"""The training loop with an engine that only keeps a record: what it asks for, and when."""

import numpy as np
import pytest

from relucate.train import CLASSIFICATION, Metric, Recipe, Task
from relucate.train.loop import run
from relucate.train.streams import curve_sample, statistics_sample
from relucate.train.waiting import finished

LABELS = {"test": np.arange(40) % 4, "held": np.arange(24) % 4}
TRAINED = 1200


class Recorded:
    """Is right on the first `right[part][epoch]` examples; notes every call."""

    def __init__(self, losses, right=None, broken=()):
        self.losses, self.right, self.broken = losses, right or {}, broken
        self.calls, self.now = [], -1

    def epoch(self, number):
        yield lambda: True
        self.calls.append(("epoch", number))
        self.now = number
        return self.losses[number]

    def reestimate(self, sample):
        self.calls.append(("reestimate", len(sample)))
        assert np.array_equal(sample, statistics_sample(3, TRAINED, TRAINED)[: len(sample)])

    def outputs(self, part, index):
        count = len(LABELS[part]) if index is None else len(index)
        self.calls.append((part, count))
        labels = LABELS[part]
        right = np.arange(len(labels)) < self.right.get(part, {}).get(self.now, 0)
        logits = 5 * np.eye(4)[np.where(right, labels, (labels + 1) % 4)]
        if (part, self.now) in self.broken:
            logits[0] = np.nan
        return logits if index is None else logits[index]

    def counts(self):
        return {"parameters": 7, "norm_parameters": 2}


def result_of(engine, held=False, task=CLASSIFICATION, heard=None, **options):
    recipe = Recipe(**{"epochs": len(engine.losses), "reestimate": 1200, "curve": 10, **options})
    labels = LABELS if held else {"test": LABELS["test"]}
    hear = (lambda report: None) if heard is None else heard.append
    return finished(run)(engine, recipe, labels, trained=TRAINED, seed=3, on_epoch=hear, task=task)


class TestWhatTheEngineIsAsked:
    def test_a_curve_point_rests_on_a_part_of_the_sample_and_the_score_on_all_of_it(self):
        engine = Recorded([1.0, 0.5])
        result_of(engine)
        first = [("epoch", 0), ("reestimate", 300), ("test", 10)]
        assert engine.calls == [*first, ("epoch", 1), ("reestimate", 1200), ("test", 40)]

    def test_without_a_curve_only_the_end_is_looked_at(self):
        engine = Recorded([1.0, 0.5])
        result_of(engine, curve=0)
        assert engine.calls == [("epoch", 0), ("epoch", 1), ("reestimate", 1200), ("test", 40)]

    @pytest.mark.parametrize("curve", [0, 10])
    def test_statistics_are_estimated_once_an_epoch_whatever_is_looked_at(self, curve):
        engine = Recorded([1.0, 0.5], {"held": {0: 3, 1: 9}})
        result_of(engine, held=True, curve=curve)
        point = [("test", 10)] if curve else []
        looked = [("reestimate", 1200), *point, ("held", 24), ("test", 40)]
        assert engine.calls == [("epoch", 0), *looked, ("epoch", 1), *looked]

    def test_the_test_part_is_scored_only_where_the_held_out_part_is_better(self):
        engine = Recorded([1.0] * 4, {"held": {0: 8, 1: 7, 2: 8, 3: 9}})
        result = result_of(engine, held=True, curve=0)
        assert [call for call in engine.calls if call[0] == "test"] == [("test", 40)] * 2
        assert result.epoch == 4

    def test_without_reestimation_statistics_are_left_alone(self):
        engine = Recorded([1.0, 0.5])
        result_of(engine, reestimate=0)
        assert "reestimate" not in dict(engine.calls)


class TestResult:
    def test_it_holds_score_loss_curve_and_counts(self):
        heard = []
        found = result_of(Recorded([1.0, 0.5], {"test": {0: 20, 1: 36}}), heard=heard)
        assert (found.status, found.metric, found.epoch) == ("done", 0.9, None)
        assert found.per_example.tolist() == [True] * 36 + [False] * 4
        right, wrong = np.log(1 + 3 * np.exp(-5)), 5 + np.log(1 + 3 * np.exp(-5))
        assert found.loss == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-12)
        points = [float((curve_sample(40, 10) < count).mean()) for count in (20, 36)]
        assert found.curve == {"epoch": [1, 2], "train_loss": [1.0, 0.5], "accuracy": points}
        assert (found.parameters, found.norm_parameters) == (7, 2)
        assert [(r.epoch, r.epochs, r.train_loss, r.score) for r in heard] == [
            (1, 2, 1.0, points[0]),
            (2, 2, 0.5, points[1]),
        ]
        assert set(found.seconds) == {"train", "evaluate"}

    def test_the_chosen_epoch_gives_score_loss_and_examples(self):
        right = {"held": {0: 5, 1: 20, 2: 19}, "test": {0: 1, 1: 2, 2: 40}}
        found = result_of(Recorded([1.0] * 3, right), held=True)
        assert (found.epoch, found.metric, int(found.per_example.sum())) == (2, 0.05, 2)


class TestDivergence:
    def test_a_training_loss_that_is_not_finite_ends_the_run(self):
        engine = Recorded([1.0, float("nan"), 1.0])
        heard = []
        found = result_of(engine, heard=heard)
        assert (found.status, found.metric, found.per_example) == ("diverged", None, None)
        assert found.note == "the training loss was nan in epoch 2"
        assert found.curve["train_loss"] == [1.0, None]
        assert found.curve["accuracy"] == [0.0, None]
        assert ("epoch", 2) not in engine.calls
        assert len(heard) == 2

    def test_a_test_loss_that_is_not_finite(self):
        found = result_of(Recorded([1.0], broken={("test", 0)}), curve=0)
        assert (found.status, found.note) == (
            "diverged",
            "the test loss was nan after the last epoch",
        )

    def test_epochs_whose_outputs_are_not_finite_are_not_chosen(self):
        right = {"held": {0: 4, 1: 9, 2: 8}}
        for broken in ({("held", 1)}, {("test", 1)}):
            assert result_of(Recorded([1.0] * 3, right, broken), held=True).epoch == 3
        broken = {("held", epoch) for epoch in range(3)}
        found = result_of(Recorded([1.0] * 3, right, broken), held=True)
        assert (found.status, found.epoch) == ("diverged", None)
        assert found.note == "no epoch gave finite outputs on what was held out"


class Errors(Task):
    """A task of its own: the number of wrong answers, of which fewer are better."""

    name = "errors"
    metric = Metric("errors", lower_is_better=True)
    training_loss = "cross-entropy"

    def loss(self, outputs, labels):
        return CLASSIFICATION.loss(outputs, labels)

    def score(self, outputs, labels):
        return float((outputs.argmax(1) != labels).sum())


def test_a_metric_of_which_less_is_better_chooses_the_smallest():
    right = {"held": {0: 5, 1: 20, 2: 19}, "test": {0: 1, 1: 2, 2: 40}}
    found = result_of(Recorded([1.0] * 3, right), held=True, task=Errors())
    assert (found.epoch, found.metric, found.per_example) == (2, 38.0, None)
    assert set(found.curve) == {"epoch", "train_loss", "errors"}

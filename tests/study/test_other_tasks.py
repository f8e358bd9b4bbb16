"""A task of the user's own reaches the workers, and is part of a run's identity."""

from dataclasses import replace

import numpy as np
import pytest

import relucate
from relucate.data import make
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.tasks import Inspection
from relucate.study.vary import arms_from
from relucate.train.metric import ACCURACY, Metric
from relucate.train.recipe import Recipe
from relucate.train.task import Classification


class LogLoss(Classification):
    name = "log loss"
    metric = Metric("log loss", lower_is_better=True, unit="nats", worst=10.0)

    def score(self, outputs, labels):
        return self.loss(outputs, labels)

    def per_example(self, outputs, labels):
        return None


class Doubled(LogLoss):
    def score(self, outputs, labels):
        return 2 * self.loss(outputs, labels)


QUICK = {"options": {"width": 8, "depth": 1}, "recipe": {"epochs": 1}, "pairs": 3, "jobs": 1}


def test_a_task_reaches_the_workers_and_its_metric_every_sentence(tmp_path):
    more = {**QUICK, "margin": 0.1, "store": tmp_path / "runs.sqlite", "progress": False}
    study = relucate.compare("mlp", task=LogLoss(), **more)
    document = study.to_dict()
    assert document["metric"]["name"] == "log loss"
    assert all(run["metric"] == pytest.approx(run["loss"], rel=1e-6) for run in document["runs"])
    assert "nats" in str(study)
    assert "accuracy" not in str(study)
    doubled = relucate.compare("mlp", task=Doubled(), **more).to_dict()
    for one, two in zip(document["runs"], doubled["runs"], strict=True):
        assert two["metric"] == pytest.approx(2 * one["metric"], rel=1e-6)
        assert two["hash"] != one["hash"]


def plan(**more):
    x = np.zeros((8, 4), np.float32)
    data = make("toy", x, np.arange(8) % 2, x, np.arange(8) % 2)
    recipe = Recipe(epochs=1, batch_size=4)
    return StudyPlan(arms_from(["before", "after"]), resolve("mlp"), data, recipe, **more)


INSPECTION = Inspection(
    {"name": "torch", "reason": "", "backend": "torch", "device": "cpu"},
    {},
    ({"fingerprint": "a"}, {"fingerprint": "b"}),
    (),
)


def test_classification_by_accuracy_leaves_the_identity_of_runs_as_it_was():
    spec = plan().spec(INSPECTION, 0, 0)
    assert "task" not in spec.to_dict()
    assert plan().metric is ACCURACY
    other = plan(task=LogLoss(), margin=0.1).spec(INSPECTION, 0, 0)
    assert other.to_dict()["task"]["name"] == "log loss"
    assert other.hash != spec.hash
    assert replace(other, task={}).hash == spec.hash

"""A metric as plain data: direction, round trip, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from relucate import InputError
from relucate.train.metric import ACCURACY, METRICS, Metric, margin_of, metric_named


def test_accuracy_is_an_instance() -> None:
    assert Metric("accuracy", unit="points", scale=100.0, worst=0.0) == ACCURACY
    assert ACCURACY.direction == "higher"


@pytest.mark.parametrize("metric", [ACCURACY, Metric("rmse", lower_is_better=True, unit="m")])
def test_a_document_brings_the_metric_back(metric: Metric) -> None:
    document = metric.to_dict()
    assert list(document) == ["name", "unit", "scale", "direction"]
    assert Metric.from_dict({**document, "worst": metric.worst}) == metric
    assert Metric.from_dict(document).direction == metric.direction


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": " "}, "needs a name, got ' '"),
        ({"name": "train_loss"}, "can't be called 'train_loss': a curve has that already"),
        ({"name": "auc", "scale": 0}, "scale must be a finite number above 0, got 0"),
        ({"name": "auc", "scale": float("inf")}, "got inf"),
        ({"name": "auc", "worst": float("nan")}, "worst must be a finite number or None, got nan"),
        (
            {"name": "auc", "lower_is_better": "no"},
            "lower_is_better must be True or False, got 'no'",
        ),
        ({"name": "auc", "unit": 3}, "unit must be a text such as 'points', got 3"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Metric(**values)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(InputError, match="'up'"):
        Metric.from_dict({"name": "auc", "direction": "up"})


def test_only_accuracy_has_a_usual_margin() -> None:
    assert margin_of(ACCURACY) == 0.005
    with pytest.raises(InputError, match="a margin is needed for 'auc'"):
        margin_of(Metric("auc"))


@pytest.mark.parametrize(
    ("name", "named"),
    [("accuracy", "an accuracy"), ("MAE", "an MAE"), ("UAR", "a UAR"), ("loss", "a loss")],
)
def test_a_name_with_its_article(name: str, named: str) -> None:
    assert Metric(name).named == named


@pytest.mark.parametrize("name", METRICS)
def test_a_known_metric_is_found_by_any_spelling(name: str) -> None:
    metric = METRICS[name]
    assert metric_named(name.upper().replace(" ", "_")) is metric
    assert metric_named(name.replace("-", " "), metric.lower_is_better) is metric
    with pytest.raises(InputError, match=f"a {metric.direction} {name} is better"):
        metric_named(name, not metric.lower_is_better)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "lower"), ("FID", "lower"), ("top-1 error", "lower"), ("test-auc", "higher"),
        ("Dice", "higher"), ("R² score", "higher"),
    ],
)  # fmt: skip
def test_the_words_of_a_name_give_its_direction(name: str, direction: str) -> None:
    metric = metric_named(name)
    assert (metric.name, metric.direction, metric.worst) == (name, direction, None)


@pytest.mark.parametrize("name", ["lift", "accuracy loss", "mapped"])
def test_a_name_without_a_known_direction_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"is a higher or a lower '{name}' better"):
        metric_named(name)
    assert metric_named(name, lower_is_better=True) == Metric(name, lower_is_better=True)

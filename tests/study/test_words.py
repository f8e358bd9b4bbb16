"""What a study's arms are called, in its sentences and lists."""

from dataclasses import replace

import pytest
from tests.study.test_document import inspection
from tests.study.test_vary import filled, noise, plan

import relucate
from relucate.study.document import document

pytestmark = pytest.mark.usefixtures("in_process")


def documented(factors, orders=("before", "after"), acts="relu", gain=0.0, **changes):
    """A study whose arms score alike but for a gain of after; acts: of its networks."""
    made = replace(plan(factors, orders), **changes)
    found = filled(
        made, lambda a, s: 0.5 + 0.01 * s + gain * (a.given == "after") + noise(a.label, s)
    )
    names = acts if isinstance(acts, list) else [acts] * len(made.networks)
    reports = inspection(made.networks, parameters=[10] * 20).arms
    arms = [{**r, "activation": name} for r, name in zip(reports, names, strict=True)]
    found.inspection = replace(found.inspection, arms=tuple(arms))
    return document(found, command="")


def words(*args, **options):
    return [arm["words"] for arm in documented(*args, **options)["arms"]]


def test_orders_have_plain_names_and_others_keep_the_notation():
    orders = ("none", "before", "after", "norm-linear-act", "norm-act-linear")
    assert words({}, orders, acts="gelu") == [
        "no norm",
        "norm before the GELU",
        "norm after the GELU",
        "norm on the layer's input",
        "norm-act-linear",
    ]


@pytest.mark.parametrize("act", [None, "none", "linear"])
def test_an_activation_that_is_none_or_not_known(act):
    assert words({}, acts=act) == ["norm before the activation", "norm after the activation"]


def test_what_is_varied_is_named_where_arms_of_several_values_are_listed():
    assert words({"width": [8, 16]})[::2] == [
        "norm before the ReLU (width 8)",
        "norm before the ReLU (width 16)",
    ]
    both = words({"act": ["relu", "tanh"]}, acts=["relu", "relu", "tanh", "tanh"])
    assert both[1:3] == ["norm after the ReLU", "norm before the tanh"]


def test_sentences_across_values_name_them():
    found = documented({"width": [8, 16]}, all_pairs=True)["comparisons"]
    by_arms = {(c["arm"], c["against"]): c for c in found}
    across = by_arms["linear-act-norm (width=16)", "linear-norm-act (width=8)"]
    assert across["values"] == {}
    assert "orm after the ReLU (width 16)" in across["sentence"]
    assert "norm before the ReLU (width 8)" in across["sentence"]
    within = by_arms["linear-act-norm (width=8)", "linear-norm-act (width=8)"]
    assert within["values"] == {"width": 8}
    assert "width" not in within["sentence"]


def test_only_of_two_arms_the_other_need_not_be_named():
    two = documented({})["sentence"]
    assert two.startswith("Norm after the ReLU is equivalent to norm before it, within the margin")
    ahead = documented({}, gain=0.1)["sentence"]
    assert ahead.startswith("Norm after the ReLU is better: +9.97 points")
    three = documented({}, ("before", "after", "none"), gain=0.1)
    assert [c["sentence"].split(":")[0] for c in three["comparisons"]] == [
        "Norm after the ReLU is better than norm before it",
        "The net without a norm is equivalent to norm before the ReLU, within the margin of 0.5 "
        "points",
    ]


RUNS = {"x": [0.50, 0.51, 0.52, 0.53], "y": [0.60, 0.62, 0.62, 0.64]}


def test_labels_stay_as_they_were_given():
    study = relucate.verdict(RUNS, metric="auc", margin=0.01)
    assert study.sentence.startswith("y is better than x: +0.105 auc (")


def test_labels_in_the_notation_are_orders():
    runs = dict(zip(("linear-norm-act", "linear-act-norm"), RUNS.values(), strict=True))
    study = relucate.verdict(runs, metric="auc", margin=0.01, against="linear-act-norm")
    assert study.sentence.startswith(
        "Norm after the activation is better: norm before it is behind by 0.105 auc ("
    )
    difference = study.difference
    assert (difference["of"], round(difference["estimate"], 6)) == (
        "linear-norm-act minus linear-act-norm",
        -0.105,
    )


def test_all_pairs_of_scores():
    runs = {**RUNS, "z": [0.5 + 0.01 * (s % 2) for s in range(4)]}
    study = relucate.verdict(runs, metric="auc", margin=0.01, all_pairs=True).to_dict()
    pairs = [(c["arm"], c["against"]) for c in study["comparisons"]]
    assert pairs == [("y", "x"), ("z", "x"), ("z", "y")]
    assert study["comparisons"][0]["difference"]["level"] == pytest.approx(1 - 0.05 / 3)


def test_a_run_of_ones_own_says_its_activation_by_an_option():
    def train(order, seed, act="relu"):
        return 0.5 + 0.01 * seed + (order == "after") * (1 + 0.001 * (seed % 2))

    study = relucate.compare(
        run=train, metric="auc", margin=0.01, options={"act": "silu"}, pairs=3, jobs=1,
        progress=False,
    )  # fmt: skip
    assert study.sentence.startswith("Norm after the SiLU is better: +1.000 auc (")

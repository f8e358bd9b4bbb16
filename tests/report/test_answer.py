"""The first screen: the answer in words, the three numbers, the one surprise."""

import pytest

from relucate.report import answer
from relucate.report.facts import measured

FOUR = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "linear-act")


def keys(study):
    return {key["name"]: (key["value"], key["about"]) for key in answer.keys(study)}


def test_one_comparison_is_told_by_its_own_sentence(study):
    assert answer.sentence(study) == study["sentence"]
    assert answer.word(study) == "better"


def test_several_comparisons_are_counted_by_verdict(make_study):
    study = make_study(8, orders=FOUR, effect=0.01)
    assert answer.word(study) == ""
    assert answer.sentence(study).startswith("Against before: after, norm-linear-act and none are")
    many = make_study(8, orders=tuple("abcdefgh"), effect=0.01)
    assert answer.sentence(many) == "Against a: all 7 arms are better."


def test_nothing_is_compared_if_every_run_diverged(make_study):
    study = make_study(8, orders=FOUR)
    for arm in study["arms"]:
        arm |= {"diverged": arm["n"], "mean": 0.0}
    assert answer.sentence(measured(study)) == (
        "Every run of every arm diverged, so there is nothing to compare."
    )


def test_arms_at_several_values_are_counted_as_comparisons(make_study):
    study = make_study(8, orders=("a", "b", "c", "d", "e"), effect=0.01)
    study["factors"] = [{"name": "act", "values": ["relu", "tanh"]}]
    for number, found in enumerate(study["comparisons"]):
        found["values"] = {"act": ("relu", "tanh")[number % 2]}
    assert answer.sentence(study).endswith(": all 4 comparisons are better.")


def test_three_numbers(study):
    found = keys(study)
    assert list(found) == ["difference", "mean accuracy", "pairs"]
    assert found["difference"][0] == "+0.61 points"
    assert found["difference"][1] == "after minus before; 95 % interval +0.43 to +0.79"
    assert found["mean accuracy"][1].startswith("after, the best; before ")
    assert found["pairs"][0] == "10"


def test_without_an_interval_the_number_says_why(make_study, same_in_all):
    assert keys(make_study(1))["difference"][1].endswith(
        "no interval: it needs two pairs with results"
    )
    study = same_in_all(make_study(9))
    study["difference"] = study["comparisons"][0]["difference"]
    assert keys(study)["difference"][1].endswith("the same in all 9 pairs")


def test_the_largest_of_several_differences(make_study):
    value, about = keys(make_study(8, orders=FOUR, effect=0.01))["largest difference"]
    assert value.startswith("+3.")
    assert about.startswith("none against before; interval +")


def test_an_arm_that_only_diverged_is_never_the_best(study):
    study["arms"][1] |= {"diverged": 10, "mean": 0.0}
    assert keys(measured(study))["mean accuracy"][1] == "before, the best"


LEARNING = {
    "area": {"estimate": 0.0, "low": 0.0, "high": 0.0},
    "target": 0.9,
    "steps": {"estimate": -7.6, "low": -11.5, "high": -3.6, "means": [34.4, 26.8]},
    "reached": [10, 10],
}


def test_an_arm_that_learns_sooner_is_worth_knowing(study):
    assert answer.surprise(study) == ""
    study["comparisons"][0]["learning"] = LEARNING
    said = (
        "After learns sooner: 90.00 % test accuracy after 26.8 steps on average, before after 34.4."
    )
    assert answer.surprise(study) == said
    study["arms"][1]["words"] = "norm after the ReLU"
    assert answer.surprise(study).startswith("Norm after the ReLU learns sooner")


def test_steps_that_may_be_equal_are_no_surprise(study):
    study["comparisons"][0]["learning"] = LEARNING | {"steps": LEARNING["steps"] | {"high": 1.0}}
    assert answer.surprise(study) == ""


def test_two_arms_that_only_diverged_have_no_numbers(study):
    for arm in study["arms"]:
        arm |= {"diverged": 10, "mean": 0.0}
    found = keys(measured(study))
    assert found["difference"] == ("-", "after minus before; no pair has a result in both arms")
    assert found["mean accuracy"] == ("-", "no run has a score")


def test_another_verdict_at_one_rate_is_told_with_its_arm_and_interval(study):
    text = "Norm after the ReLU is ahead by 0.2 points (95 % interval -1 to 1, 3 runs)"
    same = {"verdict": "inconclusive", "sentence": f"Inconclusive: {text}. The interval is wide."}
    study["tuning"] = {"same_rate": {"lr": 0.1, "comparisons": [same]}}
    assert answer.surprise(study) == f"At one rate for all arms, 0.1: Inconclusive: {text}."


def test_diverged_runs_come_first(study):
    study["comparisons"][0]["learning"] = LEARNING
    study["arms"][1]["diverged"] = 3
    assert answer.surprise(study).startswith("Training diverged in 3 of 10 runs of after, and in")
    study["arms"][0]["diverged"] = 1
    assert "learns sooner" in answer.surprise(study)


@pytest.mark.parametrize(("low", "said"), [(-0.001, True), (0.001, False)])
def test_new_examples_that_leave_it_open_are_worth_knowing(low, said, study):
    study["comparisons"][0]["examples"] = {"low": low, "high": 0.02}
    assert ("leaves it open" in answer.surprise(study)) is said


def test_an_effect_that_depends_on_a_value_is_worth_knowing(study):
    study["interactions"] = [{"sentence": "It stays open.", "verdict": "inconclusive"}]
    assert answer.surprise(study) == ""
    study["interactions"].append({"sentence": "It depends.", "verdict": "better"})
    assert answer.surprise(study) == "It depends."


def test_a_slow_arm_is_worth_knowing(study):
    study["arms"][1]["seconds"] = 3 * study["arms"][0]["seconds"]
    assert answer.surprise(study) == "A run of after takes 3.0 times as long as one of before."

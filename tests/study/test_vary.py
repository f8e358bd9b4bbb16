"""Several things varied at once: arms, how many intervals, table and interactions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.study.test_document import inspection, result

from relucate.api.study import _display
from relucate.data import make
from relucate.errors import InputError
from relucate.stats import paired_difference
from relucate.study.document import document, interactions, table
from relucate.study.plan import StudyPlan
from relucate.study.results import StudyResults
from relucate.study.source import resolve
from relucate.study.tuning import at_best
from relucate.study.vary import arms_from, check_dropout, check_factors, short_names
from relucate.train import Recipe


def plan(factors, orders=("before", "after"), looks=False, pairs=6):
    x, y = np.zeros((8, 3), np.float32), np.arange(8) % 2
    data = make("toy", x, y, x, y)
    factors = check_factors(factors)
    return StudyPlan(
        arms_from(orders, factors), resolve("mlp"), data, Recipe(epochs=2, batch_size=4),
        pairs=pairs, looks=looks, factors=factors,
    )  # fmt: skip


def filled(made, scores):
    """An outcome whose run of arm k with seed s scored scores(arm, s)."""
    found = StudyResults(made, inspection(made.networks, parameters=[10] * 20))
    for arm in made.arms:
        for seed in made.seeds:
            found.results[arm.label, seed] = result(scores(arm, seed))
            found.hashes[arm.label, seed] = f"{arm.label}-{seed}"
    return found


def test_arms_stand_by_choice_then_order():
    arms = arms_from(["before", "after"], {"act": ["relu", "tanh"], "lr": [0.1, 0.01]})
    assert [arm.label for arm in arms[2:5]] == [
        "linear-norm-act (act=relu, lr=0.01)",
        "linear-act-norm (act=relu, lr=0.01)",
        "linear-norm-act (act=tanh, lr=0.1)",
    ]
    assert arms[2].options == {"act": "relu"}
    assert arms[2].recipe == {"lr": 0.01}


def test_the_recipe_is_not_part_of_the_network():
    made = plan({"lr": [0.1, 0.01]})
    assert len(made.networks) == 2
    look = inspection(made.networks)
    specs = [made.spec(look, index, 0) for index in range(4)]
    assert [spec.recipe["lr"] for spec in specs] == [0.1, 0.1, 0.01, 0.01]
    assert [len(spec.before) for spec in specs] == [0, 1, 0, 1]
    alone = plan({"act": ["relu", "tanh"]})
    assert len(alone.networks) == 4


def test_a_rate_of_its_own_gives_the_run_of_a_study_with_that_rate():
    own = plan({"lr": [0.1, 0.01]})
    x = own.data.x_train
    data = make("toy", x, own.data.y_train, x, own.data.y_train)
    recipe = Recipe(epochs=2, batch_size=4, lr=0.01)
    whole = StudyPlan(arms_from(["before", "after"]), resolve("mlp"), data, recipe, pairs=2)
    look = inspection(whole.networks)
    for index in (0, 1):
        assert own.spec(look, index + 2, 1).hash == whole.spec(look, index, 1).hash


@pytest.mark.parametrize(
    ("factors", "orders", "intervals"),
    [
        ({}, 2, 1),
        ({}, 3, 2),
        ({"act": [1, 2]}, 2, 3),  # an effect for each value, 1 interaction
        ({"act": [1, 2, 3]}, 2, 5),
        ({"act": [1, 2], "dropout": [0, 0.5]}, 2, 6),
        ({"act": [1, 2]}, 3, 6),
        ({"act": [1, 2]}, 1, 1),
        ({"act": [1, 2, 3]}, 1, 2),
    ],
)
def test_how_many_intervals_share_the_error(factors, orders, intervals):
    made = plan(factors, ("before", "after", "norm-linear-act")[:orders])
    assert made.intervals == intervals
    assert math.isclose(made.share, 1 - 0.05 / intervals)


def compared(made):
    return [(arm.label, against.label) for arm, against in made.contrasts]


def test_arms_are_compared_at_the_same_values():
    made = plan({"act": ["relu", "tanh"]})
    assert compared(made) == [
        ("linear-act-norm (act=relu)", "linear-norm-act (act=relu)"),
        ("linear-act-norm (act=tanh)", "linear-norm-act (act=tanh)"),
    ]


def test_all_pairs_are_every_two_arms_and_share_the_error():
    three = replace(plan({}, ("none", "before", "after")), against="before", all_pairs=True)
    assert compared(three) == [
        ("linear-act", "linear-norm-act"),
        ("linear-act-norm", "linear-norm-act"),
        ("linear-act-norm", "linear-act"),
    ]
    assert math.isclose(three.share, 1 - 0.05 / 3)
    crossed = replace(plan({"act": ["relu", "tanh"]}), all_pairs=True)
    assert len(set(map(frozenset, compared(crossed)))) == 6
    assert crossed.intervals == 7


@pytest.mark.parametrize("against", ["after", "linear-act-norm"])
def test_another_reference(against):
    made = replace(plan({"act": ["relu", "tanh"]}), against=against)
    assert compared(made)[1] == ("linear-norm-act (act=tanh)", "linear-act-norm (act=tanh)")
    assert made.interactions[0].orders == ("linear-act-norm", "linear-norm-act")


def test_a_reference_that_is_no_order_of_the_study():
    with pytest.raises(InputError, match="unknown arm to compare against 'none'"):
        replace(plan({}), against="none")


def test_the_progress_shows_the_first_comparison_at_the_final_level():
    made = replace(plan({}, ("none", "before", "after")), against="after")
    live = _display(None, True, made)
    assert live.compared == ("linear-act", "linear-act-norm")
    assert live.level == made.share != made.level
    assert live.names["linear-act-norm"] == "after"
    values = short_names(plan({"act": ["relu", "tanh"]}).arms)
    assert values["linear-act-norm (act=tanh)"] == "after (tanh)"
    kept = short_names(plan({}, ("before", "norm-act-linear")).arms)
    assert kept == {name: name for name in ("linear-norm-act", "norm-act-linear")}


def test_what_is_compared_changes_no_run():
    made = plan({}, ("none", "before", "after"))
    look = inspection(made.networks)
    other = replace(made, against="after", all_pairs=True)
    for index in range(3):
        assert made.spec(look, index, 0).hash == other.spec(look, index, 0).hash


def test_each_value_has_its_sentence_and_the_whole_study_all_of_them():
    def score(arm, seed):
        gain = {"relu": 0.1, "tanh": -0.1}[arm.options["act"]] if arm.given == "after" else 0.0
        return 0.6 + gain + noise(arm.label, seed)

    found = document(filled(plan({"act": ["relu", "tanh"]}), score), command="x")
    assert [c["values"] for c in found["comparisons"]] == [{"act": "relu"}, {"act": "tanh"}]
    relu, tanh = (c["sentence"] for c in found["comparisons"])
    assert relu.startswith("Norm after the ReLU is better: +")
    assert tanh.startswith("Norm before the tanh is better: norm after it is behind by ")
    assert found["sentence"] == f"relu: {relu} tanh: {tanh}"


def noise(label, seed, scale=0.001):
    return scale * np.random.default_rng([seed, *label.encode()]).normal()


def test_the_table_and_the_interaction_are_contrasts_by_hand():
    effect = {"relu": 0.01, "tanh": 0.05}

    def score(arm, seed):
        gain = effect[arm.options["act"]] if arm.given == "after" else 0.0
        return 0.8 + 0.01 * seed + gain + noise(arm.label, seed)

    made = filled(plan({"act": ["relu", "tanh"]}), score)
    rows = table(made, made.plan.seeds)
    assert [row["values"] for row in rows] == [{"act": "relu"}, {"act": "tanh"}]
    arms = made.plan.arms
    by_hand = made.scores(arms[3], made.plan.seeds) - made.scores(arms[2], made.plan.seeds)
    assert math.isclose(rows[1]["effects"][0]["estimate"], by_hand.mean())
    (found,) = interactions(made, made.plan.seeds)
    before = made.scores(arms[1], made.plan.seeds) - made.scores(arms[0], made.plan.seeds)
    expected = paired_difference(before, by_hand, level=made.plan.share)
    assert math.isclose(found["estimate"], expected.estimate)
    assert math.isclose(found["low"], expected.low)
    assert found["verdict"] == "better"
    assert found["sentence"].startswith(
        "The effect of norm after the activation against norm before it depends on act: it is "
    )
    assert "points higher with tanh than with relu (98.33 % interval " in found["sentence"]


def test_no_interaction_where_the_effect_is_the_same():
    def score(arm, seed):
        shift = 0.1 if arm.options["act"] == "tanh" else 0.0
        return 0.6 + shift + (0.02 if arm.given == "after" else 0) + noise(arm.label, seed)

    made = filled(plan({"act": ["relu", "tanh"]}), score)
    (found,) = interactions(made, made.plan.seeds)
    assert found["verdict"] == "equivalent"
    assert "doesn't depend on act by more than the margin of 0.5 points" in found["sentence"]


def test_an_interaction_is_averaged_over_the_other_factors():
    def score(arm, seed):
        own = arm.options
        gain = 0.02 * (own["act"] == "tanh") + 0.1 * own["dropout"]
        return 0.5 + (gain if arm.given == "after" else 0) + noise(arm.label, seed, 1e-5)

    made = filled(plan({"act": ["relu", "tanh"], "dropout": [0.0, 0.5]}), score)
    found = {entry["factor"]: entry["estimate"] for entry in interactions(made, made.plan.seeds)}
    assert np.isclose(found["act"], 0.02, atol=1e-4)
    assert np.isclose(found["dropout"], 0.05, atol=1e-4)
    words = {entry["factor"]: entry["sentence"] for entry in interactions(made, made.plan.seeds)}
    effect = "The effect of norm after the activation against norm before it, averaged over"
    assert words["act"].startswith(f"{effect} dropout, depends on act: ")
    assert words["dropout"].startswith(f"{effect} act, depends on dropout: ")


@pytest.mark.parametrize("looks", [False, True])
def test_the_document_holds_it(looks):
    made = filled(
        plan({"act": ["relu", "tanh"]}, looks=looks),
        lambda arm, seed: 0.8 + noise(arm.label, seed, 0.01),
    )
    found = document(made, command="x")
    assert found["factors"] == [{"name": "act", "values": ["relu", "tanh"]}]
    assert len(found["table"]) == 2
    assert len(found["interactions"]) == 1
    assert any("3 intervals share the error" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        ({"act": ["relu"]}, "at least two values for act"),
        ({"act": "relu"}, "several values for act, got 'relu'"),
        ({"act": ["relu", "relu"]}, "a value of act twice"),
    ],
)
def test_factors_that_are_none(factors, text):
    with pytest.raises(InputError, match=text):
        check_factors(factors)


def test_a_value_that_the_recipe_refuses():
    with pytest.raises(InputError, match="lr must be a number above 0"):
        plan({"lr": [0.1, -1]})


def test_a_tuned_rate_of_each_arm_is_no_factor():
    """Arms at their own best rates differ in the rate, too; the grid is of what was varied."""
    made = filled(plan({"act": ["relu", "tanh"]}), lambda arm, seed: 0.8 + noise(arm.label, seed))
    scores = {arm.label: made.scores(arm, made.plan.seeds) for arm in made.plan.arms}
    rates = {"arms": [{"label": a.label, "lr": 10.0**-k} for k, a in enumerate(made.plan.arms)]}
    best = at_best(made.plan.arms, rates)
    for old, new in zip(made.plan.arms, best, strict=True):
        for seed in made.plan.seeds:
            made.results[new.label, seed] = made.results[old.label, seed]
    tuned = StudyResults(replace(made.plan, arms=best), made.inspection, made.results)
    rows = table(tuned, made.plan.seeds)
    assert [row["values"] for row in rows] == [{"act": "relu"}, {"act": "tanh"}]
    assert interactions(tuned, made.plan.seeds) == interactions(made, made.plan.seeds)
    assert rows[0]["cells"][0]["mean"] == scores[made.plan.arms[0].label].mean()


def test_a_study_goes_on_until_its_interactions_are_answered():
    def score(arm, seed):  # both orders differ clearly from one another, the effects hardly
        gain = 0.2 if arm.given == "after" else 0.0
        act = 0.1 if arm.options["act"] == "tanh" else 0.0
        wobble = 0.012 * (-1) ** seed if arm.options["act"] == "tanh" else 0.0
        return 0.4 + gain + act + (wobble if arm.given == "after" else 0) + noise(arm.label, seed)

    made = filled(plan({"act": ["relu", "tanh"]}, looks=True), score)
    seeds = made.plan.seeds
    assert all(made.verdict(arm, seeds).verdict == "better" for arm in made.plan.contrasts)
    (asked,) = made.plan.interactions
    assert made.answer(asked, seeds).verdict == "inconclusive"
    assert made.finished_pairs() == seeds
    (found,) = interactions(made, seeds)
    assert "stays open" in found["sentence"]
    assert f"About {found['pairs_needed']} pairs in all would settle it" in found["sentence"]
    assert any("undecided after" in note for note in document(made, command="")["notes"])


def lose(made, lost):
    for (label, seed), run in made.results.items():
        if lost in label:
            made.results[label, seed] = {**run, "status": "diverged", "metric": None}


def test_where_every_run_diverged_there_is_no_interaction():
    made = filled(plan({"lr": [0.1, 9.0]}), lambda arm, seed: 0.8 + noise(arm.label, seed))
    lose(made, "lr=9")
    (found,) = interactions(made, made.plan.seeds)
    assert (found["verdict"], found["reason"]) == ("inconclusive", "all runs diverged")
    assert found["sentence"].startswith("It is unknown whether the effect of ")
    assert found["sentence"].endswith(" depends on lr: every run with 9 diverged.")
    made = filled(made.plan, lambda arm, seed: 0.8)
    lose(made, "lr=")
    (found,) = interactions(made, made.plan.seeds)
    assert "every run with 0.1 or 9 diverged" in found["sentence"]


def test_runs_that_diverged_are_counted_in_an_interaction():
    made = filled(plan({"lr": [0.1, 9.0]}), lambda arm, seed: 0.8 + noise(arm.label, seed))
    lose(made, "linear-act-norm (lr=9)")
    (found,) = interactions(made, made.plan.seeds)
    count = len(made.plan.seeds)
    assert f"{count} runs with 9 diverged and count with the worst score." in found["sentence"]


@pytest.mark.parametrize(
    ("orders", "options", "factors", "refused"),
    [
        (["before", "after"], {"dropout": 0.3}, {}, True),
        (["before", "linear-act-drop-norm"], {"dropout": 0.3}, {}, False),
        (["before", "after"], {"dropout": 0.0}, {}, False),
        (["before", "after"], {}, {"dropout": [0.0, 0.2]}, True),
        (["before", "linear-act-drop-norm"], {}, {"dropout": [0.0, 0.2]}, True),
        (["linear-norm-act-drop", "linear-act-drop-norm"], {}, {"dropout": [0.0, 0.2]}, False),
    ],
)
def test_a_dropout_rate_that_does_nothing_is_refused(orders, options, factors, refused):
    arms = arms_from(orders, factors)
    if not refused:
        check_dropout(resolve("mlp", options), arms, factors)
        return
    with pytest.raises(InputError, match="does nothing in linear-norm-act: name its place"):
        check_dropout(resolve("mlp", options), arms, factors)


@pytest.mark.parametrize(
    ("factors", "text"),
    [({"order": ["before", "after"]}, "--orders"), (["act"], r"mapping .* got \['act'\]"),
     ("act=relu", "mapping")],
)  # fmt: skip
def test_what_is_no_mapping_of_factors(factors, text):
    with pytest.raises(InputError, match=text):
        check_factors(factors)

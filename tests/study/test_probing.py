"""compare --probe: what is kept, that it changes nothing, and what the claims predict."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from tests.in_process import without_workers
from torch import nn

import relucate
from relucate.data import load
from relucate.errors import InputError
from relucate.study.merging import merge
from relucate.study.probing import look, predictions
from relucate.study.store import Store


def drops(order, input_shape, classes):
    """A torch net with batch norm, an activation in place and dropout."""
    torch.manual_seed(0)
    first = [nn.Conv2d(input_shape[-1], 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)]
    first = first if order == "before" else [first[0], nn.ReLU(), first[1]]
    rest = [nn.Dropout(0.3), nn.Flatten(), nn.Linear(6 * 36, classes)]
    return nn.Sequential(*first, *rest)


@pytest.fixture(scope="module")
def digits():
    return load("digits").subset(200, 100)


def compare(data, model="cnn", **more):
    options = {} if callable(model) else {"options": {"width": 6, "depth": 1, "dropout": 0.2}}
    orders = ["linear-norm-act-drop", "linear-act-norm-drop"] if not callable(model) else None
    given = {"pairs": 2, "jobs": 1, "progress": False, "recipe": {"epochs": 2}, **options}
    given |= {"orders": orders} if orders else {}
    with without_workers():
        return relucate.compare(model, data, **{**given, **more})


def scores(study):
    keys = ("arm", "seed", "metric", "loss", "curve")
    return [tuple(run[key] for key in keys) for run in study.to_dict()["runs"]]


@pytest.fixture(scope="module")
def probed(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return folder / "runs.sqlite", compare(digits, store=folder / "runs.sqlite", probe=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"engine": "keras"},
        {"recipe": {"epochs": 2, "reestimate": 0, "augment": "flip"}},
        {"model": drops},
    ],
    ids=["torch", "keras", "moving statistics", "module"],
)
def test_no_score_changes_by_a_bit(digits, options):
    one, other = (compare(digits, probe=probe, **options) for probe in (False, [0, 1, 2]))
    assert scores(one) == scores(other)
    assert "probe" not in one.to_dict()
    for arm in other.to_dict()["probe"]["arms"]:
        assert "refused" not in arm
        assert [step["epoch"] for step in arm["steps"]] == [0, 1, 2]
        assert not any("error" in step for step in arm["steps"])


def test_both_arms_of_the_first_pair_are_looked_at(probed):
    _, study = probed
    document = study.to_dict()
    found = document["probe"]
    assert found["seed"] == 0
    assert found["examples"] == 100
    assert [arm["arm"] for arm in found["arms"]] == [arm["label"] for arm in document["arms"]]
    for arm in found["arms"]:
        assert len(arm["sites"]) == 2
        assert arm["claims"]
        nodes = {node for site in arm["sites"] for node in site["points"].values()}
        assert {point["node"] for point in arm["steps"][-1]["points"]} == nodes


def test_something_is_learnt_between_the_looks(probed):
    for arm in probed[1].to_dict()["probe"]["arms"]:
        first, last = (
            {point["node"]: point["quantiles"] for point in arm["steps"][place]["points"]}
            for place in (0, -1)
        )
        assert any(first[node] != last[node] for node in first)


def test_it_is_kept_with_the_run_for_resuming_and_merging(probed, digits, tmp_path):
    path, study = probed
    again = compare(digits, store=path, probe=True)
    merged = tmp_path / "merged.sqlite"
    merge([path], merged)
    third = compare(digits, store=merged, probe=True)
    for other in (again, third):
        assert other.to_dict()["probe"] == study.to_dict()["probe"]
    with Store.open(merged, read_only=True) as store:
        kept = [json.loads(row.result).get("probe") for row in store.rows()]
    assert sum(found is not None for found in kept) == 2


def test_the_report_shows_it(probed, tmp_path):
    _, study = probed
    page = study.report(tmp_path / "report.html").read_text()
    assert "What the layers saw (seed 0, 100 test examples)" in page
    assert "What the layers saw" in str(study)
    for row in study.to_dict()["probe"]["predictions"]:
        assert row["source"] in page


def test_without_a_probe_the_report_is_silent(digits, tmp_path):
    study = compare(digits, pairs=2, recipe={"epochs": 1})
    page = study.report(tmp_path / "report.html").read_text()
    assert "What the layers saw" not in page + str(study)


def test_own_training_is_not_looked_at():
    with pytest.raises(InputError, match="probe= doesn't apply with run="):
        relucate.compare(run=lambda order, seed: 0.5, metric="accuracy", probe=True)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("yes", "probe must be True"),
        ([], "probe must be True"),
        ([-1], "an epoch of probe"),
        ([9], "has epoch 9, and the runs have 2 epochs"),
    ],
)
def test_bad_epochs(digits, probe, message):
    with pytest.raises(InputError, match=message):
        compare(digits, probe=probe)


@pytest.mark.parametrize("epochs", [1, 3, 6, 7, 200])
def test_looks_are_at_the_start_at_the_end_and_between(epochs):
    found = look(True, epochs, 50)
    assert (found["epochs"][0], found["epochs"][-1]) == (0, epochs)
    assert found["epochs"] == sorted(set(found["epochs"]))
    assert len(found["epochs"]) == min(7, epochs + 1)
    assert found["examples"] == 50


# ---- predictions


def arm(
    alias, skewness=0.0, distance=0.1, mean=0.1, sparsity=0.2, asymmetry=0.2, dead=0, op="relu"
):
    roles = ("norm_in", "next", "act_out")
    figures = {"skewness": skewness, "normal_distance": distance, "mean_in_sd": mean}
    figures |= {"sparsity": sparsity, "asymmetry": asymmetry, "dead": dead}
    site = {"act_op": op, "points": {role: role for role in roles}}
    points = [{"node": role, "summary": figures} for role in roles]
    steps = [{"epoch": 0, "points": points}, {"epoch": 1, "points": [], "error": "NaN"}]
    return {"arm": alias, "place": alias, "options": {}, "sites": [site], "steps": steps}


def predicted(before, after, verdict="better", winner="after"):
    found = {"arm": "after", "against": "before", "verdict": verdict, "winner": winner}
    return {row["claim"]: row for row in predictions([before, after], [found])}


def test_skewed_inputs_predict_before_whatever_was_measured():
    before, after = arm("before", skewness=0.3), arm("after", skewness=2.1)
    row = predicted(before, after)["skewed"]
    assert row["predicts"] == "before"
    assert row["agrees"] is False
    assert "0.30 with the norm before, 2.10 after; predicts norm before ahead." in row["text"]
    assert row["text"].endswith("Measured: norm after ahead.")
    assert predicted(before, after, winner="before")["skewed"]["agrees"] is True
    for verdict in ("inconclusive", "equivalent"):
        row = predicted(before, after, verdict, None)["skewed"]
        assert row["agrees"] is None
        assert row["text"].endswith(f"Measured: {verdict}.")


def test_a_claim_whose_premise_does_not_hold_predicts_nothing():
    rows = predicted(arm("before", 2.0, distance=0.3), arm("after", 0.1, distance=0.1))
    assert rows["skewed"]["predicts"] is None
    assert rows["normal"]["predicts"] is None
    assert "predicts nothing here" in rows["skewed"]["text"]


def test_centred_inputs_predict_the_arm_that_has_them():
    assert (
        predicted(arm("before", mean=0.7), arm("after", mean=0.0))["centred"]["predicts"] == "after"
    )
    assert (
        predicted(arm("before", mean=0.1), arm("after", mean=0.4))["centred"]["predicts"]
        == "before"
    )


def test_kim_et_al_is_about_bounded_activations():
    one_sided = partial(arm, sparsity=0.4, asymmetry=0.9)
    assert "saturated" not in predicted(arm("before"), one_sided("after"))
    row = predicted(arm("before", op="tanh"), one_sided("after", op="tanh"))["saturated"]
    assert row["predicts"] == "after"
    assert "Kim" in row["source"]
    plain = predicted(one_sided("before", op="tanh"), arm("after", op="tanh"))["saturated"]
    assert plain["predicts"] is None


def test_dead_channels_predict_the_other_arm():
    assert "dead" not in predicted(arm("before"), arm("after"))
    assert predicted(arm("before", dead=3), arm("after", dead=1))["dead"]["predicts"] == "after"


def test_other_orders_are_not_predicted():
    other = arm("after") | {"place": None}
    assert not list(predictions([arm("before"), other], []))
    varied = arm("after") | {"options": {"act": "tanh"}}
    assert not list(predictions([arm("before"), varied], []))


def test_a_pair_that_is_not_compared_says_so():
    (row, *_) = predictions([arm("before"), arm("after", skewness=1.0)], [])
    assert row["text"].endswith("Measured: not compared.")
    assert row["verdict"] is None


def test_no_figure_at_all_is_no_prediction():
    blind = arm("after") | {"steps": []}
    rows = list(predictions([arm("before"), blind], []))
    assert not rows or all(np.isfinite(list(row["measured"].values())).all() for row in rows)

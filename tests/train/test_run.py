"""A run's spec and result as plain data: what its hash knows, what its bits are."""

import json
from dataclasses import replace

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.train import Recipe, RunResult, RunSpec
from relucate.train.run import array_digest, check_result


@pytest.fixture
def spec():
    return RunSpec(
        model={"kind": "net", "name": "cnn", "options": {"width": 8}, "digest": "", "code": ""},
        arm={"given": "before", "order": "linear-norm-act", "options": {}, "built": "f1"},
        before=(),
        seed=0,
        data={"fingerprint": "d1", "input_shape": [8, 8, 1], "classes": 10},
        recipe=Recipe().to_dict(),
        engine={"name": "torch", "backend": "torch", "device": "cpu", "threads": 1},
        versions={"torch": "2"},
    )


def test_the_hash_survives_json_and_the_order_of_keys(spec):
    again = RunSpec(**json.loads(json.dumps(spec.to_dict(), sort_keys=True)))
    assert again.hash == spec.hash
    assert replace(spec, engine=dict(reversed(spec.engine.items()))).hash == spec.hash
    assert len(spec.hash) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {
            "model": {
                "kind": "net",
                "name": "cnn",
                "options": {"width": 9},
                "digest": "",
                "code": "",
            }
        },
        {"arm": {"given": "after", "order": "linear-act-norm", "options": {}, "built": "f1"}},
        {"arm": {"given": "before", "order": "linear-norm-act", "options": {}, "built": "f2"}},
        {"before": ({"given": "after"},)},
        {"seed": 1},
        {"data": {"fingerprint": "d2", "input_shape": [8, 8, 1], "classes": 10}},
        {"recipe": Recipe(epochs=11).to_dict()},
        {"engine": {"name": "torch", "backend": "torch", "device": "cpu", "threads": 2}},
        {"versions": {"torch": "3"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_part_counts(spec, changes):
    assert replace(spec, **changes).hash != spec.hash


def test_a_result_without_its_bits_is_json():
    result = RunResult("done", metric=0.5, per_example=np.array([True, False, True]))
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["metric"] == 0.5
    assert "per_example" not in result.to_dict()


def test_an_array_digest_knows_name_shape_type_and_bytes():
    a = {"w": np.zeros((2, 3), np.float32)}
    others = [
        {"v": np.zeros((2, 3), np.float32)},
        {"w": np.zeros((3, 2), np.float32)},
        {"w": np.zeros((2, 3), np.float64)},
        {"w": np.full((2, 3), 1e-30, np.float32)},
    ]
    digests = [array_digest(arrays) for arrays in (a, *others)]
    assert len(set(digests)) == 5
    assert array_digest({"w": np.zeros((3, 2), np.float32).T}) == digests[0]


RESULT = RunResult("done", 0.9, 0.3, {"epoch": [1], "accuracy": [0.9]}, {"total": 1.0}).to_dict()


def test_a_result_is_a_result():
    check_result(RESULT)
    check_result({**RESULT, "status": "diverged", "metric": None, "loss": None})


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("status", "fine"),
        ("metric", "0.9"),
        ("metric", 10**400),
        ("metric", True),
        ("loss", float("nan")),
        ("curve", None),
        ("curve", {"accuracy": [0.9, "x"]}),
        ("seconds", []),
        ("note", None),
    ],
)
def test_what_is_no_result_is_refused_by_its_entry(entry, value):
    with pytest.raises(InputError, match=f"'{entry}' of the run's result"):
        check_result({**RESULT, entry: value})


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_what_is_no_dict_is_no_result(value):
    with pytest.raises(InputError, match="'status' of the run's result"):
        check_result(value)

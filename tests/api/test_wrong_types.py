"""A value of a wrong type is an error that names it, or accepted; never a traceback from inside."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
import torch

import relucate
from relucate import RelucateError
from relucate.api import study

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
WRONG = [
    *(None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "x", "a\x1b[31m", b"x"),
    *([], ["x", 3], {}, {3: "x"}, object(), np.zeros(3), lambda: 1),
]
# The verbs, each with its second required argument.
VERBS = {"audit": None, "fold": None, "convert": "after", "rebuild": "after", "verify": "model"}


def keras_net():
    layers = [keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    return keras.Sequential([keras.Input((6, 6, 2)), *layers, keras.layers.Flatten()])


def torch_net():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU())
    return net.eval()


@pytest.mark.parametrize(("build", "example"), [(keras_net, None), (torch_net, (1, 2, 6, 6))])
@pytest.mark.parametrize("verb", list(VERBS))
def test_verbs(verb, build, example):
    function, second = getattr(relucate, verb), VERBS[verb]
    model = build()
    names = list(inspect.signature(function).parameters)
    given = {names[0]: model, "example": example}
    if second is not None:
        given[names[1]] = model if second == "model" else second
    for name in names:
        for value in WRONG:
            accepts_or_refuses(function, {**given, name: value})


@pytest.mark.parametrize("name", list(inspect.signature(relucate.compare).parameters))
def test_compare(name, monkeypatch):
    monkeypatch.setattr(study, "carry_out", lambda plan, displays, *_, **__: displays(plan) and {})
    tune = {"tune": "lr"} if name == "rates" else {}
    for value in WRONG:
        accepts_or_refuses(
            relucate.compare, {"model": "mlp", "progress": False, **tune, name: value}
        )


def accepts_or_refuses(function, given):
    with contextlib.suppress(RelucateError):
        function(**given)


def test_a_single_text_is_one_name():
    net = keras_net()
    assert [f.code for f in relucate.audit(net, select="N101").findings] == ["N101"]
    with pytest.raises(RelucateError, match="unknown rule 'N999'"):
        relucate.audit(net, select="N999")


def test_a_single_leaf_is_one_name():
    class Own(torch.nn.Module):
        def forward(self, x):
            return x.relu().flatten(1)

    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), Own())
    read = [relucate.audit(net, example=(1, 2, 6, 6), leaves=leaves) for leaves in ((), "Own")]
    assert [report.sites[0].act_op for report in read] == ["relu", None]

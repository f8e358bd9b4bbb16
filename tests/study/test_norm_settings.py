"""Norms of every arm get the same eps and momentum; a rebuilt model keeps its biases on request."""

from dataclasses import replace

import keras
import pytest
import torch
from keras import layers as kl
from torch import nn

import relucate
from relucate.errors import InputError
from relucate.study.arms import Arm, build
from relucate.study.norm_settings import check_norm_settings, described
from relucate.study.source import resolve

pytestmark = pytest.mark.usefixtures("in_process")

SHAPE, CLASSES = (6, 6, 2), 4


def keras_net(order):
    after = order == "after"
    x = image = keras.Input(SHAPE)
    x = kl.Conv2D(3, 3, activation="relu" if after else None, name="conv")(x)
    x = kl.BatchNormalization(epsilon=1e-4 if after else 1e-3, momentum=0.8 + 0.1 * after)(x)
    x = kl.LayerNormalization()(x if after else kl.ReLU()(x))
    return keras.Model(image, kl.Dense(CLASSES)(kl.Flatten()(x)))


class OwnNorm(nn.Module):
    eps, momentum = 1e-2, 0.3

    def forward(self, x):
        return x


def torch_net(order):
    norm = nn.BatchNorm2d(3, eps=1e-5 if order == "after" else 1e-3)
    parts = [norm, nn.ReLU()] if order == "before" else [nn.ReLU(), norm]
    tail = [nn.GroupNorm(1, 3), OwnNorm(), nn.Flatten(), nn.Linear(48, CLASSES)]
    return nn.Sequential(nn.Conv2d(2, 3, 3), *parts, *tail)


def settings(builder, order, **norm):
    source = replace(resolve(builder), norms=norm)
    built = build(source, Arm(order), 0, SHAPE, CLASSES)
    return [described(norm) for norm in built.framework.norms(built.model)], built.note


@pytest.mark.parametrize("order", ["before", "after"])
def test_every_norm_gets_them(order):
    found, note = settings(keras_net, order, eps=0.01, momentum=0.7)
    assert found == ["BatchNormalization eps 0.01 momentum 0.7", "LayerNormalization eps 0.01"]
    assert not note
    found, note = settings(torch_net, order, eps=0.01, momentum=0.7)
    assert found[:2] == ["BatchNorm2d eps 0.01 momentum 0.3", "GroupNorm eps 0.01"]
    assert note == "not set by norm_eps or norm_momentum: OwnNorm keeps its momentum"


def test_nothing_is_touched_without_them():
    assert settings(keras_net, "before") == (
        ["BatchNormalization eps 0.001 momentum 0.8", "LayerNormalization eps 0.001"], "",
    )  # fmt: skip


def test_they_reach_what_is_trained_and_the_run_s_identity():
    x = torch.arange(144.0).reshape(2, 2, 6, 6) ** 2 % 7
    source = resolve(torch_net)
    for eps in (1e-3, 1e6):
        built = build(replace(source, norms={"eps": eps}), Arm("before"), 0, SHAPE, CLASSES)
        hidden = built.model[:2](x)
        assert (float(hidden.detach().abs().max()) < 1e-2) == (eps > 1)
    assert "norms" not in source.identity()
    assert replace(source, norms={"eps": 0.1}).identity()["norms"] == {"eps": 0.1}


@pytest.mark.parametrize(
    ("eps", "momentum", "message"),
    [(0, None, "norm_eps must be above 0"), (-1.0, None, "got -1.0"),
     (float("nan"), None, "got nan"), (None, 1.0, "from 0 to below 1"),
     (None, -0.1, r"PyTorch's 0\.1")],
)  # fmt: skip
def test_numbers_that_make_no_sense(eps, momentum, message):
    with pytest.raises(InputError, match=message):
        check_norm_settings(eps, momentum)


def compared(**options):
    recipe = {"epochs": 1, "curve": 0}
    options = {"pairs": 3, "jobs": 1, "progress": False, "recipe": recipe, **options}
    return relucate.compare(**options).to_dict()


def differing(document):
    return [note for note in document["notes"] if "the arms differ" in note]


def flat_net(order, input_shape, classes):
    x = image = keras.Input(input_shape)
    x = kl.Dense(8, name="dense")(kl.Flatten()(x))
    after = order == "after"
    norm = kl.BatchNormalization(epsilon=1e-4 if after else 1e-3, name="norm")
    x = norm(kl.ReLU()(x)) if after else kl.ReLU()(norm(x))
    return keras.Model(image, kl.Dense(classes, name="logits")(x))


def test_a_study_says_what_differs_and_how_to_equalise_it():
    (note,) = differing(compared(model=flat_net))
    assert "eps 0.0001" in note
    assert "--norm-eps" in note
    equal = compared(model=flat_net, norm_eps=1e-3)
    assert not differing(equal)
    assert equal["model"]["norms"] == {"eps": 1e-3}


def plain_net(input_shape, classes):
    return flat_net("before", input_shape, classes)


def test_a_rebuilt_model_keeps_its_biases_on_request():
    (note,) = differing(compared(model=plain_net))
    assert "(biases: 10, 18; --bias keep" in note
    assert not differing(compared(model=plain_net, options={"bias": "keep"}))
    with pytest.raises(InputError, match="choice of bias for a rebuilt model 'always'"):
        compared(model=plain_net, options={"bias": "always"})

"""Where a permutation moves the channels, a norm that crosses it moves its axis with them."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

import relucate

AFTER, BEFORE, FRONT = "linear-act-norm", "linear-norm-act", "norm-linear-act"


def chain(shape, *layers):
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, kl.Dense(3)(kl.Flatten()(x)))


def norm_first():
    """The norm sees channels first, the convolution does not."""
    return chain(
        (6, 6, 3), kl.Conv2D(4, 3), kl.Permute((3, 1, 2)), kl.BatchNormalization(axis=1), kl.ReLU()
    )


def act_first():
    """The activation is behind the permutation. All sizes are equal: no size shows the mistake."""
    return chain(
        (6, 6, 3), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.Permute((3, 1, 2)), kl.ReLU()
    )


def norm_last():
    return chain(
        (6, 6, 3), kl.Conv2D(4, 3), kl.ReLU(), kl.Permute((2, 3, 1)), kl.BatchNormalization(axis=2)
    )


def norm_of(model):
    (norm,) = (x for x in model.layers if isinstance(x, kl.BatchNormalization))
    axis = norm.axis % 4
    return axis, norm.input.shape


CASES = {"norm first": norm_first, "act first": act_first, "norm last": norm_last}


@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
@pytest.mark.parametrize("name", CASES)
def test_the_norm_stays_over_the_channels(name, verb, randomize):
    net = randomize(CASES[name]())
    made, report = verb(net, BEFORE if name == "norm last" else AFTER)
    (outcome,) = report.sites
    assert outcome.status == "done", outcome.reason
    axis, _ = norm_of(made)
    weights = made.get_layer(net.layers[1].name).get_weights()
    assert len(weights[0].shape) == 4
    probe = keras.Model(made.input, norm_of_layer(made).input)
    # A change of one filter changes one slice along the norm's axis.
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    before = probe.predict(x, verbose=0)
    layer = made.get_layer(net.layers[1].name)
    kernel = weights[0].copy()
    kernel[..., 2] *= 3.0
    layer.set_weights([kernel, *weights[1:]])
    changed = np.argwhere(before != probe.predict(x, verbose=0))
    assert set(changed[:, axis]) == {2}


def norm_of_layer(model):
    return next(x for x in model.layers if isinstance(x, kl.BatchNormalization))


@pytest.mark.filterwarnings("ignore:relucate convert")
def test_another_axis_than_the_channels_is_refused(randomize):
    net = chain((6, 6, 3), kl.Conv2D(4, 3), kl.BatchNormalization(axis=1), kl.ReLU())
    _, report = relucate.convert(randomize(net), "after")
    assert report.sites[0].status == "skipped"
    assert "axis 1 isn't the channel axis" in report.sites[0].reason


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.out = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)

    def forward(self, x):
        x = self.norm(self.linear(x).transpose(1, 2)).transpose(1, 2)
        return self.out(torch.relu(x))


def test_in_torch_the_norm_moves_to_the_last_axis():
    net = Turned().eval()
    with torch.no_grad():
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 7, 3)
    for verb in (relucate.convert, relucate.rebuild):
        moved, _ = verb(net, "after", example=(2, 7, 3))
        (site,) = relucate.audit(moved, example=(2, 7, 3)).sites
        assert str(site.order) == "linear-act-norm"
        if verb is relucate.convert:
            torch.testing.assert_close(moved(x), net(x), rtol=0, atol=1e-5)
    made, _ = relucate.fold(net, example=(2, 7, 3))
    torch.testing.assert_close(made(x), net(x), rtol=0, atol=1e-5)

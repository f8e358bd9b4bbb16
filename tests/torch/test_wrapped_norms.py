"""Batch norms that a module of its own applies to tokens, by turning or merging their axes."""

import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate
from relucate.torch.reading.wrapped_norms import norm_ranks

AFTER = "linear-act-norm"


class Turned(nn.Module):
    """PatchTST's."""

    def __init__(self, size):
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(size, eps=1e-3)

    def forward(self, x):
        return self.batchnorm(x.transpose(1, 2)).transpose(1, 2)


class Merged(Turned):
    """LeViT's, for any number of axes."""

    def forward(self, x):
        return self.batchnorm(x.flatten(0, -2)).reshape(x.shape)


class Channels(Turned):
    """PatchTSMixer's: channels of a series in front."""

    def __init__(self, size):
        super().__init__(size)
        self.norm = Turned(size)
        del self.batchnorm

    def forward(self, x):
        tokens = x.reshape(x.shape[0] * x.shape[1], x.shape[2], x.shape[3])
        return self.norm(tokens).reshape(x.shape)


class Scaled(Merged):
    def forward(self, x):
        return super().forward(x) * 2


class Plain(Turned):
    def forward(self, x):
        return self.batchnorm(x)


class Once(Merged):
    """The norm in eval mode alone."""

    def forward(self, x):
        return x if self.training else super().forward(x)


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [
        (Turned, {3}),
        (Merged, {2, 3, 4}),
        (Channels, {4}),
        (Scaled, set()),
        (Plain, set()),
        (Once, set()),
    ],
)
def test_what_is_a_norm_over_the_last_axis(kind, ranks):
    module = kind(8)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert norm_ranks(module) == ranks
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.training


class Mlp(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.up, self.act, self.down = norm, nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)

    def forward(self, x):
        return x + self.down(self.act(self.up(self.norm(x))))


class Deciding(Mlp):
    """Its forward can't be traced by torch.fx."""

    def forward(self, x):
        return super().forward(x) if x.shape[-1] == 6 else x


@pytest.mark.parametrize("net", [Mlp, Deciding])
@pytest.mark.parametrize("kind", [Turned, Merged, Channels])
@pytest.mark.parametrize("verb", ["fold", "convert", "rebuild"])
def test_such_a_norm_moves_and_folds(verb, kind, net):
    shape = (2, 3, 5, 6) if kind is Channels else (2, 5, 6)
    model = zoo.randomize(nn.Sequential(net(kind(6)), net(kind(6))), 1).eval()
    order = () if verb == "fold" else (AFTER,)
    made, report = getattr(relucate, verb)(model, *order, example=shape)
    assert len(report.done) == 2
    x = torch.randn(4, *shape[1:])
    if verb != "rebuild":
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
    if verb != "fold":
        found = relucate.audit(made, example=shape)
        assert [site.order for site in found.sites] == [AFTER] * 2
        made.train()(x).sum().backward()

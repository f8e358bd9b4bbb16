"""A PyTorch module was read at one size: what it does at others is compared, or the result says so.

Branches on the size, offsets that hold for one size, models that take one size only.
"""

import warnings

import numpy as np
import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused

SHAPE = (1, 3, 8, 8)


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Forked(nn.Module):
    """Another convolution in front of the norm for large images."""

    def __init__(self, limit):
        super().__init__()
        self.small, self.large, self.norm = conv(3, 4), conv(3, 4), nn.BatchNorm2d(4)
        self.head, self.limit = nn.Conv2d(4, 2, 1), limit

    def forward(self, x):
        x = self.small(x) if x.shape[-1] <= self.limit else self.large(x)
        return self.head(torch.relu(self.norm(x)))


@pytest.mark.parametrize("limit", [8, 7])
def test_a_branch_on_the_size_is_seen_at_another_size(limit):
    model = zoo.randomize(Forked(limit), 1).eval()
    with pytest.raises(Refused, match=r"differ for \(3, (16, 16|4, 4)\)"):
        relucate.fold(model, example=SHAPE)


def test_a_branch_that_no_compared_size_takes_is_named():
    model = zoo.randomize(Forked(1000), 1).eval()
    with pytest.warns(UserWarning, match="'large' isn't called for inputs like the example"):
        made, report = relucate.fold(model, example=SHAPE)
    assert report.certificate.passed
    assert len(report.warnings) == 1
    x = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(made.eval()(x), model(x), rtol=0, atol=1e-5)


class Forward(nn.Module):
    """A model with a forward of its own, of a linear layer, a norm and an activation."""

    def __init__(self, forward):
        super().__init__()
        self.linear, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.called = forward

    def rest(self, x):
        return self.head(torch.relu(x))

    def forward(self, x):
        return self.called(self, x)


def one_unnormalised(self, x):
    x = self.linear(x)
    return self.rest(self.norm(x) if len(x) > 1 else x)


def turned_at_four(self, x):
    x = self.linear(x)
    return self.rest(self.norm(x.t()).t() if len(x) == 4 else self.norm(x))


@pytest.mark.parametrize(
    ("forward", "batch", "where"), [(one_unnormalised, 3, 1), (turned_at_four, 4, 4)]
)
@pytest.mark.parametrize("verb", ["fold", "convert"])
def test_a_branch_on_the_number_of_examples_is_seen(forward, batch, where, verb):
    model = zoo.randomize(Forward(forward), 1).eval()
    order = () if verb == "fold" else ("after",)
    with pytest.raises(Refused, match=rf"differ for \(4,\) in a batch of {where}"):
        getattr(relucate, verb)(model, *order, example=(batch, 4))


def single(self, x):
    assert len(x) == 1
    return self.rest(self.norm(self.linear(x)))


def parted(self, x):
    return self.rest(self.norm(self.linear(x)).view(1, -1)[:, :4])


@pytest.mark.parametrize("forward", [single, parted])
def test_a_model_of_one_example_at_a_time(forward):
    model = zoo.randomize(Forward(forward), 1).eval()
    made, report = relucate.fold(model, example=(1, 4))
    assert report.done
    x = torch.randn(1, 4)
    torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-5)


def test_a_model_of_a_fixed_number_of_examples():
    model = zoo.randomize(Forward(lambda self, x: self.rest(self.norm(self.linear(x)))), 1).eval()
    fixed = torch.export.export(model, (torch.randn(2, 4),)).module()
    assert relucate.verify(fixed, model, example=(2, 4)).passed


class Conjugate(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).conj()


def test_conjugate_outputs_are_seen():
    model = nn.Sequential(nn.Linear(4, 4), Conjugate())
    assert relucate.verify(model, model, example=(2, 4)).passed


def strided():
    """The second convolution makes one pixel of images of 3 and 4 pixels alike."""
    layers = [conv(3, 4, stride=2), nn.ReLU(), nn.BatchNorm2d(4), conv(4, 6, stride=2), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)]
    return zoo.randomize(nn.Sequential(*layers), 2).eval()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_strategy_auto_holds_for_every_size(size):
    model = strided()
    made, report = relucate.fold(model, example=(1, 3, size, size))
    assert report.done
    assert not report.warnings
    for other in (1, 3, 9, 32):
        x = torch.randn(2, 3, other, other)
        torch.testing.assert_close(made.eval()(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_strategy_map_takes_one_size_and_says_so(size):
    model = strided()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        made, report = relucate.fold(model, strategy="map", example=(1, 3, size, size))
    assert any("fixes the size of the images" in text for text in report.warnings)
    assert any("the result takes no inputs of shape" in text for text in report.certificate.notes)
    x = torch.randn(2, 3, size, size)
    torch.testing.assert_close(made.eval()(x), model(x), rtol=0, atol=1e-5)
    for other in (3 if size == 2 else size - 2, 32):
        with pytest.raises(ValueError, match=r"inputs of one size.*strategy='shift'"):
            made(torch.randn(2, 3, other, other))


def test_a_model_for_one_size_only_is_compared_there():
    layers = [conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2)]
    model = zoo.randomize(nn.Sequential(*layers), 3).eval()
    _, report = relucate.fold(model, example=SHAPE)
    assert report.certificate.passed
    assert not report.warnings


def test_verify_compares_other_sizes_unless_inputs_are_given():
    one, other = (zoo.randomize(Forked(limit), 4).eval() for limit in (8, 1000))
    assert not relucate.verify(one, other, example=SHAPE).passed
    inputs = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("float32")
    assert relucate.verify(one, other, inputs, example=SHAPE).passed


class Only(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear, self.norm, self.size = nn.Linear(4, 4), nn.BatchNorm1d(4), size

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x))).view(self.size, 4)


def test_a_model_for_one_size_of_batch_gets_that_or_is_refused_in_words():
    model = zoo.randomize(Only(2), 5).eval()
    made, report = relucate.fold(model, example=(2, 4))
    assert report.done
    x = torch.randn(2, 4)
    torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-5)
    with pytest.raises(Refused, match=r"can't be run on inputs of shape \(8, 4\)"):
        relucate.fold(zoo.randomize(Only(3), 5), example=(3, 4))

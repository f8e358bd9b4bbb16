"""What an example leaves open: arguments with defaults, and rows that a mask hides."""

import pickle

import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()
        self.other, self.head = nn.BatchNorm1d(4), nn.Linear(4, 2)


class Flag(Base):
    """AdvProp: other statistics for other data."""

    def forward(self, x, adversarial=False):
        norm = self.other if adversarial else self.norm
        return self.head(self.act(norm(self.linear(x))))


class Features(Base):
    def forward(self, x, *, features=False):
        x = self.linear(x)
        return x if features else self.head(self.act(self.norm(x)))


class Optional(Base):
    def forward(self, x, mask=None):
        x = self.linear(x)
        x = self.norm(x if mask is None else x * mask)
        return self.head(self.act(x))


MASK = torch.tensor([1.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "given"),
    [(Flag, {"adversarial": True}), (Features, {"features": True}), (Optional, {"mask": MASK})],
)
@pytest.mark.parametrize("verb", ["fold", "convert", "rebuild"])
def test_arguments_that_the_example_does_not_give_are_named(kind, given, verb):
    model = zoo.randomize(kind(), 1).eval()
    order = () if verb == "fold" else ("after",)
    (name,) = given
    with pytest.warns(UserWarning, match=f"the example doesn't give '{name}': only calls without"):
        made, _ = getattr(relucate, verb)(model, *order, example=(2, 4))
    x = torch.randn(3, 4)
    if verb != "rebuild":
        torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_flag_may_be_given(adversarial):
    model = zoo.randomize(Flag(), 1).eval()
    example = {"x": (2, 4), "adversarial": adversarial}
    given = f"the example gives adversarial={adversarial}: only calls with that were read"
    with pytest.warns(UserWarning, match=given):
        made, report = relucate.fold(model, example=example)
    assert [site.name for site in report.done] == ["other" if adversarial else "norm"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(made(x, adversarial), model(x, adversarial), rtol=0, atol=1e-5)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.linear, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x, hidden):
        x = self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)[0]
        return self.head(torch.relu(self.norm(self.linear(x.mean(1)))))


@pytest.mark.parametrize("last", [False, True])
def test_masks_hide_no_more_than_the_example_does(last):
    hidden = torch.tensor([[False] * 4 + [last], [False] * 3 + [last] * 2])
    model = zoo.randomize(Masked(), 1).eval()
    made, report = relucate.fold(model, example=(torch.randn(2, 5, 4), hidden))
    assert report.done
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(made(x, hidden), model(x, hidden), rtol=0, atol=1e-5)


class Undefined(Base):
    def forward(self, x):
        return self.head(self.act(self.norm(self.linear(x)))) + torch.log(x).mean(1, keepdim=True)


def test_outputs_that_are_no_numbers_tell_nothing():
    model = zoo.randomize(Undefined(), 1).eval()
    found = relucate.verify(model, model, example=(2, 4))
    assert (found.passed, found.decided) == (False, False)
    assert str(found).startswith("not known to be the same function")
    assert "not all finite" in found.notes[0]


class Nested(Base):
    """Its inputs are in a dict, beside words that choose what it does."""

    def forward(self, batch, mode="plain", mask=None):
        x = self.norm(self.linear(batch["x"][0]))
        x = self.head(torch.relu(x))
        return x * batch["scale"] if mode == "scaled" else x


@pytest.mark.parametrize("mode", ["plain", "scaled"])
def test_a_traced_module_takes_what_the_source_takes(mode):
    model = zoo.randomize(Nested(), 1).eval()
    example = ({"x": [(2, 4)], "scale": (2, 2)}, mode, None)
    made, report = relucate.convert(model, "after", example=example)
    assert report.done
    batch = {"x": [torch.randn(3, 4)], "scale": torch.randn(3, 2)}
    for one in (made, pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(one(batch, mode, None), model(batch, mode, None))
        torch.testing.assert_close(one(batch, mode), model(batch, mode))
        with pytest.raises(AssertionError, match=f"made for calls with mode='{mode}'"):
            one(batch, "other")
        with pytest.raises(AssertionError, match="made for calls with mask=None"):
            one(batch, mode, torch.ones(1))


class Named(Base):
    """An input that is called as a submodule is."""

    def forward(self, linear):
        return self.head(torch.relu(self.norm(self.linear(linear))))


def test_arguments_have_the_names_of_the_source():
    made, _ = relucate.rebuild(Named(), "after", example={"linear": (2, 4)})
    assert made(linear=torch.ones(3, 4)).shape == (3, 2)

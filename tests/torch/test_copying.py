"""What a copy of a model can't carry over is refused by name; the model itself stays as it is."""

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn.utils import prune

import relucate
from relucate.api.transform import plan
from relucate.errors import Refused

SHAPE = (2, 3, 6, 6)
VERBS = {
    "fold": relucate.fold,
    "convert": lambda model, **more: relucate.convert(model, "after", **more),
    "rebuild": lambda model, **more: relucate.rebuild(model, "after", **more),
}


def net(norm=None):
    layers = [nn.Conv2d(3, 4, 3), norm or nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    return nn.Sequential(*layers)


def silence(module, args, output):
    return output * 0


@pytest.mark.parametrize("verb", list(VERBS))
def test_forward_hooks_are_named(verb):
    model = zoo.randomize(net(), 1)
    model[2].register_forward_hook(silence)
    with pytest.raises(Refused, match=r"module '2' has a forward hook \(silence\)"):
        VERBS[verb](model, example=SHAPE)
    order = None if verb == "fold" else "after"
    with pytest.raises(Refused, match="forward hook"):  # a dry run says so too
        plan(verb, model, order, example=SHAPE)
    assert list(model[2]._forward_hooks.values()) == [silence]


@pytest.mark.parametrize("verb", list(VERBS))
def test_forward_pre_hooks_are_named(verb):
    model = zoo.randomize(net(), 1)
    model.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
    with pytest.raises(Refused, match=r"the model has a forward pre-hook .*lambda.*remove it"):
        VERBS[verb](model, example=SHAPE)


def test_pruning_is_a_hook():
    model = zoo.randomize(net(), 1)
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(Refused, match=r"module '0' has a forward pre-hook \(L1Unstructured\)"):
        relucate.fold(model, example=SHAPE)
    prune.remove(model[0], "weight")
    assert relucate.fold(model, example=SHAPE)[1].certificate.passed


def test_backward_hooks_stay_behind_and_are_named():
    model = zoo.randomize(net(), 1)
    model[2].register_full_backward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="no backward hooks; the source has, at '2'"):
        made, _ = relucate.rebuild(model, "after", example=SHAPE)
    assert not any(module._backward_hooks for module in made.modules())
    assert model[2]._backward_hooks


@pytest.mark.parametrize("norm", [nn.LazyBatchNorm2d(), nn.LazyInstanceNorm2d()])
def test_lazy_modules_have_to_be_called_first(norm):
    model = net(norm)
    assert relucate.audit(model, example=SHAPE).summary == {"linear-norm-act": 1}
    with pytest.raises(Refused, match=r"module '1' is lazy.*call the model once on data first"):
        relucate.rebuild(model, "after", example=SHAPE)
    model(torch.randn(SHAPE))
    assert relucate.rebuild(model, "after", example=SHAPE)[1].done


def test_what_cannot_be_copied_is_refused():
    model = zoo.randomize(net(), 1)
    model.source = (number for number in range(3))
    with pytest.raises(Refused, match=r"can't be copied \(TypeError.*generator"):
        relucate.fold(model, example=SHAPE)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3)])
def test_a_norm_that_is_the_model_itself_stays(norm):
    for verb, order in (("fold", ()), ("convert", ("after",)), ("rebuild", ("after",))):
        with pytest.warns(UserWarning, match="no effect"):
            made, report = getattr(relucate, verb)(zoo.randomize(norm, 1), *order, example=SHAPE)
        assert type(made) is type(norm)
        assert len(report.skipped) == 1
    with pytest.raises(Refused, match=f"the {type(norm).__name__} is the model itself"):
        relucate.rebuild(norm, "none", example=SHAPE)


def test_what_torch_export_made_is_told_by_name():
    model = zoo.randomize(net(), 2).eval()
    exported = torch.export.export(model, (torch.randn(SHAPE),)).module()
    assert relucate.verify(exported, exported, torch.randn(SHAPE).numpy(), example=SHAPE).passed
    with pytest.raises(Refused, match="give the module that was exported"):
        relucate.fold(exported, example=SHAPE)

"""What a copy of a model can't carry over is refused by name; the model itself stays as it is."""

import copy

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
    with pytest.raises(Refused, match=r"'0' is pruned: .*prune.remove\(module, 'weight'\)"):
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


class Forgetful(nn.Module):
    """Two nested blocks; its own deep copy forgets something."""

    def __init__(self, forget=lambda twin: None):
        super().__init__()
        block = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)]
        self.body = nn.Sequential(nn.Sequential(*block), nn.Sequential(nn.Conv2d(4, 4, 3)))
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.forget = [forget]

    def forward(self, x):
        return self.head(self.body(x))

    def __deepcopy__(self, memo):
        twin = Forgetful(self.forget[0])
        twin.load_state_dict(self.state_dict())
        twin.train(self.training)
        self.forget[0](twin)
        return twin


def modes(module, source):
    known = dict(source.named_modules())
    return {path: m.training for path, m in module.named_modules() if path in known}


def half(model, inner):
    """The model in a mode, one submodule and what is in it in the other one."""
    model.train(not inner)
    model.body[0].train(inner)
    return model


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize("forget", [lambda twin: None, nn.Module.train, nn.Module.eval])
@pytest.mark.parametrize("mode", ["eval", "inner in training", "inner in eval"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_submodule_has_the_mode_of_the_source(verb, forget, mode):
    model = zoo.randomize(Forgetful(forget), 1)
    model = model.eval() if mode == "eval" else half(model, mode == "inner in training")
    before = {path: m.training for path, m in model.named_modules()}
    made, _ = VERBS[verb](model, example=SHAPE)
    found = modes(made, model)
    assert found
    assert found == {path: before[path] for path in found}
    new = {path: m for path, m in made.named_modules() if path not in before}
    for path, module in new.items():
        assert module.training == made.get_submodule(path.rpartition(".")[0]).training
    assert {path: m.training for path, m in model.named_modules()} == before
    if mode == "eval":
        x = torch.randn(SHAPE)
        torch.testing.assert_close(made(x), made(x), rtol=0, atol=0)


def test_a_traced_result_in_nested_containers_is_in_eval_mode_throughout():
    made, _ = relucate.convert(zoo.randomize(Forgetful(), 1).eval(), "after", example=SHAPE)
    assert [path for path, module in made.named_modules() if module.training] == []


def freed(twin):
    for parameter in twin.parameters():
        parameter.requires_grad_(True)


def zeroed(twin):
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()


@pytest.mark.parametrize("forget", [freed, zeroed])
def test_freezing_and_values_that_a_copy_forgets_are_put_back(forget):
    model = zoo.randomize(Forgetful(forget), 1).eval()
    model.body.requires_grad_(False)
    folded, report = relucate.fold(model, example=SHAPE)
    assert report.certificate.passed
    assert {n for n, p in folded.named_parameters() if not p.requires_grad} == {
        f"body.{path}.0.{kind}" for path in "01" for kind in ("weight", "bias")
    } & {n for n, _ in folded.named_parameters()}
    x = torch.randn(SHAPE)
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)


def lost(twin):
    del twin.head[0]._buffers["running_mean"]


def tied(twin):
    twin.head[0].bias = twin.body[0][1].bias


def emptied(twin):
    twin.body = nn.Sequential(*twin.body, nn.Identity())


@pytest.mark.parametrize(
    ("forget", "what"),
    [(lost, "head.0.running_mean"), (tied, "head.0.bias"), (emptied, "submodules")],
)
def test_a_copy_of_something_else_is_refused(forget, what):
    model = zoo.randomize(Forgetful(forget), 1).eval()
    with pytest.raises(Refused, match=f"can't be copied: a deep copy of it has .*{what}"):
        relucate.fold(model, example=SHAPE)


def test_a_copy_that_is_the_model_itself_is_refused():
    class Single(nn.Sequential):
        def __deepcopy__(self, memo):
            return self

    model = zoo.randomize(Single(*net()), 1).eval()
    before = copy.deepcopy(dict(model.state_dict()))
    with pytest.raises(Refused, match="can't be copied"):
        relucate.fold(model, example=SHAPE)
    for name, value in before.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)

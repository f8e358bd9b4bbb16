"""What public models do that the reader and the certificate have to take."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import InputError, Refused

AFTER = "linear-act-norm"


def fold(model, example):
    """Fold, and compare with the model on other inputs; return the report."""
    made, report = relucate.fold(model, example=example)
    assert report.certificate.passed
    assert report.certificate.inputs
    return made, report


# Norms of the user's own.


class Held(nn.Module):
    """What a frozen batch norm of a detector holds."""

    def __init__(self, n, eps=1e-5):
        super().__init__()
        self.epsilon = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(n) + 0.5)


class Frozen(Held):
    def forward(self, x):
        scale = self.weight * (self.running_var + self.epsilon).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Own(Held):
    def forward(self, x):
        state = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *state, self.training, eps=self.epsilon)


class Activated(Own):
    def forward(self, x):
        return F.leaky_relu(super().forward(x))


class NoNorm(Held):
    def forward(self, x):
        return x * 2


def around(norm):
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("kind", [Frozen, Own, Activated])
def test_own_modules_with_statistics_are_norms(kind, eps):
    model = around(kind(4, eps))
    (site,) = relucate.audit(model, example=(2, 3, 8, 8)).sites
    assert site.kind == "batch"
    _, report = fold(model, (2, 3, 8, 8))
    assert report.done


def test_a_frozen_norm_is_known_by_what_it_computes():
    model = around(NoNorm(4))
    assert not relucate.audit(model, example=(2, 3, 8, 8)).sites
    with pytest.raises(InputError, match="has no norms"):
        relucate.fold(model, example=(2, 3, 8, 8))


class ActivatedModule(nn.BatchNorm2d):
    """A norm with an activation inside, as model collections have it."""

    def __init__(self, n):
        super().__init__(n)
        self.act = nn.ReLU()

    def forward(self, x):
        state = (self.running_mean, self.running_var, self.weight, self.bias)
        return self.act(F.batch_norm(x, *state, False, 0.0, self.eps))


class Even(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, 1, 0, 1)) if x.shape[-1] % 2 else x


def test_a_norm_that_cannot_go_does_not_keep_the_others():
    layers = [Even(), nn.Conv2d(3, 8, 3, padding=1), ActivatedModule(8)]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    model = zoo.randomize(nn.Sequential(*layers), 1).eval()
    _, report = fold(model, (1, 3, 15, 15))
    assert [outcome.status for outcome in report.sites] == ["skipped", "done"]
    assert "torch.fx can't trace" in report.skipped[0].reason


@pytest.mark.parametrize("data", [None, torch.randn(16, 3, 8, 8).numpy()])
@pytest.mark.parametrize("order", ["none", AFTER, "norm-linear-act"])
def test_an_instance_norm_with_moving_statistics_is_fixed_at_inference(order, data):
    model = zoo.randomize(around(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), 2)
    made, report = relucate.convert(model.eval(), order, example=(2, 3, 8, 8), data=data)
    assert report.done
    assert report.certificate.passed
    x = torch.randn(3, 3, 9, 9)
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
    plain = around(nn.InstanceNorm2d(4))
    with pytest.warns(UserWarning, match="no effect"):
        _, report = relucate.fold(plain, example=(2, 3, 8, 8))
    assert "an instance norm depends on the data" in report.skipped[0].reason


# Weights that are used twice.


class Tied(nn.Module):
    def __init__(self, back):
        super().__init__()
        self.first, self.norm1 = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.encoder, self.norm2, self.back = nn.Linear(6, 4), nn.BatchNorm1d(4), back

    def forward(self, x):
        x = torch.relu(self.norm1(self.first(x)))
        return self.back(torch.relu(self.norm2(self.encoder(x))), self.encoder.weight)


BACK = {
    "linear": lambda h, w: F.linear(h, w.t()),
    "matmul": lambda h, w: h @ w,
    "mm": torch.mm,
    "unknown": lambda h, w: torch.addmm(torch.ones(6), h, w),
    "scaled": lambda h, w: h @ (w * 0.5),
    "einsum": lambda h, w: torch.einsum("nc,cd->nd", h, w),
    "sum": lambda h, w: h + w.sum(),
}


class OwnStatistics(nn.Module):
    """Reads a tensor of its first norm, too."""

    def __init__(self, name):
        super().__init__()
        self.layers = nn.Sequential(*around(nn.BatchNorm2d(4)))
        self.more = nn.Sequential(*around(nn.BatchNorm2d(4)), nn.Flatten())
        self.name = name

    def forward(self, x):
        return self.layers(x).mean() + self.more(x) * getattr(self.layers[1], self.name).sum()


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("order", ["none", AFTER])
def test_a_norm_whose_tensors_are_used_as_tensors_too_stays(name, order):
    model = zoo.randomize(OwnStatistics(name), 3).eval()
    made, report = relucate.convert(model, order, example=(2, 3, 8, 8))
    assert [site.name for site in report.done] == ["more.1"]
    assert "is computed from" in report.skipped[0].reason
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(BACK))
def test_a_weight_that_is_used_as_a_tensor_too_stays(name):
    model = zoo.randomize(Tied(BACK[name]), 3).eval()
    made, report = fold(model, (3, 6))
    assert {o.name: o.status for o in report.sites} == {"norm1": "done", "norm2": "skipped"}
    assert "'encoder' is used elsewhere too" in report.skipped[0].reason
    x = torch.randn(5, 6)
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)


# Inputs.


class Front(nn.Module):
    def __init__(self, front, width=4):
        super().__init__()
        self.front, self.table = front, nn.Parameter(torch.randn(9, 4))
        self.tail = nn.Sequential(nn.Linear(width, 5), nn.BatchNorm1d(5), nn.ReLU())

    def forward(self, *inputs):
        return self.tail(self.front(self.table, *inputs))


IDS = torch.randint(0, 9, (6,))
FRONTS = {
    "one_hot": (lambda table, ids: F.one_hot(ids, 9).float(), 9, (IDS,)),
    "index": (lambda table, ids: table[ids], 4, (IDS,)),
    "int32": (lambda table, ids: table[ids.int()], 4, (IDS.int(),)),
    "bag": (lambda table, ids: F.embedding_bag(ids, table), 4, (IDS.reshape(2, 3),)),
    "mask": (
        lambda table, x, mask: x.masked_fill(mask, 0.0),
        4,
        (torch.randn(6, 4), torch.rand(6, 4) > 0.5),
    ),
    "complex": (
        lambda table, z: torch.view_as_real(z).flatten(1),
        4,
        (torch.randn(6, 2, dtype=torch.complex64),),
    ),
    "list": (lambda table, xs: torch.cat(xs, 1), 4, ([torch.randn(6, 2), torch.randn(6, 2)],)),
    "dict": (
        lambda table, xs: xs["a"] - xs["b"],
        4,
        ({"a": torch.ones(6, 4), "b": torch.ones(6, 4)},),
    ),
}


@pytest.mark.parametrize("name", list(FRONTS))
def test_inputs_are_of_the_examples_kind(name):
    front, width, example = FRONTS[name]
    _, report = fold(zoo.randomize(Front(front, width), 4).eval(), example)
    assert report.done


class Graphs(nn.Module):
    """A dense graph convolution: the first axes of its inputs are one number."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x, edges):
        return torch.relu(self.norm(self.linear(edges @ x)))


def test_inputs_whose_first_axes_belong_together():
    example = (torch.randn(6, 4), torch.rand(6, 6))
    (site,) = relucate.audit(Graphs(), example=example).sites
    assert site.order == "linear-norm-act"
    with pytest.raises(Refused, match=r"shape \(8, 4\), \(8, 6\)"):
        relucate.fold(Graphs().eval(), example=example)


# Code that Python can't see into.


def scripted():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        return torch.jit.script(layers)


@pytest.mark.filterwarnings("ignore:relucate convert. 1 norm is inside")
def test_a_script_module_is_kept_as_it_is():
    layers = [scripted(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    model = zoo.randomize(nn.Sequential(*layers), 5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made, report = relucate.convert(model, AFTER, example=(2, 3, 8, 8))
    assert [(o.name, o.new) for o in report.done] == [("2", AFTER)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in (model[0], made[0]))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(made.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


class PreNorm(nn.Module):
    """MaxViT's MBConv: a norm in front, whose reading depends on what the others become."""

    def __init__(self, c):
        super().__init__()
        self.pre, self.c1, self.n1 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)
        self.act, self.c2, self.n2 = nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.act2, self.c3 = nn.ReLU(), nn.Conv2d(c, c, 1)

    def forward(self, x):
        y = self.act(self.n1(self.c1(self.pre(x))))
        return x + self.c3(self.act2(self.n2(self.c2(y))))


def test_norms_that_would_read_as_another_order_stay_and_the_others_move():
    stem = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)]
    net = nn.Sequential(*stem, PreNorm(4), PreNorm(4))
    made, report = relucate.rebuild(net, "linear-act-norm", example=(2, 3, 16, 16))
    assert [outcome.name for outcome in report.done] == ["1", "4.n1", "4.n2"]
    assert all(outcome.new == outcome.old for outcome in report.skipped)
    assert "would read as norm-linear-act" in report.skipped[-1].reason
    orders = [site.order for site in relucate.audit(made, example=(2, 3, 16, 16)).sites]
    assert orders == [outcome.new for outcome in report.sites]


class ViewChanged(nn.Module):
    """torchvision's MViT adds to a part of a tensor in place, and reads the whole."""

    def __init__(self, twice=False):
        super().__init__()
        self.twice = twice
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        y = x * float(int(x.shape[2]) > 1)
        y[:, :, 1:] += x[:, :, :-1]
        if self.twice:
            y[:, :2].mul_(0.5)
        return self.act2(self.norm2(self.conv2(y)))


@pytest.mark.parametrize("twice", [False, True])
def test_a_tensor_that_is_changed_by_a_view(twice):
    net, shape = zoo.randomize(ViewChanged(twice), 4).eval(), (2, 3, 6, 6)
    found = relucate.audit(net, example=shape)
    assert [site.order for site in found.sites] == ["linear-norm-act", "linear-norm-act"]
    assert found.unknown
    made, report = relucate.convert(net, "after", example=shape)
    assert len(report.done) >= 1
    x = torch.randn(3, 3, 7, 5)
    torch.testing.assert_close(made(x), net(x))


def parted(x):
    return torch.cat([x[:, ::2], x[:, 1::2]], 1)


torch.fx.wrap("parted")


class Registered(nn.Module):
    """A function that its library registers with torch.fx as a whole, as torchvision's Swin does.

    The norm's order needs linear layer and norm to change their names, so that it is traced.
    """

    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.act = nn.LayerNorm(6), nn.Linear(6, 5), nn.GELU()
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.act(self.linear(self.norm(parted(x)))))


def test_a_registered_function_that_ends_in_one_of_pytorchs():
    net, x = zoo.randomize(Registered(), 3).eval(), torch.randn(3, 6, 6)
    made, report = relucate.rebuild(net, "after", example=(2, 6, 6))
    assert len(report.done) == 1
    again, _ = relucate.rebuild(made, "norm-linear-act", example=(2, 6, 6))
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(x), net(x))


class Filled(nn.Module):
    """It puts values into a tensor that it made: a cache, outputs one after the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        kept = torch.zeros(int(x.shape[0]), 4, int(x.shape[2]), int(x.shape[3]))
        part = kept[:, 2:]
        kept[:, :2] = x[:, 2:]
        part.copy_(x[:, :2] * 2)
        return self.act2(self.norm2(self.conv2(kept)))


def test_a_constant_that_is_filled():
    net, shape = zoo.randomize(Filled(), 4).eval(), (2, 3, 6, 6)
    found = relucate.audit(net, example=shape)
    assert [site.order for site in found.sites] == ["linear-norm-act", "linear-norm-act"]
    made, report = relucate.convert(net, "after", example=shape)
    assert len(report.done) >= 1
    x = torch.randn(3, 3, 7, 5)
    with torch.no_grad():
        torch.testing.assert_close(made(x), net(x))

"""Everything follows the device of a model: on a GPU, pretended where none is visible.

Run by `test_devices`.
"""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import relucate
from relucate.data import make
from relucate.torch import train
from relucate.torch.framework import FRAMEWORK
from relucate.train import Recipe

from . import pretended

REAL = torch.cuda.is_available()
pretends = pytest.mark.skipif(REAL, reason="counts what the host waits for on a pretended GPU")


def registered():
    return torch.device("cuda", 0) if REAL else pretended.registered()


@pytest.fixture
def gpu():
    registered()
    with nullcontext() if REAL else pretended.Gpu() as found:
        yield found


def images(n=96, test=40):
    random = np.random.default_rng(0)
    y = np.arange(n + test) % 4
    x = random.normal(size=(4, 6, 6, 2))[y] + 0.5 * random.normal(size=(n + test, 6, 6, 2))
    x = np.clip(40 * x + 120, 0, 255).astype(np.uint8)
    return make("images", x[:n], y[:n], x[n:], y[n:])


def net(dropout=0.0, activation=nn.ReLU):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        activation(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        activation(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * 36, 4),
    )
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def places(model):
    return {x.device.type for x in (*model.parameters(), *model.buffers())}


def values(model):
    return {key: x.detach().cpu().numpy() for key, x in model.state_dict().items()}


class TestTraining:
    RECIPES = (
        {},
        {"optimizer": "adamw", "augment": ("flip", "crop")},
        {"class_weight": "balanced"},
    )

    @pytest.mark.parametrize("options", RECIPES, ids=str)
    def test_it_trains_there_as_on_the_cpu(self, gpu, options):
        recipe = Recipe(epochs=2, batch_size=16, **options)
        here, there = net(), net()
        first = train(here, images(), recipe, seed=0)
        second = train(there, images(), recipe, seed=0, device=registered().type)
        assert places(there) == {registered().type}
        assert first.curve["accuracy"] == second.curve["accuracy"]
        for (name, a), b in zip(values(here).items(), values(there).values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)

    @pretends
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_in_an_epoch_the_host_waits_for_one_value_the_loss(self, gpu, optimizer):
        recipe = Recipe(
            epochs=3, batch_size=8, optimizer=optimizer, augment=("flip", "crop"), curve=0
        )  # fmt: skip
        waited = []

        class Counting(nn.Sequential):
            def train(self, mode=True):
                if mode:  # an epoch begins
                    waited.append(len(gpu.waits))
                return super().train(mode)

        train(Counting(*net(dropout=0.3)), images(), recipe, seed=0, device=registered().type)
        begins = waited[-3:]
        assert [b - a for a, b in pairwise(begins)] == [1, 1]

    @pretends
    def test_an_epoch_that_waits_is_noticed_by_this_test(self, gpu):
        class Waits(nn.Linear):
            def forward(self, x):
                x = x.flatten(1)
                return super().forward(x / x.abs().max().item())

        before = len(gpu.waits)
        train(
            Waits(72, 4), images(), Recipe(epochs=1, batch_size=8), seed=0, device=registered().type
        )
        assert len(gpu.waits) - before > 12  # one in each step

    def test_regression_and_held_out_examples(self, gpu):
        random = np.random.default_rng(0)
        x = random.normal(size=(80, 5)).astype(np.float32)
        y = (x @ random.normal(size=(5, 2))).astype(np.float32)
        from relucate.train.tasks import task_for

        data = make("numbers", x[:60], y[:60], x[60:], y[60:])
        model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        recipe = Recipe(epochs=2, batch_size=8, validation=0.2)
        task = task_for(None, data.labels)
        result = train(model, data, recipe, seed=0, device=registered().type, task=task)
        assert result.status == "done"


class TestModels:
    def test_audit_and_verify(self, gpu):
        model = net().to(registered())
        found = relucate.audit(model, example=(1, 2, 6, 6))
        assert [site.order for site in found.sites] == [s.order for s in relucate.audit(
            net(), example=(1, 2, 6, 6)
        ).sites]  # fmt: skip
        assert relucate.verify(model, net(), example=(1, 2, 6, 6)).passed
        assert places(model) == {registered().type}

    def test_fold(self, gpu):
        model = net().to(registered())
        folded, report = relucate.fold(model, example=(1, 2, 6, 6))
        assert places(folded) == places(model) == {registered().type}
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        assert report.certificate.passed

    def test_convert(self, gpu):
        model = net(activation=nn.Identity).to(registered())
        model[2], model[5] = nn.ReLU(), nn.ReLU()
        with torch.no_grad():
            for norm in (model[1], model[4]):
                norm.weight.abs_()
        converted, report = relucate.convert(model, "after", example=(1, 2, 6, 6))
        assert places(converted) == {registered().type}
        assert report.certificate is None or report.certificate.passed

    def test_rebuild(self, gpu):
        model = net().to(registered())
        rebuilt, _ = relucate.rebuild(model, "after", example=(1, 2, 6, 6))
        assert places(rebuilt) == {registered().type}

    def test_probe(self, gpu):
        model = net().to(registered())
        x = np.random.default_rng(0).normal(size=(32, 2, 6, 6)).astype(np.float32)
        assert relucate.probe(model, x).points

    def test_an_example_or_inputs_of_another_device(self, gpu):
        model, x = net().to(registered()), torch.randn(3, 2, 6, 6)
        assert relucate.audit(model, example=x).sites
        assert relucate.audit(net(), example=x.to(registered())).sites
        assert relucate.verify(model, net(), x.to(registered()), example=x).passed

    def test_a_builders_model_is_called_where_it_is(self, gpu):
        model = net().to(registered())
        x = np.zeros((2, 6, 6, 2), np.float32)
        assert FRAMEWORK.call(model, x, training=False).shape == (2, 4)
        tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)).to(registered())
        (example,) = FRAMEWORK.example((5,), tokens)
        assert example.dtype == torch.int64
        assert example.device.type == registered().type

    def test_data_on_the_gpu_are_read_from_there(self, gpu):
        x, y = torch.randn(20, 3).to(registered()), torch.arange(20).to(registered()) % 2
        np.testing.assert_array_equal(make("there", x, y, x, y).x_train, x.cpu().numpy())
        vectors = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        assert relucate.probe(vectors.to(registered()), x).points

"""compare(run=...) with PyTorch Lightning's Trainer: docs/your-own.md shows the same as text."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relucate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Lightning's own imports warn of other packages
    L = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning isn't installed")


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


class LitModel(L.LightningModule):
    """A binary classifier with a training step, an optimizer and a test score of its own."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self.net(x).squeeze(1), y)

    def test_step(self, batch, index):
        x, y = batch
        self.log("test_acc", ((self.net(x).squeeze(1) > 0) == (y > 0.5)).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


def loader(seed, size, shuffle=False):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, generator=draws)
    data = TensorDataset(x, (x[:, 0] + x[:, 1] > 0).float())
    return DataLoader(data, batch_size=32, shuffle=shuffle, generator=draws)


def train(order, seed):
    L.seed_everything(seed, verbose=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    model = LitModel(relucate.rebuild(network(), order, seed=seed, example=(1, 6))[0])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=6, accelerator="cpu", enable_model_summary=False, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers of the loaders
        trainer.fit(model, loader(seed, 256, shuffle=True))
        return trainer.test(model, loader(1000, 200), verbose=False)[0]["test_acc"]


@pytest.mark.usefixtures("in_process")
def test_lightnings_trainer_is_ones_own_training():
    study = relucate.compare(run=train, metric="accuracy", pairs=2, jobs=1, progress=False)
    runs = study.to_dict()["runs"]
    assert [run["status"] for run in runs] == ["done"] * 4
    assert all(run["metric"] > 0.6 for run in runs)
    assert len({run["metric"] for run in runs}) > 1


@pytest.mark.usefixtures("in_process")
def test_its_own_training_is_said_not_to_be_used_by_the_recipe():
    class Whole(LitModel):
        def forward(self, x):
            return self.net(x)

    def build(order):
        steps = (
            (nn.BatchNorm1d(6), nn.ReLU()) if order == "before" else (nn.ReLU(), nn.BatchNorm1d(6))
        )
        return Whole(nn.Sequential(nn.Linear(6, 6), *steps, nn.Linear(6, 2)))

    x = torch.randn(60, 6).numpy()
    y = (x[:, 0] > 0).astype(int)
    study = relucate.compare(
        build, ((x[:40], y[:40]), (x[40:], y[40:])), pairs=1, jobs=1, progress=False,
        recipe={"epochs": 1},
    )  # fmt: skip
    assert any("training_step" in note and "--run" in note for note in study.to_dict()["notes"])

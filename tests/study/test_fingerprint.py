"""What a built model computes: equal for equal functions, and an error for a model that can't."""

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from relucate.errors import InputError, Refused
from relucate.study.arms import Arm, build
from relucate.study.fingerprint import behaviour, random_like
from relucate.study.source import resolve


def built(make, shape=(3,), classes=4):
    return build(resolve(lambda order: make()), Arm("before"), 0, shape, classes)


def mlp(*tail, width=4):
    return nn.Sequential(nn.Linear(3, width), *tail)


def test_a_fresh_norm_is_no_identity_here():
    """With fresh statistics a norm commutes with the activation at inference."""
    before = behaviour(built(lambda: mlp(nn.BatchNorm1d(4), nn.ReLU())), (3,), 4)
    after = behaviour(built(lambda: mlp(nn.ReLU(), nn.BatchNorm1d(4))), (3,), 4)
    assert before.digest != after.digest
    assert before.finite


def test_a_zero_last_layer_hides_nothing():
    def zeroed(act):
        head = nn.Linear(4, 4)
        nn.init.zeros_(head.weight)
        return mlp(act, head)

    digests = {
        behaviour(built(lambda a=a: zeroed(a)), (3,), 4).digest for a in (nn.ReLU(), nn.Tanh())
    }
    assert len(digests) == 2


def test_dropout_shows_in_training_mode():
    digests = {
        behaviour(built(lambda p=p: mlp(nn.Dropout(p))), (3,), 4).digest for p in (0.1, 0.1, 0.5)
    }
    assert len(digests) == 2


def test_variances_stay_positive_and_zeros_do_not_stay():
    values = random_like(
        {
            "running_var": np.ones(100, np.float32),
            "gamma": np.zeros(100, np.float32),
            "kernel": np.zeros((100, 5), np.float32),
            "count": np.array(3),
        }
    )
    assert (values["running_var"] > 0).all()
    assert (values["gamma"] != 0).all()
    assert (values["kernel"] != 0).all()
    assert values["count"] == 3
    assert values["kernel"].dtype == np.float32


def test_outputs_that_are_no_numbers_are_not_finite():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return self.head(x) / 0 * 0

    assert not behaviour(built(Broken), (3,), 4).finite


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp(nn.Softmax(1)), "probabilities"),
        (lambda: mlp(width=5), r"of shape \(8, 5\); expected \(batch, 4\)"),
        (lambda: nn.Sequential(nn.Linear(3, 1)), r"of shape \(8, 1\)"),
    ],
)
def test_a_torch_module_without_logits_is_refused(make, message):
    with pytest.raises(Refused, match=message):
        behaviour(built(make), (3,), 4)


def test_a_keras_model_with_another_number_of_classes_is_refused():
    model = built(lambda: keras.Sequential([keras.Input((3,)), layers.Dense(5)]))
    with pytest.raises(Refused, match=r"\(8, 5\); expected \(batch, 4\)"):
        behaviour(model, (3,), 4)


def test_a_keras_model_may_give_probabilities():
    model = built(lambda: keras.Sequential([keras.Input((3,)), layers.Dense(4, "softmax")]))
    assert behaviour(model, (3,), 4).finite


def test_a_model_that_fails_on_a_batch_names_the_users_line_and_the_layout():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(7, 4)

        def forward(self, x):
            return self.head(x)  # here

    with pytest.raises(InputError, match=r"\(6, 6, 2\) .*channels first.*test_fingerprint.py"):
        behaviour(built(Wrong), (6, 6, 2), 4)


def test_torch_images_come_channels_first():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.seen = nn.Linear(1, 4), set()

        def forward(self, x):
            self.seen.add(tuple(x.shape[1:]))
            return self.head(x.mean((1, 2, 3))[:, None])

    looked = built(Looks)
    behaviour(looked, (6, 5, 2), 4)
    assert looked.model.seen == {(2, 6, 5)}
    assert torch.is_grad_enabled()

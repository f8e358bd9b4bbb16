"""The recipe: one form for equal choices, and an error for each wrong one."""

import json
import math

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.train import Recipe


def test_the_learning_rate_defaults_to_the_optimizers():
    assert Recipe().rate == 0.1
    assert Recipe(optimizer="adamw").rate == 0.002
    assert Recipe(optimizer="adamw", lr=0.5).rate == 0.5


def test_equal_choices_are_equal_as_plain_data():
    a = Recipe(lr=1, epochs=np.int64(3), augment=["crop", "flip", "crop"], momentum=np.float64(0.5))
    b = Recipe(lr=1.0, epochs=3, augment=("flip", "crop"), momentum=0.5)
    assert a == b
    assert json.dumps(a.to_dict()) == json.dumps(b.to_dict())


def test_to_dict_and_from_dict_are_inverse():
    recipe = Recipe(optimizer="adamw", augment="flip", schedule="step", precision="bf16")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_changed_checks_what_it_changes():
    assert Recipe().changed(epochs=3).epochs == 3
    with pytest.raises(InputError, match=r"epochs.*0"):
        Recipe().changed(epochs=0)
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        Recipe().changed(epoch=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg': did you mean 'sgd'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"augment": "flop"}, "unknown augmentation 'flop': did you mean 'flip'"),
        ({"augment": ["flip", "mixup"]}, "unknown augmentation 'mixup'"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 2.0}, "epochs must be a whole number of at least 1, got 2.0"),
        ({"epochs": True}, "got True"),
        ({"batch_size": -3}, "batch_size.*-3"),
        ({"reestimate": -1}, "reestimate.*-1"),
        ({"curve": "many"}, "curve.*'many'"),
        ({"lr": 0}, "lr must be a number above 0, got 0"),
        ({"lr": math.nan}, "lr.*nan"),
        ({"lr": math.inf}, "lr.*inf"),
        ({"lr": "0.1"}, "lr.*'0.1'"),
        ({"weight_decay": -1e-4}, "weight_decay.*-0.0001"),
        ({"weight_decay": None}, "weight_decay.*None"),
        ({"momentum": 1}, "momentum.*got 1"),
        ({"label_smoothing": 1.0}, "label_smoothing.*1.0"),
        ({"decay_all": "no"}, "decay_all must be True or False, got 'no'"),
        ({"standardize": 1}, "standardize.*got 1"),
    ],
)
def test_a_wrong_value_is_named(options, message):
    with pytest.raises(InputError, match=message):
        Recipe(**options)


def test_an_unknown_option_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown training option 'batchsize'.*'batch_size'"):
        Recipe.from_dict({"batchsize": 3})


def test_data_that_the_recipe_does_not_fit():
    Recipe(batch_size=10, augment="flip").check_fits(10, (8, 8, 1))
    with pytest.raises(InputError, match="batch_size 11 is larger than the 10 training"):
        Recipe(batch_size=11).check_fits(10, (8, 8, 1))
    with pytest.raises(InputError, match=r"crop takes images.*\(64,\)"):
        Recipe(batch_size=1, augment="crop").check_fits(10, (64,))
    Recipe(batch_size=10, augment="flip").check_fits(10, (4, 8, 8, 1))
    with pytest.raises(InputError, match=r"crop shifts .* volumes or videos \(4, 8, 8, 1\)"):
        Recipe(batch_size=1, augment=["flip", "crop"]).check_fits(10, (4, 8, 8, 1))


def test_milestones_are_shares_of_the_training():
    assert Recipe(schedule="step", milestones=(0.75, 0.25)).milestones == (0.25, 0.75)
    assert "milestones" not in Recipe().to_dict()
    early = Recipe(schedule="step", milestones=(0.1,))
    assert Recipe.from_dict(early.to_dict()).milestones == (0.1,)
    for wrong in ((), (0.5, 0.5), (1.0,), ("x",), 3):
        with pytest.raises(InputError, match="milestones"):
            Recipe(milestones=wrong)


def test_unbiased_needs_statistics():
    with pytest.raises(InputError, match="reestimate"):
        Recipe(unbiased=True, reestimate=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adamw", "momentum": 0.5}, "momentum is of sgd: leave it out"),
        ({"milestones": (0.3,)}, "milestones need schedule 'step', got 'onecycle'"),
        ({"schedule": "cosine", "milestones": (0.3, 0.6)}, "milestones need schedule 'step', got"),
        ({"unbiased": True, "reestimate": 0}, "unbiased needs re-estimated statistics"),
    ],
)
def test_what_would_have_no_effect_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Recipe(**values)
    Recipe(optimizer="adamw", momentum=0.9, milestones=(0.5, 0.75))
    Recipe(schedule="step", milestones=(0.3,))

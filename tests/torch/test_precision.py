"""Float32 in full or in TF32, as a run or a check needs it; the user's settings come back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import relucate
from relucate.errors import InputError
from relucate.torch import train
from relucate.torch.precision import float32, repeatable
from relucate.train import Recipe

from .on_a_gpu import images, net

NEW = hasattr(torch._C, "_get_fp32_precision_getter")
WHERE = [(b, op) for b in ("cuda", "mkldnn") for op in ("conv", "rnn", "matmul")]


def read(function):
    try:
        return function()
    except RuntimeError as error:  # settings of both kinds that can't be said by the older one
        return type(error)


def settings():
    older = [
        read(lambda: torch.backends.cudnn.allow_tf32),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
        read(torch.get_float32_matmul_precision),
    ]
    newer = [torch._C._get_fp32_precision_getter(*where) for where in WHERE] if NEW else []
    return older + newer


def tf32():
    """Which of convolutions and matrix products of a GPU are in TF32."""
    if NEW:
        return tuple(x == "tf32" for x in settings()[3:6:2])
    return tuple(settings()[:2])


def by_the_older():
    torch.set_float32_matmul_precision("medium")


def off():
    torch.backends.cudnn.allow_tf32 = False


def by_the_newer():
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def for_all():
    torch.backends.fp32_precision = "tf32"


USERS = [lambda: None, by_the_older, off, *([by_the_newer, for_all] if NEW else [])]


@pytest.fixture(params=USERS, ids=lambda f: f.__name__)
def users(request):
    """The user's own settings; PyTorch's defaults come back afterwards."""
    kept = [torch._C._get_fp32_precision_getter(*where) for where in WHERE] if NEW else []
    request.param()
    yield settings()
    if NEW:
        torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for where, value in zip(WHERE, kept, strict=True) if NEW else ():
        torch._C._set_fp32_precision_setter(*where, value)


@pytest.mark.parametrize("manager", [float32, repeatable])
def test_it_is_what_was_asked_for_and_then_the_users_own(users, manager):
    for wanted in (False, True):
        with manager(tf32=wanted):
            assert tf32() == (wanted, wanted)
        assert settings() == users
    with pytest.raises(ZeroDivisionError), manager():
        _ = 1 / 0
    assert settings() == users


def test_a_cpu_never_computes_less_than_float32():
    torch.set_float32_matmul_precision("medium")  # bfloat16 on some
    try:
        with float32(tf32=True):
            assert not NEW or settings()[6:] == ["ieee"] * 3
    finally:
        torch.set_float32_matmul_precision("highest")


class Seeing(nn.Linear):
    """Notes the settings of each call."""

    def forward(self, x):
        SEEN.append(tf32())
        return super().forward(x.flatten(1))


SEEN = []


@pytest.fixture
def seen():
    SEEN.clear()
    return SEEN


def test_a_run_computes_as_its_recipe_says(users, seen):
    train(Seeing(72, 4), images(), Recipe(epochs=1, batch_size=16), seed=0)
    assert set(seen) == {(False, False)}
    assert settings() == users


@pytest.mark.parametrize("verb", ["verify", "fold", "convert", "probe"])
def test_a_certificate_is_computed_in_full(users, seen, verb):
    model = nn.Sequential(net()[:3], Seeing(8 * 36, 4))
    example = torch.zeros(1, 2, 6, 6)
    if verb == "verify":
        assert relucate.verify(model, model, example=example).passed
    elif verb == "fold":
        relucate.fold(model, example=example)
    elif verb == "convert":
        with pytest.warns(UserWarning, match="no effect"):
            relucate.convert(model, "before", example=example)
    else:
        relucate.probe(model, np.zeros((4, 2, 6, 6), np.float32))
    assert seen
    assert set(seen) == {(False, False)}
    assert settings() == users


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(InputError, match=r"tf32 needs an NVIDIA GPU .* device is cpu"):
        train(net(), images(), Recipe(epochs=1, batch_size=16, precision="tf32"), seed=0)


class TestLowering:
    def lowered(self):
        keras = pytest.importorskip("keras")
        from relucate import nets
        from relucate.keras.framework import FRAMEWORK

        keras.utils.set_random_seed(0)
        model = nets.build("vgg", "before", (8, 8, 1), 10, width=4, depth=11)
        return FRAMEWORK.read(model).lowerable()

    def test_the_check_computes_where_the_weights_are_whatever_keras_would_choose(self):
        import keras

        from relucate.torch.lowering.check import lower_checked

        source = self.lowered()

        def steps(x, training):
            with keras.device("meta"):  # there nothing has a value
                yield from source.steps(x, training)

        assert lower_checked(replace(source, steps=steps))

    def test_the_check_computes_in_full(self, users):
        from relucate.torch.lowering.check import lower_checked

        source, found = self.lowered(), []

        def steps(x, training):
            found.append(tf32())
            return source.steps(x, training)

        lower_checked(replace(source, steps=steps))
        assert found == [(False, False)] * 2
        assert settings() == users

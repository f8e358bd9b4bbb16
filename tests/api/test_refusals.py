"""What no verb may touch: refused by name and with the reason, in both frameworks.

Every norm carries random statistics, so that a verb which went on regardless would not pass its own
certificate.
"""

import warnings

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused

NOTHING = r"^relucate (fold|convert|rebuild): "
NO_VARIABLE = "the kernel of 'conv' is no plain variable"


def randomized(model):
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif "seed" not in weight.path and "int" not in str(weight.dtype):
            weight.assign(random.normal(size=weight.shape) * 0.3)
    return model


def batch_norm(**options):
    return kl.BatchNormalization(name="norm", **options)


def net(norm=None, conv=None, **call):
    """Convolution, norm, ReLU, convolution, dense."""
    x = image = keras.Input((8, 8, 3))
    x = (conv or kl.Conv2D(4, 3, name="conv"))(x)
    x = kl.ReLU(name="act")((norm or batch_norm())(x, **call))
    x = kl.Conv2D(4, 3, padding="same", name="last")(x)
    x = kl.GlobalAveragePooling2D(name="pool")(x)
    return randomized(keras.Model(image, kl.Dense(3, name="out")(x)))


def lora():
    model = net()
    for name in ("conv", "last"):
        model.get_layer(name).enable_lora(2)
    return randomized(model)


def quantized():
    x = vector = keras.Input((6,))
    x = kl.ReLU(name="act")(batch_norm()(kl.Dense(8, name="conv")(x)))
    model = randomized(keras.Model(vector, kl.Dense(3, name="out")(x)))
    with warnings.catch_warnings():  # Keras: the input layer has nothing to quantize
        warnings.simplefilter("ignore")
        model.quantize("int8")
    return model


def shared():
    image = keras.Input((8, 8, 3))
    conv, norm, act = kl.Conv2D(3, 3, padding="same", name="conv"), batch_norm(), kl.ReLU(name="a")
    x = norm(act(conv(act(norm(conv(image))))))
    x = kl.GlobalAveragePooling2D(name="pool")(x)
    return randomized(keras.Model(image, kl.Dense(2, name="out")(x)))


@keras.saving.register_keras_serializable("relucate_tests")
class Unknown(kl.Layer):
    def call(self, x):
        return x * 2


def opaque():
    x = image = keras.Input((8, 8, 3))
    x = batch_norm()(kl.Conv2D(4, 3, activation="relu", name="conv")(x))
    x = kl.Flatten(name="flat")(Unknown(name="unknown")(x))
    return randomized(keras.Model(image, kl.Dense(2, name="out")(x)))


SKIPPED = {
    "training mode by the call": (
        lambda: net(training=True), "after", "the batch's own statistics at inference",
    ),
    "group norm": (
        lambda: net(kl.GroupNormalization(2, name="norm")), "after", "a group norm depends on the",
    ),
    "layer norm": (
        lambda: net(kl.LayerNormalization(name="norm")), "after", "a layer norm depends on the",
    ),
    "spectral norm": (
        lambda: net(conv=kl.SpectralNormalization(kl.Conv2D(4, 3, name="inner"), name="conv")),
        "after", f"{NO_VARIABLE}: spectral_norm computes it; take that off",
    ),
    "LoRA": (lora, "after", f"{NO_VARIABLE}: it has LoRA's weights; merge them first"),
    "quantized": (quantized, "after", f"{NO_VARIABLE}: it is quantized"),
    "opaque consumer": (opaque, "before", "'unknown' (Unknown) isn't known"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(SKIPPED))
def test_skipped_by_fold_and_by_convert(case):
    build, order, reason = SKIPPED[case]
    model = build()
    for verb, args in ((relucate.fold, ()), (relucate.convert, (order,))):
        with pytest.warns(UserWarning, match=NOTHING):
            made, report = verb(model, *args)
        (outcome,) = report.skipped
        assert outcome.name == "norm"
        assert reason in outcome.reason
        assert not report.done
        assert relucate.verify(model, made).max_abs == 0


@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
@pytest.mark.parametrize("order", ["before", "after"])
def test_shared_layers_whose_calls_disagree(verb, order):
    with pytest.warns(UserWarning, match=NOTHING):
        _, report = verb(shared(), order)
    (outcome,) = report.skipped
    assert outcome.reason == "its calls disagree: one is linear-act-norm and one linear-norm-act"


def test_a_norm_that_reads_and_is_read_through_activations_is_not_folded():
    with pytest.warns(UserWarning, match=NOTHING):
        _, report = relucate.fold(shared())
    assert "activation 'a' (relu) lies between" in report.skipped[0].reason


class Sub(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.norm = kl.Dense(3), kl.BatchNormalization()

    def call(self, x):
        return self.norm(self.dense(x))


def test_a_subclassed_model_that_was_not_built():
    for verb, args in ((relucate.fold, ()), (relucate.convert, ("after",))):
        with pytest.raises(Refused, match="its own call, and the shape of its inputs isn't known"):
            verb(Sub(), *args)


def torch_net(act=None, norm=None, conv=None, width=4):
    layers = [conv or nn.Conv2d(3, 4, 3), norm or nn.BatchNorm2d(4), act or nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(width, 4, 3, padding=1), nn.Flatten())
    return zoo.randomize(model, 3).eval()


TORCH = {
    "no statistics": (
        lambda: torch_net(norm=nn.BatchNorm2d(4, track_running_stats=False)),
        "the batch's own statistics",
    ),
    "group norm": (lambda: torch_net(norm=nn.GroupNorm(2, 4)), "depends on the data"),
    "spectral norm": (
        lambda: torch_net(conv=nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))),
        "no plain variable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TORCH))
def test_skipped_in_torch(case):
    build, reason = TORCH[case]
    model = build()
    with pytest.warns(UserWarning, match=NOTHING):
        made, report = relucate.fold(model, example=(2, 3, 6, 6))
    assert reason in report.skipped[0].reason, report.skipped
    assert not report.done
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(made.eval()(x), model(x))


ACROSS = {"softmax": nn.Softmax(1), "log_softmax": nn.LogSoftmax(1), "glu": nn.GLU(1)}


@pytest.mark.parametrize("name", list(ACROSS))
@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
def test_no_norm_moves_across_an_activation_that_mixes_channels(verb, name):
    model = torch_net(ACROSS[name], width=2 if name == "glu" else 4)
    with pytest.warns(UserWarning, match=NOTHING):
        _, report = verb(model, "after", example=(2, 3, 6, 6))
    assert f"'2' ({name}) mixes channels" in report.skipped[0].reason
    assert not report.done

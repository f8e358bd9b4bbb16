"""Both frameworks through one protocol: found, complete, and agreed on what equal models hold."""

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

from relucate.errors import InputError
from relucate.frameworks import FRAMEWORKS, framework_of, named, owner
from relucate.graph.conventions import CONVENTIONS
from relucate.train.framework import Framework, ReadModel


def keras_net():
    x = image = keras.Input((6, 6, 2))
    x = kl.BatchNormalization()(kl.Conv2D(3, 3)(x))
    return keras.Model(image, kl.Dense(4)(kl.Flatten()(kl.ReLU()(x))))


def torch_net():
    steps = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)]
    return nn.Sequential(*steps)


NETS = {"keras": keras_net, "torch": torch_net}
EVERY = pytest.mark.parametrize("name", FRAMEWORKS)


@EVERY
def test_a_model_is_found_by_what_it_is(name):
    assert framework_of(NETS[name]()) is named(name)
    assert named(name).name == name
    assert name in CONVENTIONS


def test_a_keras_layer_is_no_torch_module():
    assert owner(kl.Dense(2)) is named("keras")
    assert not named("keras").is_model(kl.Dense(2))


@pytest.mark.parametrize("thing", [3, "net.keras", np.zeros(2)], ids=["number", "text", "array"])
def test_what_is_no_model_is_an_input_error(thing):
    with pytest.raises(InputError, match=f"got {type(thing).__name__}"):
        framework_of(thing)


def public(protocol):
    return {n: f for n, f in vars(protocol).items() if inspect.isfunction(f) and n[0] != "_"}


@EVERY
def test_every_method_of_the_protocol_is_there_with_its_arguments(name):
    framework = named(name)
    read = framework.read(NETS[name](), framework.example((6, 6, 2)))
    for protocol, thing in ((Framework, framework), (ReadModel, read)):
        for method, declared in public(protocol).items():
            own = inspect.signature(getattr(type(thing), method)).parameters
            assert list(own) == list(inspect.signature(declared).parameters), method


@EVERY
def test_it_says_of_a_model_what_is_in_it(name):
    framework, model = named(name), NETS[name]()
    assert framework.count(model) == {"parameters": 54 + 3 + 6 + 192 + 4, "norm_parameters": 6}
    assert framework.biases(model) == 3 + 4
    assert len(list(framework.norms(model))) == 1
    outputs = framework.call(model, np.ones((2, 6, 6, 2), np.float32), training=False)
    framework.check(model, (6, 6, 2), 4)
    framework.check_outputs(outputs, 4)
    assert tuple(outputs.shape) == (2, 4)


@EVERY
def test_tensors_are_copies_and_load_sets_them(name):
    framework, model = named(name), NETS[name]()
    kept = framework.tensors(model)
    framework.load(model, {key: array + 1 for key, array in kept.items()})
    for key, array in framework.tensors(model).items():
        np.testing.assert_array_equal(array, kept[key] + 1)


KERAS_NORMS = {
    "batch": kl.BatchNormalization,
    "layer": kl.LayerNormalization,
    "group": lambda: kl.GroupNormalization(2),
    "rms": kl.RMSNormalization,
}
TORCH_NORMS = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "group": lambda n: nn.GroupNorm(2, n),
    "rms": nn.RMSNorm,
}


@pytest.mark.parametrize(
    ("kind", "size"), [("batch", 16), ("layer", 16), ("group", 16), ("rms", 8)]
)
def test_every_kind_of_norm_counts_in_both(kind, size):
    image = keras.Input((8,))
    one = keras.Model(image, KERAS_NORMS[kind]()(image))
    two = nn.Sequential(TORCH_NORMS[kind](8))
    for framework, model in ((named("keras"), one), (named("torch"), two)):
        assert framework.count(model) == {"parameters": size, "norm_parameters": size}


class BN(nn.BatchNorm2d):
    pass


class EvoNorm(nn.Module):  # its class's name says so, and nothing else does
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))


class ConvNormAct(nn.Sequential):
    pass


class NormLinear(nn.Linear):
    pass


class Statistics(kl.ReLU):
    moving_mean = moving_variance = 0.0


class OwnBN(kl.BatchNormalization):
    pass


class EvoNormLayer(kl.ReLU):
    pass


class NormDense(kl.Dense):
    pass


class NormNet(keras.Model):
    pass


def torch_norms():
    conv, spectral = nn.Conv2d(2, 3, 3), nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    block = ConvNormAct(conv, BN(3), EvoNorm(), nn.ReLU())
    return nn.Sequential(block, pool, spectral, NormLinear(3, 4))


def keras_norms():
    x = image = keras.Input((6, 6, 2))
    x = kl.Normalization(mean=0.0, variance=1.0)(x)
    for layer in (kl.Conv2D(3, 3), OwnBN(), Statistics(), EvoNormLayer()):
        x = layer(x)
    x = kl.SpectralNormalization(kl.Dense(3))(kl.Flatten()(x))
    return NormNet(image, NormDense(4)(x))


@pytest.mark.parametrize(
    ("name", "net", "kinds", "biases"),
    [
        ("torch", torch_norms, [BN, EvoNorm], 3 + 3 + 4),
        ("keras", keras_norms, [OwnBN, Statistics, EvoNormLayer], 3 + 3 + 4),
    ],
)
def test_norms_of_other_libraries_are_found_and_what_is_only_called_so_is_not(
    name, net, kinds, biases
):
    framework, model = named(name), net()
    assert [type(norm) for norm in framework.norms(model)] == kinds
    assert framework.biases(model) == biases


def test_the_momentum_keeps_the_same_share_in_both():
    (norm,) = named("keras").norms(keras_net())
    assert named("keras").momentum(norm, 0.9) == 0.9
    (norm,) = named("torch").norms(torch_net())
    assert named("torch").momentum(norm, 0.9) == pytest.approx(0.1)
    assert named("torch").momentum(torch.nn.LayerNorm(2), 0.9) is None


LOOKED_AT = """
import sys
from relucate.errors import InputError
from relucate.frameworks import framework_of, owner

assert owner(3) is None
assert not {"keras", "torch"} & set(sys.modules)
import torch

assert framework_of(torch.nn.Linear(1, 1)).name == "torch"
assert "keras" not in sys.modules
"""


def test_only_what_is_imported_already_is_looked_at():
    done = subprocess.run([sys.executable, "-c", LOOKED_AT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def own_settings():
    """Keras and PyTorch as a user may set them, put back afterwards."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    torch.set_default_dtype(torch.float32)


def test_seeding_starts_keras_names_again_and_keeps_what_the_user_set(own_settings):
    keras.config.set_dtype_policy("mixed_bfloat16")
    with keras.saving.custom_object_scope({"Own": kl.Dense}):
        for _ in range(2):
            named("keras").seed(3)
            layer = kl.Dense(2)
            assert layer.name == "dense"
            assert layer.compute_dtype == "bfloat16"
        assert keras.saving.get_registered_object("Own") is kl.Dense


def test_a_new_process_knows_all_settings_unless_the_user_set_one(own_settings):
    assert [named(name).settings() for name in FRAMEWORKS] == [{}, {}]
    keras.config.set_floatx("float64")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    torch.set_default_dtype(torch.float64)
    found = {name: named(name).settings() for name in FRAMEWORKS}
    assert found["keras"]["dtype_policy"] == "mixed_bfloat16"
    code = (
        "import relucate, keras, torch\n"
        "from relucate.frameworks import named\n"
        f"for name, settings in {found}.items():\n"
        "    named(name).use_settings(settings)\n"
        "    assert named(name).settings() == settings\n"
        "print(keras.layers.Dense(2).compute_dtype, torch.zeros(1).dtype)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bfloat16", "torch.float64"]


def test_seeding_starts_the_names_again_where_keras_has_moved_its_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras.src.utils.naming", None)
    for _ in range(2):
        named("keras").seed(3)
        assert kl.Dense(2).name == "dense"

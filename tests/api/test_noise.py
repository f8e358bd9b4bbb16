"""Networks that amplify rounding are compared layer by layer in float64."""

import keras
import ml_dtypes
import numpy as np
import pytest
import torch
from keras import layers as kl
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.surgery.verify import (
    LAYER_TOLERANCES,
    Certificate,
    Trail,
    amplifies,
    compare_layers,
    nudged,
)


def values(**layers):
    return {name: np.array(value, np.float64) for name, value in layers.items()}


def test_a_trail_exchanges_what_agrees_and_remembers_where_it_last_parted():
    trail = Trail(tolerance=1e-3)
    for name, value in values(a=[4.0, 1.0], b=[1.0, 2.0], c=[1.0, 2.0, 3.0]).items():
        trail.record(name, value)
    np.testing.assert_array_equal(trail.follow("x", np.array([4.002, 1.0])), [4.0, 1.0])
    assert trail.largest == pytest.approx(5e-4)
    far = np.array([4.0, 1.005])
    assert trail.follow("y", far) is far
    assert trail.follow("z", np.zeros((1, 2))).shape == (1, 2)
    assert (trail.count, trail.parted) == (1, "y")
    np.testing.assert_array_equal(trail.follow("w", np.array([1.0, 2.0, 3.0])), [1.0, 2.0, 3.0])
    assert (trail.count, trail.parted) == (2, None)
    assert trail.largest == pytest.approx(5e-4)


def test_the_best_of_several_that_agree_is_taken():
    trail = Trail(tolerance=1e-3)
    trail.record("a", np.array([1.0]))
    trail.record("b", np.array([1.0005]))
    assert trail.follow("x", np.array([1.0004])) == 1.0005


def stretched(error, gain=1e4):
    """Two layers: one that makes the error, and one that amplifies it."""

    def run(each):
        first = each("first", np.array([[1.0], [2.0]]) * (1 + error))
        return [each("second", np.sin(gain * first))]

    return run


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (5e-7, True), (3e-6, False)])
def test_errors_of_single_layers_are_not_amplified(error, passed):
    found = Certificate(0.1, 0.1, 1e-5, 8, "float32", False)
    made = compare_layers(stretched(0.0), stretched(error), found, noise=0.1)
    assert made.passed is passed
    assert made.decided is passed
    if passed:
        assert (made.basis, made.tolerance) == ("layers", 1e-6)
        assert made.max_rel == pytest.approx(error)
        assert "layer by layer in float64" in str(made)
    else:
        assert made.worst == "first"
        assert "NOT" not in str(made)
        assert "This doesn't say that they differ" in made.notes[0]


def test_nudged_inputs_differ_in_the_last_bit():
    floats, whole = np.float32([0, 1, -1]), np.array([1, 2])
    moved, same = nudged([floats, whole])
    assert np.all(moved > floats)
    assert np.allclose(moved, floats, rtol=2e-7, atol=1e-40)
    assert same is whole


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_inputs_are_nudged_as_the_model_rounds_them(dtype):
    numbers = np.float32([0.3, -5.0, 1024.0])
    (moved,) = nudged([numbers], np.inf, dtype)
    (back,) = nudged([numbers], -np.inf, dtype)
    kind = getattr(ml_dtypes, dtype, dtype)
    apart = (moved.astype(kind) - back.astype(kind)).astype(np.float64) / np.abs(numbers)
    bit = float(ml_dtypes.finfo(kind).eps)
    assert np.all((bit <= apart) & (apart <= 5 * bit))
    assert not amplifies(bit, dtype)
    assert amplifies(20 * bit, dtype)


def oscillating(shift=0.0):
    """Its activation is the sine of numbers in the thousands: rounding shows."""
    x = vector = keras.Input((6,))
    x = kl.BatchNormalization(name="norm")(kl.Dense(5, name="dense")(x))
    model = keras.Model(vector, kl.Dense(3, name="out")(keras.ops.sin(x)))
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "gamma" in weight.path:
            weight.assign(random.uniform(500, 1500, weight.shape))
        elif "variance" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(random.normal(size=weight.shape) + shift * ("moving" in weight.path))
    return model


def test_a_network_that_amplifies_rounding_is_folded_and_says_so():
    with pytest.warns(UserWarning, match="own rounding noise"):
        made, report = relucate.fold(oscillating())
    assert report.certificate.passed
    assert report.certificate.basis == "layers"
    assert 0 < report.certificate.max_rel < report.certificate.tolerance == 1e-6
    assert any("own rounding noise" in note for note in report.warnings)
    assert not [layer for layer in made.layers if "batch" in type(layer).__name__.lower()]


def test_an_explicit_tolerance_stays():
    model = oscillating()
    with pytest.warns(UserWarning, match="own rounding noise"):
        made, _ = relucate.fold(model)
    assert not relucate.verify(model, made, tolerance=1e-6).passed


def test_a_real_difference_is_still_seen():
    assert not relucate.verify(oscillating(), oscillating(shift=1e-3)).passed


def keras_chaos(middle=None):
    """Thirty layers: what the inputs' last bit does grows from one to the next."""
    x = vector = keras.Input((24,))
    for number in range(30):
        x = kl.Dense(24, name=f"dense{number}")(x)
        x = kl.BatchNormalization(name=f"norm{number}")(x)
        x = kl.Activation("tanh", name=f"act{number}")(x)
        if number == 10 and middle is not None:
            x = middle(x)
    model, random = keras.Model(vector, x), np.random.default_rng(0)
    for weight in model.weights:
        if "gamma" in weight.path or "variance" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(
                random.normal(size=weight.shape) * (0.6 if len(weight.shape) > 1 else 0.5)
            )
    return model


def torch_chaos(middle=None, depth=30):
    layers = []
    for number in range(depth):
        layers += [nn.Linear(24, 24), nn.BatchNorm1d(24), nn.Tanh()]
        if number == 10 and middle is not None:
            layers += [middle]
    model, random = nn.Sequential(*layers), np.random.default_rng(0)
    for name, tensor in model.state_dict().items():
        drawn = random.normal(size=tensor.shape) * (0.6 if tensor.ndim > 1 else 0.5)
        if "var" in name or (tensor.ndim == 1 and name.endswith("weight")):
            drawn = random.uniform(0.5, 1.5, tensor.shape)
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(drawn))
    return model.eval()


CHAOS = {"keras": (keras_chaos, None), "torch": (torch_chaos, (2, 24))}


def perturbed(model, layer):
    """Change the largest entry of a layer's bias by a tenth of a thousandth of its size."""
    if isinstance(model, keras.Model):
        bias = keras.ops.convert_to_numpy(model.get_layer(f"dense{layer}").bias).copy()
        bias[np.argmax(np.abs(bias))] *= 1 + 1e-4
        model.get_layer(f"dense{layer}").bias.assign(bias)
    else:
        bias = [m for m in model.modules() if isinstance(m, nn.Linear)][layer].bias.data
        bias[bias.abs().argmax()] *= 1 + 1e-4
    return model


@pytest.mark.parametrize("verb", ["fold", "convert"])
@pytest.mark.parametrize("framework", CHAOS)
def test_a_chaotic_network_is_certified_layer_by_layer(framework, verb):
    make, example = CHAOS[framework]
    model, order = make(), ("after",) if verb == "convert" else ()
    with pytest.warns(UserWarning, match="own rounding noise"):
        made, report = getattr(relucate, verb)(model, *order, example=example)
    found = report.certificate
    assert (found.passed, found.basis, found.dtype) == (True, "layers", "float32")
    assert found.max_rel < 1e-6 == found.tolerance
    assert "outputs (" in found.notes[-1]
    assert found.to_dict()["basis"] == "layers"
    assert relucate.verify(model, made, example=example).passed
    for layer in (29, 15, 0):
        made = perturbed(made, layer)
        assert not relucate.verify(model, made, example=example).passed


def biased(model, layer, factor):
    """Change the largest entry of a layer's bias by a factor."""
    bias = [m for m in model.modules() if isinstance(m, nn.Linear)][layer].bias.data
    bias[bias.abs().argmax()] *= factor
    return model


@pytest.mark.parametrize(
    ("dtype", "depth", "factor"),
    [("float16", 30, 1.05), ("bfloat16", 30, 1.4), ("float64", 80, 1 + 1e-11)],
)
def test_chaos_of_every_precision_is_compared_layer_by_layer(dtype, depth, factor):
    model = torch_chaos(depth=depth).to(getattr(torch, dtype))
    example = torch.zeros(2, 24, dtype=getattr(torch, dtype))
    with pytest.warns(UserWarning, match="own rounding noise"):
        made, report = relucate.fold(model, example=example)
    found = report.certificate
    assert (found.passed, found.basis, found.dtype) == (True, "layers", dtype)
    assert found.max_rel < found.tolerance == LAYER_TOLERANCES[dtype]
    wrong = relucate.verify(model, biased(made, 15, factor), example=example)
    assert not wrong.passed
    if dtype != "float64":  # there the difference is far above the rounding noise
        assert not wrong.decided
        assert "NOT" not in str(wrong)
        assert wrong.worst == "45"


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16"])
def test_chaos_of_a_keras_policy_is_compared_layer_by_layer(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_chaos()
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.warns(UserWarning, match="own rounding noise"):
        _, report = relucate.fold(model)
    assert report.certificate.basis == "layers"


def test_a_tame_network_in_half_precision_is_called_wrong_if_it_is():
    model = torch_chaos(depth=1)[:2].to(torch.bfloat16)
    example = torch.zeros(2, 24, dtype=torch.bfloat16)
    made, report = relucate.fold(model, example=example)
    assert (report.certificate.passed, report.certificate.basis) == (True, "outputs")
    wrong = relucate.verify(model, biased(made, 0, -1), example=example)
    assert (wrong.passed, wrong.decided) == (False, True)
    assert "NOT the same function" in str(wrong)


@pytest.mark.parametrize("framework", CHAOS)
def test_a_wrong_fold_of_a_chaotic_network_is_refused(framework, monkeypatch):
    from relucate.keras.framework import _ReadModel as keras_read
    from relucate.torch.framework import _ReadModel as torch_read

    read = {"keras": keras_read, "torch": torch_read}[framework]
    write, (make, example) = read.write, CHAOS[framework]
    monkeypatch.setattr(read, "write", lambda self, graph: perturbed(write(self, graph), 3))
    with pytest.raises(Refused, match="the result isn't returned"):
        relucate.fold(make(), example=example)


def test_a_layer_that_cannot_be_read_is_called_as_it_is():
    unread = kl.Lambda(lambda x: x * 1.5, name="unread", output_shape=(24,))
    with pytest.warns(UserWarning, match="own rounding noise"):
        _, report = relucate.fold(keras_chaos(unread))
    assert report.certificate.basis == "layers"


class Own(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(torch.diag_embed(x)).diagonal(dim1=-2, dim2=-1) - 1


def test_a_module_that_cannot_be_read_is_computed_in_float64_all_the_same():
    with pytest.warns(UserWarning, match="own rounding noise"):
        _, report = relucate.fold(torch_chaos(Own()), example=(2, 24), leaves=["33"])
    assert report.certificate.basis == "layers"


class Narrow(nn.Module):
    """Insists on float32, which a float64 copy can't give it: the Graph is computed instead."""

    def forward(self, x):
        return nn.functional.linear(x, torch.eye(24) * 1.5)


def test_a_forward_that_insists_on_float32_is_not_called_wrong():
    with pytest.raises(Refused, match="not known to be the same function") as caught:
        relucate.fold(torch_chaos(Narrow()), example=(2, 24), leaves=["33"])
    assert "This doesn't say that they differ" in str(caught.value)
    assert "lease report" not in str(caught.value)
    assert "NOT" not in str(caught.value)


class OwnNorm(kl.BatchNormalization):
    """A plain subclass, read as its base."""


def double(norm, shift=0.0, kind=kl.BatchNormalization):
    x = image = keras.Input((6, 6, 3), dtype="float64")
    x = kl.Conv2D(4, 3, padding="same", name="conv", dtype="float64")(x)
    if norm:
        x = kind(name="norm", dtype="float64")(x)
    x = kl.Conv2D(2, 3, padding="same", name="out", dtype="float64")(kl.ReLU(dtype="float64")(x))
    model, random = keras.Model(image, x), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape) + shift)
    return model


@pytest.mark.parametrize("kind", [kl.BatchNormalization, OwnNorm])
@pytest.mark.parametrize("verb", ["fold", "convert"])
def test_norms_of_a_float64_model_compute_in_float32_outside_of_tensorflow(verb, kind):
    order = ("after",) if verb == "convert" else ()
    with pytest.warns(UserWarning, match="computes the norms of a float64 model in float32"):
        made, report = getattr(relucate, verb)(double(norm=True, kind=kind), *order)
    assert report.certificate.dtype == "float32"
    assert 1e-9 < report.certificate.max_rel < 2e-6
    assert all(weight.dtype == "float64" for weight in made.weights)


def test_without_norms_float64_is_held_to_its_own_precision():
    assert relucate.verify(double(norm=False), double(norm=False)).tolerance == 1e-9
    assert not relucate.verify(double(norm=False), double(norm=False, shift=1e-7)).passed


class Cast(nn.Module):
    """Computes in bfloat16, with weights in float32."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x)


def test_a_model_that_casts_on_the_way_is_measured_by_what_it_computes_in():
    model = zoo.randomize(Cast(), 1).eval()
    made, report = relucate.fold(model, example=(2, 6))
    assert (report.certificate.passed, report.certificate.dtype) == (True, "bfloat16")
    wrong = relucate.fold(model, example=(2, 6))[0]
    with torch.no_grad():
        wrong.layers[0].weight.mul_(1.5)
    assert not relucate.verify(model, wrong, example=(2, 6)).passed
    x = torch.randn(3, 6)
    torch.testing.assert_close(made.layers(x), model.layers(x), rtol=1e-4, atol=1e-5)

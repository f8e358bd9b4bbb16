"""Networks that amplify rounding: verified against their own noise, never beyond it."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.surgery.verify import Certificate, allow_noise, nudged


def certificate(max_rel):
    return Certificate(max_rel, max_rel, 1e-5, 8, "float32", max_rel <= 1e-5)


@pytest.mark.parametrize(
    ("found", "noise", "passed"),
    [(1.2e-5, 9e-6, True), (4e-5, 9e-6, False), (2e-5, 1e-7, False), (2e-3, 1.0, False),
     (np.inf, np.inf, False), (np.nan, 1.0, False)],
)  # fmt: skip
def test_four_times_the_noise_is_allowed(found, noise, passed):
    made = allow_noise(certificate(found), certificate(noise))
    assert made.passed is passed
    assert any("is allowed instead" in note for note in made.notes) is passed


def test_what_is_too_noisy_to_tell_is_said():
    made = allow_noise(certificate(2e-3), certificate(1.0))
    assert not made.passed
    assert "last bit" in made.notes[0]
    assert "float32 can't tell" in made.notes[0]


def test_nudged_inputs_differ_in_the_last_bit():
    floats, whole = np.float32([0, 1, -1]), np.array([1, 2])
    moved, same = nudged([floats, whole])
    assert np.all(moved > floats)
    assert np.allclose(moved, floats, rtol=2e-7, atol=1e-40)
    assert same is whole


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
    assert 1e-5 < report.certificate.max_rel < report.certificate.tolerance <= 1e-3
    assert any("own rounding noise" in note for note in report.warnings)
    assert not [layer for layer in made.layers if "batch" in type(layer).__name__.lower()]


def test_an_explicit_tolerance_stays():
    model = oscillating()
    with pytest.warns(UserWarning, match="own rounding noise"):
        made, _ = relucate.fold(model)
    assert not relucate.verify(model, made, tolerance=1e-6).passed


def test_a_real_difference_is_still_seen():
    assert not relucate.verify(oscillating(), oscillating(shift=1e-3)).passed


def double(norm, shift=0.0):
    x = image = keras.Input((6, 6, 3), dtype="float64")
    x = kl.Conv2D(4, 3, padding="same", name="conv", dtype="float64")(x)
    if norm:
        x = kl.BatchNormalization(name="norm", dtype="float64")(x)
    x = kl.Conv2D(2, 3, padding="same", name="out", dtype="float64")(kl.ReLU(dtype="float64")(x))
    model, random = keras.Model(image, x), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape) + shift)
    return model


@pytest.mark.parametrize("verb", ["fold", "convert"])
def test_norms_of_a_float64_model_compute_in_float32_outside_of_tensorflow(verb):
    order = ("after",) if verb == "convert" else ()
    with pytest.warns(UserWarning, match="computes the norms of a float64 model in float32"):
        made, report = getattr(relucate, verb)(double(norm=True), *order)
    assert report.certificate.dtype == "float32"
    assert 1e-9 < report.certificate.max_rel < 2e-6
    assert all(weight.dtype == "float64" for weight in made.weights)


def test_without_norms_float64_is_held_to_its_own_precision():
    assert relucate.verify(double(norm=False), double(norm=False)).tolerance == 1e-9
    assert not relucate.verify(double(norm=False), double(norm=False, shift=1e-7)).passed

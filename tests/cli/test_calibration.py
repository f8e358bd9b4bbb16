"""The examples of --data: standardised exactly as compare trains on them."""

import numpy as np
import pytest

from relucate.cli.transforming import calibration
from relucate.data import load
from relucate.train.standard import Standard

torch = pytest.importorskip("torch")

from relucate.torch.batches import batches  # noqa: E402

KINDS = {
    "feature vectors": ((7,), np.float32),
    "images": ((6, 5, 3), np.float32),
    "images of bytes": ((6, 5, 3), np.uint8),
    "sequences": ((12, 4), np.float32),
}


@pytest.fixture(params=KINDS)
def archive(request, tmp_path):
    """Data whose channels and features have very different spreads."""
    shape, dtype = KINDS[request.param]
    random = np.random.default_rng(0)
    spread = np.linspace(0.02, 3.0, shape[-1])
    x = (random.normal(size=(90, *shape)) * spread + 4 * spread).clip(0, 200).astype(dtype)
    path = tmp_path / "data.npz"
    y = np.arange(90) % 3
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return f"npz:{path}"


@pytest.mark.parametrize("raw", [False, True])
def test_they_are_what_compare_trains_on(archive, raw):
    found = calibration(archive, 60, raw, torch.nn.Identity())
    part, _ = batches(load(archive), device=torch.device("cpu"), channels_first=True,
                      standardize=not raw)  # fmt: skip
    np.testing.assert_array_equal(found, part.inputs(slice(0, 60)).numpy())


def test_fewer_examples_keep_the_whole_training_sets_statistics(archive):
    data = load(archive)
    found = calibration(archive, 20, False, torch.nn.Identity())
    expected = Standard.of(data.x_train)(data.subset(20).x_train)
    expected = expected if expected.ndim < 4 else np.moveaxis(expected, -1, 1)
    np.testing.assert_array_equal(found, expected)


def test_a_model_that_scales_its_inputs_gets_them_unscaled(archive):
    import keras

    shape = load(archive).input_shape
    net = keras.Sequential([keras.Input(shape), keras.layers.Rescaling(0.5), keras.layers.Dense(2)])
    found = calibration(archive, 60, False, net)
    np.testing.assert_array_equal(found, calibration(archive, 60, True, net))

"""Convolutions and pools with explicit padding against PyTorch; with Keras's words in
tests/keras/test_layers.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

RANDOM = np.random.default_rng(0)


def image(*shape):
    return RANDOM.normal(size=shape)


def torch_of(function, x, *arrays, **options):
    """Call a PyTorch function on channels-last x with Keras's kernel layout turned."""
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
    y = function(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), *tensors, **options)
    return np.moveaxis(y.numpy(), 1, -1)


def test_conv_with_pairs_is_torchs_padding(apply):
    x, kernel, bias = image(2, 7, 6, 4), image(3, 2, 2, 6), image(6)
    attrs = {"strides": (2, 1), "dilation": (1, 2), "groups": 2}
    got = apply(
        "conv", x, arrays={"kernel": kernel, "bias": bias}, padding=((2, 2), (1, 1)), **attrs
    )
    options = {"stride": (2, 1), "dilation": (1, 2), "groups": 2, "padding": (2, 1)}
    expected = torch_of(F.conv2d, x, kernel.transpose(3, 2, 0, 1), bias, **options)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_uneven_pairs_put_their_zeros_where_they_say(apply):
    x, kernel = np.arange(1.0, 5.0).reshape(1, 4, 1), np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    causal = {"strides": (1,), "padding": ((2, 0),), "dilation": (1,)}
    got = apply("conv", x, arrays={"kernel": kernel}, **causal)
    np.testing.assert_array_equal(got.ravel(), [100, 210, 321, 432])


def test_depthwise_with_pairs(apply):
    x, kernel = image(2, 6, 5, 3), image(3, 3, 3, 2)
    attrs = {"strides": (2, 2), "padding": ((1, 1), (0, 0))}
    got = apply("depthwise_conv", x, arrays={"kernel": kernel}, **attrs)
    turned = kernel.transpose(2, 3, 0, 1).reshape(6, 1, 3, 3)
    expected = torch_of(F.conv2d, x, turned, stride=2, padding=(1, 0), groups=3)
    np.testing.assert_allclose(got, expected, atol=1e-12)


TRANSPOSED = [
    # stride, padding, output_padding, dilation, groups
    ((1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((2, 3), (1, 0), (1, 2), (1, 1), 1),
    ((2, 2), (1, 1), (0, 1), (1, 2), 2),
    ((3, 1), (2, 1), (2, 0), (2, 1), 2),
]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("stride", "padding", "extra", "dilation", "groups"), TRANSPOSED)
def test_conv_transpose_with_pairs_is_torchs(
    apply, first, stride, padding, extra, dilation, groups
):
    x, kernel, bias = image(2, 4, 5, 4), image(3, 2, 3, 4), image(3 * groups)
    attrs = {
        "strides": stride,
        "padding": tuple((p, p) for p in padding),
        "output_padding": extra,
        "dilation": dilation,
        "groups": groups,
        "data_format": "channels_first" if first else "channels_last",
    }
    arrays = {"kernel": kernel, "bias": bias}
    got = apply("conv_transpose", np.moveaxis(x, -1, 1) if first else x, arrays=arrays, **attrs)
    got = np.moveaxis(got, 1, -1) if first else got
    options = {"stride": stride, "padding": padding, "output_padding": extra}
    turned = kernel.transpose(3, 2, 0, 1)
    function = F.conv_transpose2d
    expected = torch_of(function, x, turned, bias, dilation=dilation, groups=groups, **options)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_conv_transpose_is_the_gradient_of_a_convolution(apply):
    x, kernel = image(1, 6, 2), image(3, 2, 5)
    attrs = {"strides": (2,), "padding": "valid", "dilation": (1,)}
    y = apply("conv", x, arrays={"kernel": kernel}, **attrs)
    direction = image(*y.shape)
    back = apply("conv_transpose", direction, arrays={"kernel": kernel}, **attrs)
    assert np.sum(y * direction) == pytest.approx(np.sum(x[:, : back.shape[1]] * back))


POOLS = [
    # size, window, stride, padding
    ((6, 7), (3, 2), (2, 3), (0, 0)),
    ((6, 7), (3, 2), (2, 3), (1, 1)),
    ((5, 5), (2, 2), (3, 3), (1, 0)),
    ((8, 4), (3, 3), (3, 2), (1, 1)),
    ((4, 9), (2, 3), (1, 4), (0, 1)),
]


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("size", "window", "stride", "padding"), POOLS)
def test_pools_with_pairs_are_torchs(apply, ceil, size, window, stride, padding):
    x = image(2, *size, 3)
    attrs = {
        "window": window,
        "strides": stride,
        "padding": tuple((p, p) for p in padding),
        "ceil_mode": ceil,
    }
    options = {"kernel_size": window, "stride": stride, "padding": padding, "ceil_mode": ceil}
    expected = torch_of(F.max_pool2d, x, **options)
    np.testing.assert_array_equal(apply("max_pool", x, **attrs), expected)
    for counted in (False, True):
        expected = torch_of(F.avg_pool2d, x, count_include_pad=counted, **options)
        got = apply("avg_pool", x, count_include_pad=counted, **attrs)
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_max_pool_with_dilation(apply):
    x = image(2, 9, 8, 3)
    attrs = {"window": (3, 2), "strides": (1, 2), "dilation": (2, 3), "ceil_mode": True}
    got = apply("max_pool", x, padding=((1, 1), (1, 1)), **attrs)
    options = {"stride": (1, 2), "dilation": (2, 3), "padding": 1, "ceil_mode": True}
    np.testing.assert_array_equal(got, torch_of(F.max_pool2d, x, kernel_size=(3, 2), **options))


def test_einsum_and_embedding(apply):
    x, kernel, bias = image(2, 5, 3), image(3, 4, 2), image(4, 2)
    got = apply("einsum", x, arrays={"kernel": kernel, "bias": bias}, equation="abc,cde->abde")
    np.testing.assert_allclose(got, np.tensordot(x, kernel, 1) + bias)
    got = apply("einsum", x, arrays={"kernel": kernel[0]}, equation="...ab,cd->...bc")
    np.testing.assert_allclose(got[1, 2], x[1, :, 2].sum() * kernel[0].sum(1))
    table = image(7, 3)
    got = apply("embedding", np.array([[0, 6], [3, 3]]), arrays={"table": table})
    np.testing.assert_array_equal(got, table[[[0, 6], [3, 3]]])

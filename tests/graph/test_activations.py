"""Activations against PyTorch's, attribute by attribute; Keras's are in tests/keras."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4, 6)) * 2

TORCH = {
    "threshold": ({"threshold": 0.3, "value": -7.0}, lambda x: F.threshold(x, 0.3, -7.0)),
    "rrelu": ({"lower": 0.1, "upper": 0.4}, lambda x: F.rrelu(x, 0.1, 0.4)),
    "glu": ({}, lambda x: F.glu(x, -1)),
    "glu-axis": ({"axis": 1}, lambda x: F.glu(x, 1)),
    "hard_tanh": ({"min_value": -0.3, "max_value": 2.0}, lambda x: F.hardtanh(x, -0.3, 2.0)),
    "hard_tanh-plain": ({}, F.hardtanh),
    "softplus": ({"beta": 3.0, "threshold": 1.0}, lambda x: F.softplus(x, 3.0, 1.0)),
    "softplus-plain": ({}, F.softplus),
    "celu": ({"alpha": 0.4}, lambda x: F.celu(x, 0.4)),
    "softmax": ({"axis": 1}, lambda x: torch.softmax(x, 1)),
    "log_softmax": ({"axis": 1}, lambda x: torch.log_softmax(x, 1)),
}


@pytest.mark.parametrize("case", TORCH)
def test_attributes_are_torchs(apply, case):
    attrs, function = TORCH[case]
    got = apply(case.split("-")[0], X, **attrs)
    np.testing.assert_allclose(got, function(torch.from_numpy(X)).numpy(), atol=1e-12)


def test_softmax_over_several_axes(apply):
    flat = torch.softmax(torch.from_numpy(X).reshape(3, 24), 1).reshape(X.shape).numpy()
    np.testing.assert_allclose(apply("softmax", X, axis=(1, 2)), flat, atol=1e-12)
    np.testing.assert_allclose(apply("log_softmax", X, axis=[1, 2]), np.log(flat), atol=1e-12)


def test_sparsemax_is_the_nearest_point_of_the_simplex(apply):
    x = np.array([[0.5, 0.2, -1.0], [3.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
    expected = np.array([[0.65, 0.35, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(apply("sparsemax", x), expected, atol=1e-12)
    np.testing.assert_allclose(apply("sparsemax", x.T, axis=0).T, expected, atol=1e-12)


def test_prelu_broadcasts_or_runs_along_an_axis(apply):
    x, alpha = torch.from_numpy(X), RANDOM.uniform(0, 1, 4)
    expected = F.prelu(x, torch.from_numpy(alpha)).numpy()
    got = apply("prelu", X, arrays={"alpha": alpha}, axis=1)
    np.testing.assert_allclose(got, expected)
    np.testing.assert_allclose(apply("prelu", X, arrays={"alpha": alpha[:, None]}), expected)
    one = apply("prelu", X, arrays={"alpha": alpha[:1]}, axis=1)
    np.testing.assert_allclose(one, F.prelu(x, torch.from_numpy(alpha[:1])).numpy())

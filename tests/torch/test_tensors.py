"""Tensors of an edited graph in the modules of a copied model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from relucate.errors import Refused
from relucate.torch import read
from relucate.torch.writing.tensors import refit


def test_a_computed_weight_keeps_its_shape():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    graph = read(nn.Sequential(conv), (1, 3, 6, 6))
    node = graph.nodes["0"]
    before = conv.weight.detach().clone()
    refit(conv, replace(node, arrays={"kernel": node.arrays["kernel"]}), graph)
    assert conv.bias is None
    assert torch.equal(conv.weight, before)
    wider = {**graph.tensors, node.arrays["kernel"]: np.ones((3, 3, 4, 4))}
    with pytest.raises(Refused, match=r"'0' computes its weight .* one of shape \(4, 4, 3, 3\)"):
        refit(conv, node, replace(graph, tensors=wider))

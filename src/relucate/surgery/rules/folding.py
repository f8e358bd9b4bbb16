"""Rules about how other tools fold the model's norms."""

from __future__ import annotations

from collections.abc import Iterator

from ...graph import Graph, Node
from ...graph.padding import adds_zeros
from ...phrases import some
from ..paths import is_transparent
from .affine import pads
from .rule import Facts, Hit, rule


@rule("N501", "padded-fold", "note")
def padded_fold(facts: Facts) -> Iterator[Hit]:
    """A batch norm in front of a zero-padded convolution: most tools fold it wrongly or not.

    ## What it finds

    A batch norm that can't be folded into the linear layer before it, with a zero-padded
    convolution right behind it. That is `linear-act-norm` in a network with `padding="same"`, and a
    norm on the input.

    ## Why

    At inference a norm is `s·x + t` per channel. Folding it into the next convolution as `W·s` and
    `b + ΣW·t` assumes that every tap meets t. At the border the taps on the padding meet zeros
    instead, so the folded layer is wrong on the rim of every feature map. The inside is exact,
    which is why tests on averages miss it.

    Several tools fold it so anyway, others refuse. Read in the sources, as of 2026: AIMET for
    Keras, nnabla and TinyNeuralNetwork don't look at the padding; AIMET for PyTorch refuses, Sony's
    MCT folds 1x1 kernels only, the former TOCO of TensorFlow Lite folds the shift only without
    padding.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(4, 3, padding="same", activation="relu"), kl.BatchNormalization(name="bn"),
        kl.Conv2D(4, 3, padding="same", name="next"),
    ])
    found = relucate.audit(net, select=["N501"]).findings[0]
    found.where  # 'bn'
    found.message.split(":")[0]  # 'its shift meets the zero padding of next'
    ```

    ## Fix

    If the norm has to go, fold it with a tool that is exact at the border, or keep it. Folding the
    scale alone is always exact. A network that will be folded is easier to build with the norm
    before its activation, or without padding.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(4, 3, padding="same", use_bias=False), kl.BatchNormalization(), kl.ReLU(),
        kl.Conv2D(4, 3, padding="same"),
    ])
    len(relucate.audit(net, select=["N501"]).findings)  # 0
    ```

    ```python
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
    )
    ```

    ## When it is fine

    - The norm stays where it is. Nothing is wrong with the network itself.

    Not reported: `valid` convolutions and 1x1 kernels; an activation between norm and convolution,
    because then nothing folds forward; a norm that folds backwards; batch statistics at inference.
    To leave the rule out: `--ignore N501`.

    ## Reference

    - Ding, Zhang, Han and Ding, *Diverse Branch Block*, 2021: pads with the norm's own shift, so
      that merging stays exact.
    - Yvinec, Dapogny and Bailly, *To Fold or Not to Fold: a Necessary and Sufficient Condition on
      Batch-Normalization Layers Folding*, 2022.
    """
    for site in facts.sites:
        node = facts.node(site)
        fixed = "moving_mean" in node.arrays and not node.attrs.get("forced")
        if site.kind != "batch" or not fixed or _folds_back(facts, node):
            continue
        convs = [
            end.node.layer_name
            for end in facts.paths.ahead(node.name)
            if end.kind == "linear" and _zero_padded(facts.graph, end.node, node.name)
        ]
        if convs:
            yield Hit(
                site.name,
                f"its shift meets the zero padding of {some(convs)}: W·(s·x + t) is not a "
                "convolution of x with one bias at the border",
                "fold it with a tool that is exact at the border, or keep the norm for inference",
            )


def _folds_back(facts: Facts, norm: Node) -> bool:
    """Return whether the linear layer before could take the norm, alone and exactly."""
    graph, name = facts.graph, norm.inputs[0]
    while len(graph.consumers[name]) == 1 and name not in graph.outputs:
        node = graph.nodes[name]
        if node.kind == "linear":
            return not facts.shared(node)
        if not _commutes(graph, node, *norm.counted([norm.attrs["axis"]])):
            return False
        name = node.inputs[0]
    return False


def _commutes(graph: Graph, node: Node, axis: int) -> bool:
    """Return whether any scale and shift of the channels along `axis` pass a node at inference."""
    what, shift = node.operation, node.operation.shift_of(node.attrs)
    if what.kind == "merge" or (what.moves_axes and what.kind != "pool"):
        return False
    if node.op == "slice" and graph.nodes[node.inputs[0]].shape[axis] != node.shape[axis]:
        return False  # it takes some of the channels
    averages = node.op == "avg_pool" and not pads(graph, node)
    commutes = what.scale_of(node.attrs) == "any" and (shift == "commutes" or averages)
    return commutes or node.op == "rescale"


def _zero_padded(graph: Graph, conv: Node, norm: str) -> bool:
    node = graph.nodes[conv.inputs[0]]
    while node.name != norm and is_transparent(node):
        constant = node.operation.shift_of(node.attrs) == "borders"
        if node.operation.kind == "pad" and constant and adds_zeros(node.attrs["padding"]):
            return True
        node = graph.nodes[node.inputs[0]]
    return conv.operation.pads and pads(graph, conv)

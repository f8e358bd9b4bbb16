"""A network as plain data: nodes in topological order, edges by name, weights as NumPy arrays.

A Graph says what is computed, not by which framework: readers (`relucate.keras.read`,
`relucate.torch.read`) make it, planners and `relucate.torch.lower` consume it, `graph.evaluate` is
its slow and obvious meaning. What a reader doesn't know becomes an `opaque` node: kept, never
guessed at. Not here: any framework, any decision.

Attributes by op (axes count the batch axis; with `time_distributed` they count without the time
axis, which the op doesn't see):

    conv, depthwise_conv    strides, dilation, groups, data_format, padding: "valid", "same" or
                            ((before, after), ...) zeros per spatial axis; kernel (*window,
                            in / groups, out), depthwise (*window, channels, multiplier); bias
    conv_transpose          the same, with output_padding: None or one number per axis; given pairs
                            say how much of the full output is cut off; kernel (*window,
                            out / groups, in)
    dense                   over the last axis; kernel (in, out); bias
    einsum                  equation; kernel; bias (broadcasts against the output)
    attention               its own projections inside: known, not evaluated
    batch_norm              axis, epsilon, momentum (share of the old that is kept; None: cumulative
                            average), frozen, renorm, synchronized, forced (the `training` that the
                            call insists on, or None); gamma, beta, moving_mean, moving_variance
                            (without the two: batch statistics at inference too)
    instance_norm           axis, epsilon; gamma, beta, moving_mean, moving_variance
    layer_norm, rms_norm    axes, epsilon; gamma, beta (over the axes in ascending order);
                            rms_norm with rms_scaling: Keras's, divides by the standard deviation
    group_norm              groups, axis, epsilon; gamma, beta
    unit_norm               axes, epsilon: x / max(‖x‖₂, epsilon)
    lrn                     known, not evaluated
    max_pool, avg_pool      window, strides, padding as conv, data_format, dilation, ceil_mode,
                            count_include_pad
    global_*_pool           axes, keepdims
    reduce                  function (sum, mean, max, min, prod, var, std), axes, keepdims
    zero_pad                padding: ((before, after), ...) per spatial axis, data_format
    pad                     mode (constant, reflect, symmetric, edge, wrap), value, padding,
                            data_format
    crop                    cropping: ((before, after), ...) per spatial axis, data_format
    slice                   axis, start, stop, step
    upsample                factors, data_format; resize: method, data_format (not evaluated)
    reshape                 target (without the batch axis); permute: dims (without it);
    flatten                 data_format: "channels_first" moves the channels last first
    rescale                 scale, offset: numbers; affine: arrays scale, offset (one or both), as
                            they broadcast
    prelu                   alpha as it broadcasts, or along axis where that is given
    other activations       negative_slope, alpha, threshold, max_value, axis (softmax: one or
                            several) as Keras has them; hard_tanh min_value, max_value; threshold
                            threshold, value; rrelu lower, upper; softplus beta, threshold;
                            sparsemax with form "keras": not the published one, not evaluated
    concat                  axis; other merges: fill_axis (None: NumPy's broadcasting)
    embedding               arrays table; matmul, dot: known, not evaluated
    dropout and its like    rate, forced; dropout: spatial (the channel axis), noise_shape
    constant                array value, the same for each example of its input (a class token);
                            its batch axis has size one
    opaque                  type, why; rearranges: it only moves values, across the batch axis;
                            norms: names of the norm layers inside
    any linear op           reparametrized: "spectral_norm", "weight_norm", ... (kernel is the
                            result), quantized, lora: why its kernel isn't a plain variable
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

LINEAR = frozenset({"conv", "depthwise_conv", "conv_transpose", "dense", "einsum"})
NORM = frozenset(
    {"batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "unit_norm", "lrn"}
)
DROP = frozenset({"dropout", "alpha_dropout", "gaussian_dropout", "stochastic_depth"})
_ACTIVATIONS = """
relu relu6 leaky_relu prelu elu selu celu gelu silu hard_silu mish sigmoid hard_sigmoid log_sigmoid
tanh hard_tanh tanh_shrink soft_shrink hard_shrink threshold softplus softsign squareplus
exponential softmax log_softmax glu sparsemax sparse_plus sparse_sigmoid rrelu
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
# They mix channels, or change how many there are: not the elementwise step that an order moves.
MIXING = frozenset({"softmax", "log_softmax", "glu", "sparsemax"})
MERGES = frozenset("add subtract multiply divide average maximum minimum concat".split())
POOLS = frozenset({"max_pool", "avg_pool", "global_max_pool", "global_avg_pool"})
PADS = frozenset({"zero_pad", "pad"})
SHAPERS = PADS | frozenset("flatten reshape permute crop slice upsample resize".split())
OTHER = frozenset(
    "input identity constant rescale affine reduce gaussian_noise embedding matmul dot attention "
    "opaque".split()
)
OPS = LINEAR | NORM | DROP | ACTIVATIONS | MERGES | POOLS | SHAPERS | OTHER

_KINDS = {"linear": LINEAR, "norm": NORM, "act": ACTIVATIONS, "drop": DROP}


@dataclass(frozen=True)
class Node:
    """One computation of one call of one layer.

    A layer with a fused activation gives two nodes with the same `layer`; a layer that is called
    twice gives one node per call, told apart by `call`, which name the same tensors.
    """

    name: str  # unique in the graph
    op: str  # one of OPS
    inputs: tuple[str, ...]  # names of the nodes that it reads
    shape: tuple[int | None, ...]  # of its output, batch axis first
    layer: str = ""  # the layer that it came from
    call: int = 0  # which call of that layer
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)  # role -> key in Graph.tensors

    @property
    def kind(self) -> str:
        """`linear`, `norm`, `act`, `drop` (the tokens of an order) or `other`."""
        return next((kind for kind, ops in _KINDS.items() if self.op in ops), "other")


def is_floating(array: np.ndarray) -> bool:
    """Return whether an array holds floating numbers, bfloat16 (no type of NumPy's own) too."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


@dataclass(frozen=True)
class Penalty:
    """l1 · Σ|w| + l2 · Σw² over one tensor, added to the training loss (Keras regularizers)."""

    tensor: str
    l1: float
    l2: float


@dataclass(frozen=True)
class Graph:
    """A whole network. `nodes` keeps topological order; `tensors` has Keras's layouts (above)."""

    name: str
    nodes: Mapping[str, Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    trainable: frozenset[str] = frozenset()
    penalties: tuple[Penalty, ...] = ()
    hazards: tuple[str, ...] = ()  # why training it elsewhere would not be the same training
    framework: str = "keras"  # of the source: how its users spell things
    masked: frozenset[str] = frozenset()  # nodes whose values carry a mask (Keras's Masking)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """For each node's name, the names of the nodes that read it (once per use)."""
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self:
            for source in node.inputs:
                readers[source].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

    @property
    def opaque(self) -> tuple[Node, ...]:
        """The nodes that the reader didn't know."""
        return tuple(node for node in self if node.op == "opaque")

    @property
    def hidden_norms(self) -> dict[str, tuple[str, ...]]:
        """The norm layers inside layers that the reader didn't know, by layer: no nodes here."""
        found = ((node.layer or node.name, node.attrs.get("norms")) for node in self.opaque)
        return {layer: tuple(norms) for layer, norms in found if norms}

    def count_parameters(self, kind: str | None = None) -> int:
        """Number of trainable scalars, of all layers or of those of one kind (`norm`, ...)."""
        keys = self.trainable
        if kind is not None:
            keys = keys & {key for n in self if n.kind == kind for key in n.arrays.values()}
        return sum(int(self.tensors[key].size) for key in keys)

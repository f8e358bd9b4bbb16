"""A norm in parallel with a linear layer: the identity branch of re-parameterisable blocks.

    (K * x + b) + (s · x + t)  =  (K + s δ) * x + (b + t)

δ is 1 at the tap that reads the position of the output itself (the centre of a 3 x 3 kernel with
"same" padding), from each channel to itself, and 0 elsewhere. Exact where layer and norm read the
same x, the layer keeps its size and its channels, and nothing else reads a value on the way to the
sum. The norm's term then disappears from the sum. Called by `fold`.

Sources: Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021; Vasu et al., MobileOne:
An Improved One Millisecond Mobile Backbone, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..graph import Node
from ..graph.padding import explicit_padding
from . import algebra
from .channels import Blocked, Channels, check_linear, check_untimed
from .draft import Draft

_LAYERS = ("conv", "depthwise_conv", "dense")


def absorb_parallel(draft: Draft, calls: Sequence[str], channels: Channels) -> str:
    """Take a norm (all its calls) out of a draft and let a parallel linear layer absorb it.

    Returns: the layer that absorbed it, "" if no linear layer reads the norm's input and is added
        to its output; then the draft is unchanged.
    """
    found = [_parallel(draft, name, channels) for name in calls]
    for first in found[0]:
        shared = draft.sharing(draft.nodes[first])
        if _fits_all(draft, shared, found):
            _absorb(draft, first, channels, found[0][first])
            for name in calls:
                _take_out(draft, name)
            return draft.nodes[first].layer_name
    return ""


def _fits_all(draft: Draft, shared: frozenset[str], found: Sequence[Mapping[str, float]]) -> bool:
    """Return whether the calls of one layer are in parallel with a norm's, one with each."""
    partners = [name for parallel in found for name in parallel if name in shared]
    weights = {parallel[name] for parallel in found for name in parallel if name in shared}
    tensors = {tuple(sorted(draft.nodes[name].arrays.items())) for name in shared}
    one_each = len(partners) == len(found) and all(shared & parallel.keys() for parallel in found)
    return one_each and set(partners) == shared and len(weights) == len(tensors) == 1


def _absorb(draft: Draft, name: str, channels: Channels, weight: float) -> None:
    node, bias = draft.nodes[name], draft.array(draft.nodes[name], "bias")
    kernel, tap = draft.array(node, "kernel"), _own_tap(draft, node)
    if kernel is None or tap is None:
        raise Blocked(f"'{node.layer}' has no kernel")
    kernel = algebra.add_identity(node, kernel, tap, weight * channels.scale)
    draft.set_array(name, "kernel", kernel)
    if channels.shifts:
        shift = weight * channels.shift
        draft.set_array(name, "bias", shift if bias is None else bias + shift)


def _take_out(draft: Draft, name: str) -> None:
    """Remove a norm, what passes its value on unchanged, and the term that this is of a sum."""
    branch = [name]
    while (reader := draft.readers(branch[-1])[0]).op == "identity":
        branch.append(reader.name)
    draft.drop_input(reader.name, branch[-1])
    for node in reversed(branch):
        draft.remove(node)


def _parallel(draft: Draft, name: str, channels: Channels) -> dict[str, float]:
    """Return the linear layers that can absorb one call of a norm, with s's factor for each.

    It is -1 where the norm's term and the layer's have opposite signs.
    """
    norm, found, weight = draft.nodes[name], {}, 1.0
    source = _unwrapped(draft, norm.inputs[0])
    if not _is_term(draft, norm):
        return {}
    while len(readers := draft.readers(name)) == 1 and name not in draft.outputs:
        (node,) = readers
        if node.op in ("add", "subtract"):
            weight *= _sign(node, node.inputs.index(name))
            for place, other in enumerate(node.inputs):
                for layer, factor in _terms(draft, other, _sign(node, place)):
                    if other != name and _fits(draft, layer, source, channels):
                        found[layer.name] = weight / factor
        elif node.op != "identity":
            break
        name = node.name
    return found


def _is_term(draft: Draft, norm: Node) -> bool:
    """Return whether a sum would be the same without a norm's output, but for that term."""
    name = norm.name
    if name in draft.source.masked or norm.attrs.get("time_distributed"):
        return False
    while len(readers := draft.readers(name)) == 1 and name not in draft.outputs:
        (node,) = readers
        if node.op != "identity":
            others = [draft.nodes[other] for other in node.inputs if other != name]
            adds = node.op == "add" or (node.op == "subtract" and node.inputs[1] == name)
            return adds and all(other.shape == node.shape for other in others)
        name = node.name
    return False


def _sign(node: Node, place: int) -> float:
    return -1.0 if node.op == "subtract" and place else 1.0


def _terms(draft: Draft, name: str, weight: float) -> Iterator[tuple[Node, float]]:
    """Yield the linear layers of which a value is the sum, each with its factor (not 0)."""
    node = draft.nodes[name]
    if len(draft.readers(name)) != 1 or name in draft.outputs or not weight:
        return
    if node.op in _LAYERS:
        yield node, weight
    elif node.op in ("add", "subtract"):
        for place, source in enumerate(node.inputs):
            yield from _terms(draft, source, weight * _sign(node, place))
    elif node.op == "rescale":
        yield from _terms(draft, node.inputs[0], weight * node.attrs["scale"])
    elif _adds_constant(node):
        yield from _terms(draft, node.inputs[0], weight)


def _adds_constant(node: Node) -> bool:
    """Return whether a node adds a constant, maybe 0, at inference."""
    fixed = node.op == "affine" and set(node.arrays) == {"offset"}
    drops = node.kind == "drop" and not node.attrs.get("forced")
    return fixed or drops or node.op == "identity"


def _fits(draft: Draft, layer: Node, source: str, channels: Channels) -> bool:
    """Return whether a layer reads x, and its output has x's size and channels, in place."""
    try:
        check_untimed(layer)
        check_linear(draft, layer, channels)
    except Blocked:
        return False
    kernel = draft.array(layer, "kernel")
    if kernel is None or _own_tap(draft, layer) is None or _read(draft, layer) != source:
        return False
    inputs, outputs = kernel.shape[-2:]
    groups = layer.attrs.get("groups", 1)
    kept = outputs == 1 if layer.op == "depthwise_conv" else inputs * groups == outputs
    return kept and len(channels.scale) == (inputs if layer.op == "depthwise_conv" else outputs)


def _own_tap(draft: Draft, layer: Node) -> tuple[int, ...] | None:
    """Return the tap that reads the position of the output; None if sizes or positions change.

    With `before` zeros and a dilation d it is before / d, per axis.
    """
    if layer.op == "dense":
        return ()
    window = draft.tensors[layer.arrays["kernel"]].shape[:-2]
    ones = (1,) * len(window)
    dilation = layer.attrs.get("dilation") or ones
    if tuple(layer.attrs["strides"]) != ones:
        return None
    # With a stride of one, "same" adds as many zeros at any size.
    padding = explicit_padding(layer.attrs["padding"], window, window, ones, dilation)
    pad = _padding_before(draft, layer)
    around = pad.attrs["padding"] if pad else [(0, 0)] * len(window)
    tap = []
    for (before, after), more, size, step in zip(padding, around, window, dilation, strict=True):
        before, after = before + more[0], after + more[1]
        if before + after != (size - 1) * step or before % step:
            return None
        tap.append(before // step)
    return tuple(tap)


def _padding_before(draft: Draft, layer: Node) -> Node | None:
    """Return the layer that pads zeros to the image that a convolution reads, if there is one."""
    node = draft.nodes[layer.inputs[0]]
    same = node.attrs.get("data_format") == layer.attrs.get("data_format")
    timed = node.attrs.get("time_distributed")
    return node if node.op == "zero_pad" and same and not timed else None


def _read(draft: Draft, layer: Node) -> str:
    pad = _padding_before(draft, layer) if layer.op != "dense" else None
    return _unwrapped(draft, (pad or layer).inputs[0])


def _unwrapped(draft: Draft, name: str) -> str:
    while draft.nodes[name].op == "identity":
        name = draft.nodes[name].inputs[0]
    return name

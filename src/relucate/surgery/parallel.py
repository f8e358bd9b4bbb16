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
from dataclasses import dataclass, replace

from ..graph import Node
from ..graph.padding import explicit_padding
from . import algebra
from .channels import Blocked, Channels, check_linear, check_separable
from .draft import Draft

_LAYERS = ("conv", "depthwise_conv", "dense")


@dataclass(frozen=True)
class _Branch:
    """A norm's call and what passes its value on, up to a sum.

    channels: what the branch does to x as a whole; the sum adds it.
    """

    source: str
    nodes: tuple[str, ...]
    sum: str
    channels: Channels


def absorb_parallel(draft: Draft, calls: Sequence[str], channels: Channels) -> str:
    """Take a norm (all its calls) out of a draft and let a parallel linear layer absorb it.

    Returns: the layer that absorbed it, "" if no linear layer reads the norm's input and is added
        to its output; then the draft is unchanged.
    """
    branches = [branch for name in calls if (branch := _branch(draft, name, channels))]
    if len(branches) < len(calls):
        return ""
    found = [_partners(draft, branch) for branch in branches]
    for first, shares in found[0].items():
        if _fits_all(draft, draft.sharing(draft.nodes[first]), found):
            _absorb(draft, draft.nodes[first], shares)
            for branch in branches:
                draft.drop_input(branch.sum, branch.nodes[-1])
                for name in reversed(branch.nodes):
                    draft.remove(name)
            return draft.nodes[first].layer_name
    return ""


def _branch(draft: Draft, name: str, channels: Channels) -> _Branch | None:
    """Return what leads from a norm to a sum that would be the same but for that term."""
    norm, nodes = draft.nodes[name], [name]
    if name in draft.source.masked:
        return None
    while len(readers := draft.readers(name)) == 1 and name not in draft.outputs:
        (node,) = readers
        if node.op in ("add", "subtract"):
            others = [draft.nodes[other] for other in node.inputs if other != name]
            adds = node.op == "add" or node.inputs[1] == name
            if not adds or any(other.shape != node.shape for other in others):
                return None
            return _Branch(_unwrapped(draft, norm.inputs[0]), tuple(nodes), node.name, channels)
        if node.op == "rescale":
            factor, offset = node.attrs["scale"], node.attrs["offset"]
            channels = _times(channels, factor)
            channels = replace(channels, shift=channels.shift + offset)
        elif node.op != "identity":
            return None
        name = node.name
        nodes.append(name)
    return None


def _times(channels: Channels, factor: float) -> Channels:
    return replace(channels, scale=channels.scale * factor, shift=channels.shift * factor)


def _partners(draft: Draft, branch: _Branch) -> dict[str, Channels]:
    """Return the linear layers that can absorb a branch, and the scale and shift for each.

    They change their sign where the branch's term and the layer's have opposite ones.
    """
    found, weight, name = {}, 1.0, branch.nodes[-1]
    while len(readers := draft.readers(name)) == 1 and name not in draft.outputs:
        (node,) = readers
        if node.op in ("add", "subtract"):
            weight *= _sign(node, node.inputs.index(name))
            for place, other in enumerate(node.inputs):
                for layer, factor in _terms(draft, other, _sign(node, place)):
                    if other != name and _fits(draft, layer, branch):
                        found[layer.name] = _times(branch.channels, weight / factor)
        elif node.op == "rescale":
            weight *= node.attrs["scale"]
        elif node.op != "identity":
            break
        name = node.name
    return found


def _fits_all(
    draft: Draft, shared: frozenset[str], found: Sequence[Mapping[str, Channels]]
) -> bool:
    """Return whether the calls of one layer are in parallel with a norm's, one with each."""
    own = [(name, shares) for one in found for name, shares in one.items() if name in shared]
    tensors = {tuple(sorted(draft.nodes[name].arrays.items())) for name in shared}
    one_each = len(own) == len(found) and all(shared & one.keys() for one in found)
    same = all(shares.equals(own[0][1]) for _, shares in own)
    return one_each and same and len(tensors) == 1 and {name for name, _ in own} == shared


def _absorb(draft: Draft, node: Node, channels: Channels) -> None:
    kernel, bias, tap = (
        draft.array(node, "kernel"),
        draft.array(node, "bias"),
        _own_tap(draft, node),
    )
    if kernel is None or tap is None:
        raise Blocked(f"'{node.layer}' has no kernel")
    draft.set_array(node.name, "kernel", algebra.add_identity(node, kernel, tap, channels.scale))
    if channels.shifts:
        draft.set_array(
            node.name, "bias", channels.shift if bias is None else bias + channels.shift
        )


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


def _fits(draft: Draft, layer: Node, branch: _Branch) -> bool:
    """Return whether a layer reads x, and its output has x's size and channels, in place."""
    try:
        check_separable(layer)
        check_linear(draft, layer, branch.channels)
    except Blocked:
        return False
    kernel = draft.array(layer, "kernel")
    if kernel is None or _own_tap(draft, layer) is None or _read(draft, layer) != branch.source:
        return False
    inputs, outputs = kernel.shape[-2:]
    if layer.op == "depthwise_conv":
        return outputs == 1
    return inputs * layer.attrs.get("groups", 1) == outputs


def _own_tap(draft: Draft, layer: Node) -> tuple[int, ...] | None:
    """Return the tap that reads the position of the output; None if sizes or positions change.

    With `before` padded values and a dilation d it is before / d, per axis; it reads none of them.
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
        cuts = min(more) < 0  # values at the border would be lost
        before, after = before + more[0], after + more[1]
        if cuts or before + after != (size - 1) * step or before % step:
            return None
        tap.append(before // step)
    return tuple(tap)


def _padding_before(draft: Draft, layer: Node) -> Node | None:
    """Return the layer that pads the image that a convolution reads, if there is one."""
    node = draft.nodes[layer.inputs[0]]
    same = node.attrs.get("data_format") == layer.attrs.get("data_format")
    same = same and node.time_axes == layer.time_axes
    return node if node.op in ("zero_pad", "pad") and same else None


def _read(draft: Draft, layer: Node) -> str:
    pad = _padding_before(draft, layer) if layer.op != "dense" else None
    return _unwrapped(draft, (pad or layer).inputs[0])


def _unwrapped(draft: Draft, name: str) -> str:
    while draft.nodes[name].op == "identity":
        name = draft.nodes[name].inputs[0]
    return name

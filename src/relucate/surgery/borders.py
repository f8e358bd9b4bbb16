"""Borders: how a norm's shift passes zero padding on its way into the linear layers behind it.

    W (s · x + t) + b  =  (W s) x + b + W t

A convolution that reads only x takes W t into its bias. At a zero-padded border it reads zeros too,
which are not shifted: there W t must be computed with the zeros, or the shift must stay where it
is. Each class below is one way to do that, and `BORDERS` is the table that `strategy=` chooses
from; `auto` takes the cheapest way that is possible. To add a way, write a subclass of `Border`
and add it to the table: nothing else needs to know its name.

Called by `fold`. Not here: borders of norms that go backwards (a shift of outputs needs none).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arguments import one_of
from ..graph import Graph, Node
from ..graph.conventions import conventions
from ..graph.evaluate import evaluate
from . import algebra
from .channels import Absorption, Blocked, Channels, ahead, check_shared
from .draft import Draft, SiteResult


@dataclass(frozen=True)
class Crossing:
    """A norm's scale and shift on their way ahead into linear layers.

    Attributes:
        calls: the norm's nodes, still in the draft.
        channels: the scale and the shift.
        plan: one absorption for each layer that takes them; those with `border` have padded zeros
            in between.
    """

    draft: Draft
    calls: tuple[str, ...]
    channels: Channels
    plan: tuple[Absorption, ...]

    @property
    def borders(self) -> tuple[Absorption, ...]:
        """The absorptions with padded zeros in between."""
        return tuple(absorption for absorption in self.plan if absorption.border)

    def point(self, absorption: Absorption) -> Node:
        """Return the node whose value a layer, or the zero_pad that belongs to it, reads."""
        nodes = self.draft.nodes
        return nodes[nodes[absorption.pad or absorption.node].inputs[0]]

    def is_masked(self, names: Iterable[str]) -> bool:
        """Return whether the value of one of these nodes carries a mask."""
        return not self.draft.source.masked.isdisjoint(names)


def crossing(draft: Draft, calls: Sequence[str], channels: Channels) -> Crossing:
    """Return how a norm's scale and shift reach the linear layers behind it.

    Raises: Blocked: they don't reach any, or such a layer is used elsewhere too.
    """
    found = _merged([a for name in calls for a in ahead(draft, name, channels)])
    check_shared(draft, found)
    meets = {name for a in found if a.border for name in draft.sharing(draft.nodes[a.node])}
    # One kernel: what it absorbs for one call it absorbs for all.
    plan = tuple(replace(a, border=a.border or a.node in meets) for a in found)
    return Crossing(draft, tuple(calls), channels, plan)


def _merged(plan: Sequence[Absorption]) -> list[Absorption]:
    """Make one of all absorptions of a layer: they are about different channels of its input."""
    found: dict[str, Absorption] = {}
    for absorption in plan:
        if absorption.node in found:
            first = found[absorption.node]
            one, two = first.channels, absorption.channels
            scale, shift = one.scale * two.scale, one.shift + two.shift
            absorption = replace(
                absorption,
                channels=Channels(scale, shift, two.axis),
                border=first.border or absorption.border,
            )
        found[absorption.node] = absorption
    return list(found.values())


class Border(ABC):
    """A way to absorb a norm whose shift meets padded zeros.

    Attributes:
        name: its name as a `strategy=`.
        exact: whether the result computes the same function, borders included.
    """

    name: str
    exact = True

    def is_automatic(self, norm: Crossing) -> bool:
        """Return whether `auto` may take it; by default it is taken only by name."""
        return False

    def why_not(self, norm: Crossing) -> str:
        """Return why it can't be used here, "" if it can."""
        return ""

    @abstractmethod
    def cost(self, norm: Crossing) -> int:
        """Return how many values per example it moves at inference."""

    @abstractmethod
    def apply(self, norm: Crossing) -> Sequence[Absorption]:
        """Edit the draft so that the norm can be removed from it.

        Inserted nodes have `added_for`, by which later walks recognise them.
        Returns: what is left to absorb as plain weights, kernel and bias.
        """

    def warning(self, graph: Graph, layers: Sequence[str]) -> str:
        """Return what users of the new graph have to know if it was used for these norms, or ""."""
        return ""


class LayerBorder(Border):
    """A way that corrects each layer behind the padding separately.

    A layer's kernel W becomes W s; K = W t, the kernel that a constant one needs, comes in by
    `correct`, tap by tap.
    """

    @abstractmethod
    def correct(
        self, norm: Crossing, absorption: Absorption, kernel: np.ndarray, taps: np.ndarray
    ) -> np.ndarray:
        """Add what K = `taps` makes of ones, and return the layer's new kernel.

        Args: kernel: W s, (*window, in / groups, out); taps: K, (*window, 1, out); both in
            Keras's layouts and in float64.
        """

    def apply(self, norm: Crossing) -> Sequence[Absorption]:
        """Correct each layer; the calls of a reused one start from the same kernel."""
        draft, kernels = norm.draft, {}
        for absorption in norm.borders:
            node, channels = draft.nodes[absorption.node], absorption.channels
            kernel = draft.array(node, "kernel")
            if kernel is None:
                raise Blocked(f"'{node.layer}' has no kernel")
            taps = algebra.shift_kernel(node, kernel, channels.shift)
            scaled = algebra.scale_inputs(node, kernel, channels.scale)
            kernels[node.name] = self.correct(norm, absorption, scaled, taps)
        for name, kernel in kernels.items():
            draft.set_array(name, "kernel", kernel)
        return [absorption for absorption in norm.plan if not absorption.border]


class Map(LayerBorder):
    """Add K 1, the convolution of the constant shift, computed now for images of this size."""

    name = "map"

    def is_automatic(self, norm: Crossing) -> bool:
        """Return whether the model takes images of one size only anyway."""
        return not conventions(norm.draft.source).sized_by_example

    def why_not(self, norm: Crossing) -> str:
        """Return the reason if the size of the images isn't known."""
        unknown = any(None in _image_of(norm, a) for a in norm.borders)
        return "the strategy map needs a known image size" if unknown else ""

    def cost(self, norm: Crossing) -> int:
        """Return the number of values behind the layers, where the addition is."""
        return sum(_size(norm.draft.nodes[absorption.node].shape) for absorption in norm.borders)

    def correct(
        self, norm: Crossing, absorption: Absorption, kernel: np.ndarray, taps: np.ndarray
    ) -> np.ndarray:
        """Add the response to ones as an offset behind the layer."""
        node = norm.draft.nodes[absorption.node]
        first = node.attrs.get("data_format") == "channels_first"
        spatial = tuple(int(size or 0) for size in _image_of(norm, absorption))
        values = _response(norm, absorption, taps, spatial)
        norm.draft.insert_behind(
            node.name,
            "affine",
            f"{node.layer}_border",
            arrays={"offset": np.moveaxis(values, -1, 0) if first else values},
            trainable=False,
            added_for=node.name,
        )
        return kernel

    def warning(self, graph: Graph, layers: Sequence[str]) -> str:
        """Return a sentence if the model took images of any size before."""
        if not conventions(graph).sized_by_example:
            return ""
        return (
            "the strategy map fixes the size of the images: the result takes those of the "
            f"example's size only ({', '.join(layers)})."
        )


class Ones(LayerBorder):
    """Put a channel of ones next to x, padded with zeros like the rest; its taps are K."""

    name = "ones"

    def why_not(self, norm: Crossing) -> str:
        """Return the reason unless plain convolutions alone read the channels, without a mask."""
        if masked := _masked(norm):
            return masked
        if all(self._fits(norm, absorption) for absorption in norm.borders):
            return ""
        return "the strategy ones needs plain convolutions (no groups, not transposed)"

    def _fits(self, norm: Crossing, absorption: Absorption) -> bool:
        node = norm.draft.nodes[absorption.node]
        if node.op != "conv" or node.attrs.get("groups", 1) != 1:
            return False
        if absorption.pad is None:
            return True
        together = {a.node for a in norm.borders if a.pad == absorption.pad}
        return {reader.name for reader in norm.draft.readers(absorption.pad)} == together

    def cost(self, norm: Crossing) -> int:
        """Return the number of values with one channel more: all are copied."""
        readers = self._readers(norm).values()
        return sum(_size(_widened(norm.point(a), a.channels.axis)) for a in readers)

    def _readers(self, norm: Crossing) -> dict[str, Absorption]:
        """Return the readers of the further channel: layers, and a zero_pad once for its layers."""
        found: dict[str, Absorption] = {}
        for absorption in norm.borders:
            found.setdefault(absorption.pad or absorption.node, absorption)
        return found

    def apply(self, norm: Crossing) -> Sequence[Absorption]:
        """Append the channel, then give each layer its taps."""
        for reader, absorption in self._readers(norm).items():
            self._append(norm, absorption, reader)
        return super().apply(norm)

    def correct(
        self, norm: Crossing, absorption: Absorption, kernel: np.ndarray, taps: np.ndarray
    ) -> np.ndarray:
        """Return the kernel with the taps of the further channel."""
        return np.concatenate([kernel, taps], axis=-2)

    def _append(self, norm: Crossing, absorption: Absorption, reader: str) -> None:
        draft, point, axis = norm.draft, norm.point(absorption), absorption.channels.axis
        node = draft.nodes[absorption.node]
        ones = _ones(norm, absorption)
        draft.insert(
            "concat",
            f"{node.layer}_with_ones",
            [point.name, ones],
            _widened(point, axis),
            attrs={"axis": axis},
            before=[reader],
            added_for=node.name,
        )
        if absorption.pad:
            draft.change(absorption.pad, shape=_widened(draft.nodes[absorption.pad], axis))


class Branch(LayerBorder):
    """Add a convolution of a channel of ones by K behind the layer."""

    name = "branch"

    def why_not(self, norm: Crossing) -> str:
        """Return the reason if a mask passes there."""
        return _masked(norm)

    def cost(self, norm: Crossing) -> int:
        """Return the number of values that the further convolution makes and that it adds."""
        return 2 * sum(_size(norm.draft.nodes[a.node].shape) for a in norm.borders)

    def correct(
        self, norm: Crossing, absorption: Absorption, kernel: np.ndarray, taps: np.ndarray
    ) -> np.ndarray:
        """Add the branch; the layer itself gets the scaled kernel."""
        draft, node = norm.draft, norm.draft.nodes[absorption.node]
        source = _ones(norm, absorption)
        if absorption.pad:
            pad = draft.nodes[absorption.pad]
            shape = _with_channels(pad, absorption.channels.axis, 1)
            label = f"{node.layer}_ones_padded"
            source = draft.insert(
                "zero_pad", label, [source], shape, attrs=pad.attrs, added_for=node.name
            )
        op, attrs = _of_one_channel(node)
        border = draft.insert(
            op,
            f"{node.layer}_border",
            [source],
            node.shape,
            attrs=attrs,
            arrays={"kernel": taps},
            added_for=node.name,
        )
        label = f"{node.layer}_with_border"
        draft.insert_behind(node.name, "add", label, others=[border], added_for=node.name)
        return kernel


class Shift(Border):
    """Fold the scale alone; x + t / s stays in the norm's place, before the zeros are padded."""

    name = "shift"

    def is_automatic(self, norm: Crossing) -> bool:
        """Return True: it works for images of any size."""
        return True

    def why_not(self, norm: Crossing) -> str:
        """Return the reason if a mask passes the norm."""
        lost = "a mask passes the norm, which the addition of its shift would lose"
        return lost if norm.is_masked(norm.calls) else ""

    def cost(self, norm: Crossing) -> int:
        """Return the number of values in the norm's place, where the addition is."""
        return sum(_size(norm.draft.nodes[name].shape) for name in norm.calls)

    def apply(self, norm: Crossing) -> Sequence[Absorption]:
        """Leave a shift, where s = 0 the constant t; the layers behind absorb s, else 1.

        A rescale on the way can make a shift of a scale; that one gets a branch.
        """
        draft, zero = norm.draft, norm.channels.scale == 0
        scale = np.where(zero, 1.0, norm.channels.scale)
        shift, kept = norm.channels.shift / scale, np.where(zero, 0.0, 1.0)
        rest = crossing(
            draft, norm.calls, replace(norm.channels, scale=scale, shift=np.zeros_like(scale))
        )
        branch = BORDERS["branch"]
        if rest.borders and (reason := branch.why_not(rest)):
            raise Blocked(reason)
        for name in norm.calls:
            node = draft.nodes[name]
            arrays = {"offset": along(node, norm.channels.axis, shift)}
            if np.any(zero):
                arrays["scale"] = along(node, norm.channels.axis, kept)
            label = f"{node.layer_name}_shift"
            draft.insert_behind(
                name, "affine", label, arrays=arrays, trainable=False, added_for=name
            )
        return branch.apply(rest) if rest.borders else rest.plan


class Approximate(Border):
    """Take the shift into the bias, as if the zeros were shifted too: wrong at the border."""

    name = "approximate"
    exact = False

    def cost(self, norm: Crossing) -> int:
        """Return zero."""
        return 0

    def apply(self, norm: Crossing) -> Sequence[Absorption]:
        """Edit nothing: let every layer absorb the shift."""
        return [replace(absorption, border=False, pad=None) for absorption in norm.plan]


BORDERS: dict[str, Border] = {
    border.name: border for border in (Map(), Ones(), Branch(), Shift(), Approximate())
}


def strategies() -> tuple[str, ...]:
    """Return what `strategy` may be."""
    return ("auto", *BORDERS)


def check_strategy(strategy: str) -> None:
    """Raise InputError if there is no such strategy."""
    one_of(strategy, "strategy", strategies())


def is_exact(strategy: str | None) -> bool:
    """Return whether a strategy promises the same function."""
    return strategy not in BORDERS or BORDERS[strategy].exact


def choose(norm: Crossing, strategy: str) -> Border:
    """Return the border of that name; for `auto` the exact one that moves fewest values.

    Of two that move as many, `auto` takes the first of the table.
    Raises: Blocked: it can't be used here, or none can.
    """
    if strategy in BORDERS:
        offered = [BORDERS[strategy]]
    else:
        offered = [b for b in BORDERS.values() if b.exact and b.is_automatic(norm)]
    reasons = [border.why_not(norm) for border in offered]
    if all(reasons):
        raise Blocked("; ".join(reasons))
    free = [border for border, reason in zip(offered, reasons, strict=True) if not reason]
    return min(free, key=lambda border: border.cost(norm))


def warnings_of(graph: Graph, outcomes: Iterable[SiteResult]) -> tuple[str, ...]:
    """Return what users of a graph have to know about the borders in it."""
    layers: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.strategy:
            layers.setdefault(outcome.strategy, []).append(f"'{outcome.name}'")
    found = (BORDERS[name].warning(graph, named) for name, named in layers.items())
    return tuple(warning for warning in found if warning)


# Shared by the classes.


def along(node: Node, axis: int, values: np.ndarray) -> np.ndarray:
    """Return values per channel as they broadcast against one example of a node."""
    return values.reshape([-1 if a == axis else 1 for a in range(1, len(node.shape))])


def _size(shape: Sequence[int | None]) -> int:
    return int(np.prod([size or 1 for size in shape[1:]]))


def _masked(norm: Crossing) -> str:
    """Return why no channel of ones can be made, else ""."""
    masked = norm.is_masked(norm.point(absorption).name for absorption in norm.borders)
    return "a mask passes there, which the channel of ones would lose" if masked else ""


def _image_of(norm: Crossing, absorption: Absorption) -> tuple[int | None, ...]:
    """Return the sizes of the images that a layer, or the zero_pad that belongs to it, reads."""
    shape, axis = norm.point(absorption).shape, absorption.channels.axis
    first = 1 + norm.draft.nodes[absorption.node].time_axes
    return tuple(size for at, size in enumerate(shape) if at >= first and at != axis)


def _with_channels(node: Node, axis: int, channels: int) -> tuple[int | None, ...]:
    """Return a node's shape with another number of channels."""
    return (*node.shape[:axis], channels, *node.shape[axis + 1 :])


def _widened(node: Node, axis: int) -> tuple[int | None, ...]:
    return _with_channels(node, axis, (node.shape[axis] or 0) + 1)


def _ones(norm: Crossing, absorption: Absorption) -> str:
    """Insert a channel that is one everywhere, in standard operations: 0 · x[..., :1] + 1."""
    draft, axis = norm.draft, absorption.channels.axis
    node, point = draft.nodes[absorption.node], norm.point(absorption)
    shape = _with_channels(point, axis, 1)
    cut = {"axis": axis, "start": 0, "stop": 1, "step": 1}
    label = f"{node.layer}_channel"
    channel = draft.insert("slice", label, [point.name], shape, attrs=cut, added_for=node.name)
    attrs = {"scale": 0.0, "offset": 1.0}
    label = f"{node.layer}_ones"
    return draft.insert("rescale", label, [channel], shape, attrs=attrs, added_for=node.name)


def _of_one_channel(node: Node) -> tuple[str, dict[str, Any]]:
    """Return op and attributes of the same layer for one input channel."""
    op = "conv" if node.op == "depthwise_conv" else node.op
    return op, {**node.attrs, "groups": 1}


_PLAIN = {"data_format": "channels_last", "time_distributed": False}


def _response(
    norm: Crossing, absorption: Absorption, taps: np.ndarray, spatial: tuple[int, ...]
) -> np.ndarray:
    """Return what the layer with kernel `taps` makes of ones: (*output, channels)."""
    nodes, shape, last = norm.draft.nodes, (None, *spatial, 1), "x"
    made = {"x": Node("x", "input", (), shape)}
    if absorption.pad:
        attrs = {**nodes[absorption.pad].attrs, **_PLAIN}
        made["pad"] = Node("pad", "zero_pad", ("x",), shape, attrs=attrs)
        last = "pad"
    op, attrs = _of_one_channel(nodes[absorption.node])
    attrs |= _PLAIN
    made["y"] = Node("y", op, (last,), shape, attrs=attrs, arrays={"kernel": "kernel"})
    graph = Graph("border", made, ("x",), ("y",), {"kernel": taps})
    (values,) = evaluate(graph, np.ones((1, *spatial, 1)))
    return values[0]

"""Rules about parameters that are redundant or missing: biases, and a norm's own scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...graph import Graph, Node
from ...graph.axes import norm_axes
from ...graph.padding import adds_zeros, explicit_padding
from ...phrases import some
from ..sites import Site
from .axes import bias_axis, carried, input_axis
from .rule import CHANNEL_NORMS, Facts, Hit, rule


@rule("N101", "redundant-bias", "warning")
def redundant_bias(facts: Facts) -> Iterator[Hit]:
    """A bias right before a norm that subtracts the mean per channel: it has no effect.

    ## What it finds

    A bias whose layer is followed by a norm that subtracts the mean of each channel: batch norm,
    instance norm, group norm with as many groups as channels. Nothing else may see the bias: every
    path from the layer ends in such a norm. Layers between the bias and the norm are ignored if
    they leave a per-channel constant unchanged: max pools, averages without counted zeros, crops,
    reshapes, sums and joins along the channels.

    ## Why

    `norm(W·x + b)` subtracts the mean of `W·x + b`, and `b` goes with it. The parameter does
    nothing in training. At inference the moving mean holds it, and subtracts it again. It costs
    memory, and an optimizer keeps moving it.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(8, 3, name="conv"), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    found = relucate.audit(net, select=["N101"]).findings[0]
    found.where  # 'conv'
    found.message  # 'its bias (8 parameters) is subtracted again by bn'
    ```

    ## Fix

    Leave the bias out: `use_bias=False` in Keras, `bias=False` in PyTorch. The norm's beta does its
    work.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(8, 3, use_bias=False), kl.BatchNormalization(), kl.ReLU(),
    ])
    len(relucate.audit(net, select=["N101"]).findings)  # 0
    ```

    ```python
    from torch import nn

    block = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    ```

    In a model that is trained already, `moving_mean - b` has to become the new moving mean.

    ## When it is fine

    - Weights must fit a file that has the bias.
    - The bias is kept so that a tool can fold the norm into it later.

    Not reported: a frozen norm, or one that is called with `training=False`, because it subtracts a
    fixed mean. Layer norm, RMS norm and group norm with fewer groups than channels, because they
    don't take a bias per channel away. Batch renormalization, because its correction lags behind.
    To leave the rule out: `--ignore N101`.

    ## Reference

    - Ioffe and Szegedy, *Batch Normalization*, 2015, section 3.2.
    - Goodfellow, Bengio and Courville, *Deep Learning*, 2016, section 8.7.1.
    """
    layers: dict[str, list[Node]] = {}
    for node in facts.graph:
        if node.kind == "linear" and "bias" in node.arrays:
            layers.setdefault(node.arrays["bias"], []).append(node)
    for key, nodes in layers.items():
        norms = [_cancelling(facts, node) for node in nodes]
        if all(norms) and facts.users[key] == len(nodes):
            count = facts.graph.tensors[key].size
            where = nodes[0].layer_name
            takers = some(dict.fromkeys(norm.layer_name for found in norms for norm in found))
            yield Hit(
                where,
                f"its bias ({count} parameters) is subtracted again by {takers}",
                facts.say("use_bias=False", "bias=False") + f" in {where}",
                parameters=int(count),
            )


def _cancelling(facts: Facts, node: Node) -> list[Node]:
    """Return the norms that cancel this call's bias, none if anything else sees it."""
    graph, found = facts.graph, []
    waiting = [(node.name, bias_axis(graph, node))]
    seen = {node.name}
    while waiting:
        name, axis = waiting.pop()
        if name in graph.outputs or axis is None:
            return []
        for reader in graph.consumers[name]:
            follower = graph.nodes[reader]
            if _cancels(facts, follower, axis):
                found.append(follower)
            elif not _keeps_constant(graph, follower, axis):
                return []
            elif reader not in seen:
                seen.add(reader)
                waiting.append((reader, carried(graph, follower, axis)))
    return found


def _cancels(facts: Facts, norm: Node, axis: int) -> bool:
    if norm.name not in facts.by_node or not norm.centers_channels:
        return False
    attrs = norm.attrs
    fixed = attrs.get("frozen") or attrs.get("forced") is False or attrs.get("renorm")
    return not fixed and norm_axes(norm) == (axis,)


def _keeps_constant(graph: Graph, node: Node, axis: int) -> bool:
    """Return whether what is added per channel before `node` is still that behind it."""
    attrs, what = node.attrs, node.operation
    shift = what.shift_of(attrs)
    if node.op == "concat":
        return _along(node, axis)
    if what.kind == "merge":  # one of its inputs has the constant
        same = all(graph.nodes[name].shape == node.shape for name in node.inputs)
        return what.scale == "any" and same
    if what.training in ("multiplies", "other"):
        idle = not attrs.get("rate") or attrs.get("forced") is False
        return shift == "commutes" and idle
    if node.op == "avg_pool" and shift == "borders":  # zeros that count pull the borders down
        return not pads(graph, node)
    return shift in ("commutes", "constant")


def _along(concat: Node, axis: int) -> bool:
    return concat.attrs["axis"] % len(concat.shape) == axis


@rule("N102", "missing-bias", "warning")
def missing_bias(facts: Facts) -> Iterator[Hit]:
    """A linear layer without bias whose activation comes before the norm: it can't be shifted.

    (a note in `norm-linear-act`)

    ## What it finds

    A linear layer without a bias whose activation follows it directly, in a block with a norm
    somewhere else: `linear-act-norm`, or `norm-linear-act` with a batch, instance or group norm.

    ## Why

    The rule "no bias where there is a norm" holds only of a norm that directly follows the layer.
    Many libraries apply it to any order. In `linear-act-norm` the norm comes after the activation:
    its beta can't decide where the activation switches on. Without a bias each unit switches at
    zero. What the norm of the block before adds reaches it only through the kernel, and not as one
    number per unit.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(8, 3, use_bias=False, activation="relu", name="conv"),
        kl.BatchNormalization(name="bn"),
    ])
    found = relucate.audit(net, select=["N102"]).findings[0]
    found.message  # 'has no bias, but relu follows it directly: bn comes too late to shift it'
    found.fix  # 'use_bias=True in conv'
    ```

    ## Fix

    Give the layer its bias: `use_bias=True` in Keras (the default), `bias=True` in PyTorch (the
    default).

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(8, 3, activation="relu"), kl.BatchNormalization(),
    ])
    len(relucate.audit(net, select=["N102"]).findings)  # 0
    ```

    ```python
    from torch import nn

    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8))
    ```

    In mmcv say `ConvModule(..., bias=True, order=("conv", "act", "norm"))`, in fastai
    `ConvLayer(..., bias=True, bn_1st=False)`.

    ## When it is fine

    - The input of the layer is normalized and wide: then the beta before it, through the kernel,
      can shift most units. Such networks train. That is why `norm-linear-act` is a note.
    - A shift is left out on purpose, for example to keep a network homogeneous.

    Not reported: `norm-linear-act` with a layer or RMS norm, because some transformers
    omit biases on purpose; a layer with a learned shift of its own behind it. To leave the rule
    out: `--ignore N102`.

    ## Reference

    - mmcv, `ConvModule(bias="auto")`, and fastai, `ConvLayer(bias=None)`: any norm removes the
      bias, in every order (source as of 2026).
    - MONAI, issue 2768: drop it only if the norm comes first.
    """
    seen: set[str] = set()
    for site in facts.sites:
        if not _norm_out_of_reach(site) or site.act_node is None:
            continue
        for name in site.linears:
            node = facts.graph.nodes[name]
            where = node.layer_name
            if node.op == "attention" or "bias" in node.arrays or where in seen:
                continue
            if not _feeds(facts, node, site.act_node):
                continue
            seen.add(where)
            late = site.order == "linear-act-norm"
            yield Hit(
                where,
                f"has no bias, but {site.act_op} follows it directly: {site.name} "
                + ("comes too late to shift it" if late else "shifts its input only"),
                facts.say("use_bias=True", "bias=True") + f" in {where}",
                None if late else "note",
            )


def _norm_out_of_reach(site: Site) -> bool:
    # Behind a layer norm a bias is left out on purpose, as in many transformers.
    before = site.order == "norm-linear-act" and site.kind in CHANNEL_NORMS
    return site.order == "linear-act-norm" or before


def _feeds(facts: Facts, linear: Node, act: str) -> bool:
    """Return whether the activation takes this layer's output, with no shift in between."""
    if all(end.node.name != act for end in facts.paths.ahead(linear.name)):
        return False
    source = facts.paths.source(facts.graph.nodes[act])
    between = facts.paths.between(source, linear.name)
    return not any(node.op == "affine" and "offset" in node.arrays for node in between)


@rule("N103", "absorbable-scale", "note")
def absorbable_scale(facts: Facts) -> Iterator[Hit]:
    """A gamma that the next linear layer could take over: it adds parameters, not functions.

    ## What it finds

    The gamma of a batch, instance or group norm that only linear layers take, with nothing between
    that a scale can't pass: at most activations of the relu family, pools, reshapes, zero padding,
    dropout. The kernels behind could hold gamma as well.

    ## Why

    For positive s, `relu(s·x) = s·relu(x)`, and `W·(s·y) = (W·s)·y`. So a network without this
    gamma computes the same functions with fewer parameters. Through an activation or a max pool
    that holds up to the sign of gamma; the message counts the negative ones.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(8, 3, use_bias=False), kl.BatchNormalization(name="bn"), kl.ReLU(),
        kl.Conv2D(4, 3, name="next"),
    ])
    found = relucate.audit(net, select=["N103"]).findings[0]
    found.message  # 'its gamma (8 parameters) could be absorbed by next through relu'
    ```

    ## Fix

    `scale=False` in Keras. PyTorch's batch norm has `affine=False`, which drops beta too; keep it
    there if you want beta.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(8, 3, use_bias=False), kl.BatchNormalization(scale=False), kl.ReLU(),
        kl.Conv2D(4, 3),
    ])
    len(relucate.audit(net, select=["N103"]).findings)  # 0
    ```

    ```python
    from torch import nn

    norm = nn.BatchNorm2d(8, affine=False)  # no gamma and no beta: the next layer needs its bias
    ```

    ## When it is fine

    Nearly always: it is a note. Gamma changes how a network trains but not what it can compute.
    Weight decay acts on it apart from the kernel, and a gamma that starts at zero opens a branch
    slowly. Most published networks keep it; Keras's Inception v3 and TF-slim leave it out.

    Not reported: a gamma that a sum, another norm, an output or a gate takes; a norm or a next
    layer that is called twice; kernels under spectral or weight norm; an activation that bends
    scales (gelu, tanh, relu6). A layer norm's gamma could be absorbed too, but no one leaves it
    out. To leave the rule out: `--ignore N103`.

    ## Reference

    - TF-slim, `batch_norm(scale=False)`, and Keras, `BatchNormalization(scale=...)`: can be left
      out where the next layer is linear or a relu comes before it.
    - Ioffe and Szegedy, *Batch Normalization*, 2015.
    """
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        gamma = facts.array(node, "gamma")
        if gamma is None or site.kind not in CHANNEL_NORMS or facts.shared(node):
            continue
        takers = _takers(facts, node)
        if takers.layers and site.name not in seen:
            seen.add(site.name)
            names = some(dict.fromkeys(node.layer_name for node in takers.layers))
            through = f" through {takers.act}" if takers.act else ""
            negative = int((gamma < 0).sum()) if takers.signed else 0
            but = f", but for the sign of {negative}" if negative else ""
            yield Hit(
                site.name,
                f"its gamma ({gamma.size} parameters{but}) could be absorbed by {names}{through}",
                facts.say("scale=False", "no gamma (affine=False drops beta too)")
                + f" in {site.name}, for equal functions with fewer parameters",
                parameters=int(gamma.size),
            )


@dataclass
class _Takers:
    """The linear layers that could absorb a scale; signed: of positive scales only."""

    layers: list[Node] = field(default_factory=list)
    act: str = ""
    signed: bool = False


def _takers(facts: Facts, norm: Node) -> _Takers:
    """Return the linear layers that could absorb the scale, none if anything else sees it."""
    graph, found = facts.graph, _Takers()
    waiting: list[tuple[str, int | None]] = [(norm.name, norm_axes(norm)[0])]
    seen = {norm.name}
    while waiting:
        name, axis = waiting.pop()
        if name in graph.outputs or axis is None:
            return _Takers()
        for reader in graph.consumers[name]:
            follower = graph.nodes[reader]
            if follower.kind == "linear":
                if not _absorbs(facts, follower, axis):
                    return _Takers()
                found.layers.append(follower)
                continue
            sign = _keeps_scale(follower, axis)
            if sign is None:
                return _Takers()
            found.signed |= sign
            found.act = follower.op if follower.kind == "act" else found.act
            if reader not in seen:
                seen.add(reader)
                waiting.append((reader, carried(graph, follower, axis)))
    return found


def _absorbs(facts: Facts, linear: Node, axis: int) -> bool:
    """Return whether the kernel is free to be scaled along this axis of its input."""
    if facts.shared(linear) or linear.attrs.keys() & {"reparametrized", "quantized", "lora"}:
        return False
    if linear.op != "einsum":
        return axis == input_axis(facts.graph, linear)
    taken, kernel = linear.attrs["equation"].replace(" ", "").split("->")[0].split(",")
    rank = len(facts.graph.nodes[linear.inputs[0]].shape)
    letters = taken.removeprefix("...")
    return rank - axis <= len(letters) and letters[axis - rank] in kernel


def _keeps_scale(node: Node, axis: int) -> bool | None:
    """Return whether f(s · x) = s · f(x) holds of positive s only, None if it doesn't hold."""
    what = node.operation
    if what.kind == "merge":
        return False if node.op == "concat" and _along(node, axis) else None
    scale = what.scale_of(node.attrs)
    if scale == "none" or what.training not in ("same", "multiplies"):
        return None
    return scale == "positive"


def pads(graph: Graph, node: Node) -> bool:
    """Return whether a convolution or a pool pads its input, at this size of it."""
    padding = node.attrs.get("padding", "valid")
    if padding != "same":
        return adds_zeros(padding)
    window = node.attrs.get("window")
    if window is None:
        key = node.arrays.get("kernel")
        if key is None:
            return False
        window = graph.tensors[key].shape[:-2]
    rank, strides = len(window), node.attrs["strides"]
    before = graph.nodes[node.inputs[0]].shape
    first = 1 + node.time_axes + (node.channel_axis == 1 + node.time_axes)
    # Of an unknown size: one that the stride divides.
    sizes = [n or 8 * s for n, s in zip(before[first : first + rank], strides, strict=True)]
    dilation = node.attrs.get("dilation") or (1,) * rank
    return adds_zeros(explicit_padding("same", sizes, window, strides, dilation))

"""Rules about where norms sit: mixed orders, norms that meet nothing nonlinear, axis, dropout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...graph import Node
from ...phrases import some
from ..sites import Site
from .rule import CHANNEL_NORMS, Facts, Hit, rule

_NONLINEAR = {"prod", "var", "std"}
_PRE_ACTIVATION = {"linear-norm-act", "norm-act-linear"}


@rule("N201", "mixed-orders", "warning")
def mixed_orders(facts: Facts) -> Iterator[Hit]:
    """Norms whose position differs from most norms in the model.

    (a note for a stem in front of pre-activation blocks)

    ## What it finds

    Norms that sit in another order than most norms of the model. Only complete orders count, those
    with a linear layer, a norm and an activation. Batch, instance and group norms are compared with
    each other, layer and RMS norms with each other.

    ## Why

    One block with its layers swapped is easy to write and hard to see. Weights load, shapes fit,
    training works a little worse. Which order is better depends on network, activation and data, so
    measure it with `relucate compare`; a network with both is seldom intended.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((16, 16, 3)),
        kl.Conv2D(8, 3), kl.BatchNormalization(name="a"), kl.ReLU(),
        kl.Conv2D(8, 3), kl.BatchNormalization(name="b"), kl.ReLU(),
        kl.Conv2D(8, 3), kl.ReLU(), kl.BatchNormalization(name="c"),
    ])
    found = relucate.audit(net, select=["N201"]).findings[0]
    found.message  # 'linear-act-norm in 1 of 3 norms (c), linear-norm-act in 2'
    ```

    ## Fix

    Use one order throughout, or say in the code why the odd ones differ.

    ```python
    def block(filters):
        return [kl.Conv2D(filters, 3, use_bias=False), kl.BatchNormalization(), kl.ReLU()]

    net = keras.Sequential([keras.Input((16, 16, 3)), *block(8), *block(8), *block(8)])
    len(relucate.audit(net, select=["N201"]).findings)  # 0
    ```

    ```python
    from torch import nn

    def torch_block(inside, outside):
        conv = nn.Conv2d(inside, outside, 3, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU())
    ```

    ## When it is fine

    - The network is a mix by design: ResNet-v2 has a `linear-norm-act` stem before
      `norm-act-linear` blocks. That is a note only.
    - Two parts come from two sources, for example a pretrained body with a head of your own.

    To leave the rule out: `--ignore N201`.

    ## Reference

    - He, Zhang, Ren and Sun, *Identity Mappings in Deep Residual Networks*, 2016: where norm and
      activation sit in a residual block matters.
    - Keras, issues 4618 and 5465: Inception v3 in another order than its paper.
    """
    full = [s for s in facts.sites if s.order.count("-") == 2 and not s.unknown]
    # A transformer's layer norms have an order of their own, other than a stem's batch norms.
    yield from _odd([site for site in full if site.kind in CHANNEL_NORMS])
    yield from _odd([site for site in full if site.kind not in CHANNEL_NORMS])


def _odd(sites: Sequence[Site]) -> Iterator[Hit]:
    counts = Counter(site.order for site in sites)
    (main, most), *others = counts.most_common() or [("", 0)]
    for order, number in others:
        odd = [site.name for site in sites if site.order == order]
        # A stem before pre-activation blocks is how such networks are built.
        severity = "note" if {order, main} <= _PRE_ACTIVATION else None
        yield Hit(
            odd[0],
            f"{order} in {number} of {len(sites)} norms ({some(odd)}), {main} in {most}",
            "use one order throughout, or say in the code why these differ",
            severity,
        )


@rule("N202", "norm-at-output", "warning")
def norm_at_output(facts: Facts) -> Iterator[Hit]:
    """A norm on the model's output, or right before the softmax or sigmoid that is its output.

    ## What it finds

    A batch, instance or group norm on the model's output, or right before the softmax, log-softmax
    or sigmoid that is put out.

    ## Why

    The norm fixes mean and variance of each output over the batch. A classifier's confidence, and a
    regressor's range, are then set by gamma and beta alone. One rare class and one common class get
    logits of the same spread. Batches at training time also shift each other's outputs.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((16,)), kl.Dense(10), kl.BatchNormalization(name="bn"), kl.Softmax(),
    ])
    found = relucate.audit(net, select=["N202"]).findings[0]
    found.where  # 'bn'
    found.message.split(":")[0]  # "feeds the output's softmax directly"
    ```

    ## Fix

    End with a linear layer with a bias, and its activation.

    ```python
    net = keras.Sequential([
        keras.Input((16,)),
        kl.Dense(10), kl.BatchNormalization(), kl.ReLU(), kl.Dense(10), kl.Softmax(),
    ])
    len(relucate.audit(net, select=["N202"]).findings)  # 0
    ```

    ```python
    from torch import nn

    head = nn.Sequential(nn.Linear(16, 10))  # logits, for nn.CrossEntropyLoss
    ```

    ## When it is fine

    - The model puts out features that should be normalized: face recognition ends in a norm (an
      embedding), and some self-supervised heads do.
    - It is one part of a larger network, and the next part reads the norm.

    Not reported: norm, then activation, then output (a body without its top); layer norms, which
    many transformers end with. To leave the rule out: `--ignore N202`.

    ## Reference

    - Radford, Metz and Chintala, *Unsupervised Representation Learning with Deep Convolutional
      Generative Adversarial Networks*, 2016: no batch norm on the generator's output.
    """
    for site in facts.sites:
        if site.kind in CHANNEL_NORMS:
            hows = (_where_at_output(facts, name) for name in site.nodes)
            how = next(filter(None, hows), "")
            if how:
                yield _at_output(site, how)


def _where_at_output(facts: Facts, norm: str) -> str:
    ends = facts.paths.ahead(norm)
    if ends and all(end.kind == "output" for end in ends):
        return "is the model's output"
    for end in ends:
        last = any(beyond.kind == "output" for beyond in facts.paths.ahead(end.node.name))
        if last and end.kind == "act" and end.node.operation.head:
            return f"feeds the output's {end.node.op} directly"
    return ""


def _at_output(site: Site, how: str) -> Hit:
    return Hit(
        site.name,
        f"{how}: what a batch happens to hold, and gamma and beta, decide the scale of the outputs",
        "end with a linear layer with a bias (and its activation), without a norm",
    )


@rule("N203", "stacked-norms", "warning")
def stacked_norms(facts: Facts) -> Iterator[Hit]:
    """A norm that normalizes what another norm has just normalized.

    ## What it finds

    A norm whose input is another norm's output, with nothing nonlinear between: at most dropout,
    average pools, padding, reshapes.

    ## Why

    The second norm normalizes what is normalized already. At inference two batch norms in a row are
    one scale and one shift. The first one's gamma and beta are taken away again by the second in
    training. Usually one of them was left over when a block was changed, or an activation was
    forgotten.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(8, 3),
        kl.BatchNormalization(name="a"), kl.BatchNormalization(name="b"), kl.ReLU(),
    ])
    found = relucate.audit(net, select=["N203"]).findings[0]
    found.where  # 'b'
    found.message  # 'normalizes the output of a: nothing nonlinear lies between'
    ```

    ## Fix

    Remove one of the two, or put the activation between them.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(8, 3), kl.BatchNormalization(), kl.ReLU(),
    ])
    len(relucate.audit(net, select=["N203"]).findings)  # 0
    ```

    ```python
    from torch import nn

    block = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    ```

    ## When it is fine

    - Two norms of different kinds are meant to work together, such as a layer norm that keeps an
      example's scale behind a frozen batch norm.
    - A body that ends in a norm is used as it is, and the new head begins with one.

    Not reported: an activation, a linear layer, a max pool or a sum between the two. To leave the
    rule out: `--ignore N203`.

    ## Reference

    - Ioffe and Szegedy, *Batch Normalization*, 2015, algorithm 2: at inference a batch norm is a
      scale and a shift.
    """
    seen: set[str] = set()
    for site in facts.sites:
        for name in site.nodes:
            source = facts.graph.nodes[name].inputs[0]
            above = facts.paths.back(source)
            if above.kind != "norm" or site.name in seen or _bends(facts, source, above.node.name):
                continue
            seen.add(site.name)
            yield Hit(
                site.name,
                f"normalizes the output of {above.node.layer_name}: nothing nonlinear lies between",
                "remove one of the two, or put the activation between them",
            )


def _bends(facts: Facts, name: str, ancestor: str) -> bool:
    """Return whether a max pool or the like lies between: looked through, but not linear."""
    between = facts.paths.between(name, ancestor)
    return any(
        n.operation.scale_of(n.attrs) == "positive" or n.attrs.get("function") in _NONLINEAR
        for n in between
    )


@rule("N204", "no-activation", "note")
def no_activation(facts: Facts) -> Iterator[Hit]:
    """A norm with no activation on its path: two linear layers in a row are one linear map.

    ## What it finds

    A batch, instance or group norm with a linear layer before it and only linear layers behind it;
    or a norm with neither a linear layer nor an activation next to it.

    ## Why

    At inference linear layer, batch norm, linear layer is one linear map: the second layer adds
    nothing but cost. (With group and instance norms it is not one linear map, and the
    message does not claim it.) In most cases the activation was forgotten.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((16, 16, 8)),
        kl.Conv2D(8, 3, name="a"), kl.BatchNormalization(name="bn"), kl.Conv2D(8, 3, name="b"),
    ])
    found = relucate.audit(net, select=["N204"]).findings[0]
    found.message  # 'no activation between a and b'
    found.fix  # 'add the activation if it was forgotten; else the two layers are one'
    ```

    ## Fix

    Add the activation, on either side of the norm.

    ```python
    net = keras.Sequential([
        keras.Input((16, 16, 8)),
        kl.Conv2D(8, 3), kl.BatchNormalization(), kl.ReLU(), kl.Conv2D(8, 3),
    ])
    len(relucate.audit(net, select=["N204"]).findings)  # 0
    ```

    ```python
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3),
    )
    ```

    ## When it is fine

    - The two layers are a factorisation: fewer weights than their product. The usual cases are not
      reported: a middle with fewer channels than both sides, depthwise, separable and grouped
      convolutions.
    - Extra linear layers are used for how they train (over-parameterised or re-parameterised
      blocks).

    Not reported: an activation behind a sum, a max pool between, a layer norm between (which is not
    linear), a norm next to a layer that could not be read. To leave the rule out:
    `--ignore N204`.

    ## Reference

    - Goodfellow, Bengio and Courville, *Deep Learning*, 2016, section 6.1: layers in a row without
      a nonlinearity are one linear map.
    - Sandler, Howard, Zhu, Zhmoginov and Chen, *MobileNetV2: Inverted Residuals and Linear
      Bottlenecks*, 2018: where leaving it out is meant.
    """
    for site in facts.sites:
        if site.kind not in CHANNEL_NORMS:
            continue
        node = facts.node(site)
        ends = facts.paths.ahead(node.name)
        if site.order == "linear-norm" and ends and all(end.kind == "linear" for end in ends):
            before = facts.graph.nodes[site.linears[0]]
            after = [end.node for end in ends]
            bent = _bends(facts, node.inputs[0], before.name) or any(
                _bends(facts, conv.inputs[0], node.name) for conv in after
            )
            if not bent and not _factorised(facts, before, after):
                names = some(dict.fromkeys(node.layer_name for node in after))
                one = "; else the two layers are one" if site.kind == "batch" else ""
                yield Hit(
                    site.name,
                    f"no activation between {before.layer_name} and {names}",
                    f"add the activation if it was forgotten{one}",
                )
        elif site.order == "norm" and not _open(facts, node):
            yield Hit(
                site.name,
                "no linear layer and no activation before or behind it",
                "put it next to a linear layer or an activation, or remove it",
            )


def _open(facts: Facts, norm: Node) -> bool:
    """Return whether a merge or an unknown layer is next to a norm: layers beyond it count."""
    ends = [facts.paths.back(norm.inputs[0]), *facts.paths.ahead(norm.name)]
    return any(end.kind in {"merge", "other"} for end in ends)


def _factorised(facts: Facts, before: Node, after: list[Node]) -> bool:
    if any(n.op not in {"conv", "dense"} or n.attrs.get("groups", 1) > 1 for n in [before, *after]):
        return True
    source, axis = facts.graph.nodes[before.inputs[0]], before.channel_axis
    if axis is None:
        return True
    sizes = [before.shape[axis], source.shape[axis] if axis < len(source.shape) else None]
    sizes += [node.shape[a] for node in after if (a := node.channel_axis) is not None]
    middle, *sides = [size or 0 for size in sizes]
    return middle < min(sides)

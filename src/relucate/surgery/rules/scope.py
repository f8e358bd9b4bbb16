"""Rules about what a norm's statistics are taken over: dropped values, the wrong axis."""

from __future__ import annotations

from collections.abc import Iterator

from ...graph import Node
from ...graph.axes import norm_axes
from ..paths import is_transparent
from .rule import Facts, Hit, moves_statistics, rule


@rule("N205", "dropout-before-norm", "warning")
def dropout_before_norm(facts: Facts) -> Iterator[Hit]:
    """Dropout upstream of a batch norm, with no norm between: its variance shifts at inference.

    ## What it finds

    Dropout, spatial dropout or Gaussian dropout upstream of a batch norm that stores statistics,
    with no norm between. Linear layers, activations, sums and pools between don't help.

    ## Why

    Dropout scales what it keeps by 1 / (1 - rate): the mean stays, the variance grows. The norm
    stores the variance that it sees in training. At inference dropout is off and the variance is
    smaller, so the norm divides by the wrong number. For zero-mean values straight behind dropout
    the stored variance is too large by 1 / (1 - rate).

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((64,)),
        kl.Dropout(0.5, name="drop"),
        kl.Dense(32, use_bias=False), kl.BatchNormalization(name="bn"),
        kl.ReLU(), kl.Dense(10),
    ])
    found = relucate.audit(net, select=["N205"]).findings[0]
    found.where  # 'bn'
    found.message.split(":")[0]  # "dropout 'drop' (rate 0.5) lies before it"
    ```

    ## Fix

    Put dropout behind the last batch norm, in front of the last layer. Or leave it out: batch norm
    regularizes too.

    ```python
    net = keras.Sequential([
        keras.Input((64,)),
        kl.Dense(32, use_bias=False), kl.BatchNormalization(), kl.ReLU(),
        kl.Dropout(0.5), kl.Dense(10),
    ])
    len(relucate.audit(net, select=["N205"]).findings)  # 0
    ```

    ```python
    from torch import nn

    net = nn.Sequential(
        nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(32, 10),
    )
    ```

    Or re-estimate the statistics after training, with dropout off.

    ## When it is fine

    - The rate is small, or the layer between is wide.
    - Dropout stays on at inference. If the call says `training=True`, it isn't reported.

    Not reported: layer and group norms (they store nothing), frozen norms, rate 0, alpha dropout
    (it keeps mean and variance of what it is made for), stochastic depth and dropout of whole
    branches. To leave the rule out: `--ignore N205`.

    ## Reference

    - Li, Chen, Hu and Yang, *Understanding the Disharmony between Dropout and Batch Normalization
      by Variance Shift*, 2019.
    """
    dropped: dict[str, Node] = {}  # the last dropout on the way to each node
    seen: set[str] = set()
    for node in facts.graph:
        if node.kind == "norm":
            dropout = dropped.get(node.inputs[0])
            if dropout and moves_statistics(node) and node.layer_name not in seen:
                seen.add(node.layer_name)
                yield _shifted(node, dropout)
        elif _drops(node):
            dropped[node.name] = node
        elif node.operation.kind in {"linear", "act", "merge"} or is_transparent(node):
            drops = [dropped[name] for name in node.inputs if name in dropped]
            if drops:
                dropped[node.name] = drops[0]


def _drops(node: Node) -> bool:
    """Return whether this is dropout in training only, of values and not of whole branches."""
    if node.op not in {"dropout", "gaussian_dropout"} or not node.attrs.get("rate"):
        return False
    kept = node.attrs.get("noise_shape") or ()
    branch = len(kept) > 1 and all(size == 1 for size in kept[1:])
    return node.attrs.get("forced") is None and not branch


def _shifted(node: Node, drop: Node) -> Hit:
    return Hit(
        node.layer_name,
        f"dropout '{drop.layer_name}' (rate {drop.attrs['rate']:g}) lies before it: the variance "
        "that it stores in training is not the one that it meets at inference",
        "move the dropout behind the last batch norm, or take the rate down to 0",
    )


@rule("N206", "wrong-axis", "error")
def wrong_axis(facts: Facts) -> Iterator[Hit]:
    """A norm whose axis is not the channel axis of the convolutions around it.

    (a warning for a norm on the model's input)

    ## What it finds

    A norm whose axis is not the channel axis of the convolutions, pools or paddings next to it.

    ## Why

    In Keras the axis is an argument of the norm, and the data format one of the convolution. When
    only one of the two is changed, the norm normalizes rows or columns. Everything runs, and
    training goes worse. The parameters also get the length of that axis, so that the network fits
    one image size only.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(4, 3, name="conv"), kl.BatchNormalization(axis=1, name="bn"), kl.ReLU(),
    ])
    found = relucate.audit(net, select=["N206"]).findings[0]
    found.message.partition(":")[0]  # 'normalizes along axis 1, but conv is channels_last'
    found.fix  # 'axis=-1 in bn'
    ```

    ## Fix

    `axis=-1` with `channels_last`, `axis=1` with `channels_first`. PyTorch's batch, instance and
    group norms always take axis 1; a `LayerNorm` takes the last ones, so move the channels there
    first.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(axis=-1), kl.ReLU(),
    ])
    len(relucate.audit(net, select=["N206"]).findings)  # 0
    ```

    ```python
    from torch import nn

    class ChannelNorm(nn.LayerNorm):
        def forward(self, x):  # (batch, channels, rows, columns)
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    ```

    ## When it is fine

    - Another axis is meant: one scale per frequency of a spectrogram, or per time step. On the
      model's input this is a warning, elsewhere name the rule: `--ignore N206`.

    Not reported: a norm between dense layers; a layer norm over all positions (that is an instance
    norm); unit norms; a norm behind a permutation, because then no convolution says where the
    channels are.

    ## Reference

    - Ioffe and Szegedy, *Batch Normalization*, 2015, section 3.2: in a convolutional network, one
      scale per feature map.
    - `keras.applications`: each network computes `bn_axis` from the data format.
    """
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        if not node.operation.arrays or site.name in seen:  # it has nothing per channel
            continue
        known = _spatial_neighbour(facts, node)
        if known is None or _keeps_apart(node, known[1]):
            continue
        other, channels = known
        seen.add(site.name)
        last = channels == len(node.shape) - 1
        # Of the model's input another axis may be meant, such as a spectrogram's frequencies.
        on_input = facts.paths.back(node.inputs[0]).kind == "input"
        yield Hit(
            site.name,
            f"normalizes along axis {_shown(norm_axes(node))}, but {other.layer_name} is channels_"
            f"{'last' if last else 'first'}: its channels are axis {channels} of shape "
            f"{_sizes(node)}",
            facts.say(
                f"axis={-1 if last else channels - node.time_axes} in {site.name}",
                f"move the channels to where {site.name} looks for them",
            ),
            "warning" if on_input else None,
        )


def _keeps_apart(norm: Node, channels: int) -> bool:
    """Return whether a norm treats this axis as one of channels.

    A layer norm over all other axes than the batch and the channels is an instance norm.
    """
    axes = norm_axes(norm)
    if "axes" not in norm.attrs:
        return axes == (channels,)
    return channels in axes or {*axes, channels} == set(range(1 + norm.time_axes, len(norm.shape)))


def _spatial_neighbour(facts: Facts, norm: Node) -> tuple[Node, int] | None:
    """Return a layer that says which axis the channels are at the norm, and that axis."""
    rank = len(norm.shape)
    node = facts.graph.nodes[norm.inputs[0]]
    while len(node.shape) == rank:
        if (axis := _says(node)) is not None:
            return node, axis
        if not (node.inputs and _keeps_axes(node)):
            break
        node = facts.graph.nodes[node.inputs[0]]
    names = list(facts.graph.consumers[norm.name])
    for _ in range(8):  # a few steps ahead, down one path
        if not names:
            return None
        node = facts.graph.nodes[names[0]]
        if len(facts.graph.nodes[node.inputs[0]].shape) != rank:
            return None
        if (axis := _says(node)) is not None:
            return node, axis
        if not _keeps_axes(node):
            return None
        names = list(facts.graph.consumers[node.name])
    return None


def _says(node: Node) -> int | None:
    silent = node.op in ("dense", "flatten") or len(node.shape) <= 2
    return None if silent else node.channel_axis


def _keeps_axes(node: Node) -> bool:
    return node.kind in {"act", "drop"} or node.op in {"identity", "add", "concat", "rescale"}


def _shown(axes: tuple[int, ...]) -> str:
    return ", ".join(map(str, axes))


def _sizes(node: Node) -> str:
    sizes = ["?" if size is None else str(size) for size in node.shape[1:]]
    return f"({', '.join(['batch', *sizes])})"

"""Rules about a norm's values: statistics that never moved, broke, or belong to another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ...phrases import count, some
from ..sites import Site
from .rule import Facts, Hit, rule

_FEW = 16  # channels: fewer can be all of one sign by chance


def _statistics(facts: Facts) -> Iterator[tuple[Site, np.ndarray, np.ndarray]]:
    """Yield each batch norm with finite statistics, its mean and its variance; layers once."""
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        mean, variance = facts.array(node, "moving_mean"), facts.array(node, "moving_variance")
        if mean is None or variance is None or site.name in seen or _broken(facts, site):
            continue
        seen.add(site.name)
        yield site, np.asarray(mean, np.float64), np.asarray(variance, np.float64)


def _broken(facts: Facts, site: Site) -> str:
    """Return what is wrong with a norm's tensors, or nothing."""
    for role, key in facts.node(site).arrays.items():
        array = np.asarray(facts.graph.tensors[key], np.float64)
        bad = int(np.sum(~np.isfinite(array)))
        if bad:
            return f"{role} has {bad} of {array.size} values that are not finite"
        if role == "moving_variance" and np.any(array < 0):
            return f"moving_variance is negative in {int(np.sum(array < 0))} of {array.size}"
    return ""


@rule("N301", "unmoved-statistics", "warning")
def unmoved_statistics(facts: Facts) -> Iterator[Hit]:
    """Moving statistics that are still the initial ones in a model whose weights are trained.

    ## What it finds

    A moving mean of 0 and a moving variance of 1 in every channel, in a model whose other values
    show training: a gamma, beta or moving statistic that differs between channels, or (in Keras) a
    bias that does.

    ## Why

    These are the values a norm starts with. It never saw a batch in training mode, or the weights
    were loaded without the statistics. At inference it then only scales its input by
    gamma and adds beta, while in training it normalized.

    ## Example

    ```python
    import relucate
    import keras
    import numpy as np
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(4, 3, use_bias=False), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    bn = net.get_layer("bn")
    bn.gamma.assign([0.9, 1.1, 1.3, 0.7])
    found = relucate.audit(net, select=["N301"]).findings[0]
    found.where  # 'bn'
    ```

    ## Fix

    Train with batch statistics: `model(x, training=True)` in your own loop in Keras,
    `model.train()` in PyTorch. Or estimate the statistics after training, with some passes in
    training mode and no optimizer step.

    ```python
    bn.momentum = 0.5
    for _ in range(20):
        net(np.random.default_rng(0).normal(size=(32, 8, 8, 3)), training=True)
    len(relucate.audit(net, select=["N301"]).findings)  # 0
    ```

    ```python
    import torch

    torch_net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    torch_net.train()
    with torch.no_grad():
        y = torch_net(torch.randn(32, 3, 8, 8))  # moves the statistics
    ```

    ## When it is fine

    - The norm is new, in a head that is not trained yet on a body that is.
    - The norm was frozen from the start, and serves as a scale and a shift.

    Not reported: a fresh model, and a norm whose call says `training=True`. To leave the rule out:
    `--ignore N301`.

    ## Reference

    - Keras, issues 7177 and 7265: other results in training than in evaluation, on the same data.
    - Ioffe and Szegedy, *Batch Normalization*, 2015, section 3.1.
    """
    if not facts.trained:
        return
    for site, mean, variance in _statistics(facts):
        used = facts.node(site).attrs.get("forced") is not True
        if used and np.all(mean == 0) and np.all(variance == 1):
            yield Hit(
                site.name,
                "moving mean 0 and variance 1 in every channel, though the weights are trained: at "
                "inference it does not normalize",
                "train with batch statistics, or re-estimate them on training data",
            )


@rule("N302", "dead-channels", "warning")
def dead_channels(facts: Facts) -> Iterator[Hit]:
    """Channels whose moving variance is near zero: a constant comes in, noise may go out.

    ## What it finds

    Channels whose moving variance is at most 1e-8, or below a millionth of the norm's median
    variance.

    ## Why

    The norm's input is the same for all examples there: a dead relu before it, a filter of zeros, a
    constant input. Such a channel carries nothing. Dividing by the square root of a tiny variance
    also amplifies noise, as far as epsilon allows.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.ReLU(), kl.BatchNormalization(name="bn"),
    ])
    bn = net.get_layer("bn")
    bn.moving_variance.assign([0.8, 0.0, 1.2, 1e-12])
    found = relucate.audit(net, select=["N302"]).findings[0]
    found.message  # 'moving variance near 0 in 2 of 4 channels (1, 3)'
    ```

    ## Fix

    Prune the channels. Or look for what switched them off: a learning rate too high at the start, a
    bias far below zero, an input channel that is constant. In both frameworks that is a matter of
    training, not of spelling.

    ```python
    bn.moving_variance.assign([0.8, 0.9, 1.2, 1.1])
    len(relucate.audit(net, select=["N302"]).findings)  # 0
    ```

    ```python
    import torch

    norm = torch.nn.BatchNorm2d(4)
    alive = norm.running_var > 1e-8  # the channels to keep
    ```

    ## When it is fine

    - A few dead channels are usual in large trained networks, published ones too. They cost time,
      not accuracy.

    Not reported: all variances small alike but above 1e-8. To leave the rule out: `--ignore N302`.

    ## Reference

    - Zhou, Wang, Luo, Feng, Li and Zhang, *How Does BN Increase Collapsed Neural Network Filters?*,
      2020.
    """
    for site, _, variance in _statistics(facts):
        dead = (variance <= 1e-8) | (variance < 1e-6 * np.median(variance))
        if np.any(dead):
            yield Hit(
                site.name,
                f"moving variance near 0 in {_channels(dead)}",
                "prune these channels, or look for units before it that are always off",
            )


@rule("N303", "vanished-scale", "note")
def vanished_scale(facts: Facts) -> Iterator[Hit]:
    """Channels whose gamma is near zero: they pass on a constant.

    ## What it finds

    Channels whose gamma is at most 1e-8, or below a ten-thousandth of the norm's median gamma, in
    absolute value. In norms of every kind.

    ## Why

    Where gamma is zero, only beta is left: a constant. Weight decay and L1 penalties on gamma do
    that, and pruning methods use it. The channel can go.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    bn = net.get_layer("bn")
    bn.gamma.assign([0.8, 0.0, -1.2, 1.0])
    found = relucate.audit(net, select=["N303"]).findings[0]
    found.message  # 'gamma near 0 in 1 of 4 channels (1)'
    ```

    ## Fix

    Prune the channels, or take weight decay off the norm's parameters: leave them out of the decay
    with `optimizer.exclude_from_weight_decay` in Keras, put them in a parameter group with
    `weight_decay=0` in PyTorch.

    ```python
    bn.gamma.assign([0.8, 0.1, -1.2, 1.0])
    len(relucate.audit(net, select=["N303"]).findings)  # 0
    ```

    ```python
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=1e-4)
    ```

    ## When it is fine

    - The network was slimmed on purpose and is to be pruned next.

    Not reported: a gamma that is zero in all channels of an untrained norm, as in the last norm of
    a residual branch. To leave the rule out: `--ignore N303`.

    ## Reference

    - Liu, Li, Shen, Huang, Yan and Zhang, *Learning Efficient Convolutional Networks through
      Network Slimming*, 2017.
    - Goyal et al., *Accurate, Large Minibatch SGD*, 2017: gamma that starts at zero.
    """
    seen: set[str] = set()
    for site in facts.sites:
        gamma = facts.array(facts.node(site), "gamma")
        if gamma is None or site.name in seen or _broken(facts, site):
            continue
        seen.add(site.name)
        size = np.abs(np.asarray(gamma, np.float64))
        gone = (size <= 1e-8) | (size < 1e-4 * np.median(size))
        if np.all(gone) and not _moved(facts, site):
            continue  # zero at the start on purpose, as in the last norm of a residual branch
        if np.any(gone):
            yield Hit(
                site.name,
                f"gamma near 0 in {_channels(gone)}",
                "prune these channels: only beta is left of them",
            )


def _moved(facts: Facts, site: Site) -> bool:
    node = facts.node(site)
    mean, beta = facts.array(node, "moving_mean"), facts.array(node, "beta")
    return any(array is not None and bool(np.any(array != 0)) for array in (mean, beta))


def _channels(which: np.ndarray) -> str:
    where = some(map(str, np.flatnonzero(which)))
    return f"{int(which.sum())} of {count(which.size, 'channel')} ({where})"


@rule("N304", "broken-values", "error")
def broken_values(facts: Facts) -> Iterator[Hit]:
    """NaN or infinite values in a norm, or a negative variance.

    ## What it finds

    NaN or infinite values in any tensor of a norm, or a negative moving variance.

    ## Why

    A NaN in one channel reaches every output that depends on it. The square root of a negative
    variance is NaN as soon as it outweighs epsilon. Training diverged, a file is damaged, or
    tensors were mixed up when weights were carried over from another framework.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    bn = net.get_layer("bn")
    bn.moving_variance.assign([0.8, -0.1, 1.2, 1.0])
    found = relucate.audit(net, select=["N304"]).findings[0]
    found.message  # 'moving_variance is negative in 1 of 4'
    ```

    ## Fix

    Load the weights again and check how they are mapped: Keras keeps gamma, beta, moving mean,
    moving variance in this order; PyTorch calls them weight, bias, running_mean, running_var;
    Lasagne stores the inverse of the standard deviation. If training broke, go back to a state
    before that.

    ```python
    bn.moving_variance.assign([0.8, 0.9, 1.2, 1.0])
    len(relucate.audit(net, select=["N304"]).findings)  # 0
    ```

    ```python
    import torch

    norm = torch.nn.BatchNorm2d(4)
    whole = all(bool(torch.isfinite(v).all()) for v in norm.state_dict().values())
    ```

    ## When it is fine

    Never. The other rules about values skip a norm that this one names.

    ## Reference

    - IEEE, *Standard for Floating-Point Arithmetic (754)*, 2019: what is computed from a NaN is a
      NaN.
    - Lasagne, `BatchNormLayer`: stores `inv_std`, not a variance.
    """
    seen: set[str] = set()
    for site in facts.sites:
        if site.name not in seen and (what := _broken(facts, site)):
            seen.add(site.name)
            yield Hit(site.name, what, "load the weights again, or train from before they broke")


@rule("N305", "statistics-contradict-order", "warning")
def statistics_contradict_order(facts: Facts) -> Iterator[Hit]:
    """A moving mean whose signs belong to the other order: weights of another network, perhaps.

    (an error behind an activation that is never negative)

    ## What it finds

    Moving means whose signs belong to the other order:

    - a negative one behind an activation that is never negative (relu, relu6, sigmoid, softplus,
      softmax, ...): an error;
    - sixteen channels or more, all positive, right behind a linear layer and before the activation:
      a warning.

    ## Why

    The moving mean of a norm behind a relu averages numbers that are zero or more. So one negative
    entry proves that these statistics were not gathered there. Right behind a linear layer, on the
    other hand, about half of the means are negative; if none is, they may have been gathered behind
    a relu. Either way, weights and network belong to different orders: ported from another
    framework, or loaded into a rewritten model. Shapes fit in both.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)),
        kl.Conv2D(4, 3, activation="relu"), kl.BatchNormalization(name="bn"),
    ])
    bn = net.get_layer("bn")
    bn.moving_mean.assign([0.5, -0.7, 0.1, -0.2])
    found = relucate.audit(net, select=["N305"]).findings[0]
    found.severity  # 'error'
    found.message.split(", ")[0]  # 'moving mean is negative in 2 of 4 channels'
    ```

    ## Fix

    Find out in which order the weights were trained, and build the network in it. In PyTorch it is
    the order of the calls in `forward` that counts, not that of the modules in `__init__`.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    net.get_layer("bn").moving_mean.assign([0.5, -0.7, 0.1, -0.2])
    len(relucate.audit(net, select=["N305"]).findings)  # 0
    ```

    ```python
    from torch import nn

    block = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    ```

    ## When it is fine

    - The error: never, unless the statistics were set by hand or started below zero.
    - The warning is a clue, no proof: a first convolution whose input is positive can give positive
      means only.

    Not reported: anything between that can change the sign or the mean (a max pool before the norm
    in `linear-norm-act`, a rescaling, noise); a norm that is called in two places, whose statistics
    are of both. To leave the rule out: `--ignore N305`.

    ## Reference

    - Lasagne Recipes, issue 78: negative means show on which side of the relu a norm was.
    """
    roles = Counter(site.name for site in facts.sites)
    for site, mean, _ in _statistics(facts):
        if roles[site.name] > 1:
            continue  # its statistics are of several places
        behind = site.order in {"linear-act-norm", "act-norm", "act-norm-linear"}
        if behind and _never_negative(facts, site):
            below = int(np.sum(mean < -1e-6 * max(1.0, float(np.abs(mean).max()))))
            if below:
                yield Hit(
                    site.name,
                    f"moving mean is negative in {below} of {count(mean.size, 'channel')}, but it "
                    f"follows {site.act_op}, which never is",
                    "check which order the weights were trained in",
                    "error",
                )
        elif mean.size >= _FEW and np.all(mean > 0) and _right_behind_linear(facts, site):
            yield Hit(
                site.name,
                f"moving mean is positive in all {mean.size} channels, as behind an activation "
                "such as relu, but it comes before",
                "check which order the weights were trained in",
            )


def _never_negative(facts: Facts, site: Site) -> bool:
    node = facts.graph.nodes[site.act_node] if site.act_node else None
    if node is None or not node.operation.never_negative(node.attrs):
        return False
    between = facts.paths.between(facts.node(site).inputs[0], node.name)
    return not any(n.operation.turns_negative for n in between)


def _right_behind_linear(facts: Facts, site: Site) -> bool:
    """Return whether a norm before its activation directly follows its linear layer.

    A max pool between would make the mean positive by itself.
    """
    if site.order != "linear-norm-act":
        return False
    source = facts.graph.nodes[facts.node(site).inputs[0]]
    while source.op == "identity" or source.kind == "drop":
        source = facts.graph.nodes[source.inputs[0]]
    return source.kind == "linear"

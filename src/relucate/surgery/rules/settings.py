"""Rules about how norms are set: epsilon, momentum, and calls that force a mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...graph.conventions import conventions
from ...phrases import count, some
from .rule import Facts, Hit, moves_statistics, rule

_LEFT = 0.05  # share of the initial statistics that is too much to be left at the end


@rule("N401", "mixed-settings", "note")
def mixed_settings(facts: Facts) -> Iterator[Hit]:
    """Norms of one kind with different epsilon or momentum in one model.

    ## What it finds

    Norms of one kind with different epsilon, or batch norms with different momentum, in one model.

    ## Why

    The frameworks' defaults differ, so parts from different sources bring their own. PyTorch's
    momentum is the share of the *new* value, Keras's that of the *old*: copied as it is, 0.9
    becomes 0.1. The finding shows each framework's own number.

    | | epsilon | momentum, as Keras counts | its own spelling |
    |---|---|---|---|
    | Keras | 1e-3 | 0.99 | `momentum=0.99` |
    | PyTorch | 1e-5 | 0.9 | `momentum=0.1` |
    | Lasagne | 1e-4 | 0.9 | `alpha=0.1` |
    | TF-slim | 1e-3 | 0.999 | `decay=0.999` |

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((16, 16, 3)),
        kl.Conv2D(8, 3), kl.BatchNormalization(name="a"), kl.ReLU(),
        kl.Conv2D(8, 3), kl.BatchNormalization(name="b"), kl.ReLU(),
        kl.Conv2D(8, 3), kl.BatchNormalization(epsilon=1e-5, name="c"), kl.ReLU(),
    ])
    found = relucate.audit(net, select=["N401"]).findings[0]
    found.message  # 'epsilon of batch norms differs: 0.001 in 2, 1e-05 in c'
    ```

    ## Fix

    One value for all. In Keras pass `epsilon=` and `momentum=` to every norm, in PyTorch `eps=` and
    `momentum=`.

    ```python
    def block():
        return [kl.Conv2D(8, 3), kl.BatchNormalization(epsilon=1e-5, momentum=0.9), kl.ReLU()]

    net = keras.Sequential([keras.Input((16, 16, 3)), *block(), *block(), *block()])
    len(relucate.audit(net, select=["N401"]).findings)  # 0
    ```

    ```python
    from torch import nn

    norms = [nn.BatchNorm2d(8, eps=1e-5, momentum=0.1) for _ in range(3)]
    ```

    With trained weights leave epsilon as it is: they belong to it.

    ## When it is fine

    - A pretrained body with a new head, and weights that belong to their epsilon.

    Not reported: different kinds of norms; the momentum of frozen norms, because nothing moves
    there. To leave the rule out: `--ignore N401`.

    ## Reference

    - The defaults in the sources: Keras `BatchNormalization`, PyTorch `nn.BatchNorm2d`, Lasagne
      `BatchNormLayer`, TF-slim `batch_norm`.
    """
    for attr, torch_name in (("epsilon", "eps"), ("momentum", "momentum")):
        kinds: dict[str, dict[Any, list[str]]] = {}
        for site in facts.sites:
            node = facts.node(site)
            idle = attr == "momentum" and not moves_statistics(node)
            if node.attrs.get(attr) is not None and not idle:
                value = round(float(node.attrs[attr]), 12)
                names = kinds.setdefault(site.kind, {}).setdefault(value, [])
                if site.name not in names:
                    names.append(site.name)
        for kind, values in kinds.items():
            if len(values) > 1:
                yield _mixed(facts, kind, attr, facts.say(attr, torch_name), values)


def _mixed(facts: Facts, kind: str, attr: str, name: str, values: dict[Any, list[str]]) -> Hit:
    counts = Counter({value: len(names) for value, names in values.items()})
    main = counts.most_common(1)[0][0]
    odd = {value: names for value, names in values.items() if value != main}
    shown = "; ".join(f"{_own(facts, attr, v)} in {some(names)}" for v, names in odd.items())
    return Hit(
        next(iter(odd.values()))[0],
        f"{name} of {kind} norms differs: {_own(facts, attr, main)} in {counts[main]}, {shown}",
        f"one {name} for all, if there is no reason",
    )


def _own(facts: Facts, attr: str, value: float) -> str:
    """Return a value as the framework's users give it."""
    flipped = attr == "momentum" and conventions(facts.graph).momentum_of_new
    return f"{1 - value if flipped else value:g}"


@rule("N402", "slow-statistics", "warning")
def slow_statistics(facts: Facts) -> Iterator[Hit]:
    """A momentum too slow for the number of training steps: initial statistics are left over.

    ## What it finds

    With `--steps` (`steps=` in Python): batch norms whose momentum leaves more than 5 % of the
    initial statistics after that many training steps. Without the number of steps it finds nothing.

    ## Why

    After n steps a share of momentumⁿ of the moving statistics is still the initial 0 and 1.
    Training uses batch statistics and looks fine, evaluation uses the moving ones and doesn't. With
    momentum 0.99 it takes 299 steps until less than 5 % is left, with 0.9 it takes 29.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(8, 3), kl.BatchNormalization(name="bn"), kl.ReLU(),
    ])
    found = relucate.audit(net, select=["N402"], steps=100).findings[0]
    found.message  # 'momentum 0.99 leaves 37% of the initial statistics after 100 steps (1 norm)'
    ```

    ## Fix

    A faster momentum: `momentum=0.9` in Keras, which is `momentum=0.1` in PyTorch. Or more steps.
    Or re-estimate the statistics after training; `relucate compare` does that before each
    evaluation.

    ```python
    net = keras.Sequential([
        keras.Input((8, 8, 3)), kl.Conv2D(8, 3), kl.BatchNormalization(momentum=0.9), kl.ReLU(),
    ])
    len(relucate.audit(net, select=["N402"], steps=100).findings)  # 0
    ```

    ```python
    from torch import nn

    norm = nn.BatchNorm2d(8, momentum=0.1)  # the default: 10 % new in each step
    average = nn.BatchNorm2d(8, momentum=None)  # a plain average of all steps
    ```

    ## When it is fine

    - Training continues from trained weights, whose statistics fit already.
    - The statistics are re-estimated after training.

    Not reported: frozen norms, norms without moving statistics, a plain average of all steps. To
    leave the rule out: `--ignore N402`.

    ## Reference

    - Keras, issues 7177 and 7265: training and validation differ on the same data, with momentum
      0.99 and few steps.
    """
    if facts.steps is None:
        return
    slow: dict[float, list[str]] = {}
    for site in facts.sites:
        node = facts.node(site)
        momentum = node.attrs.get("momentum")
        if momentum is not None and moves_statistics(node) and momentum**facts.steps > _LEFT:
            slow.setdefault(float(momentum), []).append(site.name)
    for momentum, named in slow.items():
        names = list(dict.fromkeys(named))
        left = momentum**facts.steps
        yield Hit(
            names[0],
            f"momentum {_own(facts, 'momentum', momentum)} leaves {left:.0%} of the initial "
            f"statistics after {count(facts.steps, 'step')} ({count(len(names), 'norm')})",
            "a faster momentum, more steps, or re-estimate the statistics after training",
        )


@rule("N403", "batch-at-inference", "warning")
def batch_at_inference(facts: Facts) -> Iterator[Hit]:
    """A batch norm that uses batch statistics at inference too: outputs depend on the batch.

    ## What it finds

    A batch norm that computes with its batch's statistics at inference too: the call says
    `training=True`, or there are no moving statistics (`track_running_stats=False` in PyTorch).

    ## Why

    An example's output then depends on the others in its batch. One example alone is normalized by
    itself, two runs with other batches give other answers, and the norm can't be folded.

    In a functional Keras model such a `training=True` holds only when you call the model yourself:
    `fit` and `predict` put their own value in its place. So the model's own call and its `predict`
    disagree.

    ## Example

    ```python
    import relucate
    import keras
    from keras import layers as kl

    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, use_bias=False)(image)
    x = kl.BatchNormalization(name="bn")(x, training=True)
    net = keras.Model(image, kl.ReLU()(x))
    found = relucate.audit(net, select=["N403"]).findings[0]
    found.where  # 'bn'
    found.message.split(":")[0]  # 'is called with training=True'
    ```

    ## Fix

    Leave `training` to the model in Keras. In PyTorch keep `track_running_stats=True`, and pass
    `training=self.training` to `F.batch_norm`.

    ```python
    x = kl.Conv2D(4, 3, use_bias=False)(image)
    x = kl.BatchNormalization()(x)
    net = keras.Model(image, kl.ReLU()(x))
    len(relucate.audit(net, select=["N403"]).findings)  # 0
    ```

    ```python
    from torch import nn

    norm = nn.BatchNorm2d(4, track_running_stats=True)
    ```

    ## When it is fine

    - Batch statistics are wanted: some generative networks, test-time adaptation, meta-learning on
      a support set.
    - The batch is one image, and an instance norm is meant. Then write one.

    Not reported: a frozen norm in Keras, which uses its moving statistics in every call.
    To leave the rule out: `--ignore N403`.

    ## Reference

    - Ioffe and Szegedy, *Batch Normalization*, 2015, section 3.1: at inference the output should
      depend on the input only.
    """
    seen: set[str] = set()
    for site in facts.sites:
        for node in (facts.graph.nodes[name] for name in site.nodes):
            forced = node.attrs.get("forced") is True
            on_batch = forced or "moving_mean" not in node.arrays
            frozen = node.attrs.get("frozen") and "moving_mean" in node.arrays
            if node.op != "batch_norm" or not on_batch or frozen or site.name in seen:
                continue
            seen.add(site.name)
            how, change = _on_batch(facts, forced)
            yield Hit(site.name, how, f"{change}, unless that is wanted")


def _on_batch(facts: Facts, forced: bool) -> tuple[str, str]:
    """Return what a norm does that computes with its batch's statistics, and the change."""
    depends = "an example's output depends on the others in its batch"
    if not forced:
        change = facts.say("keep moving statistics", "track_running_stats=True")
        return f"keeps no moving statistics: {depends}", change
    # In a functional Keras model, fit and predict put their own `training` in its place.
    depends = facts.say(f"in model(x), though not in predict, {depends}", depends)
    change = facts.say("leave `training` to the model", "pass training=self.training")
    return f"is called with training=True: {depends}", change

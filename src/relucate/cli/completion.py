"""What the shell completes with Tab besides verbs, options and files: names that need no work.

Imports nothing before Tab is pressed, and no framework then. `fields` and the verbs ask `completer`
by the name of an option or argument. Where it has no names, the shell completes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

ACTIVATIONS = (
    "relu leaky_relu relu6 elu celu selu gelu silu hard_silu mish sigmoid hard_sigmoid tanh "
    "hard_tanh softplus softsign"
).split()
DATA_SETS = "digits cifar10 cifar100 mnist fashion_mnist".split()
NORMS = "batch layer group none".split()
TASKS = "classification multilabel regression segmentation".split()


def _nets() -> Iterable[str]:
    from ..nets import NETS

    return NETS


def _recipes() -> Iterable[str]:
    from ..nets import recipe_names

    return recipe_names()


def _orders() -> Iterable[str]:
    from ..order import ALIASES, all_orders

    return [*ALIASES, *map(str, all_orders())]


def _metrics() -> Iterable[str]:
    from ..train.metric import METRICS

    return (name.replace(" ", "-") for name in METRICS)  # a shell would take it for two words


def _rules() -> Iterable[str]:
    from ..surgery.rules import RULES

    return sorted(RULES)


def _known(field: str) -> Callable[[], Iterable[str]]:
    """Return what lists the names that the results of `relucate evidence` have."""

    def names() -> Iterable[str]:
        from ..records import known

        found = {str(getattr(row, field)).partition(",")[0] for row in known()}
        return sorted(name for name in found if " " not in name)  # the shell would take two words

    return names


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _nets,
    "recipe": _recipes,
    "order": _orders,
    "orders": _orders,
    "against": _orders,
    "metric": _metrics,
    "rule": _rules,
    "act": lambda: ACTIVATIONS,
    "norm": lambda: NORMS,
    "data": lambda: DATA_SETS,
    "task": lambda: TASKS,
    **{f"known {field}": _known(field) for field in ("act", "net", "data", "task", "norm")},
    "tune": lambda: ["lr"],
    "engine": lambda: ["auto", "torch", "keras"],
    "device": lambda: ["auto", "cpu", "cuda"],
    "bias": lambda: ["rule", "always", "never", "keep"],
}


def completer(name: str, choices: Iterable[str] | None = None) -> Callable[..., list[str]] | None:
    """Return the function that typer calls for an option's names, or None if it has none.

    Names with commas in front are completed in their last part.
    """
    names = _NAMES.get(name) if choices is None else lambda: choices
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, part = incomplete.rpartition(",")
        return [f"{before}{comma}{found}" for found in names() if found.startswith(part)]

    return complete

"""Arms from orders and factors, the options that vary besides the order.

With factors such as act = relu, tanh every order is trained with every value. Called by `api`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from .. import nets
from ..backend import use_backend
from ..block import check_rate
from ..data.dataset import Dataset
from ..errors import InputError, unknown
from ..graph.ops import select
from ..order import NORM_KINDS
from ..phrases import chosen
from ..train.recipe import Recipe
from .arms import Arm
from .compared import Compared
from .source import ModelSource

_RECIPE = {field.name for field in fields(Recipe)}


def arms_from(
    orders: Sequence[str],
    factors: Mapping[str, Sequence[Any]] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Arm, ...]:
    """Return an arm per choice of values and order; the orders of one choice follow each other.

    A factor that is an option of the recipe (lr, weight_decay, ...) goes to the recipe, any other
    to the builder. Every order is parsed, so that a typo fails before anything runs. own: options
    of the recipe by canonical order, which that order trains with whatever varies.

    Raises: InputError: `own` names an order that isn't compared, or an option that varies.

    >>> [arm.label for arm in arms_from(["before", "none"], {"act": ["relu", "tanh"]})][2:]
    ['linear-norm-act (act=tanh)', 'linear-act (act=tanh)']
    """
    arms = []
    for values in product(*(factors or {}).values()):
        chosen = dict(zip(factors or {}, values, strict=True))
        options = {name: value for name, value in chosen.items() if name not in _RECIPE}
        recipe = {name: value for name, value in chosen.items() if name in _RECIPE}
        arms += [Arm(str(order), options, recipe) for order in orders]
    found = [arm.name for arm in arms]  # parses every order
    for name, values in (own or {}).items():
        if name not in found:
            raise unknown("order in the recipe's arms", name, found)
        if twice := values.keys() & (factors or {}).keys():
            raise InputError(
                f"{min(twice)} varies, and is an order's own too: give one of the two."
            )
    given = own or {}
    return tuple(replace(arm, recipe={**given.get(arm.name, {}), **arm.recipe}) for arm in arms)


def short_names(arms: Sequence[Compared]) -> dict[str, str]:
    """Return a short name for each arm's label, with the order's alias if every order has one.

    >>> short_names(arms_from(["before", "after"]))["linear-act-norm"]
    'after'
    """
    aliases = {arm.label: arm.order.alias for arm in arms if arm.order is not None}
    if len(aliases) < len(arms) or None in aliases.values():
        return {arm.label: arm.label for arm in arms}
    names = {arm.label: aliases[arm.label] or arm.name for arm in arms}
    values = {arm.label: f" ({chosen(arm.varied)})" if arm.varied else "" for arm in arms}
    return {label: f"{name}{values[label]}" for label, name in names.items()}


def check_factors(factors: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the factors as tuples of values.

    Raises: InputError: a factor with fewer than two values, or with one twice.
    """
    if not isinstance(factors, Mapping):
        raise InputError(
            f"vary must be a mapping of names to values, such as {{'act': ['relu', 'tanh']}}, got "
            f"{factors!r}."
        )
    if "order" in factors:
        raise InputError("vary can't take orders: name them with orders= (--orders).")
    checked = {}
    for name, values in factors.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise InputError(f"vary needs several values for {name}, got {values!r}.")
        if len(values) < 2:
            raise InputError(
                f"vary needs at least two values for {name}, got {list(values)}: give a single one "
                "as an ordinary option."
            )
        if len({repr(value) for value in values}) < len(values):
            raise InputError(f"vary has a value of {name} twice: {list(values)}.")
        checked[name] = tuple(values)
    return checked


_USUAL = {
    "act": set(select(kind="act")),
    "norm": {*NORM_KINDS},
    "bias": {"rule", "always", "never"},
}


def check_values(source: ModelSource, arms: Sequence[Arm], data: Dataset) -> None:
    """Check the values of a built-in net's options before a worker starts.

    Usual values pass at once. With any other the net is built here, which imports Keras.

    Raises: InputError: the net has no such option or value.
    """
    if source.kind != "net":
        return
    known, built = nets.options(source.text), []
    for arm in arms:
        chosen = nets.check_options(source.text, {**source.options, **arm.options})
        texts = {name: value for name, value in chosen.items() if isinstance(value, str)}
        usual = all(v == known[n] or v in _USUAL.get(n, ()) for n, v in texts.items())
        check_rate(chosen.get("dropout", 0.0))
        if not usual and texts not in built:
            built.append(texts)
            use_backend()
            nets.build(source.text, arm.given, data.input_shape, data.classes, **chosen)


def check_dropout(
    source: ModelSource, arms: Sequence[Arm], factors: Mapping[str, Sequence[Any]]
) -> None:
    """Check that a dropout rate has an effect: in a built-in net it is that of the drop token.

    Raises: InputError: no order has the token, or, if the rate is varied, one order lacks it.
    """
    if source.kind != "net" or "dropout" not in nets.options(source.text):
        return
    without = [str(arm.order) for arm in arms if not arm.order.has_drop]
    given = source.options.get("dropout", 0)
    if not without or ("dropout" not in factors and (not given or len(without) < len(arms))):
        return
    what = f"{list(factors['dropout'])}" if "dropout" in factors else f"{given}"
    raise InputError(
        f"dropout is the rate of an order's drop token, so that {what} does nothing in "
        f"{without[0]}: name its place, such as {without[0]}-drop."
    )

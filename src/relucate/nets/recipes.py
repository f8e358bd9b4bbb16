"""Published experiments by name: net, data, orders and training, read from `recipes.toml`.

A recipe is what an experiment is by default; whatever the user gives comes first. Called by
`relucate.compare(recipe=NAME)` and `relucate recipes`. Not here: one run's settings
(`train.recipe.Recipe`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError, unknown
from ..order import Order

_FILE = Path(__file__).with_name("recipes.toml")
_SMALL = ":small"


@dataclass(frozen=True)
class NamedRecipe:
    """An experiment as data.

    source: where it is from; checked: what of it was read there; size: of a folder's images;
    recipe: options of `Recipe` for every order; arms: those that one order has of its own.
    """

    name: str
    title: str
    source: str
    checked: str
    net: str
    data: str
    orders: tuple[str, ...]
    size: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data."""
        return {**asdict(self), "orders": list(self.orders)}

    def training(
        self, own: Mapping[str, Any], orders: Sequence[str], tuned: bool = False
    ) -> dict[str, Any]:
        """Return the options of the training, the user's own first.

        An option that the user gives goes to all orders, so that no order keeps its own of it; so
        does a rate that is tuned.

        Args: orders: what is compared.
        """
        given = {*own, "lr"} if tuned else set(own)
        compared = {str(Order(order)) for order in orders}
        arms = {
            order: {name: value for name, value in values.items() if name not in given}
            for order, values in self.arms.items()
            if str(Order(order)) in compared
        }
        return {**self.recipe, "arms": arms, **own}

    def source_of_data(self) -> str:
        """Return where the recipe's data are.

        Raises: InputError: they are a folder that doesn't exist.
        """
        kind, _, folder = self.data.partition(":")
        if kind == "folder" and not Path(folder).is_dir():
            raise InputError(
                f"the recipe '{self.name}' looks for its images in the folder '{folder}', which "
                "does not exist: give your own with --data folder:PATH (in Python data=)."
            )
        return self.data

    def fits(self, model: Any) -> bool:
        """Return whether the recipe's own net is trained: its options and orders are for that."""
        return model is None or model == self.net


def recipe_names() -> list[str]:
    """Return the names of all recipes, without their small versions.

    >>> "caffenet32" in recipe_names()
    True
    """
    return list(_recipes())


def recipe_named(name: str) -> NamedRecipe:
    """Return the recipe of this name, or its small version, NAME:small.

    Raises: InputError: there is none.

    >>> recipe_named("bn-paper").recipe["batch_size"], recipe_named("bn-paper:small").data
    (60, 'digits')
    """
    if not isinstance(name, str):
        raise InputError(f"a recipe's name must be a text, got {name!r:.80}.")
    base = name.removesuffix(_SMALL)
    if base not in _recipes():
        raise unknown("recipe", name, recipe_names())
    found = dict(_recipes()[base])
    small = found.pop("small", {})
    if name.endswith(_SMALL):
        found |= {**small, "recipe": {**found["recipe"], **small.get("recipe", {})}}
        if found["data"] == "digits":
            found.pop("size", None)  # only folders are resized
    return NamedRecipe(name=name, **{**found, "orders": tuple(found["orders"])})


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_FILE.read_text("utf-8"))

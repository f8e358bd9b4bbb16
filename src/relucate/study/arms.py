"""Arms, the things that are compared: building them in a worker, pairing their initial values.

The driver uses `Arm`, which is plain data; the rest runs inside worker processes. Not here:
distinguishing built arms (`fingerprint`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import InputError, Refused, RelucateError
from ..frameworks import imported, seed_all
from ..nets.user_code import where
from ..order import Order
from ..phrases import shown
from ..train.framework import Framework, ReadModel
from ..train.initial import sample
from ..train.pairing import Paired, pair_initial
from ..train.recipe import Recipe
from ..train.standard import Standard
from ..train.streams import derive
from .norm_settings import equalise
from .rebuilding import Made, framework_of
from .source import ModelSource


@dataclass(frozen=True)
class Arm:
    """One thing to compare: an order, as the user wrote it (`given`) and in canonical form.

    options: this arm's own options of the builder; recipe: its own options of the training.
    """

    given: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """The parsed order."""
        return parsed(self.given)

    @property
    def name(self) -> str:
        """The canonical order."""
        return str(self.order)

    @property
    def label(self) -> str:
        """The arm's name in tables: its canonical order, and the options it varies."""
        return label(self.name, self.varied)

    @property
    def varied(self) -> dict[str, Any]:
        """What this arm has of its own besides the order."""
        return {**self.options, **self.recipe}

    @property
    def network(self) -> Arm:
        """The arm without its recipe: the network alone."""
        return replace(self, recipe={}) if self.recipe else self

    def to_dict(self) -> dict[str, Any]:
        """Return the network as JSON-ready data, without the recipe."""
        return {"given": self.given, "order": str(self.order), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arm:
        """Return the network of `to_dict`'s data."""
        return cls(values["given"], values["options"])


@lru_cache(maxsize=64)
def parsed(order: str) -> Order:
    """Return an order from its text; a label is made for every run again."""
    return Order(order)


def label(name: str, varied: Mapping[str, Any]) -> str:
    """Return an arm's label: its name, and what it varies besides.

    >>> label("linear-act", {"act": "tanh"})
    'linear-act (act=tanh)'
    """
    chosen = ", ".join(f"{key}={shown(value)}" for key, value in varied.items())
    return f"{name} ({chosen})" if chosen else name


@dataclass
class Built:
    """A newly built model of any framework, and its tensors by name."""

    model: Any
    framework: Framework
    names: dict[str, str]  # of the model's tensors -> the names that pair them across arms
    tensors: dict[str, np.ndarray]  # by the names that pair them
    note: str = ""  # on how it was built

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Set the tensors, which are given by the names that pair them."""
        own = {name: values[paired] for name, paired in self.names.items() if paired in values}
        self.framework.load(self.model, own)

    def read(self) -> ReadModel:
        """Return the read model; it is read once.

        Raises: Refused: it can't be read.
        """
        if isinstance(self._read, Refused):
            raise self._read
        return self._read

    @cached_property
    def _read(self) -> ReadModel | Refused:
        try:
            return self.framework.read(self.model)
        except Refused as refusal:
            return refusal


def build(
    source: ModelSource, arm: Arm, seed: int, input_shape: tuple[int, ...], classes: int
) -> Built:
    """Build one arm's model with the seed's own random state; other arms' draws don't change it.

    Raises: InputError, Refused: the builder fails, or doesn't return a model.
    """
    own = replace(source, options={**source.options, **arm.options})
    model, note, renamed = _built_seeded(
        own, arm, derive(seed, "init") % 2**32, input_shape, classes
    )
    framework = framework_of(model)
    note = "; ".join(text for text in (note, equalise(model, framework, source.norms)) if text)
    if not framework.is_built(model):
        call(framework, model, np.zeros((2, *input_shape), np.float32), training=False)
    tensors = framework.tensors(model)
    names = {name: _paired_name(name, renamed) for name in tensors}
    return Built(model, framework, names, {names[key]: tensors[key] for key in tensors}, note)


def _paired_name(name: str, renamed: Mapping[str, str]) -> str:
    """Return a tensor's name, where its layer took another one's name with that layer's own."""
    for new, old in renamed.items():
        if name.startswith(f"{new}."):
            return f"{old}{name.removeprefix(new)}"
    return name


def _built_seeded(
    source: ModelSource, arm: Arm, seed: int, input_shape: tuple[int, ...], classes: int
) -> Made:
    loaded, made = None, Made(None)
    while loaded != imported():  # the builder may import another, whose generator is then unseeded
        loaded = imported()
        seed_all(seed)
        random.seed(seed)
        np.random.seed(seed)
        made = source.build_noted(arm.given, input_shape, classes)
    return made


def call(framework: Framework, model: Any, x: np.ndarray, *, training: bool) -> Any:
    """Call a model on a batch (channels last) without gradients, its randomness seeded.

    Raises: InputError: it fails, with the user's line.
    """
    try:
        return framework.call(model, x, training=training)
    except RelucateError:
        raise
    except Exception as error:
        layout = f" ({framework.name} modules get channels first)" if framework.images_first else ""
        raise InputError(
            f"the model fails on a batch of {len(x)} examples of shape {x.shape[1:]}{layout}: "
            f"{where(error)}"
        ) from error


def build_paired(
    source: ModelSource,
    arm: Arm,
    before: Sequence[Arm],
    seed: int,
    input_shape: tuple[int, ...],
    classes: int,
) -> tuple[Built, Paired]:
    """Build an arm and give it the initial values that it shares with earlier arms."""
    earlier: list[dict[str, np.ndarray]] = []
    for other in before:
        built = build(source, other, seed, input_shape, classes)
        earlier.append(pair_initial(built.tensors, earlier).values)
    built = build(source, arm, seed, input_shape, classes)
    paired = pair_initial(built.tensors, earlier)
    if paired.shared:
        built.load(paired.values)
    return built, paired


def initialise(built: Built, data: Dataset, recipe: Recipe, seed: int) -> None:
    """Start a paired model's kernels as the recipe says, the same way in every arm.

    Raises: InputError: the model has no kernel that can be set.
    """
    if recipe.initialization == "model":
        return
    trained = data.held_out(recipe.validation)[0].x_train
    x = Standard.of(trained, recipe.standardize)(sample(trained, seed))
    names = built.names
    built.framework.initialise(built.model, recipe.initialization, x, seed=seed, names=names)

"""How a run trains, as plain data: one Recipe, the same for every arm unless a study varies it.

Not here: what is trained (the model), on what (the data), or by which engine.
"""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InputError, unknown

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine", "constant", "step")
PRECISIONS = ("fp32", "bf16")
AUGMENTATIONS = ("flip", "crop")
_LEARNING_RATES = {"sgd": 0.1, "adamw": 2e-3}
_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
_COUNTS = {"epochs": 1, "batch_size": 1, "reestimate": 0, "curve": 0}  # name -> least
_NUMBERS = {  # name -> from, up to but without, in words
    "lr": (sys.float_info.min, math.inf, "a number above 0"),
    "weight_decay": (0.0, math.inf, "a number, 0 or more"),
    "momentum": (0.0, 1.0, "a number in [0, 1)"),
    "label_smoothing": (0.0, 1.0, "a number in [0, 1)"),
    "validation": (0.0, 1.0, "a number in [0, 1)"),
}


@dataclass(frozen=True)
class Recipe:
    """Everything about training that isn't the model or the data.

    epochs: passes over the training set; batch_size: examples per step (the last, incomplete batch
    of an epoch is left out); lr: peak learning rate (None takes 0.1 for sgd, 0.002 for adamw);
    momentum: Nesterov's, for sgd; weight_decay: L2 for sgd, decoupled for adamw; decay_all: decay
    norm parameters and biases too; augment: random horizontal flips, random crops (images only);
    standardize: subtract the training set's mean per channel and divide by its standard deviation
    (False: raw values as floats); reestimate: training examples over which batch-norm statistics
    are averaged before every evaluation (0: keep the moving averages); curve: test examples scored
    after each epoch for the learning curve (0: only the end is scored, on all of them); validation:
    share of the training data that is held out, the score then being that of the epoch that did
    best there (0: nothing is held out, the score is the last epoch's).

    Values are kept in one form (ints, floats, augmentations in one order), so that equal recipes
    are equal as plain data too. Raises: InputError, naming the option and what it takes.

    >>> Recipe(lr=1, augment="flip").to_dict()["augment"], Recipe(lr=1) == Recipe(lr=1.0)
    (['flip'], True)
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_all: bool = False
    schedule: str = "onecycle"
    label_smoothing: float = 0.0
    precision: str = "fp32"
    augment: tuple[str, ...] = ()
    standardize: bool = True
    reestimate: int = 2048
    curve: int = 2000
    validation: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        self._set("augment", _augmentations(self.augment))
        if self.lr is None:
            self._set("lr", _LEARNING_RATES[self.optimizer])
        for name, (least, below, words) in _NUMBERS.items():
            self._set(name, _number(name, getattr(self, name), least, below, words))
        for name, least in _COUNTS.items():
            self._set(name, _count(name, getattr(self, name), least))
        for name in ("decay_all", "standardize"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is True or False, got {getattr(self, name)!r}.")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # how a frozen dataclass brings its fields into form

    @property
    def rate(self) -> float:
        """The peak learning rate as a float."""
        return _LEARNING_RATES[self.optimizer] if self.lr is None else self.lr

    def trained(self, examples: int) -> int:
        """Return how many of the training examples are trained on.

        >>> Recipe(validation=0.2).trained(101)
        80
        """
        return examples - math.ceil(round(examples * self.validation, 6))

    def check_fits(self, examples: int, input_shape: tuple[int, ...]) -> None:
        """Refuse data on which the recipe can't train: too few examples, nothing to augment.

        Raises: InputError: a batch larger than the training set; flips or crops of what isn't an
        image (height, width, channels).
        """
        if self.batch_size > self.trained(examples):
            kept = " that aren't held out" if self.validation else ""
            raise InputError(
                f"batch_size {self.batch_size} is larger than the {self.trained(examples)} "
                f"training examples{kept}: choose a smaller one."
            )
        if self.augment and len(input_shape) != 3:
            raise InputError(
                f"augment {', '.join(self.augment)} takes images (height, width, channels), and "
                f"the data's examples have shape {input_shape}: leave it out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data."""
        return {**asdict(self), "augment": list(self.augment)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` came from; an unknown option is an error."""
        _check_names(values)
        return cls(**values)

    def changed(self, **changes: Any) -> Recipe:
        """Return a copy with some options changed (and checked)."""
        _check_names(changes)
        return replace(self, **changes)


def _check_names(values: dict[str, Any]) -> None:
    names = [field.name for field in fields(Recipe)]
    for name in values:
        if name not in names:
            raise unknown("training option", name, names)


def _augmentations(given: Any) -> tuple[str, ...]:
    """Return the augmentations in the order in which they are applied, each once."""
    names = [given] if isinstance(given, str) else list(given or ())
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
    return tuple(name for name in AUGMENTATIONS if name in names)


def _number(name: str, value: Any, least: float, below: float, words: str) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not least <= number < below:  # false for NaN
        raise InputError(f"{name} is {words}, got {value!r}.")
    return number


def _count(name: str, value: Any, least: int) -> int:
    try:
        count = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise InputError(f"{name} is a whole number of at least {least}, got {value!r}.")
    return count

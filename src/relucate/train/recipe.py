"""How a run trains, as plain data: one Recipe, the same for every arm unless a study varies it.

Not here: what is trained (the model), on what (the data), or by which engine.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InputError, unknown

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine", "constant", "step")
PRECISIONS = ("fp32", "bf16")
AUGMENTATIONS = ("flip", "crop")
_LEARNING_RATES = {"sgd": 0.1, "adamw": 2e-3}


@dataclass(frozen=True)
class Recipe:
    """Everything about training that isn't the model or the data.

    epochs: passes over the training set; batch_size: examples per step (the last, incomplete batch
    of an epoch is left out); lr: peak learning rate (None takes 0.1 for sgd, 0.002 for adamw);
    momentum: Nesterov's, for sgd; weight_decay: L2 for sgd, decoupled for adamw; decay_all: decay
    norm parameters and biases too; standardize: subtract the training set's mean per channel and
    divide by its standard deviation (False: raw values as floats); reestimate: training examples over which batch-norm statistics
    are averaged before every evaluation (0: keep the moving averages); curve: test examples scored
    after each epoch for the learning curve (0: only the end is scored, on all of them).
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment))
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.lr is None:
            object.__setattr__(self, "lr", _LEARNING_RATES[self.optimizer])
        self._check_choices()
        self._check_numbers()

    def _check_choices(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise unknown("augmentation", name, AUGMENTATIONS)

    def _check_numbers(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("reestimate", 0), ("curve", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is a whole number of at least {least}, got {value!r}.")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"lr is a number above 0, got {self.lr!r}.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay is 0 or more, got {self.weight_decay!r}.")
        for name in ("momentum", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} is in [0, 1), got {getattr(self, name)!r}.")

    @property
    def rate(self) -> float:
        """The peak learning rate as a float."""
        return float(self.lr if self.lr is not None else _LEARNING_RATES[self.optimizer])

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data."""
        return {**asdict(self), "augment": list(self.augment)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` came from; an unknown option is an error."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("training option", name, names)
        return cls(**values)

    def changed(self, **changes: Any) -> Recipe:
        """Return a copy with some options changed (and checked)."""
        return replace(self, **changes)

"""How a run trains, as plain data: one Recipe, the same for every arm unless a study varies it.

Not here: the model, the data, the engine.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from ..errors import InputError, unknown
from ..option import option

AUGMENTATIONS = ("flip", "crop")
LOSSES = ("cross-entropy", "binary cross-entropy", "mse", "huber", "l1")
_LEARNING_RATES = {"sgd": 0.1, "adamw": 2e-3}
_ABOVE_0 = (
    sys.float_info.min,
    math.inf,
    "a number above 0",
)  # least, upper bound, words
_FROM_0 = (0.0, math.inf, "a number, 0 or more")
_BELOW_1 = (0.0, 1.0, "a number in [0, 1)")
INITS = ("orthonormal", "lsuv")  # `train.initial`, which computes with NumPy: not for --help
_LATER = ("loss", "class_weight", "initialization", "milestones", "unbiased")


OPTIMIZATION = (  # what a compiled model has of its own
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "decay_all",
    "schedule",
    "milestones",
    "label_smoothing",
    "loss",
)


@dataclass(frozen=True)
class Recipe:
    """All settings of training, besides the model and the data.

    Each option is defined once, here: its default, its check, and its help for `relucate compare
    --help`. lr=None takes the optimizer's usual rate.

    Values are normalised (ints, floats, augmentations in one order), so that equal recipes are also
    equal as plain data. Raises: InputError, naming the option and its allowed values.

    >>> Recipe(lr=1, augment="flip").to_dict()["augment"], Recipe(lr=1) == Recipe(lr=1.0)
    (['flip'], True)
    """

    epochs: int = option(10, "Passes over the training data.", least=1)
    batch_size: int = option(
        128,
        "Examples per step; the last, incomplete batch of an epoch is left out.",
        least=1,
        shown="128; 64 below 5,000 examples",
    )
    optimizer: str = option("sgd", "sgd (Nesterov) or adamw.", choices=tuple(_LEARNING_RATES))
    lr: float | None = option(
        None, "Peak learning rate.", span=_ABOVE_0, shown="0.1 for sgd, 0.002 for adamw"
    )
    momentum: float = option(0.9, "Momentum of sgd.", span=_BELOW_1)
    weight_decay: float = option(
        5e-4, "Weight decay: L2 for sgd, decoupled for adamw.", span=_FROM_0
    )
    decay_all: bool = option(False, "Decay norm parameters and biases too.")
    schedule: str = option(
        "onecycle",
        "onecycle, cosine, constant or step.",
        choices=("onecycle", "cosine", "constant", "step"),
    )
    milestones: tuple[float, ...] = option(
        (0.5, 0.75),
        "With --schedule step: after these shares of the training the rate is a tenth of what it "
        "was.",
        shown="0.5,0.75",
    )
    label_smoothing: float = option(0.0, "Label smoothing.", span=_BELOW_1)
    precision: str = option(
        "fp32",
        "fp32 (full float32, on a GPU too), tf32 (convolutions and matrix products of an NVIDIA "
        "GPU in TF32) or bf16 (autocast).",
        choices=("fp32", "tf32", "bf16"),
    )
    augment: tuple[str, ...] = option(
        (), "Of images: flip (horizontally), crop or flip,crop; of volumes: flip.", shown="none"
    )
    standardize: bool = option(
        True,
        "Don't standardise the inputs (subtract the training set's mean per channel, divide by "
        "its standard deviation).",
        flag="--raw",
    )
    reestimate: int = option(
        2048,
        "Training examples over which batch-norm statistics are averaged before every evaluation "
        "(0: keep the moving averages).",
        least=0,
    )
    unbiased: bool = option(
        False,
        "Evaluate with the unbiased variance, m/(m - 1) times that of the m values of a batch, as "
        "the Batch Normalization paper does (PyTorch's own batch norm always does).",
    )
    curve: int = option(
        2000,
        "Test examples scored after each epoch for the learning curve (0: only the end is scored, "
        "on all of them).",
        least=0,
    )
    loss: str | None = option(
        None,
        "The training loss: cross-entropy, binary cross-entropy, mse, huber or l1.",
        choices=LOSSES,
        shown="the task's usual one; mse for regression",
    )
    class_weight: str = option(
        "none",
        "Weights of the classes in the training loss: balanced, or a number for each, 1,5.",
    )
    validation: float = option(
        0.0,
        "Hold out this share of the training data and score the epoch that is best there (0: score "
        "the last epoch).",
        span=_BELOW_1,
    )

    initialization: str = option(
        "model",
        "Kernels of the dense and convolutional layers at the start: model (the model's own), "
        "orthonormal, or lsuv (orthonormal, then outputs of unit variance).",
        choices=("model", *INITS),
        flag="--init",
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            choices, value = field.metadata.get("choices"), getattr(self, field.name)
            if choices and value != field.default and value not in choices:
                raise unknown(field.name, value, choices)
        self._set("augment", _augmentations(self.augment))
        self._set("milestones", _milestones(self.milestones))
        self._set("class_weight", _class_weight(self.class_weight))
        if self.lr is None:
            self._set("lr", _LEARNING_RATES[self.optimizer])
        for field in fields(self):
            self._set(field.name, _checked(field, getattr(self, field.name)))
        self._check_used()

    def _check_used(self) -> None:
        """Refuse what would have no effect beside the other values."""
        if self.unbiased and not self.reestimate:
            raise InputError("unbiased needs re-estimated statistics: leave reestimate above 0.")
        if self.optimizer != "sgd" and self.momentum != Recipe.momentum:
            raise InputError(f"momentum is of sgd: leave it out, {self.optimizer} has its own.")
        if self.schedule != "step" and self.milestones != Recipe.milestones:
            raise InputError(
                f"milestones need schedule 'step', got '{self.schedule}': leave them out, or take "
                "that schedule."
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    @property
    def rate(self) -> float:
        """The peak learning rate as a float."""
        return _LEARNING_RATES[self.optimizer] if self.lr is None else self.lr

    def trained(self, examples: int) -> int:
        """Return the number of training examples that aren't held out.

        >>> Recipe(validation=0.2).trained(101)
        80
        """
        return examples - math.ceil(round(examples * self.validation, 6))

    def check_fits(self, examples: int, input_shape: tuple[int, ...]) -> None:
        """Refuse data that don't fit the recipe.

        Raises: InputError: a batch larger than the training set; flips or crops of examples that
        aren't images (height, width, channels); crops of volumes.
        """
        if self.batch_size > self.trained(examples):
            kept = " that aren't held out" if self.validation else ""
            raise InputError(
                f"batch_size {self.batch_size} is larger than the {self.trained(examples)} "
                f"training examples{kept}: choose a smaller one."
            )
        if self.augment and len(input_shape) not in (3, 4):
            raise InputError(
                f"augment {', '.join(self.augment)} takes images (height, width, channels), and "
                f"the data's examples have shape {input_shape}: leave it out."
            )
        if "crop" in self.augment and len(input_shape) == 4:
            raise InputError(
                "augment crop shifts the rows and columns of images, and the data's examples are "
                f"volumes or videos {input_shape}: leave it out (flip mirrors their width)."
            )

    def check_device(self, device: str) -> None:
        """Refuse a kind of device that can't compute as the recipe says.

        Raises: InputError: TF32 on what isn't an NVIDIA GPU.
        """
        if self.precision == "tf32" and device != "cuda":
            raise InputError(
                f"precision tf32 needs an NVIDIA GPU (device cuda), and the device is {device}, "
                "which computes in full float32: set precision to fp32."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data.

        Options that came later are left out at their defaults, so that the hashes of older runs
        stay valid.
        """
        return {
            field.name: _plain(getattr(self, field.name))
            for field in fields(self)
            if field.name not in _LATER or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe of `to_dict`'s data; an unknown option is an error."""
        _check_names(values)
        return cls(**values)

    def changed(self, **changes: Any) -> Recipe:
        """Return a copy with some options changed (and checked)."""
        _check_names(changes)
        return replace(self, **changes)


def no_variance() -> InputError:
    """Return the error for a batch of one example that leaves a batch norm without a variance."""
    return InputError(
        "a batch norm of this model gets one value per channel from one example, which has no "
        "variance: set batch_size (--batch-size) to 2 or more."
    )


def _check_names(values: dict[str, Any]) -> None:
    names = [field.name for field in fields(Recipe)]
    for name in values:
        if name in ("callbacks", "early_stopping", "patience"):
            raise InputError(
                f"the recipe has no '{name}': validation=0.2 scores the best epoch on held-out "
                "data. For callbacks of your own, train with your own function: compare(run=...)."
            )
        if name not in names:
            raise unknown("training option", name, names)


def _augmentations(given: Any) -> tuple[str, ...]:
    """Return the augmentations, each once, in the order of their application."""
    names = [given] if isinstance(given, str) else list(given or ())
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
    return tuple(name for name in AUGMENTATIONS if name in names)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _milestones(given: Any) -> tuple[float, ...]:
    """Return shares of the training, ascending.

    >>> _milestones([0.5, 0.25])
    (0.25, 0.5)
    """
    try:
        shares = tuple(sorted(_number("milestones", share, *_BELOW_1) for share in given))
    except (TypeError, InputError):
        shares = ()
    if not shares or len(set(shares)) < len(shares):
        raise InputError(
            "milestones must be different shares of the training, numbers in [0, 1) such as "
            f"0.5,0.75; got {given!r}."
        )
    return shares


def _class_weight(given: Any) -> str:
    """Return class weights as text: "none", "balanced", or a number for each class.

    >>> _class_weight({0: 1, 1: 5.0}), _class_weight((1, 0.5))
    ('1,5', '1,0.5')
    """
    if given in (None, "none", "balanced"):
        return given or "none"
    weights: Any = given.split(",") if isinstance(given, str) else given
    if isinstance(weights, Mapping):
        weights = [weights.get(code) for code in range(len(weights))]
    try:
        numbers = [_number("class_weight", float(w), *_FROM_0) for w in weights]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) < 2 or not any(numbers):
        raise InputError(
            "class_weight must be 'balanced', 'none', or a number of at least 0 for each class "
            f"in the order of their codes, such as 1,5; got {given!r}."
        )
    return ",".join(repr(number).removesuffix(".0") for number in numbers)


def _checked(field: Field[Any], value: Any) -> Any:
    if "span" in field.metadata:
        return _number(field.name, value, *field.metadata["span"])
    if "least" in field.metadata:
        return _count(field.name, value, field.metadata["least"])
    if isinstance(field.default, bool) and not isinstance(value, bool):
        raise InputError(f"{field.name} must be True or False, got {value!r}.")
    return value


def _number(name: str, value: Any, least: float, below: float, words: str) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not least <= number < below:  # false for NaN
        raise InputError(f"{name} must be {words}, got {value!r}.")
    return number


def _count(name: str, value: Any, least: int) -> int:
    try:
        count = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return count

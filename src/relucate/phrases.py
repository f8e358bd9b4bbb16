"""Phrases that every room uses: numbers with nouns, shortened lists, arms and orders in words.

How orders and activations are called in sentences is known only here. Not here: the sentences of a
verdict (`stats.wording`), what a study's arms are (`study.words`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where needed.

    >>> count(1, "pair"), count(1437, "image")
    ('1 pair', '1,437 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Iterable[str], show: int = 4) -> str:
    """Return the first names, and how many more there are.

    >>> some(["a", "b", "c", "d"], show=2)
    'a, b and 2 more'
    """
    names = list(names)
    rest = f" and {len(names) - show:,} more" if len(names) > show else ""
    return ", ".join(names[:show]) + rest


def shown(value: Any) -> str:
    """Return a varied value as labels and tables show it.

    >>> shown(0.1 + 0.2), shown("tanh")
    ('0.3', 'tanh')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def chosen(values: Mapping[str, Any]) -> str:
    """Return varied values as one text; a text needs no name beside it.

    >>> chosen({"act": "relu", "dropout": 0.2})
    'relu, dropout 0.2'
    """
    return ", ".join(
        shown(value) if isinstance(value, str) else f"{name} {shown(value)}"
        for name, value in values.items()
    )


_ACTIVATIONS = {
    **{name: name.upper() for name in ("elu", "selu", "celu", "gelu", "glu")},
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "rrelu": "RReLU",
    "silu": "SiLU",
    "swish": "Swish",
}
_NO_ACTIVATION = {"", "none", "linear", "identity"}
_ORDERS = {
    "linear-norm-act": "norm before {act}",
    "linear-act-norm": "norm after {act}",
    "norm-linear-act": "norm on the layer's input",
    "linear-act": "no norm",
}
_SUBJECTS = {"linear-act": "the net without a norm"}  # "no norm is better" has two meanings


def activation_in_words(name: str | None) -> str:
    """Return an activation with its article; of an unknown one, that there is one.

    >>> activation_in_words("relu"), activation_in_words("hard_tanh"), activation_in_words(None)
    ('the ReLU', 'the hard tanh', 'the activation')
    """
    if name is None or name.lower() in _NO_ACTIVATION:
        return "the activation"
    return f"the {_ACTIVATIONS.get(name.lower(), name.replace('_', ' '))}"


def order_in_words(order: str, activation: str | None = None) -> str:
    """Return a canonical order in words; the notation itself if it has no plain name.

    >>> order_in_words("linear-act-norm", "gelu"), order_in_words("linear-act")
    ('norm after the GELU', 'no norm')
    >>> order_in_words("norm-act-linear")
    'norm-act-linear'
    """
    return _ORDERS.get(order, order).format(act=activation_in_words(activation))


def names_activation(order: str) -> bool:
    """Return whether an order in words says where the norm is relative to the activation."""
    return "{act}" in _ORDERS.get(order, "")


@dataclass(frozen=True)
class Words:
    """What to call an arm in a sentence.

    subject: before the verb; other: where the subject is compared with it; plain: the subject is
    not a name that a user gave, and has a capital letter at the start of a sentence; clear: the
    other arm need not be named.
    """

    subject: str
    other: str = ""
    plain: bool = False
    clear: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "other", self.other or self.subject)

    @property
    def opening(self) -> str:
        """The subject at the start of a sentence."""
        return self.subject[:1].upper() + self.subject[1:] if self.plain else self.subject


@dataclass(frozen=True)
class Named:
    """An arm to put into words: an order and its activation, and what else sets the arm apart.

    order: canonical, or any other label.
    """

    order: str
    activation: str | None = None
    more: str = ""

    @property
    def words(self) -> Words:
        """The arm's words, whatever it is compared with."""
        more = f" ({self.more})" if self.more else ""
        other = order_in_words(self.order, self.activation) + more
        subject = _SUBJECTS[self.order] + more if self.order in _SUBJECTS else other
        return Words(subject, other, plain=self.order in _ORDERS)


def in_words(arm: Named, against: Named, *, alone: bool = True) -> tuple[Words, Words]:
    """Return the words of two arms that are compared with one another.

    alone: these two are all that is compared.

    >>> after, before = in_words(Named("linear-act-norm", "relu"), Named("linear-norm-act", "relu"))
    >>> f"{after.opening} is better than {before.other}"
    'Norm after the ReLU is better than norm before it'
    """
    sides = arm.order != against.order and all(names_activation(a.order) for a in (arm, against))
    if not sides or (arm.activation, arm.more) != (against.activation, against.more):
        return arm.words, against.words
    first, second = (
        Words(each.words.subject, _ORDERS[each.order].format(act="it"), plain=True, clear=alone)
        for each in (arm, against)
    )
    return first, second

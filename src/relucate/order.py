"""The notation: what a block does, as tokens in data-flow order, such as `linear-norm-act`.

Also here: which biases a norm makes redundant, and how other libraries spell an order. Not here:
which norm or activation a token means, and what a model does (`graph`) or should do (`surgery`).
Every function that takes an order passes it through `Order`, so there is one grammar and one set of
error messages. Imports only the standard library and the errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from relucate.errors import InputError, Refused, unknown

TOKENS = ("linear", "norm", "act", "drop")
ALIASES = {"before": "linear-norm-act", "after": "linear-act-norm", "none": "linear-act"}
NORM_KINDS = ("batch", "instance", "group", "layer", "rms", "unit", "spectral", "none")

_SYNONYMS = {
    "linear": "conv conv1d conv2d conv3d convolution dense fc lin matmul",
    "norm": "bn ln gn batch batchnorm batchnormalization layernorm layernormalization groupnorm "
    "groupnormalization instancenorm rmsnorm normalization normalize",
    "act": "activation nonlinearity nonlin relu prelu elu selu gelu silu swish tanh sigmoid",
    "drop": "dropout",
}
_TOKEN_OF = {word: token for token, words in _SYNONYMS.items() for word in [token, *words.split()]}
_GRAMMAR = (
    " An order is linear, norm, act and drop joined by '-', for example 'linear-norm-act', or an "
    "alias: before, after, none."
)
_MMCV = {"conv": "linear", "norm": "norm", "act": "act"}
_MONAI = {"N": "norm", "D": "drop", "A": "act"}


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Order:
    """What a block does, in data-flow order: exactly one `linear`, at most one of the others.

    Args: text: tokens `linear` (a convolution or dense layer), `norm`, `act`, `drop`, joined by
        `-`, or an alias; in any case, spaces around it are ignored. Or an Order.
    Raises: InputError: anything else; the message says what to write instead.

    Orders are equal if their tokens are. An order never equals a text: `Order("before")` equals
    `Order("linear-norm-act")`, and the text "before" equals neither.

    The `from_*` methods read another library's spelling. The `to_*` methods write it: a dict with
    the keyword arguments that set the order there, and that switch off what the order doesn't have.
    Which norm, activation or dropout rate the block has is not part of an order: pass those
    arguments yourself. `Order.from_x(**order.to_x()) == order` for every order that `x` has.

    >>> Order("after")
    Order('linear-act-norm')
    >>> Order("after").tokens, Order("linear-act-norm").alias
    (('linear', 'act', 'norm'), 'after')
    >>> Order("conv-bn-relu")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    relucate.errors.InputError: ... 'conv': write 'linear'. As an order: 'linear-norm-act'.
    """

    tokens: tuple[str, ...]

    def __init__(self, text: str | Order) -> None:
        tokens = text.tokens if isinstance(text, Order) else _parse(text)
        object.__setattr__(self, "tokens", tokens)

    def __str__(self) -> str:
        return "-".join(self.tokens)

    def __repr__(self) -> str:
        return f"Order('{self}')"

    @property
    def alias(self) -> str | None:
        """The short name (`before`, `after`, `none`) if there is one."""
        return next((alias for alias, text in ALIASES.items() if text == str(self)), None)

    @property
    def has_norm(self) -> bool:
        """Whether the block normalizes."""
        return "norm" in self.tokens

    @property
    def has_act(self) -> bool:
        """Whether the block has an activation."""
        return "act" in self.tokens

    @property
    def has_drop(self) -> bool:
        """Whether the block has a dropout."""
        return "drop" in self.tokens

    def without(self, token: str) -> Order:
        """Return the order without its `norm`, `act` or `drop`.

        Raises: InputError: a token that the order doesn't have, or `linear`.

        >>> Order("linear-norm-act-drop").without("drop").alias
        'before'
        """
        if token == "linear" or token not in self.tokens:
            raise InputError(f"the order '{self}' has no {token!r} that can be left out.")
        return _order(t for t in self.tokens if t != token)

    @classmethod
    def from_mmcv(
        cls, order: Sequence[str], *, norm_cfg: object = True, act_cfg: object = True
    ) -> Order:
        """Read the arguments of mmcv's `ConvModule`; a config of None means that there is none.

        A config that isn't given counts as present, unlike `ConvModule`'s own `norm_cfg=None`.
        Raises: InputError: `order` is no arrangement of conv, norm and act.

        >>> Order.from_mmcv(("conv", "act", "norm"))
        Order('linear-act-norm')
        """
        names = tuple(order) if isinstance(order, (tuple, list)) else ()
        if names not in permutations(_MMCV):
            raise InputError(
                f"mmcv's order is an arrangement of ('conv', 'norm', 'act'), got {order!r}."
            )
        return _present((_MMCV[n] for n in names), norm=norm_cfg, act=act_cfg)

    def to_mmcv(self) -> dict[str, object]:
        """Return for mmcv `order`, and `norm_cfg=None` or `act_cfg=None` where there is none.

        mmcv's `bias="auto"` drops the bias whenever there is a norm, in any place: pass `bias=True`
        unless `bias_is_redundant`. mmcv takes the order as a tuple and rejects a list.
        Raises: Refused: dropout, which ConvModule doesn't have.

        >>> Order("after").to_mmcv()
        {'order': ('conv', 'act', 'norm')}
        """
        spellings = ((names, [_MMCV[n] for n in names]) for names in permutations(_MMCV))
        names = self._spell("mmcv's ConvModule", spellings, "it has no dropout")
        return {"order": names, **self._off(norm=("norm_cfg", None), act=("act_cfg", None))}

    @classmethod
    def from_monai(
        cls, adn_ordering: str, *, norm: object = True, act: object = True, dropout: object = True
    ) -> Order:
        """Read MONAI's `Convolution(adn_ordering=...)`, a letter per step after the conv.

        MONAI skips a letter whose argument is None, such as its default `dropout`: give None here
        too, or leave the letter out.
        Raises: InputError: another letter, or a letter twice (MONAI accepts it and uses it once).

        >>> Order.from_monai("NDA")
        Order('linear-norm-drop-act')
        >>> Order.from_monai("NDA", dropout=None).alias
        'before'
        """
        letters = adn_ordering.upper() if isinstance(adn_ordering, str) else "?"
        if not set(letters) <= set(_MONAI) or len(set(letters)) < len(letters):
            raise InputError(
                "MONAI's ordering is made of the letters N (norm), D (dropout) and A (activation), "
                f"each at most once, for example 'NDA'; got {adn_ordering!r}."
            )
        tokens = ["linear", *(_MONAI[letter] for letter in letters)]
        return _present(tokens, norm=norm, act=act, drop=dropout)

    def to_monai(self) -> dict[str, object]:
        """Return `adn_ordering` for MONAI's `Convolution` (`ADN` itself calls it `ordering`).

        MONAI keeps the bias in every order: pass `bias=False` where `bias_is_redundant`.
        Raises: Refused: something comes before the linear layer.

        >>> Order("linear-norm-drop-act").to_monai()
        {'adn_ordering': 'NDA'}
        """
        if self.tokens[0] != "linear":
            reason = f"its letters follow the convolution, {self.tokens[0]} comes before it"
            raise self._refused("MONAI's adn_ordering", reason)
        letter = {token: letter for letter, token in _MONAI.items()}
        return {"adn_ordering": "".join(letter[t] for t in self.tokens[1:])}

    @classmethod
    def from_fastai(
        cls, bn_1st: bool = True, *, norm_type: object = True, act_cls: object = True
    ) -> Order:
        """Read the arguments of fastai's `ConvLayer`; None means that there is none.

        `NormType.Weight` and `NormType.Spectral` aren't norms of the block: they change the kernel.

        >>> Order.from_fastai(bn_1st=False)
        Order('linear-act-norm')
        """
        in_kernel = getattr(norm_type, "name", norm_type) in ("Weight", "Spectral")
        tokens = _CONV_LAYER[_flag("bn_1st", bn_1st)]
        return _present(tokens, norm=None if in_kernel else norm_type, act=act_cls)

    def to_fastai(self) -> dict[str, object]:
        """Return for fastai `bn_1st`, and `norm_type=None` or `act_cls=None` where there is none.

        fastai's ConvLayer drops the bias with every batch or instance norm, in any place: pass
        `bias=True` unless `bias_is_redundant`.
        Raises: Refused: dropout, or a norm or activation before the linear layer.

        >>> Order("after").to_fastai()
        {'bn_1st': False}
        """
        reason = (
            "that is linear-norm-act or linear-act-norm, each without norm or act if need be "
            "(LinBnDrop, in to_fastai_linbndrop, has dropout)"
        )
        first = self._spell("fastai's ConvLayer", _CONV_LAYER.items(), reason)
        return {"bn_1st": first, **self._off(norm=("norm_type", None), act=("act_cls", None))}

    @classmethod
    def from_fastai_linbndrop(
        cls, lin_first: bool = False, *, bn: object = True, p: object = True, act: object = True
    ) -> Order:
        """Read the arguments of fastai's `LinBnDrop`; False, 0 or None means that there is none.

        What isn't given counts as present, unlike LinBnDrop's own `p=0., act=None`.

        >>> Order.from_fastai_linbndrop(lin_first=False)
        Order('norm-drop-linear-act')
        >>> Order.from_fastai_linbndrop(lin_first=True, p=0.0)
        Order('linear-act-norm')
        """
        return _present(_LIN_BN_DROP[_flag("lin_first", lin_first)], norm=bn, drop=p, act=act)

    def to_fastai_linbndrop(self) -> dict[str, object]:
        """Return `lin_first`, and `bn=False`, `p=0.0` or `act=None` where there is none.

        LinBnDrop drops the bias with every norm, in both orders, and no argument prevents that: in
        `norm-drop-linear-act` and `linear-act-norm-drop` that bias is not redundant.
        Raises: Refused: any other order, such as linear-norm-act.

        >>> Order("norm-linear").to_fastai_linbndrop()
        {'lin_first': False, 'p': 0.0, 'act': None}
        """
        reason = (
            "that is norm-drop-linear-act or linear-act-norm-drop, each without norm, drop or act "
            "if need be"
        )
        first = self._spell("fastai's LinBnDrop", _LIN_BN_DROP.items(), reason)
        off = self._off(norm=("bn", False), drop=("p", 0.0), act=("act", None))
        return {"lin_first": first, **off}

    @classmethod
    def from_slim(cls, normalizer_fn: object, activation_fn: object) -> Order:
        """Read the arguments of TF-slim's `conv2d` or `fully_connected`: functions, names or None.

        >>> Order.from_slim(normalizer_fn="batch_norm", activation_fn=None)
        Order('linear-norm')
        """
        return _present(TOKENS[:3], norm=normalizer_fn, act=activation_fn)

    def to_slim(
        self, normalizer_fn: object = "batch_norm", activation_fn: object = "relu"
    ) -> dict[str, object]:
        """Return `normalizer_fn` and `activation_fn` for TF-slim: as given, or None for none.

        slim makes no bias if there is a normalizer, which then follows directly: right for a batch
        norm, not for a layer norm (`bias_is_redundant`).
        Raises: Refused: any order but linear-norm-act, with or without the norm or the activation.

        >>> Order("none").to_slim()
        {'normalizer_fn': None, 'activation_fn': 'relu'}
        """
        reason = "that is linear-norm-act, with or without norm and act"
        self._spell("TF-slim's layers", [("slim", TOKENS[:3])], reason)
        off = self._off(norm=("normalizer_fn", None), act=("activation_fn", None))
        return {"normalizer_fn": normalizer_fn, "activation_fn": activation_fn} | off

    @classmethod
    def from_lasagne(cls, text: str) -> Order:
        """Read nested Lasagne calls, as `to_lasagne` writes them; `layer` is a conv or dense layer.

        A layer has its nonlinearity unless it says `nonlinearity=None`. `batch_norm` moves it after
        the norm; `BatchNormLayer` leaves it in the layer.
        Raises: InputError: any other text.

        >>> Order.from_lasagne("batch_norm(layer)"), Order.from_lasagne("BatchNormLayer(layer)")
        (Order('linear-norm-act'), Order('linear-act-norm'))
        """
        forms = {_squeezed_call(order.to_lasagne()["text"]): order for order in all_orders()}
        form = _squeezed_call(text)
        if form not in forms:
            near = difflib.get_close_matches(form, forms, n=1) or ["batch_norm(layer)"]
            raise InputError(f"no known nesting of Lasagne layers: {text!r}, nearest: {near[0]!r}.")
        return forms[form]

    def to_lasagne(self) -> dict[str, object]:
        """Return `text`, the nested Lasagne calls: every order can be written so.

        `batch_norm` removes the bias of the layer that it wraps, which is right: the norm follows
        directly. `BatchNormLayer` keeps it.

        >>> Order("before").to_lasagne()
        {'text': 'batch_norm(layer)'}
        >>> Order("norm-act-linear").to_lasagne()["text"]
        'layer(NonlinearityLayer(BatchNormLayer(x)), nonlinearity=None)'
        """
        text, rest = "x", self.tokens
        while rest:
            done, template = next(c for c in _LASAGNE_CALLS if rest[: len(c[0])] == c[0])
            text, rest = template.format(text), rest[len(done) :]
        return {"text": text.replace("layer(x)", "layer")}

    def _spell(
        self, library: str, spellings: Iterable[tuple[object, Sequence[str]]], reason: str
    ) -> object:
        """Return the first spelling whose tokens, without those the order lacks, are this order."""
        for spelling, tokens in spellings:
            if tuple(t for t in tokens if t in self.tokens) == self.tokens:
                return spelling
        raise self._refused(library, reason)

    def _refused(self, library: str, reason: str) -> Refused:
        return Refused(f"{library} can't express the order '{self}': {reason}.")

    def _off(self, **switches: tuple[str, object]) -> dict[str, object]:
        """Return the keyword and value that switch off each token that the order doesn't have."""
        return dict(switch for token, switch in switches.items() if token not in self.tokens)


_CONV_LAYER = {True: ("linear", "norm", "act"), False: ("linear", "act", "norm")}
_LIN_BN_DROP = {False: ("norm", "drop", "linear", "act"), True: ("linear", "act", "norm", "drop")}
# The consecutive tokens that one Lasagne call covers; the longest first.
_LASAGNE_CALLS = (
    (("linear", "norm", "act"), "batch_norm(layer({}))"),
    (("linear", "norm"), "batch_norm(layer({}, nonlinearity=None))"),
    (("linear", "act"), "layer({})"),
    (("linear",), "layer({}, nonlinearity=None)"),
    (("norm",), "BatchNormLayer({})"),
    (("act",), "NonlinearityLayer({})"),
    (("drop",), "dropout({})"),
)


def bias_is_redundant(
    order: str | Order, norm: str, *, groups: int | None = None, channels: int | None = None
) -> bool:
    """Return whether the norm removes any bias that the linear layer adds.

        norm(W x + b) = norm(W x),   because mean(W x + b) = mean(W x) + b   in every channel

    True only if a norm that subtracts a mean per channel *directly* follows the linear layer: an
    activation between them makes the bias's effect nonlinear, and dropout between them removes the
    bias in some places only. A layer norm subtracts one mean from all channels, so a bias that
    differs between channels stays. The rule is about one block: in a chain of `norm-act-linear`
    blocks the next block's norm may follow directly, too, and only the network shows that.

    Args:
        order: an Order or its text.
        norm: one of `NORM_KINDS`.
        groups, channels: of a group norm, which counts if it has as many groups as channels
            (Keras: groups=-1); ignored for the other kinds.

    Raises: InputError: another norm, or a group norm without its groups and channels.
    Exact in training; at inference with a moving mean, exact if that mean was taken with the bias.
    Source: Ioffe and Szegedy, Batch Normalization, 2015, section 3.2.

    >>> bias_is_redundant("before", "batch"), bias_is_redundant("after", "batch")
    (True, False)
    >>> bias_is_redundant("before", "group", groups=8, channels=64)
    False
    """
    if norm not in NORM_KINDS:
        raise unknown("norm", norm, NORM_KINDS)
    per_channel = norm in ("batch", "instance")
    if norm == "group":
        per_channel = _one_channel_per_group(groups, channels)
    return per_channel and ("linear", "norm") in pairwise(Order(order).tokens)


def _one_channel_per_group(groups: int | None, channels: int | None) -> bool:
    if groups == -1:
        return True
    if groups is None or channels is None:
        raise InputError(
            "whether a group norm makes a bias redundant depends on its size: give groups and "
            f"channels, got groups={groups}, channels={channels}."
        )
    return groups == channels


def _parse(text: object) -> tuple[str, ...]:
    """Return the tokens of an order's text, or raise the InputError that says how to write it."""
    if not isinstance(text, str):
        words = text if isinstance(text, (list, tuple)) else ()
        hint = _correction("-".join(map(str, words)))
        raise InputError(
            "an order is text such as 'linear-norm-act' or 'before', got "
            f"{text!r} ({type(text).__name__}).{hint}"
        )
    bare = text.strip().lower()
    parts = ALIASES.get(bare, bare).split("-")
    misspelt = (_misspelling(part, len(parts) == 1) for part in parts if part not in TOKENS)
    problem = next(misspelt, None) or _miscount(parts)
    if problem:
        hint = _correction(bare) or _GRAMMAR
        raise InputError(f"the order {_shown(text)} {problem}.{hint}")
    return tuple(parts)


def _misspelling(part: str, alone: bool) -> str:
    """Return what is wrong with a part of an order that isn't a token."""
    if not part and alone:
        return "is empty"
    if not part:
        return "has an empty token: write one '-' between two tokens and none at the ends"
    if part in ALIASES:
        return f"mixes the alias '{part}' with tokens: an alias is used alone"
    token = _meant(part)
    if token and _squeezed(part) not in TOKENS:
        return f"has the token {_shown(part)}: write '{token}'"
    separator = re.search(r"[\W_]", part)
    if separator:
        return f"holds {separator[0]!r}: join the tokens by '-' and nothing else"
    if alone and set(part) <= set("nda"):
        return f"looks like MONAI's letters: read it by Order.from_monai('{part.upper()}')"
    if re.match("pre|post", part):
        return "says pre or post, which mean several things: write before (norm, then act) or after"
    near = difflib.get_close_matches(part, [*TOKENS, *(ALIASES if alone else ())], n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"has an unknown token {_shown(part)}{hint}"


def _miscount(tokens: Sequence[str]) -> str | None:
    """Return which rule on the number of tokens is broken."""
    if "linear" not in tokens:
        return "has no linear: expected exactly one, a convolution or a dense layer"
    for token in TOKENS:
        if tokens.count(token) > 1:
            allowed = "exactly" if token == "linear" else "at most"
            return f"has {token} {tokens.count(token)} times: expected {allowed} one per block"
    return None


def _correction(text: str) -> str:
    """Return a sentence with the order that was most likely meant, or nothing."""
    words: list[str] = []
    for part in text.lower().split("-"):
        known = _meant(part) or part in ALIASES
        words += [part] if known else filter(None, re.split(r"[\W_]+", part))
    tokens: list[str] = []
    for word in words:
        tokens += ALIASES[word].split("-") if word in ALIASES else [_meant(word) or _nearest(word)]
    if "" in tokens or _miscount(tokens):
        return ""
    return f" As an order: '{'-'.join(tokens)}'."


def _meant(word: str) -> str | None:
    """Return the token for a word of another vocabulary (`Batch_Norm`: norm)."""
    return _TOKEN_OF.get(_squeezed(word))


def _squeezed(word: str) -> str:
    return re.sub(r"[\W_]", "", word.lower())


def _nearest(word: str) -> str:
    return next(iter(difflib.get_close_matches(word, TOKENS, n=1)), "")


def _shown(text: str) -> str:
    """Return text quoted for a message, shortened if it is too long to be an order."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _order(tokens: Iterable[str]) -> Order:
    return Order("-".join(tokens))


def _present(tokens: Iterable[str], **arguments: object) -> Order:
    """Return the order of the tokens, without those whose argument is None, False or 0."""
    numbers = (bool, int, float)
    off = {t for t, x in arguments.items() if x is None or (isinstance(x, numbers) and x == 0)}
    return _order(t for t in tokens if t not in off)


def all_orders() -> list[Order]:
    """Return all 49 orders, with and without norm, act and drop."""
    choices = (p for size in range(1, 5) for p in permutations(TOKENS, size))
    return [_order(tokens) for tokens in choices if "linear" in tokens]


def _squeezed_call(text: object) -> str:
    """Return Lasagne calls without spaces, every kind of linear layer called `layer`."""
    bare = re.sub(r"\s", "", str(text)).replace("DropoutLayer", "dropout")
    return re.sub(r"(Dense|Conv[123]D)Layer", "layer", bare).replace("layer(x)", "layer")


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}.")
    return value

"""The notation: grammar, error messages, bias rule (against NumPy), other libraries' spellings."""

from __future__ import annotations

import ast
import copy
import dataclasses
import doctest
import enum
import itertools
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relucate import order as order_module
from relucate.errors import InputError, Refused
from relucate.order import ALIASES, NORM_KINDS, TOKENS, Order, bias_is_redundant

ALL = [
    Order("-".join(tokens))
    for size in range(1, 5)
    for tokens in itertools.permutations(TOKENS, size)
    if "linear" in tokens
]
SOME_ORDER = st.sampled_from(ALL)


def test_there_are_49_orders():
    assert len(ALL) == len(set(ALL)) == 49


def test_docstring_examples_run():
    outcome = doctest.testmod(order_module)
    assert outcome.attempted > 20
    assert outcome.failed == 0


def test_notation_page_shows_what_python_prints():
    page = Path(__file__).parents[1] / "docs" / "notation.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    shown = 0
    for line in itertools.chain.from_iterable(block.splitlines() for block in blocks):
        code, _, comment = line.partition("  # ")
        if comment:
            assert repr(eval(code, names)) == comment, line
            shown += 1
        else:
            exec(code, names)
    assert shown >= 10


def test_imports_nothing_heavy():
    tree = ast.parse(Path(order_module.__file__).read_text())
    modules = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    ours = [m for m in modules if m and m.split(".")[0] not in sys.stdlib_module_names]
    assert ours == ["relucate.errors"]


# --- the grammar


@pytest.mark.parametrize(("alias", "text"), ALIASES.items())
def test_aliases(alias, text):
    assert Order(alias) == Order(text)
    assert Order(text).alias == alias
    assert str(Order(alias)) == text


def test_only_the_three_have_an_alias():
    assert sum(order.alias is not None for order in ALL) == len(ALIASES) == 3


@given(SOME_ORDER, st.sampled_from(["", " ", "\n", "\t "]), st.data())
def test_case_and_surrounding_space_do_not_matter(order, space, data):
    letters = [data.draw(st.sampled_from([c, c.upper()])) for c in str(order)]
    assert Order(space + "".join(letters) + space) == order


@given(SOME_ORDER)
def test_text_and_order_round_trip(order):
    assert Order(str(order)) == order == Order(order)
    assert str(order).split("-") == list(order.tokens)
    assert eval(repr(order), {"Order": Order}) == order


@given(SOME_ORDER, SOME_ORDER)
def test_equality_and_hash_follow_the_tokens(a, b):
    assert (a == b) == (a.tokens == b.tokens)
    assert (a != b) or hash(a) == hash(b)
    assert {a: 1}.get(Order(str(a))) == 1


def test_an_order_is_not_its_text():
    assert Order("before") != "before"
    assert Order("before") != "linear-norm-act"


@given(SOME_ORDER)
def test_copies_and_pickles_are_equal(order):
    assert pickle.loads(pickle.dumps(order)) == order == copy.deepcopy(order)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Order("before").tokens = ("linear",)  # type: ignore[misc]


@given(SOME_ORDER)
def test_has(order):
    has = (order.has_norm, order.has_act, order.has_drop)
    assert has == tuple(token in str(order) for token in ("norm", "act", "drop"))


@given(SOME_ORDER, st.sampled_from(TOKENS[1:]))
def test_without_leaves_the_rest_in_order(order, token):
    if token in order.tokens:
        rest = order.without(token)
        assert token not in rest.tokens
        assert [t for t in order.tokens if t != token] == list(rest.tokens)
    else:
        with pytest.raises(InputError, match=f"'{order}' has no '{token}'"):
            order.without(token)


def test_without_linear_or_a_stranger():
    with pytest.raises(InputError, match="'linear-act' has no 'linear' that can be left out"):
        Order("none").without("linear")
    with pytest.raises(InputError, match="'bn'"):
        Order("before").without("bn")


# --- malformed text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is empty"),
        ("  \n", "is empty"),
        ("linear--act", "'linear--act' has an empty token.*order: 'linear-act'"),
        ("-linear", "empty token.*order: 'linear'"),
        ("linear-norm-", "empty token.*order: 'linear-norm'"),
        ("lineer-norm", r"unknown token 'lineer' \(did you mean 'linear'\?\).*: 'linear-norm'"),
        ("linear-foo", "unknown token 'foo'. An order is linear, norm, act and drop"),
        ("befor", r"unknown token 'befor' \(did you mean 'before'\?\)"),
        ("conv-norm-act", "token 'conv': write 'linear'. As an order: 'linear-norm-act'"),
        ("dense", "token 'dense': write 'linear'"),
        ("linear-bn", "token 'bn': write 'norm'"),
        ("linear-Batch_Norm-relu", "token 'batch_norm': write 'norm'.*: 'linear-norm-act'"),
        ("linear-relu", "token 'relu': write 'act'"),
        ("linear-activation", "token 'activation': write 'act'"),
        ("linear-dropout", "token 'dropout': write 'drop'.*: 'linear-drop'"),
        ("linear-norm-norm", "norm 2 times: expected at most one"),
        ("linear-linear", "linear 2 times: expected exactly one"),
        ("linear-drop-act-drop", "drop 2 times: expected at most one"),
        ("linear-act-act-act", "act 3 times: expected at most one"),
        ("norm-act", "'norm-act' has no linear: expected exactly one"),
        ("before-drop", "mixes the alias 'before'.*order: 'linear-norm-act-drop'"),
        ("NDA", r"Order.from_monai\('NDA'\)"),
        ("pre-norm", "says pre or post"),
        ("postact", "says pre or post"),
    ],
)
def test_malformed_orders_say_what_to_write(text, message):
    with pytest.raises(InputError, match=message):
        Order(text)


@pytest.mark.parametrize("separator", ["_", " ", ",", ">", "->", " - ", "/", "+", "–", "→", "\0"])
def test_other_separators_are_named_and_corrected(separator):
    strange = separator.replace("-", "")[0]
    with pytest.raises(InputError) as error:
        Order(separator.join(("linear", "norm", "act")))
    assert f"holds {strange!r}" in str(error.value)
    assert "As an order: 'linear-norm-act'." in str(error.value)


@pytest.mark.parametrize("thing", [None, 3, b"before", object, {"linear": 1}])
def test_what_is_no_text_is_named_with_its_type(thing):
    with pytest.raises(InputError, match=rf"\({type(thing).__name__}\)"):
        Order(thing)


@pytest.mark.parametrize("thing", [("conv", "norm", "act"), ["linear", "norm", "act"]])
def test_a_sequence_of_tokens_is_told_its_text(thing):
    with pytest.raises(InputError, match="As an order: 'linear-norm-act'"):
        Order(thing)


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(InputError) as error:
        Order("x" * 100_000)
    assert len(str(error.value)) < 400


words = st.sampled_from([*TOKENS, *ALIASES, "conv", "bn", "relu", "dropout", "lin", "nrm", ""])
joined = st.tuples(st.lists(words, max_size=5), st.sampled_from("-_ >")).map(
    lambda pair: pair[1].join(pair[0])
)


@given(joined | st.text(max_size=30))
@example("İ")
def test_any_text_is_an_order_or_an_input_error(text):
    try:
        assert Order(text) in ALL
    except InputError as error:
        # The order that a message suggests is itself valid.
        proposed = re.search(r"As an order: '(.*)'\.", str(error))
        assert proposed is None or Order(proposed[1]) in ALL


# --- the bias rule, against the arithmetic

CHANNELS = 4
AXES = {"batch": (0, 1), "instance": (1,), "layer": (2,)}


def standardize(x, axes):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-9)


def normalize(x, norm, groups):
    """Normalize x of shape (batch, positions, channels)."""
    if norm in ("none", "spectral"):
        return x
    if norm in ("rms", "unit"):
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-9)
    if norm == "group":
        return standardize(x.reshape(*x.shape[:2], groups, -1), (1, 3)).reshape(x.shape)
    return standardize(x, AXES[norm])


def block(order, norm, groups, bias):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, CHANNELS))
    kernel = rng.normal(size=(CHANNELS, CHANNELS))
    mask = rng.random(x.shape) < 0.7
    step = {
        "linear": lambda x: x @ kernel + bias,
        "norm": lambda x: normalize(x, norm, groups),
        "act": lambda x: np.maximum(x, 0.0),
        "drop": lambda x: np.where(mask, x / 0.7, 0.0),
    }
    for token in order.tokens:
        x = step[token](x)
    return x


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("groups", [1, 2, CHANNELS])
def test_bias_rule_is_what_the_arithmetic_says(norm, groups):
    bias = np.array([0.5, -1.0, 2.0, 0.25])
    for order in ALL:
        same = np.allclose(block(order, norm, groups, bias), block(order, norm, groups, 0.0))
        rule = bias_is_redundant(order, norm, groups=groups, channels=CHANNELS)
        assert rule == same, (order, norm, groups)


def test_bias_rule_takes_text_and_keras_groups():
    assert bias_is_redundant("before", "batch")
    assert bias_is_redundant("linear-norm", "group", groups=-1)
    assert not bias_is_redundant("linear-drop-norm-act", "batch")


def test_bias_rule_refuses_what_it_cannot_know():
    with pytest.raises(InputError, match="did you mean 'batch'"):
        bias_is_redundant("before", "bacth")
    with pytest.raises(InputError, match="groups=8, channels=None"):
        bias_is_redundant("before", "group", groups=8)
    with pytest.raises(InputError, match="'linear--act'"):
        bias_is_redundant("linear--act", "batch")


# --- other libraries: what each does with its own arguments, written down independently


def mmcv_flow(order, norm_cfg="BN", act_cfg="ReLU"):
    there = {"conv": True, "norm": norm_cfg is not None, "act": act_cfg is not None}
    return ["linear" if name == "conv" else name for name in order if there[name]]


def monai_flow(adn_ordering):
    return ["linear"] + [{"N": "norm", "D": "drop", "A": "act"}[c] for c in adn_ordering]


def fastai_flow(bn_1st, norm_type="Batch", act_cls="ReLU"):
    after = (["act"] if act_cls else []) + (["norm"] if norm_type else [])
    return ["linear"] + (after[::-1] if bn_1st else after)


def linbndrop_flow(lin_first, bn=True, p=0.5, act="ReLU"):
    norm_drop = (["norm"] if bn else []) + (["drop"] if p != 0 else [])
    lin = ["linear"] + (["act"] if act is not None else [])
    return lin + norm_drop if lin_first else norm_drop + lin


def slim_flow(normalizer_fn, activation_fn):
    flow = ["linear"]
    flow += ["norm"] if normalizer_fn is not None else []
    return flow + (["act"] if activation_fn is not None else [])


class Lasagne:
    """Just enough of Lasagne's layer objects to evaluate its calls."""

    def __init__(self, incoming, token, nonlinearity=None):
        self.before = [] if incoming is None else built(incoming).flow()
        self.token, self.nonlinearity = token, nonlinearity

    def flow(self):
        own = [self.token] if self.token else []
        return [*self.before, *own, *(["act"] if self.nonlinearity == "rectify" else [])]


def layer(incoming=None, nonlinearity="rectify"):
    return Lasagne(incoming, "linear", nonlinearity or "identity")


def built(incoming):
    return layer() if incoming is layer else incoming


def batch_norm(incoming):
    incoming = built(incoming)
    stolen, incoming.nonlinearity = incoming.nonlinearity, "identity"
    normed = Lasagne(incoming, "norm")
    return Lasagne(normed, None, stolen) if stolen else normed


def lasagne_flow(text):
    calls = {
        "x": Lasagne(None, None),
        "layer": layer,
        "batch_norm": batch_norm,
        "BatchNormLayer": lambda incoming: Lasagne(incoming, "norm"),
        "NonlinearityLayer": lambda incoming: Lasagne(incoming, None, "rectify"),
        "dropout": lambda incoming: Lasagne(incoming, "drop"),
    }
    return built(eval(text, calls)).flow()


def combinations(**choices):
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


LIBRARIES = {
    "mmcv": (
        mmcv_flow,
        combinations(
            order=list(itertools.permutations(("conv", "norm", "act"))),
            norm_cfg=[{"type": "BN"}, None],
            act_cfg=[{"type": "ReLU"}, None],
        ),
    ),
    "monai": (
        monai_flow,
        combinations(
            adn_ordering=[
                "".join(p) for size in range(4) for p in itertools.permutations("NDA", size)
            ]
        ),
    ),
    "fastai": (
        fastai_flow,
        combinations(bn_1st=[True, False], norm_type=["Batch", None], act_cls=["ReLU", None]),
    ),
    "fastai_linbndrop": (
        linbndrop_flow,
        combinations(lin_first=[True, False], bn=[True, False], p=[0.5, 0.0], act=["ReLU", None]),
    ),
    "slim": (
        slim_flow,
        combinations(normalizer_fn=["batch_norm", None], activation_fn=["relu", None]),
    ),
    "lasagne": (lasagne_flow, [order.to_lasagne() for order in ALL]),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_reading_means_what_the_library_does(library):
    flow, settings = LIBRARIES[library]
    for arguments in settings:
        order = getattr(Order, f"from_{library}")(**arguments)
        assert list(order.tokens) == flow(**arguments), arguments


@pytest.mark.parametrize("library", LIBRARIES)
def test_writing_is_exact_or_refused_where_nothing_would_do(library):
    flow, settings = LIBRARIES[library]
    possible = {tuple(flow(**arguments)) for arguments in settings}
    for order in ALL:
        write = getattr(order, f"to_{library}")
        if order.tokens in possible:
            assert tuple(flow(**write())) == order.tokens
        else:
            with pytest.raises(Refused, match=f"can't express the order '{order}': "):
                write()


@pytest.mark.parametrize(
    ("library", "count"),
    [("mmcv", 11), ("monai", 16), ("fastai", 5), ("fastai_linbndrop", 14), ("slim", 4)],
)
def test_how_many_orders_each_library_can_express(library, count):
    flow, settings = LIBRARIES[library]
    assert len({tuple(flow(**arguments)) for arguments in settings}) == count


@given(SOME_ORDER, st.sampled_from(sorted(LIBRARIES)))
def test_what_is_written_reads_back(order, library):
    try:
        arguments = getattr(order, f"to_{library}")()
    except Refused:
        return
    assert getattr(Order, f"from_{library}")(**arguments) == order


def test_off_switches_are_written_only_for_what_is_not_there():
    assert Order("before").to_mmcv() == {"order": ("conv", "norm", "act")}
    assert Order("none").to_mmcv() == {"order": ("conv", "norm", "act"), "norm_cfg": None}
    assert Order("linear").to_fastai() == {"bn_1st": True, "norm_type": None, "act_cls": None}
    assert Order("before").to_slim("bn", "tanh") == {"normalizer_fn": "bn", "activation_fn": "tanh"}


def test_refusals_say_why():
    with pytest.raises(Refused, match="'linear-drop': it has no dropout"):
        Order("linear-drop").to_mmcv()
    with pytest.raises(Refused, match="norm comes before it"):
        Order("norm-linear-act").to_monai()
    with pytest.raises(Refused, match="to_fastai_linbndrop"):
        Order("linear-act-norm-drop").to_fastai()
    with pytest.raises(Refused, match="that is norm-drop-linear-act or linear-act-norm-drop"):
        Order("before").to_fastai_linbndrop()
    with pytest.raises(Refused, match="that is linear-norm-act"):
        Order("after").to_slim()


@pytest.mark.parametrize(
    "names", ["conv", None, ("conv", "norm"), ("conv", "norm", "relu"), ("conv", "conv", "act"), 3]
)
def test_mmcv_wants_an_arrangement(names):
    with pytest.raises(InputError, match=re.escape(repr(names))):
        Order.from_mmcv(names)


@pytest.mark.parametrize("letters", ["NDX", "NAN", "linear", None, 3])
def test_monai_wants_its_letters_once(letters):
    with pytest.raises(InputError, match=repr(letters)):
        Order.from_monai(letters)


def test_monai_skips_letters_without_an_argument():
    assert Order.from_monai("nda", norm=None) == Order("linear-drop-act")
    assert Order.from_monai("NDA", dropout=0.0, act=None) == Order("linear-norm")


@pytest.mark.parametrize("kind", ["Weight", "Spectral"])
def test_fastai_norms_of_the_kernel_are_no_norm_of_the_block(kind):
    norm_type = enum.Enum("NormType", "Batch Weight Spectral")
    assert Order.from_fastai(norm_type=norm_type[kind]) == Order("none")
    assert Order.from_fastai(norm_type=norm_type.Batch) == Order("before")


@pytest.mark.parametrize("flag", ["False", 1, None])
def test_fastai_flags_are_booleans(flag):
    with pytest.raises(InputError, match=f"bn_1st must be True or False, got {flag!r}"):
        Order.from_fastai(bn_1st=flag)
    with pytest.raises(InputError, match=f"lin_first must be True or False, got {flag!r}"):
        Order.from_fastai_linbndrop(lin_first=flag)


def test_lasagne_layers_by_their_own_names():
    text = "DropoutLayer( batch_norm( Conv2DLayer(x) ) )"
    assert Order.from_lasagne(text) == Order("linear-norm-act-drop")


@pytest.mark.parametrize("text", ["", "batchnorm(layer)", "batch_norm(layer", None])
def test_lasagne_text_that_is_none_of_its_forms(text):
    with pytest.raises(InputError, match=re.escape(repr(text)) + ".*nearest: "):
        Order.from_lasagne(text)


def test_lasagne_removes_the_bias_exactly_where_it_is_redundant():
    for order in ALL:
        removes = "batch_norm(" in str(order.to_lasagne()["text"])
        assert removes == bias_is_redundant(order, "batch"), order

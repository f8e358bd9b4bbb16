"""Layers that the readers don't know: nobody's order is read past them, and nobody is shifted."""

import keras
import pytest
import torch
import torch.nn.functional as F
from keras import layers as kl
from keras import ops
from tests.surgery.test_sites import chain
from torch import nn

import relucate
from relucate import Refused
from relucate.surgery import convert, rebuild
from relucate.surgery.draft import SiteResult

BEFORE, AFTER, PRE = "linear-norm-act", "linear-act-norm", "norm-act-linear"
ORDERS = [BEFORE, AFTER, PRE, "norm-linear-act", "act-norm-linear", "act-linear-norm"]


# Keras.


class OwnConv(kl.Conv2D):
    def call(self, inputs):
        kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        return ops.conv(inputs, kernel, padding="same") + self.bias


class OwnAct(kl.Layer):
    def call(self, inputs, training=False):  # it may do something else in training
        return ops.relu(inputs) - 0.1 * ops.cos(inputs)


class Mean(kl.Layer):
    def call(self, inputs):
        return ops.mean(inputs, axis=1)


def keras_net(stem, *, shape=(8, 8, 3), order=BEFORE, act=kl.ReLU, first=True):
    """The unknown stem, then its norm and activation, then two blocks and a head."""
    x = image = keras.Input(shape)
    x = stem(x)
    rank = len(x.shape)
    if first:
        parts = {"norm": kl.BatchNormalization(name="n0"), "act": kl.ReLU(name="a0")}
        for token in order.split("-")[1:]:
            x = parts[token](x)
    for number in (1, 2):
        for token in order.split("-"):
            if token == "linear":
                name = f"l{number}"
                one = kl.Dense(4, name=name) if rank == 2 else kl.Conv2D(4, 3, name=name)
            else:
                one = kl.BatchNormalization(name=f"n{number}") if token == "norm" else act()
            x = one(x)
    if rank > 2:
        x = kl.GlobalAveragePooling2D()(x)
    return keras.Model(image, kl.Dense(3, name="head")(x))


KERAS = {
    "own convolution": (lambda: OwnConv(4, 3, padding="same"), (8, 8, 3)),
    "own pooling": (Mean, (5, 4)),
    "lstm": (lambda: kl.LSTM(4), (5, 3)),
    "gru": (lambda: kl.GRU(4), (5, 3)),
    "bidirectional": (lambda: kl.Bidirectional(kl.LSTM(2)), (5, 3)),
    "lambda": (lambda: kl.Lambda(lambda x: x[:, 0] * 2), (5, 3)),
}


def keras_case(name, order):
    stem, shape = KERAS[name]
    return keras_net(stem(), shape=shape, order=order), None


# PyTorch.


class TorchNet(nn.Module):
    """The unknown stem, then its norm and activation, then two blocks and a head."""

    def __init__(self, stem, order=BEFORE, act=None):
        super().__init__()
        self.stem, self.order, self.act = stem, order.split("-"), act or nn.ReLU()
        for number in range(3):
            self.add_module(f"n{number}", nn.BatchNorm1d(4))
            self.add_module(f"l{number}", nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, *inputs):
        x = self.stem(*inputs)
        for number in range(3):
            for token in self.order[number == 0 :]:
                x = self.act(x) if token == "act" else getattr(self, f"{token[0]}{number}")(x)
        return self.head(x)


class OwnLinear(nn.Linear):
    def forward(self, input):
        return F.linear(input, self.weight - self.weight.mean(0) + torch.erf(self.weight))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(3, 3, 4)

    def forward(self, x):
        return self.bilinear(x, x * 2)


TORCH = {
    "leaves": (lambda: nn.Sequential(nn.Linear(3, 4)), (4, 3), {"leaves": ["stem"]}),
    "own linear": (lambda: OwnLinear(3, 4), (4, 3), {"leaves": ["OwnLinear"]}),
    "lstm": (lambda: Recurrent(nn.LSTM), (4, 5, 3), {}),
    "gru": (lambda: Recurrent(nn.GRU), (4, 5, 3), {}),
    "bilinear": (Two, (4, 3), {}),
    "bag": (lambda: nn.EmbeddingBag(10, 4), torch.randint(0, 10, (4, 5)), {}),
}


def torch_case(name, order):
    stem, example, more = TORCH[name]
    return TorchNet(stem(), order), {"example": example, **more}


CASES = [(keras_case, name) for name in KERAS] + [(torch_case, name) for name in TORCH]


def by_name(report):
    return {site.name: site for site in report.sites}


@pytest.mark.parametrize("order", [BEFORE, AFTER])
@pytest.mark.parametrize(("make", "name"), CASES, ids=[name for _, name in CASES])
def test_the_norm_behind_it_is_unknown_and_the_others_keep_their_order(make, name, order):
    model, more = make(name, order)
    report = relucate.audit(model, **(more or {}))
    found = by_name(report)
    assert found["n0"].linear is None
    assert len(found["n0"].unknown) == 1
    assert found["n0"].order == order.removeprefix("linear-")
    assert [found[name].order for name in ("n1", "n2")] == [order] * 2
    assert [found[name].linear for name in ("n1", "n2")] == ["l1", "l2"]
    (name,) = found["n0"].unknown
    assert f"depends on {name}" in str(report).replace("\n", " ")
    row = next(site for site in report.to_dict()["sites"] if site["name"] == "n0")
    assert row["unknown"] == [name]


@pytest.mark.parametrize("verb", [relucate.rebuild, relucate.convert])
@pytest.mark.parametrize("wanted", ORDERS)
@pytest.mark.parametrize("order", [BEFORE, AFTER])
@pytest.mark.parametrize(("make", "name"), CASES, ids=[name for _, name in CASES])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_moves_has_the_promised_order_and_the_rest_is_as_it_was(
    make, name, order, wanted, verb
):
    if name == "bag" and verb is relucate.convert:
        pytest.skip("the certificate's inputs are no token ids")
    model, more = make(name, order)
    before = by_name(relucate.audit(model, **(more or {})))
    made, report = verb(model, wanted, **(more or {}))
    after = by_name(relucate.audit(made, **(more or {})))
    for outcome in report.sites:
        site, old = after[outcome.name], before[outcome.name]
        if outcome.old != outcome.new:
            assert (site.order, site.unknown) == (outcome.new, ())
        else:
            assert site.order == old.order
    rows = {outcome.name: outcome for outcome in report.sites}
    assert rows["n0"].status == "skipped"
    assert "couldn't be read" in rows["n0"].reason
    if {order, wanted} == {BEFORE, AFTER}:
        assert [rows[name].new for name in ("n1", "n2")] == [wanted] * 2


@pytest.mark.parametrize("own", [OwnAct, lambda: kl.Lambda(lambda x: x * 2)])
def test_an_activation_of_ones_own(own):
    def stem(x):
        return kl.Conv2D(4, 3, name="first")(x)

    found = by_name(relucate.audit(keras_net(stem, act=own, first=False)))
    for site in found.values():  # the linear layer is known, the activation isn't
        assert (site.order, site.act) == ("linear-norm", None)
        assert site.unknown
        assert "couldn't be read" in site.note
    net = keras_net(stem, act=own, first=False)
    with pytest.warns(UserWarning, match="no effect"):
        _, report = relucate.rebuild(net, AFTER)
    assert all("its activation may be" in outcome.reason for outcome in report.sites)
    found = by_name(relucate.audit(keras_net(stem, order=AFTER, act=own, first=False)))
    assert {site.order for site in found.values()} == {"norm"}


def test_a_torch_activation_of_ones_own():
    class Own(nn.Module):
        def forward(self, x):
            return torch.sinc(x)

    net = TorchNet(nn.Linear(3, 4), act=Own())
    found = by_name(relucate.audit(net, example=(4, 3)))
    assert {site.order for site in found.values()} == {"linear-norm"}
    assert all(site.unknown for site in found.values())


def test_pre_activation_behind_an_unknown_stem_is_read_by_the_rest_of_the_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.LSTM(3, 4, batch_first=True)
            for number in range(6):
                self.add_module(f"n{number}", nn.BatchNorm1d(4))
                self.add_module(f"l{number}", nn.Linear(4, 4))
            self.head = nn.Linear(4, 2)

        def block(self, x, number):
            return getattr(self, f"l{number}")(F.relu(getattr(self, f"n{number}")(x)))

        def forward(self, x):
            x = self.stem(x)[0][:, 0]
            for number in (0, 2, 4):
                x = x + self.block(self.block(x, number), number + 1)
            return self.head(x)

    found = by_name(relucate.audit(Net(), example=(4, 5, 3)))
    assert {site.order for site in found.values()} == {PRE}
    assert not any(site.unknown for name, site in found.items() if name != "n0")


def test_nothing_tells_which_of_two_orders_it_is():
    """Opaque stem, then norm-act-linear or linear-norm-act: neither is claimed, nothing moved."""
    net = keras_net(lambda x: OwnConv(4, 3, padding="same", name="own")(x))
    found = by_name(relucate.audit(net))
    for name in ("n1", "n2"):
        assert found[name].unknown == ("own",)
        assert set(found[name].orders) == {BEFORE, PRE}
    with pytest.warns(UserWarning, match="no effect"):
        made, report = relucate.rebuild(net, PRE, bias="keep")
    assert [layer.name for layer in made.layers] == [layer.name for layer in net.layers]
    reasons = {outcome.name: outcome.reason for outcome in report.sites}
    assert reasons["n1"].startswith("may be norm-act-linear already: that depends on 'own'")


def test_a_norm_on_the_inputs_takes_nothing_from_the_block_behind_it():
    x = image = keras.Input((8,))
    x = kl.BatchNormalization(name="b0")(x)
    x = kl.ReLU()(kl.BatchNormalization(name="b1")(kl.Dense(6, name="d")(x)))
    net = keras.Model(image, kl.Dense(3, activation="softmax", name="out")(x))
    made, report = relucate.rebuild(net, AFTER)
    assert [outcome.new for outcome in report.sites] == ["norm-linear", AFTER]
    assert [site.order for site in relucate.audit(made).sites] == ["norm-linear", AFTER]
    _, report = relucate.rebuild(made, BEFORE)
    assert [outcome.new for outcome in report.sites] == ["norm-linear", BEFORE]


def planned(first):
    """Return the outcomes for the norms of chain LNALAN, as planned and as an audit has them."""
    outcomes = {
        "n1": SiteResult("n1", "done", "norm moved", old=AFTER, new=first),
        "n5": SiteResult("n5", "skipped", "no", old=BEFORE, new=BEFORE),
    }
    return outcomes, convert.read_again(chain("LNALAN"), outcomes)


def test_a_staying_norm_that_reads_differently_is_reported():
    outcomes, found = planned(BEFORE)
    assert [outcome.new for outcome in found] == [BEFORE, AFTER]
    assert found[0] == outcomes["n1"]
    assert found[1].reason == f"no; with the layers around it, it reads as {AFTER}"
    rebuild.check_promised(outcomes.values(), found)


def test_a_rebuild_is_refused_if_a_moved_norm_reads_differently_too():
    outcomes, found = planned(PRE)
    why = f"'n1' would read as {BEFORE} in place of {PRE}, and 'n5', which stays, as {AFTER} in"
    with pytest.raises(Refused, match=why):
        rebuild.check_promised(outcomes.values(), found)


class Merged(nn.Module):
    """Three blocks over tokens; batch and time are merged for the norms, and parted at the end."""

    def __init__(self, merge):
        super().__init__()
        self.merge = merge
        for number, size in enumerate((6, 5, 5)):
            self.add_module(f"l{number}", nn.Linear(size, 5))
            self.add_module(f"n{number}", nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = F.relu(self.n0(self.merge(self.l0(x))))
        x = F.relu(self.n1(self.l1(x)))
        x = F.relu(self.n2(self.l2(x)))
        return self.head(x.reshape(-1, 3, 5).mean(1))


MERGES = {
    "reshape": lambda x: x.reshape(-1, 5),
    "view": lambda x: x.view(-1, 5),
    "flatten": lambda x: x.flatten(0, 1),
    "time first": lambda x: x.transpose(0, 1).reshape(-1, 5),
}


@pytest.mark.parametrize("name", MERGES)
def test_batch_and_time_merged_for_the_norm_hide_nothing(name):
    net = Merged(MERGES[name])
    report = relucate.audit(net, example=(4, 3, 6))
    assert [(site.order, site.linear) for site in report.sites] == [
        (BEFORE, "l0"),
        (BEFORE, "l1"),
        (BEFORE, "l2"),
    ]
    assert report.unknown == ()
    made, report = relucate.rebuild(net, AFTER, example=(4, 3, 6))
    assert [outcome.new for outcome in report.sites] == [AFTER] * 3
    assert made(torch.randn(4, 3, 6)).shape == (4, 2)
    called = []
    for path, module in made.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, path=path: called.append(path))
    made(torch.randn(2, 3, 6))
    assert called == ["l0", "n0", "l1", "n1", "l2", "n2", "head"]


# Norms inside.


@keras.saving.register_keras_serializable("unread")
class Block(kl.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.bn = kl.Conv2D(4, 3, padding="same"), kl.BatchNormalization(name="bn")

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build((*shape[:-1], 4))
        self.built = True

    def call(self, inputs, training=None):
        found = ops.relu(self.bn(self.conv(inputs), training=training))
        return 2 * found if training else found

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


@keras.saving.register_keras_serializable("unread")
class OwnNorm(kl.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask)


@keras.saving.register_keras_serializable("unread")
class Statistics(kl.Layer):
    """A norm that is no subclass of Keras's."""

    def build(self, shape):
        self.moving_mean = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        return (inputs - self.moving_mean) / ops.sqrt(self.moving_variance + 1e-3)


@keras.saving.register_keras_serializable("unread")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.bn = kl.Conv2D(4, 3), kl.LayerNormalization(name="bn")

    def call(self, inputs, training=None):
        found = self.bn(self.conv(inputs))
        return 2 * found if training else found


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class TorchNorm(nn.BatchNorm2d):
    def __init__(self):
        super().__init__(4)

    def forward(self, input):
        return super().forward(input) * torch.erf(self.weight).view(1, -1, 1, 1)


def hiding_keras(inside, known=True):
    x = image = keras.Input((12, 12, 3))
    if known:
        x = kl.ReLU()(kl.BatchNormalization(name="bn1")(kl.Conv2D(8, 3, name="conv1")(x)))
    x = kl.GlobalAveragePooling2D()(inside(name="inside")(x))
    return keras.Model(image, kl.Dense(3)(x)), {}


def hiding_torch(inside, known=True):
    first = [nn.Conv2d(3, 4, 3)] + ([nn.BatchNorm2d(4), nn.ReLU()] if known else [])
    net = nn.Sequential(*first, inside(), nn.Conv2d(4, 2, 1)).eval()
    return net, {"example": (2, 3, 12, 12), "leaves": [inside.__name__]}


HIDING = {
    "own layer": (hiding_keras, Block, "inside/bn"),
    "own subclass": (hiding_keras, OwnNorm, "inside"),
    "own norm": (hiding_keras, Statistics, "inside"),
    "subclassed model": (hiding_keras, Subclassed, "bn"),
    "torch leaf": (hiding_torch, TorchBlock, "3.bn"),
    "torch norm": (hiding_torch, TorchNorm, "3"),
}
VERBS = {
    "fold": relucate.fold,
    "convert": lambda model, **more: relucate.convert(model, AFTER, **more),
    "rebuild": lambda model, **more: relucate.rebuild(model, AFTER, **more),
}


@pytest.mark.parametrize("name", HIDING)
def test_audit_names_norms_inside_layers_that_could_not_be_read(name):
    make, inside, norm = HIDING[name]
    net, more = make(inside)
    report = relucate.audit(net, **more)
    ((layer, norms),) = report.hidden.items()
    assert (layer,) == report.unknown
    assert norms[0].endswith(norm)
    assert report.to_dict()["hidden"] == [{"layer": layer, "norms": list(norms)}]
    text = str(report).replace("\n", " ")
    assert f"Norms inside these layers are not listed: 1 found, {norms[0]}." in text


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", HIDING)
def test_no_verb_passes_over_them(name, verb):
    make, inside, norm = HIDING[name]
    net, more = make(inside)
    with pytest.warns(UserWarning, match="1 norm is inside .* couldn't be read"):
        _, report = VERBS[verb](net, **more)
    (layer,) = report.hidden
    assert f"{len(report.done)} of 2 norms" in str(report)
    assert "; 1 could not be read" in str(report).replace("\n", " ")
    assert any(f"inside '{layer}'" in text and norm in text for text in report.warnings)
    assert report.to_dict()["hidden"][0]["layer"] == layer


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", HIDING)
def test_where_all_are_inside_they_are_named(name, verb):
    make, inside, _ = HIDING[name]
    net, more = make(inside, known=False)
    if name.startswith("torch"):
        more["leaves"] = [inside.__name__]
    with pytest.raises(Refused, match=f"nothing to {verb}: 1 norm is inside '.*', which couldn't"):
        VERBS[verb](net, **more)
    assert "1 norm, inside layers that could not be read" in str(relucate.audit(net, **more))


def test_compare_says_so_too():
    from relucate.study.rebuilding import rebuilt

    net, _ = hiding_keras(Block)
    sentence = rebuilt(net, AFTER, (12, 12, 3)).note
    assert sentence.startswith(f"rebuilt as {AFTER}, but 1 norm is inside 'inside'")
    with pytest.raises(Refused, match="1 norm is inside 'inside'"):
        rebuilt(hiding_keras(Block, known=False)[0], AFTER, (12, 12, 3))


AUGMENTING = {
    "rotation": lambda: kl.RandomRotation(0.1),
    "contrast": lambda: kl.RandomContrast(0.2),
    "erasing": lambda: kl.RandomErasing(),
    "zoom": lambda: kl.RandomZoom(0.1),
    "flip": lambda: kl.RandomFlip(),
}


@pytest.mark.parametrize("name", list(AUGMENTING))
@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_augmentation_in_front_is_no_part_of_a_block(name, verb):
    block = [kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU(), kl.Conv2D(2, 1)]
    net = keras.Sequential([keras.Input((8, 8, 3)), AUGMENTING[name](), *block])
    made, report = getattr(relucate, verb)(net, "after")
    assert report.done
    assert [site.order for site in relucate.audit(made).sites] == ["linear-act-norm"]

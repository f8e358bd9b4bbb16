"""Arms: paired initial values, and fingerprints that are equal only for equal networks."""

import functools

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from relucate.errors import InputError, Refused
from relucate.keras import dense_bn
from relucate.study.arms import Arm, build, build_paired
from relucate.study.fingerprint import behaviour, fingerprint
from relucate.study.rebuilding import framework_of
from relucate.study.source import resolve

SHAPE, CLASSES = (6, 6, 2), 4
BEFORE, AFTER = Arm("before"), Arm("after")


def keras_net(order, width=6):
    x = image = keras.Input(SHAPE)
    x = dense_bn(layers.Flatten()(x), width, name="block", order=order)
    return keras.Model(image, layers.Dense(CLASSES, name="head")(x))


class TorchNet(nn.Module):
    def __init__(self, order, width=6):
        super().__init__()
        self.order = order
        self.conv, self.norm = nn.Conv2d(2, width, 3), nn.BatchNorm2d(width)
        self.head = nn.Linear(width * 16, CLASSES)

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(x).relu() if self.order == "before" else self.norm(x.relu())
        return self.head(x.flatten(1))


BUILDERS = pytest.mark.parametrize("builder", [keras_net, TorchNet])


def printed(builder, arm, seed=0):
    built = build(resolve(builder), arm, seed, SHAPE, CLASSES)
    return fingerprint(built, behaviour(built, SHAPE, CLASSES))


class TestPairing:
    @BUILDERS
    def test_the_same_seed_gives_bit_equal_shared_tensors(self, builder):
        source = resolve(builder)
        first, _ = build_paired(source, BEFORE, [], 3, SHAPE, CLASSES)
        second, paired = build_paired(source, AFTER, [BEFORE], 3, SHAPE, CLASSES)
        assert paired.shared
        loaded = reread(second)
        for name in paired.shared:
            np.testing.assert_array_equal(loaded[name], reread(first)[name])

    @pytest.mark.parametrize("kind", ["HeNormal", "Orthogonal", "TruncatedNormal"])
    def test_an_initializer_of_a_module_starts_anew_with_each_seed(self, kind):
        """It is made once in each worker process, with a seed that Keras draws there."""

        def kernels(initializer, seed):
            def builder(order):
                make = functools.partial(layers.Dense, 5, kernel_initializer=initializer)
                return keras.Sequential([keras.Input((5,)), make(), make()])

            return build(resolve(builder), BEFORE, seed, (5,), 5).model.get_weights()[::2]

        made = getattr(keras.initializers, kind)
        one, other = made(), made()
        assert one.seed != other.seed
        first, second = kernels(one, 3)
        np.testing.assert_array_equal(first, second)  # as in Keras: one initializer, one seed
        np.testing.assert_array_equal(kernels(other, 3)[0], first)  # another process
        assert not np.array_equal(kernels(one, 4)[0], first)
        np.testing.assert_array_equal(kernels(one, 3)[0], first)
        own = made(seed=7)
        np.testing.assert_array_equal(kernels(own, 3)[0], kernels(own, 4)[0])

    def test_a_layer_may_be_called_like_the_state_of_a_random_one(self):
        def builder(order):
            x = image = keras.Input(SHAPE)
            x = layers.Dense(4, name="seed_generator")(layers.Flatten()(x))
            x = layers.Dropout(0.1)(x)
            return keras.Model(image, layers.Dense(CLASSES, name="head")(x))

        tensors = build(resolve(builder), BEFORE, 0, SHAPE, CLASSES).tensors
        parts = ("seed_generator/kernel", "seed_generator/bias", "head/kernel", "head/bias")
        assert set(tensors) == set(parts)

    @BUILDERS
    def test_another_seed_gives_other_values(self, builder):
        source = resolve(builder)
        a, b = (build_paired(source, BEFORE, [], seed, SHAPE, CLASSES)[0] for seed in (3, 4))
        assert any((a.tensors[name] != b.tensors[name]).any() for name in a.tensors)

    @BUILDERS
    def test_what_was_drawn_before_does_not_matter(self, builder):
        found = []
        for noise in (0, 1):
            keras.utils.set_random_seed(noise)
            found.append(build(resolve(builder), BEFORE, 3, SHAPE, CLASSES).tensors)
        assert found[0].keys() == found[1].keys()
        for name in found[0]:
            np.testing.assert_array_equal(found[0][name], found[1][name])

    def test_only_keras_arms_have_what_only_they_have(self):
        source = resolve(keras_net)
        built, paired = build_paired(source, AFTER, [BEFORE], 0, SHAPE, CLASSES)
        # After the activation the dense layer keeps its bias: the norm doesn't take it away.
        assert set(built.tensors) - set(paired.shared) == {"block_dense/bias"}

    def test_three_arms_share_with_the_first_that_has_it(self):
        source, none = resolve(keras_net), Arm("none")
        after, _ = build_paired(source, AFTER, [BEFORE], 0, SHAPE, CLASSES)
        last, paired = build_paired(source, none, [BEFORE, AFTER], 0, SHAPE, CLASSES)
        assert "block_dense/bias" in paired.shared
        np.testing.assert_array_equal(
            reread(last)["block_dense/kernel"], reread(after)["block_dense/kernel"]
        )

    def test_bfloat16_parameters_are_paired_too(self):
        source = resolve(lambda order: nn.Linear(3, 2, dtype=torch.bfloat16))
        a, _ = build_paired(source, BEFORE, [], 0, (3,), 2)
        b, paired = build_paired(source, AFTER, [BEFORE], 0, (3,), 2)
        assert set(paired.shared) == {"weight", "bias"}
        assert torch.equal(a.model.weight, b.model.weight)

    def test_nested_models_with_a_name_twice_keep_their_tensors_apart(self):
        def twins(order):
            def inner(name):
                start = keras.Input((3,))
                return keras.Model(start, layers.Dense(3, name="same")(start), name=name)

            start = keras.Input((3,))
            return keras.Model(start, inner("b")(inner("a")(start)))

        built, _ = build_paired(resolve(twins), AFTER, [BEFORE], 0, (3,), 3)
        assert len(built.tensors) == len(built.model.weights) == 4
        kernels = [keras.ops.convert_to_numpy(w.value) for w in built.model.weights if w.ndim == 2]
        assert (kernels[0] != kernels[1]).any()


def reread(built):
    """The tensors that the model holds now."""
    if built.framework.name == "torch":
        return {k: v.numpy() for k, v in built.model.state_dict().items()}
    return {w.path: keras.ops.convert_to_numpy(w.value) for w in built.model.weights}


class TestFingerprint:
    @BUILDERS
    def test_it_is_the_same_for_the_same_network_and_another_for_another(self, builder):
        assert printed(builder, BEFORE) == printed(builder, BEFORE)
        assert printed(builder, BEFORE) != printed(builder, AFTER)
        assert printed(builder, BEFORE) != printed(builder, BEFORE, seed=1)

    def test_it_leaves_the_model_as_it_was(self):
        for builder in (keras_net, TorchNet):
            built = build(resolve(builder), BEFORE, 0, SHAPE, CLASSES)
            kept = {name: array.copy() for name, array in reread(built).items()}
            behaviour(built, SHAPE, CLASSES)
            for name, array in reread(built).items():
                np.testing.assert_array_equal(array, kept[name])

    @BUILDERS
    def test_a_builder_that_ignores_the_order_gives_one_network(self, builder):
        def ignores(order):
            return builder("before")

        assert printed(ignores, BEFORE) == printed(ignores, AFTER)


def module(forward, **attributes):
    """A torch module with these attributes and this forward, its tensors the same always."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
            for name, value in attributes.items():
                setattr(self, name, value)

    Net.forward = forward
    return Net()


def constant(k):
    return {
        1: lambda self, x: self.norm(self.linear(x)) * 1.5,
        2: lambda self, x: self.norm(self.linear(x)) * 2.5,
    }[k]


def by_closure(first):
    def forward(self, x):
        steps = (self.norm, torch.relu) if first == "norm" else (torch.relu, self.norm)
        x = self.linear(x)
        for step in steps:
            x = step(x)
        return x

    return forward


DIFFERENT = {
    "constant": lambda order: module(constant(1 if order == "before" else 2)),
    "name": lambda order: module(
        (lambda self, x: torch.tanh(self.linear(x)))
        if order == "before"
        else (lambda self, x: torch.sigmoid(self.linear(x)))
    ),
    "closure": lambda order: module(by_closure("norm" if order == "before" else "act")),
    "text attribute": lambda order: TorchNet(order),
    "list attribute": lambda order: module(
        lambda self, x: next(f(self.linear(x)) for f in self.steps),
        steps=[torch.relu if order == "before" else torch.tanh],
    ),
    "function attribute": lambda order: module(
        lambda self, x: self.act(self.linear(x)),
        act=torch.relu if order == "before" else torch.tanh,
    ),
    "frozen parameter": lambda order: frozen(order == "before"),
}


def frozen(is_it):
    model = module(constant(1))
    model.linear.bias.requires_grad_(is_it)
    return model


@pytest.mark.parametrize("builder", DIFFERENT.values(), ids=DIFFERENT)
def test_torch_modules_that_differ_only_in_what_they_compute_are_told_apart(builder):
    shape = SHAPE if builder is DIFFERENT["text attribute"] else (3,)
    prints = set()
    for arm in (BEFORE, AFTER):
        built = build(resolve(builder), arm, 0, shape, CLASSES)
        prints.add(fingerprint(built, behaviour(built, shape, CLASSES)))
    assert len(prints) == 2


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A layer of the user's own that hides its order in its call, and not in its weights."""

    def __init__(self, order, **given):
        super().__init__(**given)
        self.inner, self.norm = layers.Dense(5), layers.BatchNormalization()
        self.which = order

    def build(self, shape):
        self.inner.build(shape)
        self.norm.build((*shape[:-1], 5))
        self.built = True

    def call(self, x, training=False):
        x = self.inner(x)
        if self.which == "before":
            return keras.ops.relu(self.norm(x, training=training))
        return self.norm(keras.ops.relu(x), training=training)


def hides_its_order(order):
    return keras.Sequential([keras.Input((3,)), Block(order), layers.Dense(CLASSES)])


def compiled_with(order):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(CLASSES, "softmax")])
    rate = 0.1 if order == "before" else 0.2
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy")
    return model


def regularized(order):
    penalty = keras.regularizers.L2(0.1 if order == "before" else 0.2)
    return keras.Sequential([keras.Input((3,)), layers.Dense(CLASSES, kernel_regularizer=penalty)])


@pytest.mark.parametrize("builder", [hides_its_order, compiled_with, regularized])
def test_keras_models_that_differ_where_no_graph_shows_it_are_told_apart(builder):
    prints = set()
    for arm in (BEFORE, AFTER):
        built = build(resolve(builder), arm, 0, (3,), CLASSES)
        prints.add(fingerprint(built, behaviour(built, (3,), CLASSES)))
    assert len(prints) == 2


class TestBuilding:
    def test_a_subclassed_keras_model_gets_its_weights(self):
        class Own(keras.Model):
            def __init__(self, order):
                super().__init__()
                self.head = layers.Dense(CLASSES)

            def call(self, x):
                return self.head(x)

        built = build(resolve(Own), BEFORE, 0, (3,), CLASSES)
        assert len(built.tensors) == 2

    def test_lazy_modules_are_refused_by_the_parameters_name(self):
        for lazy in (nn.LazyLinear(CLASSES), nn.LazyBatchNorm1d()):
            source = resolve(lambda order, lazy=lazy: nn.Sequential(nn.Flatten(), lazy))
            with pytest.raises(Refused, match=r"lazy parameters \(1\.\w+\): call it once"):
                build(source, BEFORE, 0, SHAPE, CLASSES)

    @pytest.mark.parametrize("thing", [3, "net", [], np.zeros(3)], ids=lambda t: type(t).__name__)
    def test_what_is_no_model(self, thing):
        with pytest.raises(InputError, match=f"returned a {type(thing).__name__}; expected"):
            framework_of(thing)


class TestArm:
    def test_its_label_is_canonical_and_names_its_options(self):
        assert Arm("after").label == Arm("linear-act-norm").label == "linear-act-norm"
        assert Arm("after", {"lr": 0.1}).label == "linear-act-norm (lr=0.1)"

    def test_plain_data_and_back(self):
        arm = Arm("after", {"width": 3})
        assert Arm.from_dict(arm.to_dict()) == arm

    def test_a_typo_is_an_input_error(self):
        with pytest.raises(InputError, match="aftr"):
            _ = Arm("aftr").order


def with_slopes(input_shape, classes):
    """Return a torch module without `order` whose norms and activations have equal shapes."""
    import torch
    from torch import nn

    block = (nn.Linear(input_shape[0], 6), nn.BatchNorm1d(6), nn.PReLU(6))
    net = nn.Sequential(*block, nn.Linear(6, classes))
    with torch.no_grad():
        net[1].weight.copy_(torch.arange(1.0, 7.0))
        net[1].bias.copy_(torch.arange(7.0, 13.0))
    return net


def test_modules_that_changed_places_are_paired_by_the_names_that_they_had():
    source = resolve(with_slopes)
    before, after = Arm("before"), Arm("after")
    built, paired = build_paired(source, after, [before], 0, (5,), 3)
    kinds = [type(part).__name__ for part in built.model.children()]
    assert kinds == ["Linear", "PReLU", "BatchNorm1d", "Linear"]
    assert {"1.weight", "1.bias", "1.running_mean", "2.weight", "3.weight"} <= set(paired.shared)
    np.testing.assert_array_equal(built.model[1].weight.detach(), np.full(6, 0.25))
    np.testing.assert_array_equal(built.model[2].weight.detach(), np.arange(1, 7))
    np.testing.assert_array_equal(built.model[2].bias.detach(), np.arange(7, 13))
    built.load({"2.weight": np.full(6, 0.5, np.float32)})
    np.testing.assert_array_equal(built.model[1].weight.detach(), np.full(6, 0.5))

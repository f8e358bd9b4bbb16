"""A model with its own `call` is read by following it; the result is a functional model."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.errors import InputError, Refused
from relucate.keras.reading.reader import read, read_with_calls

from .test_tracing import Block, Stage

pytestmark = pytest.mark.usefixtures("in_process")


class Net(keras.Model):
    def __init__(self, classes=3, **kwargs):
        super().__init__(**kwargs)
        self.stem, self.stage = Block(4, name="stem"), Stage(name="stage")
        self.pool, self.head = kl.GlobalAveragePooling2D(), kl.Dense(classes, name="head")

    def call(self, inputs, training=False):
        x = self.stage(self.stem(inputs, training=training), training=training)
        return self.head(self.pool(x))


class Named(keras.Model):
    """A mapping in, a mapping out."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b, self.c = kl.Dense(4), kl.Dense(4), kl.Dense(4)
        self.norm = kl.BatchNormalization()

    def call(self, inputs):
        y = keras.ops.relu(self.norm(self.a(inputs["left"])))
        return {"y": self.c(y) + self.b(inputs["right"]), "same": inputs["left"]}


class Tokens(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table, self.dense, self.norm = kl.Embedding(9, 4), kl.Dense(4), kl.BatchNormalization()

    def call(self, tokens):
        return keras.ops.relu(self.norm(self.dense(self.table(tokens))))


class Around(keras.Model):
    """A functional model with a call around it."""

    def call(self, inputs):
        return 2.0 * super().call(inputs)


def called():
    net = Net(name="net")
    net(np.zeros((2, 8, 8, 3), "float32"))
    return net


def symbolic():
    net = Net(name="net")
    net(keras.Input((8, 8, 3)))
    return net


def named():
    net = Named(name="named")
    net({"left": np.zeros((2, 4), "float32"), "right": np.zeros((2, 3), "float32")})
    return net


def tokens():
    net = Tokens(name="tokens")
    net(np.zeros((2, 5), "int32"))
    return net


def sequence():
    class Chain(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return 2.0 * super().call(inputs, training=training, mask=mask)

    return Chain([keras.Input((4,)), kl.Dense(4), kl.BatchNormalization(), kl.ReLU()], name="chain")


MODELS = {f.__name__: f for f in (called, symbolic, named, tokens)}


def inputs_of(name):
    random = np.random.default_rng(3)
    if name == "named":
        return {
            k: random.normal(size=(5, n)).astype("float32") for k, n in (("left", 4), ("right", 3))
        }
    if name == "tokens":
        return random.integers(0, 9, (5, 5))
    return random.normal(size=(5, 8, 8, 3)).astype("float32")


def same(old, new, x):
    old, new = (keras.tree.flatten(model(x, training=False)) for model in (old, new))
    for one, other in zip(old, new, strict=True):
        one, other = (keras.ops.convert_to_numpy(y) for y in (one, other))
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("verb", [relucate.fold, lambda m: relucate.convert(m, "after")])
def test_the_result_is_a_functional_model_that_computes_the_same(name, verb, randomize):
    net = randomize(MODELS[name]())
    with pytest.warns(UserWarning, match=f"the class {type(net).__name__} and its own methods"):
        made, report = verb(net)
    assert {outcome.status for outcome in report.sites} == {"done"}
    assert type(made).__name__ == "Functional"
    same(net, made, inputs_of(name))


@pytest.mark.parametrize("name", MODELS)
def test_rebuilt_in_the_promised_order(name):
    with pytest.warns(UserWarning, match="functional model"):
        made, _ = relucate.rebuild(MODELS[name](), "after")
    assert {site.order for site in relucate.audit(made).sites} == {"linear-act-norm"}


def test_the_model_is_not_changed(randomize):
    net = randomize(called())
    values = [keras.ops.convert_to_numpy(v).copy() for v in net.variables]
    read(net)
    assert not [n for x in net._flatten_layers() for n in (*x._inbound_nodes, *x._outbound_nodes)]
    for old, variable in zip(values, net.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def test_reading_twice_gives_the_same_names():
    net = called()
    assert list(read(net).nodes) == list(read(net).nodes)
    assert relucate.audit(net).sites[0].name == "stem/bn"


def test_an_unbuilt_model_needs_an_example():
    with pytest.raises(Refused, match="call it once on data, or give example="):
        relucate.audit(Net(name="net"))
    for example in ((2, 8, 8, 3), np.zeros((2, 8, 8, 3), "float32")):
        assert len(relucate.audit(Net(name="net"), example=example).sites) == 3


def test_the_type_of_an_example_is_that_of_the_inputs():
    reading = read_with_calls(Tokens(name="tokens"), np.zeros((2, 5), "int32"))
    assert reading.function.inputs[0].dtype == "int32"


def test_models_of_keras_with_a_call_around_it(randomize):
    image = keras.Input((4,), name="image")
    y = kl.ReLU()(kl.BatchNormalization()(kl.Dense(4)(image)))
    for net in (Around(image, y, name="around"), sequence()):
        with pytest.warns(UserWarning, match="its own methods are gone"):
            made, report = relucate.fold(randomize(net))
        assert len(report.done) == 1
        same(net, made, np.random.default_rng(0).normal(size=(5, 4)).astype("float32"))


class Choosing(Net):
    def call(self, inputs, training=False):
        found = super().call(inputs, training)
        return found if keras.ops.sum(found) > 0 else -found


class Different(Net):
    def call(self, inputs, training=False):
        return super().call(inputs, training) * (2.0 if training else 1.0)


class Two(Net):
    def call(self, inputs, scale):
        return super().call(inputs) * scale


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Choosing, "can't be followed"),
        (Different, "something else in training mode"),
        (Two, "scale"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(kind, why):
    with pytest.raises(Refused, match=f"(?s)own call.*{why}"):
        relucate.audit(kind(name="net"), example=(2, 8, 8, 3))


def test_other_arguments_are_said_to_have_their_defaults(randomize):
    class Flagged(Net):
        def call(self, inputs, training=False, extra=None):
            found = super().call(inputs, training)
            return found if extra is None else found + extra

    net = Flagged(name="net")
    with pytest.warns(UserWarning, match="relucate fold"):
        _, report = relucate.fold(net, example=(2, 8, 8, 3))
    assert "Flagged.call was read with the defaults of extra" in report.warnings


class Stepping(Net):
    def train_step(self, *args):
        return super().train_step(*args)


def compare(kind):
    random, recipe = np.random.default_rng(0), {"epochs": 1, "batch_size": 16}
    part = random.normal(size=(48, 8, 8, 3)).astype("float32"), np.arange(48) % 3
    return relucate.compare(
        lambda input_shape, classes: kind(classes, name="net"),
        (part, part),
        pairs=1,
        jobs=1,
        recipe=recipe,
        progress=False,
    )


def test_compared_though_its_builder_knows_no_order():
    study = compare(Net)
    assert [run["status"] for run in study.to_dict()["runs"]] == ["done", "done"]


def test_a_training_of_its_own_is_not_lost_in_silence():
    with pytest.raises(Refused, match="its own train_step, which a rebuilt model lacks"):
        compare(Stepping)
    image = keras.Input((4,))

    class Stepper(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    net = Stepper(image, kl.ReLU()(kl.BatchNormalization()(kl.Dense(4)(image))))
    with pytest.warns(UserWarning, match="lacks the train_step of Stepper"):
        relucate.rebuild(net, "after")


def test_a_saved_model_is_read(tmp_path, randomize):
    @keras.saving.register_keras_serializable("subclassed")
    class Kept(Net):
        pass

    net = randomize(Kept(name="net"))
    net(np.zeros((2, 8, 8, 3), "float32"))
    net.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert [node.op for node in read(again)] == [node.op for node in read(net)]


class WithConstants(keras.Model):
    """Outputs that don't depend on the input; `weighted`: one that depends on weights."""

    def __init__(self, weighted=False, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm, self.weighted = kl.Dense(4), kl.BatchNormalization(), weighted
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

    def call(self, inputs, training=False):
        y = keras.ops.relu(self.norm(self.dense(inputs), training=training))
        given = self.scale * 2.0 if self.weighted else keras.ops.arange(3)
        return {"y": y, "given": given, "half": keras.ops.full((2, 2), 0.5)}


@pytest.mark.filterwarnings("ignore:relucate convert. the new model is a functional model")
def test_outputs_that_do_not_depend_on_the_input(randomize, tmp_path):
    net = WithConstants()
    net(np.zeros((2, 5), "float32"))
    randomize(net)
    assert relucate.audit(net).summary == {"linear-norm-act": 1}
    made, report = relucate.convert(net, "after")
    assert len(report.done) == 1
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    expected, got = net(x), made(x)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(
            *(keras.ops.convert_to_numpy(y) for y in (got[name], value)), rtol=1e-5, atol=1e-5
        )
    made.save(tmp_path / "made.keras")
    again = keras.saving.load_model(tmp_path / "made.keras")(x)
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(y["half"]) for y in (again, got)))


def test_an_output_that_depends_on_weights_alone_is_refused():
    net = WithConstants(weighted=True)
    net(np.zeros((2, 5), "float32"))
    with pytest.raises(Refused, match="does something else at inference"):
        relucate.audit(net)


def test_a_shape_that_a_functional_model_does_not_take_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.BatchNormalization()])
    for fits in ((2, 8, 8, 3), [1, 8, 8, 3], None):
        assert len(relucate.audit(model, example=fits).sites) == 1
    for other in ((2, 9, 8, 3), (2, 8, 8), (2, 3, 8, 8)):
        with pytest.raises(
            InputError, match=r"the input shape is \(.*\), but .* takes \(8, 8, 3\)"
        ):
            relucate.audit(model, example=other)
    free = keras.Sequential([keras.Input((None, None, 3)), kl.Conv2D(4, 3)])
    relucate.audit(free, example=(2, 16, 32, 3))
    with pytest.raises(InputError, match="takes"):
        relucate.audit(free, example=(2, 16, 32, 4))

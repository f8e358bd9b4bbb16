"""Work: engines and their reasons, twins, devices, and one run from its spec."""

import re
from importlib import metadata

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import relucate
from relucate.data import make
from relucate.errors import InputError, Refused
from relucate.keras import conv2d_bn
from relucate.study import environment
from relucate.study import tasks as work
from relucate.study.arms import Arm
from relucate.study.environment import versions
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.tasks import execute, inspect_arms
from relucate.study.vary import arms_from
from relucate.train import Recipe, RunSpec
from relucate.train.recipe import OPTIMIZATION, no_variance
from relucate.train.task import Classification

SHAPE, CLASSES = (6, 6, 2), 4
ARMS = [Arm("before"), Arm("after")]


def keras_net(order):
    x = image = keras.Input(SHAPE)
    x = layers.Flatten()(conv2d_bn(x, 4, 3, 3, order=order, name="block"))
    return keras.Model(image, layers.Dense(CLASSES, name="head")(x))


def compiled_net(order):
    model = keras_net(order)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return model


def opaque_net(order):
    x = image = keras.Input(SHAPE)
    x = conv2d_bn(x, 4, 3, 3, order=order, name="block")
    x = layers.Lambda(lambda t: t * 2.0, name="twice")(x)
    return keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))


def torch_net(order):
    conv, norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(conv, *steps, nn.Flatten(), nn.Linear(144, CLASSES))


def inspected(builder, engine="auto", device="auto", shape=SHAPE, arms=ARMS):
    return inspect_arms(resolve(builder), arms, shape, CLASSES, engine=engine, device=device)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    y = np.arange(96) % CLASSES
    x = (random.normal(size=(CLASSES, *SHAPE))[y] + random.normal(size=(96, *SHAPE))).astype("f4")
    return make("blobs", x[:64], y[:64], x[64:], y[64:])


class TestEngine:
    @pytest.mark.parametrize(
        ("builder", "wanted", "engine", "reason"),
        [
            (keras_net, "auto", "torch", "the model lowers to PyTorch"),
            (keras_net, "keras", "keras", "asked for"),
            (keras_net, "torch", "torch", "lowers"),
            (compiled_net, "auto", "keras", "compiled the model: its own optimizer and loss"),
            (compiled_net, "torch", "torch", "the recipe replaces what the builder compiled"),
            (opaque_net, "auto", "keras", "can't be lowered to PyTorch: .*'twice'"),
            (torch_net, "auto", "torch", "torch.nn.Module"),
        ],
    )
    def test_which_and_why(self, builder, wanted, engine, reason):
        found = inspected(builder, wanted).engine
        assert found["name"] == engine
        assert re.search(reason, found["reason"])

    def test_torch_is_refused_with_the_reason(self):
        with pytest.raises(Refused, match=r"engine 'torch' can't train this model: .*'twice'"):
            inspected(opaque_net, "torch")

    def test_keras_cannot_train_a_module(self):
        with pytest.raises(Refused, match="'keras' can't train it"):
            inspected(torch_net, "keras")

    def test_one_engine_trains_all_arms(self):
        def mixed(order):
            return keras_net(order) if order == "before" else opaque_net(order)

        assert inspected(mixed).engine["name"] == "keras"

    def test_a_module_and_a_model_that_needs_keras_do_not_mix(self):
        def mixed(order):
            return torch_net(order) if order == "before" else opaque_net(order)

        with pytest.raises(Refused, match=r"linear-norm-act.*one engine has to train both"):
            inspected(mixed)

    def test_without_pytorch_auto_takes_keras_and_torch_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(work, "installed", lambda name: name != "torch")
        assert inspected(keras_net).engine["reason"] == "PyTorch isn't installed"
        with pytest.raises(InputError, match=r"pip install 'relucate\[torch\]'"):
            inspected(keras_net, "torch")

    def test_another_compiled_loss_is_refused_before_any_run(self):
        def regression(order):
            model = keras_net(order)
            model.compile(optimizer="sgd", loss="mse")
            return model

        with pytest.raises(Refused, match="'mse'"):
            inspected(regression)


class TestDevice:
    def test_auto_is_what_there_is(self):
        expected = "cuda" if torch.cuda.is_available() else "cpu"
        assert inspected(torch_net).engine["device"] == expected
        assert inspected(keras_net, "keras").engine["device"] == "auto"

    @pytest.mark.parametrize("device", ["gpu", "cuda:99"])
    def test_one_that_is_not_there(self, device):
        with pytest.raises(InputError, match=f"device '{device}' can't be used"):
            inspected(torch_net, device=device)

    def test_the_keras_engine_takes_none(self):
        with pytest.raises(InputError, match="device 'cpu' needs the torch engine"):
            inspected(keras_net, "keras", device="cpu")


class TestACompiledModel:
    """Its own optimizer, rate and loss train it: what else is asked for must not be ignored."""

    def looked(self, builder, recipe=None, **given):
        given = {"engine": "auto", "device": "auto", "recipes": [[recipe or Recipe()]] * 2, **given}
        return inspect_arms(resolve(builder), ARMS, SHAPE, CLASSES, **given)

    def test_what_trains_it_is_said(self):
        how = "Adam, learning rate 0.01, loss sparse_categorical_crossentropy"
        assert self.looked(compiled_net).engine["compiled"] == how
        assert "compiled" not in self.looked(keras_net, engine="keras").engine
        assert "compiled" not in self.looked(compiled_net, engine="torch").engine

    @pytest.mark.parametrize("engine", ["auto", "keras"])
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("lr", 0.3),
            ("optimizer", "adamw"),
            ("momentum", 0.5),
            ("weight_decay", 0.0),
            ("decay_all", True),
            ("schedule", "cosine"),
            ("label_smoothing", 0.1),
            ("loss", "cross-entropy"),
        ],
    )
    def test_what_it_would_not_use_is_refused(self, engine, name, value):
        assert name in OPTIMIZATION
        recipe = Recipe(**{name: value})
        with pytest.raises(InputError, match=rf"{name} would have no effect on.*\(Adam, learning"):
            self.looked(compiled_net, recipe, engine=engine)
        self.looked(compiled_net, recipe, engine="torch")
        self.looked(keras_net, recipe, engine="keras")

    def test_what_it_uses_is_not(self):
        self.looked(compiled_net, Recipe(epochs=3, batch_size=7, augment="flip", validation=0.2))

    def test_rates_that_are_tried_are_refused(self):
        rates = [Recipe(), Recipe(lr=0.03)]
        with pytest.raises(InputError, match="lr would have no effect"):
            self.looked(compiled_net, recipes=[rates] * 2)

    @pytest.mark.parametrize("compiles", ["before", "after"])
    def test_all_arms_or_none(self, compiles):
        def some(order):
            return (compiled_net if order == compiles else keras_net)(order)

        with pytest.raises(InputError, match=r"compiles the model for '.*' and not for '.*': one"):
            self.looked(some)
        assert "compiled" not in self.looked(some, engine="torch").engine

    def test_two_ways_are_noted(self):
        def two(order):
            model = keras_net(order)
            rate = 0.01 if order == "before" else keras.optimizers.schedules.CosineDecay(0.1, 9)
            model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
            return model

        found = self.looked(two)
        each = found.engine["compiled"]
        assert "SGD, learning rate 0.01, loss sparse" in each
        assert "SGD, learning rate CosineDecay, loss sparse" in each
        assert (
            f"the arms are compiled differently ({each}), so that is compared, too" in found.notes
        )


class TestWhatAnEngineCannotDo:
    """It is refused with the arms, before a run, with the reason for the engine."""

    def refused(self, builder, engine="auto", **recipe):
        device, recipes = recipe.pop("device", "auto"), [[Recipe()], [Recipe(), Recipe(**recipe)]]
        given = {"device": device, "recipes": recipes}
        with pytest.raises(InputError) as found:
            inspect_arms(resolve(builder), ARMS, SHAPE, CLASSES, engine=engine, **given)
        return str(found.value)

    def test_precision(self):
        said = self.refused(opaque_net, precision="bf16")
        assert "precision bf16 needs the torch engine" in said
        assert "Why the keras engine: the model can't be lowered to PyTorch" in said
        assert "'twice' (Lambda)" in said

    def test_device(self):
        said = self.refused(opaque_net, device="cpu")
        assert "device 'cpu' needs the torch engine" in said
        assert "'twice' (Lambda)" in said

    def test_a_compiled_model(self):
        said = self.refused(compiled_net, precision="tf32")
        assert said.endswith("compiled the model: its own optimizer and loss are used.")

    def test_an_engine_that_was_asked_for_needs_no_reason(self):
        assert "Why" not in self.refused(keras_net, "keras", precision="bf16")

    def test_the_torch_engine_takes_it(self):
        found = inspect_arms(
            resolve(keras_net),
            ARMS,
            SHAPE,
            CLASSES,
            engine="auto",
            device="auto",
            recipes=[[Recipe(precision="bf16")]] * 2,
        )
        assert found.engine["name"] == "torch"


def flat_keras_net(order):
    x = image = keras.Input(SHAPE)
    steps = [layers.BatchNormalization(), layers.ReLU()]
    x = layers.Dense(4)(layers.Flatten()(x))
    for step in steps if order == "before" else steps[::-1]:
        x = step(x)
    return keras.Model(image, layers.Dense(CLASSES)(x))


def flat_torch_net(order):
    steps = [nn.BatchNorm1d(4), nn.ReLU()]
    steps = steps if order == "before" else steps[::-1]
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 4), *steps, nn.Linear(4, CLASSES))


class Matrix(nn.Module):
    """A linear layer that no initialization knows."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.randn(72, CLASSES))

    def forward(self, x):
        return x @ self.values


def net_without_kernels(order):
    steps = [nn.BatchNorm1d(72), nn.ReLU()]
    steps = steps if order == "before" else steps[::-1]
    return nn.Sequential(nn.Flatten(), *steps, Matrix())


class Focal(Classification):
    """A task whose loss no engine has."""

    name, training_loss = "focal classification", "focal"


class TestRecipesThatDoNotFit:
    """They are refused with the arms, before a run: for each arm, the recipes that it has."""

    def inspected(self, builder, *recipes, engine="auto", **given):
        given = {"engine": engine, "device": "cpu" if engine == "auto" else "auto", **given}
        recipes = [[recipe] for recipe in recipes]
        return inspect_arms(resolve(builder), ARMS, SHAPE, CLASSES, recipes=recipes, **given)

    @pytest.mark.parametrize("builder", [flat_keras_net, flat_torch_net])
    def test_a_batch_of_one_that_leaves_a_norm_no_variance(self, builder):
        one = Recipe(batch_size=1)
        for recipes in ((one, Recipe()), (Recipe(), one)):
            with pytest.raises(InputError) as found:
                self.inspected(builder, *recipes)
            assert str(found.value) == str(no_variance())

    def test_nor_does_the_keras_engine_take_it(self):
        with pytest.raises(InputError, match="one value per channel"):
            self.inspected(flat_keras_net, Recipe(), Recipe(batch_size=1), engine="keras")

    @pytest.mark.parametrize("builder", [keras_net, torch_net])
    def test_an_image_has_many_values_per_channel(self, builder):
        assert self.inspected(builder, *[Recipe(batch_size=1)] * 2).arms

    def test_a_norm_that_does_not_train_needs_no_variance(self):
        def frozen(order):
            model = flat_keras_net(order)
            model.layers[3 if order == "before" else 4].trainable = False
            return model

        assert self.inspected(frozen, *[Recipe(batch_size=1)] * 2).arms

    @pytest.mark.parametrize("init", ["lsuv", "orthonormal"])
    def test_an_initialization_without_kernels(self, init):
        assert self.inspected(net_without_kernels, Recipe(), Recipe()).arms
        with pytest.raises(InputError, match="no dense or convolutional layer with a kernel"):
            self.inspected(net_without_kernels, Recipe(), Recipe(initialization=init))

    @pytest.mark.parametrize("engine", ["auto", "keras"])
    def test_a_loss_that_the_engine_does_not_have(self, engine, data):
        with pytest.raises(InputError, match=r"loss 'focal'\. Choose from: cross-"):
            self.inspected(keras_net, *[Recipe()] * 2, engine=engine, task=Focal(), data=data)

    def test_a_compiled_model_brings_its_own_loss(self, data):
        given = {"engine": "keras", "task": Focal(), "data": data}
        assert self.inspected(compiled_net, *[Recipe()] * 2, **given).arms

    def test_the_plan_gives_each_network_its_own_recipes(self, data):
        arms = arms_from(
            ["before", "after"], {"epochs": [1, 2]}, {"linear-act-norm": {"batch_size": 1}}
        )
        plan = StudyPlan(arms, resolve(flat_torch_net), data, Recipe(batch_size=8))
        sizes = [[r["batch_size"] for r in own] for own in plan.inspection()["recipes"]]
        assert sizes == [[8, 8], [1, 1]]


class TestTwins:
    @pytest.mark.parametrize("builder", [keras_net, torch_net, opaque_net])
    def test_a_builder_that_ignores_the_order(self, builder):
        def ignores(order):
            return builder("before")

        with pytest.raises(
            InputError, match="same network for 'linear-norm-act' and 'linear-act-n"
        ):
            inspected(ignores)

    def test_two_arms_are_the_same_where_there_is_no_norm(self):
        source = resolve("mlp", {"norm": "none", "depth": 1, "width": 4})
        with pytest.raises(InputError, match="ignores what differs"):
            inspect_arms(source, ARMS, (5,), 3, engine="auto", device="auto")

    def test_two_that_only_look_different_get_a_note(self):
        def remembers(order):
            model = torch_net("before")
            model.order = order
            return model

        notes = inspected(remembers).notes
        assert any("compute the same outputs" in note for note in notes)

    def test_really_different_arms_get_none(self):
        assert inspected(keras_net).notes == ()


class TestInspection:
    def test_what_the_driver_learns_of_the_arms(self):
        found = inspected(keras_net)
        before, after = found.arms
        assert before["parameters"] == 4 * 18 + 8 + 144 * 4 + 4
        assert after["parameters"] == before["parameters"] + 4  # the bias
        assert before["norm_parameters"] == after["norm_parameters"] == 8
        assert after["only"] == ["block_conv/bias"]
        assert before["only"] == []
        assert after["shared"] == before["tensors"]
        assert len(found.code) == 64

    def test_versions_of_what_takes_part_alone(self):
        assert {"python", "numpy", "relucate", "keras", "torch"} <= set(
            inspected(keras_net).versions
        )
        assert "keras" not in inspected(torch_net).versions
        assert "torch" not in versions(["keras"])

    def test_other_names_are_looked_up_only_if_a_package_has_none_of_its_own(self, monkeypatch):
        assert versions(["sklearn"])["sklearn"] == metadata.version("scikit-learn")
        assert "no_such_package" not in versions(["no_such_package"])
        environment._distributions.cache_clear()
        monkeypatch.setattr(metadata, "packages_distributions", lambda: pytest.fail("all read"))
        assert versions(["keras", "torch"])["keras"] == keras.__version__

        def only_on_the_path(package):
            raise metadata.PackageNotFoundError(package)

        monkeypatch.setattr(metadata, "version", only_on_the_path)
        assert versions(always=("relucate",))["relucate"] == relucate.__version__

    @pytest.mark.parametrize("name", ["tensorflow", "tensorflow-cpu", "tensorflow-macos"])
    def test_tensorflow_has_several_names(self, monkeypatch, name):
        def version(wanted):
            if wanted != name:
                raise metadata.PackageNotFoundError(wanted)
            return "2.99"

        monkeypatch.setattr(metadata, "version", version)
        assert versions(["tensorflow"], always=())["tensorflow"] == "2.99"

    def test_initial_values_that_no_seed_sets_are_noted(self):
        def torch_drawn(order):
            model, draws = torch_net(order), np.random.default_rng()
            nn.init.normal_(model[0].weight, std=draws.uniform())
            return model

        def keras_drawn(order):
            model = keras_net(order)
            model.layers[-1].bias.assign(np.random.default_rng().normal(size=CLASSES))
            return model

        for builder, name in ((torch_drawn, "0.weight"), (keras_drawn, "head/bias")):
            (note,) = [text for text in inspected(builder).notes if "seed" in text]
            assert note.startswith(f"'{name}': other initial values each time")
            assert "inside the builder" in note
        for builder in (torch_net, keras_net):
            assert not any("other initial values" in text for text in inspected(builder).notes)

    def test_an_initialization_that_differs_is_noted(self):
        def uneven(order):
            model = torch_net(order)
            if order == "after":
                nn.init.normal_(model[4].weight, std=9.0)
            return model

        assert any("'4.weight' is initialised differently" in n for n in inspected(uneven).notes)

    def test_another_input_shape_is_an_error(self):
        with pytest.raises(InputError, match=r"\(6, 6, 2\), but the data's have \(8, 8, 1\)"):
            inspected(keras_net, shape=(8, 8, 1))


def spec_of(arm, seed=0, before=(), engine="torch", **recipe):
    return RunSpec(
        model={},
        arm=arm.to_dict(),
        before=tuple(other.to_dict() for other in before),
        seed=seed,
        data={},
        recipe=Recipe(**{"epochs": 1, "batch_size": 16, **recipe}).to_dict(),
        engine={"name": engine, "backend": "torch", "device": "cpu", "threads": 1},
        versions={},
    )


class TestExecute:
    @pytest.mark.parametrize(
        ("builder", "engine"),
        [(keras_net, "torch"), (keras_net, "keras"), (torch_net, "torch"), (opaque_net, "keras")],
    )
    def test_the_same_spec_gives_the_same_bits(self, builder, engine, data):
        spec = spec_of(ARMS[1], before=ARMS[:1], engine=engine)
        a, b = (execute(spec, resolve(builder), data) for _ in range(2))
        assert (a.status, a.loss, a.metric, a.curve) == (b.status, b.loss, b.metric, b.curve)
        assert a.shared < a.tensors
        assert a.seconds["total"] > 0
        assert a.parameters > a.norm_parameters > 0

    def test_another_seed_gives_another_result(self, data):
        source = resolve(keras_net)
        losses = {execute(spec_of(ARMS[0], seed), source, data).loss for seed in (0, 1)}
        assert len(losses) == 2

    def test_divergence_is_a_result(self, data):
        result = execute(spec_of(ARMS[0], lr=1e30), resolve(keras_net), data)
        assert result.status == "diverged"
        assert result.parameters > 0

    def test_a_model_of_any_image_size(self, data):
        def free(order):
            x = image = keras.Input((None, None, 2))
            x = layers.GlobalAveragePooling2D()(conv2d_bn(x, 4, 3, 3, order=order, name="block"))
            return keras.Model(image, layers.Dense(CLASSES)(x))

        assert execute(spec_of(ARMS[0]), resolve(free), data).status == "done"

    def test_a_channels_first_model(self, data):
        def first(order):
            x = image = keras.Input((2, 6, 6))
            x = conv2d_bn(x, 4, 3, 3, order=order, name="block", data_format="channels_first")
            return keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))

        assert execute(spec_of(ARMS[0]), resolve(first), data).status == "done"


@pytest.mark.parametrize("builder", [keras_net, torch_net])
def test_measuring_takes_models_of_their_own_with_the_same_values(builder, data, monkeypatch):
    """A Keras model is built once, and lowered for each run that takes turns."""
    built, models = [], []
    build = work.build_paired
    monkeypatch.setattr(work, "build_paired", lambda *a: built.append(a) or build(*a))

    def take(_, given, *__, **___):
        models.append(next(given))
        with torch.no_grad():  # as a training does
            for parameter in models[0].parameters():
                parameter.add_(1)
        models.extend(given)
        return {1: 0.1}

    monkeypatch.setattr(type(work.named("torch")), "side_by_side", take)
    spec = spec_of(ARMS[1], before=ARMS[:1])
    assert work.measure(spec, resolve(builder), data, [1, 2, 4], work.CLASSIFICATION) == {1: 0.1}
    assert len(built) == (1 if builder is keras_net else 4)
    first, *others = ([p.detach().numpy() for p in model.parameters()] for model in models)
    assert len(others) == 3
    for values in others:
        for mine, trained in zip(values, first, strict=True):
            np.testing.assert_array_equal(mine + np.float32(1), trained)
            assert not np.shares_memory(mine, trained)


def rescaled_net(order):
    x = image = keras.Input(SHAPE)
    x = conv2d_bn(layers.Rescaling(1 / 255, name="to_one")(x), 4, 3, 3, order=order, name="block")
    return keras.Model(image, layers.Dense(CLASSES, name="head")(layers.Flatten()(x)))


def test_layers_that_scale_the_inputs_are_found():
    assert inspected(rescaled_net).input_scaling == ("to_one",)
    assert inspected(keras_net).input_scaling == inspected(torch_net).input_scaling == ()


class Lightning(nn.Sequential):
    def training_step(self, batch):
        raise AssertionError("not used")

    def configure_optimizers(self):
        raise AssertionError("not used")


def test_a_modules_own_training_is_said_not_to_be_used():
    def build(order):
        return Lightning(*torch_net(order))

    (note,) = inspected(build).notes
    assert "own training_step and configure_optimizers are not used" in note
    assert "--run" in note
    assert inspected(torch_net).notes == ()

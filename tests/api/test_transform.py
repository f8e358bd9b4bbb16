"""fold, convert, rebuild, verify of real models of both frameworks, from the public functions."""

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from tests.surgery.test_orders import chain, randomize, residual
from tests.torch import zoo

import relucate
from relucate import InputError

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"


def keras_outputs(model, x):
    return np.asarray(model.predict(x, verbose=0))


@pytest.mark.parametrize("strategy", ["auto", "map", "ones", "branch", "shift"])
def test_fold_keras(strategy):
    model = chain(AFTER)
    before = [np.array(w) for w in model.get_weights()]
    folded, report = relucate.fold(model, strategy=strategy)
    left = [layer for layer in folded.layers if isinstance(layer, kl.BatchNormalization)]
    assert not left
    assert report.certificate.passed
    assert 0 < report.certificate.max_rel < 1e-5
    x = np.random.default_rng(1).normal(size=(4, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(keras_outputs(folded, x), keras_outputs(model, x), atol=2e-5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_shared_norm_folds_where_both_of_its_calls_are_concatenated(padding):
    image = keras.Input((8, 8, 3))
    one, two = (kl.Conv2D(4, 3, activation="relu")(image) for _ in range(2))
    norm = kl.BatchNormalization()
    joined = kl.Concatenate()([norm(one), kl.Cropping2D(1)(image), norm(two)])
    model = randomize(keras.Model(image, kl.Conv2D(5, 3, padding=padding)(joined)))
    folded, report = relucate.fold(model)
    assert not [layer for layer in folded.layers if isinstance(layer, kl.BatchNormalization)]
    assert report.certificate.passed


def test_approximate_says_how_wrong_it_is():
    _, report = relucate.fold(chain(AFTER), strategy="approximate")
    assert not report.certificate.passed
    assert report.certificate.max_rel > 1e-3
    assert report.certificate.worst


@pytest.mark.parametrize(("old", "new"), [(BEFORE, AFTER), (AFTER, BEFORE)])
def test_convert_keras_with_data(old, new):
    model = chain(old)
    data = np.random.default_rng(2).normal(size=(70, 6, 6, 3)).astype("float32") + 0.3
    made, report = relucate.convert(model, new, data=data)
    assert relucate.audit(made).summary == {new: 2}
    assert report.certificate.passed
    norm = made.get_layer("norm0")
    probe = keras.Model(made.inputs, norm.input)
    values = keras_outputs(probe, [data])
    np.testing.assert_allclose(norm.moving_mean, values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, values.var(axis=(0, 1, 2)), rtol=1e-3)
    # In training mode, too, the converted network now starts close to the same function.
    np.testing.assert_allclose(
        np.asarray(keras.ops.convert_to_numpy(made(data, training=True))),
        keras_outputs(model, data),
        atol=0.02,
    )


def test_rebuild_keras_is_reproducible_and_alike_in_every_order():
    model = chain(BEFORE)
    first, report = relucate.rebuild(model, "after", seed=3)
    again, _ = relucate.rebuild(model, "after", seed=np.int64(3))
    other, _ = relucate.rebuild(model, "after", seed=4)
    none, _ = relucate.rebuild(model, "none", seed=3)
    assert report.certificate is None
    kernel = {
        name: m.get_layer("conv1").kernel
        for name, m in locals().items()
        if name != "model" and isinstance(m, keras.Model)
    }
    values = {name: np.asarray(keras.ops.convert_to_numpy(k)) for name, k in kernel.items()}
    np.testing.assert_array_equal(values["first"], values["again"])
    np.testing.assert_array_equal(values["first"], values["none"])
    assert not np.array_equal(values["first"], values["other"])
    source = np.asarray(keras.ops.convert_to_numpy(model.get_layer("conv1").kernel))
    assert not np.array_equal(values["first"], source)


def test_everything_of_a_layer_is_kept():
    x = image = keras.Input((6, 6, 3), name="photo")
    conv = kl.Conv2D(
        4,
        3,
        activation="elu",
        kernel_regularizer=keras.regularizers.L2(1e-3),
        kernel_initializer="he_uniform",
        name="conv",
    )
    norm = kl.BatchNormalization(epsilon=1e-4, momentum=0.8, center=False, name="bn")
    norm.trainable = False
    model = randomize(keras.Model(image, norm(conv(x)), name="mine"))
    made, _ = relucate.rebuild(model, "before")
    assert made.name == "mine"
    assert made.inputs[0].name == "photo"
    new = made.get_layer("conv")
    assert new.kernel_regularizer.l2 == pytest.approx(1e-3)
    assert type(new.kernel_initializer).__name__ == "HeUniform"
    assert new.use_bias  # a frozen norm subtracts a constant, not the mean of a batch
    bn = made.get_layer("bn")
    assert (bn.epsilon, bn.momentum, bn.center, bn.trainable) == (1e-4, 0.8, False, False)
    assert relucate.audit(made).sites[0].act_op == "elu"


def test_a_folded_file_needs_no_relucate(tmp_path):
    model = chain(AFTER)
    for strategy in ("map", "ones", "shift"):
        folded, _ = relucate.fold(model, strategy=strategy)
        folded.save(tmp_path / f"{strategy}.keras")
    x = np.random.default_rng(3).normal(size=(4, 6, 6, 3)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", keras_outputs(model, x))
    code = """
        import sys
        sys.modules["relucate"] = None
        import keras, numpy as np
        x, y = np.load("x.npy"), np.load("y.npy")
        for name in ("map", "ones", "shift"):
            model = keras.saving.load_model(f"{name}.keras")
            assert np.abs(model.predict(x, verbose=0) - y).max() < 2e-5, name
        print("loaded")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "loaded", done.stderr


# PyTorch.


@pytest.mark.parametrize("name", [n for n in zoo.MODELS if n not in {"convnext", "vit"}])
def test_fold_torch(name):
    factory, shape = zoo.MODELS[name]
    model = zoo.randomize(factory(), 4).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    numbers = torch.get_rng_state()
    made, report = relucate.fold(model, example=shape)
    assert report.done
    assert report.certificate.passed
    x = torch.randn(3, *shape[1:], generator=torch.Generator().manual_seed(1))
    made.eval()
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=0, atol=2e-5)
    assert not model.training
    assert torch.equal(numbers, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", list(zoo.ORDERED))
@pytest.mark.parametrize(("old", "new"), [(BEFORE, AFTER), (AFTER, BEFORE)])
def test_convert_and_rebuild_torch(name, old, new):
    shape = zoo.MODELS[name][1]
    model = zoo.randomize(zoo.ORDERED[name](old), 5)
    data = torch.randn(40, *shape[1:], generator=torch.Generator().manual_seed(2)).numpy()
    made, report = relucate.convert(model, new, data=data, example=shape)
    assert report.certificate.passed
    assert list(relucate.audit(made, example=shape).summary) == [new]
    fresh, _ = relucate.rebuild(model, new, seed=1, example=shape)
    again, _ = relucate.rebuild(model, new, seed=1, example=shape)
    assert list(relucate.audit(fresh, example=shape).summary) == [new]
    for one, two in zip(fresh.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    fresh.train()
    loss = fresh(torch.from_numpy(data)).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in fresh.parameters())


def test_where_only_norms_go_the_class_stays():
    model = zoo.randomize(zoo.resnet_basic(), 6)
    made, _ = relucate.fold(model, example=zoo.MODELS["resnet_basic"][1])
    assert type(made) is type(model)
    assert isinstance(made.layer1[0].bn1, torch.nn.Identity)
    assert set(made.state_dict()) < set(model.state_dict()) | {
        key.replace("weight", "bias") for key in model.state_dict()
    }


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
@pytest.mark.parametrize("mode", ["reflect", "circular", "zeros"])
def test_a_norm_in_front_of_a_convolution_stands_in_front_of_its_padding(verb, mode):
    conv = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    model = torch.nn.Sequential(torch.nn.Tanh(), conv, torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    model = zoo.randomize(model, 3)
    made, _ = getattr(relucate, verb)(model, "norm-linear-act", example=(2, 3, 6, 6))
    seen = []
    made.get_submodule("2").register_forward_hook(lambda module, args, y: seen.append(args[0]))
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    made.eval()(x)
    assert torch.equal(seen[0], x.tanh())
    assert made.get_submodule("1").padding_mode == mode


def test_the_parameters_of_what_was_written_are_counted():
    conv, slopes = torch.nn.Conv2d(3, 8, 1), torch.nn.PReLU(8)
    model = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8), slopes, torch.nn.Conv2d(8, 2, 1))
    for order in ("norm-act-linear", "before", "none"):
        made, report = relucate.rebuild(model, order, example=(2, 3, 4, 4))
        assert report.parameters[1] == sum(p.numel() for p in made.parameters())


def test_a_fixed_size_is_warned_of_once_where_fold_was_called():
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.BatchNorm2d(4)]
    model = zoo.randomize(torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 2, 3, padding=1)), 1)
    with pytest.warns(UserWarning, match="fixes the size") as warned:
        relucate.fold(model, strategy="map", example=(2, 3, 6, 6))
    assert [str(Path(warning.filename)) for warning in warned] == [__file__]


def test_what_torch_fx_cannot_trace_is_written_from_its_source():
    factory, shape = zoo.MODELS["int_of_shape"]
    model = zoo.randomize(factory(), 7)
    _, report = relucate.fold(model, example=shape)
    assert report.done
    with pytest.warns(UserWarning, match="subclass of its class"):
        made, report = relucate.convert(model, AFTER, example=shape)
    assert report.done
    assert isinstance(made, type(model))


class TwoFaced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(5, 3)

    def forward(self, x):
        x = self.body(x)
        if self.training:
            x = x * 2
        return self.head(x)


def test_another_forward_in_training_mode_is_said():
    model = zoo.randomize(TwoFaced(), 8)
    with pytest.warns(UserWarning, match="training mode"):  # it is traced
        _, report = relucate.rebuild(model, "norm-linear-act", example=(2, 4))
    assert any("training mode" in note for note in report.warnings)
    made, report = relucate.rebuild(model, AFTER, example=(2, 4))  # modules change places
    assert not report.warnings
    assert type(made) is TwoFaced
    x = torch.randn(6, 4)
    inner, outer = made.train().body(x), made(x)
    torch.testing.assert_close(outer, made.head(inner * 2))


# Verify.


def test_verify_sees_a_difference_and_where_it_starts():
    model = chain(BEFORE)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    assert relucate.verify(model, other).passed
    assert relucate.verify(model, other).max_abs == 0
    kernel = other.get_layer("conv1").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * 1.001)
    found = relucate.verify(model, other)
    assert not found.passed
    assert found.worst == "conv1"
    assert relucate.verify(model, other, tolerance=0.1).passed


def test_verify_across_frameworks():
    torch_model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
    ).eval()
    keras_model = keras.Sequential([keras.Input((4,)), kl.Dense(6, "relu"), kl.Dense(2)])
    state = [p.detach().numpy() for p in torch_model.parameters()]
    keras_model.set_weights([state[0].T, state[1], state[2].T, state[3]])
    assert relucate.verify(torch_model, keras_model, example=(1, 4)).passed


def test_border_errors_are_seen():
    """A convolution that is wrong at the border only differs on the inputs that verify makes."""
    x = image = keras.Input((16, 16, 2))
    model = keras.Model(image, kl.Conv2D(3, 3, padding="same", name="conv")(x))
    padded = kl.ZeroPadding2D(1)(kl.Rescaling(1.0, offset=0.5)(x))
    conv = kl.Conv2D(3, 3, name="conv")
    shifted = keras.Model(image, conv(padded))
    kernel, bias = model.get_layer("conv").get_weights()
    conv.set_weights([kernel, bias - 0.5 * kernel.sum(axis=(0, 1, 2))])
    assert not relucate.verify(model, shifted).passed


# Bad input.


def test_no_norms_and_no_model():
    model = keras.Sequential([keras.Input((4,)), kl.Dense(2)])
    for call in (
        relucate.fold,
        lambda m: relucate.convert(m, "after"),
        lambda m: relucate.rebuild(m, "after"),
    ):
        with pytest.raises(InputError, match="no norms"):
            call(model)
    with pytest.raises(InputError, match="expected a Keras model"):
        relucate.fold(3)


def test_no_effect_is_a_warning():
    with pytest.warns(UserWarning, match="no effect"):
        _, report = relucate.convert(chain(BEFORE), "before")
    assert report.warnings


def test_nan_weights_are_named():
    model = chain(BEFORE)
    model.get_layer("conv1").kernel.assign(np.full((3, 3, 4, 4), np.nan))
    for call in (relucate.fold, lambda m: relucate.convert(m, "after")):
        with pytest.raises(InputError, match="'conv1/kernel' holds values that are not finite"):
            call(model)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((1, 6, 6, 3)), "data of one example has no variance"),
        (np.zeros((5, 6, 5, 3)), r"don't fit the model: expected \('n', 6, 6, 3\), got \(5, 6, 5"),
        (np.full((5, 6, 6, 3), np.inf), "finite"),
        ([np.zeros((5, 6, 6, 3))] * 2, "don't fit"),
    ],
)
def test_data_that_does_not_fit(data, message):
    with pytest.raises(InputError, match=message):
        relucate.convert(chain(BEFORE), "after", data=data)


def test_norms_that_have_the_order_already_are_counted():
    first = keras.Input((8, 8, 3))
    x = kl.BatchNormalization()(kl.ReLU()(kl.Conv2D(4, 3)(first)))
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(4, 3)(x)))
    net = keras.Model(first, kl.Conv2D(2, 3)(x))
    _, report = relucate.convert(net, "after")
    text = " ".join(str(report).split())
    expected = "1 of 2 norms converted to linear-act-norm (after); 1 had that order already"
    assert expected in text


def test_reports_are_shown():
    _, report = relucate.convert(residual(), "after")
    text = str(report)
    assert "1 of 2 norms converted to linear-act-norm (after)" in " ".join(text.split())
    assert "Verified: same function" in text
    data = report.to_dict()
    assert data["schema"] == "relucate.convert/1"
    assert {row["status"] for row in data["sites"]} == {"done", "skipped"}
    assert set(data["certificate"]) >= {"max_abs", "max_rel", "inputs", "passed"}
    html = report._repr_html_()
    assert "<table>" in html
    assert "linear-act-norm" in html


class Gate(torch.nn.Module):
    """Squeeze and excitation with a norm; its functions get names of their own when written."""

    def __init__(self):
        super().__init__()
        self.a, self.n, self.b = (
            torch.nn.Conv2d(4, 2, 1),
            torch.nn.BatchNorm2d(2),
            torch.nn.Conv2d(2, 4, 1),
        )

    def forward(self, x):
        y = self.n(self.a(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.b(torch.relu(y)))


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(*zoo.block(BEFORE, 3, 4))
        self.gate, self.head = Gate(), torch.nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.gate(self.gate(self.body(x))))


@pytest.mark.parametrize("order", [BEFORE, AFTER])
def test_a_block_that_is_called_twice_is_rebuilt(order):
    net = zoo.randomize(Gated(), 3)
    made, report = relucate.rebuild(net, order, example=(2, 3, 8, 8))
    assert len(report.done) == len(report.sites)
    found = relucate.audit(made, example=(2, 3, 8, 8))
    assert set(found.summary) == {order}


class Named(torch.nn.Module):
    """Outputs in a dict, in the order of `keys`."""

    def __init__(self, *keys):
        super().__init__()
        self.one, self.two, self.keys = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), keys

    def forward(self, x):
        found = {"z": self.one(x), "a": (self.two(x),)}
        return {key: found[key] for key in self.keys}


def test_outputs_are_compared_by_their_keys():
    one, other = zoo.randomize(Named("z", "a"), 1), Named("a", "z")
    other.load_state_dict(one.state_dict())
    assert relucate.verify(one, other, example=(2, 4)).passed
    other.two.bias.data[0] += 0.1
    assert not relucate.verify(one, other, example=(2, 4)).passed
    assert not relucate.verify(one, Named("a"), example=(2, 4)).passed


def test_outputs_of_two_frameworks_are_compared_by_their_keys():
    one = zoo.randomize(Named("z", "a"), 1)
    image = keras.Input((4,))
    layers = {"z": (kl.Dense(3, name="z"), one.one), "a": (kl.Dense(3, name="a"), one.two)}
    other = keras.Model(image, {key: layer(image) for key, (layer, _) in layers.items()})
    for layer, source in layers.values():
        layer.set_weights([source.weight.detach().numpy().T, source.bias.detach().numpy()])
    one = Flat(one)
    assert relucate.verify(one, other, example=(2, 4)).passed
    assert relucate.verify(other, one, example=(2, 4)).passed


class Flat(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return {"z": self.net.one(x), "a": self.net.two(x)}

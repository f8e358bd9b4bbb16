import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

import relucate
from relucate import nets
from relucate.data import load
from relucate.errors import InputError, Refused
from relucate.keras import conv2d_bn
from relucate.keras.framework import FRAMEWORK
from relucate.torch import BatchNorm, lower, train
from relucate.torch.lowering.check import check_lowering, lower_checked
from relucate.torch.modules import RReLU
from relucate.train import Recipe


def lowerable(model):
    return FRAMEWORK.read(model).lowerable()


def lower_model(model, check=True):
    return lower_checked(lowerable(model), check=check)


def classifier(*tail, shape=(8, 7, 3), dropout=0.0):
    image = keras.Input(shape)
    order = "linear-act-norm-drop" if dropout else "after"
    x = conv2d_bn(image, 4, 3, 3, strides=2, order=order, dropout=dropout, name="b")
    x = kl.GlobalAveragePooling2D()(x)
    x = kl.Dense(3, name="logits")(x)
    for layer in tail:
        x = layer(x)
    return keras.Model(image, x)


def everything(model):
    return [keras.ops.convert_to_numpy(w.value).copy() for w in model.weights]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_checked_model_keeps_its_weights_bit_for_bit(randomize, dropout):
    model = randomize(classifier(dropout=dropout))
    before = everything(model)
    module = lower_model(model)
    for was, now in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(was, now)
    graph = lowerable(model).graph
    for key, array in module.get_tensors().items():
        np.testing.assert_array_equal(array, graph.tensors[key])
    assert not module.returns_logits


TAILS = {
    "softmax layer": lambda: kl.Softmax(),
    "softmax activation": lambda: kl.Activation("softmax"),
    "softmax argument": lambda: kl.Dense(3, activation="softmax"),
    "log softmax": lambda: kl.Activation("log_softmax"),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_final_softmax_is_left_to_the_loss(randomize, name):
    model = randomize(classifier(TAILS[name]()))
    module = lower_model(model).eval()
    assert module.returns_logits
    x = np.random.default_rng(0).normal(size=(5, 8, 7, 3)).astype("float32")
    expected = torch.as_tensor(model(x, training=False)).detach()
    with torch.no_grad():
        got = torch.softmax(module(torch.from_numpy(x)), -1)
    expected = expected.exp() if name == "log softmax" else expected
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_saturated_probabilities_are_no_difference():
    model = classifier(kl.Rescaling(200.0), kl.Softmax())
    assert lower_model(model).returns_logits


def test_what_differs_is_found_in_inference_and_in_training():
    model = classifier()
    source = lowerable(model)
    for attribute, value, found in (
        ("epsilon", 0.3, "output's scale in inference"),
        ("momentum", 0.5, "'b_bn/moving_.*s scale in training mode"),
        ("frozen", True, "output's scale in training mode"),
    ):
        module = lower(source.graph)
        (norm,) = [m for m in module.modules() if isinstance(m, BatchNorm)]
        setattr(norm, attribute, value)
        with pytest.raises(Refused, match=f"differs from Keras .torch backend.*{found}"):
            check_lowering(source, module)
    check_lowering(source, lower(source.graph))


def test_uneven_average_pool_is_refused_with_the_reason():
    """Keras's torch backend pads it by repeating the border, unlike its other backends."""
    image = keras.Input((8, 8, 3))
    pool = kl.AveragePooling2D(3, strides=2, padding="same", name="shrink")
    model = keras.Model(image, kl.Dense(2)(kl.Flatten()(pool(image))))
    with pytest.raises(Refused, match=r"'shrink' is an average pool.*repeats the border"):
        lower_model(model)
    assert lower_model(model, check=False) is not None


def test_even_average_pool_is_taken():
    image = keras.Input((7, 7, 3))
    pool = kl.AveragePooling2D(3, strides=2, padding="same")
    assert lower_model(keras.Model(image, kl.Flatten()(pool(image)))) is not None


def test_what_keras_itself_cannot_run_is_refused():
    """Keras's torch backend fails at a layer norm over another axis than the last ones."""
    image = keras.Input((4, 3))
    model = keras.Model(image, kl.Flatten()(kl.LayerNormalization(axis=1)(image)))
    with pytest.raises(Refused, match=r"Keras \(torch backend\) can't run the model.*\(8, 4, 3\)"):
        lower_model(model)


@pytest.mark.parametrize("act", ["prelu", "rrelu", "maxout"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_activations_that_keras_lacks_are_lowered_and_train_in_bfloat16(act, order):
    keras.utils.set_random_seed(0)
    module = lower_model(nets.build("cnn", order, (8, 8, 1), 10, width=8, depth=2, act=act))
    assert isinstance(getattr(module, "stage1_block1", None), RReLU) == (
        act == "rrelu"
    )  # one name in both orders
    recipe = Recipe(epochs=4, batch_size=32, precision="bf16")
    result = train(module, load("digits").subset(600, 200), recipe, seed=0)
    assert result.metric > 0.5


def test_opaque_layers_are_refused_by_name():
    with pytest.raises(Refused, match=r"'shift' \(Lambda\)"):
        lower_model(classifier(kl.Lambda(lambda x: x + 1, name="shift")))


def test_several_inputs_or_outputs_are_refused():
    a, b = keras.Input((3,)), keras.Input((3,))
    with pytest.raises(Refused, match="'two' has 2 inputs and 1 outputs"):
        lower_model(keras.Model([a, b], kl.Add()([a, b]), name="two"))
    with pytest.raises(Refused, match="'forked' has 1 inputs and 2 outputs"):
        lower_model(keras.Model(a, [a, kl.Dense(2)(a)], name="forked"))


def test_the_structure_of_one_input_and_one_output_does_not_matter():
    x = keras.Input((3,), name="a")
    y = kl.Dense(2)(x)
    for inputs, outputs in (({"a": x}, y), ([x], [y]), (x, {"y": y}), ({"a": x}, {"y": y})):
        assert lower_model(keras.Model(inputs, outputs)) is not None


def test_fixed_batch_size_and_unknown_image_size():
    x = keras.Input(batch_shape=(4, 3))
    assert lower_model(keras.Model(x, kl.Dense(2)(x))) is not None
    x = keras.Input((None, None, 3))
    model = keras.Model(x, kl.GlobalMaxPooling2D()(kl.Conv2D(2, 3, padding="same")(x)))
    assert lower_model(model) is not None


def test_rounding_is_not_amplified_from_node_to_node():
    """Batch statistics of a few values, layer after layer: the outputs would be far apart."""
    x = vector = keras.Input((4,))
    for number in range(30):
        x = kl.BatchNormalization(epsilon=1e-7, name=f"norm{number}")(kl.Dense(12)(x))
        x = kl.Activation("tanh")(kl.Rescaling(4.0)(x))
    assert lower_model(keras.Model(vector, kl.Dense(2)(x))) is not None


def test_the_node_that_differs_is_named():
    source = lowerable(classifier())
    module = lower(source.graph)
    (norm,) = [m for m in module.modules() if isinstance(m, BatchNorm)]
    norm.epsilon = 0.3
    with pytest.raises(Refused, match=r"at 'b_bn' \(batch_norm\) by [0-9.]+ of the output's scale"):
        check_lowering(source, module)


def test_normalization_layer_scale_and_stochastic_depth(randomize):
    """What EfficientNet and ConvNeXt have besides convolutions and norms."""
    x = image = keras.Input((8, 7, 3))
    scaled = kl.Normalization(mean=[0.2, 0.4, 0.5], variance=[0.1, 2.0, 0.5])
    adapted = kl.Normalization(name="adapted")
    adapted.adapt(np.random.default_rng(0).normal(1, 2, size=(50, 8, 7, 3)))
    x = first = kl.Conv2D(4, 3, padding="same")(adapted(scaled(x)))
    x = kl.BatchNormalization()(x)
    x = kl.Add()([first, kl.Dropout(0.3, noise_shape=(None, 1, 1, 1))(x)])
    x = kl.Dropout(0.2)(kl.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(image, kl.Dense(3)(x)))
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables]
    module = lower_model(model).eval()
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), old)
    images = np.random.default_rng(1).normal(size=(5, 8, 7, 3)).astype("float32")
    with torch.no_grad():
        got = module(torch.from_numpy(images))
    expected = torch.as_tensor(model(images, training=False)).detach()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_training_mode_is_checked_in_models_with_dropout():
    source = lowerable(classifier(dropout=0.5))
    module = lower(source.graph)
    (norm,) = [m for m in module.modules() if isinstance(m, BatchNorm)]
    norm.momentum = 0.5
    with pytest.raises(Refused, match=r"'b_bn/moving_.*s scale in training mode"):
        check_lowering(source, module)


def network(name, order):
    """Return a network as `compare` builds its arms; Keras's in the smallest size that it takes."""
    if name == "keras1_inception_v3":
        return relucate.keras.InceptionV3(order, weights=None, input_shape=(75, 75, 3))
    if name in nets.NETS:
        return nets.build(name, order, (75, 75, 3) if "inception" in name else (32, 32, 3), 10)
    size = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}.get(name, 32)
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(size, size, 3), classes=10)
    try:
        return relucate.rebuild(model, order)[0]
    except InputError:  # no norm to move
        return model


SMALL = ("cnn", "mlp", "MobileNet")
NOT_ON_TORCH = {"NASNetMobile", "NASNetLarge"}
LARGE = {name for name in dir(keras.applications) if name[0].isupper()} | set(nets.NETS)


@pytest.mark.filterwarnings("ignore:relucate rebuild")
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    "name",
    [*SMALL, *[
        pytest.param(name, marks=[pytest.mark.nightly, pytest.mark.timeout(3000)])
        for name in [*sorted(LARGE - set(SMALL) - NOT_ON_TORCH), "keras1_inception_v3"]
    ]],
)  # fmt: skip
def test_every_network_is_trained_by_the_torch_engine(name, order):
    """docs/applications.md has the table."""
    assert lower_model(network(name, order)) is not None

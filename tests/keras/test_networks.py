import keras
import numpy as np
import pytest
from keras import layers as kl
from tests.orders import KEEPS_BIAS

from relucate import compare, nets
from relucate.errors import InputError
from relucate.keras import read
from relucate.torch import lower

pytestmark = pytest.mark.usefixtures("in_process")

SHAPES = {
    "cnn": (9, 11, 3),
    "vgg": (9, 11, 3),
    "caffenet": (17, 18, 3),
    "mlp": (5, 4, 1),
    "bn_paper_mlp": (7,),
}
ORDERS = [*KEEPS_BIAS, "linear-norm-act-drop"]


def of(model, *kinds):
    return [layer for layer in model.layers if isinstance(layer, kinds)]


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_net_in_every_order_gives_logits_and_lowers(name, order, norm):
    model = nets.build(name, order, SHAPES[name], 6, norm=norm, width=4, dropout=0.1)
    assert model.output_shape == (None, 6)
    assert model.name == name
    assert isinstance(model.layers[-1], kl.Dense)
    assert model.layers[-1].activation is keras.activations.linear
    assert not lower(read(model), logits=True).returns_logits


def test_cnn_is_the_six_conv_net():
    model = nets.build("cnn", "before", (32, 32, 3), 10)
    convs = of(model, kl.Conv2D)
    assert [c.filters for c in convs] == [16, 16, 32, 32, 64, 64]
    assert [c.strides[0] for c in convs] == [1, 1, 2, 1, 2, 1]
    assert [
        c.filters for c in of(nets.build("cnn", "after", (8, 8, 1), 2, width=2, depth=2), kl.Conv2D)
    ] == [2, 2, 4, 4]


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_depth_counts_convolutions(depth):
    model = nets.build("vgg", "before", (32, 32, 3), 10, depth=depth, width=2)
    convs = of(model, kl.Conv2D)
    assert len(convs) == depth - 3  # the paper's other three are dense layers
    assert {c.filters for c in convs} == {2, 4, 8, 16}
    assert len(of(model, kl.MaxPooling2D)) == 5


@pytest.mark.parametrize(("size", "pools"), [((32, 32), 5), ((8, 8), 3), ((5, 40), 2), ((1, 9), 0)])
def test_vgg_pools_until_one_pixel_is_left(size, pools):
    model = nets.build("vgg", "after", (*size, 3), 10, width=2)
    assert len(of(model, kl.MaxPooling2D)) == pools


def test_caffenet_has_the_benchmarks_shapes():
    model = nets.build("caffenet", "after", (128, 128, 3), 1000)
    convs = of(model, kl.Conv2D)
    assert [(c.filters, c.groups) for c in convs] == [
        (96, 1), (256, 2), (384, 1), (384, 2), (256, 2)
    ]  # fmt: skip
    assert (convs[0].kernel_size, convs[0].strides, convs[0].padding) == ((11, 11), (4, 4), "valid")
    assert [c.output.shape[1] for c in convs] == [30, 15, 7, 7, 7]
    assert [d.units for d in of(model, kl.Dense)] == [2048, 2048, 1000]
    assert of(model, kl.Flatten)[0].output.shape[1] == 3 * 3 * 256
    assert all(layer.use_bias for layer in of(model, kl.Conv2D, kl.Dense))


def test_caffenet_of_small_images_without_scale_and_shift():
    options = {"width": 12, "affine": "never", "fc_dropout": 0.5}
    model = nets.build("caffenet", "before", (32, 32, 3), 10, **options)
    assert of(model, kl.Conv2D)[0].strides == (1, 1)
    assert [norm.scale or norm.center for norm in of(model, kl.BatchNormalization)] == [False] * 7
    assert [drop.rate for drop in of(model, kl.Dropout)] == [0.5, 0.5]
    with pytest.raises(InputError, match="affine"):
        nets.build("caffenet", "before", (32, 32, 3), 10, affine="yes")
    with pytest.raises(InputError, match=r"1\.5"):
        nets.build("caffenet", "before", (32, 32, 3), 10, fc_dropout=1.5)


def test_inception_with_equal_parameters():
    counts = {
        order: nets.build("inception_v3", order, (75, 75, 3), 6, width=2, bias="always")
        for order in ("before", "after")
    }
    assert len({model.count_params() for model in counts.values()}) == 1
    plain = nets.build("inception_v3", "before", (75, 75, 3), 6, width=2)
    assert plain.count_params() < counts["before"].count_params()


@pytest.mark.parametrize("act", ["prelu", "rrelu", "maxout"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_activations_that_keras_lacks(act, order):
    model = nets.build("cnn", order, (8, 8, 3), 5, width=4, depth=1, act=act)
    assert [c.filters for c in of(model, kl.Conv2D)] == [8, 8] if act == "maxout" else [4, 4]
    assert model.get_layer("stage1_block2").output.shape[-1] == 4


def test_dense_nets():
    model = nets.build("mlp", "before", (8, 8, 1), 10, width=12, depth=2)
    assert [d.units for d in of(model, kl.Dense)] == [12, 12, 10]
    assert len(of(model, kl.Flatten)) == 1
    paper = nets.build("bn_paper_mlp", "before", (784,), 10)
    assert [d.units for d in of(paper, kl.Dense)] == [100, 100, 100, 10]
    assert {a.activation.__name__ for a in of(paper, kl.Activation)} == {"sigmoid"}
    assert not of(paper, kl.Flatten)


@pytest.mark.parametrize(
    ("order", "norm"),
    [
        ("before", "batch"),
        ("after", "group"),
        ("norm-act-linear", "layer"),
        ("linear-norm-act-drop", "batch"),
        ("none", "batch"),
    ],
)
def test_inception_gives_logits_and_lowers(order, norm):
    model = nets.build("inception_v3", order, (75, 80, 1), 6, norm=norm, width=2, dropout=0.1)
    assert (model.input_shape, model.output_shape) == ((None, 75, 80, 1), (None, 6))
    assert model.name == "inception_v3"
    assert model.layers[-1].activation is keras.activations.linear
    assert not lower(read(model), logits=True).returns_logits


def test_inception_is_kerass_at_the_default_width():
    model = nets.build("inception_v3", "before", (75, 75, 3), 10)
    theirs = keras.applications.InceptionV3(weights=None, input_shape=(75, 75, 3), classes=10)
    assert [w.shape for w in model.weights] == [w.shape for w in theirs.weights]


def test_inceptions_options_reach_the_layers():
    model = nets.build(
        "inception_v3",
        "before",
        (75, 75, 3),
        2,
        act="tanh",
        width=4,
        init="he_normal",
        edition="1.x",
    )
    assert {a.activation for a in of(model, kl.Activation)} == {keras.activations.tanh}
    assert model.get_layer("mixed1_pool_conv").filters == 4
    kernels = {type(c.kernel_initializer).__name__ for c in of(model, kl.Conv2D)}
    assert kernels == {"HeNormal"}


@pytest.mark.slow
def test_inception_trains_in_a_comparison():
    random = np.random.default_rng(0)
    y = np.arange(24) % 2
    x = (random.uniform(0, 200, (24, 75, 75, 3)) + 50 * y[:, None, None, None]).astype("uint8")
    study = compare(
        "inception_v3",
        ((x[:16], y[:16]), (x[16:], y[16:])),
        options={"width": 1},
        recipe={"epochs": 1, "batch_size": 8},
        pairs=1,
        jobs=1,
        progress=False,
    )
    runs = study.to_dict()["runs"]
    assert [run["order"] for run in runs] == ["linear-norm-act", "linear-act-norm"]
    assert all(np.isfinite(run["metric"]) for run in runs)


@pytest.mark.parametrize("name", SHAPES)
def test_layers_of_one_shape_start_from_different_values(name):
    keras.utils.set_random_seed(0)
    model = nets.build(name, "before", SHAPES[name], 4, width=4)
    kernels = [la.get_weights()[0] for la in of(model, kl.Conv2D, kl.Dense)]
    for i, kernel in enumerate(kernels):
        for other in kernels[i + 1 :]:
            assert kernel.shape != other.shape or not np.array_equal(kernel, other)


def test_the_papers_small_init():
    kernel = of(nets.build("bn_paper_mlp", "before", (784,), 10), kl.Dense)[0].get_weights()[0]
    assert np.std(kernel) == pytest.approx(0.1, rel=0.02)


def test_options_reach_the_layers():
    model = nets.build(
        "cnn",
        "linear-norm-act-drop",
        (8, 8, 1),
        10,
        act="tanh",
        norm="group",
        width=4,
        depth=1,
        dropout=0.3,
        init="lecun_normal",
    )
    assert of(model, kl.Activation)[0].activation is keras.activations.tanh
    assert len(of(model, kl.GroupNormalization)) == 2
    assert of(model, kl.Dropout)[0].rate == 0.3
    assert type(of(model, kl.Conv2D)[0].kernel_initializer).__name__ == "LecunNormal"


def test_an_order_without_a_drop_token_takes_no_dropout():
    assert not of(nets.build("mlp", "before", (4,), 2, dropout=0.5), kl.Dropout)


def test_channels_first_configuration(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert nets.build("cnn", "before", (9, 11, 3), 10).input_shape == (None, 3, 9, 11)
    model = nets.build("inception_v3", "before", (75, 80, 3), 10, width=1)
    assert model.input_shape == (None, 3, 75, 80)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("cnn", (64,), {}, r"takes images \(height, width, channels\).*\(64,\). Use mlp"),
        ("vgg", (8, 8), {}, r"takes images.*\(8, 8\)"),
        ("inception_v3", (64,), {}, r"takes images.*\(64,\). Use mlp"),
        ("inception_v3", (74, 75, 3), {}, r"75×75 pixels or more, got the shape \(74, 75, 3\)"),
        ("inception_v3", (75, 75, 3), {"edition": "2"}, "unknown edition of InceptionV3 '2'"),
        ("inception_v3", (75, 75, 3), {"norm": "bacth"}, "unknown norm 'bacth'"),
        ("vgg", (8, 8, 1), {"depth": 12}, "the depth of vgg must be one of 11, 13, 16, 19; got 12"),
        ("mlp", (4,), {"norm": "bacth"}, "unknown norm 'bacth': did you mean 'batch'"),
        ("mlp", (4,), {"act": "rleu"}, "unknown activation 'rleu'"),
        ("mlp", (4,), {"init": "he"}, "unknown initializer 'he'"),
        ("bn_paper_mlp", (4,), {"init": "he"}, "unknown initializer 'he'"),
        ("mlp", (4,), {"dropout": 1.5}, r"in \[0, 1\), got 1.5"),
        ("cnn", (8, 8, 1), {"dropout": -1}, r"in \[0, 1\), got -1"),
    ],
)
def test_mistakes(name, shape, options, message):
    with pytest.raises(InputError, match=message):
        nets.build(name, "before", shape, 10, **options)


@pytest.mark.parametrize("name", SHAPES)
def test_unknown_order(name):
    with pytest.raises(InputError, match="befroe"):
        nets.build(name, "befroe", SHAPES[name], 10)

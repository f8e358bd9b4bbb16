import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.errors import InputError, Refused
from relucate.keras import conv2d_bn, slim
from relucate.order import Order

ORDERS = ["before", "after", "norm-linear-act", "norm-act-linear", "act-linear-norm"]


def noise(*shape, seed=1):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype("float32")


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def randomize(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 2.0) if "variance" in variable.name else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))
    return model


def conv_net(*args, shape=(9, 8, 4), **options):
    x = keras.Input(shape)
    return keras.Model(x, slim.conv2d(x, 6, 3, *args, name="b", **options))


def fc_net(*args, **options):
    x = keras.Input((4,))
    return keras.Model(x, slim.fc(x, 6, *args, name="b", **options))


def linear_of(model):
    return next(la for la in model.layers if isinstance(la, (kl.Conv2D, kl.Dense)))


def kinds(model):
    token = {kl.Conv2D: "linear", kl.Dense: "linear", kl.BatchNormalization: "norm"}
    return [token.get(type(la), "act") for la in model.layers[1:]]


def convolve(x, kernel, stride, padding):
    """A channels-last convolution, window by window; TensorFlow's SAME pads more at the end."""
    height, width = kernel.shape[:2]
    if padding == "SAME":
        pads = [(0, 0)]
        for size, window in ((x.shape[1], height), (x.shape[2], width)):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [*pads, (0, 0)])
    rows = (x.shape[1] - height) // stride + 1
    columns = (x.shape[2] - width) // stride + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + height, j * stride : j * stride + width]
            y[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel)
    return y


def by_hand(model, x, order, stride=1, padding="SAME", epsilon=0.001):
    """What ops.py computes at inference, in the given order."""
    linear = linear_of(model)
    for token in Order(order).tokens:
        if token == "linear":
            kernel = array(linear.kernel).astype("float64")
            x = x @ kernel if kernel.ndim == 2 else convolve(x, kernel, stride, padding)
            x = x + array(linear.bias) if linear.use_bias else x
        elif token == "norm":
            norm = model.get_layer("b_bn")
            x = (x - array(norm.moving_mean)) / np.sqrt(array(norm.moving_variance) + epsilon)
            x = x * array(norm.gamma) if norm.scale else x
            x = x + array(norm.beta)
        else:
            x = np.maximum(x, 0)
    return x


class TestArithmetic:
    @pytest.mark.parametrize("scale", [True, False])
    @pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "SAME"), (2, "VALID")])
    @pytest.mark.parametrize("order", ORDERS)
    def test_conv2d(self, order, stride, padding, scale):
        params = {"epsilon": 0.1, "scale": scale}
        model = randomize(conv_net(stride, padding, order=order, batch_norm_params=params))
        x = noise(3, 9, 8, 4)
        expected = by_hand(model, x, order, stride, padding, 0.1)
        np.testing.assert_allclose(array(model(x)), expected, rtol=1e-4, atol=1e-4)
        assert kinds(model) == list(Order(order).tokens)

    @pytest.mark.parametrize("order", ORDERS)
    def test_fc(self, order):
        model = randomize(fc_net(order=order, batch_norm_params={}))
        x = noise(5, 4)
        expected = by_hand(model, x, order)
        np.testing.assert_allclose(array(model(x)), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("net", [conv_net, fc_net])
    def test_without_a_norm_there_is_a_bias(self, net):
        model = randomize(net(bias=0.1))
        assert kinds(model) == ["linear", "act"]
        x = noise(3, *model.input_shape[1:])
        np.testing.assert_allclose(array(model(x)), by_hand(model, x, "none"), rtol=1e-4, atol=1e-4)

    def test_channels_first(self):
        first = conv_net(shape=(4, 9, 8), batch_norm_params={}, data_format="channels_first")
        last = randomize(conv_net(batch_norm_params={}))
        assert first.get_layer("b_bn").axis == 1
        for weight, source in zip(first.weights, last.weights, strict=True):
            weight.assign(source)
        x = noise(2, 9, 8, 4)
        got = array(first(np.moveaxis(x, -1, 1)))
        np.testing.assert_allclose(np.moveaxis(got, 1, -1), array(last(x)), rtol=1e-4, atol=1e-4)

    def test_the_moving_average_takes_one_step_of_1_minus_decay(self):
        x = keras.Input((4,))
        model = keras.Model(x, slim.batch_norm(x, decay=0.9, name="bn"))
        data = noise(16, 4)
        y = array(model(data, training=True))
        norm = model.get_layer("bn")
        np.testing.assert_allclose(array(norm.moving_mean), 0.1 * data.mean(0), rtol=1e-4)
        np.testing.assert_allclose(array(norm.moving_variance), 0.9 + 0.1 * data.var(0), rtol=1e-4)
        expected = (data - data.mean(0)) / np.sqrt(data.var(0) + 0.001)
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


class TestDefaults:
    def test_the_norm_is_inceptions(self):
        norm = conv_net(batch_norm_params=slim.INCEPTION).get_layer("b_bn")
        assert (norm.momentum, norm.epsilon) == (0.9997, 0.001)
        assert (norm.scale, norm.center) == (False, True)

    def test_an_empty_dict_is_a_norm_with_slims_defaults(self):
        norm = fc_net(batch_norm_params={}).get_layer("b_bn")
        assert (norm.momentum, norm.epsilon, norm.scale, norm.center) == (0.999, 0.001, False, True)
        norm = fc_net(batch_norm_params={"center": False, "scale": True}).get_layer("b_bn")
        assert (norm.scale, norm.center) == (True, False)

    @pytest.mark.parametrize("net", [conv_net, fc_net])
    def test_the_start_is_a_truncated_normal_and_the_bias_a_constant(self, net):
        for stddev in (0.01, 0.1):
            linear = linear_of(net(stddev=stddev, bias=0.25))
            assert linear.kernel_initializer.stddev == stddev
            assert np.abs(array(linear.kernel)).max() <= 2 * stddev
            np.testing.assert_array_equal(array(linear.bias), np.float32(0.25))
        x = keras.Input((200,))
        kernel = array(linear_of(keras.Model(x, slim.fc(x, 100))).kernel)
        # Cut off at two of them, a standard deviation of 0.01 becomes 0.0088.
        assert kernel.std() == pytest.approx(0.0088, rel=0.03)

    @pytest.mark.parametrize("net", [conv_net, fc_net])
    def test_weight_decay_is_half_the_squares_of_the_kernel_alone(self, net):
        model = randomize(net(weight_decay=0.3, batch_norm_params={"scale": True}, order="after"))
        kernel = array(linear_of(model).kernel)
        assert [float(array(loss)) for loss in model.losses] == pytest.approx(
            [0.3 * (kernel**2).sum() / 2]
        )
        assert net().losses == []

    def test_names(self):
        model = conv_net(batch_norm_params={})
        assert [la.name for la in model.layers[1:]] == ["b_conv", "b_bn", "b"]
        assert [la.name for la in fc_net("tanh").layers[1:]] == ["b_dense", "b"]

    def test_no_activation(self):
        assert kinds(conv_net(activation=None, batch_norm_params={})) == ["linear", "norm"]
        assert kinds(fc_net(None)) == ["linear"]

    @pytest.mark.parametrize(
        ("order", "activation", "kept"),
        [("before", "relu", False), ("after", "relu", True), ("after", None, False)],
    )
    def test_bias_rule(self, order, activation, kept):
        for net in (conv_net, fc_net):
            model = net(activation=activation, order=order, batch_norm_params={})
            assert linear_of(model).use_bias == kept

    def test_blocks_do_not_share_an_activation_layer(self):
        act = kl.PReLU()
        x = keras.Input((4,))
        y = slim.fc(slim.fc(x, 4, act), 4, act)
        alphas = [la.alpha for la in keras.Model(x, y).layers if isinstance(la, kl.PReLU)]
        assert len({id(alpha) for alpha in alphas}) == 2


class TestTranslate:
    @pytest.mark.parametrize(
        "spelling",
        [
            {"batch_norm_params": slim.INCEPTION},
            {"batch_norm_params": {**slim.INCEPTION, "moving_vars": "moving_vars"}},
            {"normalizer_fn": "batch_norm", "normalizer_params": slim.INCEPTION},
            {"normalizer_fn": slim.batch_norm, "normalizer_params": {"decay": 0.9997}},
        ],
    )
    def test_the_block_is_slims(self, spelling):
        order, arguments = slim.translate(**spelling)
        assert order == Order("before")
        x = keras.Input((9, 8, 4))
        ours = keras.Model(x, conv2d_bn(x, 6, 3, 3, name="b", order=order, **arguments))
        theirs = randomize(conv_net(batch_norm_params=slim.INCEPTION))
        assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
        for weight, source in zip(ours.weights, theirs.weights, strict=True):
            weight.assign(source)
        data = noise(8, 9, 8, 4)
        for training in (True, False):
            got, wanted = ours(data, training=training), theirs(data, training=training)
            np.testing.assert_allclose(array(got), array(wanted), rtol=1e-4, atol=1e-4)
        for weight, source in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_allclose(array(weight), array(source), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("spelling", "order", "arguments"),
        [
            ({}, "linear-act", {"norm": "none", "activation": "relu"}),
            ({"activation_fn": None}, "linear", {"norm": "none"}),
            (
                {"normalizer_fn": "batch_norm", "activation_fn": None},
                "linear-norm",
                {"norm": "batch", "scale": False, "momentum": 0.999, "epsilon": 0.001},
            ),
            (
                {
                    "batch_norm_params": {"scale": True, "decay": 0.9, "is_training": True},
                    "activation_fn": "elu",
                },
                "before",
                {
                    "norm": "batch",
                    "scale": True,
                    "momentum": 0.9,
                    "epsilon": 0.001,
                    "activation": "elu",
                },
            ),
            (
                {"normalizer_fn": "group_norm", "normalizer_params": {"groups": 4}},
                "before",
                {
                    "norm": "group",
                    "groups": 4,
                    "scale": True,
                    "epsilon": 1e-6,
                    "data_format": "channels_last",
                    "use_bias": False,
                    "activation": "relu",
                },
            ),
        ],
    )
    def test_what_it_means(self, spelling, order, arguments):
        found = slim.translate(**spelling)
        assert found == (Order(order), arguments)
        shape = (9, 8, 4)
        x = keras.Input(shape)
        model = keras.Model(x, conv2d_bn(x, 8, 3, 3, order=found.order, **found.arguments))
        assert linear_of(model).use_bias == (not found.order.has_norm)

    def test_group_norm_with_channels_first(self):
        params = {"channels_axis": -3, "reduction_axes": [-2, -1]}
        found = slim.translate(normalizer_fn="group_norm", normalizer_params=params)
        assert found.arguments["data_format"] == "channels_first"

    @pytest.mark.parametrize(
        ("spelling", "match"),
        [
            ({"batch_norm_params": {"center": False}}, "center=False can't be expressed"),
            ({"batch_norm_params": {"activation": "relu"}}, "activation='relu' .* second one"),
            ({"batch_norm_params": {"is_training": False}}, "is_training=False can't"),
            ({"batch_norm_params": {"trainable": False}}, "a frozen Keras norm"),
            (
                {"normalizer_fn": "batch_norm", "normalizer_params": {"renorm": True}},
                "renorm=True .* no batch renormalization",
            ),
            (
                {
                    "normalizer_fn": "batch_norm",
                    "normalizer_params": {"zero_debias_moving_mean": True},
                },
                "zero_debias_moving_mean=True",
            ),
            (
                {"normalizer_fn": "group_norm", "normalizer_params": {"reduction_axes": (-3,)}},
                r"got -1 and \(-3,\)",
            ),
            (
                {
                    "normalizer_fn": "group_norm",
                    "normalizer_params": {"channels_axis": -2, "reduction_axes": (-3, -1)},
                },
                "got -2 and",
            ),
            ({"normalizer_fn": "layer_norm"}, "'layer_norm', .* over height, width and channels"),
            ({"normalizer_fn": "instance_norm"}, "no instance norm"),
            ({"normalizer_fn": len}, "the normalizer 'len', only batch_norm and group_norm"),
        ],
    )
    def test_what_it_refuses(self, spelling, match):
        with pytest.raises(Refused, match=match):
            slim.translate(**spelling)

    def test_wrong_arguments(self):
        with pytest.raises(InputError, match="give one of the two"):
            slim.translate(batch_norm_params={}, normalizer_fn="batch_norm")
        with pytest.raises(InputError, match="unknown argument of batch_norm 'momentum'"):
            slim.translate(batch_norm_params={"momentum": 0.9})
        with pytest.raises(InputError, match="unknown argument of group_norm 'decay'"):
            slim.translate(normalizer_fn="group_norm", normalizer_params={"decay": 0.9})


class TestErrors:
    def test_of_the_norm(self):
        with pytest.raises(InputError, match="argument of batch_norm 'epsilonn': did you mean"):
            conv_net(batch_norm_params={"epsilonn": 0.1})
        with pytest.raises(Refused, match="is_training=False"):
            fc_net(batch_norm_params={"is_training": False})

    def test_of_the_layer(self):
        with pytest.raises(InputError, match="unknown padding 'FULL'"):
            conv_net(1, "FULL")
        with pytest.raises(InputError, match="unknown data format 'NHWC'"):
            conv_net(data_format="NHWC")
        with pytest.raises(InputError, match=r"got \(None, 3, 4\): flatten it first"):
            slim.fc(keras.Input((3, 4)), 5)
        with pytest.raises(InputError, match="no dropout: use 'linear-norm-act'"):
            fc_net(order="linear-norm-act-drop")
        with pytest.raises(InputError, match="unknown activation 'rleu'"):
            fc_net("rleu")


def test_maxout_is_refused_and_prelu_has_a_slope_per_channel():
    image = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="maxout"):
        slim.conv2d(image, 4, [3, 3], activation="maxout")
    x = slim.conv2d(image, 4, [3, 3], activation="prelu")
    assert x._keras_history.operation.alpha.shape == (1, 1, 4)

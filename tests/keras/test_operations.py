"""Raw operations: `keras.ops`, operators and `keras.activations` on symbolic tensors."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops
from tests.keras.test_spelled_out import FUNCTIONS

from relucate.errors import Refused
from relucate.graph import evaluate, select
from relucate.keras.reading.operations import _OPERATIONS
from relucate.keras.reading.reader import read
from relucate.torch import lower

RANDOM = np.random.default_rng(0)
SHAPE = (6, 5, 4)


def array(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def model_of(function, *shapes):
    tensors = [keras.Input(shape) for shape in shapes or [SHAPE]]
    return keras.Model(tensors if len(tensors) > 1 else tensors[0], function(*tensors))


WEIGHT = keras.Variable(array(4), name="weight")
KERNEL = keras.Variable(array(4, 3), name="kernel")

# function -> the ops that it is read as
ONE = {
    # arithmetic beside a constant
    "x+2": (lambda x: x + 2, ["rescale"]),
    "2-x": (lambda x: 2 - x, ["rescale"]),
    "x-2": (lambda x: x - 2.5, ["rescale"]),
    "x*2": (lambda x: x * 2, ["rescale"]),
    "x/4": (lambda x: x / 4, ["rescale"]),
    "-x": (lambda x: -x, ["rescale"]),
    "number0d": (lambda x: x * np.float32(0.3), ["rescale"]),
    "x+a": (lambda x: x + array(4), ["affine"]),
    "a-x": (lambda x: ops.subtract(array(5, 1), x), ["affine"]),
    "x-a": (lambda x: x - array(6, 5, 4), ["affine"]),
    "a*x": (lambda x: ops.multiply(array(1, 1, 1, 4), x), ["affine"]),
    "x/a": (lambda x: ops.divide(x, array(4)), ["affine"]),
    "tensor": (lambda x: x * ops.convert_to_tensor(array(4)), ["affine"]),
    "x*v": (lambda x: x * WEIGHT, ["affine"]),
    "x+v": (lambda x: x + WEIGHT, ["affine"]),
    "v-x": (lambda x: ops.subtract(WEIGHT, x), ["affine"]),
    "keywords": (lambda x: ops.add(x1=x, x2=3.0), ["rescale"]),
    # cuts
    "max0": (lambda x: ops.maximum(x, 0), ["relu"]),
    "0max": (lambda x: ops.maximum(0.0, x), ["relu"]),
    "max1": (lambda x: ops.maximum(x, 1.0), ["hard_tanh"]),
    "min1": (lambda x: ops.minimum(x, 0.3), ["hard_tanh"]),
    "clip": (lambda x: ops.clip(x, -0.3, 0.5), ["hard_tanh"]),
    "clip01": (lambda x: ops.clip(x, 0, 0.7), ["relu"]),
    "clip06": (lambda x: ops.clip(x * 9, 0, 6), ["rescale", "relu6"]),
    # linear operations
    "matmul": (lambda x: ops.matmul(x, KERNEL), ["dense"]),
    "@": (lambda x: x @ array(4, 2), ["dense"]),
    "dot": (lambda x: ops.dot(x, array(4, 2)), ["dense"]),
    "einsum": (lambda x: ops.einsum("bhwc,cf->bhwf", x, KERNEL), ["einsum"]),
    "einsum-turned": (lambda x: ops.einsum("cf,bhwc->bfhw", KERNEL, x), ["einsum"]),
    "conv": (lambda x: ops.conv(x, array(3, 2, 4, 5), strides=2, padding="same"), ["conv"]),
    "conv-dilated": (lambda x: ops.conv(x, array(3, 2, 4, 6), dilation_rate=(2, 1)), ["conv"]),
    "depthwise": (lambda x: ops.depthwise_conv(x, array(2, 3, 4, 2)), ["depthwise_conv"]),
    # pools and norms
    "max_pool": (lambda x: ops.max_pool(x, 2), ["max_pool"]),
    "average_pool": (lambda x: ops.average_pool(x, (2, 3), strides=(1, 2)), ["avg_pool"]),
    "batch_norm": (
        lambda x: ops.batch_normalization(
            x, array(4), array(4) ** 2, -1, offset=array(4), scale=WEIGHT, epsilon=0.1
        ),
        ["batch_norm"],
    ),
    "layer_norm": (lambda x: ops.layer_normalization(x, array(4), WEIGHT), ["layer_norm"]),
    "rms_norm": (lambda x: ops.rms_normalization(x, scale=array(4), epsilon=0.1), ["rms_norm"]),
    "normalize": (lambda x: ops.normalize(x, axis=[1, 2]), ["unit_norm"]),
    # shapes
    "reshape": (lambda x: ops.reshape(x, (-1, 30, 4)), ["reshape"]),
    "squeeze": (lambda x: ops.squeeze(x[:, 1:2], axis=1), ["slice", "reshape"]),
    "squeeze-all": (lambda x: ops.squeeze(x[:, :, 1:2]), ["slice", "reshape"]),
    "expand_dims": (lambda x: ops.expand_dims(x, -2), ["reshape"]),
    "transpose": (lambda x: ops.transpose(x, (0, 3, 1, 2)), ["permute"]),
    "transpose-negative": (lambda x: ops.transpose(x, (0, -1, 2, 1)), ["permute"]),
    "swapaxes": (lambda x: ops.swapaxes(x, 1, -1), ["permute"]),
    "moveaxis": (lambda x: ops.moveaxis(x, -1, 1), ["permute"]),
    "moveaxis-two": (lambda x: ops.moveaxis(x, (1, 3), (2, 1)), ["permute"]),
    "pad": (lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), ["zero_pad"]),
    "pad-first": (lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 1), (3, 0))), ["zero_pad"]),
    "pad-value": (
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2.5),
        ["pad"],
    ),
    "pad-reflect": (lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), "reflect"), ["pad"]),
    # parts
    "getitem": (lambda x: x[:, 1:4], ["slice"]),
    "flip": (lambda x: ops.flip(x, axis=(1, -1)), ["slice", "slice"]),
    "getitem-two": (lambda x: x[:, 1:4, ::2], ["slice", "slice"]),
    "getitem-last": (lambda x: x[..., -2:], ["slice"]),
    "getitem-number": (lambda x: x[:, 2], ["slice", "reshape"]),
    "getitem-minus-one": (lambda x: x[:, :, -1], ["slice", "reshape"]),
    "getitem-new": (lambda x: x[:, 1:, None, 1:, 2], ["slice", "slice", "slice", "reshape"]),
    "getitem-in-place": (lambda x: x[:, 2, None], ["slice"]),
    "getitem-nothing": (lambda x: x[:, :], ["identity"]),
    # reductions
    **{
        name: (lambda x, f=function: f(x, axis=(1, -1)), ["reduce"])
        for name, function in [
            ("sum", ops.sum),
            ("mean", ops.mean),
            ("max", ops.max),
            ("min", ops.min),
            ("prod", ops.prod),
            ("var", ops.var),
            ("std", ops.std),
            ("amax", ops.amax),
            ("amin", ops.amin),
        ]
    },
    "average": (lambda x: ops.average(x, axis=2), ["reduce"]),
    "mean-kept": (lambda x: ops.mean(x, 2, keepdims=True), ["reduce"]),
    # activations
    **{
        name: (getattr(ops, name), [name])
        for name in "relu relu6 leaky_relu elu selu celu gelu silu sigmoid hard_sigmoid "
        "log_sigmoid tanh erf hard_tanh tanh_shrink hard_shrink soft_shrink sparse_plus "
        "sparse_sigmoid softplus softsign squareplus softmax log_softmax glu".split()
    },
    "exp": (ops.exp, ["exponential"]),
    "leaky-0.4": (lambda x: ops.leaky_relu(x, 0.4), ["leaky_relu"]),
    "elu-0.4": (lambda x: ops.elu(x, alpha=0.4), ["elu"]),
    "celu-0.4": (lambda x: ops.celu(x, alpha=0.4), ["celu"]),
    "gelu-exact": (lambda x: ops.gelu(x, approximate=False), ["gelu"]),
    "log_softmax-1": (lambda x: ops.log_softmax(x, axis=1), ["log_softmax"]),
    "glu-1": (lambda x: ops.glu(x, axis=1), ["glu"]),
    "threshold": (lambda x: ops.threshold(x, 0.2, -0.7), ["threshold"]),
    "activations.relu": (
        lambda x: keras.activations.relu(x, negative_slope=0.2, max_value=0.5, threshold=0.1),
        ["relu"],
    ),
    "activations.gelu": (keras.activations.gelu, ["gelu"]),
    # what does nothing
    "cast": (lambda x: ops.cast(x, "float32"), ["identity"]),
    "copy": (ops.copy, ["identity"]),
    "stop_gradient": (ops.stop_gradient, ["identity"]),
    "convert_to_tensor": (ops.convert_to_tensor, ["identity"]),
}


@pytest.mark.parametrize("name", ONE)
def test_operation(evaluated, name):
    function, wanted = ONE[name]
    model = model_of(function)
    graph = evaluated(model, array(3, *SHAPE))
    assert [node.op for node in graph][1:] == wanted
    assert graph.nodes[graph.outputs[0]].shape == model.output_shape


TWO = {
    "add": (ops.add, "add"),
    "subtract": (ops.subtract, "subtract"),
    "multiply": (ops.multiply, "multiply"),
    "divide": (ops.divide, "divide"),
    "true_divide": (ops.true_divide, "divide"),
    "maximum": (ops.maximum, "maximum"),
    "minimum": (ops.minimum, "minimum"),
    "concatenate": (lambda x, y: ops.concatenate([x, y, x], axis=2), "concat"),
    "stack": (lambda x, y: ops.stack([x, y], axis=-2), "concat"),
}


@pytest.mark.parametrize("name", TWO)
def test_operation_of_two_tensors(evaluated, name):
    function, op = TWO[name]
    model = model_of(function, SHAPE, SHAPE)
    graph = evaluated(model)
    assert graph.nodes[graph.outputs[0]].op == op
    assert graph.nodes[graph.outputs[0]].shape == model.output_shape


def test_lower_ranks_broadcast_from_the_front_as_in_numpy(evaluated):
    evaluated(model_of(lambda x, y: x + ops.mean(y, axis=1, keepdims=True), SHAPE, SHAPE))
    assert not evaluated(model_of(lambda x: x * x)).opaque


def test_operations_with_several_outputs(evaluated):
    graph = evaluated(model_of(lambda x: ops.split(x, 2, axis=1)[::-1]))
    assert [n.name.rpartition("/")[2] for n in graph][1:] == ["0", "1"]
    evaluated(model_of(lambda x: ops.split(x, [1, 3], axis=-1)))
    evaluated(model_of(lambda x: ops.array_split(x, 3, axis=2)))
    first, _, last, *_ = ops.unstack(keras.Input(SHAPE), axis=2)
    source = first._keras_history.operation._inbound_nodes[0].arguments.keras_tensors[0]
    assert not evaluated(keras.Model(source, [last, first])).opaque


def test_attention_and_products_are_known_and_not_evaluated():
    for function, op in [
        (lambda x, y: ops.matmul(x, ops.transpose(y, (0, 2, 1))), "matmul"),
        (lambda x, y: ops.einsum("bic,bjc->bij", x, y), "matmul"),
        (ops.dot, "dot"),
    ]:
        graph = read(model_of(function, (3, 4), (3, 4) if op == "matmul" else (4, 3)))
        last = graph.nodes[graph.outputs[0]]
        assert (last.op, len(last.inputs)) == (op, 2)
        with pytest.raises(Refused, match=rf"\({op}\)"):
            evaluate(graph, np.zeros((1, 3, 4)), np.zeros((1, 3, 4)))
    graph = read(model_of(ops.dot_product_attention, *[(3, 2, 4)] * 3))
    assert graph.nodes[graph.outputs[0]].op == "attention"
    graph = read(model_of(lambda x: ops.image.resize(x, (3, 4))))
    assert graph.nodes[graph.outputs[0]].op == "resize"


OPAQUE = {
    "sin": (ops.sin, ""),
    "divided constant": (lambda x: ops.divide(array(4), x), "constant operand"),
    "divided by zero": (lambda x: x / 0.0, "constant operand"),
    "divided by a variable": (lambda x: x / WEIGHT, "called with the variable 'weight'"),
    "minus a variable": (lambda x: x - WEIGHT, "called with the variable 'weight'"),
    "maximum of an array": (lambda x: ops.maximum(x, array(4)), "constant array"),
    "matmul from the left": (lambda x: ops.matmul(array(6, 5), x), "constant operand"),
    "matmul of images": (lambda x: ops.matmul(x, array(6, 4, 2)), "constant operand"),
    "einsum of three": (
        lambda x: ops.einsum("bhwc,cf,fg->bhwg", x, KERNEL, array(3, 2)),
        "of 3 operands",
    ),
    "computed weights": (
        lambda x: ops.layer_normalization(x, ops.mean(x, axis=(0, 1, 2))),
        "its weights are computed",
    ),
    "moments": (
        lambda x: ops.batch_normalization(x, *ops.moments(x, (0, 1, 2)), -1),
        "its weights are computed",
    ),
    "another order": (lambda x: ops.normalize(x, order=1), "a norm of order 1"),
    "mean of all": (lambda x: ops.mean(x), "batch axis"),
    "mean of the batch": (lambda x: ops.mean(x, axis=0), "batch axis"),
    "weighted average": (lambda x: ops.average(x, 1, weights=array(6)), "with weights"),
    "max from": (lambda x: ops.max(x, axis=1, initial=0.3), "initial"),
    "reshaped batch": (lambda x: ops.reshape(x, (-1, 5, 4)), "batch axis"),
    "reshaped all": (lambda x: ops.reshape(x, (2, -1)), "batch axis"),
    "transposed batch": (ops.transpose, "batch axis"),
    "swapped batch": (lambda x: ops.swapaxes(x, 0, 1), "batch axis"),
    "joined batch": (lambda x: ops.concatenate([x, x], axis=0), "batch axis"),
    "stacked batch": (lambda x: ops.stack([x, x]), "batch axis"),
    "flipped batch": (ops.flip, "batch axis"),
    "split batch": (lambda x: x[1:, :], "batch axis"),
    "new batch": (lambda x: x[None, :], "batch axis"),
    "padded batch": (lambda x: ops.pad(x, 1), "batch axis"),
    "padded channels": (lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (1, 0))), "the channels"),
    "joined constant": (
        lambda x: ops.concatenate([x, ops.ones((1, 6, 5, 4))], axis=-1),
        "constant operand",
    ),
    "cast to numbers": (lambda x: ops.cast(x, "int32"), "from float32 to int32"),
    "softmax of all": (lambda x: ops.softmax(x, axis=None), "over all axes"),
    "expanded batch": (lambda x: ops.expand_dims(x, 0), "batch axis"),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_is_not_known_stays_opaque_with_the_reason(name):
    function, why = OPAQUE[name]
    graph = read(model_of(function))
    assert graph.nodes[graph.outputs[0]].op == "opaque"
    assert why in graph.nodes[graph.outputs[0]].attrs["why"]
    with pytest.raises(Refused):
        evaluate(graph, np.zeros((1, *SHAPE)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.squeeze(x[:, :, :, :1], -1),
        lambda x: ops.expand_dims(x, 1),
        lambda x: x[:, 0],
    ],
)
def test_sizes_that_are_not_known(function, evaluated):
    graph = read(model_of(function, (None, None, 4)))
    last = graph.nodes[graph.outputs[0]]
    if last.op == "opaque":
        assert last.attrs["why"] == "several unknown sizes"
    else:
        evaluated(model_of(function, (None, None, 4)))


def test_the_batch_axis_may_have_a_size():
    x = keras.Input(batch_shape=(3, 4, 2))
    graph = read(keras.Model(x, ops.reshape(x, (3, 8))))
    assert graph.nodes[graph.outputs[0]].op == "reshape"
    graph = read(keras.Model(x, ops.reshape(x, (4, 6))))
    assert graph.nodes[graph.outputs[0]].op == "opaque"


NOT_LOWERED = {
    "stop_gradient": (lambda x: ops.stop_gradient(x), "stop_gradient=True"),
    "another dtype": (lambda x: ops.cast(x, "float16"), "dtype='float16'"),
    "maximum": (lambda x: ops.maximum(x, 0.0), "written='maximum'"),
    "clip": (lambda x: ops.clip(x, 0, 6), "written='clip'"),
    "softmax": (lambda x: ops.softmax(x, axis=(1, 2)), "several axes"),
    "pad": (lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), "reflect"), r"\(pad\)"),
    "variance": (lambda x: ops.var(x, axis=1), "its function is var"),
}


@pytest.mark.parametrize("name", NOT_LOWERED)
def test_what_lowering_would_get_wrong_is_refused_by_name(name):
    function, why = NOT_LOWERED[name]
    with pytest.raises(Refused, match=rf"can't lower layer '.*{why}"):
        lower(read(model_of(function)))


_REFUSED = set("prod var std stop_gradient max0 0max max1 min1 clip clip01 clip06".split())
LOWERED = [
    n for n, (_, ops) in ONE.items() if set(ops) <= select(lowers=True) and n not in _REFUSED
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LOWERED)
def test_operation_lowered_behind_a_convolution(agree, name, training):
    """There the channels are on axis 1, and an operation has to say where they go."""
    x = keras.Input(SHAPE)
    model = keras.Model(x, ONE[name][0](kl.Conv2D(4, 1)(x)))
    agree(model, training=training)


PARTS = {
    "channels": lambda x: x[..., 1:3],
    "last channels": lambda x: x[..., -2:],
    "a channel": lambda x: x[..., 2],
    "steps": lambda x: x[:, 1::2, ::3, 1:],
    "split": lambda x: ops.concatenate(ops.split(x, [1, 3], axis=-1)[::-1], axis=-1),
    "unstack": lambda x: ops.unstack(x, axis=3)[1] / (2 + ops.relu(ops.unstack(x, axis=-1)[3])),
    "mean by row": lambda x: ops.mean(x, axis=2),
    "sum of negative axes": lambda x: ops.sum(x, axis=(-3, -2)),
    "largest channel": lambda x: ops.max(x, axis=-1, keepdims=True),
    "gated channels": lambda x: ops.glu(x, axis=-1),
    "gated rows": lambda x: ops.glu(x, axis=1),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_lowered_before_another_convolution(agree, name):
    x = keras.Input(SHAPE)
    y = PARTS[name](kl.Conv2D(4, 1)(x))
    agree(keras.Model(x, kl.Conv2D(3, 1)(y) if len(y.shape) == 4 else kl.Dense(2)(y)))


def test_arithmetic_with_numbers_is_lowered(agree):
    agree(model_of(lambda x: (2 - x * 0.3) / 4 - kl.Dense(4)(-x)))


def test_a_variable_is_a_tensor_of_the_graph():
    graph = read(model_of(lambda x: ops.matmul(x * WEIGHT, KERNEL) + WEIGHT[:3]))
    keys = {key for node in graph for key in node.arrays.values()}
    assert keys == set(graph.tensors)
    np.testing.assert_array_equal(
        next(graph.tensors[k] for k in keys if k.endswith("/weight")),
        keras.ops.convert_to_numpy(WEIGHT.value),
    )


def test_every_known_operation_is_tested_here():
    models = [model_of(f) for f, _ in ONE.values()]
    models += [model_of(f, SHAPE, SHAPE) for f, _ in TWO.values()]
    models += [model_of(f) for f in FUNCTIONS.values()]
    seen = {type(op).__name__ for model in models for op in model.operations}
    apart = {"Split", "ArraySplit", "Unstack", "Resize", "DotProductAttention", "Sparsemax"}
    broken = {"HardSilu"}  # Keras 3.15 can't call it on a symbolic tensor
    assert set(_OPERATIONS) - seen == apart | broken

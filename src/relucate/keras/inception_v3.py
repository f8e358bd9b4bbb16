"""Inception v3 with the norm before the activation, after it, or in any other order.

Two networks have this name. Keras 1.x's had a bias, a ReLU and then the norm in every block;
today's keras.applications has the norm and then the ReLU. `InceptionV3` builds both, and any
mixture of the two. Not here: weight files (`inception_weights`), the list of networks
(`relucate.nets`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from ..errors import InputError, unknown
from ..order import Order
from .blocks import conv2d_bn
from .inception_weights import KERNELS, Source, find_weights, load_weights

preprocess_input = keras.applications.inception_v3.preprocess_input
decode_predictions = keras.applications.inception_v3.decode_predictions

SMALLEST, USUAL = 75, 299  # pixels: with fewer, nothing is left for the last pooling
_WIDTH = 32  # filters of the first convolution of the published network
_FORMATS = ("channels_last", "channels_first")
_AVERAGE, _MAX = "average", "max"
# One step of a branch: a block (filters, rows, columns and, if that isn't 1, its stride), the name
# of a pool, or two blocks side by side {name of what joins them: {"a": block, "b": block}}.
_Step = tuple[int, ...] | str | dict[str, dict[str, tuple[int, ...]]]


@dataclass(frozen=True)
class _Edition:
    """How the network of Keras 1.x and today's differ, besides the order."""

    pool_filters: tuple[int, int, int]  # of the pool branches of mixed 0, 1 and 2
    first_filters: int  # of the long 7×7 branch of mixed 7
    last_pool: str  # of mixed 8


EDITIONS = {
    "today": _Edition((32, 64, 64), 192, _MAX),
    "1.x": _Edition((32, 32, 32), 160, _AVERAGE),
}


def InceptionV3(
    order: str | Order = "before",
    *,
    include_top: bool = True,
    weights: Any = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "inception_v3",
    edition: str | None = None,
    data_format: str | None = None,
    width: int = _WIDTH,
    activation: Any = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
    scale: bool | None = None,
    use_bias: bool | None = None,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    kernel_initializer: Any = "glorot_uniform",
    kernels: str | None = None,
) -> Any:
    """Return Inception v3, 94 blocks of convolution, norm and activation, in the given order.

        before:  y = relu(norm(conv(x)))        after:  y = norm(relu(conv(x) + bias))

    `InceptionV3("before")` is keras.applications.InceptionV3, layer for layer: the same function of
    the same list of weights. `InceptionV3("after", edition="1.x")` is the network of Keras 1.x.
    Layers have fixed names that show their place (`mixed4_7x7_2_conv`, `_bn`), the same in every
    order; in keras.applications the names depend on earlier models. `mixed0` ... `mixed10`,
    `avg_pool` and `predictions` have the same names there.

    Args:
        order: an order such as "before", "after", "norm-act-linear", "linear-act", ...
        include_top, input_tensor, input_shape, pooling, classes, classifier_activation, name: as in
            keras.applications. The smallest image is 75 × 75.
        weights: None (random), "imagenet" (order "before" and "after" only) or the path of a weight
            file: one of keras.applications, an old one of Keras 1.x (TensorFlow or Theano kernels),
            or one that `save_weights` of such a model wrote.
        edition: "today" or "1.x", which has 32 filters in every pool branch of mixed 0 to 2 (today
            32, 64, 64), 160 in the first convolution of the long 7×7 branch of mixed 7 (today 192)
            and an average pool in mixed 8 (today a max pool). None is "1.x" if the weights are old
            ones, otherwise "today".
        data_format: None is `keras.config.image_data_format()`.
        width: filters of the first convolution; all others scale with it.
        activation, norm, dropout, momentum, epsilon, kernel_initializer: as in `conv2d_bn`. Keras
            1.0, when the old weights were published, had epsilon 1e-5; Keras 1.2 and today 1e-3.
        scale: whether the norms have a gamma; None is False in the order "before", as in
            keras.applications, otherwise True; use_bias: as in `conv2d_bn`.
        kernels: which backend an old weight file is for, "tensorflow" or "theano" (which rotates
            kernels by 180°); None reads it from the file or its name (`..._th_kernels.h5`).

    Returns: a Keras model; its output is (batch, classes), or without top (batch, 64 · width),
        and without pooling (batch, rows, columns, 64 · width).
    Raises: InputError: an unknown edition, data format, pooling or order, an image that is too
        small, a weight file that doesn't fit. Refused: "imagenet" weights can't be downloaded.
    Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the Inception Architecture for
        Computer Vision, 2015; keras/applications/inception_v3.py of Keras 1.2.2 and Keras 3.

    >>> model = InceptionV3("after", include_top=False, input_shape=(75, 75, 3), width=2)
    >>> model.output_shape
    (None, 1, 1, 128)
    """
    plain = "-".join(token for token in Order(order).tokens if token != "drop")
    data_format = data_format or keras.config.image_data_format()
    _check_choices(data_format, pooling, edition, width, kernels)
    source = find_weights(weights, include_top, plain)
    if weights == "imagenet":
        _check_published(include_top, classes, (width, activation, norm), edition, source)
    if source and include_top:
        _check_classifier(classifier_activation)
    shape = _input_shape(input_shape, include_top, source, data_format)
    start = _start(input_tensor, shape, data_format)
    block = partial(
        conv2d_bn,
        order=order,
        activation=activation,
        norm=norm,
        dropout=dropout,
        scale=plain != "linear-norm-act" if scale is None else scale,
        use_bias=use_bias,
        momentum=momentum,
        epsilon=epsilon,
        kernel_initializer=kernel_initializer,
        data_format=data_format,
    )
    edition = edition or (source and source.edition) or "today"
    x = _body(_Builder(block, data_format, width), start, EDITIONS[edition])
    x = _head(x, include_top, pooling, classes, classifier_activation, data_format)
    inputs = start if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs, x, name=name)
    if source:
        own = _own_layers(model, start)
        load_weights(model, own, source, order=plain, edition=edition, kernels=kernels)
    return model


def _check_choices(data_format: str, pooling: Any, edition: Any, width: Any, kernels: Any) -> None:
    if data_format not in _FORMATS:
        raise unknown("data format", data_format, _FORMATS)
    if pooling not in (None, "avg", "max"):
        raise unknown("pooling", pooling, ("avg", "max"))
    if edition is not None and edition not in EDITIONS:
        raise unknown("edition of InceptionV3", edition, EDITIONS)
    if kernels is not None and kernels not in KERNELS:
        raise unknown("kernels", kernels, KERNELS)
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise InputError(f"width must be a whole number above 0, got {width!r}.")


def _check_published(
    include_top: bool, classes: int, made: tuple[int, Any, str], edition: Any, source: Any
) -> None:
    if include_top and classes != 1000:
        raise InputError(
            f"weights='imagenet' with include_top=True have 1000 classes, got classes={classes}: "
            "pass include_top=False and add a classifier of your own."
        )
    if made != (_WIDTH, "relu", "batch"):
        raise InputError(
            f"weights='imagenet' are for width={_WIDTH}, activation='relu' and norm='batch'; got "
            f"width={made[0]}, activation={made[1]!r}, norm={made[2]!r}."
        )
    if edition not in (None, source.edition):
        raise InputError(
            f"weights='imagenet' in this order are of edition '{source.edition}' (there are no "
            f"published weights of the other network), got edition='{edition}'."
        )


def _check_classifier(activation: Any) -> None:
    # keras.applications' own rule: weights were trained as logits of a softmax.
    if activation not in (None, "softmax", keras.activations.softmax):
        raise InputError(
            "with weights, classifier_activation must be None or 'softmax', got "
            f"{activation!r}: pass include_top=False and add a classifier of your own."
        )


def _input_shape(
    given: Sequence[int | None] | None, include_top: bool, source: Source | None, data_format: str
) -> tuple[int | None, ...]:
    """Return the image's shape in the data format: the given one, or else Keras's default."""
    first = data_format == "channels_first"
    size = USUAL if include_top else None
    usual = (3, size, size) if first else (size, size, 3)
    if given is None:
        return usual
    shape = tuple(given)
    words = "(channels, rows, columns)" if first else "(rows, columns, channels)"
    if len(shape) != 3:
        raise InputError(f"input_shape must be {words}, got {shape}.")
    published = source is not None and source.path is None
    if published and include_top and shape != usual:
        raise InputError(
            f"weights='imagenet' with include_top=True take input_shape={usual}, got {shape}."
        )
    sides, channels = (shape[1:], shape[0]) if first else (shape[:2], shape[2])
    if not channels or channels < 1 or (published and channels != 3):
        wanted = "3 channels, as weights='imagenet' have," if published else "a number of channels"
        raise InputError(f"input_shape must be {words} with {wanted} got {shape}.")
    if include_top and None in sides:
        raise InputError(
            f"with include_top=True, all sizes in input_shape must be known, got {shape}."
        )
    _check_size(sides, shape)
    return shape


def _check_size(sides: Sequence[int | None], shape: Sequence[int | None]) -> None:
    if any(side is not None and side < SMALLEST for side in sides):
        raise InputError(
            f"Inception v3 takes images of {SMALLEST}×{SMALLEST} pixels or more, got the shape "
            f"{tuple(shape)}: enlarge them, or use a smaller net (cnn, vgg)."
        )


def _start(tensor: Any, shape: tuple[int | None, ...], data_format: str) -> Any:
    if tensor is None:
        return keras.Input(shape, name="input")
    if not isinstance(tensor, keras.KerasTensor) or len(tensor.shape) != 4:
        raise InputError(
            "input_tensor must be a symbolic Keras tensor of images, as keras.Input(...) or a "
            f"layer's output, got {type(tensor).__name__} of shape "
            f"{getattr(tensor, 'shape', None)}."
        )
    sides = tensor.shape[2:] if data_format == "channels_first" else tensor.shape[1:3]
    _check_size(sides, tensor.shape[1:])
    return tensor


def _head(
    x: Any, include_top: bool, pooling: str | None, classes: int, activation: Any, data_format: str
) -> Any:
    average, largest = layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D
    if include_top:
        # Keras 1.x flattened an 8×8 average: the same function at its only size (299×299).
        x = average(data_format=data_format, name="avg_pool")(x)
        return layers.Dense(classes, activation=activation, name="predictions")(x)
    if pooling == "avg":
        return average(data_format=data_format, name="avg_pool")(x)
    return largest(data_format=data_format, name="max_pool")(x) if pooling else x


def _own_layers(model: Any, start: Any) -> set[str]:
    """Return the names of the model's layers without those before `start`."""
    before = keras.Model(keras.utils.get_source_inputs(start), start).layers
    return {layer.name for layer in model.layers if layer not in before}


class _Builder:
    """Adds layers with fixed names, in one data format, all filters scaled alike."""

    def __init__(self, block: Any, data_format: str, width: int) -> None:
        self._block = block
        self._data_format = data_format
        self._width = width

    def block(
        self, x: Any, label: str, filters: int, rows: int, cols: int, stride: int = 1, pad: Any = 0
    ) -> Any:
        """Add a block; it pads with stride 1 and not with stride 2, unless `pad` is given."""
        filters = max(1, round(filters * self._width / _WIDTH))
        padding = pad or ("same" if stride == 1 else "valid")
        return self._block(x, filters, rows, cols, padding, (stride, stride), label)

    def pool(self, x: Any, kind: str, label: str, stride: int = 2) -> Any:
        layer = layers.AveragePooling2D if kind == _AVERAGE else layers.MaxPooling2D
        return layer(
            (3, 3),
            strides=(stride, stride),
            padding="same" if stride == 1 else "valid",
            data_format=self._data_format,
            name=label,
        )(x)

    def join(self, tensors: list[Any], label: str) -> Any:
        axis = 1 if self._data_format == "channels_first" else 3
        return layers.concatenate(tensors, axis=axis, name=label)

    def mix(self, x: Any, module: str, branches: Mapping[str, Sequence[_Step]]) -> Any:
        """Add a module: branches side by side, joined along the channels."""
        ends = [self._branch(x, module, name, steps) for name, steps in branches.items()]
        return self.join(ends, module)

    def _branch(self, x: Any, module: str, branch: str, steps: Sequence[_Step]) -> Any:
        blocks = sum(not isinstance(step, str) for step in steps)
        numbers = iter(range(1, blocks + 1))
        for step in steps:
            if isinstance(step, str):
                # A pool without a block after it is the one that halves the image.
                x = self.pool(x, step, f"{module}_{step}", 1 if blocks else 2)
                continue
            label = f"{module}_{branch}" + (f"_{next(numbers)}" if blocks > 1 else "")
            if isinstance(step, dict):
                ((joined, sides),) = step.items()
                x = self.join([self.block(x, label + s, *sides[s]) for s in sides], joined)
            else:
                x = self.block(x, label, *step)
        return x


def _body(net: _Builder, x: Any, edition: _Edition) -> Any:
    """Add everything up to the last concatenation (`mixed10`)."""
    x = net.block(x, "stem_1", 32, 3, 3, 2)
    x = net.block(x, "stem_2", 32, 3, 3, pad="valid")
    x = net.block(x, "stem_3", 64, 3, 3)
    x = net.pool(x, _MAX, "stem_max_1")
    x = net.block(x, "stem_4", 80, 1, 1, pad="valid")
    x = net.block(x, "stem_5", 192, 3, 3, pad="valid")
    x = net.pool(x, _MAX, "stem_max_2")
    for i, filters in enumerate(edition.pool_filters):
        x = net.mix(x, f"mixed{i}", _mixed_0(filters))
    x = net.mix(x, "mixed3", _MIXED_3)
    for i, filters in ((4, 128), (5, 160), (6, 160), (7, 192)):
        first = edition.first_filters if i == 7 else filters
        x = net.mix(x, f"mixed{i}", _mixed_4(filters, first))
    x = net.mix(x, "mixed8", {**_MIXED_8, "pool": [edition.last_pool]})
    for i in (9, 10):
        x = net.mix(x, f"mixed{i}", _mixed_9(i))
    return x


def _mixed_0(pool: int) -> dict[str, list[_Step]]:
    return {
        "1x1": [(64, 1, 1)],
        "5x5": [(48, 1, 1), (64, 5, 5)],
        "3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        "pool": [_AVERAGE, (pool, 1, 1)],
    }


_MIXED_3: dict[str, list[_Step]] = {
    "3x3": [(384, 3, 3, 2)],
    "3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3, 2)],
    "pool": [_MAX],
}
_MIXED_8: dict[str, list[_Step]] = {
    "3x3": [(192, 1, 1), (320, 3, 3, 2)],
    "7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2)],
}


def _mixed_4(wide: int, first: int) -> dict[str, list[_Step]]:
    return {
        "1x1": [(192, 1, 1)],
        "7x7": [(wide, 1, 1), (wide, 1, 7), (192, 7, 1)],
        "7x7dbl": [(first, 1, 1), (wide, 7, 1), (wide, 1, 7), (wide, 7, 1), (192, 1, 7)],
        "pool": [_AVERAGE, (192, 1, 1)],
    }


def _mixed_9(i: int) -> dict[str, list[_Step]]:
    sides = {"a": (384, 1, 3), "b": (384, 3, 1)}
    return {
        "1x1": [(320, 1, 1)],
        "3x3": [(384, 1, 1), {f"mixed9_{i - 9}": sides}],
        "3x3dbl": [(448, 1, 1), (384, 3, 3), {f"mixed{i}_3x3dbl": sides}],
        "pool": [_AVERAGE, (192, 1, 1)],
    }

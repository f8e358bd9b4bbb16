"""The built-in networks, each in any order: small enough to train on a laptop.

Every function takes `(order, input_shape, classes, **options)` and returns an untrained Keras model
whose output is class logits. Options with the same name mean the same thing in every net. Keras is
imported when a network is built. Not here: the list by name (`relucate.nets`).
"""

from __future__ import annotations

from typing import Any

from ..block import check_rate
from ..errors import InputError, unknown
from ..order import Order


def cnn(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "relu",
    norm: str = "batch",
    width: int = 16,
    depth: int = 3,
    dropout: float = 0.0,
    init: str = "he_normal",
    bias: str = "rule",
) -> Any:
    """A small convolutional net: `depth` stages of two 3×3 blocks, then global average pooling.

    Stage k has width · 2^k filters; every stage but the first starts with stride 2. With width 16
    and depth 3 it is the 6-conv net (16, 16, 32, 32, 64, 64).
    """
    import keras

    from .blocks import conv2d_bn

    image, x = _image_input(keras, input_shape)
    block = _options(order, act, norm, dropout, init, bias)
    for stage in range(depth):
        for number in range(2):
            strides = 2 if stage and not number else 1
            x = conv2d_bn(
                x,
                width * 2**stage,
                3,
                3,
                strides=(strides, strides),
                name=f"stage{stage + 1}_block{number + 1}",
                **block,
            )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _classify(keras, "cnn", image, x, classes)


_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "relu",
    norm: str = "batch",
    width: int = 16,
    depth: int = 11,
    dropout: float = 0.0,
    init: str = "he_normal",
    bias: str = "rule",
) -> Any:
    """A CIFAR-size VGG (11, 13, 16 or 19 layers deep): 3×3 blocks with 2×2 max pooling between.

    Filters are width · (1, 2, 4, 8, 8); width 64 is the paper's. Pooling stops when the image is
    one pixel wide; a global average pool and one dense layer follow. Source: Simonyan and
    Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015.
    """
    import keras

    from .blocks import conv2d_bn

    if depth not in _VGG:
        raise InputError(
            f"the depth of vgg must be one of {', '.join(map(str, _VGG))}; got {depth}."
        )
    image, x = _image_input(keras, input_shape)
    block = _options(order, act, norm, dropout, init, bias)
    smallest = min(input_shape[:2])
    for stage, blocks in enumerate(_VGG[depth]):
        for number in range(blocks):
            x = conv2d_bn(
                x,
                width * min(2**stage, 8),
                3,
                3,
                name=f"stage{stage + 1}_block{number + 1}",
                **block,
            )
        if smallest >= 2:
            smallest //= 2
            x = keras.layers.MaxPooling2D(2, name=f"stage{stage + 1}_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _classify(keras, "vgg", image, x, classes)


def inception_v3(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "relu",
    norm: str = "batch",
    width: int = 32,
    dropout: float = 0.0,
    init: str = "glorot_uniform",
    bias: str = "rule",
    edition: str = "today",
) -> Any:
    """Inception v3, of today's Keras or of Keras 1.x, for images of 75×75 pixels and up.

    Width is the filters of the first convolution and scales all others: 32 is the paper's network.
    Edition "1.x" has the branches of Keras 1.x (`relucate.keras.InceptionV3`). With bias "always"
    every order has biases and gammas, so that both have as many parameters; with "rule" the order
    before has neither. Source: Szegedy and others, Rethinking the Inception Architecture for
    Computer Vision, 2015.
    """
    from .inception_v3 import InceptionV3

    _check_image(input_shape)
    block = _options(order, act, norm, dropout, init, bias)
    return InceptionV3(
        order,
        input_shape=_in_data_format(input_shape),
        classes=classes,
        classifier_activation=None,
        activation=act,
        norm=norm,
        width=width,
        dropout=block["dropout"],
        use_bias=block["use_bias"],
        scale=True if bias == "always" else None,
        kernel_initializer=init,
        edition=edition,
    )


def caffenet(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "relu",
    norm: str = "batch",
    width: int = 96,
    affine: str = "always",
    dropout: float = 0.0,
    fc_dropout: float = 0.0,
    init: str = "glorot_uniform",
    bias: str = "always",
) -> Any:
    """CaffeNet of caffenet-benchmark: five convolutions, two dense layers, for 128×128 pixels.

    Filters are width · (1, 8/3, 4, 4, 8/3), units width · 64/3; 96 is the benchmark's network. The
    first convolution is 11×11 with stride 4; for images below 64 pixels it is 5×5 with stride 1.
    affine: whether norms have a scale and a shift (always, never); fc_dropout: rate behind each
    dense block, in any order. Source: Mishkin, Sergievskiy, Matas, Systematic Evaluation of
    Convolution Neural Network Advances on the ImageNet, 2017.
    """
    import keras

    from .blocks import dense_bn

    if affine not in ("always", "never"):
        raise unknown("choice of affine", affine, ("always", "never"))
    check_rate(fc_dropout)
    image, x = _image_input(keras, input_shape)
    block = _options(order, act, norm, dropout, init, bias)
    block |= {"scale": affine == "always", "center": affine == "always"}
    x = _five_convolutions(keras, x, width, min(input_shape[:2]) >= 64, block)
    x = keras.layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        x = dense_bn(x, max(1, round(width * 64 / 3)), name=name, **block)
        x = keras.layers.Dropout(fc_dropout, name=f"{name}_dropout")(x)
    return _classify(keras, "caffenet", image, x, classes)


def _five_convolutions(keras: Any, x: Any, width: int, large: bool, block: dict[str, Any]) -> Any:
    from .blocks import conv2d_bn

    one, two, three, four, five = (
        2 * max(1, round(width * share / 2)) for share in (1, 8 / 3, 4, 4, 8 / 3)
    )
    first: Any = (one, 11, 11, "valid", 4) if large else (one, 5, 5)
    x = conv2d_bn(x, *first, name="conv1", **block)
    x = conv2d_bn(_pool3(keras, x, "pool1"), two, 5, 5, conv_groups=2, name="conv2", **block)
    x = conv2d_bn(_pool3(keras, x, "pool2"), three, 3, 3, name="conv3", **block)
    x = conv2d_bn(x, four, 3, 3, conv_groups=2, name="conv4", **block)
    x = conv2d_bn(x, five, 3, 3, conv_groups=2, name="conv5", **block)
    return _pool3(keras, x, "pool5")


def _pool3(keras: Any, x: Any, name: str) -> Any:
    """Pool 3×3 with stride 2 as Caffe does, whose last window may reach over the border."""
    axes = (2, 3) if keras.config.image_data_format() == "channels_first" else (1, 2)
    fits = all(x.shape[axis] % 2 and x.shape[axis] >= 3 for axis in axes)
    return keras.layers.MaxPooling2D(3, 2, padding="valid" if fits else "same", name=name)(x)


def mlp(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "relu",
    norm: str = "batch",
    width: int = 128,
    depth: int = 3,
    dropout: float = 0.0,
    init: str = "he_normal",
    bias: str = "rule",
) -> Any:
    """A multilayer perceptron: `depth` dense blocks of `width` units."""
    return _dense_net(
        "mlp", order, input_shape, classes, act, norm, width, depth, dropout, init, bias
    )


def bn_paper_mlp(
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    act: str = "sigmoid",
    norm: str = "batch",
    width: int = 100,
    depth: int = 3,
    dropout: float = 0.0,
    init: str = "small_normal",
    bias: str = "rule",
) -> Any:
    """The MNIST net of the Batch Normalization paper: 3 × 100 sigmoid units, small Gaussian init.

    Source: Ioffe and Szegedy, Batch Normalization, 2015, section 4.1 (init "small_normal" is a
    normal of standard deviation 0.1; the paper says small random Gaussian values).
    """
    return _dense_net(
        "bn_paper_mlp", order, input_shape, classes, act, norm, width, depth, dropout, init, bias
    )


def _dense_net(
    name: str,
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    act: str,
    norm: str,
    width: int,
    depth: int,
    dropout: float,
    init: str,
    bias: str,
) -> Any:
    import keras

    from .blocks import dense_bn

    start = x = keras.Input(input_shape, name="input")
    if len(input_shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    block = _options(order, act, norm, dropout, init, bias)
    for number in range(depth):
        if init == "small_normal":
            # A new one per block: one initializer gives every layer of a shape the same values.
            block["kernel_initializer"] = keras.initializers.RandomNormal(stddev=0.1)
        x = dense_bn(x, width, name=f"block{number + 1}", **block)
    return _classify(keras, name, start, x, classes)


def _options(
    order: str, act: str, norm: str, dropout: float, init: str, bias: str
) -> dict[str, Any]:
    """Return a net's options as arguments of its blocks."""
    choices = {"rule": None, "always": True, "never": False}  # of the bias, in every order
    if bias not in choices:
        raise unknown("choice of bias", bias, choices)
    return {
        "order": order,
        "activation": act,
        "norm": norm,
        "dropout": _rate(order, dropout),
        "kernel_initializer": init,
        "use_bias": choices[bias],
    }


def _rate(order: str, dropout: float) -> float:
    """Return the rate of the order's drop token, or 0 if the order has none.

    A study may have arms with and without the token, and one option must work for all of them.
    """
    check_rate(dropout)
    return dropout if Order(order).has_drop else 0.0


def _image_input(keras: Any, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    _check_image(input_shape)
    image = keras.Input(_in_data_format(input_shape), name="input")
    return image, image


def _check_image(input_shape: tuple[int, ...]) -> None:
    if len(input_shape) != 3:
        raise InputError(
            "this net takes images (height, width, channels), but the data's examples have the "
            f"shape {input_shape}. Use mlp for feature vectors."
        )


def _in_data_format(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    import keras

    height, width, channels = input_shape
    if keras.config.image_data_format() == "channels_first":
        return channels, height, width
    return input_shape


def _classify(keras: Any, name: str, start: Any, x: Any, classes: int) -> Any:
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(start, logits, name=name)

"""Fold and convert: how long they take, what they do to keras.applications, and to inference.

    python benchmarks/surgery.py time       fold and convert of a built InceptionV3
    python benchmarks/surgery.py models     every model of keras.applications: docs/applications.md
                                            (or those named; KERAS_BACKEND=jax has the NASNets)
    python benchmarks/surgery.py torch      PyTorch nets of the common families: same page
    python benchmarks/surgery.py engines    which engine trains each network in both orders
    python benchmarks/surgery.py inference  nets with the norm behind the activation, folded or not

Statistics are random in every norm (a fresh norm is nearly the identity and hides mistakes).
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import argparse
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

import relucate
from relucate import frameworks, nets

SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
NOT_HERE = {"NASNetMobile", "NASNetLarge"} if keras.backend.backend() == "torch" else set()
# Untrained, with statistics that don't fit their values, these are chaotic: a change of the input's
# last bit moves the outputs by their own size. Their residual branches get a tenth of the gain.
CHAOTIC = "EfficientNet"
LIMIT = 10.0  # seconds for fold and convert of InceptionV3


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every norm random statistics, gamma and beta; return the model."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                positive = "variance" in variable.path or "gamma" in variable.path
                drawn = random.uniform(0.5, 1.5, variable.shape)
                variable.assign(drawn if positive else random.normal(size=variable.shape) * 0.2)
    return model


def calm(model: keras.Model) -> None:
    """Divide gamma by ten where a residual branch ends."""
    for layer in model._flatten_layers():
        if layer.name.endswith("project_bn"):
            layer.gamma.assign(layer.gamma / 10)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `call` gives, and seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def time_inception() -> None:
    """Print the seconds of fold and convert of a built InceptionV3."""
    model = randomized(keras.applications.InceptionV3(weights=None))
    for name, call in (
        ("fold", lambda: relucate.fold(model)),
        ("convert to after", lambda: relucate.convert(model, "after")),
    ):
        (_, report), seconds = timed(call)
        share = seconds / LIMIT
        print(
            f"InceptionV3 {name}: {seconds:.1f} s ({share:.2f} of {LIMIT:.0f} s allowed), ", end=""
        )
        print(f"{len(report.done)} norms, max_rel {report.certificate.max_rel:.1e}")


# Every model of keras.applications.


def models(names: list[str]) -> None:
    """Print the table of docs/applications.md."""
    print("| model | norms | folded | left | border strategies | converted, back | error | s |")
    print("|---|---|---|---|---|---|---|---|")
    offered = {name for name in dir(keras.applications) if name[0].isupper()} - NOT_HERE
    for name in names or sorted(offered):
        print(*rows(name), sep="", end="", flush=True)
    if names:
        return
    model = relucate.keras.InceptionV3("after", weights=None, input_shape=(75, 75, 3))
    print(row("relucate.keras.InceptionV3('after')", randomized(model), ("before", "after")))


def rows(name: str) -> Iterator[str]:
    """Yield one model's row; nothing for a model without batch norms."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    size = SMALLEST.get(name, 32)
    options = {"weights": None, "input_shape": (size, size, 3), "classifier_activation": None}
    model = randomized(getattr(keras.applications, name)(**options))
    if name.startswith(CHAOTIC):
        calm(model)
    if any(isinstance(x, keras.layers.BatchNormalization) for x in model._flatten_layers()):
        yield row(name, model, ("after", "before")) + "\n"


def row(name: str, model: keras.Model, orders: tuple[str, str]) -> str:
    """Return a model's row: folded, converted to the first order, and back to the second."""
    start = time.perf_counter()
    _, folded = relucate.fold(model)
    there, first = relucate.convert(model, orders[0])
    back, second = relucate.convert(there, orders[1])
    error = max(
        folded.certificate.max_rel,
        first.certificate.max_rel,
        second.certificate.max_rel,
        relucate.verify(model, back).max_rel,
    )
    used = Counter(outcome.strategy for outcome in folded.done if outcome.strategy)
    strategies = ", ".join(f"{key} {count}" for key, count in used.items()) or "none needed"
    return (
        f"| {name} | {len(folded.sites)} | {len(folded.done)} | {len(folded.skipped)} | "
        f"{strategies} | {len(first.done)}, {len(second.done)} | {error:.1e} | "
        f"{time.perf_counter() - start:.1f} |"
    )


def families() -> None:
    """Print the table of PyTorch nets: the tests' small ones, with random statistics."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.torch import zoo

    print("| net | norms | folded | left | converted to after | error | s |")
    print("|---|---|---|---|---|---|---|")
    for name, (factory, shape) in zoo.MODELS.items():
        model = zoo.randomize(factory(), 0).eval()
        if not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            continue
        start = time.perf_counter()
        _, folded = relucate.fold(model, example=shape)
        reports = [folded]
        try:
            reports.append(relucate.convert(model, "after", example=shape)[1])
            converted = str(len(reports[-1].done))
        except relucate.Refused:
            converted = "refused"
        error = max(report.certificate.max_rel for report in reports)
        print(
            f"| {name} | {len(folded.sites)} | {len(folded.done)} | {len(folded.skipped)} | "
            f"{converted} | {error:.1e} | {time.perf_counter() - start:.1f} |",
            flush=True,
        )


# Engines.

# The small ones first: the table grows while the large ones take their time.
OWN = ("cnn", "vgg", "mlp", "bn_paper_mlp", "inception_v3", "keras1_inception_v3")


def engines(names: list[str]) -> None:
    """Print which engine trains every network of relucate and of keras.applications."""
    offered = {name for name in dir(keras.applications) if name[0].isupper()} - NOT_HERE
    print("| network | input | norm before | norm after | s |")
    print("|---|---|---|---|---|")
    for name in names or [*OWN, *sorted(offered)]:
        print(engine_row(name), flush=True)


def engine_row(name: str) -> str:
    """Return a network's row: the engine that trains it in each order, and why it isn't torch."""
    keras.utils.clear_session()
    start, size = time.perf_counter(), SMALLEST.get(name, 32)
    if name in OWN:
        size = 75 if "inception" in name else 32
    cells = [engine(partial(network, name, size), order) for order in ("before", "after")]
    seconds = time.perf_counter() - start
    return f"| {name} | {size} x {size} | {cells[0]} | {cells[1]} | {seconds:.0f} |"


def network(name: str, size: int, order: str) -> keras.Model:
    """Return a network in an order, as `compare` builds its arms."""
    shape = (size, size, 3)
    if name == "keras1_inception_v3":
        source = relucate.keras.InceptionV3("after", weights=None, input_shape=shape)
        return source if order == "after" else relucate.rebuild(source, order)[0]
    if name in OWN:
        return nets.build(name, order, shape, 10)
    model = getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10)
    try:
        return relucate.rebuild(model, order)[0]
    except relucate.InputError:  # no norm to move
        return model


def engine(make: Callable[[str], keras.Model], order: str) -> str:
    """Return "torch" if the network lowers and the check agrees, else "keras" and the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(order)
        try:
            frameworks.lower(frameworks.framework_of(model).read(model))
        except relucate.Refused as error:
            return f"keras: {error}"
    return "torch"


# Inference.


def inference(rounds: int) -> None:
    """Print the speed of folded nets relative to the same nets not folded."""
    for label, model, net in (
        ("VGG-like", vgg(), torch_vgg()),
        ("MobileNet-like", mobilenet(), torch_mobilenet()),
    ):
        shape = model.input_shape[1:]
        x = np.random.default_rng(0).normal(size=(64, *shape)).astype("float32")
        tensor = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
        folded, report = relucate.fold(net.eval(), example=(2, shape[-1], *shape[:-1]))
        used = Counter(outcome.strategy or "plain" for outcome in report.done)
        print(f"{label}: {len(report.done)} norms folded ({dict(used)})")
        pair = (net, folded.eval())
        compare("  torch eager", [partial(m, tensor) for m in pair], rounds)
        compare("  torch.compile", [partial(torch.compile(m), tensor) for m in pair], rounds)
        models = (model, relucate.fold(model)[0])
        predicts = [partial(m.predict, x, verbose=0, batch_size=64) for m in models]
        compare("  Keras predict", predicts, rounds)


def compare(label: str, calls: list[Callable[[], Any]], rounds: int) -> None:
    """Print the median over rounds of not folded / folded, measured in turn."""
    ratios = []
    with torch.no_grad():
        for call in calls:
            for _ in range(3):
                call()
        for _ in range(rounds):
            seconds = [timed(call)[1] for call in calls]
            ratios.append(seconds[0] / seconds[1])
    quartiles = statistics.quantiles(ratios, n=4)
    print(
        f"{label:<16} folded is {statistics.median(ratios):.2f} times as fast as not folded "
        f"(quartiles {quartiles[0]:.2f} to {quartiles[2]:.2f}, {rounds} rounds)",
        flush=True,
    )


def vgg() -> keras.Model:
    """A VGG with its norms behind the activations."""
    return randomized(nets.build("vgg", "after", (32, 32, 3), 10, width=32))


def mobilenet() -> keras.Model:
    """Depthwise-separable blocks with their norms behind the activations."""
    kl = keras.layers
    x = image = keras.Input((64, 64, 3))
    x = kl.BatchNormalization()(kl.Conv2D(32, 3, 2, "same", activation="relu")(x))
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        x = kl.DepthwiseConv2D(3, stride, "same", activation="relu")(x)
        x = kl.BatchNormalization()(x)
        x = kl.BatchNormalization()(kl.Conv2D(width, 1, activation="relu")(x))
    x = kl.GlobalAveragePooling2D()(x)
    return randomized(keras.Model(image, kl.Dense(10)(x)))


def block(c_in: int, c_out: int, size: int = 3, **options: Any) -> list[torch.nn.Module]:
    """A convolution, a ReLU and a batch norm with random statistics."""
    conv = torch.nn.Conv2d(c_in, c_out, size, padding=size // 2, **options)
    norm = torch.nn.BatchNorm2d(c_out)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_(0, 0.2)
    return [conv, torch.nn.ReLU(), norm]


def torch_vgg() -> torch.nn.Module:
    """The same VGG in PyTorch."""
    layers: list[torch.nn.Module] = []
    width = 3
    for stage, depth in ((32, 1), (64, 1), (128, 2), (256, 2), (256, 2)):
        for _ in range(depth):
            layers += block(width, stage)
            width = stage
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(width, 10))


def torch_mobilenet() -> torch.nn.Module:
    """The same depthwise-separable blocks in PyTorch."""
    layers = block(3, 32, stride=2)
    width = 32
    for stage, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += block(width, width, groups=width, stride=stride) + block(width, stage, 1)
        width = stage
    pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, *pool, torch.nn.Linear(width, 10))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["time", "models", "torch", "engines", "inference"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("names", nargs="*", help="of models, for `models` and `engines`")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    versions = f"torch {torch.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores"
    print(f"{versions}, {torch.get_num_threads()} threads", file=sys.stderr)
    if given.part == "time":
        time_inception()
    elif given.part == "models":
        models(given.names)
    elif given.part == "torch":
        families()
    elif given.part == "engines":
        engines(given.names)
    else:
        inference(given.rounds)


if __name__ == "__main__":
    main()

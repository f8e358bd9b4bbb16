"""Training throughput of relucate's engines against a bare hand-written PyTorch loop and Keras fit.

    python benchmarks/throughput.py [--rounds 7] [--threads 2] [--json FILE]

All contenders of one table train the same network on the same data, in turn, round by round in one
run; a row's ratio is the median over the rounds of the bare loop's time over its time in the same
round (above 1: faster than the bare loop). Keras on jax and tensorflow runs in processes of its
own, before the rounds, and only where installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

SHAPE, CLASSES, BATCH = (32, 32, 3), 10, 128
FILTERS = ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))  # filters, stride


def keras_net(shape: tuple[int, ...] = SHAPE, filters: Any = FILTERS) -> Any:
    """The six-conv net in Keras, norm before the activation."""
    import keras

    from relucate.keras import conv2d_bn

    start = x = keras.Input(shape)
    for count, stride in filters:
        x = conv2d_bn(x, count, 3, 3, strides=(stride, stride), kernel_initializer="he_normal")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(start, keras.layers.Dense(CLASSES)(x))


def torch_net(shape: tuple[int, ...] = SHAPE, filters: Any = FILTERS) -> Any:
    """The same net as a PyTorch user writes it."""
    from torch import nn

    layers: list[Any] = []
    channels = shape[-1]
    for count, stride in filters:
        layers += [
            nn.Conv2d(channels, count, 3, stride, 1, bias=False),
            nn.BatchNorm2d(count),
            nn.ReLU(),
        ]
        channels = count
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


def random_data(steps: int, batch: int, shape: tuple[int, ...]) -> Any:
    """Random images and labels: speed doesn't depend on what they show."""
    from relucate.data import make

    random = np.random.default_rng(0)
    x = random.normal(size=(steps * batch, *shape)).astype(np.float32)
    y = random.integers(0, CLASSES, steps * batch)
    y[:CLASSES] = np.arange(CLASSES)
    return make("random", x, y, x[: 4 * CLASSES], np.arange(4 * CLASSES) % CLASSES)


def bare_loop(data: Any, batch: int, epochs: int, model: Any, autocast: bool = False) -> float:
    """Seconds of the loop that one writes by hand: channels-last, Nesterov SGD, shuffled."""
    import torch
    import torch.nn.functional as F

    model = model.to(memory_format=torch.channels_last).train()
    x = torch.from_numpy(np.array(data.x_train)).permute(0, 3, 1, 2)
    y = torch.from_numpy(np.array(data.y_train))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    start = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(batch):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def relucate_trainer(data: Any, batch: int, epochs: int, model: Any, precision: str) -> float:
    """Seconds that relucate's torch trainer spends in its training epochs."""
    from relucate.torch import train
    from relucate.train import Recipe

    recipe = Recipe(
        epochs=epochs, batch_size=batch, lr=0.01, precision=precision, curve=0, reestimate=0
    )
    return train(model, data, recipe, seed=0).seconds["train"]


def keras_fit(data: Any, batch: int, epochs: int, model: Any) -> Callable[[], float]:
    """Return a function that gives the seconds of Keras's own fit, compiled once."""
    import keras

    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    x, y = np.array(data.x_train), np.array(data.y_train)

    def run() -> float:
        start = time.perf_counter()
        model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
        return time.perf_counter() - start

    run()  # tracing and compiling don't count
    return run


def interleave(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Time every contender once a round, after one round that doesn't count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            seconds = run()
            if number:
                times[name].append(seconds)
    return times


def contenders(data: Any, batch: int, epochs: int, filters: Any, shape: Any, bf16: bool) -> Any:
    """Return the torch-side contenders of one table."""
    from relucate.frameworks import lower
    from relucate.keras.framework import FRAMEWORK

    def lowered() -> Any:
        return lower(FRAMEWORK.read(keras_net(shape, filters)), check=False)

    def built() -> Any:
        return torch_net(shape, filters)

    runs = {
        "bare PyTorch loop": lambda: bare_loop(data, batch, epochs, built()),
        "relucate, lowered Keras": lambda: relucate_trainer(data, batch, epochs, lowered(), "fp32"),
        "relucate, torch module": lambda: relucate_trainer(data, batch, epochs, built(), "fp32"),
        "keras fit, torch": keras_fit(data, batch, epochs, keras_net(shape, filters)),
    }
    if bf16:
        runs["bare loop, bf16"] = lambda: bare_loop(data, batch, epochs, built(), autocast=True)
        runs["relucate lowered, bf16"] = lambda: relucate_trainer(
            data, batch, epochs, lowered(), "bf16"
        )
    return runs


def other_backend(backend: str, arguments: Any) -> dict[str, list[float]]:
    """Time Keras fit on another backend in a process of its own."""
    command = [sys.executable, __file__, "--child", backend]
    command += ["--rounds", str(arguments.rounds), "--threads", str(arguments.threads)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(arguments: Any) -> None:
    """Print the seconds of fit on this process's backend."""
    times = {}
    for name, (steps, batch, epochs, shape, filters) in tables().items():
        data = random_data(steps, batch, shape)
        run = keras_fit(data, batch, epochs, keras_net(shape, filters))
        times[name] = [run() for _ in range(arguments.rounds)]
    print(json.dumps(times))


def tables() -> dict[str, tuple[int, int, int, Any, Any]]:
    """Return what is measured: steps an epoch, batch, epochs, image shape, net."""
    small = ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1))
    return {
        "6 convs, 32x32x3, batch 128": (10, BATCH, 1, SHAPE, FILTERS),
        "digits cnn, 8x8x1, batch 64": (22, 64, 3, (8, 8, 1), small),
    }


def has_bf16() -> bool:
    """Say whether the processor has bf16 instructions (Linux's /proc/cpuinfo)."""
    try:
        with open("/proc/cpuinfo") as text:
            return "bf16" in text.read()
    except OSError:
        return False


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", help="write the measurements here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    import keras
    import torch

    torch.set_num_threads(arguments.threads)
    others = [name for name in ("jax", "tensorflow") if importlib.util.find_spec(name)]
    elsewhere = {name: other_backend(name, arguments) for name in others}
    results: dict[str, Any] = {}
    print(
        f"torch {torch.__version__}, keras {keras.__version__}, {platform.machine()}, "
        f"{arguments.threads} threads, median of {arguments.rounds} rounds"
    )
    for name, (steps, batch, epochs, shape, filters) in tables().items():
        data = random_data(steps, batch, shape)
        bf16 = has_bf16() and shape == SHAPE
        runs = contenders(data, batch, epochs, filters, shape, bf16)
        times = interleave(runs, arguments.rounds)
        times |= {f"keras fit, {other}": found[name] for other, found in elsewhere.items()}
        base = np.array(times["bare PyTorch loop"])
        results[name] = {
            row: {
                "ms_per_step": 1000 * float(np.median(seconds)) / (steps * epochs),
                "of_bare_loop": float(np.median(base / np.array(seconds))),
            }
            for row, seconds in times.items()
        }
        show(name, results[name])
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(results, out, indent=1)


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print one table: milliseconds a step, and throughput relative to the bare loop."""
    print(f"\n{title}\n{'':<28}{'ms/step':>10}{'of bare loop':>14}")
    for row, value in rows.items():
        print(f"{row:<28}{value['ms_per_step']:>10.2f}{value['of_bare_loop']:>14.2f}")


if __name__ == "__main__":
    main()

"""Probe against a plain forward pass of the same model on the same data, in one run.

    python benchmarks/probe.py            InceptionV3, 64 images of 96x96
    python benchmarks/probe.py --images 256 --framework torch

Prints seconds, their ratio, the largest memory, and the processor time of both. Not a test: a
loaded machine changes it.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import relucate
from relucate.frameworks import framework_of


def built(framework: str, size: int) -> tuple[Any, Any, np.ndarray]:
    """Return Keras's InceptionV3 or a PyTorch net, its example, and the shape of an image."""
    if framework == "keras":
        import keras

        shape = (size, size, 3)
        model = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=shape)
        return model, None, np.array(shape)
    from torch import nn

    def block(before: int, width: int, stride: int) -> nn.Module:
        convs = [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(
            *convs, nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()
        )

    widths = [(3, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    model = nn.Sequential(*(block(*w) for w in widths), nn.Flatten(), nn.LazyLinear(10)).eval()
    import torch

    model(torch.zeros(1, 3, size, size))
    return model, (1, 3, size, size), np.array((3, size, size))


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that a call takes, and the processor's."""
    start, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--framework", choices=["keras", "torch"], default="keras")
    given = parser.parse_args()
    model, example, shape = built(given.framework, given.size)
    x = np.random.default_rng(0).standard_normal((given.images, *shape)).astype(np.float32)
    read = framework_of(model).read(model, example)

    def forward() -> None:
        for start in range(0, len(x), given.batch):
            read.outputs(model, [x[start : start + given.batch]])

    def probed() -> None:
        relucate.probe(model, x, batch=given.batch, example=example)

    forward()
    pairs = [(timed(forward), timed(probed)) for _ in range(given.repeats)]
    columns = np.array(pairs)  # (repeats, forward and probe, seconds and the processor's)
    (plain, plain_cpu), (probe, probe_cpu) = np.median(columns, axis=0)
    ratio, ratio_cpu = np.median(columns[:, 1] / columns[:, 0], axis=0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{given.framework}, {given.images} images of {given.size}x{given.size}, n={given.repeats}"
    )
    print(f"forward {plain:.2f} s, probe {probe:.2f} s, ratio {ratio:.2f}, {memory:.2f} GB at most")
    print(
        f"processor time: forward {plain_cpu:.2f} s, probe {probe_cpu:.2f} s, ratio {ratio_cpu:.2f}"
    )
    print(
        f"relucate {relucate.__version__}, {platform.machine()}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()

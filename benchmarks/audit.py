"""Seconds to audit: InceptionV3, and generated networks of 500 to 4,000 layers.

Audit means reading the built model into a Graph, finding every norm's site, and applying all rules.
The baseline is one pass over the same model that only copies its weights to NumPy: whoever reads a
model pays at least that. Growth is linear if seconds per layer stay the same down the table.

    python benchmarks/audit.py [--repeat 5]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")


def chain(layers: int) -> Any:
    """Return a Keras net of conv, batch norm and ReLU in a row, with a residual now and then."""
    import keras

    x = image = keras.Input((8, 8, 4))
    made = 0
    while made + 4 <= layers:
        shortcut = x
        x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Add()([x, shortcut])
        made += 4
    return keras.Model(image, x)


def fastest(function: Callable[[], Any], repeat: int) -> float:
    """Return the seconds of the fastest of `repeat` calls."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def row(name: str, model: Any, repeat: int) -> None:
    """Measure one model and print its row."""
    import numpy as np

    import relucate

    report = relucate.audit(model)
    count = len(model.layers)
    audit = fastest(lambda: relucate.audit(model), repeat)
    copy = fastest(lambda: [np.array(w) for w in model.get_weights()], repeat)
    print(
        f"{name:<24}{count:>7}{len(report.sites):>7}{audit:>10.3f}{1000 * audit / count:>12.3f}"
        f"{copy:>12.3f}{audit / copy:>8.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    sys.setrecursionlimit(50_000)  # Keras itself walks a model recursively when it is made
    import keras

    print(f"keras {keras.__version__} on {keras.config.backend()}, python "
          f"{platform.python_version()}, fastest of {repeat}")  # fmt: skip
    print(f"{'model':<24}{'layers':>7}{'norms':>7}{'audit, s':>10}{'ms a layer':>12}"
          f"{'copying, s':>12}{'ratio':>8}")  # fmt: skip
    row("InceptionV3", keras.applications.InceptionV3(weights=None), repeat)
    for layers in (500, 1000, 2000, 4000):
        row(f"generated {layers}", chain(layers), repeat)


if __name__ == "__main__":
    main()

"""From the command to the first finished run, against a bare Keras script's first step.

    python benchmarks/start.py [--rounds 5] [--jobs 2] [--only compare-mlp ...]

`relucate compare` with two nets on 100 digits and one epoch, timed until the store has its first
run: imports, data, worker processes, building and checking both arms, a few steps. The bare script
imports Keras, builds a net of the same size and takes one step. The other rows are whole commands.
All are fresh processes, in turn, round by round; the first round isn't counted. A ratio is the
median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
BARE = """
import keras, numpy
layers = keras.layers
def block(width):
    return [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(),
            layers.ReLU()]
model = keras.Sequential([keras.Input((8, 8, 1)), *block(16), *block(16), *block(32), *block(32),
                          layers.GlobalAveragePooling2D(), layers.Dense(10)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.1), loss)
model.train_on_batch(numpy.zeros((32, 8, 8, 1), "float32"), numpy.zeros(32, "int64"))
"""
SAVING = "from relucate import nets; nets.build('cnn', 'before', (32, 32, 3), 10).save({!r})"
RELUCATE = [sys.executable, "-m", "relucate"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def first_run(net: str, jobs: int) -> float:
    """Return the seconds until a new study's store has a run."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "runs.sqlite"
        given = [net, "--epochs", "1", "--train-size", "100", "--test-size", "50", "--quiet"]
        command = [*RELUCATE, "compare", *given, "--jobs", str(jobs), "--out", folder]
        start = time.perf_counter()
        process = subprocess.Popen(command, **QUIET)
        try:
            while not has_a_run(store):
                if process.poll() is not None:
                    sys.exit(f"{' '.join(command)} ended with code {process.returncode}")
                time.sleep(0.005)
            return time.perf_counter() - start
        finally:
            process.terminate()
            process.wait()


def has_a_run(store: Path) -> bool:
    """Return whether the first run has been committed."""
    if not store.is_file():
        return False
    with suppress(sqlite3.OperationalError):  # it is being made
        connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        try:
            return bool(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
        finally:
            connection.close()
    return False


def whole(*command: str) -> float:
    """Return the seconds of a command that succeeds."""
    start = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with code {done.returncode}")
    return time.perf_counter() - start


def contenders(folder: str, jobs: int) -> dict[str, Callable[[], float]]:
    """Return what is timed, by name; the bare script first."""
    model = str(Path(folder) / "cnn.keras")
    whole(sys.executable, "-c", SAVING.format(model))
    return {
        "bare Keras script": lambda: whole(sys.executable, "-c", BARE),
        "compare-mlp": lambda: first_run("mlp", jobs),
        "compare-cnn": lambda: first_run("cnn", jobs),
        "audit": lambda: whole(*RELUCATE, "audit", model),
        "evidence": lambda: whole(*RELUCATE, "evidence"),
        "help": lambda: whole(*RELUCATE, "--help"),
    }


def main() -> None:
    """Print the medians, and their ratios to the bare script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = contenders(folder, given.jobs)
        base = next(iter(rows))
        names = [name for name in rows if name == base or not given.only or name in given.only]
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(given.rounds + 1):
            for name in names:
                seconds = rows[name]()
                if number:
                    times[name].append(seconds)
    print(f"{'':<20}{'seconds':>9}{'of the bare script':>20}")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times[base], strict=True))
        print(f"{name:<20}{statistics.median(found):>9.2f}{ratio:>20.2f}")


if __name__ == "__main__":
    main()

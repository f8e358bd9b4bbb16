"""Time to a verdict: relucate against the loop that one writes by hand around Keras's fit.

    python benchmarks/time_to_verdict.py digits [--backends torch,jax] [--python jax=PATH]
    python benchmarks/time_to_verdict.py cifar --folder PATH [--loop-seeds 1]
    python benchmarks/time_to_verdict.py right [--pool 200] [--repetitions 20000] [--store FILE]

The question: norm before or after the activation, in net `cnn`? The loop: for each of 20 seeds, for
each order: build, compile, fit, evaluate; then Welch's test of the two means at 5 %. `--python`
names another interpreter for a backend. With fewer `--loop-seeds` the loop's runs are timed and
scaled to 20 seeds; the output says so. `right` asks how often each of the two answers is right.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SEEDS, MARGIN = 20, 0.005
TARGETS = {"torch": 5, "jax": 8, "tensorflow": 8}
RECIPES = {"digits": {"epochs": 10, "batch": 64}, "cifar": {"epochs": 2, "batch": 128}}
SOURCE = Path(__file__).parents[1] / "src"


# The loop, in a process of its own ---------------------------------------------------------------


def loop(file: str, seeds: int, epochs: int, batch: int) -> None:
    """Train both orders with every seed and print scores and seconds as JSON."""
    start = time.perf_counter()
    import keras

    from relucate import nets

    with np.load(file) as data:
        x, y, x_test, y_test = (data[name] for name in ("x", "y", "x_test", "y_test"))
    scores: dict[str, list[float]] = {"before": [], "after": []}
    began = time.perf_counter()
    for seed in range(seeds):
        for order in scores:
            keras.utils.set_random_seed(seed)
            model = nets.build("cnn", order, x.shape[1:], int(y.max()) + 1)
            rate = keras.optimizers.schedules.CosineDecay(0.1, epochs * (len(x) // batch))
            model.compile(
                optimizer=keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
            scores[order].append(float(model.evaluate(x_test, y_test, verbose=0)[1]))
    runs = time.perf_counter() - began
    print(json.dumps({"scores": scores, "startup": began - start, "runs": runs}))


def timed_loop(name: str, data: Any, backend: str, python: str, seeds: int) -> dict[str, Any]:
    """Run the loop on a backend and return its answer, and its seconds scaled to 20 seeds."""
    recipe = RECIPES[name]
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "data.npz")
        mean = data.x_train.mean((0, 1, 2))
        scale = 1 / data.x_train.std((0, 1, 2))
        x, x_test = (((part - mean) * scale).astype("f4") for part in (data.x_train, data.x_test))
        np.savez(file, x=x, y=data.y_train, x_test=x_test, y_test=data.y_test)
        command = [python, __file__, "--loop", file, str(seeds)]
        command += [str(recipe["epochs"]), str(recipe["batch"])]
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(SOURCE)}
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        whole = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"the loop on {backend} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = whole + found["runs"] * (SEEDS / seeds - 1)
    return {"seconds": seconds, "runs": 2 * SEEDS, "answer": welch(found["scores"], seeds)}


def welch(scores: dict[str, Any], seeds: int = SEEDS) -> str:
    """Return what one reads off two means: the better order, or that none is seen."""
    from scipy.stats import ttest_ind

    a, b = (np.asarray(scores[order]) for order in ("before", "after"))
    told = f"{a.mean():.2%} and {b.mean():.2%}"
    if seeds < SEEDS:
        return f"{told} ({seeds} of {SEEDS} seeds: no answer, time scaled)"
    if ttest_ind(a, b, equal_var=False).pvalue < 0.05:
        return f"{'after' if b.mean() > a.mean() else 'before'} is better: {told}"
    return f"no difference seen: {told}"


# relucate, from the command line -----------------------------------------------------------------


def timed_relucate(options: list[str]) -> dict[str, Any]:
    """Run `relucate compare` with an empty store and return its answer and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "relucate", "compare", "cnn", "--quiet"]
        command += ["--format", "json", "--out", folder, *options]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    found = json.loads(done.stdout)
    means = " and ".join(f"{arm['mean']:.2%}" for arm in found["arms"])
    answer = f"{found['verdict']} ({found['pairs']} pairs): {means}"
    return {"seconds": seconds, "runs": len(found["runs"]), "answer": answer}


def compare(name: str, data: Any, options: list[str], given: argparse.Namespace) -> None:
    """Print a row for relucate and one per backend of the loop."""
    pythons = dict(text.split("=", 1) for text in given.python)
    print(f"{name}: {len(data.y_train):,} to train on, {os.cpu_count()} cores")
    print("\n| | s | runs | answer | times as long | wanted |\n|---|---|---|---|---|---|")
    ours = timed_relucate(options)
    print(f"| relucate | {ours['seconds']:.0f} | {ours['runs']} | {ours['answer']} | 1 | |")
    for backend in given.backends.split(","):
        python = pythons.get(backend, sys.executable)
        theirs = timed_loop(name, data, backend, python, given.loop_seeds)
        ratio = theirs["seconds"] / ours["seconds"]
        print(
            f"| loop on {backend} | {theirs['seconds']:.0f} | {theirs['runs']} | "
            f"{theirs['answer']} | {ratio:.1f} | {TARGETS[backend]} |",
            flush=True,
        )


# How often each answer is right ------------------------------------------------------------------


def right(given: argparse.Namespace) -> None:
    """Judge both rules on runs drawn from one pool, so that only the rule differs."""
    import relucate
    from relucate.stats import paired_difference

    pool = relucate.compare("cnn", pairs=given.pool, store=given.store, progress=False).to_dict()
    runs = pool["runs"]
    a, b = (
        np.array([r["metric"] for r in sorted(runs, key=lambda r: r["seed"]) if r["arm"] == label])
        for label in (arm["label"] for arm in pool["arms"])
    )
    truth = paired_difference(a, b)
    assert truth.low is not None
    assert truth.high is not None
    print(
        f"pool of {given.pool} pairs: after minus before {truth.estimate:+.2%} "
        f"({truth.low:+.2%} to {truth.high:+.2%})"
    )
    real = truth.low > 0 or truth.high < 0
    small = max(abs(truth.low), abs(truth.high)) < MARGIN or abs(truth.estimate) < MARGIN
    rng = np.random.default_rng(0)
    answers: dict[str, list[tuple[str, int]]] = {"relucate": [], "loop": []}
    for _ in range(given.repetitions):
        answers["relucate"].append(monitored(a, b, rng))
        answers["loop"].append(by_welch(a, b, rng))
    better = "after" if truth.estimate > 0 else "before"
    true = {better: real, "equivalent": small}  # what is said otherwise is wrong, or says nothing
    print(
        "\n| rule | names the better order | says equivalent, rightly | says what is wrong | "
        "says nothing | wrong, of what is said | mean runs |\n|---|---|---|---|---|---|---|"
    )
    for rule, found in answers.items():
        said = [answer for answer, _ in found]
        total = len(said)
        nothing = said.count("inconclusive") + said.count("no difference seen")
        good = {answer: said.count(answer) * held for answer, held in true.items()}
        wrong = total - nothing - sum(good.values())
        share, of_said = wrong / total, wrong / max(total - nothing, 1)
        error = (share * (1 - share) / total) ** 0.5
        print(
            f"| {rule} | {good[better] / total:.1%} | {good['equivalent'] / total:.1%} | "
            f"{share:.2%} (± {error:.2%}) | {nothing / total:.1%} | {of_said:.1%} | "
            f"{np.mean([n for _, n in found]):.1f} |"
        )


def monitored(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[str, int]:
    """Return relucate's answer on pairs drawn from the pool, and how many runs it took."""
    from relucate.stats.sequential import Monitor

    rule, order = Monitor(), rng.permutation(len(a))[:30]
    for n in range(3, 31):
        verdict = rule.decide(a[order[:n]], b[order[:n]], margin=MARGIN)
        if not rule.goes_on(verdict):
            break
    winner = {"a": "before", "b": "after"}.get(verdict.winner or "", verdict.verdict)
    return winner, 2 * verdict.difference.n


def by_welch(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[str, int]:
    """Return the loop's answer on 20 runs of either order drawn from the pool."""
    one, two = (scores[rng.permutation(len(scores))[:SEEDS]] for scores in (a, b))
    answer = welch({"before": one, "after": two})
    return answer.partition(" is better")[0].partition(":")[0], 2 * SEEDS


def main() -> None:
    """Read the command line."""
    if sys.argv[1:2] == ["--loop"]:
        loop(sys.argv[2], *map(int, sys.argv[3:6]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("digits", "cifar", "right"))
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--python", action="append", default=[], help="BACKEND=PATH")
    parser.add_argument("--loop-seeds", type=int, default=SEEDS)
    parser.add_argument("--folder")
    parser.add_argument("--pool", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--store", type=Path, default=Path("time_to_verdict.sqlite"))
    given = parser.parse_args()
    if given.what == "right":
        right(given)
        return
    from relucate.data import load

    if given.what == "digits":
        compare("digits", load("digits"), [], given)
        return
    folder = f"folder:{given.folder}"
    options = ["--data", folder, "--train-size", "10000", "--epochs", "2"]
    compare("cifar", load(folder).subset(10_000), options, given)


if __name__ == "__main__":
    main()

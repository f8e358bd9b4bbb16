"""Our own table: the studies whose cards `relucate evidence` and the docs show.

    python benchmarks/campaign.py list
    python benchmarks/campaign.py data                    make the tables that the rows below need
    python benchmarks/campaign.py run NAME... | all       train what has no card yet
    python benchmarks/campaign.py remake                  write the cards again from the stores

Each row is one `relucate compare` command, run in the folder `--folder`. There `cifar10` is a
folder of images (train/CLASS, test/CLASS), or a link to one; `data` makes the other files. Runs are
kept in `FOLDER/stores/NAME`, so that a stopped row goes on. A card is made from what the command
found, and lies in `--cards`; a row that has one is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parents[1] / "src"
CARDS = SOURCE / "relucate" / "records" / "own"
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu")
CIFAR = "--data folder:cifar10 --train-size 10000 --augment flip --precision bf16"
DIGITS = "--data digits --epochs 20"
DROPOUT = "linear-norm-act-drop,linear-act-norm-drop"
ALL = "before,after,norm-linear-act,none"


@dataclass(frozen=True)
class Row:
    """One study: the card's name, its question, and the arguments of `relucate compare`."""

    name: str
    question: str
    arguments: str


def early(act: str) -> Row:
    return Row(
        f"cifar10-cnn-{act}-early",
        f"Six-conv net with {act} on CIFAR-10, 2 epochs: norm before or after the activation?",
        f"cnn {CIFAR} --epochs 2 --act {act} --max-pairs 8",
    )


def late(act: str) -> Row:
    return Row(
        f"cifar10-cnn-{act}-late",
        f"Six-conv net with {act} on CIFAR-10, 12 epochs: norm before or after the activation?",
        f"cnn {CIFAR} --epochs 12 --act {act} --max-pairs 5",
    )


def digits(net: str, what: str, asked: str, arguments: str, pairs: int = 40) -> Row:
    return Row(
        f"digits-{net}-{what}",
        f"{net} on digits, {asked}: norm before or after the activation?",
        f"{net} {DIGITS} {arguments} --max-pairs {pairs}",
    )


def on_digits(net: str) -> Iterator[Row]:
    for act in ACTIVATIONS:
        yield digits(net, act, act, f"--act {act}")
    for norm in ("layer", "group"):
        yield digits(net, f"{norm}-norm", f"{norm} norm, ReLU", f"--norm {norm}")
    for rate in (0.2, 0.5):
        where = f"ReLU, dropout {rate:g} at the end of each block"
        yield digits(net, f"dropout-{rate:g}", where, f"--orders {DROPOUT} --dropout {rate:g}")
    for size in (32, 128, 512):
        yield digits(net, f"batch-{size}", f"ReLU, batch {size}", f"--batch-size {size}")
    yield digits(net, "orders", "ReLU, four orders", f"--orders {ALL}")
    for act in ("relu", "tanh"):
        asked = f"{act}, each order at its own best rate"
        yield digits(net, f"{act}-tuned", asked, f"--act {act} --tune lr --rates 0.03,0.1,0.3")


def table(name: str, what: str, arguments: str) -> Iterator[Row]:
    for act in ("relu", "tanh"):
        yield Row(
            f"{name}-mlp-{act}",
            f"mlp with {act} on {what}: norm before or after the activation?",
            f"mlp --data npz:{name}.npz --act {act} {arguments} --max-pairs 20",
        )


def cifar(what: str, asked: str, arguments: str, net: str = "cnn", pairs: int = 8) -> Row:
    return Row(
        f"cifar10-{net}-{what}",
        f"{net} on CIFAR-10, {asked}: norm before or after the activation?",
        f"{net} {CIFAR} {arguments} --max-pairs {pairs}",
    )


def caffenet(what: str, asked: str, arguments: str) -> Row:
    smaller = "--data folder:cifar10 --train-size 10000 --epochs 8 -O width=12 --precision bf16"
    return Row(
        f"cifar10-caffenet-{what}",
        f"CaffeNet's recipe on CIFAR-10, {asked}: norm before or after the activation?",
        f"--recipe caffenet32 {smaller} --orders before,after {arguments} --max-pairs 5",
    )


def rows() -> Iterator[Row]:
    """Yield the rows of the table, the cheapest and most telling first."""
    yield from map(early, ("relu", "tanh"))
    yield from on_digits("mlp")
    yield from map(early, ("sigmoid", "gelu"))
    yield from table("friedman", "Friedman's function (regression)", f"{REGRESSION} --margin 0.01")
    yield from table("diabetes", "the diabetes table (regression)", f"{REGRESSION} --margin 0.02")
    yield from table("cancer", "the breast cancer table (classification)", "--epochs 20")
    yield from table("mackey", "a Mackey-Glass series (regression)", f"{REGRESSION} --margin 0.01")
    yield late("relu")
    yield Row(
        "digits-bn-paper",
        "The MNIST net of the Batch Normalization paper on digits, no norm, before, after",
        "--recipe bn-paper:small --orders before,after,none --max-pairs 20",
    )
    yield early("silu")
    for act in ("relu", "tanh"):
        yield cifar(f"{act}-early", f"{act}, 2 epochs", f"--epochs 2 --act {act}", "vgg", 5)
        yield caffenet(act, act, f"--act {act}")
    yield cifar(
        "tanh-tuned",
        "tanh, 2 epochs, each order at its own best rate",
        "--epochs 2 --act tanh --tune lr --rates 0.01,0.03,0.1",
        "vgg",
        5,
    )
    for act in ("sigmoid", "prelu", "elu"):
        yield caffenet(act, act, f"--act {act}")
    yield from map(early, ("leaky_relu", "elu"))
    yield late("tanh")
    yield caffenet("relu-affine", "ReLU, norm with scale and shift", "-O affine=always")
    yield from on_digits("cnn")
    yield cifar("orders", "ReLU, four orders, 2 epochs", f"--epochs 2 --orders {ALL}")
    yield cifar("group-norm", "ReLU, group norm, 2 epochs", "--epochs 2 --norm group")
    for rate in (0.2, 0.5):
        asked = f"ReLU, dropout {rate:g} at the end of each block, 2 epochs"
        arguments = f"--epochs 2 --orders {DROPOUT} --dropout {rate:g}"
        yield cifar(f"dropout-{rate:g}", asked, arguments)
    for size in (32, 512):
        asked, arguments = f"ReLU, batch {size}, 2 epochs", f"--epochs 2 --batch-size {size}"
        yield cifar(f"batch-{size}", asked, arguments)
    for act in ("relu", "tanh"):
        asked = f"{act}, 2 epochs, each order at its own best rate"
        arguments = f"--epochs 2 --act {act} --tune lr --rates 0.03,0.1,0.3"
        yield cifar(f"{act}-tuned", asked, arguments)
    for rate in (0.0, 0.2):
        asked = f"ReLU, dropout {rate:g} behind the dense layers"
        yield caffenet(f"relu-fc-dropout-{rate:g}", asked, f"-O fc_dropout={rate:g}")
    for act in ("relu", "tanh"):
        yield cifar(f"{act}-late", f"{act}, 12 epochs", f"--epochs 12 --act {act}", "vgg", 5)
    yield from map(late, ("gelu", "sigmoid"))
    yield Row(
        "cifar10-kim-vgg16",
        "Kim et al.'s recipe on CIFAR-10 with narrow filters: before or after the tanh?",
        "--recipe kim-vgg16 --data folder:cifar10 --epochs 20 -O width=16 --max-pairs 5",
    )
    yield Row(
        "cifar10-inception",
        "Inception v3 on CIFAR-10 at 75 pixels: the order of Keras 1.x or today's?",
        "--recipe inception-small --data folder:cifar10 --size 75 --train-size 10000 --max-pairs 5",
    )


REGRESSION = "--epochs 30 --lr 0.02 --metric R2"


# Data made by code -------------------------------------------------------------------------------


def make_data(folder: Path) -> None:
    """Write the tables as .npz files: three of scikit-learn's, and a series made here."""
    from sklearn import datasets

    tables = {
        "friedman": datasets.make_friedman1(2000, noise=1.0, random_state=0),
        "diabetes": datasets.load_diabetes(return_X_y=True),
        "cancer": datasets.load_breast_cancer(return_X_y=True),
    }
    for name, (x, y) in tables.items():
        np.savez(folder / f"{name}.npz", x=x.astype("float32"), y=y)
    x, y = mackey_glass()
    half = len(x) * 3 // 4
    parts = {"x_train": x[:half], "y_train": y[:half], "x_test": x[half:], "y_test": y[half:]}
    np.savez(folder / "mackey.npz", **parts)


def mackey_glass(length: int = 4000, lags: int = 16, ahead: int = 24) -> tuple[np.ndarray, ...]:
    """Return windows of the Mackey-Glass series with 10 % noise, and the clean value to predict.

    x' = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, in steps of 1 (Mackey and Glass, 1977).
    """
    series = [1.2] * 18
    while len(series) < length + 500:
        late = series[-18]
        series.append(0.9 * series[-1] + 0.2 * late / (1 + late**10))
    clean = np.array(series[500:])
    noise = np.random.default_rng(0).normal(0, 0.1 * clean.std(), len(clean))
    windows = np.lib.stride_tricks.sliding_window_view(clean + noise, lags)[:-ahead]
    return windows.astype("float32"), clean[lags + ahead - 1 :]


# Running -----------------------------------------------------------------------------------------


def run(row: Row, folder: Path, cards: Path) -> None:
    """Run a row's command and make its card, unless there is one."""
    from relucate.api.finished import Study

    card, out = cards / f"{row.name}.json", folder / "stores" / row.name
    if card.is_file():
        print(f"{row.name}: has a card")
        return
    words = ["compare", *shlex.split(row.arguments), "--out", f"stores/{row.name}"]
    print(f"{row.name}: relucate {shlex.join(words)}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "relucate", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stderr=log,
            stdout=log,
        )
    if done.returncode:
        print(f"{row.name}: failed with {done.returncode}, see {out / 'log'}", flush=True)
        return
    study = Study(json.loads((out / "study.json").read_text()))
    cards.mkdir(parents=True, exist_ok=True)
    study.card(card, question=row.question)
    print(f"{row.name}: {study.sentence}", flush=True)


def remake(row: Row, folder: Path, cards: Path) -> None:
    """Write a row's card again from its store, with the commit that it was trained at."""
    from relucate.api.finished import Study

    card, study = cards / f"{row.name}.json", folder / "stores" / row.name / "study.json"
    if not (card.is_file() and study.is_file()):
        return
    commit = json.loads(card.read_text())["made"]["commit"]
    Study(json.loads(study.read_text())).card(card, question=row.question)
    made = json.loads(card.read_text())
    made["made"]["commit"] = commit
    card.write_text(json.dumps(made, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("list", "data", "run", "remake"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--cards", type=Path, default=CARDS)
    given = parser.parse_args()
    if given.what == "data":
        make_data(given.folder)
    for row in rows():
        if given.what == "list":
            print(f"{row.name}: relucate compare {row.arguments}")
        elif given.what == "remake":
            remake(row, given.folder.resolve(), given.cards.resolve())
        elif given.what == "run" and (given.names == ["all"] or row.name in given.names):
            run(row, given.folder.resolve(), given.cards.resolve())


if __name__ == "__main__":
    main()

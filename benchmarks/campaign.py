"""Our own table: the studies whose cards `relucate evidence` and the docs show.

    python benchmarks/campaign.py list
    python benchmarks/campaign.py data                    make the tables that the rows below need
    python benchmarks/campaign.py run NAME... | all       train what has no card yet
    python benchmarks/campaign.py remake                  write the cards again from the stores

Each row is one `relucate compare` command, run in the folder `--folder`. There `cifar10` is a
folder of images (train/CLASS, test/CLASS), or a link to one; `data` makes the other files. Runs are
kept in `FOLDER/stores/NAME` (`--stores` names another place), so that a stopped row goes on. A card
is made from what the command found, and lies in `--out`; a row that has one is skipped. NAME may be
a pattern, such as 'digits-cnn-*'. A row that fails is said so at the end and stops no other.

On a GPU: `run NAME... --device cuda --at-once 4`, and `--commit` if the code was copied there
without its repository.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SOURCE))  # cards are made, and name their commit, by the code that trains
CARDS = SOURCE / "relucate" / "records" / "own"
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu")
FULL_CIFAR = "--data folder:cifar10 --augment flip --precision bf16"
CIFAR = "--data folder:cifar10 --train-size 10000 --augment flip --precision bf16"
DIGITS = {
    "mlp": "--data digits --epochs 20 {} --max-pairs 40",
    "cnn": "--data digits --epochs 12 -O width=8 {} --max-pairs 30",
}
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


def full(act: str, net: str) -> Row:
    asked = f"{net} with {act} on all of CIFAR-10, 10 epochs"
    return Row(
        f"cifar10-full-{net}-{act}",
        f"{asked}: norm before or after the activation?",
        f"{net} {FULL_CIFAR} --epochs 10 --act {act} --max-pairs 10",
    )


def digits(net: str, what: str, asked: str, arguments: str) -> Row:
    return Row(
        f"digits-{net}-{what}",
        f"{net} on digits, {asked}: norm before or after the activation?",
        f"{net} {DIGITS[net].format(arguments)}",
    )


def on_digits(net: str) -> Iterator[Row]:
    for act in (*ACTIVATIONS, "linear"):  # linear: both orders are the same network, a control
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


def caffenet(what: str, asked: str, arguments: str, pairs: int = 5) -> Row:
    smaller = "--data folder:cifar10 --train-size 10000 --epochs 8 -O width=12 --precision bf16"
    return Row(
        f"cifar10-caffenet-{what}",
        f"CaffeNet's recipe on CIFAR-10, {asked}: norm before or after the activation?",
        f"--recipe caffenet32 {smaller} --orders before,after {arguments} --max-pairs {pairs}",
    )


def kim(full: str, arguments: str) -> Row:
    return Row(
        f"cifar10{full}-kim-vgg16",
        "Kim et al.'s recipe on CIFAR-10 with narrow filters: before or after the tanh?",
        f"--recipe kim-vgg16 --data folder:cifar10 --precision bf16 {arguments}",
    )


def inception(full: str, arguments: str) -> Row:
    recipe = "--recipe inception-small --data folder:cifar10 --size 75 --precision bf16"
    return Row(
        f"cifar10{full}-inception",
        "Inception v3 on CIFAR-10 at 75 pixels: the order of Keras 1.x or today's?",
        f"{recipe} {arguments}",
    )


def on_vgg() -> Iterator[Row]:
    changes = {
        "orders": ("ReLU, four orders", f"--orders {ALL}"),
        "group-norm": ("ReLU, group norm", "--norm group"),
        "batch-32": ("ReLU, batch 32", "--batch-size 32"),
        "batch-512": ("ReLU, batch 512", "--batch-size 512"),
        "dropout-0.2": ("ReLU, dropout 0.2", f"--orders {DROPOUT} --dropout 0.2"),
        "dropout-0.5": ("ReLU, dropout 0.5", f"--orders {DROPOUT} --dropout 0.5"),
        "relu-tuned": (
            "ReLU, each order at its own best rate",
            "--act relu --tune lr --rates 0.01,0.03,0.1",
        ),
    }
    for what, (asked, arguments) in changes.items():
        yield cifar(what, f"{asked}, 2 epochs", f"--epochs 2 {arguments}", "vgg", 5)


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
    yield early("linear")  # a control
    for act in ("sigmoid", "gelu", "silu", "elu", "leaky_relu", "linear"):
        yield cifar(f"{act}-early", f"{act}, 2 epochs", f"--epochs 2 --act {act}", "vgg", 5)
    yield from on_vgg()
    for act, asked in (("rrelu", "RReLU"), ("maxout", "maxout")):
        yield caffenet(act, asked, f"--act {act}")
    yield caffenet("linear", "no activation", "--act linear", 9)  # a control: the same network
    for start, asked in (("orthonormal", "orthonormal start"), ("model", "Keras's start")):
        yield caffenet(f"relu-{start}", f"ReLU, {asked} instead of LSUV", f"--init {start}")
    yield from map(late, ("silu", "elu", "leaky_relu"))
    for act in ("sigmoid", "gelu", "silu", "elu", "leaky_relu"):
        yield cifar(f"{act}-late", f"{act}, 12 epochs", f"--epochs 12 --act {act}", "vgg", 5)
    for act in ("relu", "tanh", "gelu", "sigmoid"):
        yield full(act, "cnn")
    for act in ("relu", "tanh"):
        yield full(act, "vgg")
    yield kim("", "--train-size 10000 --epochs 8 -O width=8 --max-pairs 8")
    yield kim("-full", "--epochs 40 -O width=32 --max-pairs 6")
    yield inception("", "--train-size 5000 --test-size 2000 --epochs 5 -O width=4 --max-pairs 8")
    yield inception("-full", "--epochs 20 -O width=8 --max-pairs 6")


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


@dataclass(frozen=True)
class Place:
    """Where rows run: the folder of their data, that of their runs, that of their cards."""

    folder: Path
    stores: Path
    cards: Path
    extra: str = ""  # arguments for every row
    commit: str | None = None  # of the code, where its repository isn't there to be asked

    def card(self, row: Row) -> Path:
        return self.cards / f"{row.name}.json"

    def study(self, row: Row) -> dict[str, Any]:
        """Return what a row's command found, as if it were called in the folder of its stores."""
        out = self.stores / row.name
        study = json.loads((out / "study.json").read_text())
        study["command"] = study["command"].replace(str(out), f"stores/{row.name}")
        return study


def run(row: Row, place: Place) -> str:
    """Run a row's command and make its card, unless there is one; return why it failed, if so."""
    if place.card(row).is_file():
        print(f"{row.name}: has a card")
        return ""
    out = place.stores / row.name
    out.mkdir(parents=True, exist_ok=True)
    words = ["compare", *shlex.split(f"{row.arguments} {place.extra}"), "--out", str(out)]
    print(f"{row.name}: relucate {shlex.join(words)}", flush=True)
    with (out / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "relucate", *words],
            cwd=place.folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stderr=log,
            stdout=log,
        )
    if done.returncode:
        return f"{row.name}: failed with {done.returncode}, see {out / 'log'}"
    study = make_card(row, place)
    print(f"{row.name}: {study.sentence}", flush=True)
    return ""


def make_card(row: Row, place: Place) -> Any:
    """Write a row's card from its store; return the study."""
    from relucate.api.finished import Study

    study = Study(place.study(row))
    place.cards.mkdir(parents=True, exist_ok=True)
    study.card(place.card(row), question=row.question)
    if place.commit is not None:
        made = json.loads(place.card(row).read_text())
        made["made"]["commit"] = place.commit
        place.card(row).write_text(json.dumps(made, indent=1) + "\n")
    return study


def run_all(chosen: list[Row], place: Place, at_once: int) -> int:
    """Run the rows, so many at a time; return the number of those that failed."""
    decode(chosen, place)
    with ThreadPoolExecutor(at_once) as pool:
        failed = [why for why in pool.map(lambda row: _failure(row, place), chosen) if why]
    print("\n".join(failed), end="\n" if failed else "")
    return len(failed)


def _failure(row: Row, place: Place) -> str:
    try:
        return run(row, place)
    except Exception as error:  # of one row; the others go on
        return f"{row.name}: {type(error).__name__}: {error}"


def decode(chosen: list[Row], place: Place) -> None:
    """Put the decoded images into the cache, so that rows that run side by side all find them."""
    from relucate.data.source import load

    missing = [row for row in chosen if not place.card(row).is_file()]
    if any("folder:cifar10" in row.arguments for row in missing):
        load(f"folder:{place.folder / 'cifar10'}")


def remake(row: Row, place: Place) -> None:
    """Write a row's card again from its store, with the command, the commit and the machine of old.

    `--commit` corrects that commit.
    """
    card = place.card(row)
    if not (card.is_file() and (place.stores / row.name / "study.json").is_file()):
        return
    old = json.loads(card.read_text())
    make_card(row, replace(place, commit=place.commit or old["made"]["commit"]))
    made = json.loads(card.read_text())
    made["study"]["source"] = old["study"]["source"]
    made["made"]["hardware"] = old["made"]["hardware"]
    card.write_text(json.dumps(made, indent=1) + "\n")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("list", "data", "run", "remake"))
    parser.add_argument("names", nargs="*", help="rows, or patterns of their names; all")
    parser.add_argument("--folder", type=Path, default=Path(), help="of the data")
    parser.add_argument("--stores", type=Path, help="of the runs; by default FOLDER/stores")
    parser.add_argument("--out", type=Path, default=CARDS, help="of the cards")
    parser.add_argument("--device", help="where every row trains, such as cuda")
    parser.add_argument("--jobs", type=int, help="runs side by side in each row")
    parser.add_argument("--at-once", type=int, default=1, help="rows side by side")
    parser.add_argument("--commit", help="of the code, where its repository isn't there")
    return parser.parse_args()


def main() -> None:
    given = options()
    extra = [
        f"--{name} {getattr(given, name)}" for name in ("device", "jobs") if getattr(given, name)
    ]
    place = Place(
        given.folder.resolve(),
        (given.stores or given.folder / "stores").resolve(),
        given.out.resolve(),
        " ".join(extra),
        given.commit,
    )
    chosen = [row for row in rows() if not given.names or _named(row, given.names)]
    if given.what == "data":
        make_data(given.folder)
    elif given.what == "list":
        print("\n".join(f"{row.name}: relucate compare {row.arguments}" for row in chosen))
    elif given.what == "remake":
        for row in chosen:
            remake(row, place)
    elif not (given.names and chosen):
        raise SystemExit(f"no row is called {' '.join(given.names) or 'so'}: see list")
    elif run_all(chosen, place, given.at_once):
        raise SystemExit(1)


def _named(row: Row, names: list[str]) -> bool:
    return names == ["all"] or any(fnmatch(row.name, name) for name in names)


if __name__ == "__main__":
    main()

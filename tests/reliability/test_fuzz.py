"""Mutated files of every kind that relucate reads: each is refused with a message, or accepted.

20 of each kind in the default suite, 1,000 in the nightly one; the figures are in
docs/reliability.md.
"""

import io
import json
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.reliability.fuzz import (
    FULL,
    SMALL,
    campaign,
    dumped,
    mutated_bytes,
    mutated_json,
    mutated_zip,
    rezipped,
)

from relucate.cli import verify as verify_verb
from relucate.cli.app import app
from relucate.data import make
from relucate.nets.models import Loaded
from relucate.report import print_study, repr_html
from relucate.report.reading import read_study
from relucate.study.display import NoDisplay
from relucate.study.document import document
from relucate.study.driver import run_study
from relucate.study.executors import Done
from relucate.study.executors.perform import inspection, perform
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.store import Store
from relucate.study.vary import arms_from
from relucate.train import Recipe
from relucate.train.run import RunResult

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # audit says more than errors
HERE = Path(__file__).parent
NIGHTLY = pytest.param(FULL, marks=[pytest.mark.nightly, pytest.mark.timeout(7200)])
counts = pytest.mark.parametrize("count", [SMALL, NIGHTLY])


def run(*arguments):
    """Run the command line without its last border, so that a refusal is an exception."""
    return app([str(argument) for argument in arguments], standalone_mode=False)


def writing(path, mutate):
    """Return a mutation that writes its bytes to a file and returns the path."""

    def write(rng):
        path.write_bytes(mutate(rng))
        return path

    return write


@counts
def test_study(count, tmp_path):
    originals = json.loads((HERE / "studies.json").read_text())  # plain, varied, tuned, three arms

    def mutate(rng):
        text = dumped(mutated_json(rng.choice(originals), rng))
        return mutated_bytes(text, rng) if rng.random() < 0.2 else text

    campaign(writing(tmp_path / "study.json", mutate), look_at_study, count)


@pytest.mark.parametrize("count", [pytest.param(200, marks=NIGHTLY.marks)])
def test_study_with_its_figures(count, tmp_path):
    originals = json.loads((HERE / "studies.json").read_text())
    campaign(
        writing(
            tmp_path / "study.json", lambda rng: dumped(mutated_json(rng.choice(originals), rng))
        ),
        lambda path: run("report", path),
        count,
        first=FULL,
    )


def look_at_study(path):
    """Look at everything but the figures, which take most of the time."""
    study = read_study(path)
    print_study(study, Console(file=io.StringIO(), width=100))
    repr_html(study)


def saved(model, path):
    model.save(path)
    return path.read_bytes()


@counts
def test_keras(count, tmp_path):
    original = saved(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(3, 3, padding="same", use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dropout(0.1),
                keras.layers.Flatten(),
                keras.layers.Dense(2, activation="softmax"),
            ]
        ),
        tmp_path / "model.keras",
    )

    def mutate(rng):
        if rng.random() < 0.6:  # most changes of the whole archive are found by its checksums
            return rezipped(
                original, "config.json", lambda text: dumped(mutated_json(json.loads(text), rng))
            )
        return mutated_zip(original, rng)

    campaign(
        writing(tmp_path / "model.keras", mutate),
        lambda path: run("audit", path),
        count,
    )


@counts
def test_pt2(count, tmp_path):
    path = tmp_path / "model.pt2"
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten()
    ).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 2, 6, 6),)), path)
    original = path.read_bytes()
    campaign(
        writing(path, lambda rng: mutated_zip(original, rng)),
        lambda path: run("audit", path),
        count,
    )


def archive(random):
    """Return the bytes of an .npz data set."""
    buffer = io.BytesIO()
    y = np.arange(24) % 3
    labels = np.array(["cat", "dog", "eel"])[y]
    np.savez(
        buffer,
        x_train=random.normal(size=(24, 5)).astype("f4"),
        y_train=labels,
        x_test=random.normal(size=(24, 5)),
        y_test=labels,
        more=np.arange(3),
    )
    return buffer.getvalue()


@counts
def test_npz(count, tmp_path):
    original = archive(np.random.default_rng(0))
    campaign(
        writing(tmp_path / "data.npz", lambda rng: mutated_zip(original, rng)),
        lambda path: run("data", f"npz:{path}"),
        count,
    )


FORMATS = ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "tga", "ico", "jp2")


@counts
def test_image_folder(count, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (len(FORMATS), 16, 16, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for ending, image in zip(FORMATS, pixels, strict=True):
            Image.fromarray(image).save(tmp_path / "images" / name / f"1.{ending}")
    files = sorted(path for path in (tmp_path / "images").rglob("*.*"))
    originals = {path: path.read_bytes() for path in files}

    def mutate(rng):
        for path, content in originals.items():
            path.write_bytes(content)
        path = rng.choice(files)
        path.write_bytes(mutated_bytes(originals[path], rng))
        return ["--skip-bad"] if rng.random() < 0.2 else []

    def look(options):
        run("data", f"folder:{tmp_path / 'images'}", "--cache", tmp_path / "cache", *options)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    campaign(mutate, look, count)


@counts
def test_inputs_of_verify(count, tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    monkeypatch.setattr(verify_verb, "load", lambda *_: Loaded(model))
    buffers = io.BytesIO(), io.BytesIO()
    x = np.random.default_rng(0).normal(size=(4, 5))
    np.save(buffers[0], x)
    np.savez(buffers[1], x)
    plain, zipped = (buffer.getvalue() for buffer in buffers)

    def mutate(rng):
        return mutated_zip(zipped, rng) if rng.random() < 0.5 else mutated_bytes(plain, rng)

    campaign(
        writing(tmp_path / "inputs.npy", mutate),
        lambda path: run("verify", "a", "b", "--inputs", path),
        count,
    )


class Canned:
    """An executor that has every answer already."""

    def __init__(self, answers):
        self.answers = answers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, tasks):
        for task in tasks:
            yield Done(task.key, self.answers[task.key])


def blobs_plan():
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (random.normal(size=(3, 5))[y] + random.normal(size=(60, 5))).astype("f4")
    data = make("blobs", x[:40], y[:40], x[40:], y[40:])
    arms = arms_from(["before", "after"])
    source = resolve("mlp", {"width": 4, "depth": 1})
    return StudyPlan(arms, source, data, Recipe(epochs=2, batch_size=16), pairs=4, jobs=1)


def answers_of(plan):
    """Return the answers of an executor to a plan's tasks, with runs that nobody trained."""
    work = inspection(plan.networks, plan.engine, plan.device)
    answers = {"inspect": perform(work, plan.source, plan.data, lambda _: None)}
    random = np.random.default_rng(1)
    for arm in plan.arms:
        for seed in plan.seeds:
            right = random.random(20) < 0.8
            score = float(right.mean())
            curve = {"epoch": [1, 2], "train_loss": [1.5, 0.7], "accuracy": [0.5, score]}
            answers[arm.label, seed] = RunResult(
                "done", score, 0.7, curve, {"total": 1.0}, per_example=right
            )
    return answers


@counts
def test_store(count, tmp_path):
    """A mutated store is refused, or gives the same study as the whole one."""
    plan = blobs_plan()
    answers = answers_of(plan)
    path = tmp_path / "runs.sqlite"

    def study():
        with Store.open(path) as store:
            return bits(run_study(plan, store, NoDisplay(), Canned(answers)))

    def bits(outcome):
        found = {**document(outcome, command=""), "seconds": 0, "created": ""}
        return json.dumps(found, sort_keys=True)

    expected = study()
    original = path.read_bytes()

    def mutate(rng):
        path.with_name("runs.sqlite-journal").unlink(missing_ok=True)
        if rng.random() < 0.6:
            return mutated_bytes(original, rng)
        path.write_bytes(original)
        return edited(path, rng)

    def look(_):
        assert study() == expected

    campaign(writing(path, mutate), look, count)


def edited(path, rng):
    """Return the store with a value of a run replaced, as any SQLite tool can do it."""
    odd = [None, "", "x", "{}", "[]", "NaN", '{"status": "done"}', b"", b"\xff", 7, -1, 1e300]
    columns = ["hash", "status", "spec", "result", "per_example", "kind", "digest", "stored_at"]
    with closing(sqlite3.connect(path)) as connection, connection, suppress(sqlite3.Error):
        column, other = rng.choice(columns), rng.choice(columns)
        place = rng.randrange(8)
        if rng.random() < 0.5:
            query = f"UPDATE runs SET {column} = ? WHERE rowid = {place + 1}"
            connection.execute(query, (rng.choice(odd),))
        else:
            query = f"UPDATE runs SET {column} = (SELECT {other} FROM runs LIMIT 1 OFFSET {place})"
            connection.execute(f"{query} WHERE rowid = {rng.randrange(8) + 1}")
    connection.close()
    return path.read_bytes()

"""A study whose processes are killed again and again ends as if nothing had happened.

100 kills of driver, worker and process group at random times, each with SIGKILL, SIGTERM, or SIGINT
twice; the figures are in docs/reliability.md. The default suite kills once per signal
(tests/study/test_driver.py, tests/cli/test_compare.py).
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from relucate.report.reading import read_study

KILLS = 25  # of each of four seeds
LIMIT = 300  # seconds for one call of the command line on a busy machine
MARK = "RELUCATE_TEST_OF_KILLS"
NET = """
from torch import nn

def build(order="before"):
    norm = nn.BatchNorm1d(6)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(nn.Linear(5, 6), *steps, nn.Dropout(0.2), nn.Linear(6, 4))
"""


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_kills(seed, tmp_path):
    rng = random.Random(seed)
    place = prepared(tmp_path / "study")
    started = time.monotonic()
    assert start(place, "whole").wait(LIMIT) == 0
    usual = time.monotonic() - started  # seconds of an undisturbed study, to draw a kill's time
    kept, seen = {}, Counter()
    while seen.total() < KILLS:
        target = rng.choice(["driver", "worker", "group"])
        sent = rng.choice([[signal.SIGKILL], [signal.SIGTERM], [signal.SIGINT] * 2])
        process = start(place)
        time.sleep(rng.uniform(0, usual))
        if kill(process, place, target, sent, rng):
            seen[f"{target} {sent[0].name}"] += 1
        process.wait(LIMIT)
        check_no_process_is_left(place)
        kept = check_nothing_is_lost(place, kept)
        if process.returncode == 0:  # it was ready: start with half of the runs
            kept = halved(place)
    assert start(place).wait(LIMIT) == 0
    assert rows(place) == rows(place, "whole")
    assert bare(place, "out") == bare(place, "whole")
    assert list((place / "tmp").glob("relucate-*")) == []
    print(f"{seen.total()} kills: {dict(sorted(seen.items()))}")


def prepared(folder):
    """Return a folder with a network, data, and room for temporary files."""
    (folder / "tmp").mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    random = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (random.normal(size=(4, 5))[y] + random.normal(size=(120, 5))).astype("f4")
    np.savez(folder / "data.npz", x=x, y=y)
    return folder


def start(folder, out="out"):
    """Start or continue a study in a folder, in a process group of its own."""
    options = f"--data npz:data.npz --pairs 12 --jobs 2 --epochs 2 --out {out} --quiet --device cpu"
    return subprocess.Popen(
        [sys.executable, "-m", "relucate", "compare", "net.py:build", *options.split()],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), MARK: str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process, folder, target, sent, rng):
    """Send signals to the target; return whether it was there."""
    workers = [pid for pid, command in processes(folder) if "worker" in command]
    if process.poll() is not None or (target == "worker" and not workers):
        return False
    for number in sent:
        with suppress(ProcessLookupError):
            if target == "group":
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid if target == "driver" else rng.choice(workers), number)
        time.sleep(0.01)
    return True


def processes(folder):
    """Return (pid, command) of every process of a folder's studies, whoever started it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={folder}\0".encode() in (place / "environ").read_bytes() + b"\0":
                found.append((int(place.name), (place / "cmdline").read_text()))
    return found


def check_no_process_is_left(folder):
    deadline = time.monotonic() + 60
    while left := processes(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def rows(folder, out="out"):
    """Return what is stored of each run, without what it took."""
    path = folder / out / "runs.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as connection, connection:
        found = connection.execute("SELECT hash, status, result, per_example, kind FROM runs")
        kept = {row[0]: (row[1], untimed(row[2]), *row[3:]) for row in found}
    connection.close()
    return kept


def untimed(result):
    return {key: value for key, value in json.loads(result).items() if key != "seconds"}


def check_nothing_is_lost(folder, before):
    """Return the stored runs; those from before must be among them, and study.json whole."""
    now = rows(folder)
    assert {key: now.get(key) for key in before} == before
    path = folder / "out" / "study.json"
    if path.exists():
        read_study(path)
    return now


def halved(folder):
    """Remove half of the runs, so that there is something to do; return the others."""
    with closing(sqlite3.connect(folder / "out" / "runs.sqlite")) as connection, connection:
        connection.execute("DELETE FROM runs WHERE rowid % 2")
    connection.close()
    return rows(folder)


def bare(folder, out):
    """Return a study's document without what depends on the clock and on the command."""
    plain = read_study(folder / out / "study.json")
    for part in (plain, *plain["arms"], *plain["runs"]):
        part.pop("seconds")
    return {**plain, "created": "", "command": ""}

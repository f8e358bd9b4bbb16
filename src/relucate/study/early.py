"""Worker processes, started before their study is planned: they import while the data are read.

The local executor takes those that have the environment it needs; the others end. This is imported
before everything else of a study, so it imports little. Not here: what a worker does
(`executors.worker`), how many there are (`executors.local`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..cores import processes
from ..errors import InputError
from ..files import temporary_folder
from ..nets.registry import NETS
from .devices import Devices, likely_gpus
from .environment import own_gpu, variables

EARLY = "--early"  # tells a worker to import before it is told anything
_COMMAND = [sys.executable, "-P", "-m", "relucate.study.executors.worker"]


@dataclass
class Started:
    """A worker process and its output; that is open, and so can be read if the file is gone."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    environment: Mapping[str, str]


_waiting: list[Started] = []


def start(log: Path, environment: Mapping[str, str], *more: str) -> Started:
    """Start a worker process, which waits for a line on its standard input.

    Raises: OSError: it can't be started.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*_COMMAND, *more],
            stdin=subprocess.PIPE,  # stays open: it closes when the driver is gone
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the driver, which ends them
        )
    return Started(process, log.open("rb"), environment)


def end(started: Started) -> None:
    """Kill a worker and all processes of the user's code in it; a second call does nothing."""
    process = started.process
    if started.log.closed:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its own group
    process.kill()
    process.wait()
    started.log.close()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def take(environment: Mapping[str, str]) -> Started | None:
    """Return a process that waits in this very environment, None if there is none."""
    for started in _waiting:
        if started.environment == environment and started.process.poll() is None:
            _waiting.remove(started)
            return started
    return None


def end_waiting() -> None:
    """End the processes that no one has taken."""
    while _waiting:
        end(_waiting.pop())


@contextlib.contextmanager
def workers(model: Any, given: Mapping[str, Any]) -> Iterator[None]:
    """Start the workers of a study on this machine of one of our networks, or of a saved one.

    Another model's code may be about to set up its process first, before any import.

    Args: given: arguments of `compare`, not checked yet; what is wrong with them is found later.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(InputError, OSError):
            environments = list(_environments(model, given))
            if environments and not _waiting:
                folder = stack.enter_context(temporary_folder())
                stack.callback(end_waiting)
                for number, environment in enumerate(environments):
                    _waiting.append(start(folder / f"early{number}.log", environment, EARLY))
        yield


def _environments(model: Any, given: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the environment of each worker that will be wanted; none if that isn't known."""
    threads, jobs, pairs = (given.get(name) for name in ("threads", "jobs", "pairs"))
    devices = Devices.of(given.get("device", "auto"))
    if not (_is_known(model, given, devices) and _count(threads, 1) and _count(jobs, 0)):
        return
    gpus = likely_gpus(devices)
    if devices.kind == "cuda" and not gpus:  # PyTorch will say so
        return
    count = processes(jobs, threads or 1)
    if pairs is not None and _count(pairs, 1):
        count = min(count, 2 * pairs)
    for number in range(min(count, len(gpus) or count)):
        yield {**os.environ, **variables(threads or 1), **own_gpu(gpus, number)}


def _is_known(model: Any, given: Mapping[str, Any], devices: Devices) -> bool:
    """Return whether a network of ours, or a saved one, is trained on this machine."""
    ours = model is None or (isinstance(model, str) and (model in NETS or model.endswith(".keras")))
    executor, engine = given.get("executor", "local"), given.get("engine", "auto")
    imports = given.get("imports")
    named = isinstance(executor, str) and isinstance(engine, str)  # not an array, say
    usual = named and (executor, engine) == ("local", "auto")
    without = imports is None or (isinstance(imports, Sequence) and not imports)
    return ours and usual and without and devices.kind in ("auto", "cpu", "cuda")


def _count(value: Any, least: int) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and least <= value < 2**16)

"""Run tasks side by side in worker processes: the local executor.

Workers are fresh interpreters (`python -m relucate.study.worker`) that connect back over a local
socket, so a script needs no `__main__` guard and no state is inherited. A worker that dies takes
its task with it, not the study. Not here: what a task does (`work`), what is stored (`driver`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

from ..errors import InputError, Refused, RelucateError

_START_LIMIT = 120.0  # seconds for a worker to connect
_PATH_LIMIT = 100  # bytes that every system takes for a socket's path
_KEPT = str(2**32)  # bytes: no block is larger
_LEFT = object()  # the key of a task whose `run` was left: nobody waits for its events

Task = tuple[Any, dict[str, Any]]


@dataclass(frozen=True)
class Event:
    """What is heard about a task.

    epoch (data: EpochReport), done (data: the answer), error (data: kind and message), died (data:
    how the process ended), or silent: no worker said anything for `patience` seconds.
    """

    kind: str
    key: Any = None
    data: Any = None


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    connection: Connection | None = None
    key: Any = None
    busy: bool = False


@dataclass
class LocalExecutor:
    """A fixed number of worker processes with `threads` threads each.

    setup: what every worker gets before its first task (data folder, builder); patience: seconds
    after which a silence becomes an event. Use as a context manager: leaving it ends the workers
    and what they started, whatever they are doing; a driver that is killed takes them along.
    """

    jobs: int
    threads: int
    setup: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 30.0

    def __enter__(self) -> LocalExecutor:
        self._folder = tempfile.TemporaryDirectory(prefix="relucate-")
        self._key = secrets.token_bytes(32)
        self._listener = _listen(Path(self._folder.name), self._key, self.jobs)
        self.workers: list[_Worker] = []
        try:
            for number in range(self.jobs):
                self.workers.append(self._start(number))
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.connection is not None:
                worker.connection.close()
            _end(worker.process)
        self._listener.close()
        self._folder.cleanup()

    def _start(self, number: int) -> _Worker:
        log = Path(self._folder.name) / f"worker{number}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relucate.study.worker"],
                stdin=subprocess.PIPE,  # stays open: its end tells a worker that the driver is gone
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**_environment(self.threads), **self.environment},
                start_new_session=True,  # Ctrl-C goes to the driver alone, which then ends them
            )
        hello = {"address": self._listener.address, "key": self._key.hex(), "number": number}
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it died at once: `_connect` finds that
                process.stdin.write(json.dumps(hello).encode() + b"\n")
                process.stdin.flush()
        return _Worker(process, log)

    def _connect(self) -> None:
        """Accept every worker's connection and send it the set-up."""
        deadline = time.monotonic() + _START_LIMIT
        listening = self._listener._listener._socket  # type: ignore[attr-defined]
        listening.settimeout(0.2)
        while waiting := [w for w in self.workers if w.connection is None]:
            dead = next((w for w in waiting if w.process.poll() is not None), None)
            if dead is not None or time.monotonic() > deadline:
                raise _start_failure(dead or waiting[0])
            with contextlib.suppress(TimeoutError, EOFError, OSError, AuthenticationError):
                connection = self._listener.accept()
                worker = self.workers[connection.recv()]
                connection.send(self.setup)
                worker.connection = connection

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Run (key, task) pairs and yield what happens; tasks start in the order given.

        The iterable is drawn from lazily, one task for each free worker, so that a caller that has
        seen enough can stop giving, or leave: a worker that is still busy then finishes its task
        first, and nothing of it shows up in the next `run`.
        """
        source = iter(tasks)
        for worker in self.workers:
            worker.key = _LEFT
        yield from self._feed(source)
        while busy := [worker for worker in self.workers if worker.busy]:
            ready = wait([w.connection for w in busy if w.connection], self.patience)
            events = [self._receive(worker) for worker in busy if worker.connection in ready]
            # What is finished comes first: the caller may leave at an error.
            for event in sorted(events, key=lambda event: event.kind in ("error", "died")):
                if event.key is not _LEFT:
                    yield event
            if not ready:
                yield Event("silent", data=[worker.key for worker in busy])
            yield from self._feed(source)

    def _feed(self, source: Iterator[Task]) -> list[Event]:
        """Give each free worker a task; return an event for each that turns out to be dead."""
        events = []
        for worker in self.workers:
            if worker.busy or worker.connection is None:
                continue
            item = next(source, None)
            if item is None:
                break
            worker.key, task = item
            try:
                worker.connection.send(task)
                worker.busy = True
            except OSError:
                events.append(self._bury(worker))
        return events

    def _receive(self, worker: _Worker) -> Event:
        connection = worker.connection
        if connection is None:
            raise _start_failure(worker)
        try:
            kind, data = connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        worker.busy = kind == "epoch"  # before anyone hears of it: the caller may leave
        return Event(kind, worker.key, data)

    def _bury(self, worker: _Worker) -> Event:
        """Take a worker that hung up out of service."""
        if worker.connection is not None:
            worker.connection.close()
        worker.connection, worker.busy = None, False
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(5)
        _end(worker.process)
        return Event("died", worker.key, _death(worker))

    @property
    def alive(self) -> int:
        """How many workers still work."""
        return sum(worker.connection is not None for worker in self.workers)


def _listen(folder: Path, key: bytes, backlog: int) -> Listener:
    """Listen where only this user can connect; over TCP (with the same key) if the path is long."""
    address = str(folder / "driver")
    if hasattr(socket, "AF_UNIX") and len(os.fsencode(address)) <= _PATH_LIMIT:
        return Listener(address, "AF_UNIX", backlog=backlog, authkey=key)
    return Listener(("127.0.0.1", 0), "AF_INET", backlog=backlog, authkey=key)


def _environment(threads: int) -> dict[str, str]:
    """Return this process's environment, with the number of threads for every framework.

    glibc gives large blocks back to the system as soon as they are free, and has every page of the
    next one zeroed anew: a tenth of a training step, a third of an evaluation on a CPU. Here it
    keeps them (other systems don't read these variables).
    """
    count = str(threads)
    environment = {
        "MALLOC_MMAP_THRESHOLD_": _KEPT,
        "MALLOC_TRIM_THRESHOLD_": _KEPT,
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count),
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "agg",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS may give other bits in every run
        "PYTHONPATH": os.pathsep.join(import_path()),
    }
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return environment


def import_path() -> list[str]:
    """Return `sys.path` for another process: an interactive session's own folder has no name."""
    return [path or os.getcwd() for path in sys.path]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and what the user's code started in it."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _start_failure(worker: _Worker) -> RelucateError:
    return InputError(f"a worker process didn't start. Its last words: {_tail(worker.log)}")


def _death(worker: _Worker) -> str:
    code = worker.process.returncode
    killed = " (killed; out of memory?)" if code in (-9, 137) else ""
    return (
        f"the worker process ended with code {code}{killed}: the builder, or a library that it "
        f"uses, ended it. Its last words: {_tail(worker.log)}"
    )


def _tail(log: Path, lines: int = 5) -> str:
    with contextlib.suppress(OSError):
        text = log.read_text(errors="replace").strip().splitlines()
        return " / ".join(text[-lines:]) or "(nothing)"
    return "(no log)"


def raise_remote(data: Any) -> None:
    """Raise an error that a worker caught, as the kind that it was there."""
    name, message = data
    kinds: dict[str, Callable[[str], RelucateError]] = {"Refused": Refused}
    raise kinds.get(name, InputError)(message)

"""Run tasks side by side in worker processes: the local executor.

Workers are fresh interpreters (`python -m relucate.study.worker`) that connect back over a local
socket, so a script needs no `__main__` guard and no state is inherited. A worker that dies takes
its task with it, not the study. Not here: what a task does (`work`), what is stored (`driver`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

from ..errors import InputError, Refused, RelucateError

_START_LIMIT = 120.0  # seconds for a worker to connect


@dataclass(frozen=True)
class Event:
    """What a worker says about a task: `epoch` (data: EpochReport), `done` or `error`."""

    kind: str
    key: Any
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

    setup: what every worker gets before its first task (data folder, builder). Use as a context
    manager: leaving it ends the workers, whatever they are doing.
    """

    jobs: int
    threads: int
    setup: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> LocalExecutor:
        self._folder = tempfile.TemporaryDirectory(prefix="relucate-")
        self._key = secrets.token_bytes(32)
        self._listener = Listener(authkey=self._key, backlog=self.jobs)
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
            worker.process.kill()
            worker.process.wait()
        self._listener.close()
        self._folder.cleanup()

    def _start(self, number: int) -> _Worker:
        log = Path(self._folder.name) / f"worker{number}.log"
        count = str(self.threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count),
            "TF_NUM_INTRAOP_THREADS": count,
            "TF_NUM_INTEROP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "MPLBACKEND": "agg",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **self.environment,
        }
        if self.threads == 1:
            flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "relucate.study.worker"],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C goes to the driver alone, which then ends them
            )
        if process.stdin is not None:
            process.stdin.write(f"{self._listener.address}\n{self._key.hex()}\n".encode())
            process.stdin.close()
        return _Worker(process, log)

    def _connect(self) -> None:
        """Accept every worker's connection and send it the set-up."""
        waiting = list(self.workers)
        deadline = time.monotonic() + _START_LIMIT
        listener = self._listener._listener._socket  # type: ignore[attr-defined]
        listener.settimeout(0.2)
        while waiting:
            try:
                connection = self._listener.accept()
            except TimeoutError:
                dead = next((w for w in waiting if w.process.poll() is not None), None)
                if dead is not None or time.monotonic() > deadline:
                    raise _start_failure(dead or waiting[0]) from None
                continue
            pid = connection.recv()
            worker = next(w for w in waiting if w.process.pid == pid)
            worker.connection = connection
            connection.send(self.setup)
            waiting.remove(worker)

    def run(self, tasks: Iterable[tuple[Any, dict[str, Any]]]) -> Iterator[Event]:
        """Run (key, task) pairs and yield what happens; tasks start in the order given.

        The iterable is drawn from lazily, one task for each free worker, so that a caller that has
        seen enough can stop giving.
        """
        source = iter(tasks)
        self._feed(source)
        while any(worker.busy for worker in self.workers):
            ready = wait([w.connection for w in self.workers if w.busy and w.connection])
            for worker in [w for w in self.workers if w.connection in ready]:
                event = self._receive(worker)
                worker.busy = event.kind == "epoch"  # before the yield: the caller may stop here
                yield event
            self._feed(source)

    def _feed(self, source: Iterator[tuple[Any, dict[str, Any]]]) -> None:
        for worker in self.workers:
            if worker.busy or worker.connection is None:
                continue
            item = next(source, None)
            if item is None:
                return
            worker.key, task = item
            worker.connection.send(task)
            worker.busy = True

    def _receive(self, worker: _Worker) -> Event:
        connection = worker.connection
        if connection is None:
            raise _start_failure(worker)
        try:
            kind, data = connection.recv()
        except (EOFError, OSError):
            connection.close()
            worker.connection = None
            worker.process.wait()
            return Event("died", worker.key, _death(worker))
        return Event(kind, worker.key, data)

    @property
    def alive(self) -> int:
        """How many workers still work."""
        return sum(worker.connection is not None for worker in self.workers)


def _start_failure(worker: _Worker) -> RelucateError:
    return InputError(f"a worker process didn't start. Its last words: {_tail(worker.log)}")


def _death(worker: _Worker) -> str:
    code = worker.process.returncode
    killed = " (killed; out of memory?)" if code in (-9, 137) else ""
    return f"the worker process ended with code {code}{killed}: {_tail(worker.log)}"


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

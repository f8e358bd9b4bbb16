"""The local executor: runs tasks in parallel worker processes.

Workers are new interpreters (`python -m relucate.study.executors.worker`) that connect back over a
local socket, so a script needs no `__main__` guard and no state is inherited. If a worker dies,
only its task is lost: the next task gets a new worker. Not here: what a task does (`perform`),
whether it is repeated and what is stored (`driver`).
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
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import IO

from ...errors import InputError
from ...files import temporary_folder
from ...phrases import count
from ..source import pickled
from .environment import import_path, variables
from .protocol import Crowded, Died, Epoch, Event, Failed, Setup, Task
from .watched import Watched

_START_LIMIT = 120.0  # seconds for a worker to connect, and to import what it needs
_PATH_LIMIT = 100  # bytes that every system allows for a socket's path
_TAIL = 10_000  # bytes at the end of a worker's output that are read


@dataclass
class _Worker(Watched):
    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]  # its output; kept open, so that it can be read even if the folder is gone
    connection: Connection | None = None
    retired: bool = False  # it gets no more tasks

    def give(self, task: Task, patience: float) -> None:
        """Send it a task; until its first message it may still be starting."""
        self.take(task, patience, _START_LIMIT)
        if self.connection is not None:
            self.connection.send(task)


@dataclass
class LocalExecutor:
    """`setup.jobs` worker processes with `setup.threads` threads each.

    environment: variables for the workers besides this process's; patience: seconds after which a
    task's silence becomes an event, and again after twice as many. Use it as a context manager:
    leaving it ends the workers and the processes that they started at once; they also end if the
    driver is killed.
    """

    setup: Setup
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 30.0

    def __enter__(self) -> LocalExecutor:
        self._stack = contextlib.ExitStack()
        self.workers: list[_Worker] = []
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder())
            if self.setup.data is not None:
                self.setup.data.save(self._folder / "data")
            self._key = secrets.token_bytes(32)
            self._listener = _listen(self._folder, self._key, self.setup.jobs)
            stack.callback(self._end)
            for number in range(self.setup.jobs):
                self.workers.append(self._start(number))
            self._connect(self.workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for worker in self.workers:
            if worker.connection is not None:
                worker.connection.close()
            _end(worker)
        with contextlib.suppress(OSError):  # the socket's folder may be gone
            self._listener.close()

    def _start(self, number: int) -> _Worker:
        log = self._folder / f"worker{number}.log"
        try:
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "relucate.study.executors.worker"],
                    stdin=subprocess.PIPE,  # stays open: it closes when the driver is gone
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        **variables(self.setup.threads),
                        **_own_gpu(self.setup.gpus, number),
                        **self.environment,
                    },
                    start_new_session=True,  # Ctrl-C reaches only the driver, which ends them
                )
            output = log.open("rb")
        except OSError as error:
            raise InputError(f"a worker process can't be started: {error}.") from error
        hello = {"address": self._listener.address, "key": self._key.hex(), "number": number}
        if process.stdin is not None:  # it is a pipe
            with contextlib.suppress(OSError):  # it died at once: `_connect` reports that
                process.stdin.write(json.dumps(hello).encode() + b"\n")
                process.stdin.flush()
        return _Worker(number, process, output)

    def _connect(self, started: list[_Worker]) -> None:
        """Accept the connection of every worker that was just started and send it the set-up."""
        deadline = time.monotonic() + _START_LIMIT
        setup = {
            "source": self.setup.source,
            "data": None if self.setup.data is None else str(self._folder / "data"),
            "threads": self.setup.threads,
            "task": pickled(self.setup.task, type(self.setup.task).__module__),
            "path": import_path(),
        }
        listening = self._listener._listener._socket  # type: ignore[attr-defined]
        listening.settimeout(0.2)
        while waiting := [w for w in started if w.connection is None]:
            dead = next((w for w in waiting if w.process.poll() is not None), None)
            if dead is not None or time.monotonic() > deadline:
                last = _last_words((dead or waiting[0]).log)
                raise InputError(f"a worker process didn't start. {last}")
            with contextlib.suppress(TimeoutError, EOFError, OSError, AuthenticationError):
                connection = self._listener.accept()
                worker = self.workers[connection.recv()]
                connection.send(setup)
                worker.connection = connection

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Run tasks and yield what happens (see `Executor`).

        A worker that is still busy with a task of an earlier `run` finishes it first.
        """
        source = iter(tasks)
        for worker in self.workers:
            worker.wanted = False
        while events := self._feed(source) or self._hear():
            # Finished tasks come first: the caller may leave at an error.
            for event in sorted(events, key=lambda event: isinstance(event, Failed | Died)):
                if event is not None:
                    yield event

    def _feed(self, source: Iterator[Task | None]) -> list[Event | None]:
        """Give each free worker a task; return an event for each worker that is dead."""
        events: list[Event | None] = []
        for worker in sorted(self.workers, key=lambda worker: worker.connection is None):
            if worker.busy or worker.retired:
                continue
            task = next(source, None)
            if task is None:
                break
            if worker.connection is None:
                worker = self._replace(worker)
            try:
                worker.give(task, self.patience)
            except OSError:
                events.append(self._bury(worker))
        return events

    def _hear(self) -> list[Event | None]:
        """Wait for news of the busy workers; return an entry for each: an event, or None.

        Empty: no worker is busy.
        """
        busy = {w.connection: w for w in self.workers if w.busy and w.connection is not None}
        pause = min((worker.next_look for worker in busy.values()), default=0) - time.monotonic()
        ready = wait(list(busy), max(0.0, min(pause, self.patience)))
        return [
            self._receive(worker, line) if line in ready else self._watch(worker)
            for line, worker in busy.items()
        ]

    def _receive(self, worker: _Worker, connection: Connection) -> Event | None:
        try:
            event = connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        worker.listen(self.patience)
        if event is None:  # it starts its task now
            worker.deadline = worker.heard + (worker.task.limit or float("inf"))
            return None
        worker.busy = isinstance(event, Epoch)  # before it is yielded: the caller may leave
        if isinstance(event, Crowded):
            event = self._relieved(worker, event)
        return event if worker.wanted else None

    def _relieved(self, worker: _Worker, event: Crowded) -> Event:
        """End a worker for which its GPU has no memory, unless it is the only one there."""
        gpus = max(len(self.setup.gpus), 1)
        there = [w for w in self.workers if w.number % gpus == worker.number % gpus]
        left = sum(not w.retired for w in there) - 1
        if not left:
            return Failed(
                event.key,
                InputError(
                    "one run alone needs more memory than its GPU has: set a smaller batch_size "
                    f"(--batch-size), or train on another device (--device cpu). {event.reason}"
                ),
            )
        worker.retired = True
        self._bury(worker, event.reason)
        reason = f"its GPU has too little memory for {count(left + 1, 'run')} side by side"
        return Crowded(event.key, f"{reason}; {count(left, 'run')} from now on. {event.reason}")

    def _watch(self, worker: _Worker) -> Event | None:
        """Return an event if a worker has been silent too long."""
        late = worker.overdue
        return self._bury(worker, late) if late else worker.silence()

    def _bury(self, worker: _Worker, reason: str = "") -> Event | None:
        """End a worker that closed its connection or took too long; return the event."""
        if worker.connection is not None:
            worker.connection.close()
        worker.connection, worker.busy = None, False
        if not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(5)
            reason = _death(worker)
        _end(worker)
        return Died(worker.task.key, reason) if worker.wanted else None

    def _replace(self, worker: _Worker) -> _Worker:
        """Start a worker in the place of one that died."""
        started = self._start(worker.number)
        self.workers[worker.number] = started
        self._connect([started])
        return started

    @property
    def alive(self) -> int:
        """The number of living workers."""
        return sum(worker.connection is not None for worker in self.workers)


def _listen(folder: Path, key: bytes, backlog: int) -> Listener:
    """Listen where only this user can connect, or over TCP with the key if the path is long."""
    address = str(folder / "driver")
    if hasattr(socket, "AF_UNIX") and len(os.fsencode(address)) <= _PATH_LIMIT:
        return Listener(address, "AF_UNIX", backlog=backlog, authkey=key)
    return Listener(("127.0.0.1", 0), "AF_INET", backlog=backlog, authkey=key)


def _own_gpu(gpus: tuple[str, ...], number: int) -> dict[str, str]:
    """Return the variable by which worker `number` sees one of the GPUs, in turn, and no other."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def _end(worker: _Worker) -> None:
    """Kill a worker and all processes of the user's code in it; a second call does nothing."""
    process = worker.process
    if worker.log.closed:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its own group
    process.kill()
    process.wait()
    worker.log.close()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _death(worker: _Worker) -> str:
    code = worker.process.poll()
    if code is None:
        return f"the worker process hung up. {_last_words(worker.log)}"
    killed = " (killed; out of memory?)" if code in (-9, 137) else ""
    return (
        f"the worker process ended with code {code}{killed}: your function, or a library that "
        f"it uses, ended it. {_last_words(worker.log)}"
    )


def _last_words(log: IO[bytes], lines: int = 5) -> str:
    """Return the end of a worker's output."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
    text = log.read().decode(errors="replace").strip().splitlines()
    return f"Its last words: {' / '.join(text[-lines:]) or '(nothing)'}"

"""The local executor: runs tasks in parallel worker processes.

Workers are new interpreters (`python -m relucate.study.executors.worker`) that connect back over a
local socket, so a script needs no `__main__` guard and no state is inherited. If a worker dies,
only its tasks are lost: the next task gets a new worker. On a GPU one worker has several tasks,
which take turns. Not here: what a task does (`perform`), whether it is repeated and what is stored
(`driver`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import IO

from ...errors import InputError
from ...files import temporary_folder
from ...phrases import count
from ..early import Started, end, end_waiting, start, take
from ..environment import import_path, own_gpu, variables
from ..pickling import pickled
from .protocol import Crowded, Died, Epoch, Event, Failed, Setup, Task
from .watched import Watched

_START_LIMIT = 120.0  # seconds for a worker to connect, and to import what it needs
_PATH_LIMIT = 100  # bytes that every system allows for a socket's path
_LESS = 16  # tasks in a process after one that several lost: alone after four more, none gives up
_TAIL = 10_000  # bytes at the end of a worker's output that are read


@dataclass
class _Worker:
    number: int
    started: Started
    connection: Connection | None = None
    retired: bool = False  # it gets no more tasks
    seats: int = 1  # tasks at the same time
    works: dict[int, Watched] = field(default_factory=dict)  # its tasks, by number

    def give(self, number: int, task: Task, patience: float) -> None:
        """Send it a task; until its first message it may still be starting."""
        work = self.works[number] = Watched()
        work.take(task, patience, _START_LIMIT)
        if self.connection is not None:
            self.connection.send((number, task))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the operating system."""
        return self.started.process

    @property
    def free(self) -> bool:
        """Whether it takes another task."""
        return not self.retired and len(self.works) < self.seats


@dataclass
class LocalExecutor:
    """`setup.jobs` worker processes with `setup.threads` threads each.

    If there are GPUs, there is one for each of them at first (see `arrange`).

    environment: variables for the workers besides this process's; patience: seconds after which a
    task's silence becomes an event, and again after twice as many. Use it as a context manager:
    leaving it ends the workers and the processes that they started at once; they also end if the
    driver is killed.
    """

    setup: Setup
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 30.0
    measured: Mapping[int, float] | None = None

    def __enter__(self) -> LocalExecutor:
        self._stack = contextlib.ExitStack()
        self.workers: list[_Worker] = []
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder())
            if self.setup.data is not None:
                self.setup.data.save(self._folder / "data")
            self._key = secrets.token_bytes(32)
            self._listener = _listen(self._folder, self._key)
            stack.callback(self._end)
            self._numbers = itertools.count()
            self._grow(min(self.setup.jobs, len(self.setup.gpus) or self.setup.jobs))
            end_waiting()
            self._stack = stack.pop_all()
        return self

    def _grow(self, size: int) -> None:
        """Start workers until there are so many."""
        started = [self._start(number) for number in range(len(self.workers), size)]
        self.workers += started
        self._connect(started)

    def arrange(self, side: int, jobs: int) -> None:
        """Let so many runs take turns in each worker, or with side=1 start `jobs` workers."""
        if side == 1:
            self._grow(jobs)
        for place, worker in enumerate(self.workers):
            more = place < jobs % len(self.workers)
            worker.seats = 1 if side == 1 else min(side, jobs // len(self.workers) + more)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for worker in self.workers:
            if worker.connection is not None:
                worker.connection.close()
            end(worker.started)
        with contextlib.suppress(OSError):  # the socket's folder may be gone
            self._listener.close()

    def _start(self, number: int) -> _Worker:
        environment = {
            **os.environ,
            **variables(self.setup.threads),
            **own_gpu(self.setup.gpus, number),
            **self.environment,
        }
        log = self._folder / f"worker{number}.log"
        try:
            started = take(environment) or start(log, environment)
        except OSError as error:
            raise InputError(f"a worker process can't be started: {error}.") from error
        hello = {"address": self._listener.address, "key": self._key.hex(), "number": number}
        stdin = started.process.stdin
        if stdin is not None:  # it is a pipe
            with contextlib.suppress(OSError):  # it died at once: `_connect` reports that
                stdin.write(json.dumps(hello).encode() + b"\n")
                stdin.flush()
        return _Worker(number, started)

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
                last = _last_words((dead or waiting[0]).started.log)
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
        for work in (work for worker in self.workers for work in worker.works.values()):
            work.wanted = False
        while events := self._feed(source) or self._hear():
            # Finished tasks come first: the caller may leave at an error.
            for event in sorted(events, key=lambda event: isinstance(event, Failed | Died)):
                if event is not None:
                    yield event

    def _feed(self, source: Iterator[Task | None]) -> list[Event | None]:
        """Give free workers a task each; return an event for each task of one that is dead."""
        events: list[Event | None] = []
        while free := [worker for worker in self.workers if worker.free]:
            task = next(source, None)
            if task is None:
                break
            worker = min(free, key=lambda worker: (len(worker.works), worker.connection is None))
            if worker.connection is None:
                worker = self._replace(worker)
            try:
                worker.give(next(self._numbers), task, self.patience)
            except OSError:
                events += self._bury(worker)
        return events

    def _hear(self) -> list[Event | None]:
        """Wait for news of the busy workers; return an entry for each: an event, or None.

        Empty: no worker is busy.
        """
        busy = {w.connection: w for w in self.workers if w.works and w.connection is not None}
        looks = [work.next_look for worker in busy.values() for work in worker.works.values()]
        pause = min(looks, default=0.0) - time.monotonic()
        ready = wait(list(busy), max(0.0, min(pause, self.patience)))
        return [
            event
            for line, worker in busy.items()
            for event in (self._receive(worker, line) if line in ready else self._watch(worker))
        ]

    def _receive(self, worker: _Worker, connection: Connection) -> list[Event | None]:
        try:
            number, event = connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        work = worker.works[number]
        work.listen(self.patience)
        if event is None:  # it starts its task now
            work.deadline = work.heard + (work.task.limit or float("inf"))
            return [None]
        if not isinstance(event, Epoch):  # before it is yielded: the caller may leave
            del worker.works[number]
        if isinstance(event, Crowded):
            return self._relieved(worker, work, event)
        return [event if work.wanted else None]

    def _relieved(self, worker: _Worker, work: Watched, event: Crowded) -> list[Event | None]:
        """Leave a GPU without memory fewer runs, unless there was only one."""
        gpus = max(len(self.setup.gpus), 1)
        there = [w for w in self.workers if w.number % gpus == worker.number % gpus]
        left = sum(w.seats for w in there if not w.retired) - 1
        alone = worker.seats > 1 and not any(w.works for w in there)
        if not left or alone:
            error = InputError(
                "one run alone needs more memory than its GPU has: set a smaller batch_size "
                f"(--batch-size), or train on another device (--device cpu). {event.reason}"
            )
            return [Failed(event.key, error) if work.wanted else None]
        lost: list[Event | None] = []
        if worker.seats > 1:
            worker.seats -= 1
        else:
            worker.retired = True
            lost = self._bury(worker, event.reason)
        reason = f"its GPU has too little memory for {count(left + 1, 'run')} side by side"
        crowded = Crowded(event.key, f"{reason}; {count(left, 'run')} from now on. {event.reason}")
        return [*lost, crowded if work.wanted else None]

    def _watch(self, worker: _Worker) -> list[Event | None]:
        """Return an event for each task that has been silent too long."""
        late = next((work for work in worker.works.values() if work.overdue), None)
        if late is not None:
            return self._bury(worker, late.overdue, late)
        return [work.silence() for work in worker.works.values()] or [None]

    def _bury(
        self, worker: _Worker, reason: str = "", cause: Watched | None = None
    ) -> list[Event | None]:
        """End a worker that closed its connection or took too long; return its tasks' events.

        cause: the task that took too long. If one of several tasks ended the process, no one knows
        which: fewer share the next one, and none of them is to blame yet.
        """
        if worker.connection is not None:
            worker.connection.close()
        worker.connection = None
        if not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(5)
            reason = _death(worker)
        end(worker.started)
        works, worker.works = list(worker.works.values()), {}
        shared = len(works) > 1
        if shared and cause is None:
            worker.seats = max(1, min(worker.seats // 2, _LESS))
        return [
            Died(work.task.key, reason, machine=shared and work is not cause)
            if work.wanted
            else None
            for work in works
        ] or [None]

    def _replace(self, worker: _Worker) -> _Worker:
        """Start a worker in the place of one that died."""
        started = self._start(worker.number)
        started.seats = worker.seats
        self.workers[worker.number] = started
        self._connect([started])
        return started

    @property
    def alive(self) -> int:
        """The number of living workers."""
        return sum(worker.connection is not None for worker in self.workers)


def _listen(folder: Path, key: bytes) -> Listener:
    """Listen where only this user can connect, or over TCP with the key if the path is long."""
    address = str(folder / "driver")
    if hasattr(socket, "AF_UNIX") and len(os.fsencode(address)) <= _PATH_LIMIT:
        return Listener(address, "AF_UNIX", backlog=socket.SOMAXCONN, authkey=key)
    return Listener(("127.0.0.1", 0), "AF_INET", backlog=socket.SOMAXCONN, authkey=key)


def _death(worker: _Worker) -> str:
    code = worker.process.poll()
    if code is None:
        return f"the worker process hung up. {_last_words(worker.started.log)}"
    killed = " (killed; out of memory?)" if code in (-9, 137) else ""
    return (
        f"the worker process ended with code {code}{killed}: your function, or a library that "
        f"it uses, ended it. {_last_words(worker.started.log)}"
    )


def _last_words(log: IO[bytes], lines: int = 5) -> str:
    """Return the end of a worker's output."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
    text = log.read().decode(errors="replace").strip().splitlines()
    return f"Its last words: {' / '.join(text[-lines:]) or '(nothing)'}"

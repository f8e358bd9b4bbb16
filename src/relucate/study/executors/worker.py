"""A worker process: connect to the local executor, take tasks, answer with events.

Started by `local` as `python -m relucate.study.executors.worker`, with one line on standard input:
where to connect, key, number. Any error in a task becomes an answer, and the process continues. It
ends when the driver ends, even in the middle of a task: standard input closes then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Client, Connection
from typing import Any

from ... import frameworks
from ...train.run import EpochReport
from ...train.waiting import Ready
from ..early import EARLY
from .perform import as_ours
from .prepared import Prepared, import_ahead
from .protocol import Crowded, Done, Epoch, Event, Failed
from .protocol import Task as Work

_PAUSE = 1e-3  # seconds between looks at devices that work; they have more steps ahead
_SWITCH = 2e-4  # seconds after which another thread may run; one needs a moment for each step
_LOST = 70  # exit code of a worker whose GPU is gone

# Ends the worker's process group when standard input closes. A thread can't do that while the
# user's code holds the GIL in a long C call; and a parent-death signal would end only the worker,
# not the processes that the user's code started.
_GUARD = "exec 3<&0; { while read -r line; do :; done <&3; kill -KILL 0; } >/dev/null 2>&1 &"


def main() -> None:
    """Answer tasks until the driver closes the connection."""
    sys.setswitchinterval(_SWITCH)
    if EARLY in sys.argv:
        import_ahead()
    line = _take_over_stdin()
    if not line:  # the driver is gone
        return
    hello = json.loads(line)
    address = hello["address"]
    connection = Client(
        tuple(address) if isinstance(address, list) else address,
        authkey=bytes.fromhex(hello["key"]),
    )
    if hasattr(os, "register_at_fork"):  # a child process of the user's code must not keep it open
        os.register_at_fork(after_in_child=connection.close)
    try:
        connection.send(hello["number"])
        setup = connection.recv()
        sys.path[:0] = [path for path in setup["path"] if path not in sys.path]
        _Server(connection, setup).serve()
    except (EOFError, ConnectionError):  # the driver is gone
        return


def _take_over_stdin() -> bytes:
    """Return the driver's line; then watch the pipe for its end, and give user code no input."""
    pipe = os.dup(0)
    with open(0, "rb", buffering=0, closefd=False) as stream:
        line = stream.readline()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if os.name == "posix" and os.getpgrp() == os.getpid():
        with contextlib.suppress(OSError):  # no shell
            subprocess.run(["/bin/sh", "-c", _GUARD], stdin=pipe, check=False)
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    return line


def _follow(pipe: int) -> None:
    """End this process, and the user's processes in it, as soon as the driver is gone."""
    while os.read(pipe, 1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class _Server:
    """Takes tasks from the driver and answers them, only in this process.

    Several tasks take turns: while the device of one works, another goes on.
    """

    def __init__(self, connection: Connection, setup: dict[str, Any]) -> None:
        self._connection = connection
        self._setup = setup
        self._process = os.getpid()
        self._prepared: Prepared | None = None
        self._works: dict[int, tuple[Work, Generator[Ready, None, Any]]] = {}
        self._ready: dict[int, Ready] = {}  # what the tasks wait for

    def serve(self) -> None:
        """Answer tasks in an endless loop."""
        with contextlib.suppress(Exception, SystemExit):  # a task reports the same error
            self._prepare().warm_up()
        while True:
            able = [number for number, ready in self._ready.items() if ready()]
            self._take(0.0 if able else _PAUSE if self._works else None)
            for number in able:
                self._go_on(number)

    def _take(self, pause: float | None) -> None:
        """Take the tasks that have come; wait so many seconds for the first, None: as it takes."""
        while self._connection.poll(pause):
            number, task = self._connection.recv()
            self._say(number, None)  # started: from now on the driver waits for this task
            self._works[number] = task, self._answering(number, task)
            self._ready[number] = _at_once
            pause = 0.0

    def _prepare(self) -> Prepared:
        self._prepared = self._prepared or Prepared(self._setup)
        return self._prepared

    def _answering(self, number: int, task: Work) -> Generator[Ready, None, Event]:
        def on_epoch(report: EpochReport) -> None:
            self._say(number, Epoch(task.key, report))

        answer = yield from self._prepare().performing(task, on_epoch)
        return Done(task.key, answer)

    def _go_on(self, number: int) -> None:
        """Let a task go on until it waits again, or is done."""
        task, answering = self._works[number]
        try:
            self._ready[number] = next(answering)
            return
        except StopIteration as end:
            event = end.value
        except (BrokenPipeError, ConnectionResetError):
            raise
        except (Exception, SystemExit) as error:
            event = _event_of(task, error)
        del self._works[number], self._ready[number], answering
        self._say(number, event)

    def _say(self, number: int, event: Event | None) -> None:
        if os.getpid() != self._process:  # this is a child that the user's code forked
            os._exit(0)
        self._connection.send((number, event))


def _at_once() -> bool:
    return True


def _event_of(task: Work, error: BaseException) -> Event:
    """Return what becomes of a task that raised an error."""
    match frameworks.trouble(error):
        case "memory":
            return Crowded(task.key, str(as_ours(error)))
        case "device":  # nothing can be computed there in this process any more
            print(f"the GPU doesn't answer any more: {error}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(_LOST)
    return Failed(task.key, as_ours(error))


if __name__ == "__main__":
    main()

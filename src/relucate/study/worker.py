"""A worker process: connect to the driver, take tasks, answer with plain data.

Started by `executor` as `python -m relucate.study.worker`, with one line on standard input: where
to connect, key, number. Whatever goes wrong in a task becomes an answer; the process lives on. It
ends when the driver does, even in the middle of a task: standard input closes then.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Client, Connection
from typing import Any

from .. import frameworks
from ..backend import use_backend
from ..data.dataset import Dataset
from ..errors import RelucateError
from ..frameworks import HOST
from ..train.run import EpochReport, RunSpec
from .arms import Arm
from .source import ModelSource
from .tasks import execute, inspect_arms

# What Keras imports if it is there, for plots, wrappers and checkpoints: half of its import's time.
_EXTRAS = ("jax", "matplotlib", "pandas", "scipy", "sklearn")


class _Tasks:
    """The worker's state between tasks: its set-up and the opened data set."""

    def __init__(self, connection: Connection, setup: dict[str, Any]) -> None:
        self.connection = connection
        self.source: ModelSource = setup["source"]
        self.backend = use_backend()
        frameworks.limit_threads(setup["threads"])
        self.data = Dataset.open(setup["data"])

    def warm_up(self) -> None:
        """Import what the first task will need: seconds that pass for all workers at once."""
        if self.source.kind in {"net", "saved"}:
            with _left_out(_EXTRAS if self.backend == HOST else ()):
                importlib.import_module("keras")
        else:
            self.source.code()  # loads the builder, and with it what that imports
        frameworks.warm_up()

    def inspect(self, task: dict[str, Any]) -> Any:
        """Inspect all arms."""
        arms = [Arm.from_dict(arm) for arm in task["arms"]]
        return inspect_arms(
            self.source,
            arms,
            self.data.input_shape,
            self.data.classes,
            engine=task["engine"],
            device=task["device"],
        )

    def run(self, task: dict[str, Any]) -> Any:
        """Train one run, telling the driver after each epoch."""
        spec = RunSpec(**task["spec"])

        def on_epoch(report: EpochReport) -> None:
            self.connection.send(("epoch", report))

        return execute(spec, self.source, self.data, on_epoch)


@contextlib.contextmanager
def _left_out(names: Iterable[str]) -> Iterator[None]:
    """Let packages seem not to be installed, for an import that can do without them."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: an import fails
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def main() -> None:
    """Serve tasks until the driver hangs up."""
    hello = json.loads(_take_over_stdin())
    address = hello["address"]
    connection = Client(
        tuple(address) if isinstance(address, list) else address,
        authkey=bytes.fromhex(hello["key"]),
    )
    connection.send(hello["number"])
    try:
        setup = connection.recv()
        sys.path[:0] = [path for path in setup["path"] if path not in sys.path]
        _serve(connection, setup)
    except (EOFError, ConnectionError):  # the driver is gone
        return


def _take_over_stdin() -> bytes:
    """Return the driver's line; then follow its end of the pipe, and leave user code no input."""
    pipe = os.dup(0)
    with open(0, "rb", buffering=0, closefd=False) as stream:
        line = stream.readline()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    return line


def _follow(pipe: int) -> None:
    """End this process, and what the user's code started in it, as soon as the driver is gone."""
    while os.read(pipe, 1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _serve(connection: Connection, setup: dict[str, Any]) -> None:
    tasks = None
    with contextlib.suppress(Exception):  # what fails now fails again in a task, and is told there
        tasks = _Tasks(connection, setup)
        tasks.warm_up()
    while True:
        task = connection.recv()
        try:
            tasks = tasks or _Tasks(connection, setup)
        except Exception as error:
            connection.send(_failure(error))
            continue
        connection.send(_answer(tasks, task))


def _answer(tasks: _Tasks, task: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "done", getattr(tasks, task["task"])(task)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> tuple[str, Any]:
    """Return the answer for an error: ours in its own words, any other with where it came from."""
    if isinstance(error, RelucateError):
        return "error", (type(error).__name__, str(error))
    return "error", ("Failure", "".join(traceback.format_exception(error)[-4:]).strip())


if __name__ == "__main__":
    main()

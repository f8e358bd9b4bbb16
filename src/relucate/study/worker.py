"""A worker process: connect to the driver, take tasks, answer with plain data.

Started by `executor` as `python -m relucate.study.worker`, with the address and the key on standard
input. Whatever goes wrong in a task becomes an answer; the process lives on.
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Client, Connection
from typing import Any

from ..backend import use_backend
from ..data.dataset import Dataset
from ..errors import RelucateError
from ..train.run import EpochReport, RunSpec
from .arms import Arm
from .source import ModelSource
from .work import execute, inspect_arms


class _Tasks:
    """The worker's state between tasks: its set-up and the opened data set."""

    def __init__(self, connection: Connection, setup: dict[str, Any]) -> None:
        self.connection = connection
        self.source: ModelSource = setup["source"]
        self.data = Dataset.open(setup["data"])

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


def main() -> None:
    """Serve tasks until the driver hangs up."""
    address, key = sys.stdin.read().split()
    connection = Client(address, authkey=bytes.fromhex(key))
    connection.send(os.getpid())
    setup = connection.recv()
    sys.path[:0] = [path for path in setup["path"] if path not in sys.path]
    os.environ["KERAS_BACKEND"] = use_backend()
    _limit_threads(setup["threads"])
    tasks = _Tasks(connection, setup)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_answer(tasks, task))


def _answer(tasks: _Tasks, task: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "done", getattr(tasks, task["task"])(task)
    except RelucateError as error:
        return "error", (type(error).__name__, str(error))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return "error", ("Failure", "".join(traceback.format_exception(error)[-4:]).strip())


def _limit_threads(threads: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()

"""What runs on the nodes of a Ray cluster: a worker that answers tasks, and the driver's mailbox.

Ray makes actors of both classes. Not here: starting and watching them (`ray`), what a task does
(`perform`). Imports Ray only in functions, because it may not be installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import InputError, RelucateError
from ...train.run import EpochReport, RunResult
from ...train.waiting import finish
from ...version import __version__
from ..environment import versions
from .perform import as_ours
from .prepared import Prepared
from .protocol import Done, Epoch, Event, Failed, Task

ON_ALL_NODES = (
    "What a run needs must be on every node under the same path: on a disk that all of them see, "
    "or sent along by `ray job submit --working-dir`"
)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str


class Mailbox:
    """Keeps what workers say during a task until the driver takes it: an asynchronous actor."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Epoch]] = []
        self._some = asyncio.Event()

    async def tell(self, number: int, event: Epoch) -> None:
        """Add a message of a worker."""
        self._waiting.append((number, event))
        self._some.set()

    async def take(self) -> list[tuple[int, Epoch]]:
        """Wait until there are messages and return them."""
        await self._some.wait()
        taken, self._waiting = self._waiting, []
        self._some.clear()
        return taken


class Worker:
    """Answers tasks one after the other in a process of its own: an actor.

    version: relucate's on the driver; setup: a list with the reference of what all workers share,
    so that it is read after the check of the version.
    """

    def __init__(self, number: int, version: str, setup: list[Any], mailbox: Any) -> None:
        self._number, self._version, self._mailbox = number, version, mailbox
        self._reference = setup
        self._prepared: Prepared | None = None
        self._checked: dict[str, str] = {}  # versions that this node has

    def ready(self) -> Node | RelucateError:
        """Import what the first task will need; return where this worker is, or why it can't work.

        An error in the user's code is reported by the first task.
        """
        ray = import_module("ray")
        self._node = Node(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())
        if self._version != __version__:
            return InputError(
                f"node {self._node.address} has relucate {__version__}, and the driver "
                f"{self._version}: install the same version on both."
            )
        self._setup = ray.get(self._reference[0])
        with contextlib.suppress(OSError):  # there may be no such folder
            os.chdir(self._setup["folder"])
        with contextlib.suppress(Exception, SystemExit):
            self._prepare().warm_up()
        return self._node

    def _prepare(self) -> Prepared:
        self._prepared = self._prepared or Prepared(self._setup)
        return self._prepared

    def answer(self, task: Task) -> tuple[list[Epoch], Event]:
        """Do a task's work and return the event that ends it, after all that it said before.

        The messages in the mailbox may come later than this answer.
        """
        process, said = os.getpid(), []

        def on_epoch(report: EpochReport) -> None:
            said.append(Epoch(task.key, report))
            self._mailbox.tell.remote(self._number, said[-1])

        try:
            self._check(task.work.get("spec", {}).get("versions", {}))
            answer = finish(self._prepare().performing(task, on_epoch))
            return said, Done(task.key, self._located(answer))
        except (Exception, SystemExit) as error:
            return said, Failed(task.key, self._explained(error))
        finally:
            if os.getpid() != process:  # this is a child that the user's code forked
                os._exit(0)

    def _check(self, wanted: dict[str, str]) -> None:
        """Refuse a run whose bits other versions would change."""
        if wanted == self._checked:
            return
        own = versions(set(wanted) - {"python", "machine"}, always=())
        for name, version in wanted.items():
            if own.get(name) != version:
                raise InputError(
                    f"node {self._node.address} has {name} {own.get(name, '(missing)')}, and the "
                    f"study computes with {version}, which the node that built the arms has: "
                    "install the same versions on all nodes."
                )
        self._checked = wanted

    def _located(self, answer: Any) -> Any:
        """Return an answer; a lost run of the user's own also says on which node it was."""
        if isinstance(answer, RunResult) and answer.status == "failed" and self._is_elsewhere:
            return replace(answer, note=f"{answer.note} (on node {self._node.address})")
        return answer

    @property
    def _is_elsewhere(self) -> bool:
        return self._node.id != self._setup["driver"]

    def _explained(self, error: BaseException) -> RelucateError:
        """Return an error as one of relucate's, with the way out if this node lacks a file."""
        ours = as_ours(error)
        if not self._is_elsewhere or not (_lacks_file(error) or self._lacks_source()):
            return ours
        said = str(ours).rstrip(".")
        return InputError(f"{said}. This was on node {self._node.address}. {ON_ALL_NODES}.")

    def _lacks_source(self) -> bool:
        """Return whether the saved model isn't there; the content of a Python file is sent."""
        source = self._setup["source"]
        return source.kind == "saved" and not Path(source.text).is_file()


def _lacks_file(error: BaseException | None) -> bool:
    """Return whether a module or a file that isn't there caused an error."""
    while error is not None:
        if isinstance(error, ImportError | FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False

"""The Ray executor: runs tasks on the machines of a Ray cluster, or on this one.

Each worker is a Ray actor that holds the cores and the share of a GPU of one run. It lives for many
runs, because importing a framework and opening a GPU take longer than a short run. The data go into
Ray's object store once. If a node is lost, only the runs on it are lost, and its workers start
again where there is room. Not here: what runs on the nodes (`ray_worker`), whether a run is
repeated and what is stored (`driver`). Imports Ray only when it is used.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ...errors import InputError, RelucateError
from ...phrases import count
from ...version import __version__
from ..environment import users_path, variables
from ..pickling import pickled
from .perform import as_ours
from .protocol import Died, Event, Failed, Notice, Setup, Task
from .ray_connection import connected
from .ray_worker import Mailbox, Node, Worker
from .watched import Watched

_FRESH = 2.0  # seconds for which the list of nodes is taken as it was
_STARTS = 3  # workers in a row that may die while they start
_NEVER_RAN = "cancelled before it started running"
_WITHOUT = 120.0  # seconds without any node that a run fits on


@dataclass
class _Worker(Watched):
    number: int
    actor: Any
    reference: Any  # of what it will answer; None: it is idle
    node: Node | None = None  # None: it is still starting
    told: int = 0  # messages of its task that were passed on


@dataclass
class RayExecutor:
    """Up to `setup.jobs` workers, as many as fit on the cluster.

    patience: as of the local executor. Use it as a context manager: leaving it ends what runs, and
    the Ray that it started.
    """

    setup: Setup
    patience: float = 30.0
    workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> RayExecutor:
        with contextlib.ExitStack() as stack:
            self._notices: list[Event] = []
            self._ray = stack.enter_context(connected(self.setup.address, self._say))
            self._mailbox: Any = None
            stack.callback(self._end)
            self._started, self._failures = 0, 0  # workers; those that died in a row at the start
            self._notices.append(self._look_around())
            self._lone_since = time.monotonic()
            self._quiet = self.patience
            home = self._ray.get_runtime_context().get_node_id()
            self._shared = self._put(home)
            self._environment = {"env_vars": self._variables()}
            self._mailbox = self._start_mailbox(home)
            self._news = self._mailbox.take.remote()
            self._employ()
            self._stack = stack.pop_all()
        return self

    def _say(self, text: str) -> None:
        self._notices.append(Notice(text))

    def _variables(self) -> dict[str, str]:
        path = os.pathsep.join(users_path())
        return {**variables(self.setup.threads), "PYTHONPATH": path}

    def _start_mailbox(self, home: str) -> Any:
        """Start it on the driver's node, whose loss would end the driver as well."""
        strategies = import_module("ray.util.scheduling_strategies")
        here = strategies.NodeAffinitySchedulingStrategy(home, soft=False)
        mailbox = self._ray.remote(Mailbox).options(
            num_cpus=0, scheduling_strategy=here, runtime_env=self._environment
        )
        return mailbox.remote()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for actor in (*(worker.actor for worker in self.workers), self._mailbox):
            self._kill(actor)
        self.workers = []

    def _kill(self, actor: Any) -> None:
        """End an actor at once; None, one that hasn't been started, is fine."""
        with contextlib.suppress(Exception):  # Ray, or the connection to it, may be gone
            self._ray.kill(actor)

    def _look_around(self) -> Notice:
        """See what the cluster has, choose the GPUs of a run, and say what there is.

        Raises: InputError: a run fits on no node.
        """
        self._seen, self._nodes = time.monotonic(), self._living()
        gpus = sum(node["Resources"].get("GPU", 0) for node in self._nodes)
        cores = sum(node["Resources"].get("CPU", 0) for node in self._nodes)
        given = self.setup.gpus_per_run
        self._gpus = (1.0 if gpus else 0.0) if given is None else float(given)
        there = f"{count(len(self._nodes), 'node')} with {cores:g} cores and {gpus:g} GPUs"
        each = f"{count(self.setup.threads, 'core')}{f' and {self._gpus:g} GPU' * bool(self._gpus)}"
        room = min(self.setup.jobs, self._room())
        if not room:
            raise InputError(
                f"a run needs {each} (--threads, --gpus-per-run), and no node of the Ray cluster "
                f"has that: the cluster is {there}."
            )
        return Notice(f"Ray: {there}; {count(room, 'run')} at the same time, each with {each}")

    def _living(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """Return how many runs fit on the living nodes."""
        return sum(
            _fitting(node["Resources"], self.setup.threads, self._gpus) for node in self._nodes
        )

    def _put(self, home: str) -> Any:
        """Put what all workers share into the object store, once."""
        task = self.setup.task
        shared = {
            "source": self.setup.source,
            "data": self.setup.data,
            "threads": self.setup.threads,
            "task": pickled(task, type(task).__module__),
            "folder": os.getcwd(),
            "driver": home,
        }
        try:
            return self._ray.put(shared)
        except self._ray.exceptions.RayError as error:
            raise InputError(
                f"Ray's object store can't take the data: {_said(error)}. Give it more memory "
                "(ray start --object-store-memory), or train on a part of the data."
            ) from error

    def _employ(self) -> None:
        """Start workers: as many as fit, and one more, for which a cluster that can grow does."""
        if time.monotonic() - self._seen > _FRESH:
            self._seen, self._nodes = time.monotonic(), self._living()
        room = self._room()
        while len(self.workers) < min(self.setup.jobs, room + 1):
            self.workers.append(self._start())

    def _start(self) -> _Worker:
        self._started += 1
        actor = (
            self._ray.remote(Worker)
            .options(
                num_cpus=self.setup.threads,
                num_gpus=self._gpus,
                max_restarts=0,
                runtime_env=self._environment,
            )
            .remote(self._started, __version__, [self._shared], self._mailbox)
        )
        return _Worker(self._started, actor, actor.ready.remote())

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Run tasks and yield what happens (see `Executor`).

        A worker that is still busy with a task of an earlier `run` finishes it first.
        """
        source = iter(tasks)
        for worker in self.workers:
            worker.wanted = False
        notices, self._notices = self._notices, []
        yield from notices
        while self._feed(source) or any(w.busy and w.wanted for w in self.workers):
            with self._connection():
                events = self._hear()
                self._employ()
            # Finished tasks come first: the caller may leave at an error.
            yield from sorted(events, key=lambda event: isinstance(event, Failed | Died))

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        """Turn an error of Ray that no worker caused into an InputError."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            if all(worker.node is None for worker in self.workers):
                raise _cannot_start(error) from error
            raise InputError(
                f"the connection to the Ray cluster was lost: {_said(error)}. Finished runs are "
                "kept: the same command continues."
            ) from error

    def _feed(self, source: Iterator[Task | None]) -> bool:
        """Give each idle worker a task; return whether there may be more."""
        for worker in self.workers:
            if worker.reference is None:
                task = next(source, None)
                if task is None:
                    return False
                worker.take(task, self.patience)
                worker.told = 0
                worker.reference = worker.actor.answer.remote(task)
        return True

    def _hear(self) -> list[Event]:
        """Wait for news and return the events."""
        answering = {w.reference: w for w in self.workers if w.reference is not None}
        now = time.monotonic()
        looks = [worker.next_look for worker in self.workers if worker.busy]
        pause = max(0.0, min([*looks, now + self.patience]) - now)
        ready = self._ready([self._news, *answering], pause)
        events = self._read_news() if self._news in ready else []
        for reference, worker in answering.items():
            events += self._receive(worker) if reference in ready else self._watch(worker)
        return [*events, *self._without_workers()]

    def _ready(self, references: list[Any], pause: float) -> set[Any]:
        """Return the references that have an answer, after the first one or a pause."""
        self._ray.wait(references, timeout=pause)
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return set(ready)

    def _read_news(self) -> list[Event]:
        """Return the workers' messages, and ask for the next ones."""
        news = self._ray.get(self._news)
        self._news = self._mailbox.take.remote()
        events: list[Event] = []
        by_number = {worker.number: worker for worker in self.workers}
        for number, event in news:
            worker = by_number.get(number)
            if worker is not None and worker.busy and worker.task.key == event.key:
                worker.listen(self.patience)
                worker.told += 1
                events += [event] if worker.wanted else []
        return events

    def _receive(self, worker: _Worker) -> list[Event]:
        """Return the events of an answer; what the mailbox hasn't brought yet comes first."""
        try:
            answer = self._ray.get(worker.reference)
        except self._ray.exceptions.RayTaskError as error:  # such as an answer that isn't plain
            answer = [], Failed(worker.task.key, as_ours(error))
        except self._ray.exceptions.RayError as error:
            return self._bury(worker, error)
        worker.reference, worker.busy = None, False  # before it is yielded: the caller may leave
        if worker.node is None:
            self._welcome(worker, answer)
            return []
        said, event = answer
        return [*said[worker.told :], event] if worker.wanted else []

    def _welcome(self, worker: _Worker, answer: Any) -> None:
        """Note where a worker has started, a `Node`, or raise why it can't work."""
        if isinstance(answer, tuple):
            raise answer[1].error
        if isinstance(answer, RelucateError):
            raise answer
        worker.node, self._failures = answer, 0

    def _watch(self, worker: _Worker) -> list[Event]:
        """Return an event if a busy worker has been silent too long."""
        if not worker.busy:
            return []
        late = worker.overdue
        if not late:
            silence = worker.silence()
            return [] if silence is None else [silence]
        self._dismiss(worker)
        return [Died(worker.task.key, late)] if worker.wanted else []

    def _dismiss(self, worker: _Worker) -> None:
        self._kill(worker.actor)
        self.workers.remove(worker)

    def _bury(self, worker: _Worker, error: Exception) -> list[Event]:
        """Remove a worker that has died; return the event of its task."""
        self._dismiss(worker)
        self._seen = 0.0
        if worker.node is None:
            self._never_started(error)
            return []
        lost = self._is_lost(worker.node, error)
        reason = (
            f"its node, {worker.node.address}, was lost"
            if lost
            else f"the worker process on node {worker.node.address} ended: your function, or a "
            f"library that it uses, ended it. Ray says: {_said(error)}"
        )
        return [Died(worker.task.key, reason, lost)] if worker.wanted and worker.busy else []

    def _never_started(self, error: Exception) -> None:
        by_itself = isinstance(error, self._ray.exceptions.ActorDiedError)
        if not by_itself or "its node has died" in str(error):  # it was on no node yet that we know
            return
        self._failures += 1
        if getattr(error, "_actor_init_failed", False) or self._failures >= _STARTS:
            raise _cannot_start(error) from error

    def _is_lost(self, node: Node, error: Exception) -> bool:
        """Return whether a worker died with its node, not by itself."""
        exceptions = self._ray.exceptions
        if not isinstance(error, exceptions.ActorDiedError):  # no connection; the answer is lost
            return True
        return error.preempted or node.id not in {living["NodeID"] for living in self._living()}

    def _without_workers(self) -> list[Event]:
        """Return a notice if no worker has been there for long; raise if no node is left."""
        now = time.monotonic()
        if any(worker.node is not None for worker in self.workers):
            self._lone_since, self._quiet = now, self.patience
            return []
        waited = now - self._lone_since
        if waited < self._quiet:
            return []
        if not self._room() and waited > _WITHOUT:
            raise InputError("no node of the Ray cluster is left. Finished runs are kept.")
        self._quiet *= 2
        why = "its cores or GPUs may be in use" if self._room() else "it has lost its nodes"
        return [Notice(f"the Ray cluster has started no worker for {waited:.0f} s: {why}")]


def _fitting(have: dict[str, float], cores: int, gpus: float) -> int:
    """Return how many runs fit on a node.

    >>> _fitting({"CPU": 16, "GPU": 2}, 1, 0.25), _fitting({"CPU": 16}, 4, 0)
    (8, 4)
    """
    room = int(have.get("CPU", 0) // cores)
    return min(room, int(have.get("GPU", 0) / gpus + 1e-9)) if gpus else room


def _cannot_start(error: Exception) -> InputError:
    if _NEVER_RAN in str(error):  # Ray refuses the token, without a word on it
        return InputError(
            "the Ray cluster starts nothing for this program. If it was started before this user "
            "had a token (~/.ray/auth_token), it refuses the token: set RAY_AUTH_MODE=disabled."
        )
    return InputError(
        f"a worker can't start in the Ray cluster: {_said(error)}. Every node needs relucate "
        f"{__version__} and what it imports, as installed here."
    )


def _said(error: Exception, most: int = 300) -> str:
    """Return what Ray says at the end of an error, without its guesses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines or [type(error).__name__])[-1].partition(" Some common causes")[0]
    return text.rstrip(".") if len(text) <= most else f"{text[:most]} ..."

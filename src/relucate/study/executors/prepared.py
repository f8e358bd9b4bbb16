"""What a worker keeps between tasks: its set-up, the opened data set, and imported frameworks.

Not here: where tasks come from (`worker`, `ray_worker`), and what one does (`perform`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import cloudpickle

from ... import frameworks
from ...backend import use_backend
from ...data.dataset import Dataset
from ...frameworks import HOST
from ...train.run import OnEpoch
from ...train.task import Task
from ...train.waiting import Ready
from .. import own
from ..source import ModelSource
from .perform import performing
from .protocol import Task as Work


class Prepared:
    """The worker's state between tasks: its set-up and the opened data set.

    setup: source, task (pickled), threads, and data: a data set, the folder of one, or None.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self.source: ModelSource = setup["source"]
        self.backend = use_backend()
        data = setup["data"]
        self.data = Dataset.open(data) if isinstance(data, str) else data
        if self.data is None:  # the user's own training, which may do without PyTorch
            own.prepare(self.source)
        else:
            frameworks.defer_compiler()
        if self.data is not None or HOST in frameworks.imported():
            frameworks.limit_threads(setup["threads"])
        self._checked = False
        self.task: Task = cloudpickle.loads(setup["task"])

    def warm_up(self) -> None:
        """Import what the first task will need, which takes seconds, in all workers in parallel."""
        if self.data is None:
            return
        if self.source.kind in {"net", "saved"}:
            frameworks.import_keras()
        else:
            self.source.code()  # loads the builder and its imports
        frameworks.warm_up()

    def performing(self, work: Work, on_epoch: OnEpoch) -> Generator[Ready, None, Any]:
        """Return the answer to a task; meanwhile others may be done (`train.waiting`).

        Raises: InputError: a file of the user's was changed before this process imported it.
        """
        if not self._checked:
            self.source.check_files()
            self._checked = True
        return performing(work.work, self.source, self.data, on_epoch, self.task)


def import_ahead() -> None:
    """Import what one of our networks, or a saved one, needs; a task reports what fails."""
    with contextlib.suppress(Exception, SystemExit):
        frameworks.defer_compiler()
        frameworks.import_keras()
        frameworks.warm_up()

"""An executor of a few lines: every task in this process, one after the other.

A worker imports its frameworks anew, which takes seconds: tests that aren't about workers use this.
Not here: that workers compute the same bits (`tests/study/test_driver.py`).
"""

from contextlib import contextmanager

from relucate.study import early
from relucate.study.executors import EXECUTORS, Done, Epoch, Failed
from relucate.study.executors.perform import as_ours, perform


class InProcess:
    """Perform tasks where they are given."""

    def __init__(self, setup):
        self.setup = setup

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, tasks):
        setup = self.setup
        for task in tasks:
            reports = []
            try:
                done = perform(task.work, setup.source, setup.data, reports.append, setup.task)
            except Exception as error:
                yield Failed(task.key, as_ours(error))
            else:
                yield from (Epoch(task.key, report) for report in reports)
                yield Done(task.key, done)


@contextmanager
def without_workers():
    """Perform the tasks of every study in this process."""
    local, environments = EXECUTORS["local"], early._environments
    EXECUTORS["local"], early._environments = InProcess, lambda *_: ()
    try:
        yield
    finally:
        EXECUTORS["local"], early._environments = local, environments

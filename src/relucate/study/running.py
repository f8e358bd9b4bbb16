"""A whole study, from the plan to its document: executor, store, tuning, driver.

Called by `api`, which makes the plan and chooses the displays. Not here: the parts themselves.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..data.cache import default_folder
from ..errors import InputError
from ..files import temporary_folder
from ..phrases import count
from .display import NoDisplay, as_context
from .document import document
from .driver import run_study
from .interruption import interruptible
from .plan import Executed, StudyPlan
from .store import Store
from .tuning import at_best, tune

WAIT = 60.0  # seconds for other studies that write the store: a finished run must not be lost
Displays = Callable[[Any], Any]  # returns the display of a plan, a context manager or not


def run(
    plan: Executed,
    displays: Displays,
    store: Path | None = None,
    *,
    tuned: bool = False,
    rates: Sequence[float] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run a study and return its document.

    displays: returns the display of a plan; store: file of finished runs, None: a temporary one;
    tuned: find each arm's best learning rate among `rates` first, and add the comparison at the
    plan's rate as `tuning.same_rate`.
    Raises: as `run_study` and `Store.open`.
    """
    with interruptible(), _opened(store) as opened:
        if tuned and isinstance(plan, StudyPlan):
            return _tuned(plan, opened, displays, rates, command)
        with as_context(displays(plan)) as display, plan.open_executor(display) as executor:
            return document(run_study(plan, opened, display, executor), command=command)


@contextmanager
def _opened(path: Path | None) -> Iterator[Store]:
    if path is not None:
        with Store.open(path, timeout=WAIT) as store:
            yield store
        return
    with temporary_folder() as folder:
        temporary = folder / "runs.sqlite"
        try:
            with Store.open(temporary) as store:
                yield store
        except BaseException as error:
            _keep_runs(temporary, error)
            raise


def _keep_runs(temporary: Path, error: BaseException) -> None:
    """Move the finished runs of a study that ended early to the user's cache, and say where."""
    with suppress(InputError, OSError):  # the error at hand is the one to show
        with Store.open(temporary, read_only=True) as store:
            finished = sum(1 for _ in store.rows())
        if not finished:
            return
        place = default_folder() / f"runs-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.sqlite"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(temporary, place)
        kept = f"{count(finished, 'finished run')} kept: store={str(place)!r} continues from there."
        error.add_note(kept)
        print(f"relucate: {kept}", file=sys.stderr)


def _tuned(
    plan: StudyPlan,
    store: Store,
    displays: Displays,
    rates: Sequence[float] | None,
    command: str,
) -> dict[str, Any]:
    """Return the document of the arms at their best rates, with the same-rate comparison."""
    with as_context(displays(plan)) as display:
        tuned = tune(plan, store, display, rates)
    best = replace(plan, arms=at_best(plan.arms, tuned))
    with plan.open_executor(NoDisplay()) as executor:
        with as_context(displays(best)) as display:
            outcome = run_study(best, store, display, executor)
        with as_context(displays(plan)) as display:
            display.say(f"all arms at the same rate, {plan.recipe.rate:g}")
            same = document(run_study(plan, store, display, executor), command=command)
    kept = ("comparisons", "arms", "sentence", "verdict", "winner", "seconds")
    same_rate = {"lr": plan.recipe.rate, **{key: same[key] for key in kept}}
    return {**document(outcome, command=command), "tuning": {**tuned, "same_rate": same_rate}}

"""The work of a task, in any executor: inspect all arms of a study, or one run.

Called by executors. Not here: building and training (`tasks`), the user's own training (`own`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any

from ...data.dataset import Dataset
from ...errors import InputError, Refused, RelucateError, briefly, unknown
from ...frameworks import trouble
from ...train.recipe import Recipe
from ...train.run import EpochReport, OnEpoch, RunSpec
from ...train.task import CLASSIFICATION, Task
from ...train.waiting import Ready, finished
from .. import own
from ..arms import Arm
from ..source import ModelSource
from ..tasks import executing, inspect_arms, measure


def inspection(
    arms: list[Arm], engine: str, device: str, recipes: Sequence[Sequence[Recipe]] = ()
) -> dict[str, Any]:
    """Return the work of inspecting a study's networks as plain data.

    Args: recipes: that each of them is trained with.
    """
    plain = [arm.to_dict() for arm in arms]
    trained = [[recipe.to_dict() for recipe in own] for own in recipes]
    return {
        "task": "inspect",
        "arms": plain,
        "engine": engine,
        "device": device,
        "recipes": trained,
    }


def training(spec: RunSpec) -> dict[str, Any]:
    """Return the work of training one run as plain data."""
    return {"task": "run", "spec": spec.to_dict()}


def measurement(spec: RunSpec, counts: Sequence[int]) -> dict[str, Any]:
    """Return the work of measuring how many runs like this one a GPU takes best."""
    return {"task": "measure", "spec": spec.to_dict(), "counts": list(counts)}


def own_inspection(arms: Sequence[own.OwnArm]) -> dict[str, Any]:
    """Return the work of loading the user's own training as plain data."""
    return {"task": "own inspect", "arms": [arm.to_dict() for arm in arms]}


def own_run(spec: RunSpec, nan_diverges: bool) -> dict[str, Any]:
    """Return the work of one run of the user's own training as plain data."""
    return {"task": "own run", "spec": spec.to_dict(), "nan_diverges": nan_diverges}


def performing(
    work: dict[str, Any],
    source: ModelSource,
    data: Dataset | None,
    on_epoch: OnEpoch,
    task: Task = CLASSIFICATION,
) -> Generator[Ready, None, Any]:
    """Do the work and return its answer: an `Inspection`, a `RunResult`, what was measured.

    task: what the networks are trained for. `perform` is all of it at once.
    """
    if work["task"] not in _WORK:
        raise unknown("task", work["task"], _WORK)
    answer = _WORK[work["task"]](work, source, data, on_epoch, task)
    return (yield from answer) if isinstance(answer, Generator) else answer


perform = finished(performing)


def _inspect(
    work: dict[str, Any], source: ModelSource, data: Dataset, on_epoch: OnEpoch, task: Task
) -> Any:
    return inspect_arms(
        source,
        [Arm.from_dict(arm) for arm in work["arms"]],
        data.input_shape,
        data.classes,
        engine=work["engine"],
        device=work["device"],
        recipes=[[Recipe.from_dict(recipe) for recipe in own] for own in work["recipes"]],
        task=task,
        data=data,
        on_arm=lambda number: on_epoch(EpochReport(number, len(work["arms"]), 0.0, None)),
    )


def _train(
    work: dict[str, Any], source: ModelSource, data: Dataset, on_epoch: OnEpoch, task: Task
) -> Any:
    return executing(RunSpec(**work["spec"]), source, data, on_epoch, task)


def _measure(
    work: dict[str, Any], source: ModelSource, data: Dataset, on_epoch: OnEpoch, task: Task
) -> Any:
    return measure(RunSpec(**work["spec"]), source, data, work["counts"], task)


def _own_inspect(work: dict[str, Any], source: ModelSource, *_: Any) -> Any:
    return own.look_at(source, work["arms"])


def _own_run(work: dict[str, Any], source: ModelSource, *_: Any) -> Any:
    return own.call(RunSpec(**work["spec"]), source, nan_diverges=work["nan_diverges"])


_WORK: dict[str, Callable[..., Any]] = {
    "inspect": _inspect,
    "measure": _measure,
    "run": _train,
    "own inspect": _own_inspect,
    "own run": _own_run,
}


def as_ours(error: BaseException) -> RelucateError:
    """Return an error as one of relucate's: with its own message, or with its traceback.

    An error of another class might not survive pickling.
    """
    if isinstance(error, Refused):
        return Refused(str(error))
    if isinstance(error, RelucateError):
        return InputError(str(error))
    if isinstance(error, SystemExit):
        return InputError(f"the user's code ended the process: sys.exit({error.code!r}).")
    if trouble(error) == "memory":
        return InputError(
            f"the GPU has too little memory ({briefly(error)}). Set a smaller batch_size "
            "(--batch-size), or let fewer runs share it (--jobs, --gpus-per-run)."
        )
    return InputError("".join(traceback.format_exception(error)[-4:]).strip())

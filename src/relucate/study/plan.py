"""The plan of a study whose runs an executor performs: all of the user's choices, checked first.

`Executed` says what the driver needs of any such plan; `StudyPlan` trains networks, and
`own_plan.OwnPlan` calls the user's own training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Self

from ..arguments import is_finite, one_of, positive, whole
from ..backend import installed
from ..cores import processes
from ..data.dataset import Dataset
from ..errors import InputError
from ..frameworks import HOST, named
from ..phrases import some
from ..train.metric import Metric
from ..train.recipe import Recipe
from ..train.run import RunSpec
from ..train.task import Task
from ..train.tasks import task_for
from .arms import Arm
from .comparison import Comparison, Schedule
from .devices import TRIED, Devices, gpus_of
from .display import Display
from .executors import ELSEWHERE, EXECUTORS, Executor, Setup
from .executors.perform import inspection, measurement, training
from .identity import code_digest
from .probing import check_probe, look
from .source import ModelSource
from .tasks import ENGINES, Inspection

ON_A_GPU = 8  # runs side by side, unless `jobs` says otherwise: with 16, an H200 was slower
FEW = 3  # arms whose numbers a note lists; of more, the table has them
NORMS_HINT = " (--norm-eps, --norm-momentum make them equal)"


@dataclass(frozen=True, kw_only=True)
class Executed(Comparison):
    """A comparison whose runs an executor performs.

    jobs: runs at a time, 0: one per core, or what GPUs take; threads: of each run; run_timeout:
    seconds after which a run is given up; executor: a name in `executors.EXECUTORS`; address,
    gpus_per_run: of an executor that isn't this machine.
    """

    threads: int = 1
    jobs: int = 0
    run_timeout: float | None = None
    executor: str = "local"
    address: str | None = None
    gpus_per_run: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("threads", 1), ("jobs", 0)):
            object.__setattr__(self, name, whole(getattr(self, name), name, least, 2**16))
        if self.run_timeout is not None:
            positive(self.run_timeout, "run_timeout", "a number of seconds")
        one_of(self.executor, "executor", EXECUTORS)
        self._check_cluster()

    def _check_cluster(self) -> None:
        """Refuse the options of a cluster without one, and parts of a GPU that don't exist."""
        for name in ("address", "gpus_per_run"):
            if getattr(self, name) is not None and self.executor not in ELSEWHERE:
                flag = name.replace("_", "-")
                raise InputError(f"{name}= (--{flag}) needs executor='ray' (--executor ray).")
        if self.address is not None and not isinstance(self.address, str):
            raise InputError(f"address must be a text, got {self.address!r:.80}.")
        if self.gpus_per_run is not None:
            _check_gpus(self.gpus_per_run)

    @property
    def workers(self) -> int:
        """The number of parallel worker processes, on a cluster the largest."""
        runs = self.pairs * len(self.arms)
        if self.executor in ELSEWHERE:
            return min(self.jobs or runs, runs)
        return min(processes(self.jobs, self.threads), runs)

    @property
    def place(self) -> dict[str, Any]:
        """Where the runs run, for documents; jobs: on a cluster, at most so many at a time."""
        elsewhere = {"executor": self.executor} if self.executor in ELSEWHERE else {}
        return {"threads": self.threads, "jobs": self.workers, **elsewhere}

    def open_executor(self, display: Display) -> Executor:
        """Return the executor of this plan, not entered yet."""
        if self.executor in ELSEWHERE:
            display.say(f"connecting to {self.executor}")
        else:
            started = min(self.workers, len(self.gpus) or self.workers)
            display.say(f"starting {started} worker process{'' if started == 1 else 'es'}")
        return EXECUTORS[self.executor](self.setup)

    # ---- what each kind of plan has of its own

    preparing = ""  # what the first task does, in words
    gpus: ClassVar[tuple[str, ...]] = ()  # of this machine, on which runs take turns
    quick = 0.0  # seconds: results of shorter runs may be stored together, a moment later

    @property
    def setup(self) -> Setup:
        """The settings that all tasks share."""
        raise NotImplementedError

    def inspection(self) -> dict[str, Any]:
        """Return the work of the first task, whose answer is an `Inspection`."""
        raise NotImplementedError

    def informed(self, inspection: Inspection) -> tuple[Self, Inspection]:
        """Return the plan with what the inspection changes in it, and a note of that."""
        return self, inspection

    def spec(self, inspection: Inspection, index: int, seed: int) -> RunSpec:
        """Return the spec of arm `index` at `seed`: everything that determines the run's bits."""
        raise NotImplementedError

    def work(self, spec: RunSpec) -> dict[str, Any]:
        """Return the work of a run, whose answer is a `RunResult`."""
        raise NotImplementedError

    @property
    def without_gpus(self) -> Self:
        """The plan as it would be on a machine without GPUs."""
        return self

    def measurement(self, spec: RunSpec, missing: int) -> dict[str, Any]:
        """Return the work of measuring how many runs like this one its GPUs take best."""
        raise NotImplementedError


@dataclass(frozen=True)
class StudyPlan(Executed):
    """The plan of a study that trains networks: all of the user's choices.

    task: what the networks are trained for, by default what the labels are for; metric: by default
        the task's; probe: whether the first pair is looked at while it trains, or after which
        epochs (0: before training).
    """

    arms: tuple[Arm, ...]
    source: ModelSource
    data: Dataset
    recipe: Recipe
    _: KW_ONLY
    engine: str = "auto"
    device: str = "auto"
    probe: bool | Sequence[int] = False
    task: Task = None  # type: ignore[assignment]  # the labels', from __post_init__ on
    metric: Metric = None  # type: ignore[assignment]  # the task's, from __post_init__ on

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", task_for(self.task, self.data.labels))
        if self.metric is None:
            object.__setattr__(self, "metric", self._metric())
        super().__post_init__()
        check_probe(self.probe)
        if self.devices.numbers and self.executor in ELSEWHERE:
            raise InputError(
                f"{self.executor} chooses the GPUs of each run: give --device cuda, got "
                f"'{self.device}'."
            )
        one_of(self.engine, "engine", ENGINES)
        if self.engine not in ("auto", HOST) and self.devices.kind != "auto":  # it chooses itself
            named(self.engine).device(self.device)
        for recipe in map(self.recipe_of, self.arms):
            self.task.check_recipe(recipe)
            recipe.check_device(self._device_for(recipe))
            recipe.check_fits(len(self.data.y_train), self.data.input_shape)
            self.data.check_held_out(recipe.validation)
            if self.target is not None and not recipe.curve:
                raise InputError(
                    "target= needs a learning curve, and curve=0 turns it off: remove one of the "
                    "two."
                )

    def _device_for(self, recipe: Recipe) -> str:
        """Return the kind of device that a recipe needs to know of.

        `auto` asks PyTorch, which takes seconds to import, only for TF32. Of nodes elsewhere it is
        cuda until a run finds none.
        """
        kind = self.devices.kind
        if recipe.precision != "tf32" or kind != "auto":
            return kind
        if self.executor in ELSEWHERE:
            return "cuda"
        return named(HOST).device(kind) if installed(HOST) else "cpu"

    def _metric(self) -> Metric:
        """Return the task's metric; the data give it the worst score that it doesn't have."""
        return self.task.metric_on(self.data.y_train, self.data.y_test, self.data.classes)

    @property
    def devices(self) -> Devices:
        """Where the runs are to be trained."""
        return Devices.of(self.device)

    @cached_property
    def gpus(self) -> tuple[str, ...]:  # type: ignore[override]
        """The GPUs that the workers take in turn; none: they aren't NVIDIA's, or there are none."""
        here = self.executor not in ELSEWHERE and self.engine in ("auto", HOST)
        return gpus_of(self.devices) if here else ()

    @property
    def without_gpus(self) -> Self:
        """The plan as it would be on a machine without GPUs."""
        return replace(self, device="cpu")

    @property
    def workers(self) -> int:
        """The number of parallel worker processes: on GPUs at most `ON_A_GPU` each."""
        most = super().workers
        return min(most, ON_A_GPU * len(self.gpus)) if self.gpus and not self.jobs else most

    @property
    def networks(self) -> list[Arm]:
        """The networks to build: the arms without their recipes, each once."""
        found: list[Arm] = []
        for arm in self.arms:
            if arm.network not in found:
                found.append(arm.network)
        return found

    def recipe_of(self, arm: Arm) -> Recipe:
        """Return how an arm trains."""
        return self.recipe.changed(**arm.recipe)

    @property
    def preparing(self) -> str:  # type: ignore[override]
        """What the first task does, in words."""
        return f"importing the frameworks, building all arms with '{self.source.text}'"

    @property
    def setup(self) -> Setup:
        """The settings that all tasks share."""
        parts = 0.0 if self.gpus_per_run is None and self.device == "cpu" else self.gpus_per_run
        cluster = {"address": self.address, "gpus_per_run": parts}
        shared = (self.workers, self.threads, self.task)
        return Setup(self.source, self.data, *shared, gpus=self.gpus, **cluster)

    def inspection(self) -> dict[str, Any]:
        """Return the work of building all networks once."""
        recipes = [
            [*dict.fromkeys(self.recipe_of(arm) for arm in self.arms if arm.network == network)]
            for network in self.networks
        ]
        return inspection(self.networks, self.engine, self.devices.kind, recipes)

    def informed(self, inspection: Inspection) -> tuple[Self, Inspection]:
        """Leave out the standardisation of the data for models that scale their inputs."""
        layers = inspection.input_scaling
        if not layers or not self.recipe.standardize:
            return self, inspection
        note = (
            "the data aren't standardised, because the model scales its inputs itself "
            f"({some(layers)})"
        )
        plan = replace(self, recipe=self.recipe.changed(standardize=False))
        return plan, replace(inspection, notes=(*inspection.notes, note))

    def work(self, spec: RunSpec) -> dict[str, Any]:
        """Return the work of training a run."""
        return training(spec)

    def measurement(self, spec: RunSpec, missing: int) -> dict[str, Any]:
        """Return the work of measuring how many runs like this one its GPUs take best."""
        most = 1 if self.jobs else -(-missing // len(self.gpus))
        return measurement(spec, [count for count in TRIED if count <= most])

    def spec(self, inspection: Inspection, index: int, seed: int) -> RunSpec:
        """Return the spec of arm `index` at `seed`: everything that determines the run's bits."""
        data = {
            "fingerprint": self.data.fingerprint,
            "input_shape": list(self.data.input_shape),
            "classes": self.data.classes,
        }
        engine = {key: inspection.engine[key] for key in ("name", "backend", "device")}
        recipe = self.recipe_of(self.arms[index]).to_dict()
        if engine["device"] == "cuda" and recipe["precision"] == "fp32":
            engine["float32"] = "full"  # older runs had their convolutions in TF32
        place = self.networks.index(self.arms[index].network)
        *before, arm = (
            {**network.to_dict(), "built": report["fingerprint"]}
            for network, report in zip(self.networks[: place + 1], inspection.arms, strict=False)
        )
        return RunSpec(
            model={**self.source.identity(), "code": inspection.code},
            arm=arm,
            before=tuple(before),
            seed=seed,
            data=data,
            recipe=recipe,
            engine={**engine, "threads": self.threads},
            versions=inspection.versions,
            task=_identity(self.task),
            probe=self._look(self.arms[index]) if seed == self.first_seed else {},
        )

    def _look(self, arm: Arm) -> dict[str, Any]:
        """Return after which epochs an arm's first run is looked at; nothing if it isn't."""
        return look(self.probe, self.schedule(arm).epochs, self.examples)

    @property
    def examples(self) -> int:
        """The number of test examples."""
        return len(self.data.y_test)

    def schedule(self, arm: Arm) -> Schedule:
        """Return how long an arm trains."""
        recipe = self.recipe_of(arm)
        return Schedule(recipe.epochs, recipe.trained(len(self.data.y_train)) // recipe.batch_size)

    def report(self, inspection: Inspection, arm: Arm) -> dict[str, Any]:
        """Return the inspection's report on an arm's network."""
        return inspection.arms[self.networks.index(arm.network)]

    def activation(self, inspection: Inspection, arm: Arm) -> str | None:
        """Return the activation of an arm's network, None if it isn't known or there are more."""
        return self.report(inspection, arm).get("activation") or arm.options.get("act")

    def settings(self, inspection: Inspection) -> dict[str, Any]:
        """Return the document's sections on how the networks were trained."""
        return {
            "model": {
                "name": self.source.text,
                "options": dict(self.source.options),
                "source": self.source.description,
                "norms": dict(self.source.norms),
            },
            "data": {
                "name": self.data.name,
                "input_shape": list(self.data.input_shape),
                "classes": self.data.classes,
                "train": len(self.data.y_train),
                "test": len(self.data.y_test),
                "fingerprint": self.data.fingerprint,
                **({} if self.data.labels == "classes" else {"labels": self.data.labels}),
            },
            "task": {
                "name": self.task.name,
                "loss": self.recipe.loss or self.task.training_loss,
            },
            "recipe": self.recipe.to_dict(),
            "engine": {
                **inspection.engine,
                **self.place,
                "precision": self.recipe.precision,
            },
            "pairing": _pairing(inspection.arms),
            "versions": inspection.versions,
        }

    def remarks(self, inspection: Inspection) -> tuple[list[str], list[str]]:
        """Return the notes on the data and the arms, then those on how the arms differ."""
        engine, closing = inspection.engine, []
        if engine["name"] != HOST:
            closing.append(f"trained by the {engine['name']} engine: {engine['reason']}")
        closing += self._unequal_steps()
        closing += _differing(inspection, hint="" if self.source.norms else NORMS_HINT)
        if self.recipe.decay_all and self.recipe.weight_decay:
            closing.append(
                "weight decay acts on gamma, beta and biases too, which isn't the same thing in "
                "every order; without --decay-all they are exempt"
            )
        return [*self._task_notes(), *self.data.notes, *inspection.notes], closing

    def _task_notes(self) -> list[str]:
        """Return a note on the task, unless older studies had it, too."""
        if self.task.is_usual and self.recipe.loss is None:
            return []
        loss = self.recipe.loss or self.task.training_loss
        units = " of standardised targets" if self.task.labels == "targets" else ""
        return [f"task: {self.task.name}, scored by {self.metric.name}, trained with {loss}{units}"]

    def _unequal_steps(self) -> list[str]:
        """Return a note if some arms take less than half the optimizer steps of others."""
        steps = {arm.label: prod(self.schedule(arm)) for arm in self.arms}
        most, least = max(steps, key=steps.__getitem__), min(steps, key=steps.__getitem__)
        if steps[most] <= 2 * steps[least]:
            return []
        return [
            f"the arms take different numbers of steps, from {steps[least]:,} ({least}) to "
            f"{steps[most]:,} ({most}): what looks like an effect of the batch size may be one of "
            "shorter training"
        ]


def _check_gpus(gpus: Any) -> None:
    if not is_finite(gpus) or not (0 <= gpus <= 1 or (gpus > 0 and gpus == int(gpus))):
        raise InputError(
            "gpus_per_run must be a share of a GPU from 0 to 1, or a whole number of GPUs, got "
            f"{gpus!r:.80}."
        )


def _identity(task: Task) -> dict[str, Any]:
    """Return what identifies a task; nothing for the one that older stores know."""
    if task.is_usual:
        return {}
    return {"name": task.name, "metric": asdict(task.metric), "code": code_digest(task)}


def _pairing(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the arms of a pair share, and the tensors that only one of them has."""
    last = arms[-1] if len(arms) == 1 else arms[1]
    only = {arm["label"]: arm["only"] for arm in arms if arm["only"]}
    return {"shared": last["shared"], "tensors": last["tensors"], "only": only}


def _shares(labels: Sequence[str], counts: Sequence[int]) -> str:
    """Return each arm's number of parameters, of many arms the smallest and the largest.

    >>> _shares(["before", "after"], [1802, 1850])
    'before 1,802, after 1,850'
    >>> _shares(["before", "after", "none", "input"], [1802, 1850, 1754, 1946])
    'from 1,754 (none) to 1,946 (input)'
    """
    each = list(zip(counts, labels, strict=True))
    if len(each) <= FEW:
        return ", ".join(f"{label} {n:,}" for n, label in each)
    ends = [f"{n:,} ({label})" for n, label in (min(each), max(each))]
    return f"from {' to '.join(ends)}"


def _numbers(counts: Sequence[int]) -> str:
    """Return a number for each arm, of many arms the smallest and the largest.

    >>> _numbers([10, 58]), _numbers([10, 58, 58, 10])
    ('10, 58', '10 to 58')
    """
    if len(counts) <= FEW:
        return ", ".join(f"{n:,}" for n in counts)
    return f"{min(counts):,} to {max(counts):,}"


def _differing(inspection: Inspection, hint: str) -> list[str]:
    """Return a note for everything but the order in which the arms' networks differ."""
    reports, notes = inspection.arms, []

    def each(key: str) -> list[Any]:
        return [report.get(key) for report in reports]

    labels = [report["label"] for report in reports]
    counts, biases, settings = each("parameters"), each("biases"), each("settings")
    if len(set(counts)) > 1:
        differ = None not in biases and len(set(biases)) > 1
        option = inspection.equal_biases
        equal = f"; --bias {option} makes them equal" if option else ""
        why = f" (biases: {_numbers(biases)}{equal})" if differ else ""
        shares = _shares(labels, counts)
        notes.append(f"the arms differ in trainable parameters: {shares}{why}")
    with_norms = [(a, found) for a, found in zip(labels, settings, strict=True) if found]
    if any(found != with_norms[0][1] for _, found in with_norms):
        each_arm = "; ".join(f"{a} {', '.join(found)}" for a, found in with_norms)
        notes.append(f"the arms differ in their norms' settings: {each_arm}{hint}")
    return notes

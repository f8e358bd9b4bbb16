"""The work of a worker process: inspect a study's arms, or train one run.

Both take and return plain data. Not here: processes and pipes (`executors`), storing.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import installed
from ..data.dataset import Dataset
from ..errors import InputError, Refused
from ..frameworks import FRAMEWORKS, HOST, lower, named, on_host
from ..phrases import some
from ..train.framework import Framework
from ..train.looking import Look
from ..train.recipe import OPTIMIZATION, Recipe
from ..train.run import OnEpoch, RunResult, RunSpec
from ..train.task import CLASSIFICATION, Task
from ..train.waiting import Ready, finished
from ..train.watching import Watchable
from .arms import Arm, Built, build_paired, initialise
from .environment import versions
from .fingerprint import Behaviour, behaviour, examples, fingerprint
from .norm_settings import described
from .source import ModelSource

_ASKED = "asked for"
# An engine trains its own framework's models; HOST's also trains others that can be lowered.
ENGINES = ("auto", HOST, *(name for name in FRAMEWORKS if name != HOST))


@dataclass(frozen=True)
class Inspection:
    """What the driver must know about the arms before it can write run specs."""

    engine: dict[str, Any]  # name, reason, backend, device
    versions: dict[str, str]
    arms: tuple[dict[str, Any], ...]  # fingerprint, parameters, norm_parameters, shared, tensors
    notes: tuple[str, ...]
    code: str = ""  # digest of the builder's code and of the user's code that it reaches
    equal_biases: str = ""  # the option `bias` that would give every arm the same biases
    input_scaling: tuple[str, ...] = ()  # layers that scale the inputs themselves


NOTHING = Inspection({}, {}, (), ())  # of scores that exist already


def inspect_arms(
    source: ModelSource,
    arms: list[Arm],
    input_shape: tuple[int, ...],
    classes: int,
    *,
    engine: str,
    device: str,
    recipes: Sequence[Sequence[Recipe]] = (),
    task: Task = CLASSIFICATION,
    data: Dataset | None = None,
    on_arm: Callable[[int], None] = lambda number: None,
) -> Inspection:
    """Build every arm once, choose the engine for all of them, and check that the arms differ.

    Args: recipes: how each of them is trained; task: what for; data: on which; None: images or
        vectors of random floats; on_arm: called with the number of arms that are done.
    Raises: InputError: two arms are identical, an arm fails on a batch, the engine doesn't have the
        device or the loss, or a recipe doesn't fit the engine or an arm. Refused: `engine` can't
        train an arm.
    """
    looked, given = [], Given(input_shape, classes, task, data)
    for number in range(1, len(arms) + 1):
        own = recipes[number - 1] if recipes else ()
        looked.append(_look_at(source, arms[:number], given, engine, own))
        _check_engine(looked[-1], device, own, given)
        on_arm(number)
    _refuse_twins(source, looked)
    name, reason = _one_engine(looked)
    compiled, differing = _compiled_alike(looked, name)
    # Lowered or not, a model is built on its own framework's backend.
    backend = next((k.framework.backend() for k in looked if k.framework.lowers), HOST)
    device = named(name).device(device)
    return Inspection(
        {
            "name": name,
            "reason": reason,
            "backend": backend,
            "device": device,
            **_card(name, device),
            **({"compiled": compiled} if compiled else {}),
        },
        versions({look.framework.name for look in looked} | {name, backend}),
        tuple(look.report for look in looked),
        tuple(
            dict.fromkeys(
                [note for look in looked for note in look.notes]
                + differing
                + _alike(looked)
                + _unseeded(looked)
            )
        ),
        source.code(),
        source.equal_biases(),
        tuple(dict.fromkeys(layer for look in looked for layer in look.input_scaling)),
    )


def _check_engine(look: _Look, device: str, recipes: Sequence[Recipe], given: Given) -> None:
    """Refuse what an arm's engine can't do, and say why it is that engine."""
    name, reason = look.engine
    engine = named(name)
    try:
        engine.device(device)
        for recipe in recipes:
            engine.check_recipe(recipe)
            _check_loss(look, engine, recipe, given)
    except InputError as error:
        if name == HOST or reason == _ASKED:
            raise
        raise InputError(f"{error} Why the {name} engine: {reason.rstrip('.')}.") from None
    for recipe in recipes:
        _check_used(look, recipe, given)


def _check_loss(look: _Look, engine: Framework, recipe: Recipe, given: Given) -> None:
    """Refuse a training loss that the engine doesn't have; a compiled model brings its own."""
    if given.data is not None and not look.trains_itself:
        prepared = given.task.prepared(given.data.y_train, recipe, look.behaviour.shape)
        prepared.loss_among(engine.losses())


def _check_used(look: _Look, recipe: Recipe, given: Given) -> None:
    """Refuse what a recipe asks for and a compiled model wouldn't use."""
    if not look.trains_itself:
        return
    usual = Recipe() if given.tokens is None else Recipe(optimizer="adamw")
    usual = replace(usual, lr=Recipe(optimizer=recipe.optimizer).lr)
    asked = [name for name in OPTIMIZATION if getattr(recipe, name) != getattr(usual, name)]
    if asked:
        raise InputError(
            f"{', '.join(asked)} would have no effect on '{look.arm.label}': its builder compiled "
            f"the model ({look.compiled}), which is trained like that. Leave "
            f"{'it' if len(asked) == 1 else 'them'} out, don't compile the model, or take "
            f"engine '{HOST}', which trains it by the recipe."
        )


def _check_recipe(built: Built, recipe: Recipe, given: Given) -> None:
    """Refuse a recipe that doesn't fit a network."""
    if recipe.initialization != "model":
        built.framework.kernels(built.model)
    if recipe.batch_size == 1:
        one = examples(1, given.input_shape, given.tokens)
        built.framework.check_single(built.model, one)


def _card(name: str, device: str) -> dict[str, str]:
    card = named(name).card(device)
    return {"card": card} if card else {}


@dataclass(frozen=True)
class Given:
    """What a network is for: the shape of its inputs, the number of its outputs, the task."""

    input_shape: tuple[int, ...]
    classes: int
    task: Task
    data: Dataset | None

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of one example's label."""
        return () if self.data is None else self.data.y_train.shape[1:]

    @property
    def tokens(self) -> np.ndarray | None:
        """The training examples if they are tokens."""
        found = None if self.data is None else self.data.x_train
        return found if found is not None and found.dtype == np.int64 else None


@dataclass(frozen=True)
class _Look:
    """One arm, inspected."""

    arm: Arm
    framework: Framework
    engine: tuple[str, str]  # name, reason
    behaviour: Behaviour
    report: dict[str, Any]
    notes: tuple[str, ...]
    input_scaling: tuple[str, ...]
    compiled: str  # how its builder compiled it
    start: Mapping[str, np.ndarray]  # its own initial values
    shared: Mapping[str, np.ndarray]  # those of the arms before it, which were built once more

    @property
    def trains_itself(self) -> bool:
        """Whether its own optimizer and loss train it, if its engine trains all arms."""
        return bool(self.compiled) and self.engine[0] == self.framework.name


def _look_at(
    source: ModelSource, arms: list[Arm], given: Given, engine: str, recipes: Sequence[Recipe]
) -> _Look:
    """Build the last of `arms`, paired with those before it, and inspect it."""
    arm = arms[-1]
    input_shape, classes, task = given.input_shape, given.classes, given.task
    built, paired = build_paired(source, arm, arms[:-1], 0, input_shape, classes)
    framework, model = built.framework, built.model
    framework.check(model, input_shape, classes, task, given.label_shape)
    compiled = framework.compiled(model)
    chosen = choose_engine(built, engine, task, compiled=bool(compiled))
    behaves = behaviour(
        built, input_shape, classes, task=task, tokens=given.tokens, label_shape=given.label_shape
    )
    for recipe in recipes:
        _check_recipe(built, recipe, given)
    only = [name for name in built.tensors if name not in paired.shared]
    report = {
        "label": arm.label,
        "fingerprint": fingerprint(built, behaves),
        "shared": len(paired.shared),
        "tensors": len(built.tensors),
        "only": only if len(arms) > 1 else [],
        **framework.count(model),
        # What else may differ between arms: biases, and the settings of their norms.
        "biases": framework.biases(model),
        "settings": sorted({described(norm) for norm in framework.norms(model)}),
        "activation": _activation(built),
    }
    own = framework.own_training(model)
    notes = [*paired.notes, built.note, _unused(own) if own else ""]
    kept = tuple(note for note in notes if note)
    shared = {name: paired.values[name] for name in paired.shared}
    scaling = _input_scaling(built)
    return _Look(
        arm, framework, chosen, behaves, report, kept, scaling, compiled, built.tensors, shared
    )


def _unused(names: tuple[str, ...]) -> str:
    return (
        f"the model's own {' and '.join(names)} {'is' if len(names) == 1 else 'are'} not used: the "
        "recipe trains it and the task scores it. To train it your way, give the training function "
        "itself: compare(run=...), --run"
    )


def _activation(built: Built) -> str | None:
    """Return the network's activation; None of several, and of a module, which isn't read."""
    try:
        graph = built.read().graph if built.framework.lowers else ()
    except Refused:
        return None
    found = {node.op for node in graph if node.kind == "act" and not node.operation.mixes}
    return found.pop() if len(found) == 1 else None


def _input_scaling(built: Built) -> tuple[str, ...]:
    """Return the layers that scale the inputs; none of a module, which isn't read to be trained."""
    try:
        return built.read().graph.input_scaling if built.framework.lowers else ()
    except Refused:
        return ()


def _refuse_twins(source: ModelSource, looked: list[_Look]) -> None:
    seen: dict[str, Arm] = {}
    for look in looked:
        twin = seen.setdefault(look.report["fingerprint"], look.arm)
        if twin is not look.arm and look.behaviour.finite:
            raise InputError(
                f"the builder '{source.text}' gives the same network for '{twin.label}' and "
                f"'{look.arm.label}': it ignores what differs between them (it was called with "
                f"order='{twin.given}' and order='{look.arm.given}')."
            )


def _alike(looked: list[_Look]) -> list[str]:
    """Return a note for each arm that computes the same as an earlier arm."""
    notes, seen = [], {}
    for look in looked:
        twin = seen.setdefault(look.behaviour.digest, look.arm)
        if twin is not look.arm and look.behaviour.finite:
            notes.append(
                f"'{twin.label}' and '{look.arm.label}' compute the same outputs from the same "
                "weights: check that the builder uses what differs between them"
            )
    return notes


def _unseeded(looked: list[_Look]) -> list[str]:
    """Return a note if the first arm started otherwise when it was built again for the second."""
    if len(looked) < 2:
        return []
    first, again = looked[0].start, looked[1].shared
    both = first.keys() & again.keys()
    differing = sorted(n for n in both if not np.array_equal(first[n], again[n], equal_nan=True))
    if not differing:
        return []
    return [
        f"{some([repr(name) for name in differing])}: other initial values each time with the same "
        "seed. The builder draws random numbers that a run's seed doesn't set, from a generator "
        "made at import, say. The arms of a pair start differently, and runs can't be repeated: "
        "make the generator inside the builder"
    ]


def _one_engine(looked: list[_Look]) -> tuple[str, str]:
    """Return the engine that trains all arms: HOST's, unless one of them needs another."""
    own = next((look for look in looked if look.engine[0] != HOST), None)
    if own is None:
        return looked[0].engine
    name, reason = own.engine
    strangers = [look for look in looked if look.framework.name != name]
    if strangers:
        raise Refused(
            f"the builder returns a {strangers[0].framework.noun} for '{strangers[0].arm.label}' "
            f"and a {own.framework.noun} that needs the {name} engine for another arm ({reason}): "
            "one engine has to train both."
        )
    return name, reason


def _compiled_alike(looked: list[_Look], engine: str) -> tuple[str, list[str]]:
    """Return how the arms were compiled, if that trains them, and a note if it differs.

    Raises: InputError: some arms bring their own optimizer and others don't.
    """
    own = {look.arm.label: look.compiled for look in looked if look.framework.name == engine}
    compiled = [label for label, how in own.items() if how]
    if not compiled:
        return "", []
    others = [label for label, how in own.items() if not how]
    if others:
        raise InputError(
            f"the builder compiles the model for '{compiled[0]}' and not for '{others[0]}': one "
            "would be trained by its own optimizer, the other by the recipe. Compile all of them "
            f"or none, or take engine '{HOST}', which trains all by the recipe."
        )
    if len(set(own.values())) == 1:
        return own[compiled[0]], []
    each = "; ".join(f"{label}: {how}" for label, how in own.items())
    return each, [f"the arms are compiled differently ({each}), so that is compared, too"]


def choose_engine(
    built: Built, wanted: str, task: Task = CLASSIFICATION, *, compiled: bool = False
) -> tuple[str, str]:
    """Return the engine for one built arm, and the reason in words.

    Args: wanted: one of `ENGINES`; task: what it is trained for; compiled: by its builder.
    """
    own = built.framework
    if not own.lowers:
        if wanted not in ("auto", own.name):
            raise Refused(f"the builder returns a {own.noun}: engine '{wanted}' can't train it.")
        return own.name, f"the builder returns a {own.noun}"
    if wanted == own.name:
        return own.name, _ASKED
    if wanted == "auto" and compiled:
        return own.name, "the builder compiled the model: its own optimizer and loss are used"
    if not installed(HOST):
        if wanted == HOST:
            raise InputError(f"engine '{HOST}' needs PyTorch: pip install 'relucate[torch]'.")
        return own.name, "PyTorch isn't installed"
    try:
        lower(built.read(), task=task)
    except (Refused, ImportError) as error:  # a broken installation doesn't import
        if wanted == HOST:
            raise Refused(f"engine '{HOST}' can't train this model: {error}") from None
        return own.name, f"the model can't be lowered to PyTorch: {error}"
    ignored = "; the recipe replaces what the builder compiled" if compiled else ""
    return HOST, f"the model lowers to PyTorch, and the lowered module agrees with Keras{ignored}"


def executing(
    spec: RunSpec,
    source: ModelSource,
    data: Dataset,
    on_epoch: OnEpoch = lambda report: None,
    task: Task = CLASSIFICATION,
) -> Generator[Ready, None, RunResult]:
    """Train one run and return its result; `execute` is all of it at once."""
    start = time.perf_counter()
    ready = _prepared(spec, source, data, task)
    built = ready.built
    look = _look(spec.probe, built, ready.model, ready.engine, data)
    result = yield from ready.engine.train(
        ready.model,
        data,
        ready.recipe,
        seed=spec.seed,
        on_epoch=on_epoch,
        device=spec.engine["device"],
        channels_first=built.framework.channels_first(built.model, data.input_shape),
        task=task,
        look=look,
    )
    result.shared, result.tensors = ready.shared, len(built.tensors)
    result.seconds["total"] = time.perf_counter() - start
    for name, value in built.framework.count(built.model).items():
        setattr(result, name, value)
    return result


execute = finished(executing)


def measure(
    spec: RunSpec, source: ModelSource, data: Dataset, counts: Sequence[int], task: Task
) -> dict[int, float]:
    """Return the seconds of a training step by the number of runs that take turns on a GPU.

    Args: spec: of a run like all others; counts: the numbers to try, ascending. Empty: they can't
        take turns, because each waits for Python.
    """
    first = _prepared(spec, source, data, task)
    others = (_another(first, spec, source, data, task) for _ in range(max(counts) - 1))
    return first.engine.side_by_side(
        itertools.chain([first.model], others),
        data,
        first.recipe,
        counts,
        device=spec.engine["device"],
        channels_first=first.built.framework.channels_first(first.built.model, data.input_shape),
        task=task,
    )


@dataclass(frozen=True)
class _Prepared:
    """What a run trains, and with what."""

    built: Built
    model: Any  # lowered, or as it was built
    engine: Framework
    recipe: Recipe
    shared: int  # number of tensors that pairing made equal


def _prepared(spec: RunSpec, source: ModelSource, data: Dataset, task: Task) -> _Prepared:
    arm = Arm.from_dict(spec.arm)
    before = [Arm.from_dict(values) for values in spec.before]
    recipe = Recipe.from_dict(dict(spec.recipe))
    name = spec.engine["name"]
    engine = named(name)
    with on_host() if name == HOST else contextlib.nullcontext():
        built, paired = build_paired(source, arm, before, spec.seed, data.input_shape, data.classes)
        initialise(built, data, recipe, spec.seed)
        if engine is built.framework:
            model = built.model
        else:
            model = lower(built.read(), check=False, task=task)
    return _Prepared(built, model, engine, recipe, len(paired.shared))


def _another(
    first: _Prepared, spec: RunSpec, source: ModelSource, data: Dataset, task: Task
) -> Any:
    """Return one more model of the same run; lowering alone takes a tenth of building."""
    if first.model is first.built.model:
        return _prepared(spec, source, data, task).model
    with on_host():
        return lower(first.built.read(), check=False, task=task)


def _look(
    asked: Mapping[str, Any], built: Built, model: Any, engine: Framework, data: Dataset
) -> Look | None:
    """Return what looks at the model that is trained, None if nothing is asked."""
    if not asked:
        return None

    def watchable() -> Watchable:
        if model is not built.model:
            return engine.watchable(model)
        return engine.read(model, engine.example(data.input_shape, model))

    return Look(watchable, asked["epochs"], asked["examples"])

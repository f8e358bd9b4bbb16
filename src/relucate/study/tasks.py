"""The work that a worker process does: inspect a study's arms, or train one run.

Both take and give plain data. Not here: processes and pipes (`executor`, `worker`), storing.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..backend import installed
from ..data.dataset import Dataset
from ..errors import InputError, Refused
from ..train.recipe import Recipe
from ..train.run import EpochReport, OnEpoch, RunResult, RunSpec
from .arms import Arm, Built, build_paired, fingerprint
from .behaviour import Behaviour, behaviour
from .norm_settings import described, norms
from .source import ModelSource

ENGINES = ("auto", "torch", "keras")


@dataclass(frozen=True)
class Inspection:
    """What the driver has to know of the arms before it can write run specs."""

    engine: dict[str, Any]  # name, reason, backend, device
    versions: dict[str, str]
    arms: tuple[dict[str, Any], ...]  # fingerprint, parameters, norm_parameters, shared, tensors
    notes: tuple[str, ...]
    code: str = ""  # digest of the builder's code and of the user's code that it reaches
    equal_biases: str = ""  # the option `bias` that would give every arm the same, if there is one


def inspect_arms(
    source: ModelSource,
    arms: list[Arm],
    input_shape: tuple[int, ...],
    classes: int,
    *,
    engine: str,
    device: str,
) -> Inspection:
    """Build every arm once, choose the engine for all of them, and tell the arms apart.

    Raises: InputError: two arms come out identical, an arm fails on a batch, the device isn't
    there. Refused: `engine` can't train an arm.
    """
    looked = [
        _look_at(source, arms[: index + 1], input_shape, classes, engine)
        for index in range(len(arms))
    ]
    _refuse_twins(source, looked)
    name, reason = _one_engine(looked)
    frameworks = {look.framework for look in looked}
    backend = _backend() if "keras" in frameworks else "torch"
    return Inspection(
        {"name": name, "reason": reason, "backend": backend, "device": _device(name, device)},
        versions(frameworks | {name, backend}),
        tuple(look.report for look in looked),
        tuple(dict.fromkeys([note for look in looked for note in look.notes] + _alike(looked))),
        source.code(),
        source.equal_biases(),
    )


@dataclass(frozen=True)
class _Look:
    """One arm, inspected."""

    arm: Arm
    framework: str
    engine: tuple[str, str]  # name, reason
    behaviour: Behaviour
    report: dict[str, Any]
    notes: tuple[str, ...]


def _look_at(
    source: ModelSource, arms: list[Arm], input_shape: tuple[int, ...], classes: int, engine: str
) -> _Look:
    """Build the last of `arms`, paired with those before it, and look at it."""
    arm = arms[-1]
    built, paired = build_paired(source, arm, arms[:-1], 0, input_shape, classes)
    if built.framework == "keras":
        _check_keras(built.model, input_shape, classes)
    chosen = choose_engine(built, engine)
    behaves = behaviour(built, input_shape, classes)
    only = [name for name in built.tensors if name not in paired.shared]
    report = {
        "label": arm.label,
        "fingerprint": fingerprint(built, behaves),
        "shared": len(paired.shared),
        "tensors": len(built.tensors),
        "only": only if len(arms) > 1 else [],
        **_count(built),
        **_facts(built),
    }
    notes = (*paired.notes, built.note) if built.note else paired.notes
    return _Look(arm, built.framework, chosen, behaves, report, notes)


def _check_keras(model: Any, input_shape: tuple[int, ...], classes: int) -> None:
    from ..keras.trainer import check_model

    check_model(model, input_shape, classes)


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
    """Return a note for each arm that computes what an arm before it computes."""
    notes, seen = [], {}
    for look in looked:
        twin = seen.setdefault(look.behaviour.digest, look.arm)
        if twin is not look.arm and look.behaviour.finite:
            notes.append(
                f"'{twin.label}' and '{look.arm.label}' compute the same outputs from the same "
                "weights: check that the builder uses what differs between them"
            )
    return notes


def _one_engine(looked: list[_Look]) -> tuple[str, str]:
    """Return the engine that trains all arms: keras as soon as one of them needs it."""
    name, reason = next((k.engine for k in looked if k.engine[0] == "keras"), looked[0].engine)
    strangers = [k.arm.label for k in looked if k.framework == "torch"]
    if name == "keras" and strangers:
        raise Refused(
            f"the builder returns a torch.nn.Module for '{strangers[0]}' and a Keras model that "
            f"needs the keras engine for another arm ({reason}): one engine has to train both."
        )
    return name, reason


def choose_engine(built: Built, wanted: str) -> tuple[str, str]:
    """Return the engine (`torch` or `keras`) for one built arm and the reason in a sentence."""
    if built.framework == "torch":
        if wanted == "keras":
            raise Refused("the builder returns a torch.nn.Module: engine 'keras' can't train it.")
        return "torch", "the builder returns a torch.nn.Module"
    if wanted == "keras":
        return "keras", "asked for"
    compiled = getattr(built.model, "compiled", False)
    if wanted == "auto" and compiled:
        return "keras", "the builder compiled the model: its own optimizer and loss are used"
    if not installed("torch"):
        if wanted == "torch":
            raise InputError("engine 'torch' needs PyTorch: pip install 'relucate[torch]'.")
        return "keras", "PyTorch isn't installed"
    try:
        _lower(built.model)
    except (Refused, ImportError) as error:  # a broken installation doesn't import
        if wanted == "torch":
            raise Refused(f"engine 'torch' can't train this model: {error}") from None
        return "keras", f"the model can't be lowered to PyTorch: {error}"
    ignored = "; the recipe replaces what the builder compiled" if compiled else ""
    return (
        "torch",
        f"the model lowers to PyTorch, and the lowered module agrees with Keras{ignored}",
    )


def _lower(model: Any) -> Any:
    from ..keras.lowering import lower_model

    return lower_model(model)


def _count(built: Built) -> dict[str, int]:
    if built.framework == "keras":
        from ..keras.trainer import count_parameters
    else:
        from ..torch.trainer import count_parameters
    return count_parameters(built.model)


def _facts(built: Built) -> dict[str, Any]:
    """Return in what arms may differ beside the order: biases, and the settings of their norms."""
    layers: list[tuple[str, list[tuple[str, int]]]] = []
    if built.framework == "keras":
        for layer in built.model._flatten_layers(include_self=False):
            own = [(v.path.rpartition("/")[2], _size(v)) for v in layer._trainable_variables]
            layers.append((type(layer).__name__, own))
    else:
        for module in built.model.modules():
            own = [(n, p.numel()) for n, p in module.named_parameters(recurse=False)]
            layers.append((type(module).__name__, own))
    biases = sum(
        size
        for name, own in layers
        if "norm" not in name.lower()
        for key, size in own
        if key == "bias"
    )
    found = {described(norm) for norm in norms(built.model, built.framework)}
    return {"biases": biases, "settings": sorted(found)}


def _size(variable: Any) -> int:
    total = 1
    for extent in variable.shape:
        total *= int(extent)
    return total


def _backend() -> str:
    import keras

    return keras.config.backend()


def _device(engine: str, wanted: str) -> str:
    """Return where the engine computes.

    Raises: InputError: not a device of PyTorch's, or one that isn't there; any device for the
    keras engine, whose backend chooses its own.
    """
    if engine == "keras":
        if wanted != "auto":
            raise InputError(
                f"device '{wanted}' is for the torch engine, and the keras engine trains here, "
                "where its backend chooses: leave the device at auto."
            )
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except Exception as error:  # what a backend that isn't there raises is its own affair
        reason = str(error).partition("\n")[0]
        raise InputError(f"device '{wanted}' can't be used by PyTorch: {reason}") from None
    return wanted


def versions(used: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of what computes: they are part of a run's identity.

    Args: used: the frameworks that take part; what else is installed doesn't matter.
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    distributions = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos")}
    for package in ("relucate", "numpy", *sorted(set(used))):
        for name in distributions.get(package, (package,)):
            with contextlib.suppress(metadata.PackageNotFoundError):
                found.setdefault(package, metadata.version(name))
    return found


def execute(
    spec: RunSpec,
    source: ModelSource,
    data: Dataset,
    on_epoch: OnEpoch = lambda report: None,
) -> RunResult:
    """Train one run and return its result; whatever the training does, this gives an answer."""
    start = time.perf_counter()
    arm = Arm.from_dict(spec.arm)
    before = [Arm.from_dict(values) for values in spec.before]
    built, paired = build_paired(source, arm, before, spec.seed, data.input_shape, data.classes)
    recipe = Recipe.from_dict(dict(spec.recipe))
    train = _TRAINERS[spec.engine["name"]]
    result = train(built, data, recipe, spec.seed, spec.engine, on_epoch)
    result.shared, result.tensors = len(paired.shared), len(built.tensors)
    result.seconds["total"] = time.perf_counter() - start
    for name, value in _count(built).items():
        setattr(result, name, value)
    return result


def _train_torch(
    built: Built,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    engine: Mapping[str, Any],
    on_epoch: OnEpoch,
) -> RunResult:
    from ..torch import train

    channels_first = True
    model = built.model
    if built.framework == "keras":
        from ..keras.lowering import lower_model
        from ..keras.trainer import takes_channels_first

        channels_first = takes_channels_first(model, data.input_shape)
        model = lower_model(built.model, check=False)
    return train(
        model,
        data,
        recipe,
        seed=seed,
        on_epoch=on_epoch,
        device=engine["device"],
        channels_first=channels_first,
    )


def _train_keras(
    built: Built,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    engine: Mapping[str, Any],
    on_epoch: OnEpoch,
) -> RunResult:
    from ..keras.trainer import train

    return train(built.model, data, recipe, seed=seed, on_epoch=on_epoch)


_TRAINERS: dict[str, Callable[..., RunResult]] = {"torch": _train_torch, "keras": _train_keras}

__all__ = ["EpochReport", "Inspection", "execute", "inspect_arms"]

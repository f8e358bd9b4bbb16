"""The work that a worker process does: inspect a study's arms, or train one run.

Both take and give plain data. Not here: processes and pipes (`executor`, `worker`), storing.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..data.dataset import Dataset
from ..errors import InputError, Refused
from ..train.recipe import Recipe
from ..train.run import EpochReport, OnEpoch, RunResult, RunSpec
from .arms import Arm, Built, build_paired, fingerprint
from .source import ModelSource

ENGINES = ("auto", "torch", "keras")


@dataclass(frozen=True)
class Inspection:
    """What the driver has to know of the arms before it can write run specs."""

    engine: dict[str, Any]  # name, reason, backend, device
    versions: dict[str, str]
    arms: tuple[dict[str, Any], ...]  # fingerprint, parameters, norm_parameters, shared, tensors
    notes: tuple[str, ...]


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

    Raises: InputError: two arms come out identical. Refused: `engine` can't train an arm.
    """
    found, reports, notes = [], [], []
    for index, arm in enumerate(arms):
        built, paired = build_paired(source, arm, arms[:index], 0, input_shape, classes)
        notes += [note for note in paired.notes if note not in notes]
        chosen, reason = choose_engine(built, engine)
        found.append((chosen, reason))
        only = [name for name in built.tensors if name not in paired.shared] if index else []
        reports.append(
            {
                "label": arm.label,
                "fingerprint": fingerprint(built),
                "shared": len(paired.shared),
                "tensors": len(built.tensors),
                "only": only,
                **_count(built),
            }
        )
    _refuse_twins(source, arms, reports)
    name, reason = next((pair for pair in found if pair[0] == "keras"), found[0])
    return Inspection(
        {"name": name, "reason": reason, "backend": _backend(), "device": _device(name, device)},
        versions(),
        tuple(reports),
        tuple(notes),
    )


def _refuse_twins(source: ModelSource, arms: list[Arm], reports: list[dict[str, Any]]) -> None:
    seen: dict[str, Arm] = {}
    for arm, report in zip(arms, reports, strict=True):
        twin = seen.setdefault(report["fingerprint"], arm)
        if twin is not arm:
            raise InputError(
                f"the builder '{source.text}' gives the same network for '{twin.label}' and "
                f"'{arm.label}': it ignores what differs between them (it was called with "
                f"order='{twin.given}' and order='{arm.given}')."
            )


def choose_engine(built: Built, wanted: str) -> tuple[str, str]:
    """Return the engine (`torch` or `keras`) for one built arm and the reason in a sentence."""
    if built.framework == "torch":
        if wanted == "keras":
            raise Refused("the builder returns a torch.nn.Module: engine 'keras' can't train it.")
        return "torch", "the builder returns a torch.nn.Module"
    if wanted == "keras":
        return "keras", "asked for"
    if wanted == "auto" and getattr(built.model, "compiled", False):
        return "keras", "the builder compiled the model: its own optimizer and loss are used"
    try:
        _lower(built.model)
    except (Refused, ImportError) as error:
        if wanted == "torch":
            raise Refused(f"engine 'torch' can't train this model: {error}") from None
        return "keras", f"the model can't be lowered to PyTorch: {error}"
    return "torch", "the model lowers to PyTorch, and the lowered module agrees with Keras"


def _lower(model: Any) -> Any:
    from ..keras.lowering import lower_model

    return lower_model(model)


def _count(built: Built) -> dict[str, int]:
    if built.framework == "keras":
        import keras

        norms = (
            keras.layers.BatchNormalization,
            keras.layers.LayerNormalization,
            keras.layers.GroupNormalization,
        )
        layers = built.model._flatten_layers(include_self=False)
        weights = [v for layer in layers if isinstance(layer, norms) for v in layer.weights]
        return {
            "parameters": sum(_size(v) for v in built.model.trainable_weights),
            "norm_parameters": sum(_size(v) for v in weights if v.trainable),
        }
    from ..torch.trainer import count_parameters

    return count_parameters(built.model)


def _size(variable: Any) -> int:
    total = 1
    for extent in variable.shape:
        total *= int(extent)
    return total


def _backend() -> str:
    import sys

    keras = sys.modules.get("keras")
    return keras.config.backend() if keras is not None else "torch"


def _device(engine: str, wanted: str) -> str:
    if engine != "torch" or wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Return the versions of what computes: they are part of a run's identity."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("relucate", "keras", "torch", "jax", "tensorflow", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
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
    built, paired = build_paired(
        source, arm, before, spec.seed, data.input_shape, data.classes
    )
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

        channels_first = model.inputs[0].shape[1:] != data.input_shape
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

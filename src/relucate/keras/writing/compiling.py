"""Compile a written model as its source was compiled: the same loss and metrics, a new optimizer.

Called by `framework` for a model that is to be trained. Not here: compiling from a recipe
(`trainer`).
"""

from __future__ import annotations

from typing import Any

import keras

from ...errors import Refused

_Schedule = keras.optimizers.schedules.LearningRateSchedule


def compile_like(model: Any, source: Any) -> None:
    """Compile `model` with the arguments that `source` was compiled with, if it was.

    Optimizer and metrics are new ones of the same configuration; losses, functions and learning
    rate schedules have no state and are shared.

    Raises: Refused: an optimizer or metric that can't be made from its config, one that excludes
        variables from weight decay that the model doesn't have, or a `compile` of the user's own.
    """
    if not getattr(source, "compiled", False):
        return
    if type(source).compile not in (keras.Model.compile, keras.Sequential.compile):
        raise Refused(
            f"model '{source.name}' ({type(source).__name__}) has its own compile: the new model "
            "can't be compiled in the same way: pass the model before it is compiled."
        )
    given: Any = keras.tree.map_structure(_copied, dict(source._compile_config.config))
    if isinstance(given["optimizer"], keras.optimizers.Optimizer):
        _exclude(given["optimizer"], source._compile_config.config["optimizer"], model, source)
    model.compile(**given)


def _copied(part: Any) -> Any:
    if not isinstance(part, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return part
    try:
        config = part.get_config()
        schedule = getattr(part, "_learning_rate", None)
        if isinstance(schedule, _Schedule):
            config["learning_rate"] = schedule
        return type(part).from_config(config)
    except Exception as error:  # a user's class raises anything
        raise Refused(
            f"the compiled {type(part).__name__} can't be made again from its config ({error}): "
            "give it a get_config with every argument of its __init__."
        ) from error


def _exclude(new: Any, old: Any, model: keras.Model, source: keras.Model) -> None:
    """Exclude from weight decay what the old optimizer excludes, which its config doesn't hold."""
    names = getattr(old, "_exclude_from_weight_decay_pattern", None)
    ids = getattr(old, "_exclude_from_weight_decay", None) or set()
    if not ids and names is None:
        return
    wanted = {v.path.replace("/", "_") for v in source.trainable_variables if id(v) in ids}
    found = [v for v in model.trainable_variables if v.path.replace("/", "_") in wanted]
    kept = {layer.name for layer in model.layers}
    lost = sorted(
        path
        for path in wanted - {v.path.replace("/", "_") for v in found}
        if not any(path.startswith(f"{name}_") for name in kept)
    )
    if lost:
        raise Refused(
            f"the compiled {type(old).__name__} excludes '{lost[0]}' from weight decay, but the "
            "new model has no such variable: exclude it by its name (var_names)."
        )
    new.exclude_from_weight_decay(found, None if names is None else [names.pattern])

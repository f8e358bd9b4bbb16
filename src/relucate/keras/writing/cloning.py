"""Copies of Keras layers, made from their config with changes, without their weights.

Nothing is shared with the old layer. For a newly initialised model every initialiser gets its own
seed, made from the model's seed and the layer's name, so that layers with the same name and shape
start with the same values in every model. Not here: which layer is changed (`writer`).
"""

from __future__ import annotations

import copy
import inspect
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import keras

from ...errors import Refused
from ..reading.layers import LAYERS, known_kind


def clone(layer: Any, name: str, changes: Mapping[str, Any], fresh: int | None) -> Any:
    """Return a new layer (or raw operation) from the config of an old one.

    Raises: Refused: the layer can't be made from its own config.
    """
    if "call" in vars(layer):
        raise Refused(f"'{layer.name}' ({type(layer).__name__}): its call was replaced.")
    if type(layer) is keras.layers.Lambda:
        return _lambda(layer, name)
    stepwise = type(layer) is keras.layers.TimeDistributed
    if stepwise and type(layer.layer) is keras.layers.Lambda:
        inner = _lambda(layer.layer, layer.layer.name)
        return keras.layers.TimeDistributed(inner, name=name, dtype=layer.dtype_policy)
    made = _copied(layer, name, changes, fresh)
    if isinstance(layer, keras.layers.Layer):
        for old, new in zip(layer._flatten_layers(), made._flatten_layers(), strict=False):
            if new.trainable != old.trainable:
                new.trainable = old.trainable
    return made


def _copied(layer: Any, name: str, changes: Mapping[str, Any], fresh: int | None) -> Any:
    """Return a layer of the same class, or else of the class of Keras's that it computes as."""
    try:
        return _from_config(layer, type(layer), name, changes, fresh)
    except Exception as error:  # of the user's code
        if made := _copied_operation(layer, name):
            return made
        kind = known_kind(type(layer))
        if kind is type(layer):
            raise _refused(layer, error) from error
        return _from_config(layer, kind, name, changes, fresh)


def _from_config(
    layer: Any, kind: Any, name: str, changes: Mapping[str, Any], fresh: int | None
) -> Any:
    config = _config(layer, kind)
    config["name"] = name
    config.update(changes)
    if kind is keras.layers.TimeDistributed and known_kind(type(layer.layer)) in LAYERS:
        config["layer"].pop("build_config", None)  # its input may have other channels now
    if fresh is not None:
        _seed(config, fresh, name)
    return kind.from_config(config)


def _config(layer: Any, kind: Any) -> dict[str, Any]:
    """Return a copy of a layer's configuration that holds the user's own activation function.

    Keras would find that function by its name only if it is registered.
    """
    with warnings.catch_warnings():  # it is never loaded
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        own = kind is type(layer)
        config = copy.deepcopy(layer.get_config() if own else kind.get_config(layer))
    within = layer.layer if kind is keras.layers.TimeDistributed else layer
    function = getattr(within, "activation", None)
    if inspect.isfunction(function) and not function.__module__.startswith("keras."):
        (config if within is layer else config["layer"]["config"])["activation"] = function
    return config


def _copied_operation(operation: Any, name: str) -> Any:
    """Return a copy of a raw operation or a known layer; None if it holds variables or layers.

    Its configuration is missing if an argument isn't plain, such as a NumPy number in a shape.
    """
    layer = isinstance(operation, keras.layers.Layer)
    known = known_kind(type(operation)) in LAYERS
    if layer and (not known or operation.variables or operation._layers):
        return None
    held = [] if layer else keras.tree.flatten(list(vars(operation).values()))
    if any(isinstance(value, (keras.Variable, keras.layers.Layer)) for value in held):
        return None
    made = object.__new__(type(operation))  # copy.copy would need the configuration, too
    vars(made).update(vars(operation))
    made.name, made._inbound_nodes, made._outbound_nodes = name, [], []
    return made


def _lambda(layer: Any, name: str) -> Any:
    """Return a Lambda of the same function; its configuration would hold that function's bytes."""
    made = keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=dict(layer.arguments),
        name=name,
        dtype=layer.dtype_policy,
    )
    made.trainable = layer.trainable
    return made


def _refused(layer: Any, error: Exception) -> Refused:
    return Refused(
        f"'{layer.name}' ({type(layer).__name__}) can't be made again from its get_config: "
        f"{error}. Give the class a get_config with every argument of its __init__."
    )


def _seed(config: Any, fresh: int, path: str) -> None:
    """Give every initialiser and dropout in a config a seed made from `fresh` and its path."""
    items: Any = ()
    if isinstance(config, dict):
        if "seed" in config and (config["seed"] is None or isinstance(config["seed"], int)):
            config["seed"] = derived_seed(fresh, path)
        items = config.items()
    elif isinstance(config, (list, tuple)):
        items = enumerate(config)
    for key, value in items:
        _seed(value, fresh, f"{path}/{key}")


def derived_seed(fresh: int, path: str) -> int:
    """Return the seed of one random source of a model: the same for the same seed and path."""
    return zlib.crc32(f"{fresh}:{path}".encode()) & 0x7FFFFFFF

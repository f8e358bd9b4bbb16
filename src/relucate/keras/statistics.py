"""Re-estimate a Keras model's batch-norm statistics before evaluation.

As `torch.statistics`: only the norms compute as in training. Also here: how a model is called
without gradients, and how all its layers but the norms are kept at inference (for `initial`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

import keras
import numpy as np

from ..train.recipe import no_variance
from .running import no_gradients, on_device, place_of

SCORE_BATCH = 500


def random_source(layer: Any) -> Any:
    """Return the generator from which a layer draws, None if it draws nothing."""
    return getattr(layer, "seed_generator", None) or getattr(layer, "generator", None)


def reestimate(model: keras.Model, x: np.ndarray, *, unbiased: bool = False) -> None:
    """Replace every batch norm's moving statistics by averages over `x`, batch by batch.

    Each call of a norm counts alike: a reused one has several in each batch, and so has one in a
    TimeDistributed, one for each step.
    unbiased: variances are m/(m - 1) times those of the m values of a batch.
    """
    norms = _trained_norms(model)
    if not norms:
        return
    size = min(SCORE_BATCH, len(x))
    sizes: dict[int, int] = {}
    with _momenta_kept(norms), only_norms_train(model), _noted(norms, sizes, average=True):
        for start in range(0, len(x) - size + 1, size):
            forward(model, x[start : start + size], training=True)
    for norm in norms if unbiased else ():
        values = sizes.get(id(norm), 1)
        if values > 1:
            variance: Any = norm.moving_variance
            variance.assign(variance * (values / (values - 1)))


def check_single(model: keras.Model, x: np.ndarray) -> None:
    """Refuse a model that can't be trained on one example at a time, though Keras does it.

    A batch norm that gets one value per channel returns its beta, whatever the example is.

    Args: x: one example as the model takes it.
    Raises: InputError.
    """
    norms, sizes = _trained_norms(model), dict[int, int]()
    with _momenta_kept(norms), only_norms_train(model), _noted(norms, sizes):
        for norm in norms:
            norm.momentum = 1.0  # the moving statistics stay
        forward(model, x, training=True)
    if 1 in sizes.values():
        raise no_variance()


def _trained_norms(model: keras.Model) -> list[Any]:
    """Return the batch norms that use the statistics of a batch in training."""
    layers = model._flatten_layers(include_self=False)
    norms = [la for la in layers if isinstance(la, keras.layers.BatchNormalization)]
    return [norm for norm in norms if norm.trainable]


@contextmanager
def _noted(norms: list[Any], sizes: dict[int, int], average: bool = False) -> Iterator[None]:
    """Note how many values per channel each norm gets at a call.

    Args: average: give each call of a norm the same share of its moving statistics.
    """

    def noting(norm: Any) -> Callable[..., Any]:
        call, calls = norm.call, count()

        @functools.wraps(call)
        def note(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if average:
                before = next(calls)
                norm.momentum = before / (before + 1)
            sizes[id(norm)] = math.prod(inputs.shape) // inputs.shape[norm.axis]
            return call(inputs, *args, **kwargs)

        return note

    with calls_replaced(norms, noting):
        yield


@contextmanager
def calls_replaced(layers: list[Any], by: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Give each layer another `call`, `by` of the layer, and afterwards its class's again."""
    try:
        for layer in layers:
            layer.call = by(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _has_state(layer: Any) -> bool:
    """Return whether training may change a layer's own variables; it contains no batch norm."""
    inside = layer._flatten_layers()
    return bool(layer._non_trainable_variables) and not any(
        isinstance(la, keras.layers.BatchNormalization) for la in inside
    )


def forward(model: keras.Model, x: np.ndarray, *, training: bool) -> np.ndarray:
    """Call the model without recording gradients; return its output as an array."""
    with on_device(place_of(model, None)), no_gradients():
        return np.asarray(keras.ops.convert_to_numpy(model(x, training=training)))


@contextmanager
def _momenta_kept(norms: list[Any]) -> Iterator[None]:
    kept = [norm.momentum for norm in norms]
    try:
        yield
    finally:
        for norm, own in zip(norms, kept, strict=True):
            norm.momentum = own


def only_norms_train(model: keras.Model) -> AbstractContextManager[None]:
    """Let all layers but norms compute as at inference, also in a call of the model in training.

    These are layers that draw at random (dropout, noise) or have a state of their own (the vector
    of spectral normalization). So only the norms' statistics change.
    """
    layers = model._flatten_layers(include_self=False)
    return _inference_mode([la for la in layers if random_source(la) is not None or _has_state(la)])


@contextmanager
def _inference_mode(layers: list[Any]) -> Iterator[None]:
    """Let layers compute as at inference, in every mode of the model."""
    switched = [la for la in layers if "training" in inspect.signature(la.call).parameters]
    try:
        for layer in switched:
            layer.call = _at_inference(layer.call)
        yield
    finally:
        for layer in switched:
            vars(layer).pop("call", None)


def _at_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def at_inference(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **{**kwargs, "training": False})

    return at_inference

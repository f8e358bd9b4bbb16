"""Random streams by name: they make two arms with one seed a pair.

Every use of randomness in a run (initial values, data order, augmentation, dropout) draws from its
own stream, which depends only on the seed and the stream's name. So one arm's extra draws never
shift another stream, and the same seed gives both arms the same order of examples.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_LEAST = 256  # examples for a point of the learning curve


def derive(seed: int, *path: str | int) -> int:
    """Return the 63-bit seed of one stream: always the same number for the same arguments.

    >>> derive(0, "order", 1) == derive(0, "order", 1) != derive(1, "order", 1)
    True
    """
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for one stream."""
    return np.random.default_rng(derive(seed, *path))


def dropout_key(seed: int, layer: str) -> int:
    """Return the seed of a dropout layer's own stream, the same in every arm that has the layer."""
    return derive(seed, "dropout", layer)


def epoch_order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Return the order in which an epoch visits the training examples, shape (examples,), int64."""
    return generator(seed, "order", epoch).permutation(examples)


def statistics_sample(seed: int, examples: int, count: int) -> np.ndarray:
    """Return the training examples for re-estimated batch-norm statistics, (count,) int64.

    They are drawn at random, because data are often stored class by class, and are the same for
    both arms.

    >>> sorted(statistics_sample(0, 3, 5).tolist())
    [0, 1, 2]
    """
    return generator(seed, "statistics").permutation(examples)[:count]


def curve_statistics(sample: Any, last: bool) -> Any:
    """Return the part of a statistics sample that a point of the learning curve uses.

    It is a quarter, at least 256 examples: no decision depends on the curve, and with the whole
    sample it would take a fifth of a short run. The last point is the score and uses all.

    >>> len(curve_statistics(range(2048), last=False)), len(curve_statistics(range(300), False))
    (512, 256)
    """
    return sample if last else sample[: max(_LEAST, len(sample) // 4)]


def curve_sample(examples: int, count: int) -> np.ndarray:
    """Return the test examples of the learning curve: evenly spread, ascending, int64.

    There are at most `count`, the same in every run and for every engine.

    >>> curve_sample(5, 3).tolist()
    [0, 2, 4]
    """
    return np.unique(np.linspace(0, examples - 1, min(count, examples)).round().astype(np.int64))

"""Which examples go where: stratified choices that never change, on any machine.

scikit-learn's split isn't used, because every class must get at least one place, and because a
fingerprint must not change with a library's version: NumPy froze RandomState's stream (NEP 19).
Called by `dataset`. Not here: the arrays themselves.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from relucate.errors import InputError


def allocate(counts: np.ndarray, size: int, keep: int = 0) -> np.ndarray:
    """Share `size` places over classes in proportion to `counts`, by the largest remainder.

    Each class gets at least one place and at most its count less `keep`.

    Args:
        counts: (k,) examples per class.
        size: k <= size <= sum(counts) - k * keep.
        keep: number of examples of each class that must stay out.

    >>> allocate(np.array([50, 30, 20, 1]), 10)
    array([4, 3, 2, 1])
    """
    quota = size * counts / counts.sum()
    most = counts - keep
    places = np.clip(np.floor(quota).astype(np.int64), 1, most)
    while places.sum() < size:
        places[np.where(places < most, quota - places, -np.inf).argmax()] += 1
    while places.sum() > size:
        places[np.where(places > 1, quota - places, np.inf).argmin()] -= 1
    return places


def stratified(
    codes: np.ndarray, size: int, seed: int, *, stream: str = "", keep: int = 0
) -> np.ndarray:
    """Return `size` sorted indices into `codes` (n,), with every class in proportion.

    Each class is shuffled by its own generator and its first examples are taken. So a larger subset
    of the same seed contains a smaller one, except for rounding.
    """
    present, counts = np.unique(codes, return_counts=True)
    if seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {seed}.")
    if size < len(present):
        raise InputError(f"{size} places for {len(present)} classes; expected one for each.")
    places = allocate(counts, size, keep)
    chosen = [
        _shuffled(np.flatnonzero(codes == code), seed, stream, int(code))[:count]
        for code, count in zip(present, places, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def train_and_test(
    codes: np.ndarray, class_names: Sequence[str], test_split: float, seed: int, what: str = "test"
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted train and test indices, every class in both parts.

    what: the second part's name in errors.

    Raises:
        InputError: a fraction outside (0, 1), a class with a single example, too small a part.
    """
    check_fraction(test_split)
    counts = np.bincount(codes, minlength=len(class_names))
    if counts.min() < 2:
        name = class_names[int(counts.argmin())]
        raise InputError(
            f"class '{name}' has {counts.min()} example; expected at least two, one to train on "
            "and one to test on. Add examples or leave the class out"
            f"{' (for numbers to predict: regression, --task or task=)' if name.isdigit() else ''}."
        )
    size = math.ceil(round(len(codes) * test_split, 6))  # as scikit-learn rounds, less float noise
    if not len(counts) <= size <= len(codes) - len(counts):
        raise InputError(
            f"a {what} split of {test_split} makes {size:,} of {len(codes):,} examples the {what} "
            f"part; expected at least one of each of the {len(counts)} classes in both parts."
        )
    test = stratified(codes, size, seed, stream="split", keep=1)
    return np.setdiff1d(np.arange(len(codes)), test), test


def check_fraction(test_split: float) -> None:
    """Refuse a test split outside (0, 1)."""
    if not 0 < test_split < 1:
        raise InputError(f"test split {test_split} is not between 0 and 1; expected such as 0.2.")


def _shuffled(indices: np.ndarray, seed: int, stream: str, code: int) -> np.ndarray:
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), code])
    return np.random.RandomState(np.random.MT19937(entropy)).permutation(indices)

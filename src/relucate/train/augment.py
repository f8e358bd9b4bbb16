"""The random decisions of augmentation, the same for every engine.

They depend on seed, epoch and step alone, so both arms of a pair see the same images, on any
device. Not here: changing the pixels (`torch/batches.py`, `keras/trainer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .streams import derive

CROP = 4  # pixels of zero border that a random crop shifts over


@dataclass(frozen=True)
class Decisions:
    """An epoch's decisions for every step and example; None for what the recipe doesn't ask for.

    flip: (steps, examples) bool, mirror left and right, all slices of a volume alike. shift:
    (steps, 2, examples) int64, the first row and column of the crop, in the image with CROP zeros
    around it.
    """

    flip: np.ndarray | None
    shift: np.ndarray | None


def decisions(names: Sequence[str], seed: int, epoch: int, steps: int, examples: int) -> Decisions:
    """Return what augmentation does to each example of an epoch's batches.

    The stream is MT19937 with its original seeding, which NumPy's RandomState keeps unchanged. Each
    step draws 32 bits per example for flips, then two numbers per example for rows and columns.

    >>> found = decisions(["crop"], 0, 0, steps=3, examples=2)
    >>> found.flip, found.shift.shape
    (None, (3, 2, 2))
    """
    flips, crops = "flip" in names, "crop" in names
    stream = np.random.RandomState(derive(seed, "augment", epoch) % 2**32)
    bits = stream.randint(0, 2**32, (steps, flips + 2 * crops, examples), dtype=np.uint32)
    return Decisions(
        bits[:, 0] % 2**24 < 2**23 if flips else None,
        (bits[:, -2:] % (2 * CROP + 1)).astype(np.int64) if crops else None,
    )

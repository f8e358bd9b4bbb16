"""Training data as tensors on the device, batched and augmented without per-example Python.

Images stay (n, height, width, channels) in memory, so a batch viewed as (n, channels, height,
width) is in channels-last layout without a copy, and so do volumes. Not here: loading the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..train.augment import CROP, decisions
from ..train.standard import Standard
from ..train.streams import epoch_order


@dataclass
class Batches:
    """One part of a data set on a device. `x` uint8 stays uint8; it becomes float per batch."""

    x: Tensor
    y: Tensor
    mean: Tensor  # (channels,) or (features,)
    scale: Tensor  # 1 / standard deviation, same shape
    channels_first: bool

    def __len__(self) -> int:
        return self.y.shape[0]

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Return the examples at `index`, standardised, in the model's layout."""
        return self.laid_out(self.inputs_as_stored(index))

    def inputs_as_stored(self, index: Tensor | slice) -> Tensor:
        """Return the examples at `index`, standardised, with the channels last."""
        x = self.x[index]
        return x.float().sub_(self.mean).mul_(self.scale) if x.dtype == torch.uint8 else x

    def laid_out(self, x: Tensor) -> Tensor:
        """Move the channels of images and volumes to axis 1 if the model wants them there."""
        return x.movedim(-1, 1) if self.channels_first and x.ndim > 3 else x


class Feed:
    """An epoch's batches, each drawn by tensors on the device that keep their memory.

    A step that calls `batch` and `advance` reads nothing from the host, so that a CUDA graph of it
    trains on the next batch at every replay. `steps` is the number of full batches in an epoch;
    `rate` is the learning rate of the step, (1,).
    """

    def __init__(self, part: Batches, batch_size: int, augment: Sequence[str]) -> None:
        self._part, self._augment = part, tuple(augment)
        self._size, device = batch_size, part.y.device
        self.steps = len(part) // batch_size
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        # PyTorch reads a rate on a CPU as a Python number, and on a GPU as float32.
        exact = torch.float64 if device.type == "cpu" else torch.float32
        self.rate = torch.zeros(1, dtype=exact, device=device)
        self._rates = torch.zeros(self.steps, dtype=exact, device=device)
        self._order = torch.zeros((self.steps, batch_size), dtype=torch.int64, device=device)
        self._flips = self._order.bool() if "flip" in augment else None
        shifts = (self.steps, 2, batch_size)
        self._shifts = self._order.new_zeros(shifts) if "crop" in augment else None

    def start(self, seed: int, epoch: int, rates: np.ndarray) -> None:
        """Set the seed's order and augmentation for this epoch, and the rate of every step."""
        order = epoch_order(seed, epoch, len(self._part))[: self._order.numel()]
        decided = decisions(self._augment, seed, epoch, self.steps, self._size)
        self._order.copy_(torch.from_numpy(order).view_as(self._order))
        for kept, new in ((self._flips, decided.flip), (self._shifts, decided.shift)):
            if kept is not None and new is not None:
                kept.copy_(torch.from_numpy(new))
        self._rates.copy_(torch.from_numpy(rates))
        self.rewind()

    def rewind(self) -> None:
        """Go back to the epoch's first step."""
        self._at.zero_()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the step's examples, augmented, and their labels, and set its rate."""
        torch.index_select(self._rates, 0, self._at, out=self.rate)
        index = self._now(self._order)
        x = self._part.inputs_as_stored(index)
        x = x if self._flips is None else _flipped(x, self._now(self._flips))
        x = x if self._shifts is None else _cropped(x, self._now(self._shifts))
        return self._part.laid_out(x), self._part.y[index]

    def advance(self) -> None:
        """Go on to the next step."""
        self._at += 1

    def _now(self, steps: Tensor) -> Tensor:
        return steps.index_select(0, self._at)[0]


def _flipped(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images (n, ..., height, width, channels) for which `flip`, (n,) bool, is set."""
    return torch.where(flip.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-2), x)


def _cropped(x: Tensor, shift: Tensor) -> Tensor:
    """Cut each image out of itself with a zero border, from row and column `shift`, (2, n)."""
    padded = torch.nn.functional.pad(x, (0, 0, CROP, CROP, CROP, CROP))
    rows, columns = (
        start[:, None] + torch.arange(size, device=x.device)
        for start, size in zip(shift, x.shape[1:3], strict=True)
    )
    example = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]]


Parts = dict[str, Batches]  # by name: train, test, held (out)


def batches(
    data: Dataset, *, device: torch.device, channels_first: bool, standardize: bool = True
) -> tuple[Batches, Batches]:
    """Return the train and the test part of `data` on `device`."""
    standard = Standard.of(data.x_train, standardize)

    def part(x: np.ndarray, y: np.ndarray) -> Batches:
        return Batches(
            torch.from_numpy(np.array(x if x.dtype == np.uint8 else standard(x))).to(device),
            torch.from_numpy(np.array(y)).to(device),
            torch.from_numpy(standard.mean).to(device),
            torch.from_numpy(standard.scale).to(device),
            channels_first,
        )

    return part(data.x_train, data.y_train), part(data.x_test, data.y_test)


_placed: WeakKeyDictionary[Dataset, tuple[Any, Parts]] = WeakKeyDictionary()


def placed(
    data: Dataset,
    split: tuple[Dataset, Dataset | None],
    *,
    device: torch.device,
    channels_first: bool,
    standardize: bool,
) -> Parts:
    """Return the parts of a data set on a device: once for all runs that train on it alike.

    Args: split: `data.held_out`'s two.
    """
    given = (device, standardize, len(split[0].y_train))
    if data not in _placed or _placed[data][0] != given:
        place: Any = {"device": device, "channels_first": False, "standardize": standardize}
        train, test = batches(split[0], **place)
        parts = {"train": train, "test": test}
        if split[1] is not None:
            parts["held"] = batches(split[1], **place)[1]
        if device.type == "cuda":  # the next run reads it on another stream
            torch.cuda.current_stream(device).synchronize()
        _placed[data] = given, parts
    return {
        name: replace(part, channels_first=channels_first)
        for name, part in _placed[data][1].items()
    }

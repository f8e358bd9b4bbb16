"""Training data as tensors on the device, batched and augmented without per-example Python.

Images stay (n, height, width, channels) in memory, so a batch viewed as (n, channels, height,
width) is in channels-last layout without a copy. Not here: loading the arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..train.augment import CROP, Decisions, decisions
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
        return self.laid_out(self._standard(self.x[index]))

    def _standard(self, x: Tensor) -> Tensor:
        return x.float().sub_(self.mean).mul_(self.scale) if x.dtype == torch.uint8 else x

    def laid_out(self, x: Tensor) -> Tensor:
        """Move an image's channels to axis 1 if the model wants them there."""
        return x.movedim(-1, 1) if self.channels_first and x.ndim > 3 else x

    def epoch(
        self, seed: int, epoch: int, batch_size: int, augment: Sequence[str]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's full batches in the seed's order, augmented."""
        order = torch.from_numpy(epoch_order(seed, epoch, len(self))).to(self.y.device)
        steps = len(self) // batch_size
        decided = decisions(augment, seed, epoch, steps, batch_size)
        for step, index in enumerate(order[: steps * batch_size].split(batch_size)):
            x = _augmented(self._standard(self.x[index]), decided, step)
            yield self.laid_out(x), self.y[index]


def _augmented(x: Tensor, decided: Decisions, step: int) -> Tensor:
    """Flip and crop a batch (n, height, width, channels) as decided for this step."""
    if decided.flip is not None:
        flip = torch.from_numpy(decided.flip[step]).reshape(-1, 1, 1, 1)
        x = torch.where(flip.to(x.device), x.flip(2), x)
    if decided.shift is not None:
        padded = torch.nn.functional.pad(x, (0, 0, CROP, CROP, CROP, CROP))
        shift = torch.from_numpy(decided.shift[step])[..., None]
        rows = (shift[0] + torch.arange(x.shape[1])).to(x.device)
        columns = (shift[1] + torch.arange(x.shape[2])).to(x.device)
        example = torch.arange(len(x), device=x.device)[:, None, None]
        x = padded[example, rows[:, :, None], columns[:, None, :]]
    return x


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

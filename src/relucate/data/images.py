"""Image files decoded into one uint8 array, by all cores if there are many.

Not here: one file (`pixels`), who decodes it (`decoders`), which files (`listing`), keeping the
result (`cache`). Called by `folder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relucate.data.decoders import decoding, no_warnings
from relucate.data.listing import Progress
from relucate.data.pixels import FORMATS, Form, Outcome, too_deep
from relucate.errors import InputError

CHUNK = 128  # files per task: long enough to hide the queue, short enough for a smooth display
_CHUNK_BYTES = 2**23  # of pixels, at most, unless one image has more


@dataclass(frozen=True)
class Decoded:
    """pixels: (n, h, w, c) uint8, rows of failed files undefined; failed: index -> reason.

    transparent: number of files with transparency, which is dropped.
    """

    pixels: np.ndarray
    failed: dict[int, str]
    transparent: int = 0


def decode(
    root: Path,
    paths: Sequence[str],
    size: tuple[int, int] | None,
    grayscale: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode `paths` under `root`: three channels, or one if every file is gray or `grayscale`.

    Args:
        root: folder that the paths are relative to.
        paths: n relative paths.
        size: (height, width) to resize to with Pillow's bilinear filter (the whole image, nothing
            is cropped), or None if all have the same size already.
        grayscale: one channel (ITU-R 601 luma) for all files.
        progress: called with ("decoding images", done, n) from this thread.

    Raises:
        InputError: no `size` and files of different sizes; more pixels than fit into memory.
    """
    shape = size or _first_size(root, paths)
    pixels = _room(len(paths), shape, 1 if grayscale else 3)
    outcomes: list[Outcome] = []
    for results in _outcomes(root, paths, pixels, size is not None):
        outcomes += results
        if progress:
            progress("decoding images", len(outcomes), len(paths))
    _refuse_sizes(paths, shape, outcomes)
    failed = {i: outcome.problem for i, outcome in enumerate(outcomes) if outcome.problem}
    as_filled = grayscale or any(outcome.colour for outcome in outcomes)
    transparent = sum(outcome.transparent for outcome in outcomes)
    return Decoded(pixels if as_filled else pixels[..., :1], failed, transparent)


def _outcomes(
    root: Path, paths: Sequence[str], pixels: np.ndarray, resize: bool
) -> Iterator[list[Outcome]]:
    """Fill `pixels` and yield what was found, chunk by chunk, in order."""
    height, width, channels = pixels.shape[1:]
    form = Form(height, width, channels, resize)
    step = max(1, min(CHUNK, _CHUNK_BYTES // form.size))
    with decoding(form, len(paths)) as (decode, threads), _pool(threads) as pool:

        def work(start: int) -> list[Outcome]:
            chunk = slice(start, start + step)
            return decode([str(root / path) for path in paths[chunk]], pixels[chunk])

        yield from pool.map(work, range(0, len(paths), step))


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads; what they haven't begun at the end is left out."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _first_size(root: Path, paths: Sequence[str]) -> tuple[int, int]:
    """Return (height, width) of the first file that can be decoded; (1, 1) if none can."""
    from PIL import Image

    for path in paths:
        try:
            with no_warnings(), Image.open(root / path, formats=FORMATS) as image:
                image.load()
                if not too_deep(image):
                    return image.height, image.width
        except Exception:  # it is reported later, when all are decoded
            continue
    return 1, 1


def _room(count: int, shape: tuple[int, int], channels: int) -> np.ndarray:
    try:
        return np.empty((count, *shape, channels), dtype=np.uint8)
    except MemoryError as error:
        gib = count * shape[0] * shape[1] * channels / 2**30
        raise InputError(
            f"{count:,} images of {shape[0]} x {shape[1]} need {gib:.0f} GiB of memory; give a "
            "smaller --size, or read them in a training of your own (--run)."
        ) from error


def _refuse_sizes(
    paths: Sequence[str], shape: tuple[int, int], outcomes: Sequence[Outcome]
) -> None:
    other = {i: outcome.size for i, outcome in enumerate(outcomes) if outcome.size}
    if not other:
        return
    first = next(i for i, outcome in enumerate(outcomes) if not (outcome.size or outcome.problem))
    second, (height, width) = next(iter(other.items()))
    raise InputError(
        f"images differ in size: {paths[first]} is {shape[0]} x {shape[1]} but {paths[second]} is "
        f"{height} x {width} (height x width), and {len(other):,} of {len(paths):,} differ from "
        f"the first. Give one size to resize to: --size {min(shape)} (in Python size={min(shape)})."
    )

"""Image files decoded into one uint8 array, by a few threads (Pillow releases the GIL).

As in Keras and torchvision, orientation tags are not applied, transparency is dropped (with a
note), and an animation gives its first frame. Not here: which files (`listing`), keeping the result
(`cache`). Called by `folder`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from relucate.data.listing import Progress
from relucate.errors import InputError

CHUNK = 128  # files per task: long enough to hide the queue, short enough for a smooth display
GRAY = frozenset({"1", "L", "LA", "La"})  # Pillow modes without colour, at most 8 bits deep
# Pillow reads more formats: an EPS would start Ghostscript; a PDF or a font isn't a photograph.
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")


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

    def work(chunk: range) -> list[_Outcome]:
        return [_decode_into(pixels[i], root / paths[i], size is not None) for i in chunk]

    outcomes: list[_Outcome] = []
    for results in _in_threads(work, len(paths)):
        outcomes += results
        if progress:
            progress("decoding images", len(outcomes), len(paths))
    _refuse_sizes(paths, shape, outcomes)
    failed = {i: outcome.problem for i, outcome in enumerate(outcomes) if outcome.problem}
    as_filled = grayscale or any(outcome.colour for outcome in outcomes)
    transparent = sum(outcome.transparent for outcome in outcomes)
    return Decoded(pixels if as_filled else pixels[..., :1], failed, transparent)


class _Outcome(NamedTuple):
    """One file: has it colour, and transparency; its (height, width) if wrong; why it failed."""

    colour: bool = False
    transparent: bool = False
    size: tuple[int, int] | None = None
    problem: str = ""


def _in_threads(work: Callable[[range], list[_Outcome]], count: int) -> Iterator[list[_Outcome]]:
    """Yield `work`'s results over chunks of 0..count-1, in order."""
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        with _no_warnings():
            yield from pool.map(work, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata and very large images: only pixels matter here.

    One thread enters it for all, because they share the filters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode_into(row: np.ndarray, path: Path, resize: bool) -> _Outcome:
    """Fill `row` (h, w, 1 or 3) with the image at `path`."""
    from PIL import Image

    height, width, channels = row.shape
    try:
        with Image.open(path, formats=FORMATS) as image:
            if _too_deep(image):
                return _Outcome(
                    problem=f"{image.mode} pixels; expected 8 bits per channel (npz:PATH takes "
                    "arrays of floats)"
                )
            if not resize and image.size != (width, height):
                image.load()  # a broken file is reported as broken, not by the size that it claims
                return _Outcome(size=(image.height, image.width))
            flat = image.convert("L" if channels == 1 else "RGB")
            if flat.size != (width, height):
                flat = flat.resize((width, height), Image.Resampling.BILINEAR)
            row[...] = np.asarray(flat).reshape(height, width, channels)
            return _Outcome(image.mode not in GRAY, image.has_transparency_data)
    except Exception as error:  # Pillow's decoders raise many kinds of errors on broken files
        return _Outcome(problem=_reason(error, path))


def _too_deep(image: Any) -> bool:
    """Return whether pixels have 16 or 32 bits (modes I, I;16, F): converting would clip them."""
    return image.mode[0] in "IF"


def _reason(error: Exception, path: Path) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "an empty file"
    return (str(error) or type(error).__name__).replace(str(path), path.name)


def _first_size(root: Path, paths: Sequence[str]) -> tuple[int, int]:
    """Return (height, width) of the first file that can be decoded; (1, 1) if none can."""
    from PIL import Image

    for path in paths:
        try:
            with _no_warnings(), Image.open(root / path, formats=FORMATS) as image:
                image.load()
                if not _too_deep(image):
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
    paths: Sequence[str], shape: tuple[int, int], outcomes: Sequence[_Outcome]
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

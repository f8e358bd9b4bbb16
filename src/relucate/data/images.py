"""Image files decoded into one uint8 array, by a few threads (Pillow frees the interpreter lock).

Not here: which files (`listing`), keeping the result (`cache`). Orientation tags are not applied,
transparency is dropped, of an animation the first frame counts: as Keras and torchvision do.
Called by `folder`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relucate.errors import InputError

Progress = Callable[[int, int], None]
CHUNK = 128  # files per task: long enough to hide the queue, short enough for a smooth display
GRAY = frozenset({"1", "L", "LA", "La"})  # Pillow modes without colour, at most 8 bits deep


@dataclass(frozen=True)
class Decoded:
    """pixels: (n, h, w, c) uint8, rows of failed files undefined; failed: index -> reason."""

    pixels: np.ndarray
    failed: dict[int, str]


def decode(
    root: Path,
    paths: Sequence[str],
    size: tuple[int, int] | None,
    grayscale: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode `paths` under `root`: three channels, or one if every file is gray or `grayscale`.

    Args:
        root: folder that the paths start from.
        paths: n relative paths.
        size: (height, width) to resize to with Pillow's bilinear filter (the whole image, nothing
            is cropped), or None if all have the same size already.
        grayscale: one channel (ITU-R 601 luma), whatever the files hold.
        progress: called with (done, n) from this thread.

    Raises:
        InputError: no `size` and files of different sizes; more pixels than fit into memory.
    """
    shape = size or _first_size(root, paths)
    pixels = _room(len(paths), shape, 1 if grayscale else 3)
    failed: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    colour = False

    def work(chunk: range) -> list[tuple[int, Any]]:
        return [(i, _decode_into(pixels[i], root / paths[i], size is not None)) for i in chunk]

    done = 0
    for results in _in_threads(work, len(paths)):
        for i, result in results:
            if isinstance(result, str):
                failed[i] = result
            elif isinstance(result, tuple):
                sizes[i] = result
            else:
                colour = colour or result
        done += len(results)
        if progress:
            progress(done, len(paths))
    _refuse_sizes(paths, shape, sizes, failed)
    return Decoded(pixels if colour or grayscale else pixels[..., :1], failed)


def _in_threads(work: Callable[[range], Any], count: int) -> Any:
    """Yield `work`'s results over chunks of 0..count-1, in order."""
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata and very large images; what matters here is whether
            # the pixels can be read. Set once, because the filters are shared by all threads.
            warnings.simplefilter("ignore")
            yield from pool.map(work, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_into(row: np.ndarray, path: Path, resize: bool) -> bool | str | tuple[int, int]:
    """Fill `row` (h, w, 1 or 3) with the image at `path`.

    Returns:
        Whether the image has colour; or its (height, width) if that doesn't fit `row`; or, as
        text, why it can't be decoded.
    """
    from PIL import Image

    height, width, channels = row.shape
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # 16 or 32 bits: a silent conversion would clip them
                return f"{image.mode} pixels, more than 8 bits; expected 8-bit images"
            if not resize and image.size != (width, height):
                return image.size[::-1]
            colour = image.mode not in GRAY
            flat = _flat(image, "L" if channels == 1 else "RGB")
            if flat.size != (width, height):
                flat = flat.resize((width, height), Image.Resampling.BILINEAR)
            row[...] = np.asarray(flat).reshape(height, width, channels)
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        return _reason(error, path)
    return colour


def _flat(image: Any, mode: str) -> Any:
    """Return a Pillow image in `mode` ("L" or "RGB"), its transparency dropped."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _reason(error: Exception, path: Path) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "an empty file"
    return (str(error) or type(error).__name__).replace(str(path), path.name)


def _first_size(root: Path, paths: Sequence[str]) -> tuple[int, int]:
    """Return (height, width) of the first file that opens, from its header; (1, 1) if none does."""
    from PIL import Image

    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(root / path) as image:
                    return image.size[::-1]
        except Exception:  # named later, when all are decoded
            continue
    return 1, 1


def _room(count: int, shape: tuple[int, int], channels: int) -> np.ndarray:
    try:
        return np.empty((count, *shape, channels), dtype=np.uint8)
    except MemoryError as error:
        gib = count * shape[0] * shape[1] * channels / 2**30
        raise InputError(
            f"{count:,} images of {shape[0]} x {shape[1]} need {gib:.0f} GiB of memory; give a "
            "smaller --size."
        ) from error


def _refuse_sizes(
    paths: Sequence[str],
    shape: tuple[int, int],
    sizes: dict[int, tuple[int, int]],
    failed: dict[int, str],
) -> None:
    if not sizes:
        return
    first = next(path for i, path in enumerate(paths) if i not in sizes and i not in failed)
    other = min(sizes)
    raise InputError(
        f"images differ in size: {first} is {shape[0]} x {shape[1]} but {paths[other]} is "
        f"{sizes[other][0]} x {sizes[other][1]} (height x width), and {len(sizes):,} of "
        f"{len(paths):,} differ from the first. Give one size to resize to: --size "
        f"{min(shape)} (size={min(shape)} in Python)."
    )

"""Image folders as data sets: list, decode, check, and keep the result in a cache.

The steps themselves: `listing`, `images`, `cache`. Called by `source`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from relucate.data import images
from relucate.data.cache import cached
from relucate.data.dataset import Dataset, make, make_split
from relucate.data.images import Progress
from relucate.data.listing import File, Listing, list_folder
from relucate.errors import InputError

Size = int | tuple[int, int] | None
VERSION = "relucate.folder/1"  # part of each key: a change of what decoding means changes it
SAMPLE = 64  # files whose last bytes go into a key
TAIL = 4096


def load_folder(
    root: str | Path,
    *,
    size: Size = None,
    grayscale: bool = False,
    test_split: float = 0.2,
    seed: int = 0,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Return the images in `root` as a Dataset of uint8, three channels or, if all are gray, one.

    Args:
        root: train/<class>/* and test/<class>/* (or val/, valid/), or <class>/* to be split.
        size: resize to (height, width) or a square, bilinear, nothing cropped.
        grayscale: one channel in any case.
        test_split, seed: of the stratified split, where there is no test part.
        cache: folder of the cache; by default relucate in the user's cache folder.
        skip_bad: skip files that can't be decoded, with a note.
        progress: called with (done, total) while decoding; not when the cache has the result.

    Raises:
        InputError: see `listing.list_folder`; files that aren't images (unless `skip_bad`); images
            of different sizes (unless `size`).
    """
    shape = _shape(size)
    listing = list_folder(root)
    options = {"size": shape, "grayscale": grayscale, "skip_bad": skip_bad}
    notes = listing.notes
    if listing.test is None:
        options |= {"test_split": test_split, "seed": seed}
        where = "the images" if not listing.train_prefix else "train/"
        notes = (f"the test part is a stratified {test_split:.0%} of {where}, seed {seed}", *notes)

    def decode() -> Dataset:
        return _decoded(listing, shape, grayscale, test_split, seed, skip_bad, progress)

    data = cached(_key(listing, options), decode, cache)
    name = Path(root).expanduser().resolve().name
    return replace(data, name=name, notes=(*notes, *data.notes))


def _shape(size: Size) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise InputError(f"size {size} is not a side or (height, width) of whole pixels above 0.")
    return pair[0], pair[1]


def _key(listing: Listing, options: dict[str, object]) -> str:
    """Return a digest of what the decoded result depends on.

    Paths, sizes and times of change of all files, the options, and the last bytes of a sample of
    files: two folders may agree in all the rest (equal-sized bitmaps out of one archive).
    """
    digest = hashlib.sha256(json.dumps([VERSION, options]).encode())
    files = _all_files(listing)
    digest.update(repr([tuple(file) for file in files]).encode(errors="surrogateescape"))
    for file in files[:: max(1, len(files) // SAMPLE)]:
        digest.update(_tail(listing.root / file.path, file.size))
    return digest.hexdigest()


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, size - TAIL), os.SEEK_SET)
            return stream.read(TAIL)
    except OSError:  # decoding will name it
        return b""


def _all_files(listing: Listing) -> list[File]:
    parts = [listing.train, listing.test or {}]
    return [file for part in parts for files in part.values() for file in files]


def _decoded(
    listing: Listing,
    shape: tuple[int, int] | None,
    grayscale: bool,
    test_split: float,
    seed: int,
    skip_bad: bool,
    progress: Progress | None,
) -> Dataset:
    files = _all_files(listing)
    paths = [file.path for file in files]
    result = images.decode(listing.root, paths, shape, grayscale, progress)
    bad = [*listing.bad, *((paths[i], why) for i, why in sorted(result.failed.items()))]
    if bad and not skip_bad:
        raise _not_images(listing.root, bad, len(paths))
    good = np.ones(len(files), dtype=bool)
    good[list(result.failed)] = False
    notes = [f"{len(bad)} files skipped: {_shown(bad)}"] if bad else []
    ...

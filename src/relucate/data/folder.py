"""Image folders as data sets: list, decode, check, and keep the result in a cache.

The steps are in `listing`, `images` and `cache`. Called by `source`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relucate.data import images
from relucate.data.cache import cached
from relucate.data.dataset import Dataset, make, make_split
from relucate.data.images import Decoded
from relucate.data.listing import File, Listing, Progress, list_folder
from relucate.errors import InputError
from relucate.phrases import some

Size = int | tuple[int, int] | None
VERSION = "relucate.folder/1"  # part of each key: change it when the result of decoding changes
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
    """Return the images in `root` as a Dataset of uint8: three channels, or one if all are gray.

    Args:
        root: train/<class>/* and test/<class>/* (or val/, valid/), or <class>/* to be split.
        size: resize to (height, width) or a square, bilinear, nothing cropped.
        grayscale: one channel in any case.
        test_split, seed: of the stratified split, where there is no test part.
        cache: folder of the cache; by default relucate in the user's cache folder.
        skip_bad: skip files that can't be decoded, with a note.
        progress: called with (what, done, total) while the files are listed, before they are
            looked for in the cache, and while they are decoded; total is 0 while it is unknown.

    Raises:
        InputError: see `listing.list_folder`; files that aren't images (unless `skip_bad`); images
            of different sizes (unless `size`).
    """
    options = _Options(_shape(size), grayscale, test_split, seed, skip_bad)
    listing = list_folder(root, progress)
    if progress:
        progress("checking files", len(_all_files(listing)), 0)
    data = cached(_key(listing, options), lambda: _decoded(listing, options, progress), cache)
    notes = list(listing.notes)
    if listing.test is None:
        notes.append(
            f"the folder has no test part: a stratified {test_split:.0%} becomes it, seed {seed}"
        )
    return replace(data, name=listing.root.resolve().name, notes=(*notes, *data.notes))


@dataclass(frozen=True)
class _Options:
    shape: tuple[int, int] | None
    grayscale: bool
    test_split: float
    seed: int
    skip_bad: bool


def _shape(size: Size) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise InputError(f"size {size} is not a side or (height, width) of whole pixels above 0.")
    return pair[0], pair[1]


def _key(listing: Listing, options: _Options) -> str:
    """Return a digest of all that the decoded result depends on.

    That is the options, the paths, sizes and modification times of all files, and the last bytes of
    a sample of them: two folders may agree in everything else (bitmaps of equal size from an
    archive without times).
    """
    split = (options.test_split, options.seed) if listing.test is None else None
    chosen = (VERSION, options.shape, options.grayscale, options.skip_bad, split, listing.bad)
    files = _all_files(listing)
    digest = hashlib.sha256(repr(chosen).encode(errors="surrogateescape"))
    digest.update(repr([tuple(file) for file in files]).encode(errors="surrogateescape"))
    for file in files[:: max(1, len(files) // SAMPLE)]:
        digest.update(_tail(listing.root / file.path, file.size))
    return digest.hexdigest()


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, size - TAIL))
            return stream.read(TAIL)
    except OSError:  # decoding reports it
        return b""


def _all_files(listing: Listing) -> list[File]:
    parts = [listing.train, listing.test or {}]
    return [file for part in parts for files in part.values() for file in files]


def _decoded(listing: Listing, options: _Options, progress: Progress | None) -> Dataset:
    paths = [file.path for file in _all_files(listing)]
    result = images.decode(listing.root, paths, options.shape, options.grayscale, progress)
    bad = [*listing.bad, *((paths[i], why) for i, why in result.failed.items())]
    if bad and not options.skip_bad:
        raise InputError(
            f"{len(bad):,} of {len(paths) + len(listing.bad):,} entries in the class folders of "
            f"{listing.root} can't be read as images: {_shown(bad)}. Remove them, or skip them "
            "with --skip-bad (in Python skip_bad=True)."
        )
    notes = [f"{len(bad):,} files skipped: {_shown(bad)}"] if bad else []
    if result.transparent:
        notes.append(
            f"transparency was dropped in {result.transparent:,} of {len(paths):,} images: their "
            "colours count as if they were opaque"
        )
    train, test = _codes(listing.train), _codes(listing.test or {})
    return _assembled(listing, options, result, np.concatenate([train, test]), len(train), notes)


def _assembled(
    listing: Listing,
    options: _Options,
    result: Decoded,
    codes: np.ndarray,
    train_size: int,
    notes: list[str],
) -> Dataset:
    """Return the data set of the files that were decoded, the first `train_size` for training."""
    names = listing.class_names
    good = np.setdiff1d(np.arange(len(codes)), list(result.failed))
    train, test = good[good < train_size], good[good >= train_size]
    _refuse_empty(listing.root, listing.train, codes[train])
    _refuse_empty(listing.root, listing.test or {}, codes[test])
    if listing.test is None:
        return make_split(
            "folder",
            _rows(result.pixels, good),
            codes[good],
            names,
            test_split=options.test_split,
            seed=options.seed,
            notes=notes,
        )
    return make(
        "folder",
        _rows(result.pixels, train),
        codes[train],
        _rows(result.pixels, test),
        codes[test],
        names,
        notes=notes,
    )


def _refuse_empty(root: Path, part: dict[str, list[File]], codes: np.ndarray) -> None:
    """Refuse a class of which no file could be read."""
    for code, files in enumerate(part.values()):
        if not (codes == code).any():
            folder = (root / files[0].path).parent
            raise InputError(
                f"class folder {folder} holds no file that can be read as an image ({len(files):,} "
                "skipped). Add images or remove the folder."
            )


def _rows(pixels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return rows of `pixels`; a view if they are adjacent, because a copy doubles the memory."""
    if len(index) and index[-1] - index[0] + 1 == len(index):
        return pixels[index[0] : index[-1] + 1]
    return pixels[index]


def _codes(part: dict[str, list[File]]) -> np.ndarray:
    """Return the (n,) labels of a part's files, in the order of `_all_files`."""
    return np.repeat(np.arange(len(part)), [len(files) for files in part.values()])


def _shown(bad: Sequence[tuple[str, str]], most: int = 3) -> str:
    return some((f"{path} ({why})" for path, why in bad), most)

"""Data sets from an .npz file: x_train, y_train, x_test, y_test, or x and y to be split.

Pickled (object) arrays are refused, because opening them would run code from the file. Not here:
what the arrays may contain (`arrays`). Called by `source`, and by `relucate verify --inputs`.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from relucate.data.dataset import Dataset, make, make_split
from relucate.data.saved import PARTS
from relucate.errors import InputError, briefly


def load_npz(
    path: str | Path, *, test_split: float = 0.2, seed: int = 0, task: str | None = None
) -> Dataset:
    """Return the data set in the .npz file at `path`; other arrays in it are left out with a note.

    Raises:
        InputError: no such file, not an .npz, arrays are missing, pickled arrays, or anything that
            `dataset.make` refuses.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no file {path}; expected an .npz file.")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file (a zip of arrays, as np.savez writes it).")
    arrays, left = _read(path, _form)
    try:
        return _dataset(path, arrays, left, {"test_split": test_split, "seed": seed}, task)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load_arrays(path: Path) -> list[np.ndarray]:
    """Return the array of an .npy file, or all arrays of an .npz file in their order.

    Raises:
        InputError: no such file, neither .npy nor .npz, no arrays, damaged or pickled arrays.
    """
    if not path.is_file():
        raise InputError(f"can't read '{path}': no such file; expected an .npy or .npz file.")
    if zipfile.is_zipfile(path):
        arrays, _ = _read(path, lambda names, _: tuple(names))
        if not arrays:
            raise InputError(f"'{path}' holds no arrays.")
        return list(arrays.values())
    try:
        with path.open("rb") as stream:
            _check_claim("the array", _claimed(stream), path.stat().st_size, path)
        return [np.load(path, allow_pickle=False)]
    except InputError:
        raise
    except Exception as error:  # NumPy's reader raises many kinds on a broken header
        raise InputError(f"can't read '{path}' as .npy or .npz: {briefly(error)}.") from error


def _dataset(
    path: Path,
    arrays: dict[str, np.ndarray],
    left: list[str],
    splitting: dict[str, Any],
    task: str | None,
) -> Dataset:
    notes = [f"arrays left out: {', '.join(left)}"] if left else []
    if "x_train" in arrays:
        x_train, y_train, x_test, y_test = (arrays[part] for part in PARTS)
        return make(path.name, x_train, y_train, x_test, y_test, notes=notes, task=task)
    x, y = arrays["x"], arrays["y"]
    return make_split(path.name, x, y, notes=notes, task=task, say=True, **splitting)


def _read(
    path: Path, wanted: Callable[[list[str], Path], tuple[str, ...]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays that are wanted of those in the file, and the names of the others."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            form = wanted(archive.files, path)
            _check_sizes(archive.zip, form, path)
            return (
                {key: _array(archive, key, path) for key in form},
                [key for key in archive.files if key not in form],
            )
    except InputError:
        raise
    except Exception as error:  # of the archive, of its compression, of NumPy's reader
        raise InputError(f"{path} can't be read: {briefly(error)}.") from error


def _check_sizes(archive: zipfile.ZipFile, form: tuple[str, ...], path: Path) -> None:
    """Refuse arrays whose header doesn't match the file, or that don't fit into memory.

    A few bytes can claim to be, or unpack to, terabytes.
    """
    total = 0
    for key in form:
        name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
        held = archive.getinfo(name).file_size
        with archive.open(name) as stream:
            claimed = _claimed(stream)
        _check_claim(key, claimed, held, path)
        total += held
    memory = _memory()
    if memory and total > memory:
        raise InputError(
            f"{path} unpacks to {total / 2**30:,.0f} GiB, more than the {memory / 2**30:,.0f} GiB "
            "of memory here: save a part of it."
        )


def _check_claim(key: str, claimed: int | None, held: int, path: Path) -> None:
    if claimed is not None and claimed != held:
        raise InputError(
            f"{key} in {path} is damaged: its header claims {claimed:,} bytes, and the file "
            f"holds {held:,}."
        )


def _claimed(stream: Any) -> int | None:
    """Return the number of bytes of an .npy stream by its header; None: it isn't such a stream."""
    versions = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        read = versions.get(np.lib.format.read_magic(stream))
        if read is None:
            return None
        shape, _, dtype = read(stream)
    except Exception:  # many kinds, and again with a message when the array itself is read
        return None
    return None if dtype.hasobject else stream.tell() + math.prod(shape) * dtype.itemsize


def _memory() -> int:
    """Return the machine's memory in bytes, 0 if it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _form(found: list[str], path: Path) -> tuple[str, ...]:
    for form in (PARTS, ("x", "y")):
        if set(form) <= set(found):
            return form
    raise InputError(
        f"{path} holds {', '.join(found) or 'no arrays'}; expected x_train, y_train, x_test and "
        "y_test, or x and y. Write it with np.savez(path, x_train=..., ...)."
    )


def _array(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:  # what NumPy raises for an object array, or a broken header
        raise InputError(
            f"{key} in {path} can't be read: {error}. Objects are refused, because unpickling "
            "runs code from the file; save plain numbers or text."
        ) from error

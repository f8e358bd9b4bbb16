"""A data set on disk: one .npy file per array and a JSON, opened memory-mapped, never pickled.

A folder is written next to its place and renamed into it, so that a reader finds all of it or
nothing. Not here: checking the content (`dataset`), where cached folders are (`cache`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from relucate.errors import InputError
from relucate.files import new_folder

PARTS = ("x_train", "y_train", "x_test", "y_test")
SCHEMA = "relucate.dataset/1"
HEADER = "dataset.json"


def write(data: Any, folder: Path) -> Path:
    """Write a `Dataset` as `folder`, all or nothing; one that already holds it is kept.

    Raises:
        InputError: `folder` holds something else, or can't be written (disk full, read-only).
    """
    if os.path.exists(folder):  # unlike Path.exists, False where a parent can't be entered
        return _keep_same(data, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder.parent, ".writing-") as temporary:
            whole = temporary / "whole"
            whole.mkdir(0o700)
            _write_files(data, whole)
            whole.rename(folder)
    except OSError as error:
        if os.path.lexists(folder):  # another process was faster
            return _keep_same(data, folder)
        raise InputError(f"can't write a data set to {folder}: {error}.") from error
    return folder


def read(folder: Path) -> dict[str, Any]:
    """Return the fields of the data set in `folder`, arrays as copy-on-write memory maps.

    Raises:
        InputError: no data set there, one from a newer version, or a damaged one.
    """
    header = _header(folder)
    try:
        fields: dict[str, Any] = {part: _mapped(folder / f"{part}.npy") for part in PARTS}
        expected = {part: [list(fields[part].shape), str(fields[part].dtype)] for part in PARTS}
        if header["arrays"] != expected:
            raise ValueError(f"arrays are {expected}, not {header['arrays']}")
        for name in ("name", "fingerprint"):
            fields[name] = str(header[name])
        for name in ("class_names", "notes"):
            fields[name] = tuple(str(item) for item in header[name])
        fields["labels"] = str(header.get("labels", "classes"))  # older than other kinds
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the data set in {folder} is damaged ({error}). Delete the folder and make it again."
        ) from error
    return fields


def _write_files(data: Any, folder: Path) -> None:
    for part in PARTS:
        np.save(folder / f"{part}.npy", getattr(data, part), allow_pickle=False)
    header = {
        "schema": SCHEMA,
        "name": data.name,
        "class_names": data.class_names,
        "notes": data.notes,
        "labels": data.labels,
        "fingerprint": data.fingerprint,
        "arrays": {
            part: [getattr(data, part).shape, str(getattr(data, part).dtype)] for part in PARTS
        },
    }
    (folder / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")


def _keep_same(data: Any, folder: Path) -> Path:
    if (folder / HEADER).is_file() and _header(folder).get("fingerprint") == data.fingerprint:
        return folder
    raise InputError(
        f"{folder} exists and doesn't hold this data set ({data.fingerprint[:12]}); expected a new "
        "folder. Delete it or choose another."
    )


def _header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no saved data set in {folder}: {error}.") from error
    except ValueError as error:
        raise InputError(f"{folder / HEADER} is damaged: {error}.") from error
    schema = header.get("schema") if isinstance(header, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{folder / HEADER} has schema {schema!r}; expected '{SCHEMA}'. It is not a data set "
            "of relucate's, or it is from another version: delete it and make it again."
        )
    return header


def _mapped(path: Path) -> np.ndarray:
    """Map one .npy file; mode "c", because frameworks warn about arrays that can't be written."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))

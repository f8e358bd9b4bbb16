"""Where decoded image folders are kept, so that a second run doesn't decode them again.

One entry is one folder, written whole (`saved.write`). Its name is a digest of all that the entry
depends on. A damaged entry is deleted and made again; if the cache can't be written, a warning says
so. Entries are never deleted by age: the user empties the folder. Called by `folder`.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from relucate.data.dataset import Dataset
from relucate.errors import InputError


def default_folder() -> Path:
    """Return relucate's folder in the user's cache: $XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "relucate"


def cached(key: str, make: Callable[[], Dataset], cache: str | Path | None = None) -> Dataset:
    """Return entry `key` of the cache, or else the result of `make`, which is written there.

    Args:
        key: hex digest of everything that the result depends on.
        make: returns the data set.
        cache: the cache folder, by default `default_folder()`.
    """
    entry = (Path(cache).expanduser() if cache else default_folder()) / f"folder-{key[:32]}"
    if os.path.isdir(entry):  # unlike Path.is_dir, False where a parent can't be entered
        try:
            return Dataset.open(entry)
        except InputError:
            shutil.rmtree(entry, ignore_errors=True)
    data = make()
    try:
        data.save(entry)
    except InputError as error:
        warnings.warn(
            f"the decoded images are not cached, so the next run decodes them again: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
    return data

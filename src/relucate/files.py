"""Files that a person keeps are whole or not there; folders for temporary files don't pile up.

Called by everything that writes a report, a study, a model or a data set, and by the executors. Not
here: the contents of the files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = "relucate-"
_LOCK = "owner"  # locked while the process that made the folder lives


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file next to `path`, which takes the place of `path` at the end.

    After an error `path` is as it was and the new file is gone. A link is followed; a pipe or a
    device (/dev/stdout) is written to directly.

    Raises: OSError: the place can't be written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    os.close(handle)
    made = Path(name)
    try:
        yield made
        made.chmod(_mode(path))
        with made.open("rb") as stream:
            os.fsync(stream.fileno())  # some file systems report only now that they are full
        made.replace(path)
    finally:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)


def write_text(path: Path, text: str, advice: str = "") -> Path:
    """Write a text that a person keeps, with a line break at its end; return its path.

    Missing folders are made. The file is whole, or as it was before.

    Args: advice: what to do if it can't be written.
    Raises: InputError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        reason = f"can't write '{path}': {error.strerror or error}."
        raise InputError(f"{reason} {advice}".rstrip()) from error
    return path


def _mode(path: Path) -> int:
    """Return the file's permissions, or for a new one those that any other new file gets."""
    if path.is_file():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a `new_folder` in the system's place for temporary files.

    Raises: InputError: there is no place for temporary files.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(new_folder(Path(tempfile.gettempdir()), PREFIX))
        except OSError as error:
            raise InputError(
                f"can't make a folder for temporary files: {error.strerror or error}. Set TMPDIR "
                "to a folder with some room."
            ) from error
        yield folder


@contextmanager
def new_folder(place: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `place`, its name starting with `prefix`, and remove it at the end.

    A folder that a killed process left there is removed by the next call with the same prefix. A
    folder that vanishes in between, or can't be removed, is no error: it would hide the one that
    matters.

    Raises: OSError: the place can't be written to.
    """
    _remove_orphans(place, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        with _owned(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when this process ends in any way."""
    unlocked = folder / f"{_LOCK}.new"
    with unlocked.open("wb") as stream:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is removed
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unlocked.rename(folder / _LOCK)  # it gets its name only once it is locked
        yield


def _remove_orphans(place: Path, prefix: str) -> None:
    """Remove this user's folders whose owner is gone."""
    if fcntl is None:
        return
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb") as stream:
                if _is_free(stream):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_free(stream: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

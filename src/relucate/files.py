"""Files that a person keeps are whole or not there; folders for temporary files don't pile up.

Called by whoever writes a report, a study or a model, and by the executors. Not here: what is in
the files.
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
_LOCK = "owner"  # locked as long as the process that made the folder lives


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path`, which takes the place of `path` at the end.

    After an error `path` is as it was and the new file is gone. A link is followed; what is no
    regular file (a pipe, /dev/stdout) is written to directly.

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
            os.fsync(stream.fileno())  # some file systems notice only now that they are full
        made.replace(path)
    finally:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Return the file's permissions, or for a new one those that any other new file gets."""
    if path.is_file():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder for temporary files, and remove it at the end.

    What a process that was killed left behind is removed when the next one starts. A folder that
    vanishes in between, or can't be removed, is no error: it would hide the one that matters.

    Raises: InputError: there is no place for temporary files.
    """
    try:
        _remove_orphans()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise InputError(
            f"can't make a folder for temporary files: {error.strerror or error}. Set TMPDIR to a "
            "folder with some room."
        ) from error
    try:
        with _owned(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system drops when this process ends, however it ends."""
    unlocked = folder / f"{_LOCK}.new"
    with unlocked.open("wb") as stream:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is removed
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unlocked.rename(folder / _LOCK)  # it has its name only when it is locked
        yield


def _remove_orphans() -> None:
    """Remove this user's folders whose owner is gone."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
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

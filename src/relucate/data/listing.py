"""The contents of an image folder, by names alone: parts, classes, files.

Layouts: train/<class>/* with test/ (or val/, valid/, validation/) next to it, train/ alone, or
<class>/* alone. Not here: opening a single file (`images`). Called by `folder`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from relucate.errors import InputError
from relucate.phrases import some

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that exists is the test part
Progress = Callable[[str, int, int], None]  # what is being done, how many so far, of how many
IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # and names that start with a dot


class File(NamedTuple):
    """One file of a class: its path relative to the root, its bytes, and its modification time."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of an image folder; `test` is None if a test part must be split off."""

    root: Path
    train: dict[str, list[File]]  # class name -> files, both sorted
    test: dict[str, list[File]] | None
    bad: list[tuple[str, str]]  # (relative path, reason): what can't be an image
    notes: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(self.train)


def list_folder(root: str | Path, progress: Progress | None = None) -> Listing:
    """Return the contents of the image folder `root`.

    Args:
        root: the folder.
        progress: called after each class with ("listing files", files so far, 0).

    Raises:
        InputError: no such folder, an empty folder, fewer than two classes, a class without files,
            or classes that differ between train and test.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"folder {root} {what}; expected train/<class>/* or <class>/* in it.")
    folders, strays = _scan(root)
    if not folders:
        what = f"holds {len(strays)} files but no folders" if strays else "is empty"
        raise InputError(f"folder {root} {what}; expected train/<class>/* or <class>/*.")
    parts = {name.casefold(): name for name in folders if name.casefold() in ("train", *TEST_NAMES)}
    if parts:
        return _in_parts(root, parts, folders, strays, progress)
    bad: list[tuple[str, str]] = []
    train = _part(root, "", folders, bad, _counting(progress))
    _check_single(root, train)
    return Listing(root, train, None, bad, _left_out(strays))


def _in_parts(
    root: Path,
    parts: dict[str, str],
    folders: list[str],
    strays: list[str],
    progress: Progress | None,
) -> Listing:
    """Return the listing of a root with train/ and perhaps a test part next to it."""
    if "train" not in parts:
        raise InputError(
            f"folder {root} holds {', '.join(parts.values())} but no train; expected "
            "train/<class>/* next to it."
        )
    second = next((parts[name] for name in TEST_NAMES if name in parts), None)
    left = [f"{name}/" for name in folders if name not in (parts["train"], second)]
    bad: list[tuple[str, str]] = []
    notes = [] if second is None or second.casefold() == "test" else [f"{second}/ is the test part"]
    found, count = {}, _counting(progress)
    for part in (parts["train"], *([second] if second else [])):
        classes, files = _scan(root / part)
        left += [f"{part}/{name}" for name in files]
        found[part] = _part(root, f"{part}/", classes, bad, count)
    train, test = found[parts["train"]], found[second] if second else None
    _check_single(root / parts["train"], train)
    if test is not None and second is not None:
        _check_same_classes(root, train, test, second)
    return Listing(root, train, test, bad, (*notes, *_left_out(left)))


def _counting(progress: Progress | None) -> Callable[[int], None]:
    """Return what takes the number of files of one more class, and reports the files so far."""
    found = 0

    def count(files: int) -> None:
        nonlocal found
        found += files
        if progress:
            progress("listing files", found, 0)

    return count


def _part(
    root: Path,
    prefix: str,
    classes: list[str],
    bad: list[tuple[str, str]],
    count: Callable[[int], None],
) -> dict[str, list[File]]:
    """Return class -> files of one part; entries that aren't files go to `bad`."""
    part = {}
    for name in classes:
        files, others = _files(root / prefix / name, f"{prefix}{name}/")
        bad += others
        if not files:
            inside = f"only folders, such as {others[0][0]}" if others else "no files"
            raise InputError(
                f"class folder {root / prefix / name} holds {inside}; expected images directly in "
                "it. Add images or remove the folder."
            )
        part[name] = files
        count(len(files))
    return part


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of folders and of other files in `folder`, hidden ones left out."""
    folders, files = [], []
    for entry in _entries(folder):
        (folders if stat.S_ISDIR(_status(entry).st_mode) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _files(folder: Path, prefix: str) -> tuple[list[File], list[tuple[str, str]]]:
    """Return the sorted files in `folder`, as paths that begin with `prefix`, and other entries.

    A pipe or a device isn't a file: opening it could wait forever.
    """
    files, others = [], []
    for entry in _entries(folder):
        status = _status(entry)
        if stat.S_ISDIR(status.st_mode):
            others.append((prefix + entry.name, "a folder inside a class folder"))
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            files.append(File(prefix + entry.name, status.st_size, status.st_mtime_ns))
        else:
            others.append((prefix + entry.name, "a pipe, socket or device, not a file"))
    return sorted(files), sorted(others)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of an entry's target, or of a dead link itself: decoding reports it."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = (e for e in entries if not e.name.startswith("."))
            return [e for e in shown if e.name.casefold() not in IGNORED]
    except OSError as error:
        raise InputError(f"can't list folder {folder}: {error.strerror}.") from error


def _check_single(folder: Path, classes: dict[str, list[File]]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"folder {folder} holds {len(classes)} class folders ({', '.join(classes) or 'none'}); "
            "expected one folder of images per class, at least two. Does the path lead to the "
            "folder above or below?"
        )


def _check_same_classes(
    root: Path, train: dict[str, list[File]], test: dict[str, list[File]], test_name: str
) -> None:
    for here, there, ours, theirs in (
        (test_name, "train", test, train),
        ("train", test_name, train, test),
    ):
        extra = [name for name in ours if name not in theirs]
        if extra:
            shown = ", ".join(extra[:5]) + (" ..." if len(extra) > 5 else "")
            raise InputError(
                f"{len(extra)} classes of {root / here} are not in {there}/: {shown}; expected the "
                "same class folders in both."
            )


def _left_out(names: list[str]) -> tuple[str, ...]:
    """Return a note on entries outside the class folders."""
    return (f"left out, as in no class folder: {some(names, 3)}",) if names else ()

"""One function for every form of data: a name, a folder, a file, arrays.

Not here: how each form is read (`digits`, `folder`, `npz`, `dataset`). This package imports no
framework, so the caller passes named data sets that need one (`named`). Called by the command line
and by `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relucate.data import split
from relucate.data.dataset import Dataset, make, make_split
from relucate.data.digits import digits
from relucate.data.folder import Progress, Size, load_folder
from relucate.data.items import has_items, read_items
from relucate.data.npz import load_npz
from relucate.errors import InputError, unknown
from relucate.train.tasks import TASKS

_TABLES = {".csv", ".tsv", ".xlsx", ".parquet", ".json", ".jsonl"}
KINDS = ("folder:", "npz:")  # what a path is marked with
Loader = Callable[[], tuple]  # -> ((x_train, y_train), (x_test, y_test)[, class names])


def load(
    source: object,
    *,
    size: Size = None,
    grayscale: bool = False,
    test_split: float = 0.2,
    seed: int = 0,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
    named: Mapping[str, Loader] | None = None,
    task: str | None = None,
    name: str = "arrays",
) -> Dataset:
    """Return the Dataset that `source` names or holds.

    Args:
        source: a Dataset; arrays ((x_train, y_train), (x_test, y_test)) or (x, y); (train, test) or
            one data set of torch.utils.data, or another that gives (x, y) by number; or text:
            `digits`, `folder:PATH`, `npz:PATH`, or a name in `named`.
        size: for a folder: resize to (height, width), or to a square of this side.
        grayscale: for a folder: one channel for all files.
        test_split: fraction that becomes the test part if the source has none (digits and named
            sets have one).
        seed: of that split.
        cache: where decoded folders are kept; by default relucate in the user's cache folder.
        skip_bad: for a folder: skip files that can't be decoded, instead of refusing.
        progress: called with (what, done, total) while a folder is read; total 0 is unknown.
        named: more names, each with a function that returns
            ((x_train, y_train), (x_test, y_test)), with class names as an optional third item.
        task: a name in `train.tasks.TASKS` decides what the labels of arrays are; None: they do.
        name: of data that has none, in tables.

    Raises:
        InputError: an unknown name, or data that can't be used.

    >>> data = load("digits")
    >>> data.input_shape, len(data.y_train), len(data.y_test)
    ((8, 8, 1), 1437, 360)
    """
    split.check_fraction(test_split)
    if task is not None and task not in TASKS:
        raise unknown("task", task, TASKS)
    kind, _, path = str(source).partition(":") if isinstance(source, str) else ("", "", "")
    if kind == "folder" and path:
        return load_folder(
            path,
            size=size,
            grayscale=grayscale,
            test_split=test_split,
            seed=seed,
            cache=cache,
            skip_bad=skip_bad,
            progress=progress,
        )
    _refuse_folder_options(source, size, grayscale)
    if kind == "npz" and path:
        return load_npz(path, test_split=test_split, seed=seed, task=task)
    if isinstance(source, str | Path):
        return _by_name(str(source), named or {})
    if isinstance(source, Dataset):
        return source
    given, notes = _in_arrays(source, progress)
    if not _is_two(given):
        raise _no_data(given)
    first, second = given
    if _is_pair(first) and _is_pair(second):
        return make(name, *first, *second, task=task, notes=notes)
    cut: Any = {"test_split": test_split, "seed": seed, "say": True}
    return make_split(name, first, second, task=task, notes=notes, **cut)


def _by_name(name: str, named: Mapping[str, Loader]) -> Dataset:
    if name == "digits":
        return digits()
    if name in named:
        return _from_loader(name, named[name])
    path = Path(name).expanduser()
    if name and path.is_dir():
        raise InputError(f"'{name}' is a folder; to use it as image data say 'folder:{name}'.")
    if path.is_file():
        if path.suffix.lower() in _TABLES:
            raise InputError(
                f"'{name}' is a table. Of numbers: read it into arrays, and save them with "
                "np.savez as x_train, y_train, x_test, y_test, or give them in Python. Of image "
                "names and labels: make a folder for each class, of links, and give 'folder:PATH'."
            )
        raise InputError(f"'{name}' is a file; an .npz file of arrays is given as 'npz:{name}'.")
    choices = ["digits", "folder:PATH", "npz:PATH", "FILE.py:NAME", *named]
    raise unknown("data set", name, choices)


def _from_loader(name: str, loader: Loader) -> Dataset:
    (x_train, y_train), (x_test, y_test), *class_names = loader()
    names = class_names[0] if class_names else None
    return make(name, x_train, y_train, x_test, y_test, names)


def _in_arrays(source: Any, progress: Progress | None) -> tuple[Any, list[str]]:
    """Return `source` with arrays in place of data sets that give examples, and notes on them."""
    if has_items(source):
        x, y, notes = read_items(source, progress)
        return (x, y), notes
    if _is_two(source) and all(map(has_items, source)):
        (x, y, notes), (x_test, y_test, _) = (read_items(part, progress) for part in source)
        return ((x, y), (x_test, y_test)), notes
    return source, []


def _is_two(source: Any) -> bool:
    return isinstance(source, tuple | list) and len(source) == 2


def _no_data(source: Any) -> InputError:
    length = f" of {len(source)}" if isinstance(source, tuple | list) else ""
    inside = " Of a loader, give its data set (loader.dataset)." * hasattr(source, "dataset")
    return InputError(
        f"data is a {type(source).__name__}{length}; expected a Dataset, a name, "
        "((x_train, y_train), (x_test, y_test)) or (x, y), or the same of data sets that give "
        f"examples by number, as in torch.utils.data.{inside} For a pipeline or several inputs, "
        "train with your own function: compare(run=...)."
    )


def _is_pair(item: Any) -> bool:
    """Return whether an item is (x, y), and not an array given as a list of two examples."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    return isinstance(item, tuple) or all(hasattr(part, "shape") for part in item)


def _refuse_folder_options(source: object, size: Size, grayscale: bool) -> None:
    given = [name for name, on in (("size", size is not None), ("grayscale", grayscale)) if on]
    if given:
        what = f"'{source}'" if isinstance(source, str) else f"a {type(source).__name__}"
        raise InputError(
            f"{' and '.join(given)} only applies to folder:PATH, and the data is {what}. Leave it "
            "out, or change the arrays themselves."
        )

"""A labelled data set as plain arrays, and how it gets to worker processes.

Not here: where the arrays come from (`source`, `folder`, `npz`, `digits`), which arrays are
accepted (`arrays`, `labels`), the file format (`saved`), augmentation (in the trainers).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from relucate.data import arrays, labels, saved, split
from relucate.errors import InputError, printable


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples with labels, with a train and a test part.

    x_*: images (n, height, width, channels), volumes or videos (n, depth, height, width, channels)
    or vectors (n, features), uint8 (raw pixels) or float32; sequences (n, time, channels), float32;
    tokens (n, time), int64.
    y_*: (n,) int64 in [0, classes); what they are for another kind of `labels` is in `data.labels`.
    class_names: of the classes, or of the columns of y.
    Two data sets are equal if their fingerprints are: same arrays and class names, in this order.
    The arrays are the user's own if no conversion was needed: don't write into them.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str  # sha256 (hex) over shapes, dtypes, bytes, class names, the kind of labels
    notes: tuple[str, ...] = ()  # what was left out or decided, one sentence each
    labels: str = "classes"  # their kind

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, channels last."""
        return tuple(self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes, or of columns of y: the outputs that a model needs."""
        return len(self.class_names)

    def subset(
        self, train_size: int | None = None, test_size: int | None = None, seed: int = 0
    ) -> Dataset:
        """Return a smaller data set with every class in proportion, at least one example of each.

        The same sizes and seed give the same examples, in their old order. None keeps a part whole.

        Raises:
            InputError: a size above the number of examples or below the number of classes.

        >>> x, y = np.zeros((20, 3)), np.arange(20) % 2
        >>> np.bincount(make("toy", x, y, x, y).subset(train_size=6).y_train)
        array([3, 3])
        """
        train = _pick(*labels.strata(self.y_train, self.labels), train_size, seed, "train")
        test = _pick(*labels.strata(self.y_test, self.labels), test_size, seed, "test")
        if train is None and test is None:
            return self
        x_train, y_train = _take(self.x_train, self.y_train, train)
        x_test, y_test = _take(self.x_test, self.y_test, test)
        whole = replace(self, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
        drawn = "stratified" if self.labels == "classes" else "random"
        note = (
            f"a {drawn} subset, seed {seed}: {len(y_train):,} of {len(self.y_train):,} training "
            f"and {len(y_test):,} of {len(self.y_test):,} test examples"
        )
        return replace(whole, fingerprint=fingerprint(whole), notes=(*self.notes, note))

    def validation(self, share: float, seed: int = 0) -> Dataset:
        """Return the training part alone, with a stratified `share` of it as the test part.

        Raises:
            InputError: a share outside (0, 1), or one that leaves a class without an example.
        """
        train, held = self._held_out(share, seed)
        x_train, y_train = _take(self.x_train, self.y_train, train)
        x_test, y_test = _take(self.x_train, self.y_train, held)
        parts = replace(self, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
        return replace(parts, fingerprint=fingerprint(parts))

    def _held_out(self, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return _split(self.y_train, self.labels, self.class_names, share, seed, "validation")

    def check_held_out(self, share: float) -> None:
        """Raise InputError where `held_out` would."""
        if share:
            self._held_out(share)

    def held_out(self, share: float) -> tuple[Dataset, Dataset | None]:
        """Return the data set with a smaller training part, and one to test on what was held out.

        A share of 0 holds out nothing. The split is the same for every run.
        """
        if not share:
            return self, None
        other = self.validation(share)
        return replace(other, x_test=self.x_test, y_test=self.y_test), other

    def save(self, folder: str | Path) -> Path:
        """Write .npy files and a JSON into the new `folder`, all or nothing; return its path."""
        return saved.write(self, Path(folder))

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> Dataset:
        """Return the data set that `save` wrote, memory-mapped: processes share its pages.

        The arrays are private copy-on-write maps: writing into them never reaches the files.

        Args:
            folder: what `save` was given.
            verify: also compare the bytes with the fingerprint (reads everything once).

        Raises:
            InputError: not a saved data set, from a newer version, or damaged.
        """
        opened = cls(**saved.read(Path(folder)))
        if verify and fingerprint(opened) != opened.fingerprint:
            raise InputError(
                f"the data set in {folder} is damaged: its content doesn't match its fingerprint "
                f"{opened.fingerprint[:12]}. Delete the folder and make it again."
            )
        return opened

    def to_dict(self) -> dict[str, Any]:
        """Return what `relucate data` lists, as JSON-ready values.

        Of each class its examples or pixels, of each label its examples, of each target its mean.
        """
        train, test = (_counted(self.labels, y, self.classes) for y in (self.y_train, self.y_test))
        return {
            "name": self.name,
            "shape": list(self.input_shape),
            "dtype": str(self.x_train.dtype),
            "train": len(self.y_train),
            "test": len(self.y_test),
            self.labels: [
                {"name": name, "train": a, "test": b}
                for name, a, b in zip(self.class_names, train, test, strict=True)
            ],
            "fingerprint": self.fingerprint[:12],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        listing = self.to_dict()
        head = {"classes": "class", "targets": "mean of"}.get(self.labels, "label")
        rows = [(head, "train", "test")]
        rows += [(c["name"], f"{c['train']:,}", f"{c['test']:,}") for c in listing[self.labels]]
        if len(rows) > 21:
            rows[21:] = [(f"... {len(rows) - 21} more", "", "")]
        rows.append(("all", f"{listing['train']:,}", f"{listing['test']:,}"))
        width = max(len(name) for name, _, _ in rows)
        lines = [
            f"{self.name}: {' x '.join(map(str, self.input_shape))}, {listing['dtype']}, "
            f"{self.classes} {labels.KINDS[self.labels]}, fingerprint {listing['fingerprint']}"
        ]
        lines += [f"  {name:{width}}  {a:>9}  {b:>9}".rstrip() for name, a, b in rows]
        return printable("\n".join(lines + [f"note: {note}" for note in self.notes]))

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name!r} {self.input_shape} train={len(self.y_train)} "
            f"test={len(self.y_test)} classes={self.classes} {self.fingerprint[:12]}>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def labels_of(data: Dataset, held: Dataset | None) -> dict[str, np.ndarray]:
    """Return the labels that a training is scored by: of `held_out`'s two data sets, by part."""
    return {"test": data.y_test} if held is None else {"test": data.y_test, "held": held.y_test}


def make(
    name: str,
    x_train: object,
    y_train: object,
    x_test: object,
    y_test: object,
    class_names: Sequence[str] | None = None,
    *,
    notes: Sequence[str] = (),
    task: str | None = None,
) -> Dataset:
    """Return a checked, fingerprinted Dataset from arrays.

    Args:
        name: its name in tables.
        x_train, x_test: as `arrays.examples` takes them: images, volumes, sequences, ...
        y_train, y_test: (n,) or (n, 1) integers or text, or one-hot rows, are classes; floats are
            targets, columns of 0 and 1 marks, integers (n, h, w) or (n, d, h, w) masks
            (`data.labels`).
        class_names: names for labels that are already 0..k-1, or for columns; by default the sorted
            training labels.
        notes: sentences for reports.
        task: a name in `train.tasks.TASKS` decides what the labels are.

    Raises:
        InputError: anything that `arrays` refuses; lengths, shapes or dtypes that differ; a single
            class; a class without a training example.

    >>> data = make("toy", np.zeros((4, 3)), [7, 9, 9, 7], np.ones((1, 3)), [9])
    >>> data.y_train, data.class_names
    (array([0, 1, 1, 0]), ('7', '9'))
    """
    train, test = arrays.examples(x_train, "x_train"), arrays.examples(x_test, "x_test")
    given = [(y_train, "y_train"), (y_test, "y_test")]
    found = labels.read(given, train.shape, class_names, task)
    same_length(train, found.parts[0], "x_train", "y_train")
    same_length(test, found.parts[1], "x_test", "y_test")
    _same_form(train, test)
    _check_classes(found.parts[0], found)
    notes = (*notes, *_notes(train, "x_train", found))
    return _made(name, (train, found.parts[0]), (test, found.parts[1]), found, notes)


def make_split(
    name: str,
    x: object,
    y: object,
    class_names: Sequence[str] | None = None,
    *,
    test_split: float = 0.2,
    seed: int = 0,
    notes: Sequence[str] = (),
    task: str | None = None,
    say: bool = False,
) -> Dataset:
    """Return a Dataset from arrays without a test part: a `test_split` becomes it.

    Classes are in proportion in both parts. say: a note says how the test part was made.

    >>> np.bincount(make_split("toy", np.zeros((20, 3)), np.arange(20) % 2).y_test)
    array([2, 2])
    """
    examples = arrays.examples(x, "x")
    found = labels.read([(y, "y")], examples.shape, class_names, task)
    (y,) = found.parts
    same_length(examples, y, "x", "y")
    _check_classes(y, found, "example")
    train, test = _split(y, found.kind, found.names, test_split, seed)
    drawn = "stratified" if found.kind == "classes" else "random"
    said = [f"the test part is a {drawn} {test_split:.0%} of x, y, seed {seed}"] if say else []
    notes = (*said, *notes, *_notes(examples, "x", found))
    return _made(name, (examples[train], y[train]), (examples[test], y[test]), found, notes)


Part = tuple[np.ndarray, np.ndarray]


def _made(
    name: str, train: Part, test: Part, found: labels.Labels, notes: Sequence[str]
) -> Dataset:
    bare = Dataset(name, *train, *test, found.names, "", tuple(notes), found.kind)
    return replace(bare, fingerprint=fingerprint(bare))


def _notes(examples: np.ndarray, what: str, found: labels.Labels) -> list[str]:
    return [note for note in (arrays.reading(examples, what), *found.notes) if note]


def _split(
    y: np.ndarray, kind: str, names: Sequence[str], share: float, seed: int, what: str = "test"
) -> Part:
    """Return sorted train and test indices; classes are in proportion in both."""
    codes, count = labels.strata(y, kind)
    names = names if kind == "classes" else ["examples"] * count
    return split.train_and_test(codes, names, share, seed, what)


def _counted(kind: str, y: np.ndarray, columns: int) -> list[float]:
    """Return what a listing shows of each class, label or target."""
    if kind == "targets":
        return y.mean(axis=0).round(6).tolist()
    if kind == "marks":
        return y.sum(axis=0, dtype=np.int64).tolist()
    return np.bincount(y.ravel(), minlength=columns).tolist()


def fingerprint(data: Dataset) -> str:
    """Return the sha256 (64 hex digits) over class names, shapes, dtypes and bytes of `data`."""
    digest = hashlib.sha256(json.dumps(data.class_names).encode())
    if data.labels != "classes":  # the fingerprints of classes are older than other kinds
        digest.update(data.labels.encode())
    for part in saved.PARTS:
        array = getattr(data, part)
        digest.update(f"{part} {array.shape} {array.dtype}".encode())
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def same_length(x: np.ndarray, y: np.ndarray, what_x: str, what_y: str) -> None:
    """Refuse examples and labels of different lengths, naming both."""
    if len(x) != len(y):
        raise InputError(
            f"{what_x} holds {len(x):,} examples but {what_y} {len(y):,} labels; expected one "
            "label per example."
        )


def _same_form(train: np.ndarray, test: np.ndarray) -> None:
    """Refuse parts whose examples differ in shape, or in dtype and so probably in scale."""
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"x_train holds examples of shape {train.shape[1:]} but x_test {test.shape[1:]}; "
            "expected the same."
        )
    if train.dtype != test.dtype:
        raise InputError(
            f"x_train is {train.dtype} but x_test {test.dtype}; expected both as uint8 pixels or "
            "both as floats on the same scale."
        )


def _check_classes(codes: np.ndarray, found: labels.Labels, what: str = "training example") -> None:
    names = found.names
    if found.kind not in ("classes", "masks"):
        return
    if len(names) < 2:
        raise InputError(f"one class only, {list(names)}; expected at least two.")
    counts = np.bincount(codes.ravel(), minlength=len(names)).tolist()
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if missing:
        raise InputError(f"no {what} of class {missing[0]!r} ({len(missing)} such classes).")


def _pick(
    codes: np.ndarray, classes: int, size: int | None, seed: int, part: str
) -> np.ndarray | None:
    """Return the sorted indices of a subset of one part, or None for all of it."""
    if size is None:
        return None
    if not classes <= size <= len(codes):
        raise InputError(
            f"{part} size {size:,} is not possible: expected at least one per class ({classes:,}) "
            f"and at most the {len(codes):,} examples of the part."
        )
    return split.stratified(codes, size, seed, stream=part)


def _take(x: np.ndarray, y: np.ndarray, index: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    return (x, y) if index is None else (x[index], y[index])

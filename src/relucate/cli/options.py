"""Options that several verbs share."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

import typer

from ..errors import InputError
from ..option import option
from .fields import given_values

_MOST_VALUES = 2**31  # of an input: 8 GiB


class TextOrJson(StrEnum):
    """What goes to standard output."""

    text = "text"
    json = "json"


Format = Annotated[TextOrJson, typer.Option(help="text or json, on standard output.")]


SOURCES = (
    "digits, folder:PATH, npz:PATH, FILE.py:NAME (a value or a function), or cifar10, cifar100, "
    "mnist, fashion_mnist."
)


@dataclass(frozen=True)
class ReadOptions:
    """How data are read."""

    size: str | None = option(
        None, "Resize a folder's images: SIDE or HEIGHTxWIDTH.", shown="as they are"
    )
    grayscale: bool = option(
        False,
        "One channel for a folder's images.",
        flag="--grayscale/--no-grayscale",
    )
    skip_bad: bool = option(False, "Skip files of a folder that aren't images.")
    test_split: float = option(0.2, "Share that becomes the test part where the data has none.")


@dataclass(frozen=True)
class DataOptions:
    """Which data to use, and how much of them."""

    data: str = option("digits", SOURCES)
    train_size: int | None = option(None, "Train on this many examples (stratified).", shown="all")
    test_size: int | None = option(None, "Test on this many examples (stratified).", shown="all")


def load_data(options: Mapping[str, Any], *, quiet: bool) -> Any:
    """Return the Dataset that `DataOptions` and `ReadOptions` among the options name."""
    used = DataOptions(**given_values(DataOptions, options))
    found = read_data(used.data, options, quiet=quiet)
    if used.train_size is None and used.test_size is None:
        return found
    return found.subset(used.train_size, used.test_size)


def read_data(source: str, options: Mapping[str, Any], *, quiet: bool = False, **more: Any) -> Any:
    """Return the Dataset that `source` names, read as `ReadOptions` among the options say."""
    from ..api.study import load_data

    chosen = given_values(ReadOptions, options)
    if "size" in chosen:
        chosen["size"] = _size(chosen["size"])
    if options.get("task"):
        chosen["task"] = options["task"]
    with _ProgressLine(quiet) as line:
        return load_data(source, progress=line, **chosen, **more)


def _size(text: str) -> Any:
    parts = text.lower().split("x")
    try:
        sizes = [int(part) for part in parts]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or min(sizes, default=0) < 1:
        raise InputError(
            f"--size must be SIDE or HEIGHTxWIDTH in pixels, such as 32 or 32x48, got '{text}'."
        )
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


class _ProgressLine:
    """The progress of reading data, one line on standard error, if that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet or not sys.stderr.isatty()
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._quiet:
            text = f"{what}: {done:,}" + (f" of {total:,}" if total else "")
            print(f"\r{text:{self._width or 1}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)

    def __exit__(self, *error: object) -> None:
        if self._width:
            print(file=sys.stderr, flush=True)


def builder_options(texts: Iterable[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE texts as a dict; a value that isn't valid JSON is text."""
    chosen = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--option must be NAME=VALUE, got '{text}'.")
        chosen[name.strip()] = _value(value.strip())
    return chosen


def varied_options(texts: Iterable[str] | None) -> dict[str, list[Any]]:
    """Return NAME=A,B,... texts as lists of values, each read as `builder_options` reads one."""
    varied: dict[str, list[Any]] = {}
    for text in texts or ():
        name, equals, values = (part.strip() for part in text.partition("="))
        found = [value.strip() for value in values.split(",")]
        if not equals or not name or not all(found):
            raise InputError(f"--vary must be NAME=VALUE,VALUE and so on, got '{text}'.")
        if name in varied:
            raise InputError(f"--vary {name} is given twice: put all its values into one.")
        varied[name] = [_value(value) for value in found]
    return varied


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def input_shapes(texts: Iterable[str] | None) -> list[tuple[int, ...]]:
    """Return the shapes, without the batch axis, that --input-shape gives."""
    return [_shape(text) for text in texts or ()]


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().replace(",", "x").split("x")
    try:
        sizes = tuple(int(part) for part in parts)
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InputError(
            f"--input-shape must be sizes without the batch axis, such as 3x224x224, got '{text}'."
        )
    if math.prod(sizes) > _MOST_VALUES:
        raise InputError(
            f"--input-shape {text} makes inputs of more than {_MOST_VALUES:,} values; take a "
            "smaller size."
        )
    return sizes

"""Many stores of runs into one: the jobs of an array, or of several machines.

Not here: the file format (`store`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .store import Row, Store

NAME = "runs.sqlite"  # of the store in the folder that `relucate compare --out` writes


@dataclass
class Merged:
    """What a merge did: runs in the new store, those found more than once, and the odd ones.

    differing: a sentence for each run that has another result in a later store.
    """

    path: Path
    runs: int = 0
    added: int = 0
    repeated: int = 0
    differing: list[str] = field(default_factory=list)


def merge(stores: Sequence[str | Path], out: str | Path) -> Merged:
    """Join stores into the one at `out`, which is created, or already holds runs.

    Runs with the same hash and result are one run. If the results differ (in anything but their
    seconds), the first one is kept, and the other is named: runs that aren't deterministic, or the
    bits of another machine.

    Args: stores, out: SQLite files, or folders that hold `runs.sqlite`.
    Raises: InputError: a store that is missing, not a store, or of another schema; `out` is one of
    the stores. Then `out` is as it was.
    """
    paths, new = [_file(path) for path in stores], _file(out)
    for path in paths:
        if path.resolve() == new.resolve():
            raise InputError(f"'{path}' is both read and written: give another --out.")
    merged = Merged(new)
    with ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path, read_only=True)) for path in paths]
        found = [(store.path, row) for store in opened for row in store.rows()]
        with Store.open(new) as target:
            known = {row.hash: (new, row) for row in target.rows()}
            before = len(known)
            target.add(list(_new_rows(found, known, merged)))
    merged.runs, merged.added = len(known), len(known) - before
    return merged


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.is_file() or path.suffix in (".sqlite", ".db") else path / NAME


def _new_rows(
    found: Sequence[tuple[Path, Row]], known: dict[str, tuple[Path, Row]], merged: Merged
) -> Iterator[Row]:
    """Yield the rows of runs that aren't known yet, and note the others."""
    for path, row in found:
        if row.hash not in known:
            known[row.hash] = (path, row)
            yield row
            continue
        merged.repeated += 1
        place, first = known[row.hash]
        if _outcome(first) != _outcome(row):
            merged.differing.append(
                f"{_named(row)} is {_score(row)} in '{path}', and {_score(first)} in "
                f"'{place}', which is kept"
            )


def _outcome(row: Row) -> tuple[Any, ...]:
    """Return what a deterministic run repeats."""
    result = json.loads(row.result)
    return {**result, "seconds": None}, row.per_example, row.kind


def _score(row: Row) -> str:
    return str(json.loads(row.result).get("metric"))


def _named(row: Row) -> str:
    """Return a run's arm and seed, as far as its spec has them."""
    spec = json.loads(row.spec)
    arm = spec.get("arm") or {}
    return f"the run of '{arm.get('given', '?')}' with seed {spec.get('seed', '?')}"

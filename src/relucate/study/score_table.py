"""Scores that exist already, as records with a place: from a file, a data frame or a mapping.

Not here: what the records mean (`score_rows`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

SUFFIXES = {".jsonl", ".ndjson", ".json"}
DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """Records of scores.

    source: where they come from, in words; records: (place in words, column -> value);
    columns: all of them, in the order of the source; text: whether numbers are written as text;
    fingerprint: SHA-256 of a file's bytes.
    """

    source: str
    records: list[tuple[str, dict[str, Any]]]
    columns: list[str]
    text: bool = False
    fingerprint: str | None = None


def read(scores: Any) -> Table:
    """Return the records of a file, a data frame or a sequence of mappings.

    A data frame of any library that returns its rows as mappings: pandas (`to_dict`), polars
    (`to_dicts`), pyarrow (`to_pylist`), and what narwhals wraps (`to_native`).

    Raises: InputError: it is something else, a file that can't be read, or there are no records.
    """
    if isinstance(scores, (str, Path)):
        return _of_file(Path(scores))
    rows = _rows_of(scores.to_native() if hasattr(scores, "to_native") else scores)
    if rows is None:
        raise InputError(
            "scores must be {arm: {seed: score}}, {arm: [score, ...]}, a data frame, a sequence of "
            f"mappings, or the path of a CSV or JSON lines file, got {type(scores).__name__}."
        )
    kind = "rows" if isinstance(scores, Sequence) else "a data frame"
    return _table(kind, [(f"row {k}", row) for k, row in enumerate(rows)])


def _rows_of(scores: Any) -> list[Mapping[Any, Any]] | None:
    """Return the rows of a data frame or a sequence as mappings, None if it has none."""
    if isinstance(scores, Sequence):
        rows = list(scores)
    elif hasattr(scores, "to_dicts"):
        rows = scores.to_dicts()
    elif hasattr(scores, "to_pylist"):
        rows = scores.to_pylist()
    elif hasattr(scores, "to_dict") and hasattr(scores, "columns"):
        rows = scores.to_dict("records")
    else:
        return None
    return rows if all(isinstance(row, Mapping) for row in rows) else None


def _table(source: str, records: Sequence[tuple[str, Mapping[Any, Any]]], **more: Any) -> Table:
    if not records:
        raise InputError(f"no scores in {source}: expected a row per run.")
    named = [(where, {str(key): value for key, value in row.items()}) for where, row in records]
    columns = list(dict.fromkeys(name for _, row in named for name in row))
    return Table(source, named, columns, **more)


def _of_file(path: Path) -> Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"can't read '{path}' ({error.strerror or error}): expected a CSV or JSON lines file."
        ) from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"can't read {str(path)!r}: {error}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"'{path}' isn't UTF-8 text (line {line}): save it as a CSV file in UTF-8."
        ) from None
    if not text.strip():
        raise InputError(f"'{path}' is empty: expected a row per run.")
    more = {"fingerprint": hashlib.sha256(content).hexdigest()}
    if path.suffix.lower() in SUFFIXES or text.lstrip().startswith("{"):
        return _table(str(path), list(_json_lines(path, text)), **more)
    return _csv(path, text, more)


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"'{path}', line {number}: expected a JSON object, such as "
                f'{{"arm": "a", "seed": 0, "score": 0.9}} ({error}).'
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"'{path}', line {number}: expected a JSON object, got {line[:40]!r}.")
        yield f"line {number}", row


def _csv(path: Path, text: str, more: dict[str, Any]) -> Table:
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records, columns = [], []
    try:
        for cells in lines:
            cells = [cell.strip() for cell in cells]
            where = f"line {lines.line_num}"
            if not any(cells):
                continue
            if not columns:
                columns = _header(path, cells)
            elif len(cells) != len(columns):
                raise InputError(
                    f"'{path}', {where}: expected {len(columns)} cells, as in the first line, got "
                    f"{len(cells)}{_decimal_comma(cells, delimiter)}."
                )
            else:
                records.append((where, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise InputError(f"'{path}', line {lines.line_num} isn't CSV: {error}.") from None
    return _table(str(path), records, text=True, **more)


def _header(path: Path, cells: list[str]) -> list[str]:
    if all(re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell, re.IGNORECASE) for cell in cells):
        raise InputError(
            f"'{path}' must name its columns in the first line, such as arm,seed,score; got "
            f"{','.join(cells)}."
        )
    twice = [name for name, number in Counter(cells).items() if number > 1]
    if twice:
        raise InputError(f"'{path}' has several columns called '{twice[0]}'.")
    return cells


def _decimal_comma(cells: list[str], delimiter: str) -> str:
    comma = delimiter == "," and any(cell.isdigit() for cell in cells)
    return " (numbers need a decimal point; a comma separates cells)" if comma else ""

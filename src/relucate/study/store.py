"""The finished runs of studies, in one SQLite file: every run is committed the moment it ends.

Runs that cost less than a commit are written together. The content hash of a run's spec is its key,
so that the same command continues where it stopped. The file is a plain rollback-journal database:
between two runs it is complete and can be copied. Several studies, each by its driver, may write
one file, and any number of processes may read it. Not here: the meaning of specs
and results (`train`).
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from relucate.errors import InputError
from relucate.stats.crossed import pack, unpack

APPLICATION_ID = 0x72656C75  # "relu": marks the file as ours, also for `file` and other tools
SCHEMA_VERSION = 3


def _any_score_per_example(connection: sqlite3.Connection) -> None:
    """Migrate from schema 1, which kept only bits, in a column named for them."""
    connection.execute("ALTER TABLE runs RENAME COLUMN correct TO per_example")
    connection.execute("ALTER TABLE runs ADD COLUMN kind TEXT")
    connection.execute("UPDATE runs SET kind = 'bits' WHERE per_example IS NOT NULL")


def _with_digests(connection: sqlite3.Connection) -> None:
    """Migrate from schema 2, whose rows could change without a trace."""
    connection.execute("ALTER TABLE runs ADD COLUMN digest TEXT")
    connection.create_function("row_digest", -1, lambda *row: _digest(row), deterministic=True)
    connection.execute(f"UPDATE runs SET digest = row_digest({_ROW})")


# MIGRATIONS[i] takes an open connection from schema version i + 1 to i + 2.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _any_score_per_example,
    _with_digests,
)

# kind: how per_example holds a run's score on each test example, NULL if it isn't kept;
# 'bits' (right or wrong, numpy.packbits) or 'floats' (float64, little-endian).
# digest: `_digest` of the row, so that a changed run is never taken for a finished one.
_ROW = "hash, status, spec, result, per_example, kind"
_CREATE = """
CREATE TABLE runs (
    hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    spec TEXT NOT NULL,
    result TEXT NOT NULL,
    per_example BLOB,
    kind TEXT,
    digest TEXT,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
)
"""

# A run that is done is never overwritten: the same spec would give the same bits.
_PUT = f"""
INSERT INTO runs ({_ROW}, digest) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hash) DO UPDATE SET
    status = excluded.status, spec = excluded.spec, result = excluded.result,
    per_example = excluded.per_example, kind = excluded.kind, digest = excluded.digest,
    stored_at = excluded.stored_at
WHERE runs.status <> 'done'
"""

_COLUMNS = f"{_ROW}, digest, stored_at"
_ALL = f"SELECT {_COLUMNS} FROM runs ORDER BY rowid"
_ADD = f"INSERT OR IGNORE INTO runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Row(NamedTuple):
    """A stored run as it is in the file: spec and result are JSON texts."""

    hash: str
    status: str
    spec: str
    result: str
    per_example: bytes | None
    kind: str | None
    digest: str  # sha256 of the fields before
    stored_at: str


_PATIENCE = 0.5  # seconds

_ELSEWHERE = "use another folder (--out) or another file (store= in Python)"
_DAMAGED = f"the file is damaged: restore a copy of it, or {_ELSEWHERE}."
_EXPLAINED = {
    sqlite3.SQLITE_NOTADB: f"this is not a SQLite file, so not a store of runs: {_ELSEWHERE}.",
    sqlite3.SQLITE_BUSY: "it is locked by another process. Is another `relucate compare` running "
    f"on it? Wait until it ends, or {_ELSEWHERE}.",
    sqlite3.SQLITE_FULL: "the disk is full: free some space and run the same command again.",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only: "
    f"allow writing to both, or {_ELSEWHERE}.",
    sqlite3.SQLITE_READONLY_DBMOVED: "the file was moved or deleted while in use: "
    "run the same command again.",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened or created: "
    f"check that its folder exists and can be written to, or {_ELSEWHERE}.",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
}


class Store:
    """An open store. Use `Store.open`, as a context manager.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Store.open(Path(folder.name) / "runs.sqlite") as store:
    ...     store.put("4f1c", {"seed": 0}, {"status": "done", "metric": 0.97}, None)
    ...     store.get("4f1c")["metric"]
    0.97
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._waiting: list[tuple[Any, ...]] = []  # rows to write
        self._waiting_since = 0.0

    @classmethod
    def open(cls, path: str | Path, *, timeout: float = 5.0, read_only: bool = False) -> Store:
        """Open the store at `path`; create it, and the folders above it, if there is none.

        Unless `read_only`, this checks that the file can be written to: better now than after the
        first run.

        Args:
            path: the file; by convention its name ends in .sqlite.
            timeout: seconds to wait for another process that is writing.
            read_only: don't write or create anything.

        Raises:
            InputError: the path is a folder or can't be created, the file is not a SQLite file,
                belongs to another program, has a newer schema, is locked, read-only or damaged.
        """
        path = Path(path)
        _prepare(path, read_only)
        with _explained(path, "could not open the store of runs"):
            connection = _connect(path, timeout, read_only)
        try:
            with _explained(path, "could not open the store of runs"):
                _check_ours(path, connection, read_only)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits and close the file; closing twice is fine."""
        try:
            self._write()
        finally:
            self._connection.close()

    def get(self, run_hash: str) -> dict[str, Any] | None:
        """Return the result stored under the hash, or None if there is none.

        Raises:
            InputError: the file can't be read (locked or damaged), or the run was changed after it
                was stored.
        """
        row = self._row(run_hash)
        if row is None:
            return None
        try:
            return json.loads(row.result)
        except ValueError as error:
            raise InputError(f"{self.path}: could not read run {run_hash}: {_DAMAGED}") from error

    def get_per_example(self, run_hash: str, examples: int) -> np.ndarray | None:
        """Return a run's score on each test example, bool or float64 of shape (examples,).

        None if the run, its scores, or scores of that many examples aren't stored.
        """
        row = self._row(run_hash)
        data, kind = (None, None) if row is None else (row.per_example, row.kind)
        if data is not None and kind == "floats" and len(data) == 8 * examples:
            return np.frombuffer(data, "<f8").astype(float)
        if data is not None and kind == "bits" and len(data) == -(-examples // 8):
            return unpack(np.frombuffer(data, np.uint8), examples)
        return None

    def rows(self) -> Iterator[Row]:
        """Yield every stored run as it is stored, in the order of the file."""
        self._write()
        with _explained(self.path, "could not read the runs"):
            yield from map(self._unchanged, map(Row._make, self._connection.execute(_ALL)))

    def add(self, rows: Iterable[Row]) -> None:
        """Store rows of other stores in one transaction: all or none. Known hashes stay.

        Raises: InputError: as for `put`, and what reading `rows` raises.
        """
        what = "could not store the runs, so none of them is"
        with _explained(self.path, what), _transaction(self._connection, "IMMEDIATE"):
            self._connection.executemany(_ADD, rows)

    def put(
        self,
        run_hash: str,
        spec: dict[str, Any],
        result: dict[str, Any],
        per_example: np.ndarray | None,
        *,
        cheap: bool = False,
    ) -> None:
        """Store a finished run and commit it; return when it is safe on disk.

        A run whose stored status is 'done' stays as it is, so putting it twice is harmless; a run
        with any other status is replaced.

        Args:
            run_hash: content hash of the spec.
            spec: plain data (str keys, None, bool, int, finite float, str, list, dict).
            result: plain data; its 'status' ('done' if it has none) is kept as a column. NaN and
                infinite floats become null: JSON has no such numbers, and a reader must not take
                the last loss of a diverged run for a number. Finite floats are read back exactly.
            per_example: (examples,) score on each test example, bool (right or wrong) or floating
                point, or None.
            cheap: repeating the run costs less than a commit, so it may wait for a later one, at
                most as long as `_PATIENCE` after the first that waits, or until the file is closed.

        Raises:
            InputError: the run can't be stored (disk full, locked, read-only, damaged). Runs
                that were stored earlier are kept.
            ValueError, TypeError: spec or result isn't plain data.
        """
        kept = (None, None) if per_example is None else _packed(per_example)
        row = (run_hash, result.get("status", "done"), _canonical(spec), _json(result), *kept)
        now = time.monotonic()
        self._waiting_since = self._waiting_since if self._waiting else now
        self._waiting.append((*row, _digest(row)))
        if not cheap or now - self._waiting_since > _PATIENCE:
            self._write()

    def _write(self) -> None:
        """Write the rows that wait, in one transaction."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        what = f"could not store run {rows[-1][0]} (the runs finished before it are kept)"
        with _explained(self.path, what), _transaction(self._connection, "IMMEDIATE"):
            self._connection.executemany(_PUT, rows)

    def _row(self, run_hash: str) -> Row | None:
        """Return a run as it was stored."""
        self._write()
        with _explained(self.path, f"could not read run {run_hash}"):
            query = f"SELECT {_COLUMNS} FROM runs WHERE hash = ?"
            found = self._connection.execute(query, (run_hash,)).fetchone()
        return None if found is None else self._unchanged(Row._make(found))

    def _unchanged(self, row: Row) -> Row:
        if row.digest == _digest(row[:6]):
            return row
        raise InputError(
            f"{self.path}: could not read run {row.hash}: it was changed after it was stored; "
            f"{_DAMAGED}"
        )


def _digest(row: Iterable[Any]) -> str:
    """Return the sha256 of a row's values (text, bytes or None)."""
    return hashlib.sha256(ascii(tuple(row)).encode()).hexdigest()


def _packed(per_example: np.ndarray) -> tuple[bytes, str]:
    """Return scores per example as bytes, and their kind."""
    if per_example.dtype.kind not in "bf" or per_example.ndim != 1:
        raise ValueError(
            "scores per example must be booleans or floating-point numbers of shape (examples,), "
            f"got {per_example.dtype} of shape {per_example.shape}."
        )
    if per_example.dtype.kind == "b":
        return pack(per_example).tobytes(), "bits"
    return per_example.astype("<f8").tobytes(), "floats"


def _prepare(path: Path, read_only: bool) -> None:
    """Make the folders above the file, and refuse a path that can't be a file."""
    try:
        if path.is_dir():
            raise InputError(
                f"{path}: expected a file for the store of runs, got a folder: "
                f"name a file in it, such as {path / 'runs.sqlite'}."
            )
        if path.exists() and not path.is_file():  # a device, a pipe
            raise InputError(
                f"{path}: expected a regular file for the store of runs: {_ELSEWHERE}."
            )
        if read_only and not path.exists():
            raise InputError(f"{path}: there is no store of runs here: check the path.")
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: could not use the folder {path.parent} for the store of runs: "
            f"{error.strerror}: {_ELSEWHERE}."
        ) from error


def _connect(path: Path, timeout: float, read_only: bool) -> sqlite3.Connection:
    """Return a connection in autocommit mode: each statement is a transaction of its own."""
    mode = "ro" if read_only else "rwc"
    address = f"{path.absolute().as_uri()}?mode={mode}"  # as_uri quotes ? and # in file names
    return sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None)


def _check_ours(path: Path, connection: sqlite3.Connection, read_only: bool) -> None:
    """Refuse a file that isn't a sound store of runs of a known schema; set up a new one."""
    connection.execute("PRAGMA synchronous = FULL")
    _check_owner(path, connection)
    _check_version(path, connection, read_only)
    connection.execute(f"SELECT {_ROW}, digest FROM runs LIMIT 0")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise InputError(f"{path}: could not open the store of runs: {_DAMAGED}")
    if not read_only:
        _check_writable(connection)


def _check_owner(path: Path, connection: sqlite3.Connection) -> None:
    """Raise unless the file is ours or empty."""
    with _transaction(connection, "DEFERRED"):  # one snapshot: another process may be creating it
        owner = _pragma(connection, "application_id")
        ours = owner == APPLICATION_ID or (owner == 0 and _is_empty(connection))
    if not ours:
        raise InputError(
            f"{path}: this SQLite file belongs to another program "
            f"(application id {owner}, not {APPLICATION_ID}), so it is left alone: {_ELSEWHERE}."
        )


def _check_version(path: Path, connection: sqlite3.Connection, read_only: bool) -> None:
    """Raise for a newer schema; create or migrate an older one."""
    version = _pragma(connection, "user_version")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: this store has schema version {version}, and this relucate knows versions "
            f"up to {SCHEMA_VERSION}: upgrade relucate, or {_ELSEWHERE}."
        )
    if version == SCHEMA_VERSION:
        return
    if read_only:
        raise InputError(
            f"{path}: this store has schema version {version}, and this relucate reads version "
            f"{SCHEMA_VERSION}: run `relucate compare` on it once, which brings it up to date."
        )
    with _transaction(connection, "IMMEDIATE"):
        _bring_up_to_date(connection)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Create the tables, or migrate them; inside a transaction that holds the write lock."""
    version = _pragma(connection, "user_version")  # another process may have been faster
    if version < 1:
        connection.execute(_CREATE)
    else:
        for migrate in MIGRATIONS[version - 1 :]:
            migrate(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_writable(connection: sqlite3.Connection) -> None:
    """Write and roll back, in a journal mode that leaves a single file behind.

    BEGIN IMMEDIATE alone succeeds on a read-only file; changing a page does not.
    """
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Make one transaction: commit at the end, or roll back on any exception, also Ctrl-C.

    kind: DEFERRED to read from one snapshot, IMMEDIATE to hold the write lock from the start.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Turn SQLite's errors into an InputError with the path and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a closed store: the caller's mistake, not the file's state
        raise
    except UnicodeDecodeError as error:  # damaged names of tables, in a message of SQLite
        raise InputError(f"{path}: {what}: {_DAMAGED}") from error
    except sqlite3.Error as error:
        raise InputError(f"{path}: {what}: {_reason(error)}") from error


def _reason(error: sqlite3.Error) -> str:
    """Return what went wrong and what to do, by the extended error code or its low byte."""
    code = getattr(error, "sqlite_errorcode", 0)
    other = f"SQLite says: {error}. Check the file, or {_ELSEWHERE}."
    return _EXPLAINED.get(code) or _EXPLAINED.get(code & 0xFF) or other


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _is_empty(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0 and _pragma(connection, "user_version") == 0


def _canonical(spec: dict[str, Any]) -> str:
    """Return JSON that is the same for equal specs: sorted keys, no spaces, no NaN."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _json(result: dict[str, Any]) -> str:
    return json.dumps(_without_nan(result), separators=(",", ":"), allow_nan=False)


def _without_nan(value: Any) -> Any:
    """Return plain data with None in place of every NaN and infinite float, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value

"""The store: what it keeps, whatever happens, and every way in which a file can be wrong."""

import json
import math
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relucate.errors import InputError
from relucate.study import store as store_module
from relucate.study.store import APPLICATION_ID, SCHEMA_VERSION, Store

SPEC = {"net": "cnn", "order": "linear-act-norm", "seed": 3, "lr": 0.1}
DONE = {"status": "done", "accuracy": 0.9694444444444444, "curve": [0.5, 0.75]}
RIGHT = np.arange(16) >= 8  # as bits: 00 ff
OTHER = np.arange(16) == 7


def column(store, name):
    """One column of all runs, as SQLite has it."""
    return [row[0] for row in store._connection.execute(f"SELECT {name} FROM runs ORDER BY hash")]


def count(store):
    return len(column(store, "hash"))


def spec_of(store):
    """The spec of the only run."""
    (text,) = column(store, "spec")
    return json.loads(text)


def same(values, expected):
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == expected.dtype


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def store(path):
    with Store.open(path, timeout=0.1) as opened:
        yield opened


@pytest.fixture
def kept(path):
    """A store with one run, closed again."""
    with Store.open(path) as opened:
        opened.put("aa", SPEC, DONE, RIGHT)
    return path


def foreign(path, *statements):
    """Run statements on the file behind the store's back."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


class TestKeeping:
    def test_what_is_put_comes_back(self, store):
        store.put("aa", SPEC, DONE, RIGHT)
        assert store.get("aa") == DONE
        assert spec_of(store) == SPEC
        assert column(store, "per_example") == [b"\x00\xff"]
        same(store.get_per_example("aa", 16), RIGHT)

    @pytest.mark.parametrize("kind", [np.float32, np.float64])
    def test_floats_per_example_come_back_bit_for_bit(self, store, kind):
        values = np.array([0.1, -0.0, 1 / 3, 5e-324], kind)
        store.put("aa", SPEC, DONE, values)
        same(store.get_per_example("aa", 4), values.astype(float))
        assert column(store, "kind") == ["floats"]

    @pytest.mark.parametrize("values", [RIGHT, RIGHT.astype(float)])
    def test_scores_of_another_number_of_examples_are_none(self, store, values):
        store.put("aa", SPEC, DONE, values)
        assert store.get_per_example("aa", 17) is None
        assert store.get_per_example("aa", 8) is None

    @pytest.mark.parametrize("values", [np.arange(3), RIGHT.reshape(4, 4)])
    def test_what_is_no_score_per_example_is_refused(self, store, values):
        with pytest.raises(ValueError, match="booleans or floating-point"):
            store.put("aa", SPEC, DONE, values)
        assert count(store) == 0

    def test_what_is_not_there_is_none(self, store):
        assert store.get("aa") is None
        assert store.get_per_example("aa", 16) is None
        assert count(store) == 0

    def test_a_run_without_correctness(self, store):
        store.put("aa", SPEC, DONE, None)
        assert store.get_per_example("aa", 16) is None
        assert column(store, "kind") == [None]
        assert store.get("aa") == DONE

    def test_it_is_there_after_closing_and_opening(self, kept):
        with Store.open(kept) as again:
            assert again.get("aa") == DONE
            assert count(again) == 1

    def test_folders_above_the_file_are_made(self, tmp_path):
        with Store.open(tmp_path / "a" / "b" / "runs.sqlite") as opened:
            opened.put("aa", SPEC, DONE, None)
        assert (tmp_path / "a" / "b" / "runs.sqlite").is_file()

    @pytest.mark.parametrize("name", ["what? #1 50%.sqlite", ":memory:", "läufe.sqlite"])
    def test_any_file_name_is_a_file_name(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with Store.open(name) as opened:
            opened.put("aa", SPEC, DONE, None)
        assert [child.name for child in tmp_path.iterdir()] == [name]

    def test_an_empty_file_becomes_a_store(self, path):
        path.touch()
        with Store.open(path) as opened:
            opened.put("aa", SPEC, DONE, None)
            assert count(opened) == 1

    def test_the_file_is_marked_as_ours(self, kept):
        header = kept.read_bytes()[:100]
        assert struct.unpack(">i", header[60:64]) == (SCHEMA_VERSION,)
        assert header[68:72] == b"relu"

    def test_a_put_waits_for_the_disk(self, store):
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL

    def test_the_specs_json_is_canonical(self, store):
        store.put("aa", {"b": [1, 2], "a": {"d": None, "c": True}}, DONE, None)
        text = store._connection.execute("SELECT spec FROM runs").fetchone()[0]
        assert text == '{"a":{"c":true,"d":null},"b":[1,2]}'

    def test_a_spec_with_nan_is_refused_and_nothing_is_stored(self, store):
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.put("aa", {"lr": math.nan}, DONE, None)
        assert count(store) == 0

    def test_a_closed_store_is_the_callers_mistake(self, path):
        opened = Store.open(path)
        opened.close()
        opened.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened.get("aa")


class TestPuttingTwice:
    def test_a_done_run_is_never_overwritten(self, store):
        store.put("aa", SPEC, DONE, RIGHT)
        store.put("aa", {}, {"status": "failed"}, None)
        store.put("aa", {}, {"status": "done", "accuracy": 0.0}, None)
        assert store.get("aa") == DONE
        assert spec_of(store) == SPEC
        same(store.get_per_example("aa", 16), RIGHT)
        assert count(store) == 1

    @pytest.mark.parametrize("status", ["diverged", "failed"])
    def test_any_other_run_is_replaced_as_a_whole(self, store, status):
        store.put("aa", {"old": 1}, {"status": status}, OTHER)
        store.put("aa", SPEC, DONE, RIGHT)
        assert store.get("aa") == DONE
        assert spec_of(store) == SPEC
        same(store.get_per_example("aa", 16), RIGHT)
        assert count(store) == 1

    def test_no_status_means_done(self, store):
        store.put("aa", SPEC, {"accuracy": 0.5}, None)
        store.put("aa", SPEC, {"accuracy": 0.6}, None)
        assert store.get("aa") == {"accuracy": 0.5}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class TestValues:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(st.text(), plain, max_size=4).filter(lambda d: "status" not in d))
    def test_plain_data_round_trips_bit_for_bit(self, tmp_path_factory, result):
        path = tmp_path_factory.getbasetemp() / "roundtrip.sqlite"
        path.unlink(missing_ok=True)
        with Store.open(path) as opened:
            opened.put("aa", result, result, None)
            # json tells 1 from 1.0 and -0.0 from 0.0, which == does not
            assert json.dumps(opened.get("aa")) == json.dumps(result)
            assert json.dumps(spec_of(opened), sort_keys=True) == json.dumps(result, sort_keys=True)

    @pytest.mark.parametrize(
        "value", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 0.9694444444444444]
    )
    def test_floats_keep_their_bits(self, store, value):
        store.put("aa", SPEC, {"accuracy": value}, None)
        assert struct.pack("d", store.get("aa")["accuracy"]) == struct.pack("d", value)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_becomes_null_at_any_depth(self, store, value):
        result = {
            "status": "diverged",
            "loss": value,
            "curve": [1.0, value],
            "last": {"l": (value,)},
        }
        store.put("aa", SPEC, result, None)
        expected = {"status": "diverged", "loss": None, "curve": [1.0, None], "last": {"l": [None]}}
        assert store.get("aa") == expected
        assert result["curve"] == pytest.approx([1.0, value], nan_ok=True)  # the caller's is kept


class TestSeveralProcesses:
    def test_two_may_read_at_the_same_time(self, kept):
        with Store.open(kept, timeout=0.1) as one, Store.open(kept, timeout=0.1) as two:
            assert one.get("aa") == two.get("aa") == DONE

    def test_a_run_put_by_one_is_seen_by_the_other(self, kept):
        with Store.open(kept) as one, Store.open(kept, read_only=True) as two:
            one.put("bb", SPEC, DONE, None)
            assert two.get("bb") == DONE
            assert count(two) == 2

    def test_a_reader_in_the_middle_of_reading_does_not_stop_opening(self, kept):
        reader = sqlite3.connect(kept, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM runs").fetchall()  # holds a shared lock
        with Store.open(kept, timeout=0.1) as opened:
            assert opened.get("aa") == DONE
        reader.close()

    @pytest.mark.parametrize("attempt", range(5))
    def test_many_may_create_it_at_once(self, path, attempt):
        errors = []
        start = threading.Barrier(8)

        def create(index):
            start.wait()
            try:
                with Store.open(path, timeout=20) as opened:
                    opened.put(f"run{index}", SPEC, DONE, None)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=create, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with Store.open(path) as opened:
            assert count(opened) == 8

    def test_runs_put_before_a_kill_are_kept(self, path):
        program = (
            "import itertools, sys\n"
            "from relucate.study.store import Store\n"
            "store = Store.open(sys.argv[1])\n"
            "for i in itertools.count():\n"
            "    store.put(str(i), {'i': i}, {'i': i, 'curve': [0.1] * 2100}, None)\n"
            "    print(i, flush=True)\n"
        )
        worker = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        seen = [int(worker.stdout.readline()) for _ in range(20)]
        worker.send_signal(signal.SIGKILL)
        seen += [int(line) for line in worker.stdout.read().split()]
        worker.stdout.close()
        worker.wait()
        with Store.open(path) as opened:
            assert all(opened.get(str(i))["i"] == i for i in seen)
            assert count(opened) - len(seen) in (0, 1)  # stored, but killed before it said so

    def test_between_runs_the_file_alone_is_the_whole_store(self, store, path, tmp_path):
        store.put("aa", SPEC, DONE, None)
        assert [child.name for child in tmp_path.iterdir()] == ["runs.sqlite"]
        shutil.copy(path, tmp_path / "copy.sqlite")
        with Store.open(tmp_path / "copy.sqlite") as copy:
            assert copy.get("aa") == DONE

    def test_a_store_left_in_wal_mode_comes_back_to_one_file(self, kept, tmp_path):
        foreign(kept, "PRAGMA journal_mode = WAL")
        with Store.open(kept) as opened:
            opened.put("bb", SPEC, DONE, None)
            assert [child.name for child in tmp_path.iterdir()] == ["runs.sqlite"]


class TestLocked:
    @pytest.fixture
    def lock(self, path):
        """Hold an exclusive lock on the file from another connection, on request."""
        connections = []

        def take():
            connection = sqlite3.connect(path, isolation_level=None)
            connections.append(connection)
            connection.execute("BEGIN EXCLUSIVE")

        yield take
        for connection in connections:
            connection.close()

    def test_the_advice_names_a_folder_for_out_and_a_file_for_python(self, kept, lock):
        lock()
        with pytest.raises(InputError, match=r"use another folder \(--out\) or another file \(sto"):
            Store.open(kept, timeout=0.05)

    def test_opening(self, kept, lock):
        lock()
        with pytest.raises(InputError, match=r"runs\.sqlite: .*locked .* another .*--out"):
            Store.open(kept, timeout=0.05)

    def test_it_gives_up_after_the_timeout(self, kept):
        with Store.open(kept, timeout=0.05) as store:
            ((milliseconds,),) = store._connection.execute("PRAGMA busy_timeout")
        assert milliseconds == 50

    def test_putting_says_that_the_runs_before_are_kept(self, store, lock):
        store.put("aa", SPEC, DONE, None)
        lock()
        with pytest.raises(
            InputError, match=r"run bb \(the runs finished before it are kept\).*lock"
        ):
            store.put("bb", SPEC, DONE, None)

    def test_reading(self, store, lock):
        store.put("aa", SPEC, DONE, None)
        lock()
        with pytest.raises(InputError, match=r"could not read run aa: it is locked"):
            store.get("aa")
        with pytest.raises(InputError, match=r"locked"):
            store.get_per_example("aa", 16)

    def test_it_waits_for_as_long_as_it_is_told(self, kept, path):
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.3, other.rollback)
        release.start()
        with Store.open(kept, timeout=20) as opened:
            assert count(opened) == 1
        release.join()
        other.close()


class TestDiskFull:
    @pytest.fixture
    def full(self, store):
        """A store with one run whose file may not grow any more."""
        store.put("aa", SPEC, DONE, None)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        return store

    def test_the_error_says_so_and_that_the_runs_before_are_kept(self, full):
        with pytest.raises(InputError, match=r"run bb .*before it are kept.*disk is full: free"):
            full.put("bb", SPEC, DONE, np.zeros(800_000, bool))

    def test_what_was_there_is_still_there_and_it_goes_on_when_there_is_space(self, full):
        with pytest.raises(InputError, match="bb"):
            full.put("bb", SPEC, DONE, np.zeros(800_000, bool))
        assert full.get("aa") == DONE
        assert full.get("bb") is None
        full._connection.execute("PRAGMA max_page_count = 1000000")
        full.put("bb", SPEC, DONE, np.zeros(800_000, bool))
        assert count(full) == 2


class TestReadOnly:
    @pytest.fixture
    def protected(self, monkeypatch):
        """Open every file as a user without permission would; root ignores permission bits."""
        connect = store_module._connect
        monkeypatch.setattr(
            store_module, "_connect", lambda path, timeout, read_only: connect(path, timeout, True)
        )

    def test_a_file_that_can_not_be_written_is_refused_before_the_first_run(self, kept, protected):
        with pytest.raises(InputError, match=r"runs\.sqlite: .*read-only: allow .*--out"):
            Store.open(kept)

    def test_it_can_still_be_read_on_request(self, kept):
        before = kept.read_bytes()
        with Store.open(kept, read_only=True) as opened:
            assert opened.get("aa") == DONE
            with pytest.raises(InputError, match=r"run bb .*are kept.*read-only"):
                opened.put("bb", SPEC, DONE, None)
        assert kept.read_bytes() == before

    def test_becoming_read_only_in_the_middle(self, store):
        store.put("aa", SPEC, DONE, None)
        store._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(InputError, match=r"run bb .*are kept.*read-only"):
            store.put("bb", SPEC, DONE, None)
        assert count(store) == 1

    def test_no_new_file_where_none_can_be_made(self, path, protected):
        with pytest.raises(InputError, match=r"runs\.sqlite: .*can't be opened or created.*--out"):
            Store.open(path)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
    def test_a_folder_in_which_not_even_root_may_write(self):
        with pytest.raises(InputError, match=r"/proc/runs\.sqlite: .*can't be opened or created"):
            Store.open("/proc/runs.sqlite")
        with pytest.raises(InputError, match=r"could not use the folder /proc/relucate .*--out"):
            Store.open("/proc/relucate/runs.sqlite")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    @pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o644, 0o555)])
    def test_permission_bits(self, kept, file_mode, folder_mode):
        kept.chmod(file_mode)
        kept.parent.chmod(folder_mode)
        try:
            with pytest.raises(InputError, match=r"runs\.sqlite: .*(read-only|can't be opened)"):
                Store.open(kept)
        finally:
            kept.parent.chmod(0o755)


class TestNotAStore:
    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match=rf"{tmp_path}: .*got a folder.*runs\.sqlite"):
            Store.open(tmp_path)

    @pytest.mark.skipif(not Path(os.devnull).exists(), reason="needs a device with a path")
    def test_a_device(self):
        with pytest.raises(InputError, match=rf"{os.devnull}: expected a regular file"):
            Store.open(os.devnull)

    def test_below_a_file(self, kept):
        with pytest.raises(InputError, match=r"could not use the folder .*runs\.sqlite for"):
            Store.open(kept / "more.sqlite")

    @pytest.mark.parametrize(
        "content", [b"xy", b"seed,accuracy\n0,0.97\n" * 200, b"\x89PNG\r\n" + bytes(2000)]
    )
    def test_not_sqlite(self, path, content):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"runs\.sqlite: .*not a SQLite file.*--out"):
            Store.open(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize("owner", [0, 1234567])
    def test_another_programs_database_is_left_alone(self, path, owner):
        foreign(path, f"PRAGMA application_id = {owner}", "CREATE TABLE bookmarks (url TEXT)")
        before = path.read_bytes()
        with pytest.raises(InputError, match=rf"another program \(application id {owner}, .*--out"):
            Store.open(path)
        assert path.read_bytes() == before

    def test_another_programs_empty_database_is_left_alone_too(self, path):
        foreign(path, "PRAGMA application_id = 1234567")
        with pytest.raises(InputError, match="another program"):
            Store.open(path)

    def test_nothing_there_to_read(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.sqlite: there is no store"):
            Store.open(tmp_path / "none.sqlite", read_only=True)
        assert list(tmp_path.iterdir()) == []


class TestSchemas:
    def test_a_newer_one_names_both_versions(self, kept):
        foreign(kept, f"PRAGMA user_version = {SCHEMA_VERSION + 6}")
        with pytest.raises(
            InputError, match=rf"version {SCHEMA_VERSION + 6}.*up to {SCHEMA_VERSION}: upgrade"
        ):
            Store.open(kept)

    def test_an_older_one_is_migrated_once_and_keeps_its_runs(self, kept, monkeypatch):
        def add_host(connection):
            connection.execute("ALTER TABLE runs ADD COLUMN host TEXT")

        newer = SCHEMA_VERSION + 1
        monkeypatch.setattr(store_module, "SCHEMA_VERSION", newer)
        monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, add_host))
        for _ in range(2):
            with Store.open(kept) as opened:
                assert opened.get("aa") == DONE
                opened._connection.execute("SELECT host FROM runs")
        assert struct.unpack(">i", kept.read_bytes()[60:64]) == (newer,)

    def test_a_migration_that_fails_changes_nothing(self, kept, monkeypatch):
        def broken(connection):
            connection.execute("ALTER TABLE runs ADD COLUMN host TEXT")
            raise KeyboardInterrupt

        monkeypatch.setattr(store_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, broken))
        before = kept.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            Store.open(kept)
        assert kept.read_bytes() == before

    def test_an_older_one_is_not_migrated_for_reading(self, kept, monkeypatch):
        old, new = SCHEMA_VERSION, SCHEMA_VERSION + 1
        monkeypatch.setattr(store_module, "SCHEMA_VERSION", new)
        with pytest.raises(InputError, match=rf"schema version {old}, .*reads version {new}"):
            Store.open(kept, read_only=True)

    def test_one_of_schema_1_opens_with_its_runs_and_their_examples(self, path):
        foreign(
            path,
            "CREATE TABLE runs (hash TEXT PRIMARY KEY, status TEXT NOT NULL, spec TEXT NOT NULL, "
            "result TEXT NOT NULL, correct BLOB, stored_at TEXT NOT NULL "
            "DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))",
            f"INSERT INTO runs (hash, status, spec, result, correct) VALUES "
            f"('aa', 'done', '{json.dumps(SPEC)}', '{json.dumps(DONE)}', x'00ff'), "
            "('bb', 'diverged', '{}', '{\"status\": \"diverged\"}', NULL)",
            f"PRAGMA application_id = {APPLICATION_ID}",
            "PRAGMA user_version = 1",
        )
        for _ in range(2):
            with Store.open(path) as opened:
                assert opened.get("aa") == DONE
                same(opened.get_per_example("aa", 16), RIGHT)
                assert opened.get("bb") == {"status": "diverged"}
                assert opened.get_per_example("bb", 16) is None
                assert column(opened, "kind") == ["bits", None]
        with Store.open(path) as opened:
            opened.put("bb", SPEC, DONE, np.array([0.5]))
            same(opened.get_per_example("bb", 1), np.array([0.5]))

    def test_there_is_a_migration_for_every_step(self):
        assert len(store_module.MIGRATIONS) == SCHEMA_VERSION - 1

    def test_the_mark_is_a_positive_32_bit_number(self):
        assert APPLICATION_ID.to_bytes(4, "big", signed=True) == b"relu"


class TestDamaged:
    @pytest.fixture
    def big(self, path):
        with Store.open(path) as opened:
            for index in range(40):
                opened.put(
                    str(index), SPEC, {**DONE, "curve": [index / 7] * 200}, np.zeros(4000, bool)
                )
        return path

    def test_overwritten_pages(self, big):
        with big.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 8 * 4096)
        with pytest.raises(InputError, match=r"runs\.sqlite: .*damaged: restore a copy"):
            Store.open(big)

    def test_cut_off(self, big):
        with big.open("r+b") as file:
            file.truncate(3 * 4096)
        with pytest.raises(InputError, match=r"runs\.sqlite: .*damaged: restore a copy"):
            Store.open(big)

    @pytest.mark.parametrize(
        "change",
        [
            "result = replace(result, '0.9694', '7.9694')",
            "result = replace(result, '0.9694', 'NaN')",
            "result = replace(result, '0.9694', '\"x\"')",
            "spec = replace(spec, 'linear-act-norm', 'linear-norm-act')",
            "status = 'diverged'",
            "per_example = x'ffff'",
            "kind = 'floats'",
            "hash = 'bb'",
            "digest = NULL",
        ],
    )
    def test_a_run_that_was_edited_is_not_a_result(self, kept, change):
        foreign(kept, f"UPDATE runs SET {change}")
        with Store.open(kept) as opened:
            (name,) = column(opened, "hash")
            for read in (opened.get, lambda name: opened.get_per_example(name, 16)):
                with pytest.raises(InputError, match=rf"run {name}: it was changed after"):
                    read(name)

    def test_runs_of_schema_2_get_their_digest(self, kept):
        foreign(kept, "ALTER TABLE runs DROP COLUMN digest", "PRAGMA user_version = 2")
        with Store.open(kept) as opened:
            assert opened.get("aa") == DONE
            same(opened.get_per_example("aa", 16), RIGHT)
        foreign(kept, "UPDATE runs SET status = 'diverged'")
        with Store.open(kept) as opened, pytest.raises(InputError, match="was changed"):
            opened.get("aa")

    def test_text_that_is_not_json(self, kept):
        foreign(kept, "UPDATE runs SET result = '{\"status'")
        with Store.open(kept) as opened, pytest.raises(InputError, match=r"run aa: .*damaged"):
            opened.get("aa")

    def test_the_table_is_gone(self, kept):
        foreign(kept, "DROP TABLE runs")
        with pytest.raises(InputError, match=r"runs\.sqlite: .*no such table: runs.*--out"):
            Store.open(kept)

    def test_deleted_while_in_use(self, store, path):
        store.put("aa", SPEC, DONE, None)
        path.unlink()
        with pytest.raises(InputError, match=r"run bb .*moved or deleted while in use"):
            store.put("bb", SPEC, DONE, None)

    def test_an_error_in_more_detail_is_explained_by_its_kind(self, path):
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
        with pytest.raises(InputError, match="read-only"), store_module._explained(path, "no"):
            raise error

    def test_an_error_without_an_explanation_is_told_as_it_is(self, path):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        with (
            pytest.raises(InputError, match=r"runs\.sqlite: no: SQLite says: disk I/O error"),
            store_module._explained(path, "no"),
        ):
            raise error

    def test_a_failed_open_leaves_no_connection_behind(self, kept):
        foreign(kept, "DROP TABLE runs")
        with pytest.raises(InputError):
            Store.open(kept)
        kept.rename(kept.with_suffix(".old"))
        with Store.open(kept) as fresh:
            assert count(fresh) == 0


class TestCheapRuns:
    """Runs whose repetition costs less than a commit may wait for a later one."""

    @pytest.fixture
    def on_disk(self, path):
        """A function: the hashes of the runs that another process sees."""

        def hashes():
            with Store.open(path, read_only=True) as other:
                return column(other, "hash")

        return hashes

    @pytest.fixture
    def clock(self, monkeypatch):
        """The store's clock; it stands still."""
        now = [100.0]
        monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
        return now

    def test_they_wait_until_the_store_is_closed(self, path, on_disk, clock):
        with Store.open(path) as store:
            store.put("aa", SPEC, DONE, RIGHT, cheap=True)
            store.put("bb", SPEC, DONE, None, cheap=True)
            assert on_disk() == []
        assert on_disk() == ["aa", "bb"]

    def test_or_an_error_closes_it(self, path, on_disk, clock):
        with suppress(KeyboardInterrupt), Store.open(path) as store:
            store.put("aa", SPEC, DONE, None, cheap=True)
            raise KeyboardInterrupt
        assert on_disk() == ["aa"]

    def test_or_the_next_one_that_is_not(self, store, on_disk, clock):
        store.put("aa", SPEC, DONE, None, cheap=True)
        store.put("bb", SPEC, DONE, None)
        assert on_disk() == ["aa", "bb"]

    def test_or_half_a_second(self, store, on_disk, clock):
        for name, moment in (("aa", 100.0), ("bb", 100.5), ("cc", 100.6)):
            clock[0] = moment
            store.put(name, SPEC, DONE, None, cheap=True)
            assert on_disk() == ([] if moment < 100.6 else ["aa", "bb", "cc"])
        clock[0] = 101.0
        store.put("dd", SPEC, DONE, None, cheap=True)  # it is the first that waits
        assert on_disk() == ["aa", "bb", "cc"]

    def test_the_store_itself_sees_them(self, store, clock):
        store.put("aa", SPEC, DONE, RIGHT, cheap=True)
        assert store.get("aa") == DONE
        store.put("bb", SPEC, DONE, None, cheap=True)
        assert [row.hash for row in store.rows()] == ["aa", "bb"]


class TestAdding:
    @pytest.fixture
    def rows(self, tmp_path):
        with Store.open(tmp_path / "other.sqlite") as other:
            for name in ("aa", "bb"):
                other.put(name, SPEC, {**DONE, "accuracy": 0.5}, OTHER)
            return list(other.rows())

    def test_known_runs_stay(self, store, rows):
        store.put("aa", SPEC, DONE, RIGHT)
        store.add(rows)
        assert store.get("aa") == DONE
        assert store.get("bb")["accuracy"] == 0.5
        same(store.get_per_example("bb", 16), OTHER)

    def test_all_or_none(self, store, rows):
        def failing():
            yield rows[0]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.add(failing())
        assert list(store.rows()) == []

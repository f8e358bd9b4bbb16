"""The cache of decoded folders: hits, damage, places that can't be written."""

from pathlib import Path

import pytest

from relucate.data.cache import cached, default_folder

KEY = "0123456789abcdef" * 4


def never():
    raise AssertionError("made although the cache has it")


def test_the_second_call_reads_the_first_ones_result(toy, cache):
    assert cached(KEY, lambda: toy, cache) is toy
    again = cached(KEY, never, cache)
    assert again == toy
    assert again.notes == toy.notes


def test_another_key_is_another_entry(toy, cache):
    cached(KEY, lambda: toy, cache)
    small = toy.subset(30)
    assert cached("f" * 64, lambda: small, cache) is small
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("name", ["x_train.npy", "dataset.json"])
def test_a_damaged_entry_is_made_again(toy, cache, name):
    cached(KEY, lambda: toy, cache)
    (entry,) = cache.iterdir()
    content = bytearray((entry / name).read_bytes())
    content[-3] ^= 1
    (entry / name).write_bytes(content)
    assert cached(KEY, lambda: toy, cache) is toy
    assert cached(KEY, never, cache) == toy
    assert list(cache.iterdir()) == [entry]


def test_an_entry_that_lost_a_file_is_made_again(toy, cache):
    cached(KEY, lambda: toy, cache)
    (entry,) = cache.iterdir()
    (entry / "y_train.npy").unlink()
    assert cached(KEY, lambda: toy, cache) is toy
    assert cached(KEY, never, cache) == toy


def test_a_cache_that_cannot_be_written_costs_a_warning(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match=r"not cached.*file/cache"):
        assert cached(KEY, lambda: toy, tmp_path / "file" / "cache") is toy


def test_the_default_is_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    assert default_folder() == Path("/somewhere/cache/relucate")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/relucate")


def test_the_default_is_used(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached(KEY, lambda: toy)
    assert len(list((tmp_path / "relucate").iterdir())) == 1

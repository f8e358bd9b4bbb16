"""Options that several verbs share: what reading data shows on a terminal."""

import io
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from relucate.cli.options import ReadOptions, _ProgressLine, read_data
from relucate.errors import InputError

NOT_GIVEN = {field.name: None for field in fields(ReadOptions)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.full((4, 4, 3), 40 * i + len(part), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i}.png")
    return tmp_path / "images"


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def taken(self):
        """Return what was written since the last call."""
        text = self.getvalue()
        self.seek(self.truncate(0))
        return text


@pytest.fixture
def terminal(monkeypatch):
    found = Terminal()
    monkeypatch.setattr("relucate.cli.options.sys", SimpleNamespace(stderr=found))
    return found


def lines(terminal):
    return [line.rstrip() for line in terminal.taken().split("\r")]


def test_reading_a_folder_shows_each_step(folder, terminal):
    read_data(f"folder:{folder}", NOT_GIVEN)
    listed = [f"listing files: {so_far}" for so_far in (3, 6, 9, 12)]
    shown = ["", *listed, "checking files: 12"]
    assert lines(terminal) == [*shown, "decoding images: 12 of 12"]
    read_data(f"folder:{folder}", NOT_GIVEN)
    assert lines(terminal) == shown


def test_an_error_begins_a_line(folder, terminal):
    (folder / "test" / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="can't be read"):
        read_data(f"folder:{folder}", NOT_GIVEN)
    assert terminal.taken().endswith("12 of 12\n")


def test_a_shorter_text_covers_a_longer_one(terminal):
    with _ProgressLine(quiet=False) as line:
        line("listing files", 1000, 0)
        line("reading", 1, 0)
    assert terminal.taken() == "\rlisting files: 1,000\rreading: 1          \n"


def test_when_quiet_it_shows_nothing(folder, terminal):
    read_data(f"folder:{folder}", NOT_GIVEN, quiet=True)
    assert terminal.taken() == ""


def test_elsewhere_than_on_a_terminal_it_shows_nothing(folder, capsys):
    read_data(f"folder:{folder}", NOT_GIVEN)
    assert capsys.readouterr().err == ""

"""Files are whole or as they were; folders of processes that are gone are removed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from relucate.files import PREFIX, replacing, temporary_folder


class TestReplacing:
    def test_the_new_file_takes_the_place_of_the_old_one(self, tmp_path):
        path = tmp_path / "kept.json"
        path.write_text("old")
        path.chmod(0o640)
        with replacing(path) as new:
            new.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert path.stat().st_mode & 0o777 == 0o640
        assert os.listdir(tmp_path) == ["kept.json"]

    def test_a_new_file_has_the_permissions_of_any_other(self, tmp_path):
        (tmp_path / "other").write_text("")
        with replacing(tmp_path / "new") as new:
            new.write_text("x")
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode

    def test_after_an_error_the_old_file_is_as_it_was(self, tmp_path):
        path = tmp_path / "kept.json"
        path.write_text("old")

        def fail():
            with replacing(path) as new:
                new.write_text("half of")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["kept.json"]

    @pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of POSIX")
    def test_a_file_that_does_not_fit_leaves_the_old_one(self, tmp_path):
        import resource

        path = tmp_path / "kept.json"
        path.write_text("old")
        _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError, match="too large"), replacing(path) as new:
                new.write_text("x" * 100_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["kept.json"]

    def test_a_link_stays_one_and_its_file_is_replaced(self, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "real").write_text("old")
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "there" / "real")
        with replacing(link) as new:
            new.write_text("new")
        assert link.is_symlink()
        assert (tmp_path / "there" / "real").read_text() == "new"

    @pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
    def test_a_device_is_written_to_and_stays_one(self):
        with replacing(Path("/dev/null")) as new:
            new.write_text("gone")
        assert Path("/dev/null").is_char_device()


LEFT = """
import os, signal
from relucate.files import temporary_folder
with temporary_folder() as folder:
    (folder / "data").mkdir()
    (folder / "data" / "x.npy").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    input()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the locks of POSIX")
class TestTemporaryFolder:
    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        return tmp_path

    def test_it_is_gone_afterwards(self, place):
        with temporary_folder() as folder:
            (folder / "file").write_text("x")
            assert folder.parent == place
        assert os.listdir(place) == []

    def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(self, place):
        other = subprocess.Popen(
            [sys.executable, "-c", LEFT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        left = Path(other.stdout.readline().strip())
        with temporary_folder():
            assert (left / "data" / "x.npy").exists()
        other.communicate("\n")
        assert other.returncode == -signal.SIGKILL
        assert (left / "data" / "x.npy").exists()
        with temporary_folder() as folder:
            assert os.listdir(place) == [folder.name]

    def test_what_it_did_not_make_is_left_alone(self, place):
        (place / f"{PREFIX}theirs").mkdir()
        (place / f"{PREFIX}file").write_text("x")
        with temporary_folder():
            pass
        assert len(os.listdir(place)) == 2

    def test_vanishing_in_between_does_not_hide_the_message(self, place):
        def fail():
            with temporary_folder() as folder:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
                raise ValueError("what matters")

        with pytest.raises(ValueError, match="what matters"):
            fail()

"""Processes that decode: the same result as without them, and none is left."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile

from relucate.data import decoders, images, pixels
from relucate.data.images import decode


@pytest.fixture
def started(monkeypatch):
    """What was started, by three or more files on a machine with three cores."""
    found = []

    class Helper(decoders._Helper):
        def __init__(self, form):
            super().__init__(form)
            found.append(self._process)

    monkeypatch.setattr(decoders, "_Helper", Helper)
    monkeypatch.setattr(decoders, "WORTH", 1)
    monkeypatch.setattr(decoders, "cores", lambda: 3)
    monkeypatch.setattr(images, "CHUNK", 2)
    yield found
    assert all(process.returncode is not None for process in found)


@pytest.fixture
def folder(tmp_path, write_image):
    """Files of many kinds, good and bad, under names of many kinds."""
    image = Image.fromarray(write_image(tmp_path / "a.png"))
    write_image(tmp_path / 'b "quoted"\nin two lines.png', seed=1)
    write_image(tmp_path / os.fsdecode(b"c\xff.png"), seed=2)
    image.convert("L").save(tmp_path / "d.png")
    image.convert("RGBA").save(tmp_path / "e.png")
    image.save(tmp_path / "f.jpg")
    (tmp_path / "g.jpg").write_bytes((tmp_path / "f.jpg").read_bytes()[:-60])
    (tmp_path / "h.png").write_bytes(b"")
    (tmp_path / "i.png").write_text("text")
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "j.png")
    write_image(tmp_path / "k.png", (9, 9), seed=3)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


def found(folder, size=(4, 4), **options):
    result = decode(folder, sorted(os.listdir(folder)), size, **options)
    result.pixels[list(result.failed)] = 0  # undefined
    return result.pixels.tolist(), result.failed, result.transparent


@pytest.mark.parametrize("options", [{}, {"grayscale": True}])
def test_the_result_is_the_same(folder, started, monkeypatch, options):
    several = found(folder, **options)
    assert len(started) == 3
    monkeypatch.setattr(decoders, "WORTH", 1000)
    assert found(folder, **options) == several
    assert len(started) == 3
    assert several[1].keys() == {6, 7, 8, 9, 10}
    assert "No such file" in several[1][7]


def test_so_is_a_file_of_another_size(folder, started):
    for name in ("g.jpg", "h.png", "i.png", "j.png", "gone.png"):
        (folder / name).unlink()
    with pytest.raises(images.InputError, match=r"a\.png is 6 x 5 but k\.png is 9 x 9"):
        found(folder, None)
    assert len(started) == 3


def test_what_is_set_in_pillow_holds_there_too(folder, started, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)  # above twice that many Pillow refuses
    assert "decompression bomb" in found(folder)[1][0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "g.jpg" not in str(found(folder)[1])
    assert len(started) == 6


def test_one_that_ends_is_replaced_by_this_process(folder, started, monkeypatch):
    expected = found(folder)
    ask = decoders._Helper.decode

    def die(helper, *given):
        answer = ask(helper, *given)
        helper._process.kill()
        helper._process.wait()
        return answer

    monkeypatch.setattr(decoders._Helper, "decode", die)
    assert found(folder) == expected
    assert len(started) == 6


def test_so_is_one_that_ends_in_the_middle_of_an_answer(folder, started, monkeypatch):
    expected = found(folder)
    script = folder.parent / "half.py"
    script.write_text(
        f"print({pixels.READY!r}, flush=True)\ninput()\ninput()\n"
        'print(\'[[true, false, null, ""], [true, false, null, ""]]\')'
    )
    monkeypatch.setattr(pixels, "__file__", str(script))
    assert found(folder) == expected
    assert len(started) == 6


def test_so_is_one_that_never_starts(folder, started, monkeypatch):
    expected = found(folder)
    monkeypatch.setattr(sys, "executable", str(folder / "no-python"))
    assert found(folder) == expected
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert found(folder) == expected


PRINTS = """
import os, PIL.Image
opened = PIL.Image.open
def loudly(*given, **named):
    os.write(1, b"noise")
    return opened(*given, **named)
PIL.Image.open = loudly
"""


@pytest.mark.parametrize("code", ["print('hello', flush=True)", PRINTS], ids=["start", "library"])
def test_what_else_is_printed_does_no_harm(folder, started, monkeypatch, tmp_path_factory, code):
    expected = found(folder)
    place = tmp_path_factory.mktemp("site")
    (place / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setattr(decoders, "_here", lambda *_: pytest.fail("not by a process"))
    assert found(folder) == expected


def test_none_is_left_when_the_reader_stops(folder, started):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(folder, progress=stop)
    assert len(started) == 3


@pytest.mark.parametrize(("count", "expected"), [(1999, 0), (2000, 2), (5000, 3), (10**6, 3)])
def test_few_files_start_none(monkeypatch, count, expected):
    monkeypatch.setattr(decoders, "_Helper", lambda form: [form])
    monkeypatch.setattr(decoders, "cores", lambda: 3)
    assert len(decoders._started(None, count)) == expected


def test_it_ends_with_its_input():
    process = subprocess.Popen(
        [sys.executable, "-P", pixels.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().decode().rstrip() == pixels.READY
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def test_it_imports_nothing_but_pillow():
    code = f"import runpy, sys; runpy.run_path({pixels.__file__!r}, run_name='__main__')"
    command = [sys.executable, "-c", f"{code}; print(*sys.modules, file=sys.stderr)"]
    hello = '[[1, 1, 1, true], [null, false]]\n["x.png"]\n'
    done = subprocess.run(command, input=hello, capture_output=True, text=True, check=True)
    assert "No such file" in done.stdout
    assert "PIL.Image" in done.stderr
    assert not {"numpy", "relucate"} & set(done.stderr.split())

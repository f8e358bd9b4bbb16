"""Image files decoded chunk by chunk: many of them by processes, few by this one.

Pillow holds the GIL for most of the time that a small file takes, so threads alone don't use the
cores. A process that can't be started, or that ends, is replaced by this one. Not here: one file
(`pixels`), the whole array (`images`).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import IO

import numpy as np

from relucate.cores import cores
from relucate.data import pixels
from relucate.data.pixels import Form, Outcome, decoded

WORTH = 1000  # files for which a process is worth its start
_MOST = 16  # processes
_THREADS = 4  # of this process, without others

Decode = Callable[[Sequence[str], np.ndarray], list[Outcome]]


@contextlib.contextmanager
def decoding(form: Form, count: int) -> Iterator[tuple[Decode, int]]:
    """Yield what decodes paths into rows (n, h, w, channels), and how many threads may call it.

    Args: count: the number of files in all.
    """
    helpers = _started(form, count)
    free: SimpleQueue[_Helper] = SimpleQueue()
    for helper in helpers:
        free.put(helper)

    def decode(paths: Sequence[str], rows: np.ndarray) -> list[Outcome]:
        try:
            helper = free.get_nowait()
        except Empty:
            return _here(form, paths, rows)
        try:
            found = helper.decode(paths, rows)
        except (OSError, ValueError):  # it ended, or answers something else
            return _here(form, paths, rows)
        free.put(helper)
        return found

    try:
        with no_warnings():
            yield decode, len(helpers) or min(_THREADS, cores())
    finally:
        for helper in helpers:
            helper.end()


def _started(form: Form, files: int) -> list[_Helper]:
    """Return processes for so many files, none if they would be one, or can't be started."""
    count, found = min(cores(), _MOST, files // WORTH), []
    with contextlib.suppress(OSError):
        for _ in range(count if count > 1 else 0):
            found.append(_Helper(form))
    return found


def _here(form: Form, paths: Sequence[str], rows: np.ndarray) -> list[Outcome]:
    outcomes = []
    for path, row in zip(paths, rows, strict=True):
        outcome, content = decoded(path, form)
        if content:
            row[...] = np.frombuffer(content, np.uint8).reshape(row.shape)
        outcomes.append(outcome)
    return outcomes


class _Helper:
    """A process that decodes. Ctrl-C doesn't reach it; it ends when its input does.

    Raises: OSError: it can't be started.
    """

    def __init__(self, form: Form) -> None:
        self._hello = json.dumps([form, pixels.limits()]).encode() + b"\n"
        self._process = subprocess.Popen(
            [sys.executable, "-P", pixels.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def decode(self, paths: Sequence[str], rows: np.ndarray) -> list[Outcome]:
        """Decode files into rows that are adjacent in memory.

        Raises: OSError, ValueError: the process doesn't answer as it should.
        """
        questions, answers = self._process.stdin, self._process.stdout
        if questions is None or answers is None:  # they are pipes
            raise OSError("no pipes")
        if self._hello:
            _await(answers)
        questions.write(self._hello + json.dumps(list(paths)).encode() + b"\n")
        questions.flush()
        self._hello = b""
        found = json.loads(answers.readline())
        view = rows.data.cast("B")
        while len(view):
            view = view[_filled(answers, view) :]
        return [Outcome(a, b, size and (size[0], size[1]), why) for a, b, size, why in found]

    def end(self) -> None:
        """Let it end, at once if it is at work."""
        self._process.kill()
        self._process.communicate()


def _await(answers: IO[bytes]) -> None:
    """Read until the process is ready; the user's set-up of Python may print something first."""
    for line in answers:
        if line.rstrip() == pixels.READY.encode():
            return
    raise OSError("it ended")


def _filled(answers: IO[bytes], view: memoryview) -> int:
    """Read into a view; return how many bytes it has now."""
    count = answers.readinto(view)  # type: ignore[attr-defined]
    if not count:
        raise OSError("it ended")
    return count


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata and very large images: only pixels matter here.

    One thread enters it for all, because they share the filters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Runs that take turns in one process, so that a GPU works on several of them at the same time.

A captured step takes Python a moment, and the GPU longer. So a run is a generator: it gives the GPU
steps ahead, and yields. In its turn it has a stream of its own and the process's settings, as if it
were alone: its bits don't depend on what runs beside it. Captured steps are given by a thread, so
that the GPU has work while another run builds its network. Not here: who is next (the worker).
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch

from ..train.waiting import Ready
from .precision import repeatable

CHUNK = 32  # steps that are given to the GPU at once; it has up to two chunks ahead


class Turn:
    """A context: what a run sets in its process while it computes, and no longer.

    That is how float32 is computed, the device and a stream of its own, the state of the GPU's
    random numbers, and, from its second turn on, those of the host.
    """

    def __init__(self, device: torch.device, *, tf32: bool) -> None:
        self._device, self._tf32 = device, tf32
        self._host: Any = None  # states of random numbers
        self._own: torch.Generator | None = None  # the GPU's, as this run left it
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __enter__(self) -> Turn:
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self._device))
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give()
        if self.stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self.stream)

    def on_stream(self) -> AbstractContextManager[None]:
        """Return a context in which a thread gives the GPU this run's work."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others compute; afterwards everything is as before."""
        self._host = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._give()
        try:
            yield
        finally:
            self._take()
            for restore, state in zip(_RESTORE, self._host, strict=True):
                restore(state)

    def _take(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(repeatable(tf32=self._tf32))
            if self.stream is not None:
                stack.enter_context(torch.cuda.device(self._device))
                stack.enter_context(torch.cuda.stream(self.stream))
                stack.enter_context(self._own_draws())
            self._settings = stack.pop_all()

    def _give(self) -> None:
        self._settings.close()

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Draw from a state that no other run has; graphs of this run may know it."""
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        others = generator.graphsafe_get_state()
        generator.graphsafe_set_state(self._own or generator.clone_state())
        try:
            yield
        finally:
            self._own = generator.graphsafe_get_state()
            generator.graphsafe_set_state(others)


_RESTORE: tuple[Callable[[Any], Any], ...] = (
    torch.set_rng_state,
    np.random.set_state,
    random.setstate,
)


class Pace:
    """Keeps a run a little ahead of its GPU, and lets others compute meanwhile.

    mark: returns what says whether the GPU has done everything so far; None: nothing works on its
    own, as on a CPU, and no one waits.
    """

    def __init__(self, turn: Turn, mark: Callable[[], Ready] | None) -> None:
        self._turn, self._mark = turn, mark
        self._steps = 0
        self._ahead: deque[Future[Ready]] = deque()  # chunks that the GPU has, or is about to get
        self._repeats = False  # the last one has all steps so far

    def step(self) -> Generator[Ready, None, None]:
        """Go on after a step."""
        self._steps, self._repeats = self._steps + 1, False
        if self._mark is not None and self._steps % CHUNK == 0:
            yield from self._follow(_done(self._mark()))

    def repeat(self, step: Callable[[], None], count: int) -> Generator[Ready, None, None]:
        """Let a thread give the GPU a captured step so many times, a chunk at a time."""
        if self._mark is None:
            for _ in range(count):
                step()
            return
        self._repeats = True
        for done in range(0, count, CHUNK):
            left = min(CHUNK, count - done)
            chunk = _Chunk(step, left, self._mark, self._turn.on_stream)
            yield from self._follow(_giver().take(chunk))

    def _follow(self, chunk: Future[Ready]) -> Generator[Ready, None, None]:
        self._ahead.append(chunk)
        if len(self._ahead) > 1:
            yield from self._wait(self._ahead[0])
            self._ahead.popleft()

    def end(self) -> Generator[Ready, None, None]:
        """Wait until the GPU has done all steps."""
        if self._mark is None:
            return
        if not (self._repeats and self._ahead):
            self._ahead.append(_done(self._mark()))
        yield from self._wait(self._ahead[-1])
        self._ahead.clear()

    def _wait(self, chunk: Future[Ready]) -> Generator[Ready, None, None]:
        with self._turn.aside():
            yield lambda: chunk.done() and (chunk.exception() is not None or chunk.result()())
        chunk.result()  # the error of a step, if there was one

    def settle(self) -> None:
        """Wait until the thread has given everything of this run, which is about to end."""
        wait(self._ahead)
        self._ahead.clear()


def _done(ready: Ready) -> Future[Ready]:
    chunk: Future[Ready] = Future()
    chunk.set_result(ready)
    return chunk


@dataclass
class _Chunk:
    """Steps of one run that a thread gives to the GPU."""

    step: Callable[[], None]
    left: int
    mark: Callable[[], Ready]
    on_stream: Callable[[], AbstractContextManager[None]]
    done: Future[Ready] = field(default_factory=Future)

    def give_one(self) -> bool:
        """Give the next step, and after the last one the mark; return whether there are more."""
        try:
            with self.on_stream():
                self.step()
                self.left -= 1
                if not self.left:
                    self.done.set_result(self.mark())
        except BaseException as error:  # the run that waits for the chunk raises it
            self.done.set_exception(error)
        return not self.done.done()


class _Giver(Thread):
    """Gives the GPU one step of each run in turn: it queues few, and works on all that it has."""

    def __init__(self) -> None:
        super().__init__(name="steps", daemon=True)
        self._new: SimpleQueue[_Chunk] = SimpleQueue()

    def take(self, chunk: _Chunk) -> Future[Ready]:
        """Return what says whether the chunk was given, and then whether the GPU has done it."""
        self._new.put(chunk)
        return chunk.done

    def run(self) -> None:
        """Give steps in an endless loop."""
        chunks: dict[Callable[[], None], deque[_Chunk]] = {}  # of each run
        while True:
            while not (chunks and self._new.empty()):
                self._sort_in(chunks)
            _one_round(chunks)

    def _sort_in(self, chunks: dict[Callable[[], None], deque[_Chunk]]) -> None:
        chunk = self._new.get()
        chunks.setdefault(chunk.step, deque()).append(chunk)


def _one_round(chunks: dict[Callable[[], None], deque[_Chunk]]) -> None:
    for step, own in list(chunks.items()):
        if not own[0].give_one():
            own.popleft()
        if not own:
            del chunks[step]


@functools.cache
def _giver() -> _Giver:
    """Return this process's thread that gives steps to the GPU."""
    giver = _Giver()
    giver.start()
    return giver


def mark_of(device: torch.device) -> Callable[[], Ready] | None:
    """Return how the end of a GPU's work so far is noted, None for other devices."""

    def mark() -> Ready:
        event = torch.cuda.Event()
        event.record()
        return event.query

    return mark if device.type == "cuda" else None

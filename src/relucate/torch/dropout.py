"""Dropout and RReLU whose draws depend only on the seed, the layer's name and the call's number.

So two arms whose layer has the same name and input shape draw the same in the same step, even if
the arms draw other random numbers as well. Called by `trainer`; a captured step gets the same draws
(`capture`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import nn

from ..train.streams import derive, dropout_key

_DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)


def key_dropout(model: nn.Module, seed: int) -> None:
    """Give every module that draws its own random stream, keyed by its name and the call number."""
    for stream, module in _keyed(model, seed):
        module.register_forward_pre_hook(functools.partial(_reseed, stream))
    torch.manual_seed(derive(seed, "torch"))  # for what draws without a module, such as F.dropout


def _keyed(model: nn.Module, seed: int) -> Iterator[tuple[Iterator[int], nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, _DRAWING):
            yield _stream(dropout_key(seed, name)), module


def _reseed(stream: Iterator[int], module: nn.Module, inputs: object) -> None:
    if module.training:
        torch.manual_seed(next(stream))


def _stream(start: int) -> Iterator[int]:
    while True:
        yield start
        start = (start + 0x9E3779B97F4A7C15) & 0x7FFF_FFFF_FFFF_FFFF


class Draws:
    """The random states of a run on a GPU: its own, and one for each call of a module that draws.

    A CUDA graph draws again what it drew when it was captured, unless its states are registered:
    then every replay continues them, or starts them from a new seed. So such a module gets a state
    of its own for each call in a step, seeded before every step.
    """

    def __init__(self, model: nn.Module, seed: int, generator: torch.Generator) -> None:
        self._generator = generator  # PyTorch's default one of the GPU, which dropout draws from
        torch.manual_seed(derive(seed, "torch"))  # of the CPU's generator, too
        self._own = self._kept = generator.graphsafe_get_state()
        self._called: list[Iterator[int]] = []  # streams of the calls in the last step
        self._states: list[torch.Generator] = []  # of the calls in a captured step
        self._next: Iterator[torch.Generator] | None = None
        for stream, module in _keyed(model, seed):
            module.register_forward_pre_hook(functools.partial(self._enter, stream))
            module.register_forward_hook(self._leave, always_call=True)

    def begin(self) -> None:
        """Start a step that isn't captured."""
        self._called = []

    def capture(self, register: Callable[[torch.Generator], None]) -> None:
        """Start the step that is captured; it makes the same calls as the last one.

        The run goes on with a copy of its own state: a capture that fails leaves the states that it
        has seen unusable.
        """
        self._kept, self._own = self._own, self._generator.clone_state()
        self._generator.graphsafe_set_state(self._own)
        self._states = [self._generator.clone_state() for _ in self._called]
        for state in self._states:
            register(state)
        self._next = iter(self._states)

    def captured(self, *, done: bool) -> None:
        """End the step that was captured, or, if it wasn't `done`, go back to the state before."""
        self._next = None
        if not done:
            self._own = self._kept
            self._generator.graphsafe_set_state(self._own)

    def reseed(self) -> None:
        """Give the calls of the next replay their seeds."""
        for stream, state in zip(self._called, self._states, strict=True):
            state.manual_seed(next(stream))

    def _enter(self, stream: Iterator[int], module: nn.Module, inputs: object) -> None:
        if not module.training:
            return
        if self._next is not None:
            state = next(self._next)
        else:
            self._called.append(stream)
            state = self._generator.clone_state()
            state.manual_seed(next(stream))
        self._generator.graphsafe_set_state(state)

    def _leave(self, module: nn.Module, inputs: object, outputs: object) -> None:
        if module.training:
            self._generator.graphsafe_set_state(self._own)

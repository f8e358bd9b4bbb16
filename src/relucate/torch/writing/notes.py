"""What a user has to know of a module that was written: for what it computes the same, and how.

Called by `framework`. Not here: what a planner warns of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx, nn

from ...phrases import some
from ..reading.detached import unwrap
from ..reading.in_training import same_calls_in_training
from ..reading.reader import Reading, unread
from ..running import not_given, output_class
from .arguments import constants
from .copying import backward_hooks


def notes(
    source: nn.Module, made: nn.Module, reading: Reading, paths: Sequence[str]
) -> Iterator[str]:
    """Yield the notes on a written module.

    Args: source: the module that was read; paths: its submodules whose activations had to become
        modules first.
    """
    own_class = isinstance(made, type(source))
    if not own_class:
        yield from _of_traced(source, made, reading)
    yield from _of_submodules(made, paths)
    yield from _of_what_was_read(source, reading)
    if own_class:
        yield from _of_arguments(source, reading)
    if places := reading.values_read:
        yield (
            "what the forward does depends on values of tensors, which it reads at "
            f"{some(places, 2)}. What may depend on them was left as it is."
        )
    if paths := backward_hooks(source):
        named = ", ".join(f"'{path}'" for path in paths)
        yield f"the new module has no backward hooks; the source has, at {named}."


def _of_traced(source: nn.Module, made: nn.Module, reading: Reading) -> Iterator[str]:
    """Yield what a module of another class does differently."""
    if not same_calls_in_training(source, reading.example, reading.leaves, reading.frozen):
        yield (
            "the forward does something else in training mode (behind self.training, or with the "
            "modes of its modules); the new module's forward always does what eval mode does, and "
            "its modules follow its own mode."
        )
    if isinstance(made, fx.GraphModule):
        old, new = (output_class(one, reading.example) for one in (source, made))
        if old is not new:
            yield f"the new module returns a {new.__name__}, not a {old.__name__} as the source."


def _of_submodules(made: nn.Module, paths: Sequence[str]) -> Iterator[str]:
    """Yield what became of the submodules whose activations had to become modules."""
    traced = {p for p in paths if isinstance(made.get_submodule(p), fx.GraphModule)}
    called = "called an activation as a function, one several times, or had its norm inside"
    for those, what in (
        (traced, "a torch.fx.GraphModule of the same calls now, in which"),
        (set(paths) - traced, "of a subclass of its class now, in whose code"),
    ):
        if those:
            named = ", ".join(f"'{path}'" if path else "the model" for path in sorted(those))
            yield f"{named} {called}: it is {what} each is a module of its own."


def _of_what_was_read(source: nn.Module, reading: Reading) -> Iterator[str]:
    """Yield which modules of the model weren't called, and which others were."""
    if paths := unread(reading, source):
        named = ", ".join(f"'{path}'" for path in paths)
        yield (
            f"{named} {'isn' if len(paths) == 1 else 'aren'}'t called for inputs like the "
            "example: of each condition, one branch was read, and only that one is sure to "
            "compute the same."
        )
    if reading.unheld:
        yield (
            f"the forward calls {reading.unheld}. eval(), to() and parameters() don't reach them, "
            "and the new module may call the very same ones."
        )


def _of_arguments(source: nn.Module, reading: Reading) -> Iterator[str]:
    """Yield which arguments the example left out or fixed."""
    if names := not_given(source, reading.example):
        named = some([f"'{name}'" for name in names], 4)
        yield (
            f"the example doesn't give {named}: only calls without were read, and only these "
            "are sure to compute what is promised."
        )
    if given := constants(unwrap(source), reading.example):
        named = some([f"{name}={value!r}" for name, value in given.items()], 4)
        yield (
            f"the example gives {named}: only calls with that were read, and only these are "
            "sure to compute what is promised."
        )

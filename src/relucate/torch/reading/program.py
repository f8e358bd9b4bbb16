"""The value of a traced name while a PyTorch model is read, and the program that is read.

All ways into a model (`symbolic`, `exported`, `recorded`) end in a `Program`: calls of modules and
functions in the order in which they ran. `translator` turns it into a Graph. Not here: any
decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, dtype, fx, nn

from ...phrases import some

# Stands for what the code of a forward that reads values may do: to a tensor, or to make one.
GUARD, MADE = "by_values", "made_by_values"


class Unknown(Exception):
    """This call isn't understood: it becomes an opaque node; the message says why."""


class Rearranged(Unknown):
    """The same, but the call only moves values: a reshape that merges batch and time."""


class Stopped(Exception):
    """This way into the model ends here: the other one may go on.

    `place` is the line of the model's code, where it is known; `cause` says why in plain words.
    """

    place = cause = ""


@dataclass(frozen=True)
class Data:
    """A tensor that depends on the model's input: the output of a node of the Graph."""

    name: str
    shape: tuple[int, ...]
    dtype: dtype
    storage: int  # equal for tensors that may share memory, so that in-place changes are seen
    # Of a tensor whose first axis merges leading axes that are apart in the node's output: their
    # sizes, and the call that merged them.
    lead: tuple[int, ...] = ()
    merge: str = ""

    @property
    def apart(self) -> Data:
        """The same values with the shape of the node's output."""
        shape = (*self.lead, *self.shape[1:]) if self.lead else self.shape
        return replace(self, shape=shape, lead=(), merge="")


class Parts:
    """The several outputs of one call; a part becomes nodes of the Graph when it is first read."""

    def __init__(self, makers: Sequence[Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._makers)

    def get(self, index: int) -> Any:
        """Return one part (negative indices count from the end)."""
        index = range(len(self._makers))[index]
        if index not in self._made:
            self._made[index] = self._makers[index]()
        return self._made[index]


def need_data(value: Any) -> Data:
    """Return a value that depends on the model's input.

    Raises: Unknown: it is a constant or has several parts.
    """
    if not isinstance(value, Data):
        raise Unknown("its first argument is a constant or has several parts")
    return value


@dataclass(frozen=True)
class Call:
    """One call of a module (`target` is its path) or of a function (or the name of a method)."""

    target: Any
    module: bool
    args: tuple[Any, ...]  # with fx.Nodes in the places of traced values
    kwargs: dict[str, Any]
    results: tuple[fx.Node, ...]  # the names that its outputs have
    owner: str  # path of the module in whose forward it is
    owner_call: int  # which call of that module
    outputs: tuple[Any, ...] | None = None  # fake tensors like the results, where they are known


@dataclass
class Program:
    """A traced model: what goes in, the tensors it holds, its calls in order, what comes out."""

    way: str  # "fx", "export" or "call"
    traced: Any
    inputs: list[fx.Node] = field(default_factory=list)
    tensors: dict[fx.Node, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    results: Any = None  # nested, with fx.Nodes
    changed: list[str] = field(default_factory=list)  # buffers that every call sets
    values_read: list[str] = field(default_factory=list)  # where values decide what is called
    strangers: list[str] = field(default_factory=list)  # classes of what `note_stranger` noted

    def note_stranger(self, module: nn.Module) -> None:
        """Note a module that is called and that the model doesn't hold, if it has tensors."""
        if any(True for _ in (*module.parameters(False), *module.buffers(False))):
            self.strangers.append(type(module).__name__)

    @property
    def unheld(self) -> str:
        """Those modules in words, and what to do about them; "" if there are none."""
        kinds = some(dict.fromkeys(self.strangers))
        return kinds and (
            f"modules that it doesn't hold as submodules ({kinds}; from a list, a dict or a "
            "closure, or made in the forward: put them into nn.ModuleList or nn.ModuleDict)"
        )

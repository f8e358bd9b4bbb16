"""PyTorch's compiler (`torch._dynamo`), imported when something is compiled and not before.

Its import takes as long as the rest of PyTorch. Keras and `torch.optim` import it all the same,
only to say which of their functions it must skip. A process of ours that compiles nothing gets a
stand-in, which keeps that and, asked for anything else, imports the compiler. Called by
`framework`, for worker processes and commands. Not here: compiling.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from threading import RLock
from types import FunctionType, ModuleType
from typing import Any

_NAME = "torch._dynamo"


def defer() -> None:
    """Put the stand-in where the compiler would be, unless it has been imported."""
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _StandIn(_NAME)


@dataclass
class _Skipped:
    """A function that the compiler must skip; until there is one, it is called as it is.

    given: the arguments of the compiler's `disable`.
    """

    function: Callable[..., Any]
    given: Mapping[str, Any]
    call: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        self.call = self.function

    def skip(self, compiler: Any) -> None:
        """Let the compiler skip it from now on."""
        self.call = compiler.disable(self.function, **self.given)


class _StandIn(ModuleType):
    """Keeps what the compiler must skip; whatever else is asked of it is the compiler's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._skipped: list[_Skipped] = []
        self._lock = RLock()
        self._real: Any = None

    @property
    def _compiler(self) -> Any:
        """The compiler, imported now if it wasn't."""
        with self._lock:
            if sys.modules.get(_NAME) is not self:  # it is there, or its own import asks
                return self._real or importlib.import_module(_NAME)
            del sys.modules[_NAME]
            self._real = importlib.import_module(_NAME)
            for each in self._skipped:
                each.skip(self._real)
            return self._real

    def disable(self, fn: Any = None, recursive: bool = True, **given: Any) -> Any:
        """Return a function that the compiler will skip, or a decorator that does."""
        if fn is None:
            return partial(self.disable, recursive=recursive, **given)
        if self._real is not None or not isinstance(fn, FunctionType):
            return self._compiler.disable(fn, recursive, **given)
        skipped = _Skipped(fn, {"recursive": recursive, **given})
        self._skipped.append(skipped)

        @wraps(fn)
        def called(*args: Any, **named: Any) -> Any:
            return skipped.call(*args, **named)

        return called

    def graph_break(self, *given: Any, **named: Any) -> None:
        """Do nothing: without a compiler no graph is being made."""
        if self._real is not None:
            self._real.graph_break(*given, **named)

    def reset(self) -> None:
        """Do nothing: without a compiler nothing has been compiled."""
        if self._real is not None:
            self._real.reset()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # of any module; submodules need the path
            raise AttributeError(f"module '{_NAME}' has no attribute '{name}'")
        return getattr(self._compiler, name)

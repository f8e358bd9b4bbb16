"""The user's functions and classes as bytes that a worker process can load, with their code.

Code keeps the name of its file: what reads a forward by its source (`torch.writing.sources`), and
errors that name the user's line, need it in the worker too. cloudpickle from 3.1.3 on drops it.
Called by `source` (builders) and the executors (tasks). Not here: what code is (`identity`).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, ClassVar

from .user_files import find_spec


def pickled(thing: Any, module: str | None) -> bytes:
    """Pickle what a module defines: by name if a worker can import it, else with its code.

    >>> import cloudpickle
    >>> cloudpickle.loads(pickled(lambda: 1, "__main__"))()
    1
    """
    import cloudpickle

    if module is None or module == "__main__" or _is_importable(module):
        return _dumped(thing)
    cloudpickle.register_pickle_by_value(sys.modules[module])
    try:
        return _dumped(thing)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[module])


def _dumped(thing: Any) -> bytes:
    import cloudpickle

    reduce: Any = cloudpickle.Pickler.dispatch_table[CodeType]

    def named(code: CodeType) -> tuple[Any, ...]:
        make, parts = reduce(code)
        return _in_file, (code.co_filename, make, parts)

    class Pickler(cloudpickle.Pickler):
        dispatch_table: ClassVar[Any] = {**cloudpickle.Pickler.dispatch_table, CodeType: named}

    stream = io.BytesIO()
    Pickler(stream).dump(thing)
    return stream.getvalue()


def _in_file(filename: str, make: Callable[..., CodeType], parts: tuple[Any, ...]) -> CodeType:
    return make(*parts).replace(co_filename=filename)


def _is_importable(module: str) -> bool:
    """Return whether a new interpreter with this `sys.path` finds the same file by that name."""
    spec = find_spec(module)
    file = getattr(sys.modules.get(module), "__file__", None)
    return spec is not None and (file is None or spec.origin == file)

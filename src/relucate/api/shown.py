"""The base of every result: it prints as text, shows itself in notebooks, is JSON-ready data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any


class Shown:
    """A verb's result. A subclass gives its data and the functions that print and draw them."""

    def _data(self) -> Mapping[str, Any]:
        """Return the result as plain data."""
        raise NotImplementedError

    def _views(self) -> tuple[Callable[..., None], Callable[..., str]]:
        """Return a function that prints such data to a rich console, and one that makes HTML."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data, the same as the command line prints."""
        return json.loads(json.dumps(self._data(), allow_nan=False))

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        self._views()[0](self.to_dict(), Console(file=text, width=80, color_system=None))
        return text.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        return self._views()[1](self.to_dict())

"""What a comparison must know of each thing that it compares.

Not here: an order that is trained (`arms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..order import Order


class Compared(Protocol):
    """One thing to compare. `arms.Arm` is an order that is trained, `Label` is only a name."""

    @property
    def label(self) -> str: ...
    @property
    def name(self) -> str: ...  # without what varies besides
    @property
    def order(self) -> Order | None: ...
    @property
    def varied(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Label:
    """An arm of which only the name is known."""

    label: str

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    @property
    def order(self) -> None:
        """No order is known."""

    @property
    def varied(self) -> Mapping[str, Any]:
        """Nothing is known to vary."""
        return {}

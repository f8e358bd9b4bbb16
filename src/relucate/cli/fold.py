"""`relucate fold`: absorb every norm that can be, exactly, for inference."""

from __future__ import annotations

from typing import Any

from .transforming import Model, Strategy, carry_out, transforms


@transforms
def fold(model: Model, strategy: Strategy = "auto", **options: Any) -> None:
    """Absorb every batch norm for inference, exactly, and verify the result."""
    carry_out("fold", model, options, strategy=strategy)

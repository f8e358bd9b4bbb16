"""Which of the three places of the norm an order means, wherever dropout is."""

from __future__ import annotations

from ..order import Order


def place_of_norm(order: str | Order) -> str | None:
    """Return "before", "after" or "none", wherever dropout is; None for any other order.

    >>> place_of_norm("linear-act-norm-drop"), place_of_norm("linear-drop-act")
    ('after', 'none')
    """
    order = Order(order)
    return (order.without("drop") if order.has_drop else order).alias

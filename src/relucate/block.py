"""What the blocks of both frameworks share: a group norm's groups, the place of dropout.

Called by `keras.blocks` and `torch.blocks`. Not here: the bias rule (`order`).
"""

from __future__ import annotations

from .errors import InputError
from .order import Order

_GROUPS = 32  # Wu and He, Group Normalization, 2018


def group_count(groups: int | None, channels: int, option: str = "groups") -> int:
    """Return a group norm's number of groups: the largest divisor of the channels up to `groups`.

    Args: groups: -1 is one per channel, None is 32 with at least four channels in each; option: its
        name in the message.
    Raises: InputError: groups is below 1 and isn't -1.

    >>> group_count(None, 64), group_count(6, 8), group_count(-1, 8)
    (16, 4, 8)
    """
    if groups == -1:
        return channels
    if groups is None:
        groups = max(min(_GROUPS, channels // 4), 1)
    if groups < 1:
        raise InputError(f"{option} must be above 0, or -1 for one per channel; got {groups}.")
    return next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)


def check_rate(dropout: float, order: Order | None = None) -> None:
    """Check a rate of dropout, and that the order has a place for it."""
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout must be a rate in [0, 1), got {dropout!r}.")
    if dropout and order is not None and not order.has_drop:
        raise InputError(
            f"dropout={dropout} has no place in the order '{order}': add a drop token, "
            f"for example '{order}-drop'."
        )

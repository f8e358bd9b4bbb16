"""Which parameters weight decay applies to: one rule for every engine."""

from __future__ import annotations


def decays(role: str, *, in_norm: bool, decay_all: bool) -> bool:
    """Return whether weight decay applies to a trained parameter.

    Args:
        role: the parameter's own name in its layer: kernel, weight, bias, bias_ih_l0, alpha, ...
        in_norm: whether the layer that owns it is a norm.
        decay_all: the recipe's option: everything decays.

    >>> [decays(role, in_norm=False, decay_all=False) for role in ("kernel", "bias_ih_l0")]
    [True, False]
    """
    bias = role.startswith("bias") or role.endswith("bias")
    return decay_all or not (in_norm or bias or role == "alpha")

"""The initial values that an arm takes from the arms before it.

Pairing: the same seed gives the same initial value to every tensor whose name and shape agree
across arms. The first arm that has the tensor provides the value. Pure NumPy; the engines load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Tensors = Mapping[str, np.ndarray]

_LARGE = 256  # elements that a tensor needs for its spread to be compared


@dataclass(frozen=True)
class Paired:
    """Initial values of one arm, and the tensors that it shares with an earlier arm."""

    values: dict[str, np.ndarray]
    shared: tuple[str, ...]
    notes: tuple[str, ...]


def pair_initial(own: Tensors, before: Sequence[Tensors]) -> Paired:
    """Return an arm's initial values: an earlier arm's where name and shape agree, else its own.

    Args: own: the arm's tensors by name; before: those of the earlier arms, in order.
    A note names each shared tensor whose own initial values came from a visibly different
    distribution, because the arm then starts from the earlier arm's.

    >>> a, b = {"w": np.zeros(2)}, {"w": np.ones(2), "v": np.ones(1)}
    >>> pair_initial(b, [a]).shared
    ('w',)
    """
    values, shared, notes = dict(own), [], []
    for name, array in own.items():
        source = next((t[name] for t in before if name in t and t[name].shape == array.shape), None)
        if source is None:
            continue
        values[name] = source
        shared.append(name)
        if _differ(array, source):
            notes.append(
                f"'{name}' is initialised differently by the arms (spread {np.std(array):.3g} and "
                f"{np.std(source):.3g}): all of them start from the first arm's values"
            )
    return Paired(values, tuple(shared), tuple(notes))


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    if a.size and np.ptp(a) == 0 and np.ptp(b) == 0:
        return bool(a.flat[0] != b.flat[0])
    if a.size < _LARGE:
        return False
    small, large = sorted((float(np.std(a)), float(np.std(b))))
    return small < 0.8 * large

"""New seeds in each build for Keras's initializers that were given none.

Such an initializer draws its seed when it is made, from the random numbers of Python. One that a
module makes for all its layers (`INIT = keras.initializers.HeNormal()`) is made once in a process:
all seeds of a study would start from the same values, and another worker process from others, so
that the arms of a pair didn't share theirs. Called by `framework`, in worker processes.
"""

from __future__ import annotations

import random
from typing import Any

from keras import initializers

_BASE = initializers.RandomNormal.__mro__[1]  # of all that draw random numbers
_MOST = 10**9  # the largest seed that Keras draws


class _Seed:
    """The attribute `seed`: one that wasn't given is drawn when it is first used in a build."""

    def __init__(self) -> None:
        self._drawn: dict[int, Any] = {}  # of this build, kept so that no id comes twice

    def renew(self) -> None:
        """Begin a new build."""
        self._drawn.clear()

    def __get__(self, initializer: Any, kind: type | None = None) -> Any:
        if initializer is None:
            return self
        values = vars(initializer)
        if "seed" not in values:
            raise AttributeError(f"'{type(initializer).__name__}' has no attribute 'seed'")
        given = values.get("_init_seed", values["seed"])  # an own class may not call Keras's init
        if given is None and id(initializer) not in self._drawn:
            self.__set__(initializer, random.randint(1, _MOST))
        return values["seed"]

    def __set__(self, initializer: Any, seed: Any) -> None:
        vars(initializer)["seed"] = seed
        self._drawn[id(initializer)] = initializer


def renew_seeds() -> None:
    """Let each initializer without a seed of its own draw a new one when it is used next."""
    if not isinstance(vars(_BASE).get("seed"), _Seed):
        _BASE.seed = _Seed()
    vars(_BASE)["seed"].renew()

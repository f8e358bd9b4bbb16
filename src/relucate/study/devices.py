"""The devices of a study's runs: from the user's text, checked before a worker starts.

Not here: what PyTorch sees (`torch/framework.py`), which worker gets which (`executors/local.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..train.waiting import WORTH

_NAME = re.compile(r"([a-z]+)(?::(\d{1,4}))?")
_KINDS = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Devices:
    """A kind of device, auto for what there is, and which ones of it; none: all that are visible.

    >>> Devices.of("cuda:0,cuda:2")
    Devices(kind='cuda', numbers=(0, 2))
    """

    kind: str
    numbers: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: object) -> Devices:
        """Return the devices that a text names.

        Raises: InputError: it isn't auto, a kind of device, or numbered GPUs.
        """
        if isinstance(text, str) and text == "auto":
            return cls("auto")
        parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
        found = [_NAME.fullmatch(part) for part in parts]
        names = [(match[1], match[2]) for match in found if match and match[1] in _KINDS]
        kinds, numbers = {kind for kind, _ in names}, [number for _, number in names]
        numbered = kinds == {"cuda"} and None not in numbers and len(set(names)) == len(names)
        single = len(names) == 1 and numbers == [None]
        if len(names) != len(parts) or not (single or numbered):
            raise InputError(
                f"device must be auto, {', '.join(_KINDS)}, or numbered GPUs such as cuda:1 or "
                f"cuda:0,cuda:2; got {text!r:.80}."
            )
        return cls(kinds.pop(), tuple(int(number) for number in numbers if number is not None))

    @property
    def names(self) -> tuple[str, ...]:
        """The devices as PyTorch names them."""
        return tuple(f"{self.kind}:{number}" for number in self.numbers) or (self.kind,)


def gpus_of(devices: Devices) -> tuple[str, ...]:
    """Return the GPUs that the workers take in turn, as CUDA_VISIBLE_DEVICES names them.

    None: they aren't NVIDIA's, or there are none and the choice was left open. For named devices
    PyTorch is asked, which takes seconds to import.
    Raises: InputError: a device that PyTorch doesn't see.
    """
    if devices.kind == "auto":
        return _installed_gpus()
    if devices.kind == "cpu":
        return ()
    from ..frameworks import HOST, named

    host = named(HOST)
    for name in devices.names:
        host.device(name)
    visible: Sequence[str] = host.gpus() if devices.kind == "cuda" else ()
    return tuple(visible[number] for number in devices.numbers) or tuple(visible)


def likely_gpus(devices: Devices) -> tuple[str, ...]:
    """Return what `gpus_of` will probably return, without asking PyTorch."""
    if devices.kind not in ("auto", "cuda"):
        return ()
    found = _installed_gpus()
    named = (found[number] for number in devices.numbers if number < len(found))
    return tuple(named) if devices.numbers else found


def _installed_gpus(folder: str = "/dev") -> tuple[str, ...]:
    """Return the NVIDIA GPUs of this machine that its user may see, whether PyTorch uses them."""
    count = sum(1 for _ in Path(folder).glob("nvidia[0-9]*"))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not count:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in listed.split(",") if name.strip() not in ("", "-1"))


TRIED = (1, 2, 4, 8)  # runs that take turns on a GPU


def best_side(seconds: Mapping[int, float]) -> int:
    """Return how many runs a GPU takes at the same time, from the seconds of a step by number.

    The smallest number that is nearly as fast as any.

    >>> best_side({1: 0.76, 2: 0.52, 4: 0.39, 8: 0.38})
    4
    """
    fastest = min(seconds.values())
    return min(number for number, each in seconds.items() if each <= fastest * WORTH)

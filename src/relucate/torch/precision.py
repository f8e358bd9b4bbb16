"""How float32 is computed: in full, or on an NVIDIA GPU with inputs rounded to TF32.

PyTorch computes convolutions on such a GPU in TF32 by default (10 bits of mantissa), and matrix
products if the user asks for it. Here it is always said: a run computes as its recipe says, a check
in full float32. The user's own settings are put back. Not here: bf16, which is PyTorch's autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

_GPU = (("cuda", "conv"), ("cuda", "rnn"), ("cuda", "matmul"))
_CPU = (("mkldnn", "conv"), ("mkldnn", "rnn"), ("mkldnn", "matmul"))
_HIGH = {False: "highest", True: "high"}  # PyTorch's names for float32 in full, and TF32


@contextmanager
def float32(*, tf32: bool = False) -> Iterator[None]:
    """Compute float32 in full, or with `tf32` convolutions and matrix products of a GPU in TF32.

    On a CPU it is always in full.

    >>> with float32():
    ...     torch.backends.cudnn.allow_tf32
    False
    """
    newer = (*_GPU, *_CPU) if hasattr(torch._C, "_get_fp32_precision_getter") else ()  # from 2.9 on
    with ExitStack() as stack:
        for where in newer:
            old = torch._C._get_fp32_precision_getter(*where)
            stack.callback(torch._C._set_fp32_precision_setter, *where, old)
        _set_older(stack, tf32)  # which change the newer ones as well
        for where in newer:
            wanted = "tf32" if tf32 and where in _GPU else "ieee"
            torch._C._set_fp32_precision_setter(*where, wanted)
        yield


def _set_older(stack: ExitStack, tf32: bool) -> None:
    """Set the two older switches, and put back those that can be read.

    PyTorch refuses to read them if the user has set a newer one to something that they can't say.
    """
    cudnn: Any = torch.backends.cudnn

    def set_cudnn(value: bool) -> None:
        cudnn.allow_tf32 = value

    switches: list[tuple[Callable[[], Any], Any, Any]] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, _HIGH[tf32]),
        (lambda: cudnn.allow_tf32, set_cudnn, tf32),
    ]
    for read, write, wanted in switches:
        with suppress(RuntimeError):
            old = read()
            stack.callback(write, old)
            write(wanted)


@contextmanager
def repeatable(*, tf32: bool = False) -> Iterator[None]:
    """Compute float32 as `float32` does, by algorithms that give the same bits in every run."""
    cudnn: Any = torch.backends.cudnn
    wanted = {"enabled": True, "benchmark": False, "deterministic": True}
    kept = {name: getattr(cudnn, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(cudnn, name, value)
        with float32(tf32=tf32):
            yield
    finally:
        for name, value in kept.items():
            setattr(cudnn, name, value)

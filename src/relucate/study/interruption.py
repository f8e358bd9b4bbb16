"""SIGTERM and SIGHUP, which schedulers and closed terminals send, act as Ctrl-C during a study.

Called where a study is run. Not here: what happens on an interruption (each `with` block's job).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def interruptible(*, last: bool = False) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt, and ignore later ones.

    Cleaning up is short, and a second Ctrl-C would interrupt it. This applies only in the main
    thread, and only to signals for which the program has no handler of its own (a SIGHUP that
    `nohup` ignores stays ignored).

    last: the process ends after an interruption, so later signals stay ignored.
    """
    taken = _free_signals()
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        for number in taken:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if not (interrupted and last):
            for number, handler in taken.items():
                signal.signal(number, handler)


def _free_signals() -> dict[int, Any]:
    """Return the signals without a handler of the program's own, with their present handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    return {number: handler for number, handler in handlers.items() if handler in usual}

"""SIGTERM and SIGHUP, which schedulers and closed terminals send, act as Ctrl-C while a study runs.

Called by whoever runs a study. Not here: what happens on an interruption (every `with` on the way).
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
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once, and further ones do nothing.

    Cleaning up is short, and a second Ctrl-C in the middle of it would leave it undone. Only in the
    main thread, and only for signals for which the program has no handler of its own (`nohup`'s
    ignored SIGHUP stays ignored).

    last: the process ends after an interruption, so that further signals stay without effect.
    """
    taken = _ours_to_take()
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


def _ours_to_take() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    return {number: handler for number, handler in handlers.items() if handler in usual}

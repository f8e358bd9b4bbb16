"""The connection to Ray: a cluster's, the program's own, or a new Ray on this machine.

Not here: what is done with it (`ray`). What Ray changes in this process is put back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ...errors import InputError, briefly

_NAMED = ("auto", "local")  # what Ray finds itself
_PATIENCE = 10.0  # seconds for a connection: Ray itself waits for minutes
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and no settings
_SETTINGS = 4  # the type of the frame with which a server of gRPC, so of Ray, answers


@contextlib.contextmanager
def connected(address: str | None, say: Callable[[str], None] = lambda text: None) -> Iterator[Any]:
    """Connect to Ray and yield its package; if the program has connected already, that is used.

    address: HOST:PORT, auto or local; None: RAY_ADDRESS, the cluster that this
    machine belongs to, or else a new Ray on this machine, which ends afterwards.
    say: called with what the user should know, a sentence without the dot.
    Raises: InputError: Ray isn't installed, there is no cluster, or its versions differ.
    """
    ray = _imported()
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                "this program is connected to Ray already, and its runs go there: leave out "
                f"address={address!r}."
            )
        yield ray
        return
    address = _checked(address, say)
    with _unchanged():
        _init(ray, address)
    try:
        with _own_words_only(ray):
            yield ray
    finally:
        ray.shutdown()


def _imported() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise InputError(
            "executor 'ray' needs Ray, which can't be imported here "
            f"({error}): python -m pip install 'relucate[ray]'."
        ) from error


def _checked(address: str | None, say: Callable[[str], None]) -> str | None:
    """Return the address to connect to, at which a Ray answers; a lost cluster is no longer it.

    Ray notes the cluster of this machine in a file, which is still there if the cluster was killed,
    and would try for minutes to reach it.
    """
    named = os.environ.get("RAY_ADDRESS") or "auto" if address in (None, "auto") else address
    if named != "auto":
        _check_reachable(named)
        return named
    services: Any = import_module("ray._private.services")
    noted = services.find_bootstrap_address(None)
    if noted is None or (address == "auto" and services.find_gcs_addresses()):
        return address
    try:
        _check_reachable(noted)
    except InputError:
        if address is not None:
            raise
        say(f"the Ray cluster of this machine, {noted}, doesn't answer: a new Ray is started here")
        return "local"
    return address


def _check_reachable(address: str) -> None:
    """Raise InputError unless something listens at the address that may be Ray."""
    if address in _NAMED:
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise InputError(
            f"the address of a Ray cluster must be HOST:PORT or auto, got '{address}'. From a "
            "machine outside the cluster: `ray job submit`."
        )
    try:
        with socket.create_connection((host, int(port)), _PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _is_grpc(connection):
                raise InputError(
                    f"something answers at '{address}', but it is no Ray cluster: is it the port "
                    "that `ray start --head` names (6379 unless you chose another)?"
                )
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _is_grpc(connection: socket.socket) -> bool:
    """Return whether the other end speaks gRPC, as Ray does."""
    try:
        connection.sendall(_HELLO)
        with connection.makefile("rb") as answer:
            return answer.read(4)[3:] == bytes((_SETTINGS,))
    except OSError:  # it says nothing, or closes
        return False


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(
        f"no Ray cluster answers at '{address}' ({briefly(error)}): start one with `ray start "
        "--head`, or leave out --address for a Ray on this machine."
    )


def _init(ray: Any, address: str | None) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        ray.init(address, **quiet)
    except ConnectionError as error:
        if address in (None, *_NAMED):
            raise _no_cluster(address or "auto", error) from error
        raise InputError(
            f"something answers at '{address}', but Ray can't connect ({briefly(error)}): is it "
            "the port of a Ray cluster (6379 unless you chose another)? If Ray says "
            "InvalidAuthToken, the cluster checks a token: set RAY_AUTH_MODE=token."
        ) from error
    except Exception as error:
        raise InputError(
            f"could not connect to Ray: {briefly(error)} The driver and all nodes need the same "
            "versions of Python and Ray."
        ) from error


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces; let a new Ray send no statistics."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    utils: Any = import_module("ray._private.utils")
    replacing = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda *_: None  # Ray's would end the program, with no word on why
    statistics = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield
    finally:
        utils.set_sigterm_handler = replacing
        if statistics is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _own_words_only(ray: Any) -> Iterator[None]:
    """Keep Ray from writing to standard output, where only the result belongs.

    Ray prints there when a worker or a node dies, which the executor's events say in one sentence.
    """
    module: Any = import_module("ray._private.worker")
    printing = getattr(module, "print_to_stdstream", None)
    if printing is None:
        yield
        return
    module.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        module.print_to_stdstream = printing

"""What can be wrong before Ray is there: not installed, no cluster, odd options."""

import signal
import socket
import sys
import threading
from functools import cache
from types import SimpleNamespace

import pytest

import relucate
from relucate.errors import InputError
from relucate.study.executors import ray_connection
from relucate.study.executors.ray_connection import connected


def connect(address=None):
    with connected(address):
        pass


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs Ray, .*pip install 'relucate\[ray\]'"):
        connect()


def closed():
    """A port of this machine at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_no_cluster_at_the_address():
    pytest.importorskip("ray")
    address = f"127.0.0.1:{closed()}"
    with pytest.raises(InputError, match=rf"no Ray cluster answers at '{address}'.*ray start"):
        connect(address)


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n", b""], ids=["web", "closes"])
def test_something_else_at_the_address(says):
    """Ray itself would try for minutes."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer():
            with server.accept()[0] as other:
                other.recv(100)
                other.sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(InputError, match=rf"answers at '{address}', but it is no Ray cluster"):
            connect(address)
        thread.join()


@pytest.mark.parametrize("address", ["", "here", "ray://127.0.0.1:10001", "host:port"])
def test_an_address_that_is_none(address):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=rf"must be HOST:PORT or auto, got '{address}'.*submit"):
        connect(address)


@pytest.fixture
def lost(monkeypatch):
    """Connecting with the note of a cluster that was killed: what was asked, what was said."""
    services = pytest.importorskip("ray._private.services")
    address = f"127.0.0.1:{closed()}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: address)
    monkeypatch.setattr(services, "find_gcs_addresses", cache(set))
    asked, said = [], []
    monkeypatch.setattr(ray_connection, "_init", lambda ray, given: asked.append(given))

    def to(given):
        with connected(given, said.append):
            return asked, said

    return SimpleNamespace(address=address, to=to)


def test_a_lost_cluster_of_this_machine_is_not_waited_for(lost):
    """Ray itself would try for minutes."""
    asked, (said,) = lost.to(None)
    assert asked == ["local"]
    assert f"{lost.address}, doesn't answer: a new Ray is started" in said


def test_nor_is_another_started_where_one_is_asked_for(lost, monkeypatch):
    with pytest.raises(InputError, match=rf"no Ray cluster answers at '{lost.address}'"):
        lost.to("auto")
    there = cache(lambda: {"here:6379"})
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", there)
    assert lost.to("auto") == (["auto"], [])


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_named_cluster_comes_first(lost, monkeypatch, address):
    named = f"127.0.0.1:{closed()}"
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(InputError, match=rf"no Ray cluster answers at '{named}'"):
        lost.to(address)


def test_the_named_cluster_is_handed_to_ray(lost, monkeypatch):
    monkeypatch.setattr(ray_connection, "_check_reachable", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert lost.to(None) == (["head:6379"], [])
    assert lost.to("other:6379") == (["head:6379", "other:6379"], [])


def test_without_any_ray_decides(lost, monkeypatch):
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    assert lost.to(None) == ([None], [])


def test_while_ray_starts_a_signal_is_the_programs(lost, monkeypatch):
    utils = pytest.importorskip("ray._private.utils")
    own, given = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    found = []

    def starts(ray, address):
        utils.set_sigterm_handler(lambda *_: sys.exit(15))
        found.append(signal.getsignal(signal.SIGTERM))

    monkeypatch.setattr(ray_connection, "_init", starts)
    lost.to(None)
    assert found == [own]
    assert signal.getsignal(signal.SIGTERM) is own
    assert utils.set_sigterm_handler is given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "auto"}, r"address= \(--address\) needs executor='ray'"),
        ({"gpus_per_run": 1}, r"gpus_per_run= \(--gpus-per-run\) needs executor='ray'"),
        ({"executor": "ray", "gpus_per_run": 1.5}, r"a share of a GPU from 0 to 1, .*got 1\.5"),
        ({"executor": "ray", "gpus_per_run": -1}, "a share of a GPU"),
        ({"executor": "ray", "gpus_per_run": "all"}, "a share of a GPU .*'all'"),
        ({"executor": "ray", "address": 6379}, "address must be a text, got 6379"),
    ],
)
def test_options_that_do_not_fit(given, message):
    with pytest.raises(InputError, match=message):
        relucate.compare(run=lambda order, seed: 0, metric="auc", margin=0.1, **given)


def test_gpus_by_number():
    with pytest.raises(InputError, match="ray chooses the GPUs of each run: give --device cuda"):
        relucate.compare("mlp", executor="ray", device="cuda:0,cuda:2", progress=False)

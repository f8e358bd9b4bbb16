"""What can be wrong before Ray is there: not installed, no cluster, odd options."""

import socket
import sys
import threading

import pytest

import relucate
from relucate.errors import InputError
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

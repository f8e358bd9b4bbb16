import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from relucate import backend
from relucate.errors import InputError

WRITTEN_BY_KERAS = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A process without Keras, with no configuration, and with the named packages."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def install(*packages):
        monkeypatch.setattr(backend, "installed", lambda name: name in packages)

    install("torch", "jax", "tensorflow")
    return SimpleNamespace(install=install, home=tmp_path, setenv=monkeypatch.setenv)


def configure(machine, **values):
    (machine.home / "keras.json").write_text(json.dumps({**WRITTEN_BY_KERAS, **values}))


@pytest.mark.parametrize(
    ("packages", "chosen"),
    [(("torch", "jax"), "torch"), (("tensorflow", "jax"), "jax"), (("tensorflow",), "tensorflow")],
)
def test_nothing_configured_takes_the_first_installed(machine, packages, chosen):
    machine.install(*packages)
    assert backend.choose_backend() == chosen


def test_the_file_that_keras_writes_itself_configures_nothing(machine):
    configure(machine)
    machine.install("torch")
    assert backend.choose_backend() == "torch"


def test_environment_then_file(machine):
    configure(machine, backend="jax")
    assert backend.choose_backend() == "jax"
    machine.setenv("KERAS_BACKEND", "torch")
    assert backend.choose_backend() == "torch"
    machine.setenv("KERAS_BACKEND", "")
    assert backend.choose_backend() == "jax"


def test_a_file_that_was_changed_is_configuration(machine):
    configure(machine, image_data_format="channels_first")
    assert backend.choose_backend() == "tensorflow"


@pytest.mark.parametrize("content", ["{", "[1]", "null", "\x00", '{"floatx": "float32"}'])
def test_a_file_that_says_nothing(machine, content):
    (machine.home / "keras.json").write_text(content)
    assert backend.choose_backend() == "torch"


def test_configured_but_not_installed(machine):
    machine.install("torch")
    configure(machine, backend="jax")
    with pytest.raises(InputError, match=r"'jax' is configured in .*keras.json.*installed: torch"):
        backend.choose_backend()
    machine.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(InputError, match="'tensorflow' is configured in the environment variable"):
        backend.choose_backend()


def test_unknown_backend(machine):
    machine.setenv("KERAS_BACKEND", "pytorch")
    with pytest.raises(InputError, match="KERAS_BACKEND 'pytorch': did you mean 'torch'"):
        backend.choose_backend()


def test_no_backend_at_all(machine):
    machine.install()
    with pytest.raises(InputError, match=r"no Keras backend is installed.*relucate\[torch\]"):
        backend.choose_backend()


def test_an_imported_keras_decides(machine, monkeypatch):
    keras = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    machine.setenv("KERAS_BACKEND", "torch")
    assert backend.choose_backend() == "jax"


def test_use_backend_sets_the_environment(machine):
    assert backend.use_backend() == "torch"
    assert os.environ["KERAS_BACKEND"] == "torch"


def test_where_the_file_is(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert backend.config_file() == tmp_path / ".keras" / "keras.json"
    monkeypatch.setenv("KERAS_HOME", "~/elsewhere")
    assert backend.config_file() == tmp_path / "elsewhere" / "keras.json"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a home that can't be written
    assert str(backend.config_file()) == "/tmp/.keras/keras.json"


def test_installed_looks_without_importing(monkeypatch):
    assert backend.installed("json")
    assert not backend.installed("no_such_backend_package")
    monkeypatch.setitem(sys.modules, "hollow", SimpleNamespace(__spec__=None))
    assert not backend.installed("hollow")


def run(code, home, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_fresh_user_gets_an_installed_backend(tmp_path):
    """Keras alone would take TensorFlow here, and fail where that isn't installed."""
    code = (
        "import relucate.keras, sys\n"
        "assert 'keras' not in sys.modules and 'torch' not in sys.modules\n"
        "from relucate.keras import read\n"
        "import keras\nprint(keras.config.backend())"
    )
    first = next(b for b in backend.BACKENDS if importlib.util.find_spec(b))
    done = run(code, tmp_path)
    assert done.stdout.strip() == first, done.stderr
    # What Keras wrote by itself must not be taken for the user's choice the next time.
    assert json.loads((tmp_path / ".keras" / "keras.json").read_text()) == WRITTEN_BY_KERAS


def test_a_wrong_backend_is_said_before_keras_is_imported(tmp_path):
    done = run("import relucate.keras", tmp_path, KERAS_BACKEND="thorch")
    assert "InputError: unknown Keras backend" in done.stderr
    assert "did you mean 'torch'" in done.stderr


def test_import_relucate_chooses_the_backend_of_a_keras_that_is_imported_later(tmp_path):
    (tmp_path / "keras.py").write_text("import os\nprint(os.environ['KERAS_BACKEND'])\n")
    first = next(b for b in backend.BACKENDS if importlib.util.find_spec(b))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("import relucate\nimport keras", tmp_path, PYTHONPATH=path)
    assert done.stdout.strip() == first, done.stderr


def test_import_relucate_leaves_a_configured_backend(machine):
    machine.install("torch")
    machine.setenv("KERAS_BACKEND", "jax")
    backend.prefer_installed()
    assert os.environ["KERAS_BACKEND"] == "jax"
    machine.setenv("KERAS_BACKEND", "")
    configure(machine, backend="jax")
    backend.prefer_installed()
    assert os.environ["KERAS_BACKEND"] == ""
    configure(machine)
    backend.prefer_installed()
    assert os.environ["KERAS_BACKEND"] == "torch"


def test_import_relucate_works_without_any_backend(machine):
    machine.install()
    backend.prefer_installed()
    assert "KERAS_BACKEND" not in os.environ


def test_without_a_backend_only_the_import_of_keras_fails(machine, monkeypatch):
    machine.install()
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    backend.use_backend_if_any()
    assert importlib.util.find_spec("json")
    with pytest.raises(InputError, match="no Keras backend is installed"):
        importlib.util.find_spec("keras")


def test_a_wrong_configuration_is_an_error_at_once(machine):
    machine.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(InputError, match="theano"):
        backend.use_backend_if_any()

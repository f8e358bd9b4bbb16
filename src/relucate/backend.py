"""Which Keras backend a process uses: the one the user configured, else the first installed.

Keras takes `KERAS_BACKEND`, then `keras.json`, then TensorFlow, and fails if that isn't installed.
Here nothing configured means the first installed of torch, jax and tensorflow. Imports no
framework: the choice must be made before Keras is imported. Called by `import relucate` (through
`prefer_installed`, which never fails) and by all code that uses Keras (through `use_backend`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from .errors import InputError, unknown

BACKENDS = ("torch", "jax", "tensorflow")
_AUTOMATIC = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


def installed(backend: str) -> bool:
    """Return whether a backend's package can be imported."""
    try:
        return importlib.util.find_spec(backend) is not None
    except ValueError:  # sys.modules holds a module without a spec in its place
        return False


def choose_backend() -> str:
    """Return the Keras backend to use.

    In this order: the backend of an imported Keras; `KERAS_BACKEND`; `keras.json`, unless it is the
    file that Keras itself writes at its first import; the first installed of torch, jax,
    tensorflow.
    Raises: InputError: the configured backend is unknown or isn't installed, or none is.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend()
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return _checked(named, "the environment variable KERAS_BACKEND")
    configured = _from_file(config_file())
    if configured:
        return _checked(configured, str(config_file()))
    if first := _first_installed():
        return first
    raise InputError(
        "no Keras backend is installed: install one of torch, jax and tensorflow, "
        "for example with: pip install 'relucate[torch]'."
    )


def _first_installed() -> str | None:
    return next(filter(installed, BACKENDS), None)


def prefer_installed() -> None:
    """Make a later `import keras` take an installed backend, if no backend is configured.

    A configured backend stays, even a wrong one: code that uses Keras reports it.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") or _from_file(config_file()):
        return
    if first := _first_installed():
        os.environ["KERAS_BACKEND"] = first


def config_file() -> Path:
    """Return the path of Keras's configuration file, by Keras's own rule, without importing it."""
    home = os.environ.get("KERAS_HOME")
    if home is None:
        base = os.path.expanduser("~")
        home = os.path.join(base if os.access(base, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(home)) / "keras.json"


def configured() -> dict[str, Any]:
    """Return the settings besides the backend that Keras starts with."""
    values = {**_AUTOMATIC, **_read(config_file())}
    return {name: values[name] for name in _AUTOMATIC if name != "backend"}


def _from_file(path: Path) -> str | None:
    values = _read(path)
    return None if values == _AUTOMATIC else values.get("backend")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _checked(backend: str, where: str) -> str:
    if backend not in BACKENDS:
        raise unknown(f"Keras backend in {where}", backend, BACKENDS)
    if not installed(backend):
        have = [name for name in BACKENDS if installed(name)] or ["none"]
        raise InputError(
            f"the Keras backend '{backend}' is configured in {where}, but isn't installed "
            f"(installed: {', '.join(have)}): install it or configure another."
        )
    return backend


class _NoBackend:
    """An importer in front of the others: `import keras` raises what is missing."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse Keras, which would name TensorFlow alone; other imports go on."""
        if name == "keras":
            use_backend()


def use_backend_if_any() -> None:
    """Choose the backend, or without any make the import of Keras say so.

    What needs no Keras in its room, such as the list of networks, works without a backend.
    """
    if "keras" in sys.modules or _first_installed():
        use_backend()
    else:
        sys.meta_path.insert(0, _NoBackend())


def use_backend() -> str:
    """Choose the backend and make this process's Keras use it; return its name."""
    backend = choose_backend()
    os.environ["KERAS_BACKEND"] = backend
    return backend

"""Keras models by name or file: `.keras` archives and `keras.applications`.

Files are read in Keras's safe mode: weights and configuration, never code. Not here: the other
forms of a model on the command line (`nets.models`).
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from ..errors import InputError, Refused, RelucateError, briefly, unknown

_LARGEST = 256 << 20  # bytes of a model's configuration; large models have some MiB
_REGISTER = (
    "register them (@keras.saving.register_keras_serializable()) in a Python file and give it with "
    "--import FILE.py, or --import package.module (in Python: load the model yourself with "
    "custom_objects={...} and pass the model)"
)


def load_saved(path: Path, *, compiled: bool = False) -> Any:
    """Return the model in a `.keras` file; with `compiled`, compiled if it was saved so.

    If that can't be done, as with a loss that isn't registered, a warning says so. The optimizer is
    a new one of the same configuration.

    Raises: InputError: there is no such file, it is not a `.keras` archive, it is truncated, or it
    needs custom objects that aren't registered (the message names them). Refused: it holds code (a
    Lambda layer).
    """
    config = _config(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises any exception of the part that failed
        raise _explained(path, config, error) from error
    if compiled and isinstance(config, Mapping) and config.get("compile_config"):
        _compile(model, path, config["compile_config"])
    return model


def _compile(model: Any, path: Path, config: Any) -> None:
    try:
        if type(model).compile not in (keras.Model.compile, keras.Sequential.compile):
            raise TypeError(f"{type(model).__name__} has its own compile")
        model.compile(**keras.saving.deserialize_keras_object(config, safe_mode=True))
    except Exception as error:  # Keras raises any exception of the part that failed
        warnings.warn(
            f"the compilation of '{path}' isn't kept ({briefly(error)}): register its optimizer, "
            "loss and metrics, or give a builder that compiles the model.",
            UserWarning,
            stacklevel=2,
        )


def _config(path: Path) -> Any:
    """Return the archive's configuration, after a check that the archive is complete."""
    if not path.is_file():
        raise InputError(f"no file '{path}': expected a model saved as .keras.")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            names = archive.namelist()
            config = _parsed(path, archive) if "config.json" in names else None
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError) as error:
        raise InputError(
            f"'{path}' is no whole .keras file ({error}). The copy may be incomplete: copy it "
            "again, or save the model again with model.save('model.keras')."
        ) from error
    if broken is not None or config is None:
        what = f"'{broken}' in it is damaged" if broken else "it holds no config.json"
        raise InputError(f"'{path}' is no whole .keras file: {what}. Save the model again.")
    return config


def _parsed(path: Path, archive: zipfile.ZipFile) -> Any:
    if archive.getinfo("config.json").file_size > _LARGEST:
        raise InputError(f"'{path}': its config.json is larger than {_LARGEST >> 20} MiB.")
    try:
        config = json.loads(archive.read("config.json"))
        list(_classes(config))
    except RecursionError:
        raise InputError(f"'{path}': its config.json is nested too deeply.") from None
    return config


def _explained(path: Path, config: Any, error: Exception) -> RelucateError:
    names = sorted(set(_classes(config)))
    lambdas = [name for name in names if name == "Lambda"]
    if lambdas and "safe_mode" in str(error):
        return Refused(
            f"'{path}' holds a Lambda layer: Python code inside a file, which relucate never runs. "
            "Write the layer as a class, or load the model yourself and pass it to relucate."
        )
    custom = [name for name in names if not _is_known(name)]
    if custom:
        return InputError(
            f"'{path}' needs custom objects that aren't registered: {', '.join(custom)}. Please "
            f"{_REGISTER}."
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"Keras {keras.__version__} can't load '{path}': {first}")


def _classes(config: Any) -> Any:
    """Yield the class or function name of every object that the configuration names."""
    if isinstance(config, list):
        for item in config:
            yield from _classes(item)
    elif isinstance(config, Mapping):
        if "class_name" in config and isinstance(config["class_name"], str):
            name = config["class_name"]
            inner = config.get("config")
            yield inner if name == "function" and isinstance(inner, str) else name
        for value in config.values():
            yield from _classes(value)


_MODULES = (
    "layers models initializers regularizers constraints activations optimizers losses metrics "
    "dtype_policies quantizers"
).split()
_INTERNAL = {"Functional", "__keras_tensor__", "__tuple__", "__numpy__", "__tensor__", "slice"}


def _is_known(name: str) -> bool:
    bare = name.rpartition(">")[2]
    if name in _INTERNAL or name.startswith("__"):
        return True
    registered = keras.saving.get_registered_object(name) is not None
    return registered or any(hasattr(getattr(keras, m, None), bare) for m in _MODULES)


def find_application(name: str) -> Any:
    """Return the function `keras.applications.NAME`.

    Raises: InputError: there is none; the message suggests the nearest name.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        raise unknown("keras.applications model", name, names)
    return getattr(keras.applications, name)


def application(
    name: str, input_shape: tuple[int, ...] | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Return `keras.applications.NAME(weights=None, ...)`, or with the options given.

    Raises: InputError: there is no such application or option, or it doesn't accept the shape or
    the file.
    """
    function = find_application(name)
    taken = inspect.signature(function).parameters
    for option in options or {}:
        if option not in taken:
            raise unknown(f"option of keras.applications.{name}", option, taken)
    arguments = {"weights": None, **(options or {})}
    if input_shape is not None:
        arguments.setdefault("input_shape", tuple(input_shape))
    try:
        return function(**arguments)
    except Exception as error:
        text = re.sub(r"\s+", " ", str(error)).strip()
        raise InputError(f"keras.applications.{name} can't be built: {text}") from error

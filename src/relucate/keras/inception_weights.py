"""Weight files of both Inceptions: identify a file's network, and load it into the layers.

Three kinds: HDF5 files of Keras 1.x (release v0.2 of the published weights; kernels in TensorFlow's
or Theano's layout), HDF5 files of Keras 2 (release v0.5, which keras.applications still loads), and
what Keras 3 writes, which Keras reads itself. As in Keras, layers are matched by their place in
the file, not by name. Unlike in Keras, every shape is compared before anything is loaded, and the
error says which network the file belongs to. Files are read by h5py: no code in them is run.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from .. import phrases
from ..errors import InputError, Refused
from ..order import Order
from .reading.reader import read

_NOW = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
_OLD = "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
_TF = "inception_v3_weights_tf_dim_ordering_tf_kernels"
# (edition, with classifier): address, MD5 as in the sources of Keras 3 and Keras 1.2.2
PUBLISHED = {
    ("today", True): (f"{_NOW}{_TF}.h5", "9a0d58056eeedaa3f26cb7ebd46da564"),
    ("today", False): (f"{_NOW}{_TF}_notop.h5", "bcbd6486424b2319ff4ef7d526e38f63"),
    ("1.x", True): (f"{_OLD}{_TF}.h5", "fe114b3ff2ea4bf891e9353d1bbfb32f"),
    ("1.x", False): (f"{_OLD}{_TF}_notop.h5", "2f3609166de1d967d1a481094754f691"),
}
EDITION_OF = {"linear-norm-act": "today", "linear-act-norm": "1.x"}
KERNELS = ("tensorflow", "theano")

# Keras 1's names of arrays -> Keras 3's. Its running_std holds the variance: it averages the
# batch's variance and is passed to the backend as such (keras/layers/normalization.py, 1.2.2).
_ROLES = {
    "W": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
    "kernel": "kernel",
    "bias": "bias",
    "moving_mean": "moving_mean",
    "moving_variance": "moving_variance",
}
_ROLE = re.compile(rf"(?:^|[_/])({'|'.join(_ROLES)})(?::\d+)?$")

_MARKS = {"tensorflow": "tf_kernels", "theano": "th_kernels"}
_STYLES = {
    "today": "convolutions without biases, as in keras.applications",
    "1.x": "convolutions with biases, as in Keras 1.x",
}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Source:
    """Where weights come from. `edition`: of the network that the file belongs to, if known."""

    edition: str | None
    path: Path | None = None
    address: str = ""
    md5: str = ""


@dataclass(frozen=True)
class _Layer:
    """One layer with weights, of a file or of a model: shapes by role."""

    name: str
    shapes: Shapes
    keys: Mapping[str, str]  # role -> data set in the file

    @property
    def kind(self) -> str:
        rank = len(self.shapes.get("kernel", ()))
        return {0: "norm", 2: "dense layer", 4: "convolution"}.get(rank, "other layer")


def find_weights(weights: Any, include_top: bool, order: str) -> Source | None:
    """Return where `weights` (None, "imagenet" or a path) are; nothing is downloaded yet.

    Raises: InputError: any other value, a file without weights, "imagenet" in an order that has no
        published weights.
    """
    if weights is None:
        return None
    if isinstance(weights, str) and weights == "imagenet":
        if order not in EDITION_OF:
            raise InputError(
                "weights='imagenet' exist in the orders 'before' (today's Keras) and 'after' "
                f"(Keras 1.x), not in '{order}': load one of them and relucate.convert the model."
            )
        edition = EDITION_OF[order]
        address, md5 = PUBLISHED[edition, bool(include_top)]
        return Source(edition, address=address, md5=md5)
    if not isinstance(weights, (str, os.PathLike)) or not Path(weights).is_file():
        raise InputError(
            "weights must be None (random values), 'imagenet', or the path of a weight file; got "
            f"{weights!r}, which is no file."
        )
    path = Path(weights)
    layers = _read_layers(path)
    return Source(None if layers is None else _edition_of(layers), path)


def load_weights(
    model: Any,
    own: Collection[str],
    source: Source,
    *,
    order: str,
    edition: str,
    kernels: str | None = None,
) -> None:
    """Load the weights into the layers named in `own`: the others come before Inception.

    Raises: InputError: the file belongs to another network, edition or number of classes, is
        damaged, or doesn't say which backend's kernels it holds. Refused: published weights can't
        be downloaded.
    """
    path = source.path or _fetch(source)
    stored = _read_layers(path)
    if stored is None:
        _load_keras_3(model, path)
        return
    layers = [model.get_layer(name) for name in _file_sequence(model) if name in own]
    wanted = [_of_model(layer) for layer in layers]
    _check_kinds(path, stored, wanted)
    _check_style(path, stored, order)
    theano = _has_theano_layout(stored, wanted)
    _check_shapes(path, stored, wanted, theano, edition)
    values = _read_arrays(path, stored, theano, _turned(path, stored, kernels))
    for layer, arrays in zip(layers, values, strict=True):
        for role, array in arrays.items():
            getattr(layer, role).assign(array)


def _fetch(source: Source) -> Path:
    # Both releases use the same file names: the old files get another name in the cache.
    name = source.address.rsplit("/", 1)[1]
    name = name if source.edition == "today" else f"keras1_{name}"
    try:
        path = keras.utils.get_file(
            name, source.address, cache_subdir="models", file_hash=source.md5
        )
    except Exception as error:  # get_file raises a bare Exception where there is no network
        raise Refused(
            f"can't fetch {source.address} ({str(error).splitlines()[0]}): download it elsewhere "
            "and give the file's path as weights."
        ) from error
    return Path(path)


def _file_sequence(model: Any) -> list[str]:
    """Return the layers with weights in the sequence of Keras's files.

    Keras sorts layers by their distance from the output, then by their place in a walk from the
    output. In Keras 1.x the activation was part of the convolution, so it counts as no step.
    """
    graph = read(model)
    far: dict[str, int] = dict.fromkeys(graph.nodes, 0)
    for node in reversed(list(graph)):
        for source in node.inputs:
            far[source] = max(far[source], far[node.name] + (node.kind not in ("act", "drop")))
    seen: dict[str, int] = {}
    walk = list(graph.outputs)
    while walk:
        name = walk.pop()
        if name not in seen:
            seen[name] = len(seen)
            walk += reversed(graph.nodes[name].inputs)
    nodes = sorted((n for n in graph if n.arrays), key=lambda n: (-far[n.name], seen[n.name]))
    return [node.layer for node in nodes]


def _load_keras_3(model: Any, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Keras only warns if a part of the file fits no layer, or a layer no part of the file.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise InputError(
            f"{path.name} doesn't hold the weights of this network ({str(error).splitlines()[0]}): "
            "build it with the order, edition, width and classes of the saved network."
        ) from error


def _read_layers(path: Path) -> list[_Layer] | None:
    """Return the layers of a Keras 1 or 2 file that have weights, or None for a Keras 3 file."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        return None
    try:
        with h5py.File(path, "r") as file:
            root = _root(file)
            if root is None:
                if "layers" in file or "_layer_checkpoint_dependencies" in file:
                    return None
                raise InputError(f"{path.name} is an HDF5 file, but doesn't hold weights of Keras.")
            found = (_read_layer(root, name) for name in _texts(root, "layer_names"))
            return [layer for layer in found if layer.shapes]
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _root(file: h5py.File) -> Any:
    """Return the group that lists the layers: the file, or the group that `model.save` wrote."""
    groups: list[Any] = [file, file.get("model_weights")]
    listing = {"layer_names", "layer_names0"}
    return next((g for g in groups if g is not None and listing & set(g.attrs)), None)


def _texts(group: Any, attribute: str) -> list[str]:
    """Return an attribute of texts, which Keras splits into numbered parts if it is long."""
    parts = [attribute] if attribute in group.attrs else []
    if not parts:
        numbered = (f"{attribute}{n}" for n in count())
        parts = list(takewhile(lambda part: part in group.attrs, numbered))
    return [_text(text) for part in parts for text in group.attrs[part]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_layer(root: Any, name: str) -> _Layer:
    keys = {}
    for key in _texts(root[name], "weight_names"):
        match = _ROLE.search(key)
        if not match or _ROLES[match[1]] in keys:
            raise InputError(
                f"the weight file's layer '{name}' has an array '{key}': expected one each of "
                f"{', '.join(dict.fromkeys(_ROLES.values()))}."
            )
        keys[_ROLES[match[1]]] = key
    return _Layer(name, {role: root[name][key].shape for role, key in keys.items()}, keys)


def _of_model(layer: Any) -> _Layer:
    roles = [variable.name for variable in layer.weights]
    return _Layer(layer.name, {role: tuple(getattr(layer, role).shape) for role in roles}, {})


def _edition_of(layers: Sequence[_Layer]) -> str:
    """Return the edition: only Keras 1.x's network has convolutions with biases."""
    old = any(layer.kind == "convolution" and "bias" in layer.shapes for layer in layers)
    return "1.x" if old else "today"


def _check_kinds(path: Path, stored: Sequence[_Layer], wanted: Sequence[_Layer]) -> None:
    have, need = (Counter(layer.kind for layer in layers) for layers in (stored, wanted))
    if have == need and [s.kind for s in stored] == [w.kind for w in wanted]:
        return
    hint = "it belongs to another network."
    if have - need == Counter({"dense layer": 1}) and not need - have:
        hint = "it has a classifier: pass include_top=True, or use the file without ('_notop')."
    elif need - have == Counter({"dense layer": 1}) and not have - need:
        hint = "it has no classifier: pass include_top=False, or use the file with one."
    elif have == need:
        hint = "their sequence differs: it belongs to another network."
    raise InputError(f"{path.name} holds {_counted(have)}, the model has {_counted(need)}: {hint}")


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(phrases.count(n, kind) for kind, n in sorted(kinds.items())) or "nothing"


def _check_style(path: Path, stored: Sequence[_Layer], order: str) -> None:
    """Raise unless the model's order is that of the file's network."""
    edition = _edition_of(stored)
    if EDITION_OF.get(order) == edition:
        return
    fits = "before" if edition == "today" else "after"
    raise InputError(
        f"{path.name} has the order '{fits}' ({_STYLES[edition]}), the model has the order "
        f"'{Order(order).alias or order}': build it with order='{fits}', then relucate.convert "
        "moves its norms."
    )


def _has_theano_layout(stored: Sequence[_Layer], wanted: Sequence[_Layer]) -> bool:
    """Return whether more kernels fit as (filters, channels, rows, columns) than as in Keras 3."""
    pairs = [(s, w) for s, w in zip(stored, wanted, strict=True) if s.kind == "convolution"]

    def fits(theano: bool) -> int:
        return sum(_shape(s, "kernel", theano) == w.shapes["kernel"] for s, w in pairs)

    return fits(True) > fits(False)


def _shape(layer: _Layer, role: str, theano: bool) -> tuple[int, ...]:
    """Return the shape of an array of the file in Keras 3's layout."""
    shape = layer.shapes[role]
    if theano and len(shape) == 4:
        filters, channels, rows, columns = shape
        return rows, columns, channels, filters
    return shape


def _check_shapes(
    path: Path, stored: Sequence[_Layer], wanted: Sequence[_Layer], theano: bool, edition: str
) -> None:
    pairs = list(zip(stored, wanted, strict=True))
    for s, w in pairs:
        if set(s.shapes) != set(w.shapes):
            raise InputError(
                f"{path.name}: '{s.name}' has {', '.join(s.shapes)}, the model's '{w.name}' has "
                f"{', '.join(w.shapes)}: build the model with the defaults of norm and scale."
            )
        for role, own in w.shapes.items():
            shape = _shape(s, role, theano)
            if shape != own:
                hint = _hint(w.name, shape, {n.name: m for m, n in pairs}, theano, edition)
                raise InputError(
                    f"{path.name}: '{s.name}' has a {role} of shape {shape}, the model's "
                    f"'{w.name}' one of {own}: {hint}"
                )


def _hint(
    name: str, shape: tuple[int, ...], file_has: Mapping[str, _Layer], theano: bool, edition: str
) -> str:
    """Return advice for a wrong shape; `file_has`: the file's layer for each of the model."""
    if name == "predictions":
        return f"the file has {shape[-1]} classes: pass classes={shape[-1]}."
    first, second = (
        _shape(file_has[f"mixed{i}_pool_conv"], "kernel", theano)[-1] for i in range(2)
    )
    other = "1.x" if first == second else "today"
    if other != edition:
        return (
            f"the file has {first} and {second} filters in the pool branches of mixed 0 and 1: "
            f"pass edition='{other}'."
        )
    return "the file is for another width or another number of image channels, or it is damaged."


def _turned(path: Path, stored: Sequence[_Layer], kernels: str | None) -> bool:
    """Return whether the kernels are Theano's, which rotates them by 180° in a convolution."""
    if kernels is None:
        kernels = _written_by(path)
    if kernels is None:
        names = [k for k, mark in _MARKS.items() if mark in path.name]
        kernels = names[0] if len(names) == 1 else None
    if kernels is None and _edition_of(stored) == "today":
        kernels = "tensorflow"  # Keras 2 writes its backend; the published file is from TensorFlow
    if kernels is None:
        raise InputError(
            f"neither {path.name} nor its name says whose kernels it holds (Theano rotates them by "
            "180°, without a change of shape): pass kernels='tensorflow' or kernels='theano', or "
            "use the published name (..._tf_kernels.h5, ..._th_kernels.h5)."
        )
    return kernels == "theano"


def _written_by(path: Path) -> str | None:
    """Return the backend of a file's kernels, if Keras wrote it into the file."""
    with h5py.File(path, "r") as file:
        groups = [group for group in (_root(file), file) if group is not None]
        noted = [_text(group.attrs["backend"]) for group in groups if "backend" in group.attrs]
    if not noted:
        return None
    return "theano" if noted[0] == "theano" else "tensorflow"


def _read_arrays(
    path: Path, stored: Sequence[_Layer], theano: bool, turned: bool
) -> list[dict[str, np.ndarray]]:
    try:
        with h5py.File(path, "r") as file:
            root = _root(file)
            return [
                {
                    role: _array(path, layer.name, role, root[layer.name][key], theano, turned)
                    for role, key in layer.keys.items()
                }
                for layer in stored
            ]
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _array(path: Path, name: str, role: str, data: Any, theano: bool, turned: bool) -> np.ndarray:
    array = data[()] if data.dtype.kind == "f" else np.full(1, np.nan)
    if not np.isfinite(array).all() or (role == "moving_variance" and array.min() < 0):
        raise InputError(
            f"{path.name}: the {role} of '{name}' holds values that no trained network has."
        )
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0) if theano else array
        array = array[::-1, ::-1] if turned else array
    return np.ascontiguousarray(array)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path.name} can't be read as a weight file ({str(error).splitlines()[0]}): it is no HDF5 "
        "file, or only a part of one; download it again."
    )

"""Arms: what is compared. Building them in a worker, pairing their initial values, telling them
apart.

Runs inside worker processes (it imports the frameworks); the driver sees only plain data.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, Refused
from ..order import Order
from ..train.pairing import Paired, pair_initial
from ..train.run import array_digest
from ..train.streams import derive
from .source import ModelSource


@dataclass(frozen=True)
class Arm:
    """One thing to compare: an order, as the user wrote it (`given`) and in canonical form."""

    given: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """The parsed order."""
        return Order(self.given)

    @property
    def label(self) -> str:
        """The arm's name in tables: its canonical order, and the options it varies."""
        varied = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.order} ({varied})" if varied else str(self.order)

    def to_dict(self) -> dict[str, Any]:
        """Return the arm as JSON-ready data."""
        return {"given": self.given, "order": str(self.order), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arm:
        """Return the arm that `to_dict` came from."""
        return cls(values["given"], values["options"])


@dataclass
class Built:
    """A freshly built model and its tensors by name, whatever the framework."""

    model: Any
    framework: str  # keras | torch
    tensors: dict[str, np.ndarray]

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Set the tensors."""
        if self.framework == "keras":
            _load_keras(self.model, values)
        else:
            _load_torch(self.model, values)


def build(
    source: ModelSource, arm: Arm, seed: int, input_shape: tuple[int, ...], classes: int
) -> Built:
    """Build one arm's model with the seed's own random state; no other arm's draws shift it."""
    chosen = {**source.options, **arm.options}
    own = ModelSource(source.kind, source.text, chosen, source.digest, source.payload)
    while True:
        loaded = _loaded_frameworks()
        _seed_everything(derive(seed, "init") % 2**32)
        model = own.build(arm.given, input_shape, classes)
        if _loaded_frameworks() == loaded:
            break  # else the build imported a framework that couldn't be seeded: once more
    framework = framework_of(model)
    if framework == "keras":
        return Built(model, "keras", _keras_tensors(model))
    return Built(model, "torch", _torch_tensors(model))


def framework_of(model: Any) -> str:
    """Say `keras` or `torch`; a Keras model on the torch backend is a torch module too."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return "keras"
    if torch is not None and isinstance(model, torch.nn.Module):
        return "torch"
    raise InputError(
        f"the builder returned a {type(model).__name__}; expected a Keras model or a "
        "torch.nn.Module."
    )


def build_paired(
    source: ModelSource,
    arm: Arm,
    before: Sequence[Arm],
    seed: int,
    input_shape: tuple[int, ...],
    classes: int,
) -> tuple[Built, Paired]:
    """Build an arm and give it the initial values that it shares with the arms before it."""
    earlier: list[dict[str, np.ndarray]] = []
    for other in before:
        built = build(source, other, seed, input_shape, classes)
        earlier.append(pair_initial(built.tensors, earlier).values)
    built = build(source, arm, seed, input_shape, classes)
    paired = pair_initial(built.tensors, earlier)
    if paired.shared:
        built.load(paired.values)
    return built, paired


def fingerprint(built: Built) -> str:
    """Return a digest of what was built: structure, tensors' names and shapes, initial values.

    Two builds with the same seed agree exactly when they would train the same network.
    """
    text = json.dumps(_structure(built), sort_keys=True, default=str)
    return hashlib.sha256((text + array_digest(built.tensors)).encode()).hexdigest()[:24]


def _structure(built: Built) -> Any:
    if built.framework == "torch":
        return [str(built.model), _source_of(built.model)]
    from ..keras import read

    try:
        graph = read(built.model)
    except Refused:
        return built.model.to_json()
    return [
        [n.name, n.op, n.inputs, n.call, n.shape, sorted(n.attrs.items(), key=str)] for n in graph
    ] + [graph.outputs, graph.penalties, sorted(graph.trainable), graph.hazards]


def _source_of(model: Any) -> list[str]:
    """The forward methods' bytecode: two modules with equal `str` may compute different things."""
    codes = []
    for module in model.modules():
        code = getattr(type(module).forward, "__code__", None)
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (str, int, float, tuple))}
        codes.append(f"{type(module).__qualname__}{code and code.co_code.hex()}{plain}")
    return codes


def _loaded_frameworks() -> set[str]:
    return {name for name in ("keras", "torch", "jax", "tensorflow") if name in sys.modules}


def _seed_everything(seed: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        keras.utils.clear_session()  # automatic layer names start over in every arm
        keras.utils.set_random_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _keras_tensors(model: Any) -> dict[str, np.ndarray]:
    import keras

    return {
        v.path: np.array(keras.ops.convert_to_numpy(v.value))
        for v in model.weights
        if "seed_generator" not in v.path
    }


def _load_keras(model: Any, values: Mapping[str, np.ndarray]) -> None:
    for variable in model.weights:
        if variable.path in values:
            variable.assign(values[variable.path])


def _torch_tensors(model: Any) -> dict[str, np.ndarray]:
    import torch

    uninitialized = [
        name
        for name, parameter in model.named_parameters()
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter)
    ]
    if uninitialized:
        raise Refused(
            f"the module has lazy parameters ({uninitialized[0]}): call it once on an example in "
            "the builder, so that they get their shapes."
        )
    return {
        name: np.array(tensor.detach().cpu().numpy())
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor) and tensor.dtype != torch.bfloat16
    }


def _load_torch(model: Any, values: Mapping[str, np.ndarray]) -> None:
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in values:
                tensor.copy_(torch.from_numpy(np.array(values[name])))

"""Arms: what is compared. Building them in a worker, pairing their initial values, telling them
apart.

Runs inside worker processes (it imports the frameworks); the driver sees only plain data.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError, Refused
from ..order import Order
from ..train.pairing import Paired, pair_initial
from ..train.run import array_digest
from ..train.streams import derive
from .behaviour import Behaviour, call
from .identity import code_digest
from .norm_settings import equalise
from .source import ModelSource


@dataclass(frozen=True)
class Arm:
    """One thing to compare: an order, as the user wrote it (`given`) and in canonical form.

    options: of the builder, and recipe: of the training, where this arm has its own.
    """

    given: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """The parsed order."""
        return Order(self.given)

    @property
    def label(self) -> str:
        """The arm's name in tables: its canonical order, and the options it varies."""
        varied = ", ".join(f"{key}={shown(value)}" for key, value in self.varied.items())
        return f"{self.order} ({varied})" if varied else str(self.order)

    @property
    def varied(self) -> dict[str, Any]:
        """What this arm has of its own beside the order."""
        return {**self.options, **self.recipe}

    @property
    def network(self) -> Arm:
        """The arm without its recipe: what is built, whatever the training."""
        return replace(self, recipe={}) if self.recipe else self

    def to_dict(self) -> dict[str, Any]:
        """Return what is built as JSON-ready data; how it is trained is the recipe's."""
        return {"given": self.given, "order": str(self.order), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arm:
        """Return the network that `to_dict` came from."""
        return cls(values["given"], values["options"])


def shown(value: Any) -> str:
    """Return a varied value as labels show it.

    >>> shown(0.1 + 0.2), shown("tanh")
    ('0.3', 'tanh')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class Built:
    """A freshly built model and its tensors by name, whatever the framework."""

    model: Any
    framework: str  # keras | torch
    tensors: dict[str, np.ndarray]
    note: str = ""  # what to know about how it was built

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Set the tensors."""
        if self.framework == "keras":
            _load_keras(self.model, values)
        else:
            _load_torch(self.model, values)


def build(
    source: ModelSource, arm: Arm, seed: int, input_shape: tuple[int, ...], classes: int
) -> Built:
    """Build one arm's model with the seed's own random state; no other arm's draws shift it.

    Raises: InputError, Refused: what is wrong with the builder or with what it returned.
    """
    own = replace(source, options={**source.options, **arm.options})
    model, note = _built_seeded(own, arm, derive(seed, "init") % 2**32, input_shape, classes)
    framework = framework_of(model)
    note = "; ".join(text for text in (note, equalise(model, framework, source.norms)) if text)
    if framework == "torch":
        return Built(model, "torch", _torch_tensors(model), note)
    _materialise(model, input_shape)
    return Built(model, "keras", _keras_tensors(model), note)


def _built_seeded(
    source: ModelSource, arm: Arm, seed: int, input_shape: tuple[int, ...], classes: int
) -> tuple[Any, str]:
    loaded, model, note = None, None, ""
    while loaded != _frameworks():  # a builder may import one, whose generator is unseeded then
        loaded = _frameworks()
        _seed_everything(seed)
        model, note = source.build_noted(arm.given, input_shape, classes)
    return model, note


def _frameworks() -> set[str]:
    return {"keras", "torch", "tensorflow", "jax"} & set(sys.modules)


def _materialise(model: Any, input_shape: tuple[int, ...]) -> None:
    """Call a Keras model that has no weights yet (subclassed, or without an Input) once."""
    if not model.built:
        call(Built(model, "keras", {}), np.zeros((2, *input_shape), np.float32), training=False)


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


def fingerprint(built: Built, behaves: Behaviour) -> str:
    """Return a digest of what was built: structure, tensors, and what the model computes.

    Two builds with the same seed agree only if they would train the same network. The structure
    alone can't tell (a layer may hide its order in compiled code), nor can outputs alone (a
    regularizer, an optimizer), so both count.
    """
    structure = _torch_structure if built.framework == "torch" else _keras_structure
    text = code_digest(structure(built.model)) + array_digest(built.tensors) + behaves.digest
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _torch_structure(model: Any) -> Any:
    import torch

    inner = set(vars(torch.nn.Module())) | {"_graph"}  # torch.fx: its code is generated from it
    modules = []
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in inner}
        modules.append((name, type(module), str(getattr(module, "code", "")), own))
    return modules, [(name, p.requires_grad) for name, p in model.named_parameters()]


def _keras_structure(model: Any) -> Any:
    from ..keras import read

    try:
        graph = read(model)
    except Refused:
        return _keras_layers(model), _compiled(model)
    nodes = [[n.name, n.op, n.inputs, n.call, n.shape, dict(n.attrs)] for n in graph]
    tail = [graph.outputs, [vars(p) for p in graph.penalties], sorted(graph.trainable)]
    layers = _keras_layers(model) if graph.opaque else ()
    return nodes, tail, graph.hazards, layers, _compiled(model)


def _keras_layers(model: Any) -> Any:
    """Return name, class and configuration of every layer, for models that no Graph describes."""
    layers = model._flatten_layers(include_self=True)
    return [(layer.name, type(layer), _quietly(layer.get_config)) for layer in layers]


def _compiled(model: Any) -> Any:
    if not getattr(model, "compiled", False):
        return None
    return _quietly(model.get_compile_config), getattr(model, "loss", None)


def _quietly(get: Any) -> Any:
    try:
        return get()
    except Exception:  # a custom object without a configuration; what it computes counts anyway
        return None


def _seed_everything(seed: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        # Automatic layer names start over in every arm; a full garbage collection takes too long.
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _keras_variables(model: Any) -> dict[str, Any]:
    """Return the variables by path; nested models may use a path twice, which is numbered."""
    variables: dict[str, Any] = {}
    for variable in model.weights:
        key, count = variable.path, 1
        while key in variables:
            key, count = f"{variable.path}#{count}", count + 1
        variables[key] = variable
    return variables


def _keras_tensors(model: Any) -> dict[str, np.ndarray]:
    import keras

    variables = _keras_variables(model)
    return {key: np.array(keras.ops.convert_to_numpy(v.value)) for key, v in variables.items()}


def _load_keras(model: Any, values: Mapping[str, np.ndarray]) -> None:
    for key, variable in _keras_variables(model).items():
        if key in values:
            variable.assign(values[key])


def _torch_tensors(model: Any) -> dict[str, np.ndarray]:
    import torch

    lazy = (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer)
    uninitialized = [name for name, tensor in _torch_own(model) if isinstance(tensor, lazy)]
    if uninitialized:
        raise Refused(
            f"the module has lazy parameters ({uninitialized[0]}): call it once on an example in "
            "the builder, so that they get their shapes."
        )
    return {
        name: _array(tensor)
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }


def _torch_own(model: Any) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _array(tensor: Any) -> np.ndarray:
    """Return a tensor as an array of its own; NumPy knows no bfloat16, and float32 holds it all."""
    import torch

    widened = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(widened.detach().cpu().numpy())


def _load_torch(model: Any, values: Mapping[str, np.ndarray]) -> None:
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in values:
                tensor.copy_(torch.from_numpy(np.array(values[name])))

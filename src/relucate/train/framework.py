"""The protocol of a framework: all knowledge about a framework is behind it.

`keras/framework.py` and `torch/framework.py` implement it, and `relucate.frameworks` finds the one
that a model belongs to. A new framework is a new folder with such a class; no other code asks which
framework a model belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..graph import Graph
from .looking import Look
from .recipe import Recipe
from .run import OnEpoch, RunResult
from .task import CLASSIFICATION, Task
from .waiting import Ready
from .watching import Watchable

Init = Callable[[Any], None]

Steps = Generator[dict[str, np.ndarray | None], None, None]


@dataclass(frozen=True)
class Lowerable:
    """What another framework needs to train a model in its own way, and to check that first.

    graph: with the model's weights; title: what computes it, in words; steps: runs the model on one
        batch in the graph's layout, (inputs, training mode), on the CPU, and yields the values of
        its nodes, some at a time in the order of the graph, None where one can't be looked at;
        tensors: returns the weights and statistics by their keys in the graph; load: sets them;
        cause: why the framework is known to compute something other than the graph, as the end of a
        sentence, or nothing.
    """

    graph: Graph
    title: str
    steps: Callable[[np.ndarray, bool], Steps]
    tensors: Callable[[], dict[str, np.ndarray]]
    load: Callable[[Mapping[str, np.ndarray]], None]
    cause: str = ""


class ReadModel(Watchable, Protocol):
    """A model, read once, with what its framework needs to write it in another form."""

    limits: tuple[str, ...]  # why its outputs are less precise than its types
    lost_training: tuple[str, ...]  # own methods that its engine uses and a written model lacks

    @property
    def dtypes(self) -> frozenset[str]:
        """The types of the model's weights, and those that its layers compute in."""
        ...

    def write(
        self,
        graph: Graph,
        fresh: int | None = None,
        init: Init | None = None,
        *,
        compiled: bool = False,
    ) -> Any:
        """Return a new model that computes what `graph` says.

        Args: fresh: a seed for new weights; init: then gives a part of the model, whose start
            isn't known, its weights; compiled: compile it as this model was, with a new optimizer
            of the same configuration.
        Raises: Refused: the framework can't express an edit.
        """
        ...

    def unwritable(self, graph: Graph) -> Mapping[str, str]:
        """Return the norms whose edit `write` can't express: by their first node, and why."""
        ...

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs at inference of this model or of a written one."""
        ...

    def output_names(self) -> tuple[str, ...]:
        """Return where each output of this model is in what it returns; () if that isn't known.

        The keys of dicts and the places in lists, such as `aux.0`.
        """
        ...

    def in_double(
        self,
        model: Any,
        inputs: Sequence[np.ndarray],
        each: Callable[[str, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Return the outputs, at inference, computed in float64 from the model's weights.

        A layer that can compute in its own precision only does that.

        Args: each: gets each layer's name and output, and returns what the layers behind it read.
        Raises: Refused: a layer can't be computed.
        """
        ...

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Write `graph` and yield, for each batch, the first inputs of the nodes `names`."""
        ...

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return inputs of other sizes that the model may take, though its graph has one size."""
        ...

    def reread(self, model: Any) -> Graph:
        """Return the Graph of a written model; `fresh` weights may not be in it yet."""
        ...

    def notes(self, model: Any) -> tuple[str, ...]:
        """Return notes on a written model."""
        ...

    def renamed(self, model: Any) -> Mapping[str, str]:
        """Return, of a written model, the layers that changed places: new name -> old name."""
        ...

    def lowerable(self) -> Lowerable:
        """Return the model for another framework; only if `Framework.lowers`."""
        ...


class Framework(Protocol):
    """One framework: stateless.

    name: of its package, and of the engine that trains its models.
    noun: what to call one of its models.
    ending: file name ending of its saved models.
    lowers: whether another framework may train its models.
    images_first: whether its images have the channels first by default.
    """

    name: str
    noun: str
    ending: str
    lowers: bool
    images_first: bool

    # One model.

    def owns(self, model: Any) -> bool:
        """Return whether `model` is a model, or a layer, of this framework."""
        ...

    def is_model(self, model: Any) -> bool:
        """Return whether `model`, which it owns, is a whole model, not a layer."""
        ...

    def example(self, input_shape: tuple[int, ...], model: Any = None) -> Any:
        """Return the `example` that `read` needs for this shape (channels last), or None.

        Args: model: of tokens, if it takes no other numbers.
        """
        ...

    def read(self, model: Any, example: Any = None, leaves: Sequence[str] = ()) -> ReadModel:
        """Read a model.

        Raises: InputError: a missing example. Refused: it can't be read.
        """
        ...

    def save(self, model: Any, path: Path, example: Any) -> None:
        """Write a model to a file.

        Raises: Refused: the framework can't express it in a file.
        """
        ...

    def structure(self, model: Any, read: Callable[[], ReadModel]) -> Any:
        """Return what distinguishes a built model from others, besides its tensors and outputs.

        Args: read: returns the read model, or raises Refused.
        """
        ...

    def content(self, thing: Any) -> Any:
        """Return what any object of this framework consists of, the same in every process.

        None for what isn't of this framework, or shows it in its attributes.
        """
        ...

    def is_built(self, model: Any) -> bool:
        """Return whether the model has its weights; if not, one call makes them."""
        ...

    def compiled(self, model: Any) -> str:
        """Return the model's own optimizer, its rate and the loss in words; "" if it has none."""
        ...

    def own_training(self, model: Any) -> tuple[str, ...]:
        """Return the model's own methods for training that this framework's engine doesn't use."""
        ...

    def tensors(self, model: Any) -> dict[str, np.ndarray]:
        """Return copies of all weights and statistics by name.

        Raises: Refused: some have no shape yet.
        """
        ...

    def load(self, model: Any, values: Mapping[str, np.ndarray]) -> None:
        """Set the named tensors."""
        ...

    def initialise(
        self, model: Any, init: str, x: np.ndarray, *, seed: int, names: Mapping[str, str]
    ) -> list[str]:
        """Start the kernels as `init` says (`train.recipe.INITS`); return those that were set.

        Args: x: standardised examples (channels last), on which lsuv measures; names: of the
            tensors -> the names that their values are drawn by.
        Raises: InputError: there are none.
        """
        ...

    def kernels(self, model: Any) -> list[str]:
        """Return the names of the kernels that `initialise` sets.

        Raises: InputError: there are none.
        """
        ...

    def count(self, model: Any) -> dict[str, int]:
        """Return the numbers of trainable scalars: `parameters`, and `norm_parameters` of them."""
        ...

    def biases(self, model: Any) -> int:
        """Return the number of trainable biases, without those of norms."""
        ...

    def norms(self, model: Any) -> Iterator[Any]:
        """Yield the norms: known ones, and those of other libraries, as far as they can be seen."""
        ...

    def momentum(self, norm: Any, kept: float) -> float | None:
        """Return this norm's value of momentum that keeps this share of the old average.

        None: an unknown kind of norm.
        """
        ...

    # Running and training.

    def channels_first(self, model: Any, input_shape: tuple[int, ...]) -> bool:
        """Return whether the model takes examples of this shape (channels last) channels first.

        Raises: InputError: it takes neither.
        """
        ...

    def call(self, model: Any, x: np.ndarray, *, training: bool) -> Any:
        """Return the outputs for a batch (channels last), with seeded randomness."""
        ...

    def check(
        self,
        model: Any,
        input_shape: tuple[int, ...],
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        """Refuse a model that doesn't fit such data, before it is called.

        Args: label_shape: of one example's label.
        """
        ...

    def check_outputs(
        self,
        outputs: Any,
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        """Refuse outputs of `call` that no loss of this framework's engine takes."""
        ...

    def lower(self, source: Lowerable, *, check: bool = True, task: Task = CLASSIFICATION) -> Any:
        """Return a model of this framework that computes and trains like `source`.

        Args: check: compare the two first; task: its loss may include the model's last operation,
            which is then left out.
        Raises: Refused: it is impossible, or the two differ.
        """
        ...

    def watchable(self, lowered: Any) -> Watchable:
        """Return a model that `lower` gave so that its nodes, those of the source, can be seen."""
        ...

    def train(
        self,
        model: Any,
        data: Any,
        recipe: Recipe,
        *,
        seed: int,
        on_epoch: OnEpoch,
        device: str,
        channels_first: bool,
        task: Task,
        look: Look | None = None,
    ) -> Generator[Ready, None, RunResult]:
        """Train `model` in place on a `relucate.data.Dataset` and score it on the test part.

        It yields while a device works alone (`train.waiting`).
        """
        ...

    def side_by_side(
        self,
        models: Iterator[Any],
        data: Any,
        recipe: Recipe,
        counts: Sequence[int],
        *,
        device: str,
        channels_first: bool,
        task: Task,
    ) -> dict[int, float]:
        """Return the seconds of a run's step by the number of runs that take turns in a process.

        Empty: they would wait for each other.
        """
        ...

    # This process.

    def seed(self, seed: int) -> None:
        """Seed the framework's random numbers."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what the user set in this process and a new one doesn't know, as plain data."""
        ...

    def use_settings(self, settings: Mapping[str, Any]) -> None:
        """Give this process the settings of another one."""
        ...

    def backend(self) -> str:
        """Return the name of the package that computes."""
        ...

    def device(self, wanted: str) -> str:
        """Return the kind of the device of its engine, such as cuda; "auto" is its own choice.

        Raises: InputError: a device that it doesn't have.
        """
        ...

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse what its engine can't do.

        Raises: InputError: a precision that it doesn't compute in.
        """
        ...

    def check_single(self, model: Any, x: np.ndarray) -> None:
        """Refuse a model that its engine can't train on one example at a time.

        Args: x: one example (1, ...), channels last.
        Raises: InputError.
        """
        ...

    def losses(self) -> Mapping[str, Any]:
        """Return the training losses of its engine by the names that a task gives."""
        ...

    def gpus(self) -> tuple[str, ...]:
        """Return the NVIDIA GPUs that it sees, as CUDA_VISIBLE_DEVICES names them."""
        ...

    def card(self, device: str) -> str:
        """Return the name of the GPU that this process computes on, empty for other devices."""
        ...

    def trouble(self, error: BaseException) -> str:
        """Return "memory" or "device" for an error of a full or of a lost GPU, else nothing."""
        ...

    def full_float32(self) -> AbstractContextManager[None]:
        """Return a context in which float32 is computed in full, on a GPU too, not in TF32."""
        ...

    def on_host(self) -> AbstractContextManager[None]:
        """Return a context in which models are built on the CPU, though a GPU is there."""
        ...

    def limit_threads(self, threads: int) -> None:
        """Limit the framework's threads in this process."""
        ...

    def defer_compiler(self) -> None:
        """Import the framework's compiler only when something is compiled, if it has one."""
        ...

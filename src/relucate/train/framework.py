"""What a framework has to do for relucate: all that is known of one is behind this protocol.

`keras/framework.py` and `torch/framework.py` implement it, and `relucate.frameworks` finds the one
that a model belongs to. A new framework is a new room with such a class; nothing else asks which
framework a model is of. Not here: any framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..graph import Graph
from .recipe import Recipe
from .run import OnEpoch, RunResult


@dataclass(frozen=True)
class Lowerable:
    """A model as another framework needs it, to train it in its own way and to check that first.

    graph: with the model's weights; title: what computes it, in words; call: returns the output for
        one batch in the graph's layout, (inputs, training mode); tensors: returns the weights and
        statistics by their keys in the graph; load: sets them; cause: why the framework is known to
        compute something else than the graph says, as the end of a sentence, or nothing.
    """

    graph: Graph
    title: str
    call: Callable[[np.ndarray, bool], np.ndarray]
    tensors: Callable[[], dict[str, np.ndarray]]
    load: Callable[[Mapping[str, np.ndarray]], None]
    cause: str = ""


class ReadModel(Protocol):
    """A model that was read, once, and what its framework needs to write it in another form."""

    graph: Graph
    dtypes: frozenset[str]  # that the model's weights have and its layers compute in
    limits: tuple[str, ...]  # why its outputs are less precise than that

    def write(self, graph: Graph, fresh: int | None = None, *, compiled: bool = False) -> Any:
        """Return a new model that computes what `graph` says; fresh: a seed for new weights.

        compiled: compile it as this model was, with a new optimizer of the same configuration.

        Raises: Refused: an edit that the framework can't express.
        """
        ...

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs, at inference, of this model or of one that was written."""
        ...

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Write `graph` and yield, batch by batch, what the nodes `names` read first."""
        ...

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return inputs of other sizes that the model may take, though its graph has one."""
        ...

    def reread(self, model: Any) -> Graph:
        """Return the Graph of a model that was written."""
        ...

    def notes(self, model: Any) -> tuple[str, ...]:
        """Return what else to know about a model that was written."""
        ...

    def lowerable(self) -> Lowerable:
        """Return the model as another framework needs it; only if `Framework.lowers`."""
        ...


class Framework(Protocol):
    """One framework: stateless.

    name: of its package, and of the engine that trains its models.
    noun: one of its models, in words.
    ending: of the files that its models are saved in.
    lowers: whether another framework may train its models.
    images_first: whether its images have the channels first unless a model says otherwise.
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
        """Return whether what it owns is a whole model, not a layer of one."""
        ...

    def example(self, input_shape: tuple[int, ...]) -> Any:
        """Return what `read` needs for examples of this shape (channels last), or None."""
        ...

    def read(self, model: Any, example: Any = None, leaves: Sequence[str] = ()) -> ReadModel:
        """Read a model.

        Raises: InputError: no example where one is needed. Refused: it can't be read.
        """
        ...

    def save(self, model: Any, path: Path, example: Any) -> None:
        """Write a model to a file.

        Raises: Refused: the framework can't express it in a file.
        """
        ...

    def structure(self, model: Any, read: Callable[[], ReadModel]) -> Any:
        """Return what tells a built model apart from others, besides its tensors and outputs.

        Args: read: gives the model as it was read, or raises Refused.
        """
        ...

    def is_built(self, model: Any) -> bool:
        """Return whether the model has its weights; if not, one call makes them."""
        ...

    def is_compiled(self, model: Any) -> bool:
        """Return whether the model brings its own optimizer and loss."""
        ...

    def tensors(self, model: Any) -> dict[str, np.ndarray]:
        """Return copies of all weights and statistics by name.

        Raises: Refused: some have no shape yet.
        """
        ...

    def load(self, model: Any, values: Mapping[str, np.ndarray]) -> None:
        """Set the tensors that are named."""
        ...

    def count(self, model: Any) -> dict[str, int]:
        """Return the numbers of trainable scalars: `parameters`, and `norm_parameters` of them."""
        ...

    def biases(self, model: Any) -> int:
        """Return the number of trainable biases, those of norms left out."""
        ...

    def norms(self, model: Any) -> Iterator[Any]:
        """Yield the layers or modules that call themselves norms."""
        ...

    def momentum(self, norm: Any, kept: float) -> float | None:
        """Return the momentum that keeps this share of the old average, as this norm spells it.

        None: a norm of an unknown kind.
        """
        ...

    # Running and training.

    def channels_first(self, model: Any, input_shape: tuple[int, ...]) -> bool:
        """Return whether the model takes examples of this shape (channels last) channels first.

        Raises: InputError: it takes neither.
        """
        ...

    def call(self, model: Any, x: np.ndarray, *, training: bool) -> Any:
        """Return what a model gives for a batch (channels last), its randomness seeded."""
        ...

    def check(self, model: Any, input_shape: tuple[int, ...], classes: int) -> None:
        """Refuse, before any call, a model that doesn't fit such data."""
        ...

    def check_outputs(self, outputs: Any, classes: int) -> None:
        """Refuse what `call` gave, if no loss of this framework's engine takes it."""
        ...

    def lower(self, source: Lowerable, *, check: bool = True) -> Any:
        """Return a model of this framework that computes and trains as `source`.

        Args: check: compare the two before anything relies on it.
        Raises: Refused: it can't, or the two differ.
        """
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
    ) -> RunResult:
        """Train `model` in place on a `relucate.data.Dataset` and score it on the test part."""
        ...

    # The process.

    def seed(self, seed: int) -> None:
        """Seed the framework's random numbers."""
        ...

    def backend(self) -> str:
        """Return the package that computes."""
        ...

    def device(self, wanted: str) -> str:
        """Return where its engine computes; "auto" is the framework's choice.

        Raises: InputError: a device that it doesn't have.
        """
        ...

    def limit_threads(self, threads: int) -> None:
        """Let the framework compute with so many threads in this process."""
        ...

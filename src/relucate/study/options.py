"""What a user may ask of a comparison: each option with its default and its help, as plain data.

The command line makes its options from these fields. `relucate.compare` takes the same names with
the same defaults (a test compares them). Imports nothing: `--help` reads this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STUDY, TRAINING, MODEL, RUNNING = (
    "The comparison",
    "How each run trains",
    "Options of the net (see: relucate nets) or of your builder",
    "Running",
)


def _option(default: Any, panel: str, help: str, **more: Any) -> Any:
    """Return a field.

    more: shown: the default in words; percent: a fraction, given in percent on the command line.
    """
    return field(default=default, metadata={"help": help, "panel": panel, **more})


@dataclass(frozen=True)
class StudyOptions:
    """The options of `relucate.compare`, besides the model, the data and the recipe."""

    orders: tuple[str, ...] = _option(
        ("before", "after"), STUDY, "What to compare, against the first: a,b or more."
    )
    vary: list[str] | None = _option(  # noqa: RUF009 (it returns a field)
        None,
        STUDY,
        "Train every order with each of several values: act=relu,tanh or dropout=0,0.2.",
    )
    pairs: int | None = _option(
        None,
        STUDY,
        "Seeds per order, fixed beforehand.",
        shown="look after every pair, stop as soon as the answer is certain",
    )
    max_pairs: int = _option(
        30, STUDY, "Give up after this many pairs. A later run with a larger number continues."
    )
    first_seed: int = _option(0, STUDY, "The first pair's seed.")
    margin: float = _option(
        0.005, STUDY, "Smallest difference that matters, in points of accuracy.", percent=True
    )
    level: float = _option(0.95, STUDY, "Coverage of the interval.")
    target: float | None = _option(
        None, STUDY, "Compare the steps to this accuracy, in percent.", percent=True
    )
    tune: str | None = _option(
        None,
        TRAINING,
        "lr: find each arm's best learning rate first, on held-out training data.",
    )
    rates: tuple[float, ...] | None = _option(
        None,
        TRAINING,
        "Learning rates that --tune lr tries: 0.01,0.03,0.1.",
        shown="seven, half a decade apart",
    )
    norm_eps: float | None = _option(None, MODEL, "Give every arm's norms this eps.")
    norm_momentum: float | None = _option(
        None, MODEL, "And this momentum, as Keras has it (PyTorch's is 1 minus this)."
    )
    engine: str = _option("auto", RUNNING, "auto, torch or keras.")
    device: str = _option("auto", RUNNING, "auto, cpu or cuda (engine torch).")
    jobs: int = _option(0, RUNNING, "Runs side by side (0: one per core).")
    threads: int = _option(1, RUNNING, "Threads of each run.")

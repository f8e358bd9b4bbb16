"""The Python surface: `relucate.compare`, and the Study that it returns.

It connects study, data and report; the command line calls it, too. Not here: logic of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data import Dataset, load
from ..errors import InputError, unknown
from ..order import Order
from ..stats.paired import is_number
from ..stats.verdict import check_margin
from ..study.display import NoDisplay
from ..study.norm_settings import check_norm_settings
from ..study.plan import StudyPlan
from ..study.running import run
from ..study.source import resolve
from ..study.vary import arms_from, check_dropout, check_factors
from ..train.metric import ACCURACY, Metric
from ..train.recipe import Recipe
from ..train.task import Task
from ..train.tasks import task_for
from .shown import Shown

DEFAULT_ORDERS = ("before", "after")


class Study(Shown):
    """A finished comparison: the verdict with all its evidence.

    verdict: "better", "equivalent" or "inconclusive"; winner: an order or None; difference: of the
    second arm minus the first, a mapping with estimate, low, high, level and method, in the
    metric's own unit (for accuracy a fraction: 0.01 is one point).
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = dict(document)

    @property
    def verdict(self) -> str:
        """`better`, `equivalent` or `inconclusive`."""
        return self._document["verdict"]

    @property
    def winner(self) -> str | None:
        """The label of the better arm, None unless the verdict is `better`."""
        return self._document["winner"]

    @property
    def difference(self) -> dict[str, Any]:
        """The paired difference with its interval, in the metric's own unit."""
        return dict(self._document["difference"])

    @property
    def sentence(self) -> str:
        """The verdict in plain language."""
        return self._document["sentence"]

    @property
    def metrics(self) -> dict[str, Study]:
        """The verdict on each metric by its name; on this one alone unless several were asked."""
        every = [self, *map(Study, self._document.get("further", ()))]
        return {study._document["metric"]["name"]: study for study in every}

    def _data(self) -> dict[str, Any]:
        return self._document  # schema relucate.compare/2

    def _views(self) -> Any:
        from ..report import print_study, repr_html

        return print_study, repr_html

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML file and return its path."""
        from ..report import write_html

        return write_html(self.to_dict(), path)

    def __repr__(self) -> str:
        return f"<Study: {self.sentence}>"


def compare(
    model: Any = "cnn",
    data: Any = "digits",
    *,
    orders: Sequence[str | Order] = DEFAULT_ORDERS,
    vary: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    imports: Sequence[str] | None = None,
    norm_eps: float | None = None,
    norm_momentum: float | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    task: Task | str | None = None,
    metric: str | Metric | None = None,
    pairs: int | None = None,
    max_pairs: int = 30,
    first_seed: int = 0,
    margin: float | None = None,
    level: float = 0.95,
    target: float | None = None,
    tune: str | None = None,
    rates: Sequence[float] | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 0,
    threads: int = 1,
    run_timeout: float | None = None,
    executor: str = "local",
    store: str | Path | None = None,
    progress: bool = True,
    display: Any = None,
    command: str = "",
) -> Study:
    """Train a model in two or more orders, seed by seed in pairs, and say which is better.

        d_s = accuracy(second order, seed s) - accuracy(first order, seed s)
        interval: mean(d) ± c(n) · sd(d) / √n

    It looks after every pair, from the third on, and stops as soon as the answer is certain: c(n)
    is so large that the intervals of all looks hold together (`stats.spending`). With `pairs` the
    number is fixed in advance, and c(n) = t(n - 1).

    Args:
        model: a name from `relucate nets`, "file.py:build", "package.module:build", or a function
            that takes `order` and returns a Keras model or a torch module with logits at the end.
        data: "digits", "folder:PATH", "npz:PATH", a name of keras.datasets, a Dataset, or arrays
            ((x_train, y_train), (x_test, y_test)).
        orders: what to compare; the others are compared against the first.
        vary: values of options of the builder or of the recipe, such as {"act": ["relu", "tanh"]}:
            every order is trained with every value, and the study says whether the order's effect
            depends on them.
        options: keyword arguments for the builder, the same in every arm. With bias="keep" for a
            model that is rebuilt, no arm has a bias that another lacks.
        imports: Python files or modules to import first, in the worker processes too, because they
            register a saved model's custom objects. Only if `model` is a text.
        norm_eps, norm_momentum: set in the norms of every arm; momentum is Keras's, the share of
            the old average that a step keeps (PyTorch's is 1 - this).
        recipe: how to train; a mapping gives options of `Recipe`. None: defaults for the data.
        task: what the networks are trained for: "classification", "multilabel", "regression",
            "segmentation", or an instance of a subclass of `train.task.Task`. None: what the
            labels are for (integers: classes, floats: regression, ...), which a note says.
        metric: what they are scored by, a metric of the task, such as "ROC AUC" or "RMSE". None:
            the task's usual one (accuracy, mean average precision, MAE, mean IoU).
        pairs: seeds per arm, from `first_seed` on, fixed in advance. None: as many as the answer
            needs, at most `max_pairs`; a larger `max_pairs` continues an undecided study.
        margin: smallest difference that matters, in the metric's own unit (accuracy: a fraction).
            None: the metric's usual one, 0.005 for accuracy; other metrics have none.
        level: coverage of the interval.
        target: accuracy, as a fraction: the steps that the arms take to reach it are compared.
        tune: "lr" finds each arm's best learning rate first, on held-out training data and other
            seeds; the verdict then compares the arms at their best rates, and the study also has
            the comparison at the recipe's rate. rates: what to try (None: seven, half a decade
            apart).
        engine: "auto", "torch" or "keras"; device: of the torch engine.
        jobs: worker processes (0: one per core); threads: of each run, part of its identity.
        run_timeout: seconds after which a run is ended. A run that was ended, or whose process
            died, is repeated once; if that fails too, its pair doesn't count.
        executor: where the runs run, a name in `study.executors.EXECUTORS`.
        store: SQLite file of finished runs; None keeps them for this call only.
        progress: show progress on stderr; display: an object that gets the progress instead.

    Returns: a Study.
    Raises: InputError, Refused: with what was expected, what came, and what to do.

    Source of the design: Bouthillier et al., Accounting for Variance in Machine Learning
    Benchmarks, 2021 (pair, randomise all else, report an interval).

    >>> study = compare("mlp", orders=["before", "after"], pairs=3, progress=False, jobs=1,
    ...                 options={"width": 16, "depth": 1}, recipe={"epochs": 1})
    >>> study.difference["method"], len(study.to_dict()["runs"])
    ('paired t, fixed number of pairs', 6)
    """
    _checked(margin, pairs, max_pairs, tune, rates)
    factors = check_factors({} if vary is None else vary)
    arms = arms_from(_orders(orders), factors)
    source = resolve(model, options, imports or ())
    source = replace(source, norms=check_norm_settings(norm_eps, norm_momentum))
    check_dropout(source, arms, factors)
    dataset, task = _data_for(data, task, metric, target)
    trained = (arms, source, dataset, make_recipe(recipe, dataset))
    plan = StudyPlan(
        *trained,
        task=task,
        pairs=max_pairs if pairs is None else pairs,
        looks=pairs is None,
        margin=margin,  # type: ignore[arg-type]  # the plan fills it in
        factors=factors,
        target=target,
        first_seed=first_seed,
        level=level,
        engine=engine,
        device=device,
        threads=threads,
        jobs=jobs,
        run_timeout=run_timeout,
        executor=executor,
    )
    displays, tuned = partial(_display, display, progress), tune is not None
    return Study(run(plan, displays, _path(store), tuned=tuned, rates=rates, command=command))


def _checked(
    margin: float | None, pairs: int | None, max_pairs: int, tune: str | None, rates: Any
) -> None:
    """Refuse wrong arguments before any work is done."""
    if margin is not None:
        check_margin(margin)
    whole = isinstance(max_pairs, int) and not isinstance(max_pairs, bool)
    if pairs is None and not (whole and 3 <= max_pairs <= 1000):
        raise InputError(f"max_pairs must be a whole number from 3 to 1,000, got {max_pairs!r}.")
    if tune not in (None, "lr"):
        raise unknown("thing to tune", tune, ("lr",))
    if rates is not None and tune is None:
        raise InputError("rates= needs tune='lr' (--rates needs --tune lr).")


def _data_for(
    data: Any, task: Task | str | None, metric: str | Metric | None, target: float | None
) -> tuple[Dataset, Task]:
    """Return the data and the task that they are for, scored by the metric."""
    if isinstance(metric, Metric):
        raise InputError(
            f"Metric('{metric.name}') is for scores of your own (run=, or a subclass of Task): a "
            "built-in task takes the name of one of its metrics."
        )
    dataset = load_data(data, **({"task": task} if isinstance(task, str) else {}))
    found = task_for(task, dataset.labels, metric)
    _check_target(target, found)
    return dataset, found


def _check_target(target: float | None, task: Task) -> None:
    if target is None or (is_number(target) and (task.metric != ACCURACY or 0 < target <= 1)):
        return
    what = "an accuracy above 0 and at most 1" if task.metric == ACCURACY else "a finite number"
    raise InputError(f"target must be {what}, got {target!r}.")


def _path(store: Any) -> Path | None:
    if store is None:
        return None
    if not isinstance(store, (str, Path)):
        raise InputError(f"store must be the path of a file, got {store!r}.")
    return Path(store)


def _orders(orders: Any) -> list[str]:
    """Return the orders as text; one text with commas is several, as on the command line."""
    if not isinstance(orders, (str, Sequence)):
        raise InputError(f"orders must be texts, such as ['before', 'after'], got {orders!r}.")
    return [str(o) for o in (orders.split(",") if isinstance(orders, str) else orders)]


def load_data(data: Any, **options: Any) -> Dataset:
    """Return a Dataset from text, arrays or a Dataset; text may name one of keras.datasets."""
    known = isinstance(data, str) and data != "digits" and ":" not in data
    if not known:
        return load(data, **options)
    from ..keras.datasets import NAMED

    return load(data, named=NAMED, **options)


def make_recipe(recipe: Recipe | Mapping[str, Any] | None, data: Dataset) -> Recipe:
    """Return the recipe, with defaults for the size of the data."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None and not isinstance(recipe, Mapping):
        raise InputError(
            f"recipe must be a Recipe or a mapping of its options, got {recipe!r} "
            f"({type(recipe).__name__})."
        )
    return Recipe.from_dict({**default_recipe(data), **dict(recipe or {})})


def default_recipe(data: Dataset) -> dict[str, Any]:
    """Return the defaults that depend on the data: small sets get small batches, more epochs."""
    if len(data.y_train) < 5000:
        return {"epochs": 10, "batch_size": min(64, len(data.y_train))}
    return {"epochs": 10, "batch_size": 128}


def _display(display: Any, progress: bool, plan: StudyPlan) -> Any:
    """Return the display of a plan: the user's own, the live one, or none."""
    if display is not None:
        return display
    if not progress:
        return NoDisplay()
    from rich.console import Console

    from ..report import LiveStudy

    labels = [arm.label for arm in plan.arms]
    return LiveStudy(
        Console(file=sys.stderr),
        plan.pairs,
        labels,
        plan.recipe.epochs,
        metric=plan.metric,
        margin=plan.margin,
        level=plan.level,
    )

"""The Python surface: `relucate.compare`. What it returns is in `finished`.

It connects study, data and report; the command line calls it, too. Not here: logic of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

from .. import nets
from ..arguments import one_of, texts
from ..backend import use_backend
from ..data import Dataset, load
from ..data.source import KINDS
from ..errors import InputError
from ..nets.user_code import names_code, user_data
from ..order import Order
from ..stats.paired import is_number
from ..stats.verdict import check_margin
from ..study import early
from ..study.display import NoDisplay
from ..study.norm_settings import check_norm_settings
from ..study.own import OwnArm, own_source
from ..study.own_plan import OwnPlan
from ..study.plan import Executed, StudyPlan
from ..study.running import run as carry_out
from ..study.source import resolve
from ..study.vary import arms_from, check_dropout, check_factors, check_values, short_names
from ..train.metric import ACCURACY, Metric, metric_named
from ..train.recipe import Recipe
from ..train.task import Task
from ..train.tasks import task_for
from .finished import Study

DEFAULT_ORDERS = ("before", "after")

_EVENTS = ("say", "run_started", "run_progress", "run_finished", "difference")  # of a `Display`


def compare(
    model: Any = None,
    data: Any = None,
    *,
    run: Any = None,
    orders: Sequence[str | Order] = DEFAULT_ORDERS,
    against: str | Order | None = None,
    all_pairs: bool = False,
    arms: Sequence[str] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    imports: Sequence[str] | None = None,
    norm_eps: float | None = None,
    norm_momentum: float | None = None,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    task: Task | str | None = None,
    metric: str | Metric | None = None,
    lower_is_better: bool | None = None,
    worst: float | None = None,
    key: str = "",
    pairs: int | None = None,
    max_pairs: int = 30,
    first_seed: int = 0,
    margin: float | None = None,
    level: float = 0.95,
    target: float | None = None,
    tune: str | None = None,
    rates: Sequence[float] | None = None,
    probe: bool | Sequence[int] = False,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 0,
    threads: int = 1,
    run_timeout: float | None = None,
    executor: str = "local",
    address: str | None = None,
    gpus_per_run: float | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    display: Any = None,
    command: str = "",
) -> Study:
    """Train a model in two or more orders, seed by seed in pairs, and say which is better.

        d_s = accuracy(order, seed s) - accuracy(the order it is compared against, seed s)
        interval: mean(d) ± c(n) · sd(d) / √n

    It looks after every pair, from the third on, and stops as soon as the answer is certain: c(n)
    is so large that the intervals of all looks hold together (`stats.spending`). With `pairs` the
    number is fixed in advance, and c(n) = t(n - 1).

    Args:
        model: a name from `relucate nets`, "file.py:build", "package.module:build", or a function
            that takes `order` and returns a Keras model or a torch module with logits at the end.
            None: "cnn".
        data: "digits", "folder:PATH", "npz:PATH", a name of keras.datasets, "file.py:name" (a value
            or a function), a Dataset, arrays ((x_train, y_train), (x_test, y_test)) or (x, y), or
            (train, test) of torch.utils.data. None: "digits".
        run: your own training instead of model and data, for any task, metric and framework: a
            function, or its name as "file.py:train". It is called as train(order="before", seed=0),
            with the order as you wrote it, the options, and what varies, and returns the score: a
            number, or a mapping with `metric` and any other scores, and optionally "curve" (a score
            per epoch) and "per_example" (n,). A call that fails or returns no score is a lost run.
        orders: what to compare; against: the one that the others are compared against (None: the
            first); all_pairs: compare every two of them, with `vary` also across values. The
            intervals share the error, and the runs don't depend on what is compared.
        arms: any other labels to compare instead of orders, with `run`: train(arm="small", seed=0).
        vary: values of options of the builder or of the recipe, such as {"act": ["relu", "tanh"]}:
            every order is trained with every value, and the study says whether the order's effect
            depends on them.
        options: keyword arguments for the builder, the same in every arm. With bias="keep" for a
            model that is rebuilt, no arm has a bias that another lacks.
        imports: Python files or modules to import first, in the worker processes too, because they
            register a saved model's custom objects. Only if `model` is a text.
        norm_eps, norm_momentum: set in the norms of every arm; momentum is Keras's, the share of
            the old average that a step keeps (PyTorch's is 1 - this).
        recipe: how to train; a mapping gives options of `Recipe`, and under "arms" those that one
            order has of its own: {"lr": 0.1, "arms": {"after": {"lr": 0.3}}}. None: defaults for
            the data. A name from `relucate recipes`, also as {"name": "caffenet32", "epochs": 5},
            gives its net, data and orders too, where you give none.
        task: what the networks are trained for: "classification", "multilabel", "regression",
            "segmentation", or an instance of a subclass of `train.task.Task`. None: what the
            labels are for (integers: classes, floats: regression, ...), which a note says.
        metric: what they are scored by, a metric of the task, such as "ROC AUC" or "RMSE". None:
            the task's usual one (accuracy, mean average precision, MAE, mean IoU). With `run` what
            it returns: any name, or a Metric.
        lower_is_better: with `run`, of a metric whose name doesn't say it.
        worst: with `run`, the score of a call that returns NaN, which is lost otherwise.
        key: with `run`, any text that identifies what its code doesn't show, such as a version of
            the data: with another key its runs aren't taken from the store.
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
        probe: look at what the norms and the layers of the first pair see, before, while and after
            it trains, or after these epochs (0: before). No score changes by it.
        engine: "auto", "torch" or "keras"; device: of the torch engine.
        jobs: runs at a time (0: one per core, on GPUs what measures best); threads: of each run,
            part of its identity.
        run_timeout: seconds after which a run is ended. A run that was ended, or whose process
            died, is repeated once; if that fails too, its pair doesn't count.
        executor: where the runs run: "local" (this machine), or "ray": on the Ray cluster at
            `address` ("host:6379" or "auto"; None: the cluster that this
            machine belongs to, or a new Ray on it). Each run holds `threads` cores and
            `gpus_per_run` GPUs (None: 1 if the cluster has any); jobs=0 uses the whole cluster.
        store: SQLite file of finished runs, from which an interrupted or undecided study continues.
            None keeps them for this call only; if it is interrupted or fails, they go into the
            user's cache folder, and a message names the file.
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
    given = _with_named_recipe(dict(locals()))
    _checked(margin, pairs, max_pairs, tune, rates, command)
    shared = {name: given[name] for name in _SHARED}
    shared |= {"pairs": max_pairs if pairs is None else pairs, "looks": pairs is None}
    shared |= {"factors": check_factors({} if vary is None else vary)}
    shared |= {"against": None if against is None else str(against), "all_pairs": all_pairs}
    reads = run is None and (data is None or isinstance(data, str))
    with early.workers(model, given) if reads else nullcontext():
        plan = (_trained_plan if run is None else _own_plan)(given, shared)
        displays, more = partial(_display, display, progress), {"rates": rates, "command": command}
        return Study(carry_out(plan, displays, _path(store), tuned=tune is not None, **more))


_SHARED = tuple(
    "target first_seed level threads jobs run_timeout executor address gpus_per_run".split()
)
_OWN = ("arms", "lower_is_better", "worst", "key")  # only with a training of one's own
_TRAINED = "model data imports norm_eps norm_momentum recipe task engine device tune probe".split()
_DECIDES = (
    "doesn't apply with run=: your own training decides it. Options of your function go into "
    "options=."
)


def _own_plan(given: Mapping[str, Any], shared: Mapping[str, Any]) -> OwnPlan:
    """Return the plan of the user's own training from the arguments of `compare`."""
    _refuse(given, _TRAINED, _DECIDES)
    worst, metric = given["worst"], given["metric"]
    scored = _metric(metric, given["lower_is_better"], worst)
    arms = _own_arms(given["orders"], given["arms"], shared["factors"])
    if not isinstance(given["key"], str):
        raise InputError(f"key must be a text, got {given['key']!r:.80}.")
    return OwnPlan(
        arms,
        own_source(given["run"], given["options"], arms),
        metric=scored,
        margin=given["margin"],
        key=given["key"],
        nan_diverges=worst is not None or (metric is scored and scored.worst is not None),
        **shared,
    )


def _trained_plan(given: Mapping[str, Any], shared: Mapping[str, Any]) -> StudyPlan:
    """Return the plan of training networks from the arguments of `compare`."""
    _refuse(given, _OWN, "needs run= (--run), your own training.")
    model, data, task = given["model"], given["data"], given["task"]
    imports = given["imports"]
    training, own = split_recipe(given["recipe"])
    arms = arms_from(_orders(given["orders"]), shared["factors"], own)
    source = resolve(
        "cnn" if model is None else model,
        given["options"],
        texts(() if imports is None else imports, "imports"),
    )
    norms = check_norm_settings(given["norm_eps"], given["norm_momentum"])
    source = replace(source, norms=norms)
    check_dropout(source, arms, shared["factors"])
    data = "digits" if data is None else data
    dataset, task = _data_for(data, task, given["metric"], given["target"])
    recipe = make_recipe(training, dataset)
    check_values(source, arms, dataset)
    chosen = {name: given[name] for name in ("margin", "engine", "device", "probe")}
    return StudyPlan(arms, source, dataset, recipe, task=task, **chosen, **shared)


def _with_named_recipe(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `compare`, those that aren't given filled in by a named recipe."""
    recipe = {"name": given["recipe"]} if isinstance(given["recipe"], str) else given["recipe"]
    if given["run"] is not None or not isinstance(recipe, Mapping) or "name" not in recipe:
        return given
    own = {name: value for name, value in recipe.items() if name != "name"}
    named = nets.recipe_named(recipe["name"])
    filled: dict[str, Any] = {}
    if given["data"] is None:
        size = {"size": int(named.size)} if named.size else {}
        filled["data"] = load_data(named.source_of_data(), **size)
    if named.fits(given["model"]):
        filled["model"] = named.net
        filled["options"] = {**named.options, **(given["options"] or {})}
        if given["orders"] is DEFAULT_ORDERS:
            filled["orders"] = named.orders
    orders = _orders(filled.get("orders", given["orders"]))
    filled["recipe"] = named.training(own, orders, given["tune"] is not None)
    return {**given, **filled}


def split_recipe(recipe: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Return the training of all orders, and what an order has of its own, by canonical order.

    Raises: InputError: "arms" isn't a mapping of orders to options.
    """
    if not isinstance(recipe, Mapping) or "arms" not in recipe:
        return recipe, {}
    arms = recipe["arms"]
    if not isinstance(arms, Mapping) or not all(isinstance(v, Mapping) for v in arms.values()):
        raise InputError(
            "the recipe's arms must be a mapping of orders to their own options, such as "
            f"{{'after': {{'lr': 0.3}}}}, got {arms!r:.200}."
        )
    training = {name: value for name, value in recipe.items() if name != "arms"}
    return training, {str(Order(order)): dict(values) for order, values in arms.items()}


def _checked(
    margin: float | None,
    pairs: int | None,
    max_pairs: int,
    tune: str | None,
    rates: Any,
    command: Any,
) -> None:
    """Refuse wrong arguments before any work is done."""
    if margin is not None:
        check_margin(margin)
    count = isinstance(max_pairs, int) and not isinstance(max_pairs, bool)
    if pairs is None and not (count and 3 <= max_pairs <= 1000):
        raise InputError(f"max_pairs must be a whole number from 3 to 1,000, got {max_pairs!r}.")
    if tune is not None:
        one_of(tune, "thing to tune", ("lr",))
    if not isinstance(command, str):
        raise InputError(f"command must be a text, got {command!r:.80}.")
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
    if metric is not None and not isinstance(metric, str):
        raise InputError(f"metric must be the name of a metric, got {metric!r:.80}.")
    dataset = load_data(data, **({"task": task} if isinstance(task, str) else {}))
    found = task_for(task, dataset.labels, metric)
    _check_target(target, found)
    return dataset, found


def _check_target(target: float | None, task: Task) -> None:
    if target is None or (is_number(target) and (task.metric != ACCURACY or 0 < target <= 1)):
        return
    what = "an accuracy above 0 and at most 1" if task.metric == ACCURACY else "a finite number"
    raise InputError(f"target must be {what}, got {target!r}.")


def _refuse(given: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    """Raise InputError if one of these arguments of `compare` isn't its default."""
    for name in names:
        if given[name] is not signature(compare).parameters[name].default:
            raise InputError(f"{name}= {why}")


def _metric(metric: Any, lower_is_better: bool | None, worst: float | None) -> Metric:
    """Return the metric of the user's own training."""
    if metric is None:
        raise InputError(
            "run= needs metric=, the name of the score that it returns, such as 'auc'."
        )
    if isinstance(metric, Metric) and lower_is_better is None:
        return metric if worst is None else replace(metric, worst=worst)
    if isinstance(metric, Metric):
        raise InputError("a Metric has its direction: leave out lower_is_better=.")
    found = metric_named(metric, lower_is_better)
    return found if worst is None else replace(found, worst=worst)


def _own_arms(orders: Any, arms: Any, factors: Mapping[str, Sequence[Any]]) -> tuple[OwnArm, ...]:
    """Return an arm per choice of values and order, or other label."""
    if arms is not None and orders is not DEFAULT_ORDERS:
        raise InputError("orders= and arms= both name what to compare: give one of the two.")
    given = _orders(orders if arms is None else arms)
    named = [OwnArm(text, is_order=arms is None) for text in given]
    for arm in named:
        _ = arm.order  # a typo fails before anything runs
    choices = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    return tuple(replace(arm, options=chosen) for chosen in choices for arm in named)


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
    """Return a Dataset from text, arrays or a Dataset; text may also name the user's code.

    Names without a colon may be those of keras.datasets.
    """
    if not isinstance(data, str) or data == "digits" or data.startswith(KINDS):
        return load(data, **options)
    if names_code(data):
        use_backend()  # before the user's code imports Keras
        return load(user_data(data), name=data, **options)
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
    """Return the defaults that depend on the data.

    Small sets get small batches. Tokens get AdamW: a row of an embedding has a gradient only where
    its token occurs, and SGD's rate, which fits the other layers, hardly moves rare ones.
    """
    small = len(data.y_train) < 5000
    batch = min(64, len(data.y_train)) if small else 128
    tokens = {"optimizer": "adamw"} if data.x_train.dtype.kind == "i" else {}
    return {"epochs": 10, "batch_size": batch, **tokens}


def _display(display: Any, progress: bool, plan: Executed) -> Any:
    """Return the display of a plan: the user's own, the live one, or none."""
    if display is not None:
        lacks = [name for name in _EVENTS if not callable(getattr(display, name, None))]
        if lacks:
            raise InputError(f"display must have {', '.join(lacks)}, got {display!r:.80}.")
        return display
    if not isinstance(progress, bool):
        raise InputError(f"progress must be True or False, got {progress!r:.80}.")
    if not progress:
        return NoDisplay()
    from rich.console import Console

    from ..report import LiveStudy

    schedule, shown = plan.schedule(plan.arms[0]), plan.contrasts[0]
    return LiveStudy(
        # A notebook wraps the lines of a stream; rich's own output there would cut them off.
        # Notebooks set FORCE_COLOR, and would get every frame of a display below the last.
        Console(file=sys.stderr, force_jupyter=False, force_terminal=sys.stderr.isatty()),
        plan.pairs,
        [arm.label for arm in plan.arms],
        schedule.epochs if schedule else 1,
        compared=(shown.arm.label, shown.against.label),
        names=short_names(plan.arms),
        metric=plan.metric,
        margin=plan.margin,
        level=plan.share,
    )

"""The options of a comparison: each with its default and its help, as plain data.

The command line makes its options from these fields. `relucate.compare` takes the same names with
the same defaults (a test compares them). Imports no NumPy: `--help` reads this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..option import option
from ..train.metric import ACCURACY, margin_of

STUDY, OWN, TRAINING, MODEL, RUNNING = (
    "The comparison",
    "Your own training instead of a model and data",
    "How each run trains",
    "Options of the net (see: relucate nets) or of your builder",
    "Running",
)


_OWN = "the model's"


@dataclass(frozen=True)
class StudyOptions:
    """The options of `relucate.compare`, besides the model, the data and the recipe."""

    orders: tuple[str, ...] = option(
        ("before", "after"), "Orders to compare: a,b or more.", panel=STUDY
    )
    against: str | None = option(
        None,
        "The order (or label of --arms) that the others are compared against.",
        panel=STUDY,
        shown="the first",
    )
    all_pairs: bool = option(
        False,
        "Compare every two orders, with --vary also across values. More intervals share the error.",
        panel=STUDY,
    )
    vary: list[str] | None = option(
        None,
        "Train every order with each of several values: act=relu,tanh or dropout=0,0.2.",
        panel=STUDY,
    )
    pairs: int | None = option(
        None,
        "Seeds per order, fixed in advance, at least 3.",
        panel=STUDY,
        shown="look after every pair, stop as soon as the answer is certain",
    )
    max_pairs: int = option(
        30,
        "Give up after this many pairs. A later run with a larger number continues.",
        panel=STUDY,
    )
    first_seed: int = option(
        0,
        "The first pair's seed, for jobs that share the pairs: --pairs may be 1 then, and it names "
        "their reports. `relucate merge` joins them.",
        panel=STUDY,
    )
    task: str | None = option(
        None,
        "classification, multilabel, regression or segmentation.",
        panel=STUDY,
        shown="what the labels are for",
    )
    metric: str | None = option(
        None,
        "What to score by: accuracy, ROC AUC, macro F1, log loss, MAE, RMSE, R2, mean IoU. With "
        "--run any name, of what it returns.",
        panel=STUDY,
        shown="the task's usual one",
    )
    margin: float | None = option(
        None,
        "Smallest difference that matters, as the metric is shown: for accuracy in points. Other "
        "metrics have no default.",
        panel=STUDY,
        shown=f"{ACCURACY.scale * margin_of(ACCURACY):g}",
    )
    level: float = option(0.95, "Coverage of the interval.", panel=STUDY)
    target: float | None = option(
        None,
        "Compare the steps to this score, as the metric is shown: for accuracy in percent.",
        panel=STUDY,
        shown="5 % short of the worse arm's last score",
    )
    run: str | None = option(
        None,
        "file.py:train or package.module:train, a function train(order, seed) that trains and "
        "returns the score. It is your own code, and naming it runs it.",
        panel=OWN,
    )
    lower_is_better: bool | None = option(
        None,
        "Needed only for a metric whose name doesn't say it.",
        panel=OWN,
        flag="--lower-is-better/--higher-is-better",
    )
    worst: float | None = option(
        None, "The score of a run that returns NaN; without it such a run is lost.", panel=OWN
    )
    arms: tuple[str, ...] | None = option(
        None, "Compare any labels instead of orders: train(arm, seed).", panel=OWN
    )
    key: str = option(
        "",
        "Any text for what the code doesn't show, such as a version of the data. Runs with "
        "another key are not reused.",
        panel=OWN,
    )
    tune: str | None = option(
        None,
        "lr: find each arm's best learning rate first, on held-out training data.",
        panel=TRAINING,
        shown="nothing",
    )
    rates: tuple[float, ...] | None = option(
        None,
        "Learning rates that --tune lr tries: 0.01,0.03,0.1.",
        panel=TRAINING,
        shown="seven, half a decade apart",
    )
    norm_eps: float | None = option(
        None, "Give every arm's norms this eps.", panel=MODEL, shown=_OWN
    )
    norm_momentum: float | None = option(
        None,
        "And this momentum, as Keras has it (PyTorch's is 1 minus this).",
        panel=MODEL,
        shown=_OWN,
    )
    imports: list[str] | None = option(
        None,
        "Python file or module to import first: it registers a saved model's custom objects.",
        panel=MODEL,
        flag="--import",
    )
    probe: bool = option(
        False,
        "Also look at what the norms and the layers of the first pair see while it trains.",
        panel=RUNNING,
    )
    engine: str = option("auto", "auto, torch or keras.", panel=RUNNING)
    device: str = option(
        "auto",
        "auto, cpu, cuda (all visible GPUs), cuda:0,cuda:2 (these), mps or xpu (engine torch).",
        panel=RUNNING,
    )
    jobs: int = option(
        0, "Runs side by side (0: one per core; on a GPU what measures best).", panel=RUNNING
    )
    threads: int = option(1, "Threads of each run.", panel=RUNNING)
    run_timeout: float | None = option(
        None,
        "End a run that takes more seconds than this. It is repeated once.",
        panel=RUNNING,
        shown="no limit",
    )
    executor: str = option("local", "Where the runs run: local or ray.", panel=RUNNING)
    address: str | None = option(
        None,
        "Of a Ray cluster: HOST:PORT or auto.",
        panel=RUNNING,
        shown="this machine's, or a new one here",
    )
    gpus_per_run: float | None = option(
        None,
        "GPUs that each run holds on the cluster: 0.25 puts four runs on one.",
        panel=RUNNING,
        shown="1 if the cluster has any",
    )


TABLE, DECISION = "Table", "Decision"


@dataclass(frozen=True)
class VerdictOptions:
    """The options of `relucate.verdict`, besides the scores."""

    metric: list[str] | None = option(
        None,
        "What the scores are: mae, auc, ... Several: repeat it.",
        shown="what a column is called",
    )
    margin: list[float] | None = option(
        None,
        "Smallest difference that matters, in the unit of the scores: 0.005 is half a point of "
        "accuracy. One for each metric.",
        shown="the metric's, if it has one",
    )
    lower_is_better: bool | None = option(
        None,
        "Needed only for a metric whose name doesn't say it.",
        flag="--lower-is-better/--higher-is-better",
    )
    unit: list[str] | None = option(None, "Unit of the scores, such as mm or %; one for each.")
    scale: list[float] | None = option(None, "Shown value = scale · value; one for each.")
    against: str | None = option(
        None, "The arm that the others are compared against.", shown="the first"
    )
    all_pairs: bool = option(False, "Compare every two arms.")
    arms: tuple[str, ...] | None = option(None, "The arms to compare, with commas.", shown="all")
    worst: list[float] | None = option(
        None,
        "What a run without a score counts (missing, NaN, infinite, or 'diverged'); one for each "
        "metric.",
        panel=DECISION,
    )
    paired: bool | None = option(
        None,
        "Compare seed by seed, or all runs of each arm by Welch's interval.",
        panel=DECISION,
        flag="--paired/--unpaired",
        shown="--paired",
    )
    looks: bool = option(
        False,
        "You looked at the result after every pair and could have stopped.",
        panel=DECISION,
    )
    level: float = option(0.95, "Coverage of the intervals together.", panel=DECISION)
    arm: str = option("arm", "Column of the arms.", panel=TABLE, shown="arm, or order")
    seed: str = option("seed", "Column of the seeds.", panel=TABLE)
    score: list[str] | None = option(
        None,
        "Column of the scores, one for each metric.",
        panel=TABLE,
        shown="score, or the metric's name",
    )

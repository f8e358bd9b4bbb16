"""`fold`, `convert`, `rebuild`, `verify`: read a model, plan, write, and check the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..arguments import positive, texts, whole
from ..errors import InputError, Refused, RelucateError
from ..frameworks import framework_of, full_float32
from ..graph import Graph
from ..order import Order
from ..surgery.audit import hidden_rows, hidden_text
from ..surgery.borders import is_exact
from ..surgery.convert import convert_graph
from ..surgery.draft import Edit, SiteResult, plan_writable
from ..surgery.fold import fold_graph
from ..surgery.moments import measure
from ..surgery.rebuild import rebuild_graph
from ..surgery.sites import site_calls
from ..surgery.verify import Certificate, check_finite
from ..train.framework import ReadModel
from .certify import NARROW, Party, certified, runnable, split
from .inputs import arrays_for
from .shown import Shown

_BATCH = 32


@dataclass(frozen=True)
class TransformReport(Shown):
    """What a verb did to each norm of a model, and how well the result was checked.

    Attributes: sites: a SiteResult per norm; certificate: None for `rebuild`, whose result computes
        another function, and for a dry run.
    """

    verb: str
    model: str
    framework: str
    order: str | None
    strategy: str | None
    sites: tuple[SiteResult, ...]
    certificate: Certificate | None = None
    seed: int | None = None
    warnings: tuple[str, ...] = ()
    parameters: tuple[int, int] = (0, 0)
    hidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # norms in unread layers
    renamed: Mapping[str, str] = field(default_factory=dict)  # what is at a path -> its old path

    @property
    def done(self) -> tuple[SiteResult, ...]:
        """The norms that were changed."""
        return tuple(outcome for outcome in self.sites if outcome.status == "done")

    @property
    def skipped(self) -> tuple[SiteResult, ...]:
        """The norms that weren't changed, each with its reason."""
        return tuple(outcome for outcome in self.sites if outcome.status == "skipped")

    def _data(self) -> dict[str, Any]:
        return {
            "schema": f"relucate.{self.verb}/1",
            "model": self.model,
            "framework": self.framework,
            "order": self.order,
            "strategy": self.strategy,
            "seed": self.seed,
            "sites": [outcome.to_dict() for outcome in self.sites],
            "summary": {"done": len(self.done), "skipped": len(self.skipped)},
            "parameters": {"before": self.parameters[0], "after": self.parameters[1]},
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "warnings": list(self.warnings),
            "hidden": hidden_rows(self.hidden),
            "renamed": dict(self.renamed),
        }

    def _views(self) -> Any:
        from ..report.transform import print_transform, transform_html

        return print_transform, transform_html

    def __repr__(self) -> str:
        done, skipped = len(self.done), len(self.skipped)
        return f"<TransformReport of {self.verb}: {done} norms done, {skipped} skipped>"


@full_float32()
def fold(
    model: Any,
    *,
    strategy: str = "auto",
    example: Any = None,
    leaves: Iterable[str] = (),
    inputs: Any = None,
) -> tuple[Any, TransformReport]:
    """Return the model for inference with every batch norm absorbed that can be, exactly.

        s · (W x + b) + t = (s W) x + (s b + t)      W (s · x + t) + b = (W s) x + (b + W t)

    The next layers absorb a norm after the activation, also through concatenation, pooling and zero
    padding; a parallel convolution absorbs that of an identity branch (RepVGG). Padded zeros lack
    the shift. Strategies for that: "map" (adds the convolution of the constant shift, needs a known
    image size), "ones" (adds a channel of ones to the input), "branch" (the same in a separate
    convolution), "shift" (folds only the scale); "auto" chooses for each site the one that moves
    the fewest values. All are exact. "approximate" makes the shift a bias, which is wrong at the
    border, and the certificate measures the error.

    Args:
        model: a Keras model or a torch.nn.Module. It isn't changed.
        strategy: see above.
        example, leaves: as in `audit`.
        inputs: arrays (one per input) on which to verify the result, besides random ones.

    Returns: the new model, not compiled, and a report: each norm, done or skipped and why.
    Raises: InputError: no norms, NaN weights, an unknown strategy. Refused: the model can't be read
        or written, or the result didn't pass verification.
    Sources: Ioffe and Szegedy, Batch Normalization, 2015; Jacob et al., Quantization and Training
    of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
    """
    read = framework_of(model).read(model, example, texts(leaves, "leaves"))
    plan = _planned(read, "fold", lambda left: fold_graph(read.graph, strategy, left))
    report = _report(read.graph, plan, "fold", None, strategy)
    return _carried_out(read, model, plan, report, inputs)


@full_float32()
def convert(
    model: Any,
    order: str | Order,
    *,
    data: Any = None,
    strategy: str = "auto",
    example: Any = None,
    leaves: Iterable[str] = (),
    inputs: Any = None,
) -> tuple[Any, TransformReport]:
    """Return the trained model in another order, computing the same function at inference.

    The linear layers around each norm absorb it (`fold`); then it is put in its new place as the
    identity: mean = m, variance = v, gamma = sqrt(v + eps), beta = m, where m and v are the moments
    of its new input over `data`; without data m = 0 and v = 1. In training mode the two networks
    differ, as intended.

    Args:
        model, example, leaves, inputs, strategy: as for `fold`.
        order: such as "after" (linear-act-norm) or "before"; "none" folds.
        data: training inputs: arrays, one per input, of at least two examples.

    Returns: the new model, not compiled, and a report. Only batch norms can be the identity; other
    norms stay, and so do norms whose activation follows an addition.
    Raises: as `fold`; InputError: an order without activation or with dropout, data that don't fit.
    """
    read = framework_of(model).read(model, example, texts(leaves, "leaves"))
    wanted = str(Order(order))
    plan = _planned(
        read, "convert", lambda left: convert_graph(read.graph, wanted, strategy, left=left)
    )
    if data is not None:
        arrays = arrays_for(read.graph, data, "data")
        if len(arrays[0]) < 2:
            raise InputError(
                "data of one example has no variance to measure: expected at least 2, better some "
                "hundreds."
            )
        if plan.placed:
            values = read.taps(plan.graph, plan.placed, split(arrays, _BATCH))
            found = measure(plan.graph, plan.placed, values)
            plan = convert_graph(read.graph, wanted, strategy, found, plan.left)
    report = _report(read.graph, plan, "convert", wanted, strategy)
    return _carried_out(read, model, plan, report, inputs)


@full_float32()
def rebuild(
    model: Any,
    order: str | Order,
    *,
    seed: int = 0,
    bias: str = "rule",
    init: Callable[[Any], None] | None = None,
    example: Any = None,
    leaves: Iterable[str] = (),
) -> tuple[Any, TransformReport]:
    """Return the same architecture in another order, freshly initialised.

    Norms move, and activations if the order requires it. A linear layer has a bias unless a norm
    that subtracts a mean per channel directly follows. Everything else is kept: initialisers,
    regularizers, eps, momentum, names, trainable flags, dtypes.

    Args:
        model, example, leaves: as for `fold`.
        order: any order with linear and act, without drop; "none" takes all norms out.
        seed: of the new weights. The same seed gives the same weights, and a layer with the same
            name and shape starts with the same weights in every order.
        bias: "rule" as above, or "keep": every linear layer has a bias if it has one now.
        init: for torch, called with each module that has parameters and no `reset_parameters`
            (position embeddings, layer scale) or one that fails, to initialise them, from the seed;
            `lambda module: None` keeps the values, right for a model that was just built.

    Returns: the new model and a report. A compiled Keras model comes back compiled, with a new
    optimizer of the same configuration. The report lists what stays, with the reason: norms whose
    activation follows an addition, values that other layers read, too, the layer that computes the
    network's output.
    Raises: InputError: no norms, an order without activation or with dropout; Refused: the model
        can't be read or written.
    """
    read = framework_of(model).read(model, example, texts(leaves, "leaves"))
    wanted = str(Order(order))
    seed = whole(seed, "seed", 0)
    plan = _planned(
        read,
        "rebuild",
        lambda left: rebuild_graph(read.graph, wanted, bias, left),
        finite=False,
    )
    report = replace(_report(read.graph, plan, "rebuild", wanted, None), seed=seed)
    made = read.write(plan.graph, seed, init, compiled=True)
    report = _written(read, plan.graph, made, report)
    _warn(report, 4)
    return made, report


def plan(
    verb: str, model: Any, order: str | Order | None = None, *, strategy: str = "auto", **more: Any
) -> TransformReport:
    """Return the report of `fold`, `convert` or `rebuild` without its model (a dry run).

    The model is built, so that a refusal to write it is raised here, too, but it isn't verified.
    """
    leaves = tuple(more.get("leaves", ()))
    read = framework_of(model).read(model, more.get("example"), leaves)
    if verb == "fold":
        made = _planned(read, verb, lambda left: fold_graph(read.graph, strategy, left))
    elif verb == "convert":
        wanted = Order(order or "")
        made = _planned(
            read, verb, lambda left: convert_graph(read.graph, wanted, strategy, left=left)
        )
    else:
        wanted = Order(order or "")
        bias = more.get("bias", "rule")
        made = _planned(
            read,
            verb,
            lambda left: rebuild_graph(read.graph, wanted, bias, left),
            finite=False,
        )
    name = None if order is None else str(Order(order))
    report = _report(read.graph, made, verb, name, None if verb == "rebuild" else strategy)
    fresh = 0 if verb == "rebuild" else None
    written = read.write(made.graph, fresh, more.get("init"))
    return _written(read, made.graph, written, report)


@full_float32()
def verify(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    example: Any = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> Certificate:
    """Return whether two models compute the same at inference: a certificate.

        max_rel = max |a(x) - b(x)| / max |a(x)|      per output, over all inputs x

    Args:
        a, b: models, of the same framework or not; images in the same layout.
        inputs: arrays, one per input, in place of the random ones that stress the borders.
        example: for torch, as in `audit`.
        tolerance: of max_rel; by default 1e-5 for float32, 1e-9 for float64, 5e-2 for bfloat16.
        seed: of the random inputs.

    Raises: InputError: inputs that don't fit, NaN weights; Refused: a model can't be read.
    """
    seed = whole(seed, "seed", 0)
    tolerance = None if tolerance is None else positive(tolerance, "tolerance")
    one, other = (framework_of(model).read(model, example) for model in (a, b))
    for graph in (one.graph, other.graph):
        check_finite(graph)
    shapes = [[g.nodes[name].shape[1:] for name in g.inputs] for g in (one.graph, other.graph)]
    if shapes[0] != shapes[1]:
        raise InputError(f"the models take different inputs: {shapes[0]} and {shapes[1]}.")
    first = Party(one, a, one.graph, "the first")
    parties = (first, Party(other, b, other.graph, "the second").ordered_as(first))
    arrays = (
        runnable(parties[0], seed) if inputs is None else arrays_for(one.graph, inputs, "inputs")
    )
    return certified(*parties, arrays, tolerance, sizes=inputs is None)


# Shared by the verbs.


def _planned(
    read: ReadModel, verb: str, plan: Callable[[Mapping[str, str]], Edit], *, finite: bool = True
) -> Edit:
    graph = read.graph
    if not any(node.kind == "norm" for node in graph):
        if graph.hidden_norms:
            raise Refused(f"there is nothing to {verb}: {hidden_text(graph.hidden_norms)}.")
        raise InputError(f"'{graph.name}' has no norms: there is nothing to {verb}.")
    if finite:
        check_finite(graph)
    return plan_writable(plan, read.unwritable)


def _report(
    graph: Graph, plan: Edit, verb: str, order: str | None, strategy: str | None
) -> TransformReport:
    notes = list(plan.warnings)
    if not plan.done:
        notes.append(f"no effect: none of the {len(plan.outcomes)} norms could be changed.")
    if hidden := graph.hidden_norms:
        notes.append(f"{hidden_text(hidden)}; nothing was done there.")
    counts = (graph.count_parameters(), plan.graph.count_parameters())
    return TransformReport(
        verb=verb,
        model=graph.name,
        framework=graph.framework,
        order=order,
        strategy=strategy,
        sites=plan.outcomes,
        warnings=tuple(notes),
        parameters=counts,
        hidden=hidden,
    )


def _carried_out(
    read: ReadModel, model: Any, plan: Edit, report: TransformReport, inputs: Any
) -> tuple[Any, TransformReport]:
    made = read.write(plan.graph)
    report = _written(read, plan.graph, made, report)
    old = Party(read, model, read.graph, "the model")
    arrays = runnable(old)
    if inputs is not None:
        own = arrays_for(read.graph, inputs, "inputs")
        arrays = [np.concatenate([x, y]) for x, y in zip(arrays, own, strict=True)]
    new = Party(read, made, plan.graph, "the result")
    found = certified(old, new, arrays, None, sizes=True)
    # If the plan warns about a fixed image size, the certificate finds the same.
    notes = [note for note in found.notes if not (plan.warnings and NARROW in note)]
    report = replace(report, certificate=found, warnings=(*report.warnings, *notes))
    if not found.passed and is_exact(report.strategy):
        why = "; ".join(found.notes) or "Please report this model"
        raise Refused(f"the result isn't returned: {found}. {why}.")
    _warn(report, 5)
    return made, report


def _written(read: ReadModel, graph: Graph, made: Any, report: TransformReport) -> TransformReport:
    """Return the report with what is known of the written model.

    Raises: Refused: its graph isn't the planned one.
    """
    try:
        again = read.reread(made)
    except RelucateError as error:
        raise Refused(
            f"the result isn't returned: what was written can't be read again: {error} Please "
            "report this model."
        ) from error
    planned = sorted(site.order for site in site_calls(graph))
    written = sorted(site.order for site in site_calls(again))
    if planned != written:
        raise Refused(
            "the result isn't returned: its norms aren't where they were planned to be. "
            "Please report this model."
        )
    return replace(
        report,
        parameters=(report.parameters[0], again.count_parameters()),
        warnings=(*report.warnings, *read.notes(made)),
        renamed=read.renamed(made),
    )


def _warn(report: TransformReport, stacklevel: int) -> None:
    """Warn at the user's line, so many calls up; the decorator of a verb is one of them."""
    for text in report.warnings:
        warnings.warn(f"relucate {report.verb}: {text}", UserWarning, stacklevel=stacklevel)

"""Rebuild in each arm's order what builders without an `order` argument return.

Both arms are rebuilt from the same model, so that layers keep their names and pairing finds them.
A builder's own initial values are kept where a tensor keeps its shape. A saved model's values are
trained, so there all weights are initialised again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import InputError, Refused
from ..frameworks import owner
from ..order import Order
from ..surgery.audit import hidden_text
from ..surgery.draft import Edit, plan_writable
from ..surgery.rebuild import rebuild_graph
from ..train.framework import Framework, ReadModel


class Made(NamedTuple):
    """A model that a builder made, what to know about it, and what pairing needs.

    renamed: layers that were given another one's name: the new name -> the name that it had.
    """

    model: Any
    note: str = ""
    renamed: Mapping[str, str] = MappingProxyType({})


def framework_of(model: Any) -> Framework:
    """Return the framework of what a builder returned.

    Raises: InputError: it isn't a model.
    """
    found = owner(model)
    if found is None or not found.is_model(model):
        raise InputError(
            f"the builder returned a {type(model).__name__}; expected a Keras model or a "
            "torch.nn.Module."
        )
    return found


def rebuilt(
    model: Any,
    order: str,
    input_shape: tuple[int, ...],
    *,
    trained: bool = False,
    bias: str = "rule",
) -> Made:
    """Return a model in another order, with a sentence on norms that could not be moved.

    Args: input_shape: without the batch axis, channels last; trained: initialise all weights again;
        bias: as for `rebuild`.
    Raises: InputError: it has no norms. Refused: it can't be read or written, or none of its norms
    can be put into that order.
    """
    fresh = random.getrandbits(31) if trained else None
    framework = framework_of(model)
    read = framework.read(model, framework.example(input_shape, model))
    if read.lost_training:
        raise Refused(
            f"'{read.graph.name}' has its own {' and '.join(read.lost_training)}, which a rebuilt "
            "model lacks. Give a builder that takes `order`."
        )
    plan = _plan(read, order, bias)
    made = read.write(plan.graph, fresh, compiled=True)
    return Made(made, _sentence(plan, order), read.renamed(made))


def _plan(read: ReadModel, order: str, bias: str) -> Edit:
    graph = read.graph
    if not any(node.kind == "norm" for node in graph):
        if graph.hidden_norms:
            raise Refused(f"{hidden_text(graph.hidden_norms)}. Give a builder that takes `order`.")
        raise InputError(
            f"'{graph.name}' has no norms, and its builder takes no `order`: there is nothing to "
            "put into another order."
        )
    plan = plan_writable(lambda left: rebuild_graph(graph, order, bias, left), read.unwritable)
    if not _there(plan, order):
        reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in plan.outcomes))
        raise Refused(
            f"'{graph.name}' can't be rebuilt as {order}: {reasons}. Give a builder that takes "
            "`order`."
        )
    return plan


def _there(plan: Edit, order: str) -> int:
    """Return the number of norms in that order, moved or not."""
    if not Order(order).has_norm:
        return len(plan.done)
    return sum(outcome.new == str(Order(order)) for outcome in plan.outcomes)


def _sentence(plan: Edit, order: str) -> str:
    hidden = hidden_text(plan.graph.hidden_norms)
    total, there = len(plan.outcomes), _there(plan, order)
    if there == total:
        return f"rebuilt as {order}, but {hidden}" if hidden else ""
    wanted = str(Order(order))
    stay = [o for o in plan.outcomes if o.new != wanted] if Order(order).has_norm else []
    stay = stay or [outcome for outcome in plan.outcomes if outcome.status == "skipped"]
    named = "; ".join(f"{outcome.name} ({outcome.reason})" for outcome in stay[:3])
    more = f"; and {len(stay) - 3} more" if len(stay) > 3 else ""
    have = f"rebuilt as {order}: {there} of {total} norms are in that order."
    return f"{have} Others stay: {named}{more}" + (f". {hidden}" if hidden else "")

"""Builders that take no `order`: what they build is rebuilt in each arm's order.

Both arms are rebuilt from the same model, so that layers keep their names and pairing finds them.
A builder's own initial values are kept wherever a tensor keeps its shape; a saved model's are its
training, so there every weight is initialised anew.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from ..errors import InputError, Refused
from ..order import Order
from ..surgery.draft import Edit
from ..surgery.rebuild import rebuild_graph


def rebuilt(
    model: Any,
    order: str,
    input_shape: tuple[int, ...],
    *,
    trained: bool = False,
    bias: str = "rule",
) -> tuple[Any, str]:
    """Return a model in another order, and a sentence on what could be moved.

    Args: input_shape: without the batch axis, channels last; trained: initialise all weights anew;
        bias: as for `rebuild`.
    Raises: InputError: it has no norms. Refused: it can't be read or written, or none of its norms
    can be in that order.
    """
    fresh = random.getrandbits(31) if trained else None
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        from ..keras import read
        from ..keras.writing.writer import write

        plan = _plan(read(model), order, bias)
        return write(plan.graph, model, fresh=fresh), _sentence(plan, order)
    if torch is not None and isinstance(model, torch.nn.Module):
        from ..torch import read_with_modules
        from ..torch.writing.writer import write as write_torch

        first = (input_shape[-1], *input_shape[:-1]) if len(input_shape) > 1 else input_shape
        reading = read_with_modules(model, (2, *first))
        plan = _plan(reading.graph, order, bias)
        return write_torch(plan.graph, model, reading, fresh=fresh), _sentence(plan, order)
    raise InputError(
        f"the builder returned a {type(model).__name__}; expected a Keras model or a "
        "torch.nn.Module."
    )


def _plan(graph: Any, order: str, bias: str) -> Edit:
    if not any(node.kind == "norm" for node in graph):
        raise InputError(
            f"'{graph.name}' has no norms, and its builder takes no `order`: there is nothing to "
            "put into another order."
        )
    plan = rebuild_graph(graph, order, bias)
    if not _there(plan, order):
        reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in plan.outcomes))
        raise Refused(
            f"'{graph.name}' can't be rebuilt as {order}: {reasons}. Give a builder that takes "
            "`order`."
        )
    return plan


def _there(plan: Edit, order: str) -> int:
    """Return how many norms are in the order now, moved or not."""
    if not Order(order).has_norm:
        return len(plan.done)
    return sum(outcome.new == str(Order(order)) for outcome in plan.outcomes)


def _sentence(plan: Edit, order: str) -> str:
    total, there = len(plan.outcomes), _there(plan, order)
    if there == total:
        return ""
    wanted = str(Order(order))
    stay = [o for o in plan.outcomes if o.new != wanted] if Order(order).has_norm else []
    stay = stay or [outcome for outcome in plan.outcomes if outcome.status == "skipped"]
    named = "; ".join(f"{outcome.name} ({outcome.reason})" for outcome in stay[:3])
    more = f"; and {len(stay) - 3} more" if len(stay) > 3 else ""
    have = f"rebuilt as {order}: {there} of {total} norms are in that order."
    return f"{have} Others stay: {named}{more}"

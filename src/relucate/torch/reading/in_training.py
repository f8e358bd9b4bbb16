"""Whether a forward that torch.fx traces does the same in training mode as in eval mode.

Called by `writing`: the forward that it makes is that of eval mode.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from ..state import untouched
from .detached import View, materialized, unwrap
from .modes import after_train
from .program import Call, Stopped
from .reader import example_of, leaf_test
from .symbolic import trace
from .targets import canonical


def same_calls_in_training(
    model: nn.Module,
    example: Any,
    leaves: Sequence[str] = (),
    frozen: Collection[str] = (),
) -> bool:
    """Return whether the forward makes the same calls in training mode as in eval mode.

    It doesn't where code depends on `if self.training` (auxiliary heads, stochastic depth).

    Args: frozen: modules that stay in eval mode.
    """
    model = unwrap(model)
    with untouched(model):
        kept = after_train(model).frozen.union(frozen)
        return _same_calls(model, example, leaves, kept)


def _same_calls(
    model: nn.Module, example: Any, leaves: Sequence[str], frozen: Collection[str]
) -> bool:
    args, kwargs = example_of(model, example)
    found = []
    for training in (False, True):
        view = View(materialized(model, args, kwargs))
        for path, module in view.modules.items():
            module.training = training and path not in frozen
        try:
            program = trace(view, leaf_test(view, frozenset(leaves)), (args, kwargs))
        except Stopped:
            return False
        found.append(_told([call for call in program.calls if not _counts_batches(call)]))
    return found[0] == found[1]


def _told(calls: Sequence[Call]) -> list[Any]:
    """Return what calls do, the numbers among their arguments included.

    Not those of functions that the writer makes modules of, which follow the mode themselves.
    """
    place = {name: number for number, call in enumerate(calls) for name in call.results}

    def told(leaf: Any) -> Any:
        if isinstance(leaf, fx.Node):
            return ("call", place[leaf]) if leaf in place else str(leaf.target)
        return leaf if isinstance(leaf, (bool, int, float, str)) else type(leaf)

    given = [() if _follows_the_mode(call) else (call.args, call.kwargs) for call in calls]
    told_of = pytree.tree_map(told, given)
    return [(c.target, c.module, c.owner, x) for c, x in zip(calls, told_of, strict=True)]


def _follows_the_mode(call: Call) -> bool:
    name = "" if call.module else canonical(call.target, {})[0]
    return "dropout" in name or "batch_norm" in name or name == "rrelu"


def _counts_batches(call: Call) -> bool:
    """Return whether a call is what a batch norm's own forward does in training mode besides."""
    counted = call.args[0] if call.args else None
    return isinstance(counted, fx.Node) and str(counted.target).endswith("num_batches_tracked")

"""Write an edited Graph back as a new PyTorch module.

Where modules under other names are all that is needed (`exchanging`), it is a copy of the same
class: norm and activation at each other's paths, nn.Identity where a norm went. Otherwise it is a
torch.fx.GraphModule over copies of the same submodules, at the same paths: unedited calls
stay as they were, and inserted ones have paths of their own. Nothing is shared with the
source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from ...errors import Refused
from ...graph import Graph
from ..reading.detached import unwrap
from ..reading.modes import trained_otherwise
from ..reading.reader import Reading
from .copying import copy_modes
from .edits import Edits
from .exchanging import Exchange, exchange, norms_around, stuck_norms
from .fitting import across_casts, computed, inside_calls, unfit
from .fused import is_fused
from .proving import Proof, prove
from .resetting import Init, reset
from .sliding import slid
from .tensors import LINEAR
from .units import condensed, intact, units


@dataclass(frozen=True)
class Written:
    """A module that was written.

    Attributes: paths: of each batch norm that is a module, node -> path; proof: where modules
        changed places.
    """

    module: nn.Module
    paths: Mapping[str, str]
    proof: Proof | None = None


def write(
    graph: Graph,
    model: nn.Module,
    reading: Reading,
    *,
    fresh: int | None = None,
    init: Init | None = None,
) -> Written:
    """Return a new module that computes what `graph` says, and where in it is what.

    Args:
        graph: what reading gave, edited by a planner.
        model: the module that was read; it isn't changed.
        reading: what `read_with_modules` gave.
        fresh: a seed: each module's own `reset_parameters` initialises its parameters again, from
            a seed of its path; None: they are those of the graph.
        init: initialises, if there is `fresh`, a module that has no such method.
    Raises: Refused: an edit that can't be written, with the layer's name; among them, in a model
        that only torch.export could read, one that modules under other names can't express.

    The traced forward is that of eval mode: code behind `if self.training` isn't in a GraphModule.
    """
    if fresh is not None and reading.unheld:
        raise Refused(f"the forward calls {reading.unheld}: these can't be initialised again.")
    whole = unwrap(model)
    names, planned, seen = _with_units(graph, whole, reading)
    found = find_exchange(planned, whole, seen)
    why = "; ".join(f"'{name}': {reason}" for name, reason in found.failing.items())
    if not why:
        edits = Edits(planned, whole, seen)
        made = edits.exchanged(found)
        moves = found.moved or found.shifts or edits.refitted_units
        proof = prove(made, whole, seen, planned, found) if moves else None
        why = proof.failure if proof else ""
        if not (why := why or trained_otherwise(made, whole, found.moved)):
            if fresh is not None:
                reset(made, fresh, found.moved, init)
            paths = {names.get(name, name): path for name, path in edits.paths.items()}
            return Written(made, paths, proof)
    if reading.not_retraced:
        raise Refused(
            f"{reading.not_retraced}, so that nothing can be put into it, and modules that change "
            f"places can't do it ({why})."
        )
    edits = Edits(graph, whole, reading)
    made = edits.retraced()
    if fresh is not None:
        reset(made, fresh, init=init)
    copy_modes(made, whole)
    if why := trained_otherwise(made, whole, {}, reading.frozen):
        raise Refused(f"{why}.")
    return Written(made, edits.paths)


def _with_units(
    graph: Graph, whole: nn.Module, reading: Reading
) -> tuple[dict[str, str], Graph, Reading]:
    """Return an edited graph, and the reading that it is an edit of, with a node for each unit.

    And for each such node the last of those that it stands for.
    """
    holding = [path for path, module in whole.named_modules() if isinstance(module, LINEAR)]
    found = intact(units(reading.graph), reading.graph, graph, holding)
    modules = {path: whole.get_submodule(path) for path in found}
    seen = replace(
        reading,
        graph=condensed(reading.graph, found),
        modules={**reading.modules, **modules},
    )
    names = {path: nodes[-1] for path, nodes in found.items()}
    return names, slid(condensed(graph, found), seen.graph), seen


def find_exchange(graph: Graph, whole: nn.Module, reading: Reading) -> Exchange:
    """Return how modules that change places make the model compute `graph`, or why they can't.

    Where torch.fx traces the model, linear layers keep their names: those of their weights pair
    the arms of a study.
    """
    found = exchange(reading.graph, graph, reading.modules)
    failing = dict(found.failing)
    names = Counter(id(m) for _, m in whole.named_modules(remove_duplicate=False))
    held = dict(whole.named_modules())
    for layer, source in found.moved.items():
        places = [n for n, content in found.nodes.items() if reading.graph.nodes[n].layer == layer]
        linear = graph.nodes[str(found.nodes[places[0]])].kind == "linear"
        if {layer, source} - held.keys() or names[id(held[layer])] > 1:
            failing.update(dict.fromkeys(places, "its module has several names"))
        elif linear and not reading.not_retraced:
            failing.update(dict.fromkeys(places, "a linear layer would change its name"))
    for layer in found.gone:
        if isinstance(held.get(layer.rpartition(".")[0]), nn.TransformerEncoderLayer):
            places = [name for name in found.nodes if reading.graph.nodes[name].layer == layer]
            why = "nn.TransformerEncoderLayer reads attributes of its norms"
            failing.update(dict.fromkeys(places, why))
    return replace(found, failing=failing)


def functions_moved(graph: Graph, whole: nn.Module, reading: Reading) -> set[str]:
    """Return the submodules that call an activation or norm which must move and is no module.

    An activation is a function, or a module that is called several times; a norm is within a
    module with more inside (`fused`).

    Of a model that torch.fx traces there are none: it is traced as a whole.
    """
    if not reading.not_retraced:
        return set()
    _, planned, seen = _with_units(graph, whole, reading)
    old = seen.graph
    failing = [
        old.nodes[name] for name in find_exchange(planned, whole, seen).failing if name in old.nodes
    ]
    calls = Counter(node.layer for node in old)
    acts = {node.layer for node in failing if node.kind == "act"}
    functions = {layer.rpartition("/")[0] for layer in acts if layer not in seen.modules}
    shared = {layer for layer in acts if layer in seen.modules and calls[layer] > 1}
    norms = {node.layer.rpartition("/")[0] for node in failing if node.kind == "norm"}
    functions |= {path for path in norms if path and is_fused(whole.get_submodule(path))}
    return functions | {layer.rpartition(".")[0] for layer in shared}


def unwritable(graph: Graph, model: nn.Module, reading: Reading) -> dict[str, str]:
    """Return the norms whose edit can't be written: first node -> why.

    torch.fx writes any whose tensors can be set (`fitting`); in what it can't trace, modules have
    to do (`exchanging`).
    """
    whole = unwrap(model)
    names, planned, seen = _with_units(graph, whole, reading)
    found = find_exchange(planned, whole, seen)
    if not reading.not_retraced:
        failing = computed(graph, reading)
        if found.failing:
            failing |= unfit(graph, whole, reading) | across_casts(graph, reading)
            failing |= inside_calls(graph, reading)
        return norms_around(failing, reading.graph, graph)
    stuck = stuck_norms(seen.graph, planned, found)
    why = f"{reading.not_retraced}, and modules alone can't do it"
    return {names.get(norm, norm): f"{why} ({reason})" for norm, reason in stuck.items()}

"""What torch.fx drops when it makes a module out of another one's parts, given back.

Called by `writer`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..reading.modes import after_train

_FROZEN = "in_eval_mode"  # in `meta`, which a copy of a GraphModule keeps


class PartlyFrozen(fx.GraphModule):
    """A traced module some of whose submodules stay in eval mode in training.

    So it is with a model that freezes its norms in a `train` of its own.
    """

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        held = dict(self.named_modules())
        for path in self.meta.get(_FROZEN, ()):
            if path in held:
                held[path].eval()
        return self

    def __reduce__(self) -> Any:
        return _restored, (super().__reduce__(), self.meta[_FROZEN])


def _restored(plain: Any, frozen: tuple[str, ...]) -> PartlyFrozen:
    make, given = plain
    held = make(*given)
    made = PartlyFrozen(held, held.graph, type(held).__name__)
    made.meta[_FROZEN] = frozen
    return made


def traced_module(twin: nn.Module, graph: fx.Graph, frozen: Collection[str] = ()) -> fx.GraphModule:
    """Return a module of the traced calls, which doesn't train what the model's own doesn't.

    Args: frozen: more submodules that stay in eval mode.
    Raises: Refused: the model's own `train` fails.
    """
    own = after_train(twin)
    kept = tuple(sorted((own.frozen - {""}).union(frozen)))
    made = (PartlyFrozen if kept else fx.GraphModule)(twin, graph, type(twin).__name__)
    if kept:
        made.meta[_FROZEN] = kept
    for name, parameter in made.named_parameters():
        if name in own.fixed:
            parameter.requires_grad_(False)
    return made


def keep(made: nn.Module, twin: nn.Module) -> None:
    """Give a traced module the classes of submodules, and the root's attributes, such as config."""
    _keep_classes(made, twin)
    for name, value in vars(twin).items():
        if not hasattr(made, name) and not any(map(_is_held, pytree.tree_leaves(value))):
            setattr(made, name, value)


def _is_held(value: Any) -> bool:
    return isinstance(value, (nn.Module, torch.Tensor))


def _keep_classes(made: nn.Module, twin: nn.Module) -> None:
    """Give modules whose weights alone are used their class and attributes back.

    torch.fx puts such weights into plain modules, which know no `reset_parameters`, and makes all
    buffers persistent.
    """
    unsaved = twin._non_persistent_buffers_set & made._buffers.keys()
    made._non_persistent_buffers_set.update(unsaved)
    for path, held in list(made.named_modules()):
        if not path or type(held) is not nn.Module:
            continue
        source = twin.get_submodule(path)
        kept = object.__new__(type(source))
        vars(kept).update(vars(source), _modules=held._modules)
        for kind in ("_parameters", "_buffers"):  # the others are used no longer
            used = vars(held)[kind]
            vars(kept)[kind] = {name: used.get(name) for name in vars(source)[kind]}
        parent, _, name = path.rpartition(".")
        made.get_submodule(parent)._modules[name] = kept

"""What torch.fx drops when it makes a module out of another one's parts, given back.

Called by `writer`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


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

"""What a compiled PyTorch object consists of, for the identity of code that uses it.

Code and tensors of what torch.jit made, and what torch.compile was given: neither is seen in an
object's attributes. Called by `framework`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import torch

# Places in files, addresses, and numbers that torch.jit counts per process.
_VOLATILE = re.compile(r" # \S.*:\d+:\d+$| object at 0x[0-9a-f]+|___torch_mangle_\d+\.", re.M)


def content(thing: Any) -> Any:
    """Return what a compiled function or module consists of, None for anything else."""
    given = getattr(thing, "__dict__", {})
    if "_torchdynamo_orig_callable" in given:  # a function by torch.compile
        return "compiled", given["_torchdynamo_orig_callable"]
    if "dynamo_ctx" in given:  # a module by torch.compile
        return "compiled", thing._orig_mod
    script: Any = thing
    if isinstance(thing, torch.jit.ScriptFunction):
        return _graph(script.inlined_graph)
    if isinstance(thing, torch.jit.ScriptModule):
        tensors = {name: value.detach() for name, value in script.state_dict().items()}
        text = script._c.dump_to_str(True, True, False)
        constants: Any = ()
        with suppress(Exception):  # it has no forward
            constants = _graph(script.inlined_graph)
        return _VOLATILE.sub("", text), constants, tensors
    return None


def _graph(graph: Any) -> Any:
    """Return the text of a graph, without the places in files, and its constant tensors."""
    nodes = graph.findAllNodes("prim::Constant")
    tensors = [n.t("value") for n in nodes if n.hasAttribute("value") and n.kindOf("value") == "t"]
    return _VOLATILE.sub("", graph.str(False)), tensors

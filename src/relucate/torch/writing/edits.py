"""What differs between two Graphs of a PyTorch model, carried over to a copy of the model.

Either modules of the copy change places (`Edits.exchanged`), or the traced calls are made again
with the edits among them (`Edits.retraced`). Called by `writer`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ...errors import Refused
from ...graph import Graph, Node
from ..modules import FixedAffine, FixedOffset, TokenBatchNorm
from ..reading.reader import Reading
from ..reading.symbolic import is_output_class
from ..reading.targets import canonical
from .arguments import add_arguments
from .copying import copied
from .exchanging import Exchange
from .keeping import keep, traced_module
from .making import RANDOM, is_over_tokens, make_module, random_module, tie
from .tensors import NAMES, changed_shape, find, layout_of, refit, set_values, tensor_like
from .turned import turned, turning
from .units import WEIGHTED


class Edits:
    """What differs between two graphs, and how the copy is changed for it."""

    def __init__(self, graph: Graph, whole: nn.Module, reading: Reading) -> None:
        self.new, self.old, self.reading = graph, reading.graph, reading
        self.whole, self.twin = whole, copied(whole)
        set_values(self.twin, reading.graph, graph, reading.bindings)
        self.paths: dict[str, str] = {}
        self.calls: dict[str, list[str]] = {}  # traced call -> the nodes that it made
        for name, call in reading.origins.items():
            self.calls.setdefault(call, []).append(name)
        self.traced = self._traced_nodes()
        self.like = next((p for p in self.twin.parameters() if p.is_floating_point()), None)
        self.holders: dict[str, fx.Node] = {}
        for traced, name in reading.bound.items():
            if traced in self.traced:
                self.holders.setdefault(name, self.traced[traced])
        self._values: dict[str, fx.Node] = {}
        self._copied: dict[fx.Node, fx.Node] = {}
        self._rearranged: dict[tuple[fx.Node, str], fx.Node] = {}
        self._building = fx.Graph()
        self._refitted: set[str] = set()
        self.refitted_units = False  # whether a module of several nodes got other weights
        self._known = {
            (key, binding.layout): find(self.twin, binding.parameter)
            for key, binding in reading.bindings.items()
        }
        for node, module in turning(self.old, self.new, reading.modules):
            if module is not None:
                self._turn(node)

    def _turn(self, node: Node) -> None:
        path = self._path(node)
        made = turned(self.twin.get_submodule(path), node)
        if made is not None:  # it may have been turned at another call
            self._exchange(path, made)

    def _traced_nodes(self) -> dict[str, fx.Node]:
        if self.reading.way != "fx":
            return {}
        return {node.name: node for node in self.reading.traced.nodes}

    # A copy of the same class.

    def exchanged(self, found: Exchange) -> nn.Module:
        """Return the copy with modules at other paths, and nn.Identity where a norm went."""
        for node in self.new:
            if node.layer not in self.reading.modules:
                continue
            path = self._path(node)
            if changed_shape(self.old, self.new, node.name):
                self._refit(path, node)
            self._not_in_place(node)
        taken = {layer: self._to_move(layer) for layer in found.moved.values()}
        for layer in found.gone:
            self._exchange(self._path(self._node_of(layer)), nn.Identity())
        for layer, name in found.shifts.items():
            self._exchange(self._path(self._node_of(layer)), self._fixed(self.new.nodes[name]))
        for layer, source in found.moved.items():
            parent, _, name = layer.rpartition(".")
            self.twin.get_submodule(parent)._modules[name] = taken[source]
        for place, name in found.nodes.items():
            node = self.old.nodes[place]
            norm = name is not None and self.new.nodes[name].kind == "norm"
            if name and norm and node.layer in self.reading.modules:
                self.paths[name] = self._path(node)
        return self.twin

    def _to_move(self, layer: str) -> nn.Module:
        module = self.twin.get_submodule(layer)
        old = self._node_of(layer)
        over_tokens = is_over_tokens(self.new.nodes.get(old.name, old))
        return TokenBatchNorm.like(module) if over_tokens else module

    def _fixed(self, node: Node) -> nn.Module:
        """Return the module of a new affine."""
        arrays = {role: self.new.tensors[key] for role, key in node.arrays.items()}
        return FixedAffine({r: tensor_like(array, self.like) for r, array in arrays.items()})

    def _node_of(self, layer: str) -> Node:
        return next(node for node in self.old if node.layer == layer)

    def _path(self, node: Node) -> str:
        """Return the path of the module that a node came from; a root's nodes have its name."""
        root = self.reading.modules[node.layer] is self.whole
        return "" if root else node.layer

    def _exchange(self, path: str, module: nn.Module) -> None:
        if not path:
            kind = type(self.twin).__name__
            raise Refused(f"the {kind} is the model itself: it can't be taken out.")
        original = self.twin.get_submodule(path)
        module.training = original.training
        for parent in list(self.twin.modules()):
            for name, child in list(parent._modules.items()):
                if child is original:
                    parent._modules[name] = module

    def _refit(self, path: str, node: Node) -> None:
        if path not in self._refitted:
            self._refitted.add(path)
            self.refitted_units |= WEIGHTED in node.attrs
            refit(self.twin.get_submodule(path), node.attrs.get(WEIGHTED, node), self.new)

    def _not_in_place(self, node: Node) -> None:
        """Let a module that changes its input in place stop that if others read it now."""
        if node.layer not in self.reading.modules or not node.inputs:
            return
        module: Any = self.twin.get_submodule(self._path(node))
        if getattr(module, "inplace", False) and not self._alone(node):
            module.inplace = False

    def _alone(self, node: Node) -> bool:
        """Return whether a node may change its input: nothing else reads it, no caller owns it."""
        source = node.inputs[0]
        given = self.new.nodes[source].op == "input" and self.old.nodes[node.name].inputs != (
            source,
        )
        return len(self.new.consumers[source]) == 1 and not given

    # A new forward.

    def _resolved(self, name: str) -> str:
        while name not in self.new.nodes:
            inputs = self.old.nodes[name].inputs  # of a sum that is gone, the term that is left
            name = next((source for source in inputs if source in self.new.nodes), inputs[0])
        return name

    def retraced(self) -> nn.Module:
        """Return a GraphModule: the traced calls again, with the edits among them."""
        traced_inputs = [n for n in self.reading.traced.nodes if n.op == "placeholder"]
        given = add_arguments(self._building, self.whole, self.reading.example)
        for name, old, tensor in zip(self.new.inputs, traced_inputs, given, strict=True):
            self._values[name] = self._copied[old] = tensor
        for node in self.new:  # in order; what is inside of a call comes with that call
            if node.name in self.holders or node.name not in self.old.nodes:
                self._value(node.name)
        output = next(n for n in self.reading.traced.nodes if n.op == "output")
        reads, outputs = self.reading.reads["output"], self._new_outputs()

        def final(arg: fx.Node) -> fx.Node:
            if arg.name in reads:
                name = reads[arg.name]
                return self._argument(arg, name, outputs[name], "the output")
            if is_output_class(arg):
                return self._building.node_copy(arg, final)
            return self._copy(arg)

        self._building.output(fx.map_arg(output.args[0], final))
        made = traced_module(self.twin, self._building, self.reading.frozen)
        made.graph.eliminate_dead_code()
        made.recompile()
        made.delete_all_unused_submodules()
        keep(made, self.twin)
        return made

    def _new_outputs(self) -> dict[str, str]:
        return dict(zip(self.old.outputs, self.new.outputs, strict=True))

    def _value(self, name: str) -> fx.Node:
        """Return the new traced node that holds a graph node's value."""
        if name in self._values:
            return self._values[name]
        node = self.new.nodes[name]
        if name not in self.old.nodes or self._is_function(node):
            value = self._inserted(node)
        else:
            inside = name not in self.holders
            value = self._taken_out(node) if inside else self._copy(self.holders[name])
        self._values[name] = value
        return value

    def _is_function(self, node: Node) -> bool:
        """Return whether a node that was a function call has to become a module."""
        call = self.traced[self.reading.origins[node.name]] if node.op != "input" else None
        if call is None or call.op == "call_module" or node.op == "opaque":
            return False
        if node.op == "batch_norm" and "moving_mean" in node.arrays:
            # The call holds on to the mode that was traced; it may set training mode.
            return not (node.attrs.get("forced") or node.attrs.get("frozen"))
        if node.op in RANDOM and call.op == "call_function":  # that holds on to the mode, too
            return not node.attrs.get("forced")
        return bool(node.arrays) and changed_shape(self.old, self.new, node.name)

    def _copy(self, old: fx.Node) -> fx.Node:
        """Make a traced call again, with what its nodes read now."""
        if old in self._copied:
            return self._copied[old]
        made = self.calls.get(old.name, [])
        made = [name for name in made if name in self.old.nodes]
        gone = [name for name in made if name not in self.new.nodes]
        if gone and len(gone) < len(made):
            raise Refused(f"'{gone[0]}' can't be taken out of the call that it is a part of.")
        if self._is_apart(made):
            self._copied[old] = self._conv_alone(old, made)
            return self._copied[old]
        reads = self.reading.reads.get(old.name, {})

        def argument(arg: fx.Node) -> fx.Node:
            if arg.name not in reads:
                return self._copy(arg)
            name = reads[arg.name]
            reader = f"'{made[0]}'" if made else "what follows"
            return self._argument(arg, name, self._reads_now(old, made, name), reader)

        if old.op == "call_module":
            self._fit(old, made)
        if "constant" in old.meta:
            setattr(self.twin, str(old.target), old.meta["constant"].clone())
        node = self._building.node_copy(old, argument)
        node.args = fx.map_arg(old.args, argument)
        node.kwargs = fx.map_arg(old.kwargs, argument)
        self._calm(node, made)
        self._copied[old] = node
        return node

    def _argument(self, arg: fx.Node, name: str, now: str, reader: str) -> fx.Node:
        """Return what is read for `arg`, which held the node `name`, if the node `now` is read."""
        if now == name and self.reading.bound.get(arg.name) == name and name in self.holders:
            return self._value(name) if self.holders[name] is arg else self._copy(arg)
        merged = self.reading.merged.get(arg.name, 0)
        alike = self._merged(now) == self._merged(name)
        if alike and self._merged(now) != merged and self._only_arranges(arg, name):
            return self._arranged(arg, name, now)
        return self._in_form(now, merged, reader)

    def _reads_now(self, old: fx.Node, made: Sequence[str], name: str) -> str:
        """Return which node a call reads where it read the node `name`."""
        found = {
            self.new.nodes[own].inputs[place]
            for own in made
            if own in self.new.nodes
            for place, source in enumerate(self.old.nodes[own].inputs)
            if source == name and place < len(self.new.nodes[own].inputs)
        }
        if len(found) > 1:
            raise Refused(f"'{made[0]}' would read one value as several.")
        if found:
            return found.pop()
        moves = not made and old.name in self.reading.bound  # it gives the value in another form
        return self._resolved(name) if moves else self._of_its_shape(name)

    def _of_its_shape(self, name: str) -> str:
        """Return what to read for a shape or a type: of a norm that has moved, what it read."""
        name = self._resolved(name)
        node, was = self.new.nodes[name], self.old.nodes.get(name)
        moved = was is not None and node.kind == "norm" and node.inputs != was.inputs
        return self._of_its_shape(was.inputs[0]) if was and moved else name

    def _fit(self, old: fx.Node, made: Sequence[str]) -> None:
        path = str(old.target)
        for name in made:
            if name in self.new.nodes:
                node = self.new.nodes[name]
                if changed_shape(self.old, self.new, name):
                    self._refit(path, node)
                if node.kind == "norm":
                    self.paths[name] = path

    def _calm(self, node: fx.Node, made: Sequence[str]) -> None:
        """Let a call that changes its input in place stop that if others read the input."""
        nodes = [self.new.nodes[name] for name in made if name in self.new.nodes]
        if not nodes or not nodes[0].inputs:
            return
        same = nodes[0].inputs == self.old.nodes[nodes[0].name].inputs
        if self._alone(nodes[0]) or nodes[0].op == "opaque":
            return
        if node.op == "call_module":
            module: Any = self.twin.get_submodule(str(node.target))
            if getattr(module, "inplace", False):
                module.inplace = False
            return
        name, in_place = canonical(node.target, dict(node.kwargs))
        if not in_place:
            return
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}
        elif isinstance(node.target, str):
            node.target = node.target.rstrip("_")
        elif hasattr(operator, name):
            node.target = getattr(operator, name)
        elif hasattr(torch, name):
            node.target = getattr(torch, name)
        elif not same:
            raise Refused(f"'{made[0]}' changes in place what others read.")

    # Leading axes that the model merges, and the graph doesn't.

    def _merged(self, name: str) -> int:
        """Return how many leading axes of a node's value are one axis where it is made."""
        return self.reading.merged.get(self.holders[name].name, 0) if name in self.holders else 0

    def _only_arranges(self, arg: fx.Node, name: str) -> bool:
        """Return whether `arg` holds the same value as the node `name`, merged or parted."""
        return self.reading.bound.get(arg.name) == name and name in self.holders

    def _arranged(self, arg: fx.Node, name: str, now: str) -> fx.Node:
        """Return `now`, merged or parted by the calls that did so with the node `name`."""
        if self.holders[name] is arg:
            return self._value(now)

        def source(inner: fx.Node) -> fx.Node:
            same = self._only_arranges(inner, name)
            return self._arranged(inner, name, now) if same else self._copy(inner)

        if (arg, now) not in self._rearranged:
            self._rearranged[arg, now] = self._building.node_copy(arg, source)
        return self._rearranged[arg, now]

    def _in_form(self, name: str, merged: int, reader: str) -> fx.Node:
        """Return a node's value with so many leading axes merged, as `reader` needs it."""
        if self._merged(name) == merged:
            return self._value(name)
        for traced, held in self.reading.bound.items():  # the model's own merge, or its reverse
            if held == name and self.reading.merged.get(traced, 0) == merged:
                return self._copy(self.traced[traced])
        raise Refused(
            f"the first axes of '{name}' are merged and parted again around a layer of the model, "
            f"and {reader} would read it in the other form."
        )

    # Convolutions that pad by reflection and the like: one call, two nodes.

    def _is_apart(self, made: Sequence[str]) -> bool:
        """Return whether something is between a convolution and its own padding now."""
        if len(made) != 2 or made[1] not in self.new.nodes or self.old.nodes[made[0]].op != "pad":
            return False
        return self.new.nodes[made[1]].inputs[0] != made[0]

    def _taken_out(self, node: Node) -> fx.Node:
        module: Any = self.reading.modules.get(node.layer)
        if node.op != "pad" or not isinstance(module, nn.modules.conv._ConvNd):
            raise Refused(f"'{node.name}' ({node.op}) is inside a call that can't be taken apart.")
        pads = list(module._reversed_padding_repeated_twice)
        return self._call(F.pad, self._value(node.inputs[0]), pads, module.padding_mode)

    def _conv_alone(self, old: fx.Node, made: Sequence[str]) -> fx.Node:
        path = str(old.target)
        module: Any = self.twin.get_submodule(path)
        for name, call in self.traced.items():
            same = call.op == "call_module" and self.twin.get_submodule(str(call.target)) is module
            if same and not self._is_apart(self.calls.get(name, [])):
                raise Refused(f"the calls of '{path}' would need other paddings.")
        self._fit(old, made)
        rank = len(module.kernel_size)
        module.padding, module.padding_mode = (0,) * rank, "zeros"
        module._reversed_padding_repeated_twice = [0] * (2 * rank)
        source = self._value(self.new.nodes[made[1]].inputs[0])
        return self._building.call_module(path, (source,))

    # What planners inserted.

    def _inserted(self, node: Node) -> fx.Node:
        merged = self._merged(node.name) if node.name in self.old.nodes else 0
        inputs = [self._in_form(name, merged, f"'{node.name}'") for name in node.inputs]
        if node.op == "affine":
            return self._affine(node, inputs[0])
        if node.op == "rescale":
            scaled = self._call(operator.mul, inputs[0], float(node.attrs["scale"]))
            return self._call(operator.add, scaled, float(node.attrs["offset"]))
        if node.op == "slice":
            cut = slice(node.attrs["start"], node.attrs["stop"], node.attrs["step"])
            axis = node.attrs["axis"] % len(node.shape)
            return self._call(operator.getitem, inputs[0], (*[slice(None)] * axis, cut))
        if node.op == "concat":
            return self._call(torch.cat, inputs, node.attrs["axis"])
        if node.op == "add":
            return self._call(operator.add, *inputs)
        if node.op == "zero_pad":
            flat = [n for pair in reversed(node.attrs["padding"]) for n in pair]
            return self._call(F.pad, inputs[0], flat)
        if (drawing := random_module(node)) is not None:
            return self._module(node, drawing, inputs[0])
        module = make_module(node, self.new, self.like)
        tie(module, node, self._known)
        held = {(node.arrays[role], layout_of(node, role)): role for role in node.arrays}
        for at, role in held.items():
            self._known.setdefault(at, getattr(module, NAMES[role]))
        return self._module(node, module, inputs[0])

    def _call(self, function: Any, *args: Any) -> fx.Node:
        return self._building.call_function(function, args)

    def _affine(self, node: Node, value: fx.Node) -> fx.Node:
        if self._holds_for_one_size(node):
            offset = tensor_like(self.new.tensors[node.arrays["offset"]], self.like)
            source = self.new.nodes[self.new.nodes[node.added_for].inputs[0]]
            shape = [int(size or 0) for size in source.shape[1:]]
            return self._module(node, FixedOffset(offset, shape), value, self._value(source.name))
        for role, function in (("scale", operator.mul), ("offset", operator.add)):
            if role in node.arrays:
                name = self._free(f"{node.name}_{role}")
                array = tensor_like(self.new.tensors[node.arrays[role]], self.like)
                self.twin.register_buffer(name, array)
                value = self._call(function, value, self._building.get_attr(name))
        return value

    def _holds_for_one_size(self, node: Node) -> bool:
        """Return whether an offset was computed for each position behind a linear layer."""
        owner = self.new.nodes.get(node.added_for)
        if owner is None or owner.kind != "linear" or set(node.arrays) != {"offset"}:
            return False
        return self.new.tensors[node.arrays["offset"]].shape == node.shape[1:]

    def _module(self, node: Node, module: nn.Module, *values: fx.Node) -> fx.Node:
        name = self._free(node.name)
        self.twin.add_module(name, module)
        if node.op == "batch_norm":
            self.paths[node.name] = name
        return self._building.call_module(name, values)

    def _free(self, wanted: str) -> str:
        base = name = "".join(c if c.isalnum() else "_" for c in wanted)
        if not name.isidentifier():
            base = name = f"layer_{name}"
        number = 1
        while hasattr(self.twin, name):
            name, number = f"{base}_{number}", number + 1
        return name

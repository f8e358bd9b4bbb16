"""What the reader makes of torch.nn's transformer encoder, whose own code can't be traced.

A layer becomes its parts in the order in which its forward runs them (post-norm or norm first).
Called by `modules`.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from .builder import Weight
from .calls.elementwise import FUNCTIONS, combine
from .calls.handler import Handler
from .program import Data, Parts, Unknown, need_data
from .translator import Translator


def attention(
    t: Translator, m: Any, query: Any, key: Any = None, value: Any = None, *rest: Any, **named: Any
) -> Parts:
    """Emit a multi-head attention: known, not evaluated; its weights by their own names."""
    inputs = [d for d in (query, key, value) if isinstance(d, Data)]
    x = need_data(query)
    inputs = list({d.name: d for d in inputs}.values())
    attrs = {"heads": m.num_heads, "projections": True, "batch_first": m.batch_first}
    weights = {name: Weight(p) for name, p in m.named_parameters()}

    def output() -> Data:
        return t.emit("attention", inputs, attrs, weights, shape=x.shape)

    def scores() -> Data:
        memory = inputs[-1].shape
        batch, length = (x.shape[0], 1) if m.batch_first else (x.shape[1], 0)
        shape: tuple[int, ...] = (batch, x.shape[length], memory[length])
        if named.get("average_attn_weights") is False:
            shape = (batch, m.num_heads, *shape[1:])
        return t.unknown("attention_weights", "its second output", inputs, shape, x.dtype)

    return Parts([t.later(output), t.later(scores)])


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _encoder_layer(t: Translator, m: Any, src: Any) -> Data:
    x = need_data(src)
    path = t.path

    def call(name: str, value: Any) -> Data:
        return t.call_module(_child(path, name), [value], {})

    def attend(value: Data) -> Data:
        found = t.call_module(_child(path, "self_attn"), [value, value, value], {})
        return call("dropout1", found.get(0))

    def feed_forward(value: Data) -> Data:
        hidden = call("dropout", _activate(t, m, call("linear1", value), path))
        return call("dropout2", call("linear2", hidden))

    def add(a: Data, b: Data) -> Data:
        with t.inside(path):
            return combine(t, "add", a, b)

    if m.norm_first:
        x = add(x, attend(call("norm1", x)))
        return add(x, feed_forward(call("norm2", x)))
    x = call("norm1", add(x, attend(x)))
    return call("norm2", add(x, feed_forward(x)))


def _activate(t: Translator, m: Any, x: Data, path: str) -> Data:
    if isinstance(m.activation, nn.Module):
        return t.call_module(_child(path, "activation"), [x], {})
    known: dict[Any, str] = {F.relu: "relu", F.gelu: "gelu"}
    name = known.get(m.activation, "")
    if not name:
        raise Unknown("its activation is a function that the reader doesn't know")
    with t.inside(path):
        return FUNCTIONS[name](t, x)


def _encoder(t: Translator, m: Any, src: Any) -> Any:
    path, x = t.path, need_data(src)
    for index in range(len(m.layers)):
        x = t.call_module(_child(path, f"layers.{index}"), [x], {})
    return x if m.norm is None else t.call_module(_child(path, "norm"), [x], {})


TRANSFORMERS: dict[type, Handler] = {
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}

import keyword

import pytest
from torch import nn

from relucate.graph import Graph, Node
from relucate.torch.lowering.emitter import Emitter


@pytest.fixture
def emitter():
    return Emitter(Graph("g", {}, (), (), {}), frozenset({"mine"}))


@pytest.mark.parametrize(
    "name", ["conv", "a/b c", "1", "", "ü", "class", "mine", "graph", "training"]
)
def test_identifiers_are_fresh_and_usable(emitter, name):
    first, second = emitter.identifier(name), emitter.identifier(name)
    assert first != second
    for found in (first, second):
        assert found.isidentifier()
        assert found.isascii()
        assert not keyword.iskeyword(found)
        assert found not in {"mine", "graph", "training"}
        nn.Module().add_module(found, nn.Identity())


def test_a_plain_name_is_kept(emitter):
    assert emitter.identifier("stage1_block1_conv") == "stage1_block1_conv"


def test_one_module_per_layer_and_tensors(emitter):
    first = Node("d", "dense", ("x",), (), "d", 0, {}, {"kernel": "d/kernel"})
    again = Node("d@1", "dense", ("x",), (), "d", 1, {}, {"kernel": "d/kernel"})
    x = emitter.input("x").fx
    calls = [emitter.module(n, nn.Identity, x).target for n in (first, again)]
    assert calls == ["d", "d"]
    drops = [Node(n, "dropout", ("x",), (), "drop") for n in ("drop", "drop@1")]
    assert [emitter.module(n, nn.Identity, x).target for n in drops] == ["drop", "drop_1"]

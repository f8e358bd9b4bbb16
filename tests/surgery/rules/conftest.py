"""Shared by the tests of rules: small models with random weights, and what a rule finds in them."""

import keras
import numpy as np
import pytest

from relucate.graph import Graph, Node
from relucate.keras import read
from relucate.surgery.audit import audit_graph


def build_model(shape, *layers, seed=0):
    """A functional model of layers in a row, or of one function; random weights and statistics."""
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return randomize_model(keras.Model(image, x), seed)


def randomize_model(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 2.0) if "variance" in variable.name else (-1.0, 1.0)
        if variable.name == "gamma":
            low, high = 0.5, 1.5
        variable.assign(random.uniform(low, high, variable.shape).astype("float32"))
    return model


def find_in(model, *codes, **options):
    """The findings of some rules (of all without codes) in a Keras model or a Graph."""
    graph = model if isinstance(model, Graph) else read(model)
    return list(audit_graph(graph, select=codes, **options).findings)


def graph_of(*rows, outputs=None, framework="keras"):
    """A Graph of rows (name, op, inputs, shape, attrs, arrays): the last row is the output.

    Attributes and arrays may be left out; an array's key is `<name>/<role>`.
    """
    nodes, tensors = {}, {}
    for name, op, inputs, shape, *rest in rows:
        attrs, arrays = (*rest, {}, {})[:2]
        keys = {role: f"{name}/{role}" for role in arrays}
        tensors.update({keys[role]: np.asarray(a, np.float32) for role, a in arrays.items()})
        sources = tuple(inputs.split())
        nodes[name] = Node(name, op, sources, (None, *shape), name, 0, attrs, keys)
    first = tuple(n.name for n in nodes.values() if n.op == "input")
    last = outputs or (rows[-1][0],)
    return Graph("g", nodes, first, last, tensors, framework=framework)


def _given(function):
    """A fixture that is the function itself."""
    return pytest.fixture(scope="session")(lambda: function)


build, randomize, find, make_graph = map(_given, (build_model, randomize_model, find_in, graph_of))

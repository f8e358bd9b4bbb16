"""A network as plain data, and its meaning in NumPy."""

from .evaluate import evaluate
from .nodes import ACTIVATIONS, Graph, Node, Penalty

__all__ = ["ACTIVATIONS", "Graph", "Node", "Penalty", "evaluate"]

"""A network as plain data, and its meaning in NumPy."""

from .evaluate import evaluate
from .nodes import Graph, Node, Penalty
from .ops import OPERATIONS, Operation, select

__all__ = ["OPERATIONS", "Graph", "Node", "Operation", "Penalty", "evaluate", "select"]

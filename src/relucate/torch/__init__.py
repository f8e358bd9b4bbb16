"""Everything that imports PyTorch: lowering a Graph to a module, and the torch training engine."""

from .lower import Lowered, lower
from .modules import BatchNorm
from .statistics import reestimate
from .trainer import train

__all__ = ["BatchNorm", "Lowered", "lower", "reestimate", "train"]

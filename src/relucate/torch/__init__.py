"""Everything that imports PyTorch: lowering a Graph to a module, and the torch training engine."""

from .blocks import ConvBlock, DenseBlock
from .lower import Lowered, lower
from .modules import BatchNorm
from .statistics import reestimate
from .stealing import batch_norm
from .trainer import train

__all__ = [
    "BatchNorm",
    "ConvBlock",
    "DenseBlock",
    "Lowered",
    "batch_norm",
    "lower",
    "reestimate",
    "train",
]

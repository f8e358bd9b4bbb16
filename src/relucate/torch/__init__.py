"""Everything that imports PyTorch: reading modules, lowering a Graph to one, blocks, training."""

from .blocks import ConvBlock, DenseBlock
from .lower import Lowered, lower
from .modules import BatchNorm
from .reader import Reading, read, read_with_modules
from .statistics import reestimate
from .stealing import batch_norm
from .trainer import train

__all__ = [
    "BatchNorm",
    "ConvBlock",
    "DenseBlock",
    "Lowered",
    "Reading",
    "batch_norm",
    "lower",
    "read",
    "read_with_modules",
    "reestimate",
    "train",
]

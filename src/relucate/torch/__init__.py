"""Everything that imports PyTorch: reading modules, lowering a Graph to one, blocks, training."""

from .blocks import ConvBlock, DenseBlock
from .initial import lsuv, orthonormal
from .lasagne import batch_norm
from .lowering.lower import Lowered, lower
from .modules import BatchNorm
from .reading.reader import Reading, read, read_with_modules
from .statistics import reestimate
from .trainer import train

__all__ = [
    "BatchNorm",
    "ConvBlock",
    "DenseBlock",
    "Lowered",
    "Reading",
    "batch_norm",
    "lower",
    "lsuv",
    "orthonormal",
    "read",
    "read_with_modules",
    "reestimate",
    "train",
]

"""Everything that imports Keras: blocks, reading a model into a Graph, the keras training engine.

Importing this package chooses the backend but doesn't import Keras yet: the first use does.
"""

from typing import TYPE_CHECKING

from ..backend import use_backend_if_any as _use_backend_if_any
from ..lazy import imported_on_use as _imported_on_use

if TYPE_CHECKING:
    from .blocks import conv2d_bn, dense_bn
    from .inception_v3 import InceptionV3
    from .initial import lsuv, orthonormal
    from .lasagne import batch_norm
    from .reading.reader import read

__all__ = ["InceptionV3", "batch_norm", "conv2d_bn", "dense_bn", "lsuv", "orthonormal", "read"]

_HOMES = {
    "InceptionV3": "inception_v3",
    "batch_norm": "lasagne",
    "conv2d_bn": "blocks",
    "dense_bn": "blocks",
    "lsuv": "initial",
    "orthonormal": "initial",
    "read": "reading.reader",
}

_use_backend_if_any()
__getattr__ = _imported_on_use(__name__, _HOMES)

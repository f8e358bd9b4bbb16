"""Everything that imports Keras: blocks, reading a model into a Graph, the keras training engine."""

from ..backend import use_backend as _use_backend

_use_backend()

from .blocks import conv2d_bn, dense_bn  # noqa: E402  (the backend has to be chosen before)
from .read import read  # noqa: E402

__all__ = ["conv2d_bn", "dense_bn", "read"]

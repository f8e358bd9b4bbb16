"""A pretended GPU: tensors that say they are on one, compute on the CPU, and mix with nothing.

An operation on tensors of the CPU and of the GPU is an error, as is a tensor of the GPU as an
array: where code forgets the device, it fails here as it would there. What this can't show is what
only CUDA has: streams, graphs, its kernels and their rounding.
"""

import types

import torch
import torch.utils.backend_registration as registration
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_MOVES = (aten._to_copy.default, aten.copy_.default)


def registered():
    """Make PyTorch know the device "gpu", in this process, and return it."""
    if torch._C._get_privateuse1_backend_name() != "gpu":
        module = types.ModuleType("torch.gpu")
        module.is_available = lambda: True
        module.is_initialized = lambda: True
        module.device_count = lambda: 1
        module.current_device = lambda: 0
        module._is_in_bad_fork = lambda: False
        module.manual_seed_all = lambda seed: None
        module.get_amp_supported_dtype = lambda: [torch.bfloat16]
        registration._setup_privateuseone_for_python_backend("gpu", backend_module=module)
    return torch.device("gpu", 0)


class OnGpu(Tensor):
    """A tensor on the pretended GPU; `held` has its values."""

    @staticmethod
    def __new__(cls, held):
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=registered(),
        )

    def __init__(self, held):
        self.held = held

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        Tensor.data.__set__(self, value)
        self.held = value.held

    def __repr__(self):
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Gpu().__torch_dispatch__(func, types, args, kwargs)


class Gpu(TorchDispatchMode):
    """While it is entered, tensors can be made on the pretended GPU and moved there and back.

    waits: what the host waited for, one entry for each operation: values, copies to the CPU.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat = pytree.tree_leaves((args, kwargs))
        ours = [x for x in flat if isinstance(x, OnGpu)]
        strangers = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, OnGpu)]
        if ours and func not in _MOVES and any(x.ndim for x in strangers):
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, but found at least two, "
                "gpu and cpu"
            )
        target = self._target(func, args, kwargs, ours)
        if ours and (target != "gpu" or func is aten._local_scalar_dense.default):
            self.waits.append(str(func))
        if kwargs.get("device") is not None and target == "gpu":
            kwargs = {**kwargs, "device": torch.device("cpu")}
        wrapped = {id(x.held): x for x in ours}
        args, kwargs = pytree.tree_map_only(OnGpu, lambda x: x.held, (args, kwargs))
        found = func(*args, **kwargs)
        if target != "gpu":
            return found
        return pytree.tree_map_only(Tensor, lambda x: self._wrap(x, wrapped), found)

    def _target(self, func, args, kwargs, ours):
        """Return the kind of the device that an operation's outputs are on."""
        if kwargs.get("device") is not None:
            return torch.device(kwargs["device"]).type
        if func is aten.copy_.default:
            return args[0].device.type
        return "gpu" if ours else "cpu"

    @staticmethod
    def _wrap(x, wrapped):
        return wrapped[id(x)] if id(x) in wrapped else OnGpu(x)

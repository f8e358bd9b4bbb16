"""What a training step does to many small tensors, done to all of them at once.

A GPU takes longer to start such an operation than to do it, and a network in a study is small: one
operation for all norms or all kernels instead of one for each makes a captured step shorter. The
numbers stay the same, bit by bit. Not here: the step (`trainer`), its capture (`capture`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .lowering.lower import Lowered
from .modules import BatchNorm

_CAST = (nn.Linear, nn.modules.conv._ConvNd)  # what autocast casts the parameters of


class Together:
    """The forward pass of a lowered network, and its gradients, with few small operations.

    The moving variances are corrected together, and with `cast` the parameters that autocast would
    cast to bfloat16 one by one are cast together, and so are their gradients to float32.
    """

    def __init__(self, model: Lowered, *, cast: bool) -> None:
        self._model = model
        calls = Counter(node.target for node in model.graph.nodes if node.op == "call_module")
        self._norms = [  # the second call of a norm needs the variance that the first one left
            module
            for name, module in model.named_modules()
            if isinstance(module, BatchNorm) and calls[name] == 1
        ]
        self._parameters = {
            f"{name}.{role}": parameter
            for name, module in model.named_modules()
            if cast and isinstance(module, _CAST)
            for role, parameter in module.named_parameters(recurse=False)
        }
        self._copies: dict[str, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs in training mode."""
        self._copies = self._in_bfloat16()
        with self._corrected():
            return functional_call(self._model, self._copies, (x,))

    def gradients(self) -> None:
        """Bring the gradients of the copies to the parameters, after the backward pass."""
        given = {name: copy.grad for name, copy in self._copies.items() if copy.grad is not None}
        parameters = [self._parameters[name] for name in given]
        found = [torch.empty_like(parameter) for parameter in parameters]
        if found:
            torch._foreach_copy_(found, list(given.values()))
        for parameter, gradient in zip(parameters, found, strict=True):
            old = parameter.grad  # of a penalty
            parameter.grad = gradient if old is None else old.add_(gradient)
        self._copies = {}

    def _in_bfloat16(self) -> dict[str, Tensor]:
        if not self._parameters:
            return {}
        parameters: list[Tensor] = list(self._parameters.values())
        copies = [torch.empty_like(parameter, dtype=torch.bfloat16) for parameter in parameters]
        with torch.no_grad():
            torch._foreach_copy_(copies, parameters)
        for parameter, copy in zip(parameters, copies, strict=True):
            copy.requires_grad_(parameter.requires_grad)
        return dict(zip(self._parameters, copies, strict=True))

    @contextmanager
    def _corrected(self) -> Iterator[None]:
        """Correct the moving variances when all norms were called, not one after another."""
        if not self._norms:
            yield
            return
        variances = [norm.running_var.data for norm in self._norms]
        kept = torch._foreach_mul(variances, [norm.momentum for norm in self._norms])
        surplus: dict[BatchNorm, float] = {}
        for norm in self._norms:
            norm.surplus = surplus
        try:
            yield
        finally:
            for norm in self._norms:
                norm.surplus = None
        for share in sorted(set(surplus.values())):
            alike = [k for k, norm in enumerate(self._norms) if surplus.get(norm) == share]
            torch._foreach_lerp_([variances[k] for k in alike], [kept[k] for k in alike], share)

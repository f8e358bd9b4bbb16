"""Lasagne's `batch_norm(layer)` for PyTorch: a linear module, or one with its activation, normed.

PyTorch's layers have no activation of their own, so it is taken from the `nn.Sequential` that
holds both. Here: which modules are accepted, and the copies. Not here: blocks made from numbers
(`blocks`), whole models (`surgery`). The argument is never changed: the stack owns copies.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from ..errors import InputError, Refused, unknown
from ..order import Order, bias_is_redundant
from .modules import NORMS
from .pieces import ACTIVATIONS, Function, conv_batch_norm, dense_batch_norm, keep_input

_DIMS: dict[type, int] = {
    nn.Conv1d: 1,
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}
_LINEAR = (nn.Linear, *_DIMS)
_ACTS = (
    *dict.fromkeys(ACTIVATIONS.values()),
    *(nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold, Function),
)
_DROPS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    nn.FeatureAlphaDropout,
)
_MIXING = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
_ARGUMENTS = ("eps", "momentum", "affine", "track_running_stats")


def batch_norm(module: nn.Module, order: str | Order = "before", **arguments: Any) -> nn.Sequential:
    """Return a copy of a linear module and its activation with a batch norm in the given place.

        before:  y = act(norm(W x))        after:  y = norm(act(W x + b))

    Args:
        module: nn.Linear, nn.Conv1d to Conv3d, their transposes; or an nn.Sequential of one of
            these, then an activation, a dropout or both, in any order (identities are left out).
        order: an order of linear, norm, act and drop; without norm ("none") the stack has no norm.
            A dropout at the end stays there if the order doesn't mention it.
        arguments: of the batch norm, in PyTorch's convention: eps, momentum, affine,
            track_running_stats.

    Returns: an `nn.Sequential` of PyTorch's own modules, named `linear`, `norm`, `act` and `drop`
        as in `ConvBlock`, in data-flow order: their state-dict keys are the same in every order.
        The copies keep weights, device, dtype and mode. The bias is removed only where the bias
        rule says so: the norm directly follows and subtracts the batch's own mean. The norm has
        in_channels if it comes before the linear module, else out_channels.
    Raises:
        InputError: a wrong order or argument, or an order without a token for one of the modules.
        Refused: recurrent and attention modules, softmax and glu activations, norms, subclasses
            with their own forward, lazy modules, and any other unknown module, by its name.

    The norm of a linear module takes (batch, features) and refuses other ranks when it is called.
    It is untrained, so a trained module's function changes; `relucate.convert` keeps it.
    Source: Lasagne, `lasagne.layers.batch_norm`, which changes its argument and has one order.

    >>> stack = batch_norm(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    >>> [name for name, _ in stack.named_children()], list(stack.state_dict())[:2]
    (['linear', 'norm', 'act'], ['linear.weight', 'norm.weight'])
    """
    for name in arguments:
        if name not in _ARGUMENTS:
            raise unknown("argument of batch_norm", name, ["order", *_ARGUMENTS])
    parts = _parts(module)
    order = _effective(Order(order), parts)
    copies = {token: _copy(part) for token, part in parts.items()}
    linear: Any = copies["linear"]
    if order.has_norm:
        copies["norm"] = _norm(linear, order, arguments)
        if bias_is_redundant(order, "batch"):
            linear.register_parameter("bias", None)
    if "act" in copies:
        _place_activation(copies["act"], linear, order)
    stack = nn.Sequential(OrderedDict((token, copies[token]) for token in order.tokens))
    if order.has_norm:
        copies["norm"].train(linear.training)
    stack.training = module.training
    return stack


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear module, activation and dropout by token, in their given order."""
    if type(module) is nn.Sequential:
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise Refused("batch_norm can't take this Sequential: its hooks would be lost.")
        children = [m for m in module if type(m) is not nn.Identity]
    else:
        children = [module]
    parts: dict[str, nn.Module] = {}
    for child in children:
        token = _token(child)
        if token in parts:
            raise Refused(
                f"batch_norm takes one {token} module, got {type(parts[token]).__name__} and "
                f"{type(child).__name__}: apply it to each part."
            )
        parts[token] = child
    if next(iter(parts), "") != "linear":
        found = ", ".join(type(m).__name__ for m in children) or "nothing"
        raise Refused(
            "batch_norm takes a linear module and then its activation and dropout, "
            f"got {found}: the first must be one of {_names(_LINEAR)}."
        )
    return parts


def _token(module: Any) -> str:
    """Return the token of a module, or raise why it has none."""
    if not isinstance(module, nn.Module):
        raise InputError(f"batch_norm takes a module, got {module!r} ({type(module).__name__}).")
    kind = type(module)
    if parametrize.is_parametrized(module):
        kind = kind.__mro__[1]  # PyTorch makes a class of its own for each such module
        if "bias" in module.parametrizations:  # type: ignore[operator]
            raise Refused(f"batch_norm can't take {kind.__name__}: its bias is parametrized.")
    if kind in _LINEAR:
        return "linear"
    if kind in _ACTS:
        return "act"
    if kind in _DROPS:
        return "drop"
    raise Refused(f"batch_norm can't take {kind.__name__}: {_why_not(module)}.")


def _why_not(module: nn.Module) -> str:
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "its activations work inside the recurrence"
    if isinstance(module, nn.MultiheadAttention):
        return "its activations work inside the attention"
    if isinstance(module, _MIXING):
        return (
            "it mixes the channels or changes their number, so a norm on its other side gives "
            "another network; apply it after the stack"
        )
    if isinstance(module, LazyModuleMixin):
        return "it has no sizes yet; call it once on data"
    if isinstance(module, NORMS):
        return "it is a norm already"
    if isinstance(module, _LINEAR):
        return "a subclass may compute something else; use PyTorch's own class"
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return "it is a container, apply batch_norm to its parts"
    return (
        f"it is none of {_names(_LINEAR)} and no elementwise activation of PyTorch; "
        "relucate.torch.ConvBlock and DenseBlock take any activation"
    )


def _names(kinds: tuple[type, ...]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)


def _effective(order: Order, parts: Mapping[str, nn.Module]) -> Order:
    """Return the order of the parts that the stack will have, or raise which part has no place."""
    if "drop" in parts and not order.has_drop:
        if list(parts)[-1] != "drop":
            raise InputError(
                f"the order '{order}' says nowhere to put {parts['drop']}, which isn't last: "
                "add a drop token."
            )
        order = Order(f"{order}-drop")
    if "act" in parts and not order.has_act:
        raise InputError(
            f"the order '{order}' says nowhere to put {parts['act']}: add an act token."
        )
    if order.has_drop and "drop" not in parts:
        raise InputError(
            f"the order '{order}' has a drop token, but there is no dropout in the module: use "
            f"'{order.without('drop')}' or put an nn.Dropout into the Sequential."
        )
    return order.without("act") if order.has_act and "act" not in parts else order


def _copy(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise Refused(
            f"{type(module).__name__} can't be copied ({error}): old weight_norm and spectral_norm "
            "keep a computed weight; use those of torch.nn.utils.parametrizations."
        ) from error


def _norm(linear: Any, order: Order, arguments: Mapping[str, Any]) -> nn.Module:
    first = order.tokens.index("norm") < order.tokens.index("linear")
    place = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    if isinstance(linear, nn.Linear):
        features = linear.in_features if first else linear.out_features
        return dense_batch_norm(features, **place, **arguments)
    channels = linear.in_channels if first else linear.out_channels
    dims = next(dims for conv, dims in _DIMS.items() if isinstance(linear, conv))
    return conv_batch_norm(dims, channels, **place, **arguments)


def _place_activation(act: nn.Module, linear: Any, order: Order) -> None:
    """Check an activation at its new place: not in place on the caller's tensor, same channels."""
    at = order.tokens.index("act")
    keep_input(act, order.tokens)
    if at < order.tokens.index("linear") and any(p.numel() > 1 for p in act.parameters()):
        raise Refused(
            f"{act} has a weight for each of the linear module's outputs, but in the order "
            f"'{order}' it would get its inputs."
        )

"""Run PyTorch modules on arrays: outputs at inference, and what chosen submodules read."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError, Refused, briefly
from .archive import checked
from .reading.detached import unwrap
from .reading.exported import silent
from .reading.nested import plain
from .reading.reader import example_of, is_shape
from .state import untouched

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.convolution, _ATEN.addmm, _ATEN.mm, _ATEN.bmm, _ATEN.baddbmm}


def outputs(model: nn.Module, inputs: Sequence[np.ndarray], example: Any) -> list[np.ndarray]:
    """Return a module's outputs in eval mode, flat, for one array per input; it stays as it is."""
    with evaluating(model):
        found = _call(model, inputs, example)
        # Copies: an output may be a view of a buffer, which gets its old values back.
        arrays = [
            as_array(x).copy() for x in pytree.tree_leaves(plain(found)) if isinstance(x, Tensor)
        ]
    if not arrays:
        raise Refused(f"the model's output ({type(found).__name__}) has no tensors to be seen.")
    return arrays


def takes_tokens(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Return whether a module fails on floats of this shape and takes integers."""
    if len(input_shape) != 1:
        return False
    batch = torch.zeros((2, *input_shape), device=device_of(model))
    return not _runs(model, batch) and _runs(model, batch.long())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model: of its first parameter or buffer; the CPU if it has none."""
    held = (*model.parameters(), *model.buffers())
    return next((x.device for x in held), torch.device("cpu"))


def _runs(model: nn.Module, batch: Tensor) -> bool:
    try:
        with evaluating(model):
            model(batch)
    except Exception:  # whatever the user's forward raises
        return False
    return True


def not_given(model: nn.Module, example: Any) -> list[str]:
    """Return the arguments with defaults that a module's forward has and its example doesn't."""
    parameters = inspect.signature(unwrap(model).forward).parameters
    args, kwargs = example_of(model, example)
    rest = list(parameters.values())[len(args) :]
    return [
        p.name for p in rest if p.name not in kwargs and p.default is not inspect.Parameter.empty
    ]


def output_class(model: nn.Module, example: Any) -> type:
    """Return the class of what a module gives for its example, in eval mode."""
    with evaluating(model):
        args, kwargs = example_of(model, example)
        return type(model(*args, **kwargs))


def output_names(model: nn.Module, example: Any) -> tuple[str, ...]:
    """Return the keys and places of a module's outputs; () where a call on the example fails."""
    try:
        with evaluating(model):
            args, kwargs = example_of(model, example)
            found = pytree.tree_leaves_with_path(plain(model(*args, **kwargs)))
    except Exception:  # whatever the user's forward raises
        return ()
    return tuple(".".join(map(_key, path)) for path, x in found if isinstance(x, Tensor))


def _key(entry: Any) -> str:
    return str(entry.idx if isinstance(entry, pytree.SequenceKey) else entry.key)


def check_it_runs(made: nn.Module, source: nn.Module, example: Any) -> None:
    """Check that what was written takes the example, as far as the source does.

    Raises: Refused: it doesn't, with the reason.
    """
    try:
        output_class(made, example)
    except Exception as error:
        try:
            output_class(source, example)
        except Exception:
            return
        raise Refused(
            f"the result isn't returned: it can't be run on the example: {briefly(error)} "
            "Please report this model."
        ) from error


def in_double(
    model: nn.Module,
    inputs: Sequence[np.ndarray],
    example: Any,
    each: Callable[[str, np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """Return the outputs of a float64 copy of a module in eval mode.

    Args: each: gets the path and the output of every submodule that returns a tensor, and returns
        what is read behind it.
    """
    copied = copy.deepcopy(model).cpu().double()
    for path, module in copied.named_modules():

        def exchange(module: nn.Module, args: Any, found: Any, path: str = path) -> Any:
            if not isinstance(found, Tensor) or not found.is_floating_point():
                return None
            value = as_array(found).copy()  # what comes behind may change the tensor in place
            given = each(path, value)
            return None if given is value else torch.from_numpy(given.copy())

        module.register_forward_hook(exchange)
    return outputs(copied, inputs, example)


def computed_in(model: nn.Module, example: Any) -> set[torch.dtype]:
    """Return the types that a module's linear layers compute in, for its example in eval mode."""
    kinds = _Kinds()
    try:
        with evaluating(model), kinds:
            args, kwargs = example_of(model, example)
            model(*args, **kwargs)
    except Exception:  # a compiled forward, a library of one's own: the weights' types have to do
        return set()
    return kinds.found


class _Kinds(TorchDispatchMode):
    """Notes the types that products with weights come in: autocast changes them on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket in _PRODUCTS and isinstance(made, Tensor):
            self.found |= {made.dtype} if made.is_floating_point() else set()
        return made


def other_batches(inputs: Sequence[np.ndarray], example: Any) -> list[list[np.ndarray]]:
    """Return a batch of one, and one as large as the example's: a forward may ask for its size."""
    leaves = pytree.tree_leaves(example)
    given = {len(x) for x in leaves if isinstance(x, (Tensor, np.ndarray)) and x.ndim}
    given |= {example[0]} if is_shape(example) else set()
    full = len(inputs[0])
    sizes = sorted({1, *given} & set(range(1, full)))
    return [[x[:size] for x in inputs] for size in sizes]


def other_sizes(inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Return two examples of each input in other sizes: what a model may take, too.

    A module's forward knows no sizes, and may do something else for each. Smaller and larger
    images; for sequences (n, length, ...) and tokens (n, length) other lengths.
    """
    ranks = {x.ndim for x in inputs}
    axes = [range(2, max(ranks))] + ([range(1, 2)] if max(ranks) <= 3 else [])
    sizes = (lambda n: n // 2, lambda n: n + min(n, 32))
    resized = [
        [_resized(x[:2], [axis for axis in wanted if axis < x.ndim], size) for x in inputs]
        for wanted in axes
        for size in sizes
    ]
    shapes = [x[:2].shape for x in inputs]
    return [xs for xs in resized if [x.shape for x in xs] != shapes and all(x.size for x in xs)]


def _resized(x: np.ndarray, axes: Sequence[int], size: Callable[[int], int]) -> np.ndarray:
    for axis in axes:
        old = x.shape[axis]
        x = np.take(x, np.arange(size(old)) % old, axis=axis)
    return x


def tapped(
    model: nn.Module, paths: Mapping[str, str], inputs: Sequence[np.ndarray], example: Any
) -> dict[str, np.ndarray]:
    """Return what the submodules at `paths` read, by key; a reused one's calls are joined."""
    seen: dict[str, list[np.ndarray]] = {key: [] for key in paths}
    handles = []
    for key, path in paths.items():

        def note(module: nn.Module, args: Any, key: str = key) -> None:
            seen[key].append(as_array(args[0]))

        handles.append(model.get_submodule(path).register_forward_pre_hook(note))
    try:
        outputs(model, inputs, example)
    finally:
        for handle in handles:
            handle.remove()
    return {key: np.concatenate(values) for key, values in seen.items()}


def export(model: nn.Module, path: Path, example: Any) -> None:
    """Save a module as a .pt2 file (torch.export), for inference, with any batch size.

    Raises: Refused: torch.export can't express it.
    """
    # A batch of one would be kept as the only size that the file takes.
    tensors = [x.expand(2, *x.shape[1:]) if len(x) == 1 else x for x in _examples(model, example)]
    with evaluating(model):
        try:
            shapes = [{0: torch.export.Dim.AUTO} for _ in tensors]
            program = torch.export.export(model, tuple(tensors), dynamic_shapes=tuple(shapes))
        except Exception:
            try:
                program = torch.export.export(model, tuple(tensors))
            except Exception as error:
                raise Refused(f"torch.export can't save the module: {error}") from error
    torch.export.save(program, str(path))


def load_exported(path: Path) -> tuple[nn.Module, Any]:
    """Return the module in a .pt2 file of torch.export, and the example that it was saved with.

    Raises: InputError: no such file, not one of torch.export's, or one that could run code.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'.")
    archive = checked(path)
    try:
        with silent():
            program = torch.export.load(archive)
        module = program.module()
    except Exception as error:
        raise InputError(
            f"'{path}' can't be read by torch.export.load: {str(error).strip() or type(error)}"
        ) from error
    args, kwargs = program.example_inputs or ((), {})
    return module, dict(kwargs) or (args[0] if len(args) == 1 else args or None)


def _examples(model: nn.Module, example: Any) -> list[Tensor]:
    args, kwargs = example_of(model, example)
    return [*args, *kwargs.values()]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a module in eval mode, without gradients; it stays as it is."""
    with untouched(model), torch.no_grad():
        for module in model.modules():
            module.training = False  # not eval(), which modules of torch.export don't have
        yield


def _call(model: nn.Module, inputs: Sequence[np.ndarray], example: Any) -> Any:
    args, kwargs = given_as_example(model, inputs, example)
    return model(*args, **kwargs)


def given_as_example(model: nn.Module, inputs: Sequence[np.ndarray], example: Any) -> Any:
    """Return the arguments of a call with arrays in place of the example's tensors, however nested.

    A pair: the positional and the named arguments.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if example is None:
        return [_tensor(x, like, None) for x in inputs], {}
    leaves, spec = pytree.tree_flatten(example_of(model, example))
    arrays = iter(inputs)
    filled = [_tensor(next(arrays), like, x) if isinstance(x, Tensor) else x for x in leaves]
    return pytree.tree_unflatten(filled, spec)


def _tensor(array: np.ndarray, like: Tensor | None, example: Tensor | None) -> Tensor:
    """Return an array as a tensor of the example's kind, in the type of the model's weights."""
    made = torch.from_numpy(np.ascontiguousarray(array))
    device = made.device if like is None else like.device
    if example is not None and not example.is_floating_point():
        return _as_kind(made, example).to(device)
    if array.dtype.kind in "iub":
        return made.long().to(device)
    return made.float() if like is None else made.to(device, like.dtype)


def _as_kind(made: Tensor, example: Tensor) -> Tensor:
    """Return numbers as bools, complex numbers, or integers in the example's range."""
    if not made.is_floating_point():
        return made.to(example.dtype)
    if example.dtype == torch.bool:
        return _as_mask(made, example)
    if example.is_complex():
        return torch.complex(made, made.roll(1)).to(example.dtype)
    low, high = int(example.min()), int(example.max())
    return (low + (made.abs() * 1000).long() % (high - low + 1)).to(example.dtype)


def _as_mask(made: Tensor, example: Tensor) -> Tensor:
    """Return the example's own rows: of an attention mask of random ones, some hide everything."""
    if made.shape[1:] == example.shape[1:]:
        return example[torch.arange(len(made)) % len(example)]
    low, high = bool(example.all()), bool(example.any())
    return (made > 0) | low if high else torch.zeros_like(made, dtype=torch.bool)


def as_array(value: Tensor) -> np.ndarray:
    """Return a tensor as an array, half precision as float32; it may share the memory."""
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return value.numpy()

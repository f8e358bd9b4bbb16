"""Look into a .pt2 archive before PyTorch loads it: one that would run code is refused.

`torch.export.load` unpickles weights, constants and sample inputs that are marked so, evaluates
sizes and guards as Python, writes the names of inputs into generated code, finds the function of a
node by its dotted name, and imports the modules that a tree of inputs names. All of that is chosen
by the author of the file. An archive that passes is copied into a new one without guards (they only
check inputs), and only the copy is loaded, so both readers get the same bytes. Called by
`running`.
"""

from __future__ import annotations

import ast
import io
import json
import operator
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError

_MOST = 64 * 2**30  # bytes unpacked: a model, not a bomb
_SYMBOL = re.compile(r"[a-z]{1,4}\d+\Z")  # s0, u3, zuf1: how torch.export names sizes
_NAME = re.compile(r"[\w.]*\Z")
_FUNCTIONS = frozenset(
    "Symbol Integer Float Rational Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt "
    "FloorToInt TruncToInt TruncToFloat RoundToInt RoundDecimal IntTrueDiv FloatTrueDiv ToFloat "
    "IsNonOverlappingAndDenseIndicator ModularIndexing Where PowByNatural FloatPow Identity "
    "Piecewise And Or Not Eq Ne Lt Le Gt Ge Add Mul Pow Abs sqrt floor ceiling oo int_oo".split()
)
_OPERATORS = frozenset(name for name in operator.__all__ if not name.endswith(("getter", "caller")))
_EXPRESSION = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.Load,
    ast.keyword,
    ast.Tuple,
)


class _Unsafe(Exception):
    """Why an archive isn't loaded."""


def checked(path: Path) -> io.BytesIO:
    """Return a checked copy of the archive at `path`.

    Raises: InputError: it isn't a zip archive, is damaged, or could run code when it is loaded.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"'{path}' is no .pt2 archive: expected a file of torch.export.save.")
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as clean:
            _check_names(archive)
            for info in archive.infolist():
                content = archive.read(info)
                clean.writestr(info.filename, _checked(info.filename, content))
    except _Unsafe as why:
        raise InputError(
            f"'{path}' isn't loaded: {why}. Loading it could run code from the file. Export the "
            "model again with torch.export.save, or give the function that builds the model "
            "(file.py:build)."
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' can't be read: {error}") from error
    copy.seek(0)
    return copy


def _check_names(archive: zipfile.ZipFile) -> None:
    names = [info.filename.casefold() for info in archive.infolist()]
    if len(set(names)) < len(names):
        raise _Unsafe("it holds two files of the same name")
    if sum(info.file_size for info in archive.infolist()) > _MOST:
        raise _Unsafe(f"it unpacks to more than {_MOST // 2**30} GiB")


def _checked(name: str, content: bytes) -> bytes:
    """Return one file of the archive, without guards.

    Raises: _Unsafe: what makes it unsafe. ValueError: JSON that can't be read.
    """
    parts = name.split("/")
    if "aotinductor" in parts:
        raise _Unsafe("it holds compiled code")
    if parts[-1].startswith(("custom_obj", "opaque_obj")):
        raise _Unsafe(f"'{name}' is a pickled object")
    if name.endswith(".json"):
        try:
            plain = json.loads(content)
            _check_plain(plain)
        except RecursionError:
            raise _Unsafe(f"'{name}' is nested too deeply") from None
        if isinstance(plain, dict) and plain.get("guards_code"):
            return json.dumps({**plain, "guards_code": []}).encode()
    elif name.endswith((".pt", ".pkl")) and content:
        _check_tensors(name, content)
    return content


def _check_tensors(name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # the restricted unpickler raises many kinds
        raise _Unsafe(f"'{name}' holds pickled objects besides tensors") from None


def _check_plain(value: Any) -> None:
    """Check the contents of a JSON file, also of texts that are JSON (trees of inputs)."""
    for key, found in _items(value):
        if key == "use_pickle" and found:
            raise _Unsafe("a weight or constant is marked as pickled")
        if key in {"__enum__", "default_factory_module"}:
            raise _Unsafe("its inputs name a Python module to import")
        if key == "path_name" and str(found).startswith(("custom_obj", "opaque_obj")):
            raise _Unsafe(f"the constant '{found}' is a pickled object")
        if key == "expr_str" and isinstance(found, str):
            _check_expression(found)
        if key in {"target", "as_operator"} and isinstance(found, str):
            _check_target(found)
        if key in {"name", "forward_arg_names", "in_spec", "out_spec"}:
            _check_named(found)
        if isinstance(found, str) and found[:1] in {"[", "{"}:
            try:
                inner = json.loads(found)
            except ValueError:
                continue
            _check_plain(inner)
            if key in {"in_spec", "out_spec", "context"}:  # names of keyword arguments
                _check_texts(inner)


def _check_texts(value: Any) -> None:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, (dict, list)):
            _check_texts(item)
        else:
            _check_named(item)


def _check_named(value: Any) -> None:
    """Check names that become part of generated code."""
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str) and not _NAME.fullmatch(text) and text[:1] not in {"[", "{"}:
            raise _Unsafe(f"the name {text[:60]!r} isn't a Python name")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, and every item of a list under an empty key."""
    pairs = value.items() if isinstance(value, dict) else (("", item) for item in value)
    for key, found in pairs if isinstance(value, (dict, list)) else ():
        yield key, found
        if isinstance(found, (dict, list)):
            yield from _items(found)


def _check_expression(text: str) -> None:
    """Check that a size is arithmetic on named sizes: SymPy evaluates it as Python."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        raise _Unsafe(f"the size {text[:60]!r} isn't arithmetic") from None
    named = {id(name) for node in ast.walk(tree) if (name := _name_of_symbol(node))}
    for node in ast.walk(tree):
        fine = (
            isinstance(node, _EXPRESSION)
            or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
            or (isinstance(node, ast.Name) and (node.id in _FUNCTIONS or _SYMBOL.match(node.id)))
            or (isinstance(node, ast.Constant) and isinstance(node.value, (int, float)))
            or id(node) in named
        )
        if not fine:
            raise _Unsafe(f"the size {text[:60]!r} isn't arithmetic")


def _name_of_symbol(node: ast.AST) -> ast.expr | None:
    """Return the text of Symbol('s0', ...), if it is a name and nothing else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
        return None
    first = node.args[0]
    text = first.value if isinstance(first, ast.Constant) else None
    named = node.func.id == "Symbol" and isinstance(text, str) and text.isidentifier()
    return first if named else None


def _check_target(text: str) -> None:
    """Check that a node calls an operator of PyTorch or arithmetic."""
    parts = text.split(".")
    plain = all(part.isidentifier() and not part.startswith("__") for part in parts)
    operators = parts[:2] == ["torch", "ops"] and len(parts) >= 4
    sizes = parts[0] == "torch" and len(parts) == 2 and parts[1].startswith(("sym_", "_sym_"))
    arithmetic = parts[0] == "_operator" and parts[1:] and parts[1] in _OPERATORS
    fine = operators or sizes or (len(parts) == 2 and (arithmetic or parts[0] == "math"))
    if parts[0].startswith(("_operator", "torch", "math", "#")) and not (plain and fine):
        raise _Unsafe(f"a node calls '{text[:60]}', which is no operator of PyTorch")

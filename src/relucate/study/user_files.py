"""Which modules and files are the user's own, and what a file imports and gives a value.

Files are read, not imported. Not here: what functions and values are (`identity`). Called by
`identity` and `source`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import itertools
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

# Methods of lists, dicts and sets that change them.
CHANGING = frozenset("add append clear extend insert pop popitem setdefault update".split())


@functools.cache
def is_own(module: Any) -> bool:
    """Return whether a module is the user's: not an installed package or the standard library."""
    if module is None or module == "__main__":
        return True
    if not isinstance(module, str):  # of a class in C that describes its instances' module
        return False
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module not in sys.builtin_module_names
    return _is_own_file(Path(file))


@functools.lru_cache(maxsize=10_000)
def _is_own_file(path: Path) -> bool:
    path = path.resolve()
    standard = {Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")}
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    ours = Path(__file__).parents[1]
    return not installed and standard.union({ours}).isdisjoint(path.parents)


def module_files(
    names: Iterable[str], known: dict[str, Any] | None = None
) -> tuple[dict[str, str], set[str]]:
    """Return the sha256 of modules' files and of all files of the user's that they import.

    The files are read, not imported: the result doesn't depend on what has been imported already.

    Args: known: what earlier calls have found, by module; this one adds to it.
    Returns: sha256 by path, without modules that aren't the user's; the other packages that they
        import.
    """
    files: dict[str, str] = {}
    known = {} if known is None else known
    others, waiting, seen = set(), list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for each in (name, name.partition(".")[0]):
            if each not in known:
                known[each] = _read(each)
        if known[name] is None:
            top = name.partition(".")[0]
            others |= set() if known[top] else {top}
        else:
            path, digest, imported = known[name]
            files[path] = digest
            waiting += imported
    return files, others


def _read(name: str) -> tuple[str, str, list[str]] | None:
    """Return path, sha256 and imports of a module of the user's, None for any other."""
    path = _own_file(name)
    if path is None:
        return None
    content = path.read_bytes()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    around = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
    needed = dict.fromkeys([*around, *imports(content, package)])
    return str(path), hashlib.sha256(content).hexdigest(), list(needed)


def _own_file(name: str) -> Path | None:
    """Return the file of a module of the user's, None for any other module."""
    if name.partition(".")[0] in {*sys.stdlib_module_names, __name__.partition(".")[0]}:
        return None
    spec = find_spec(name)
    origin = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
    path = Path(origin) if origin else None  # it may be a compiled module
    return path if path and path.is_file() and _is_own_file(path) else None


def constants(module: str) -> Iterator[str]:
    """Yield the names in a module of the user's and its classes that its file gives a value.

    Such as LR = 0.1, SIZES = [8, 16], CONFIG = Config(depth=2), but not DEVICE = find_device().
    """
    path = _own_file(module)
    try:
        body = ast.parse(path.read_bytes()).body if path else []
    except (SyntaxError, ValueError):
        return
    waiting, computed = [("", body)], set(_computed(body))
    while waiting:
        owner, body = waiting.pop()
        for node in body:
            if isinstance(node, ast.ClassDef):
                waiting.append((f"{owner}{node.name}.", node.body))
            elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_constant(node):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [
                    n.id for target in targets for n in ast.walk(target) if type(n) is ast.Name
                ]
                yield from (f"{owner}{name}" for name in names if owner or name not in computed)


def _computed(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that a module's import gives a value that isn't written out, as in an `if`.

    A worker process may find another one: of another machine, folder or environment.
    """
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    waiting: list[ast.AST] = [node for node in body if not _is_constant(node)]
    while waiting:
        node = waiting.pop()
        stored = isinstance(getattr(node, "ctx", None), ast.Store)
        if isinstance(node, ast.Name) and stored:
            yield node.id
        elif isinstance(node, ast.Attribute | ast.Subscript) and (
            stored or getattr(node, "attr", "") in CHANGING
        ):
            yield from (n.id for n in ast.walk(node.value) if isinstance(n, ast.Name))
        if not isinstance(node, inner):
            waiting += ast.iter_child_nodes(node)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign) and _is_written_out(node.value)


def _is_written_out(value: ast.expr | None) -> bool:
    """Return whether an expression consists of literals, but for a class or function called."""
    parts: list[ast.expr] = [value] if value is not None else []
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        parts = [*value.args, *(keyword.value for keyword in value.keywords)]
    with suppress(ValueError):
        return bool(parts) and all(ast.literal_eval(part) is not ast for part in parts)
    return False


@functools.lru_cache(maxsize=1000)
def imports(content: bytes, package: str) -> tuple[str, ...]:
    """Return the absolute names of what a file of a package imports, at any depth."""
    return tuple(_imports(content, package))


def _imports(content: bytes, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # it is compiled, or fails when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            text = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(text, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def find_spec(name: str) -> Any:
    """Like importlib.util.find_spec, but without imports and without a look into `sys.modules`."""
    parts, path, spec = name.split("."), None, None
    for end in range(1, len(parts) + 1):
        spec = _spec_in(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and end < len(parts):
            return None
    return spec


def _spec_in(name: str, path: Any) -> Any:
    """Return the spec of a module in the folders `path` of the package around it."""
    try:
        places = (finder.find_spec(name, path) for finder in sys.meta_path)
        return next((found for found in places if found is not None), None)
    except KeyError:  # a folder without __init__.py, in another one that isn't imported
        folders = [Path(folder, name.rpartition(".")[2]) for folder in path]
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return spec

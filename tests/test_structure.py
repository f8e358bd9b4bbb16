"""The house: imports go down the page, frameworks stay in their rooms, functions stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "relucate"
FILES = sorted(SOURCE.rglob("*.py"))
# From the roof to the cellar; a file imports from its own room or from lower ones.
ROOMS = "cli api report study nets keras torch data train surgery stats graph".split()
CELLAR = {"order", "affine", "errors", "backend", "lazy", "phrases"}


def room(parts):
    name = parts[0].removesuffix(".py") if parts else "api"
    return {"__init__": "api", "__main__": "cli"}.get(name, name)


def rank(name):
    return len(ROOMS) if name in CELLAR else ROOMS.index(name)


def imported_modules(path):
    """Absolute names of everything that a file imports, at any depth of the code."""
    package = ["relucate", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            yield ".".join(full)
            yield from (".".join([*full, alias.name]) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path):
    own = room(path.relative_to(SOURCE).parts)
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "relucate" or len(parts) < 2:
            continue
        other = parts[1]
        if other in ROOMS or other in CELLAR:
            assert rank(own) <= rank(other), f"{path.name} ({own}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_frameworks_stay_in_their_rooms(path):
    own = room(path.relative_to(SOURCE).parts)
    rooms = {"keras": {"keras", "nets", "study"}, "torch": {"torch", "keras", "study"}}
    for name in imported_modules(path):
        top = name.split(".")[0]
        if top in rooms:
            assert own in rooms[top], f"{path.name} imports {name}"


def code_lines(node):
    doc = ast.get_docstring(node, clean=False)
    text = doc.count("\n") + 1 if doc else 0
    return node.end_lineno - node.lineno + 1 - text


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_and_files_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        command = path.parent.name == "cli" and getattr(node, "name", "") == path.stem
        if isinstance(node, ast.FunctionDef) and not command:  # its signature is its options
            assert code_lines(node) <= 60, node.name


def test_the_import_test_sees_relative_imports():
    files = ("results.py", "plan.py", "driver.py")
    found = {name for file in files for name in imported_modules(SOURCE / "study" / file)}
    assert {"relucate.stats", "relucate.train.recipe", "relucate.study.store"} <= found

"""The house: imports go down the page, frameworks stay in their rooms, functions stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "relucate"
FILES = sorted(SOURCE.rglob("*.py"))
# From the roof to the cellar; a file imports from its own room or from lower ones.
ROOMS = (
    "cli api report study nets records frameworks keras torch data train surgery moments stats "
    "graph"
).split()
CELLAR = set(
    "order affine arguments block errors backend files lazy option phrases version".split()
)
FRAMEWORKS = {"keras", "torch"}
# `frameworks` finds a model's framework; `backend` chooses Keras's, before Keras is imported.
LOOKUPS = {SOURCE / "frameworks.py", SOURCE / "backend.py"}


def room(parts):
    name = parts[0].removesuffix(".py") if parts else "api"
    return {"__init__": "api", "__main__": "cli"}.get(name, name)


def rank(name):
    return len(ROOMS) if name in CELLAR else ROOMS.index(name)


def imports(path):
    """What a file imports, at any depth of the code: (module, name that is taken from it or "")."""
    package = ["relucate", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            yield from ((".".join(full), alias.name) for alias in node.names)


def imported_modules(path):
    """Absolute names of everything that a file imports, at any depth of the code."""
    for module, name in imports(path):
        yield module
        yield f"{module}.{name}"


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
    for name in imported_modules(path):
        top = name.split(".")[0]
        if top in FRAMEWORKS:
            assert own == top, f"{path.name} imports {name}"
        if own in FRAMEWORKS and name.startswith("relucate."):
            other = name.split(".")[1]
            assert other not in FRAMEWORKS - {own}, f"{path.name} ({own}) imports {name}"


def is_framework(node):
    return isinstance(node, ast.Constant) and node.value in FRAMEWORKS


def is_attribute_of_an_operation(node):
    return any(getattr(part, "attr", "") == "attrs" for part in ast.walk(node))


def compares(node):
    sides = [node.left, *node.comparators]
    found = any(is_framework(part) for side in sides for part in ast.walk(side))
    return found and not any(map(is_attribute_of_an_operation, sides))


def looks_up(node):
    return ast.unparse(node.value) == "sys.modules" and is_framework(node.slice)


def calls(node):
    """Whether a call looks a framework up, or asks whether something is of a class of one."""
    called = ast.unparse(node.func)
    if called in {"isinstance", "issubclass"}:
        names = {part.id for part in ast.walk(node.args[-1]) if isinstance(part, ast.Name)}
        return bool(names & FRAMEWORKS)
    return called == "sys.modules.get" and any(map(is_framework, node.args))


BRANCHES = {
    ast.Compare: compares,
    ast.Subscript: looks_up,
    ast.Call: calls,
    ast.MatchValue: lambda node: is_framework(node.value),
}


def framework_branches(tree):
    """What in a file asks which framework something is of."""
    found = (node for node in ast.walk(tree) if type(node) in BRANCHES)
    return [ast.unparse(node) for node in found if BRANCHES[type(node)](node)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_rooms_know_the_frameworks(path):
    if room(path.relative_to(SOURCE).parts) in FRAMEWORKS or path in LOOKUPS:
        return
    assert not framework_branches(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        'framework == "keras"',
        '"torch" != a.framework',
        'name in ("keras", "jax")',
        '"keras" in sys.modules',
        'sys.modules.get("torch")',
        'sys.modules["keras"].Model',
        "isinstance(model, (int, keras.Model))",
        "match name:\n    case 'torch': pass",
    ],
)
def test_a_branch_on_a_framework_is_found(code):
    assert framework_branches(ast.parse(code))


def test_what_is_no_branch_on_a_framework():
    code = 'node.attrs.get("form") == "keras"\nHOST = "torch"\nsys.modules.get(module)'
    assert not framework_branches(ast.parse(code))


def imports_between(files):
    """For each file, the files of the package that it imports."""
    homes = {}
    for path in files:
        parts = path.relative_to(SOURCE).with_suffix("").parts
        homes[".".join(["relucate", *parts]).removesuffix(".__init__")] = path
    return {
        path: {homes.get(f"{module}.{name}", homes.get(module)) for module, name in imports(path)}
        - {None, path}
        for path in files
    }


def circle(edges):
    """Return a circle in a directed graph, or an empty list."""
    done = set()

    def walk(node, way):
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        found = next(filter(None, (walk(to, [*way, node]) for to in sorted(edges[node]))), [])
        done.add(node)
        return found

    return next(filter(None, (walk(node, []) for node in sorted(edges))), [])


def test_no_files_import_each_other_in_a_circle():
    found = circle(imports_between(FILES))
    assert not found, " -> ".join(str(path.relative_to(SOURCE)) for path in found)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


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

"""The notebooks in examples/ run, and print what is stored in them (make notebooks stores it)."""

import ast
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import keras
import pytest
from tests.texts import same_text

FOLDER = Path(__file__).parent.parent / "examples"


def code_cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def stored(cell):
    """What a cell printed and returned when the notebook was executed."""
    texts = (out.get("text") or out["data"]["text/plain"] for out in cell["outputs"])
    return "".join("".join(text) for text in texts)


def run(source, names):
    """Run a cell; return what it prints, and the value of its last line."""
    tree = ast.parse(source)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, "cell", "exec"), names)
        if shown is not None:
            value = eval(compile(ast.Expression(shown.value), "cell", "eval"), names)
            print("" if value is None else repr(value))
    return out.getvalue()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_print_what_is_stored(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session(free_memory=False)  # its names are numbered
    names = {"__name__": "__main__"}
    for cell in code_cells(path):
        printed = run("".join(cell["source"]), names)
        assert same_text(printed) == same_text(stored(cell)), "run: make notebooks"


def test_there_is_a_notebook_for_each_framework():
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == {"keras", "pytorch"}
    for path in FOLDER.glob("*.ipynb"):
        assert any(map(stored, code_cells(path)))
        assert all(cell["execution_count"] for cell in code_cells(path))

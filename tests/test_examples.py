"""The notebooks in examples/ run, and print what is stored in them (make notebooks stores it)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.texts import same_text

FOLDER = Path(__file__).parent.parent / "examples"
RUN = """
import ast, contextlib, io, json, sys

def run(source):
    tree = ast.parse(source)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), globals())
    if shown is not None:
        value = eval(compile(ast.Expression(shown.value), "cell", "eval"), globals())
        print("" if value is None else repr(value))

printed = []
for cell in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run(cell)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def code_cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def stored(cell):
    """What a cell printed and returned when the notebook was executed."""
    texts = (out.get("text") or out["data"]["text/plain"] for out in cell["outputs"])
    return "".join("".join(text) for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_print_what_is_stored(path, tmp_path):
    cells = code_cells(path)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(["".join(cell["source"]) for cell in cells]),
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for cell, printed in zip(cells, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert same_text(printed) == same_text(stored(cell)), "run: make notebooks"


def test_there_is_a_notebook_for_each_framework():
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == {"keras", "pytorch"}
    for path in FOLDER.glob("*.ipynb"):
        assert any(map(stored, code_cells(path)))
        assert all(cell["execution_count"] for cell in code_cells(path))

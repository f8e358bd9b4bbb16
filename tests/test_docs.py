"""Every block of code in the README and in docs/ runs, and prints what it says it prints."""

import doctest
import importlib.util
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.in_process import InProcess
from tests.texts import same_text

import relucate
from relucate.cli.app import main
from relucate.graph import OPERATIONS
from relucate.graph.evaluate import EVALUATED
from relucate.study.executors import EXECUTORS
from relucate.surgery.borders import BORDERS
from relucate.torch.reading.modules import MODULES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"python", "console", "sh"}
TABLES = (OPERATIONS, EVALUATED, EXECUTORS, BORDERS, MODULES)  # that a page may add to


@pytest.fixture
def _tables_as_before():
    kept = [dict(table) for table in TABLES]
    yield
    for table, before in zip(TABLES, kept, strict=True):
        table.clear()
        table.update(before)


def blocks(page):
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_of_a_kind_that_runs(page):
    assert page.read_text().count("```") == 2 * len(blocks(page))
    assert {kind for kind, _ in blocks(page)} <= KINDS


@pytest.fixture
def _modules_as_before(tmp_path):
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("_tables_as_before", "_modules_as_before")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    """The README's commands are processes, with workers; the other pages' run in this one."""
    monkeypatch.chdir(tmp_path)
    printed = as_a_process
    if page != PAGES[0]:
        printed = partial(in_this_process, monkeypatch, capsys)
        monkeypatch.setitem(EXECUTORS, "local", InProcess)
    names = {}
    for kind, code in blocks(page):
        if kind == "python":
            if match := re.match(r"# (\w+\.py)\n", code):
                (tmp_path / match[1]).write_text(code)
            monkeypatch.syspath_prepend(tmp_path)
            exec(compile(code, f"{page.name}", "exec"), names)
            check_values(code, names)
        elif kind == "console":
            check_console(code, printed)
        else:
            check_make(code)


def check_values(code, names):
    """`expression  # value` on a line says what the expression's repr is."""
    for expression, value in re.findall(r"^(\w.*[\w)\]])  # (\S.*)$", code, re.MULTILINE):
        if not re.match(r"(import|from|def|return) ", expression) and " = " not in expression:
            assert repr(eval(expression, names)) == value


def check_console(code, printed):
    """Run `$ relucate ...` and compare what it prints with the lines that follow it."""
    for command, expected in re.findall(
        r"^\$ (relucate .*)\n((?:(?!\$ ).*\n)*)", code, re.MULTILINE
    ):
        text = printed(shlex.split(command)[1:])
        if expected.strip():
            assert same_text(text) == same_text(expected)


def as_a_process(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "relucate", *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_this_process(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["relucate", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out


def check_make(code):
    """The set-up commands exist; what they do is what runs this very test."""
    for line in code.splitlines():
        target = line.split("#")[0].split()[1]
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relucate_is_imported_before_keras(page):
    """It chooses an installed backend: with Keras first, a copied block may ask for TensorFlow."""
    scripts = [code for kind, code in blocks(page) if kind == "python"]
    code = "".join(code for code in scripts if not code.startswith("# "))  # files are imported
    ours, theirs = (
        re.search(rf"^(import|from) {name}\b", code, re.MULTILINE) for name in ("relucate", "keras")
    )
    assert not theirs or (ours and ours.start() < theirs.start())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), target


def test_the_set_up_has_every_extra_and_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "set-up.md").read_text()
    extras, needed = re.findall(r"^\| extra .*?\n\n|^\| installed .*?\n\n", page, re.M | re.S)
    assert re.findall(r"^\| `(\w+)` \|", extras, re.M) == list(project["optional-dependencies"])
    named = re.findall(r"[\w-]+", " ".join(row.split("|")[1] for row in needed.splitlines()[2:-1]))
    names = (re.match(r"[\w-]+", text)[0] for text in project["dependencies"])
    assert {name.lower() for name in named} == set(names)


def test_json_keys_of_an_audit_are_documented():
    import keras

    x = image = keras.Input((4,))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Dense(3)(x)))
    data = relucate.audit(keras.Model(image, x)).to_dict()
    section = (ROOT / "docs" / "json.md").read_text().partition("## `relucate.audit/1`")[2]
    known = set(re.findall(r"`(\w+)`", section.partition("\n## ")[0]))
    assert data["sites"]
    assert data["findings"]
    assert set(data) - {"schema"} <= known
    assert set(data["sites"][0]) | set(data["findings"][0]) <= known


def test_json_keys_of_a_probe_are_documented():
    import keras
    import numpy as np

    x = image = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(x))
    model = keras.Model(image, keras.layers.Activation("tanh")(x))
    data = relucate.probe(model, np.random.default_rng(0).standard_normal((100, 4))).to_dict()
    section = (ROOT / "docs" / "json.md").read_text().partition("## `relucate.probe/1`")[2]
    known = set(re.findall(r"`(\w+)`", section.partition("\n## ")[0]))
    point = data["points"][0]
    parts = [data, data["sites"][0], point, *(point[k] for k in ("summary", "statistics"))]
    for part in [*parts, point["roles"][0], *data["claims"]]:
        assert set(part) - {"schema"} <= known


def test_the_readmes_picture_has_every_published_comparison():
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "docs" / "evidence.py")
    evidence = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evidence)
    drawn = [result for row in evidence.compared().values() for result in row]
    found = relucate.evidence().to_dict()["results"]
    published = [r for r in found if r["difference"] is not None and not r["study"]["own"]]
    assert len(drawn) == len(published)
    assert all(result in drawn for result in published)


def test_the_readmes_picture_is_of_todays_evidence(tmp_path):
    picture = ROOT / "docs" / "images" / "evidence.svg"
    if f"matplotlib=={version('matplotlib')}" not in (ROOT / "constraints.txt").read_text():
        pytest.skip("another version of Matplotlib puts things elsewhere")
    made = tmp_path / "evidence.svg"
    drawing = "import runpy, sys; runpy.run_path(sys.argv[1])['save'](sys.argv[2])"
    program = ROOT / "docs" / "evidence.py"
    subprocess.run([sys.executable, "-c", drawing, program, made], check=True)
    assert places(made) == places(picture), "run docs/evidence.py"


def places(svg):
    """Where a picture's dots and ticks are."""
    return re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg.read_text())


def test_same_text_sees_words():
    assert same_text("better: +1.5 points") == same_text("better:\n -22 points")
    assert same_text("better: 1 point") != same_text("equivalent: 1 point")


def modules():
    for info in pkgutil.walk_packages(relucate.__path__, "relucate."):
        if not info.name.endswith("__main__"):
            yield info.name


@pytest.mark.parametrize("name", list(modules()))
def test_docstring_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_some_docstrings_have_examples():
    modules_with = [n for n in modules() if ">>>" in (source_of(n).read_text())]
    assert len(modules_with) > 15


def source_of(name):
    path = ROOT / "src" / Path(*name.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"

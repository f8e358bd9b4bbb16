"""The wheel and the sdist are complete, and the wheel works where no Keras backend is installed."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import relucate

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STUDY = ROOT / "tests" / "reliability" / "studies.json"
SCORES = "arm,seed,score\n" + "".join(
    f"{arm},{seed},{value + seed / 100}\n"
    for arm, value in (("before", 0.1), ("after", 0.5))
    for seed in range(4)
)
VERBS = [
    (["nets"], "bn_paper_mlp"),
    (["data"], "fingerprint"),
    (["report", "study.json"], "Report: report.html"),
    (["verdict", "scores.csv", "--metric", "mae", "--margin", "0.1"], "MAE"),
    (["evidence", "--act", "tanh"], "Kim"),
    (["rules", "N101"], "redundant-bias"),
]


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The wheel and the sdist, built here."""
    pytest.importorskip("hatchling", reason="hatchling is in the extra `test`")
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def build(source, folder):
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def sources():
    """The package's files, as paths in a wheel."""
    found = (p for p in (ROOT / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT / "src").as_posix() for p in found}


def test_the_wheel_has_every_file_of_the_package(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == sources()
    assert "relucate/py.typed" in names
    assert "relucate/report/templates/compare.html.j2" in names
    assert "relucate/records/published.json" in names


def test_the_sdist_builds_the_same_wheel_and_has_what_tests_and_docs_need(built, tmp_path):
    with tarfile.open(built[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    names = "README.md LICENSE Makefile constraints.txt lowest.txt mkdocs.yml docs/index.md tests"
    for name in names.split():
        assert (source / name).exists(), name
    build(source, tmp_path / "again")
    again = next((tmp_path / "again").glob("*.whl"))
    with zipfile.ZipFile(built[0]) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()


def test_the_metadata(built):
    with zipfile.ZipFile(built[0]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith("METADATA"))
        text = wheel.read(name).decode()
    assert f"Version: {relucate.__version__}\n" in text
    assert "Project-URL: Source, " in text
    assert "Provides-Extra: docs" in text


def required(requirements):
    """The installed distributions that requirements need, and those that they need."""
    waiting, found = [Requirement(text) for text in requirements], {}
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            distribution = found[requirement.name] = metadata.distribution(requirement.name)
            waiting += [
                r
                for r in map(Requirement, distribution.requires or ())
                if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in extras)
            ]
    return found.values()


def link(distributions, folder):
    """Put links to the files of installed distributions into a folder."""
    for distribution in distributions:
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="session")
def empty(built, tmp_path_factory):
    """An environment with the wheel and its own dependencies, linked: no backend, no network."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"), folder / "Lib" / "site-packages")
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(packages)
    link(required(PROJECT["dependencies"]), packages)
    return folder


def python(environment, *arguments, cwd):
    """Run the Python of an environment, with nothing of this process's settings."""
    settings = {"PATH": os.environ["PATH"], "HOME": str(cwd), "MPLBACKEND": "agg"}
    program = next(environment.glob("bin/python"), environment / "Scripts" / "python.exe")
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=settings, capture_output=True, text=True, timeout=250
    )


def prepare(folder):
    (folder / "study.json").write_text(json.dumps(json.loads(STUDY.read_text())[0]))
    (folder / "scores.csv").write_text(SCORES)


def check_verb(environment, folder, arguments, words):
    prepare(folder)
    done = python(environment, "-m", "relucate", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.parametrize(("arguments", "words"), VERBS, ids=lambda v: v[0])
def test_verbs_without_a_backend(empty, tmp_path, arguments, words):
    check_verb(empty, tmp_path, arguments, words)


@pytest.mark.parametrize("code", ["import torch", "import jax", "import tensorflow"])
def test_no_backend_is_there(empty, tmp_path, code):
    assert "ModuleNotFoundError" in python(empty, "-c", code, cwd=tmp_path).stderr


@pytest.mark.parametrize("verb", [["compare", "mlp"], ["audit", "mlp"]])
def test_training_without_a_backend_says_what_to_install(empty, tmp_path, verb):
    done = python(empty, "-m", "relucate", *verb, cwd=tmp_path)
    assert done.returncode == 2
    assert "no Keras backend is installed" in done.stderr
    assert "pip install 'relucate[torch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verdict_imports_neither_figures_nor_digits(tmp_path):
    code = (
        "import relucate, sys\n"
        "scores = {'a': [0.1, 0.2, 0.4], 'b': [0.5, 0.7, 0.8]}\n"
        "relucate.verdict(scores, metric='auc', margin=0.1).sentence\n"
        "print({'matplotlib', 'sklearn', 'PIL', 'keras', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_citation_and_the_changelog_have_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == relucate.__version__
    assert citation["license"] == PROJECT["license"]
    release = relucate.__version__.removesuffix(".dev0")
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    expected = [f"Unreleased ({release})"] if ".dev" in relucate.__version__ else [release]
    assert first.partition(" - ")[0] in expected


def test_the_lowest_versions_are_those_that_are_tested():
    """`make lowest` installs what lowest.txt has."""
    extras = PROJECT["optional-dependencies"]
    requirements = map(Requirement, [*PROJECT["dependencies"], *extras["torch"], *extras["test"]])
    allowed = {each.name: str(each.specifier) for each in requirements}
    lines = (ROOT / "lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, bound in allowed.items():
        assert bound.startswith(">="), name
        assert Version(bound.removeprefix(">=")) == Version(pins[name]), name


@pytest.mark.nightly
def test_installed_from_the_index(built, tmp_path):
    """The same with pip: what the wheel asks for can be installed together."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    done = python(environment, "-m", "pip", "install", *constraints, str(built[0]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for arguments, words in VERBS:
        check_verb(environment, tmp_path, arguments, words)

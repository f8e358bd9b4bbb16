"""The documentation's site: every page is in it, its reference is whole, and it builds strictly."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml

import relucate
from relucate.cli.app import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
VERBS = typer.main.get_command(app).commands


def pages(nav):
    for entry in nav:
        for page in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [page] if isinstance(page, str) else pages(page)


def test_every_page_is_in_the_navigation_once():
    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(listed) == len(set(listed))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(listed) == there, "add the page to nav in mkdocs.yml"


def test_every_verb_and_public_name_is_in_the_reference():
    verbs = re.findall(r"^\| `(\w+)` \|", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert verbs == sorted(VERBS)
    names = set(re.findall(r"`(?:relucate\.)?(\w+)`", (DOCS / "api.md").read_text()))
    assert set(relucate.__all__) <= names


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not find_spec("mkdocs") or not find_spec("material"):
        pytest.skip("MkDocs isn't installed: it is in the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # strict: mkdocs.yml
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_reference_has_every_option(site):
    page = (site / "cli.html").read_text()
    for verb, command in VERBS.items():
        section = page.partition(f'id="relucate-{verb}"')[2].partition("<h2")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f">{parameter.opts[0]}<" in section, (verb, parameter.opts)


def test_the_reference_has_every_public_name(site):
    page = (site / "api.html").read_text()
    for name in relucate.__all__:
        assert f'id="relucate.{name}"' in page


def test_parameters_that_share_a_line_are_listed(site):
    page = (site / "api.html").read_text()
    bold = re.findall(r"<b><code>(.*?)</code></b>", page)
    names = {re.sub(r"<[^>]+>", "", name).replace("\xa0", " ") for name in bold}
    assert {"unseen", "max_abs, max_rel", "net, data"} <= names
    assert not re.search(r"<p>(Args|Attributes|Raises|Returns): ", page)
    assert "<strong>Raises:</strong> InputError" in page


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]*)", path.read_text())
        loaded += re.findall(r"<link[^>]* href=\"([^\"]*)", path.read_text())
        assert loaded
        assert not [url for url in loaded if re.match(r"\w+:|//", url)], path.name


def test_search_works_without_a_server(site):
    assert (site / "search" / "search_index.js").read_text().startswith("var __index")
    assert "iframe-worker" in (site / "index.html").read_text()

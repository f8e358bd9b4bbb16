"""`relucate report`: the schemas that it opens, and what it says of every other file."""

import json

import pytest
from typer.testing import CliRunner

from relucate.cli.app import app


@pytest.fixture
def shown(tmp_path):
    def run(text):
        path = tmp_path / "study.json"
        path.write_text(text)
        return CliRunner().invoke(app, ["report", str(path)])

    return run


@pytest.mark.parametrize(
    "schema", ["relucate.convert/1", "relucate.compare/99", "relucate.c", None]
)
def test_a_document_of_another_schema_is_refused_by_its_name(shown, schema):
    result = shown(json.dumps({"schema": schema}))
    assert result.exception is not None
    assert repr(schema) in str(result.exception)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize(("text", "message"), [("[1]", "isn't a comparison"), ("{", "isn't JSON")])
def test_what_is_no_document(shown, text, message):
    result = shown(text)
    assert message in str(result.exception)

"""Options from the fields of dataclasses: names, defaults, help, and back to values."""

import inspect
import os
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields

import pytest
import typer

from relucate.api.study import compare
from relucate.cli.fields import given_values, options_of
from relucate.errors import InputError
from relucate.option import option
from relucate.study.options import StudyOptions
from relucate.study.plan import StudyPlan
from relucate.train import Recipe


@dataclass(frozen=True)
class Example:
    count: int = option(3, "How many.")
    share: float = option(0.25, "Of all.", scale=100)
    plain: bool = option(True, "Dress it up.", flag="--fancy")
    kept_on: bool = option(False, "Go on.")
    names: tuple[str, ...] = option(("a", "b"), "Names.")
    rates: tuple[float, ...] | None = option(None, "Rates.")
    many: list[str] | None = option(None, "Many.")


def run(*arguments):
    """The values that an Example's options give."""
    app, got = typer.Typer(pretty_exceptions_enable=False), {}

    @app.command()
    @options_of({Example: ""})
    def verb(model: str = "m", quiet: bool = False, **options) -> None:
        got.update(given_values(Example, options), model=model, quiet=quiet)

    app(list(arguments), standalone_mode=False)
    return got


def test_what_is_not_given_is_left_to_the_fields():
    assert run() == {"model": "m", "quiet": False}


def test_what_is_given_is_as_the_fields_have_it():
    given = "--count 4 --share 50 --fancy --kept-on --names c,d --rates 0.1,1 --many x --many y"
    assert run("--model", "n", *given.split()) == {
        "model": "n",
        "quiet": False,
        "count": 4,
        "share": 0.5,
        "plain": False,
        "kept_on": True,
        "names": ("c", "d"),
        "rates": [0.1, 1.0],
        "many": ["x", "y"],
    }


def test_a_list_of_numbers_that_is_none():
    with pytest.raises(InputError, match=r"--rates must be numbers with commas.*got '1,b'"):
        run("--rates", "1,b")


def shown(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "relucate", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    return " ".join(re.sub("[│╭╮╰╯─]", " ", done.stdout).split())


def test_every_option_of_a_recipe_and_of_a_study_is_in_the_help_with_its_default():
    text = shown("compare", "--help")
    for field in [*fields(Recipe), *fields(StudyOptions)]:
        assert field.metadata["help"] in text
        flags = field.metadata.get("flag", f"--{field.name.replace('_', '-')}")
        assert all(flag in text for flag in flags.split("/"))
    for default in ("10", "128; 64 below 5,000 examples", "before,after", "0.5", "2048", "auto"):
        assert f"[default: {default}]" in text


def test_a_studys_options_are_what_compare_takes():
    taken = inspect.signature(compare).parameters
    for field in fields(StudyOptions):
        assert taken[field.name].default == field.default, field.name


def test_a_studys_options_have_the_plans_defaults():
    plan = {f.name: f.default for f in fields(StudyPlan) if f.default is not MISSING}
    for field in fields(StudyOptions):
        if field.name in plan and field.name != "pairs":  # the plan's is a number always
            assert plan[field.name] == field.default, field.name


def test_every_option_is_described_in_plain_words():
    from relucate.cli.app import app

    for command in app.registered_commands:
        text = shown(command.callback.__name__, "--help")
        assert "Usage" in text
        assert not re.search(r"<|\b(str|int|float|bool|list\[|Path)\b", text), text


def test_a_default_that_is_empty_is_not_shown():
    assert "[default: ]" not in shown("compare", "--help")

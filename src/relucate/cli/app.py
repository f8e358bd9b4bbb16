"""The typer app: the verbs, and the handling of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import typer

from ..errors import InputError, RelucateError, printable
from .audit import audit
from .compare import compare
from .convert import convert
from .data import data
from .evidence import evidence
from .fold import fold
from .merge import merge
from .nets import nets, recipes
from .plain import PlainCommand, PlainGroup, name_types
from .probe import probe
from .rebuild import rebuild
from .report import report
from .rules import rules
from .transforming import WithStrategies
from .verdict import verdict
from .verify import verify

app = typer.Typer(
    name="relucate",
    cls=PlainGroup,
    help="Where does normalization belong relative to the activation, in your network, on your "
    "data? Train both orders side by side and get an honest verdict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Return the verb with `sys.exit` as an error: only the user's own code calls it there.

    Otherwise a model that ends the program could look like a check that found nothing.
    """

    @wraps(verb)
    def run(**given: Any) -> None:
        try:
            verb(**given)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                raise  # by rich: the reader of standard output has left
            from ..nets.user_code import where

            raise InputError(f"the model's code failed: {where(error)}.") from error

    return run


_TRANSFORMING = (rebuild, convert, fold, verify)
_LISTS = (rules, report, nets, recipes, data)

for verb in (audit, compare, verdict, merge, *_TRANSFORMING, probe, evidence, *_LISTS):
    kind = WithStrategies if verb in (convert, fold) else PlainCommand
    name_types(verb)
    app.command(cls=kind)(_guarded(verb))


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"relucate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        metavar="",
        callback=_version,
        is_eager=True,
        help="Show the version and exit.",
    ),
) -> None:
    pass


def _discard_output() -> None:
    """Send what standard output still buffers to nowhere: writing it would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        try:
            app(arguments, prog_name="relucate", standalone_mode=True)
        finally:
            if sys.stdout is not None:  # it is closed
                sys.stdout.flush()  # at the interpreter's exit an error would be a traceback
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            raise
        _discard_output()
        print(f"relucate: can't write the output: {error.strerror or error}.", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except RelucateError as error:
        print(f"relucate: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)

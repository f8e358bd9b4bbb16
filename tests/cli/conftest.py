"""Shared by the tests of the command line: one call in this process, and what it printed."""

import pytest

from relucate.cli import main


@pytest.fixture
def call(capsys):
    """A function that runs `relucate` with arguments and returns (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        return stopped.value.code or 0, *capsys.readouterr()

    return run

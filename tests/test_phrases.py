"""A number with its noun, and a list that is cut short: one home each."""

import re
from pathlib import Path

import pytest

from relucate.phrases import count, some

SOURCE = Path(__file__).parent.parent / "src" / "relucate"
OWN = re.compile(r"""== 1 else ['"]s['"]|['"]s['"] \* \(|(?<!; )and \{len\([^}]*\} more""")


def test_one_is_singular_and_thousands_are_separated():
    assert [count(n, "pair") for n in (0, 1, 2, 1437)] == [
        "0 pairs", "1 pair", "2 pairs", "1,437 pairs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "text"), [(0, ""), (1, "0"), (4, "0, 1, 2, 3"), (6, "0, 1, 2, 3 and 2 more")]
)
def test_names_beyond_the_first_are_counted(number, text):
    assert some(map(str, range(number))) == text


def test_nobody_else_makes_them():
    """The live display's last row counts runs and lists none: it isn't such a phrase."""
    found = [path.name for path in SOURCE.rglob("*.py") if OWN.search(path.read_text())]
    assert sorted(found) == ["live.py", "phrases.py"]

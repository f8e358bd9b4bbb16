"""A rule's page and the index of all pages: the Markdown of docs/rules, made from docstrings.

A rule's docstring is its page: a summary in one line, perhaps when its severity differs in
parentheses, then sections. Called by `relucate rules` and by docs/rules.py, which writes the files.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from .rule import RULES, Rule

_INTRODUCTION = """\
# The rules of `relucate audit`

Each rule has a stable code. The first digit is its family: 1 parameters, 2 placement, 3 values, \
4 settings, 5 what other tools make of the model. A severity is the rule's usual one; a page says \
where it is lower or higher. `relucate rules \
N101` prints a page.

| rule | severity | what it finds |
|---|---|---|
"""
_END = """
Choose with `--select` and `--ignore`: codes, their beginnings (`N1`) or names, with commas. What \
a finding holds, formats and exit codes: [audit](../audit.md).
"""


def page(rule: Rule) -> str:
    """Return a rule's page as Markdown."""
    text = inspect.cleandoc(rule.check.__doc__ or "")
    remark, _, sections = text.partition("\n\n")[2].partition("## ")
    severity = " ".join(f"{rule.severity} {remark}".split())
    body = "\n".join(_joined(f"## {sections}".splitlines()))
    return f"# {rule.code} {rule.name}\n\nSeverity: {severity}\n\n{body}\n"


def _joined(lines: list[str]) -> Iterator[str]:
    """Yield the lines with each paragraph and each list item in one, code and tables as it is."""
    paragraph, code = "", False
    for line in lines:
        code ^= line.startswith("```")
        if code or line.startswith(("```", "|", "#")) or not line:
            if paragraph:
                yield paragraph
            yield line
            paragraph = ""
        elif line.startswith("- ") and paragraph:
            yield paragraph
            paragraph = line
        else:
            paragraph = f"{paragraph} {line.strip()}".strip()
    if paragraph:
        yield paragraph


def index() -> str:
    """Return the list of all rules as Markdown."""
    rows = [
        f"| [{code} {r.name}]({code}.md) | {r.severity} | {r.summary.removesuffix('.')} |\n"
        for code, r in sorted(RULES.items())
    ]
    return f"{_INTRODUCTION}{''.join(rows)}{_END}"

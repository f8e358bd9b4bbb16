"""Accuracy and its points are one metric among others: only their home speaks of them."""

import io
import re
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "relucate"
SAYING = {tokenize.STRING, tokenize.COMMENT, tokenize.NAME}
SAYING.add(getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))  # from Python 3.12 on
UNIT = re.compile(r"""\b(percentage points|\d points?|points of)\b|, points|^f?["']points?["']$""")
# Files that may say accuracy or points (of a percentage), and why.
ALLOWED = {
    "train/metric.py": "the metric's home",
    "train/task.py": "classification, the task that it scores",
    "train/tasks.py": "the tasks that others of its kind score",
    "train/scores.py": "how they are computed",
    "api/study.py": "the docstring of compare, which trains classifiers",
    "study/options.py": "the help of compare's options, likewise",
    "surgery/rules/statistics.py": "the page of a rule quotes what was published",
    "api/probe.py": "points of a graph, a key of its document",
    "report/probe.py": "likewise",
    "report/panels.py": "likewise",
    "report/seen.py": "likewise",
    "study/probing.py": "likewise",
    "report/evidence.py": "the unit of published tables",
    "study/document.py": "how many test examples a margin of accuracy takes",
}
# The unit is a word of these rooms; elsewhere points are places in a graph or on a curve.
SPEAKING = {"api", "cli", "report", "stats", "study"}
HOMES = sorted({path for path in SOURCE.rglob("*") if path.suffix in (".py", ".j2")})


def words(path):
    """Texts, comments and names of a file, examples in docstrings aside."""
    text = path.read_text()
    if path.suffix != ".py":
        yield from text.splitlines()
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in SAYING:
            yield from without_examples(token.string)


def without_examples(text):
    example = False
    for line in text.splitlines():
        example = line.strip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            yield line


@pytest.mark.parametrize("path", HOMES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_metrics_home_speaks_of_accuracy(path):
    name = str(path.relative_to(SOURCE))
    if name in ALLOWED:
        return
    for line in words(path):
        assert not re.search(r"accurac(y|ies)", line), line
        if name.partition("/")[0] in SPEAKING:
            assert not UNIT.search(line.strip()), line


def test_the_search_sees_texts_comments_and_names(tmp_path):
    path = tmp_path / "code.py"
    code = 'x = "in accuracy"  # accuracy\naccuracy = 1\n"""Doc.\n\n>>> accuracy\n1\n"""\n'
    path.write_text(code)
    assert sum("accuracy" in line for line in words(path)) == 3

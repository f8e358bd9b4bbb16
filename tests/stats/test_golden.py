# ruff: noqa: E501
"""Golden verdicts: recorded scores and the words that a person reads.

RELUCATE_GOLDEN=1 writes the file again; read every sentence of it before it is committed.
"""

import json
import os
from pathlib import Path

import pytest

from relucate.errors import InputError
from relucate.stats import decide, paired_difference, score_runs, sentence
from relucate.stats.sequential import Monitor
from relucate.train.metric import ACCURACY

FILE = Path(__file__).parent / "golden" / "verdicts.txt"
SAME = [0.9333, 0.9361, 0.9306, 0.9389, 0.9333, 0.9417]
CASES = {  # name -> (scores of before, of after; None is a diverged run), whether looked at
    "a clear winner": ([0.8611, 0.8694, 0.8556, 0.8639, 0.8583], [0.9028, 0.9111, 0.8972, 0.9, 0.9056], True),
    "a winner in the other direction": ([0.6629, 0.6641, 0.6618, 0.6633], [0.6434, 0.6431, 0.6442, 0.6440], True),
    "better, perhaps less than the margin": ([0.6068, 0.6102, 0.6090, 0.6055, 0.6121, 0.6080, 0.6099, 0.6110], [0.6130, 0.6151, 0.6155, 0.6098, 0.6170, 0.6152, 0.6140, 0.6162], True),
    "real but below the margin": ([0.9801, 0.9803, 0.9799, 0.9802, 0.9800], [0.9815, 0.9818, 0.9812, 0.9817, 0.9814], True),
    "equivalent": ([0.9801, 0.9793, 0.9799, 0.9802, 0.9805, 0.9800], [0.9803, 0.9791, 0.9801, 0.9801, 0.9803, 0.9802], True),
    "open, a few more pairs": ([0.9694, 0.9694, 0.9639, 0.9639, 0.9611, 0.9722], [0.9833, 0.975, 0.9722, 0.975, 0.9694, 0.9667], True),
    "open, very many more pairs": ([0.9694, 0.975, 0.9722], [0.9722, 0.9694, 0.9722], True),
    "fixed number of pairs": ([0.9694, 0.9694, 0.9639, 0.9639], [0.9833, 0.975, 0.9722, 0.975], False),
    "two pairs": ([0.95, 0.96], [0.97, 0.97], True),
    "one pair": ([0.95], [0.97], True),
    "the same scores in every pair": (SAME, SAME, False),
    "the same scores, too few pairs": (SAME[:4], SAME[:4], True),
    "the same difference in every pair": ([0.5] * 9, [0.75] * 9, True),
    "constant scores in both arms": ([0.1] * 4, [0.1] * 4, True),
    "one run diverged": ([0.9028, None, 0.9056, 0.9083], [0.9111, 0.9139, 0.9083, 0.9111], True),
    "one arm all diverged": ([None] * 6, [0.9111, 0.9139, 0.9083, 0.9111, 0.9, 0.91], True),
    "everything diverged": ([None] * 3, [None] * 3, True),
    "an outlier": ([0.97, 0.971, 0.969, 0.42, 0.97, 0.972], [0.975, 0.977, 0.974, 0.976, 0.975, 0.977], True),
}  # fmt: skip


def described(name):
    a, b, looks = CASES[name]
    lost = [[score is None for score in arm] for arm in (a, b)]
    scores = [score_runs(arm, gone, ACCURACY) for arm, gone in zip((a, b), lost, strict=True)]
    counts = (sum(lost[0]), sum(lost[1]))
    if looks:
        verdict = Monitor().decide(*scores, margin=0.005, diverged=counts)
    else:
        verdict = decide(paired_difference(*scores), margin=0.005, diverged=counts)
    json.dumps(verdict.to_dict(), allow_nan=False)
    return sentence(verdict, "after", "before", ACCURACY)


def written():
    return "".join(f"{name}\n    {described(name)}\n\n" for name in CASES)


def test_the_sentences_are_those_that_were_read():
    if os.environ.get("RELUCATE_GOLDEN"):
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(written())
    assert written() == FILE.read_text()


@pytest.mark.parametrize("margin", [0, -0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none(margin):
    with pytest.raises(InputError, match="margin above 0"):
        Monitor().decide([0.1, 0.2, 0.3], [0.2, 0.3, 0.5], margin=margin)


@pytest.mark.parametrize("level", [0, 1, -1, 1.5, float("nan")])
def test_a_level_that_is_none(level):
    with pytest.raises(InputError):
        Monitor(level=level)
    with pytest.raises(InputError):
        paired_difference([0.1, 0.2], [0.2, 0.3], level=level)

"""Which pairs count: the same as by looking at all runs again, in whatever order they come."""

import random

from relucate.study.finished import FinishedPairs
from relucate.study.results import StudyResults

from .test_vary import filled, plan


def slowly(runs, labels, seeds, failed, enough):
    counts = {s: sum((label, s) in runs for label in labels) for s in seeds}
    done = [s for s in seeds if counts[s] >= enough]
    first = []
    for seed in seeds:
        if seed in failed:
            continue
        if counts[seed] < enough:
            break
        first.append(seed)
    return done, first


def test_it_is_what_looking_at_everything_gives():
    for start in range(40):
        draw = random.Random(start)
        labels = ["a", "b", "c"][: draw.randint(2, 3)]
        seeds = list(range(5, 5 + draw.randint(1, 9)))
        enough = draw.choice([1, len(labels)])
        pairs = FinishedPairs(labels, seeds, enough=enough)
        runs, failed = {}, set()
        order = [(label, seed) for label in [*labels, "stranger"] for seed in seeds]
        draw.shuffle(order)
        for key in order:
            if draw.random() < 0.1:
                failed.add(key[1])
            else:
                runs[key] = None
            assert (pairs.among(runs), pairs.first(failed)) == slowly(
                runs, labels, seeds, failed, enough
            )
        while runs:
            del runs[draw.choice(list(runs))]
            assert pairs.among(runs) == slowly(runs, labels, seeds, failed, enough)[0]


def test_a_run_is_looked_at_once():
    seeds = list(range(300))
    pairs, runs = FinishedPairs(["a", "b"], seeds, enough=2), {}
    seen = []
    original = pairs._counts.__class__.__setitem__

    class Counter(pairs._counts.__class__):
        def __setitem__(self, key, value):
            seen.append(key)
            original(self, key, value)

    pairs._counts = Counter()
    for seed in seeds:
        for label in "ab":
            runs[label, seed] = None
            pairs.among(runs)
    assert len(seen) == 600


def test_a_verdict_after_every_pair_reads_each_run_once(monkeypatch):
    read = []
    monkeypatch.setattr(StudyResults, "_check_metric", lambda self, result: read.append(result))
    whole = filled(plan({}, pairs=25), lambda arm, seed: 0.5 + 0.01 * (arm.label != "x") * seed)
    made = StudyResults(whole.plan, whole.inspection)
    for key in sorted(whole.results, key=lambda key: key[1]):
        made.results[key] = whole.results[key]
        seeds = made.finished_pairs()
        if seeds:
            found = made.verdict(made.plan.contrasts[0], seeds).difference
            assert found.n == len(seeds)
    assert len(read) == 50
    assert found == whole.verdict(whole.plan.contrasts[0], seeds).difference

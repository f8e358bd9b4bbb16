"""What the driver itself costs for each run: a training of the user's own that does nothing.

    python benchmarks/driver.py [--pairs 30 200 1000] [--jobs 1] [--json FILE]
                                [--executor ray [--nodes 4]]

For each number of pairs, with a number that is fixed in advance and with a look after every pair
(the scores never decide, so that all pairs run): the driver's own CPU time and the wall time for
each run, the ratio to the smallest number of pairs (1: the cost of a run doesn't grow), and by how
many MB the driver grew (on Linux). The start of the executor isn't counted, but that of Ray's
workers is, and so a first, short study goes ahead. With --nodes Ray has so many nodes on this
machine, with one core each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from relucate.study.display import NoDisplay
from relucate.study.driver import run_study
from relucate.study.own import OwnArm, own_source
from relucate.study.own_plan import OwnPlan
from relucate.study.store import Store
from relucate.train.metric import Metric


def nothing(order: str, seed: int) -> float:
    """Return a score at once: noise that is much larger than the margin."""
    import random

    return random.Random(f"{order} {seed}").random()


def resident() -> float:
    """Return the MB of memory that this process has, 0 where the system doesn't say it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measured(pairs: int, looks: bool, **where: Any) -> dict[str, Any]:
    """Return the seconds for each run of a study."""
    arms = (OwnArm("before"), OwnArm("after"))
    plan = OwnPlan(
        arms,
        own_source(nothing, {}, arms),
        metric=Metric("score"),
        margin=0.001,
        pairs=pairs,
        looks=looks,
        **where,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "runs.sqlite") as store,
        Store.open(Path(folder) / "first.sqlite") as first,
        plan.open_executor(NoDisplay()) as executor,
    ):
        run_study(replace(plan, pairs=20, looks=False), first, NoDisplay(), executor)
        before = resident()
        wall, cpu = time.perf_counter(), time.process_time()
        outcome = run_study(plan, store, NoDisplay(), executor)
        run_study(replace(plan, pairs=20, looks=False), first, NoDisplay(), executor)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grown = resident() - before
    runs = len(outcome.results)
    costs = {"cpu": cpu / runs, "wall": wall / runs, "mb": grown}
    return {"pairs": pairs, "looks": looks, "runs": runs, **costs}


def cluster(nodes: int) -> str:
    """Start a Ray with a head without cores and so many nodes, and return its address."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        started.add_node(num_cpus=1)
    return started.address


def main() -> None:
    """Print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[30, 200, 1000])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--executor", default="local")
    parser.add_argument("--nodes", type=int, help="of Ray, with one core each")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    where = {"jobs": given.jobs, "executor": given.executor}
    if given.nodes:
        where["address"] = cluster(given.nodes)
    rows = []
    print(" pairs  looks   runs  CPU ms/run  wall ms/run  ratio  MB more")
    for looks in (False, True):
        first = None
        for pairs in given.pairs:
            row = measured(pairs, looks, **where)
            first = first or row["cpu"]
            row["ratio"] = row["cpu"] / first
            rows.append(row)
            print(
                f"{pairs:>6} {looks!s:>6} {row['runs']:>6} {1e3 * row['cpu']:>11.2f} "
                f"{1e3 * row['wall']:>12.2f} {row['ratio']:>6.2f} {row['mb']:>8.1f}"
            )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

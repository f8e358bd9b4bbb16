"""The Ray executor, on a real Ray: the local executor's bits, whatever happens to the nodes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import relucate
from relucate.data import make
from relucate.errors import InputError
from relucate.study.arms import Arm
from relucate.study.display import NoDisplay
from relucate.study.driver import run_study
from relucate.study.executors import Died, Done, Failed, Setup, Task
from relucate.study.executors import perform as work
from relucate.study.executors import ray as executor_module
from relucate.study.executors.ray import RayExecutor
from relucate.study.own import OwnArm, own_source
from relucate.study.own_plan import OwnPlan
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.store import Store
from relucate.study.vary import arms_from
from relucate.train import Metric, Recipe

ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install 'relucate[ray]'")
pytestmark = [
    pytest.mark.nightly,  # Ray takes seconds to start and to end
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]

ROOT = Path(__file__).parents[3]
LIMIT = 240  # seconds: far more than needed, also on a loaded machine


def builder(order, act="fine"):
    """Build a torch module, or end or hang the process."""
    import time

    from torch import nn

    if act == "exit":
        os._exit(3)
    if act == "hang":
        time.sleep(600)
    if act == "fork" and os.fork() == 0:
        time.sleep(0.1)
    if act == "error":
        raise RuntimeError("no such luck")
    norm = nn.BatchNorm1d(4)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(nn.Linear(3, 4), *steps, nn.Dropout(0.2), nn.Linear(4, 4))


def train(order, seed, notes="", trouble="", seconds=0.0):
    """Return a score; note where it runs; get into trouble in the first run, or in every one."""
    import random
    import time
    from pathlib import Path

    if notes:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with open(os.path.join(notes, f"{order}-{seed}"), "a") as stream:
            stream.write(f"{node}\n")
        first = not os.path.exists(os.path.join(notes, "first"))
        open(os.path.join(notes, "first"), "w").close()
        if trouble == "always" or (trouble == "once" and first):
            os._exit(3)
    if trouble == "missing":
        Path("/no/such/data.csv").read_text()
    time.sleep(seconds)
    return random.Random(f"{order} {seed}").random()


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def two_nodes(cluster):
    """The cluster, with two nodes besides the head also after the test before lost one."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)
    return cluster


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (random.normal(size=(4, 3))[y] + random.normal(size=(120, 3))).astype("f4")
    return make("blobs", x[:80], y[:80], x[80:], y[80:])


class Ear(NoDisplay):
    """Keeps what is said, and calls a function after the first run."""

    def __init__(self, after_first=lambda: None):
        self.said, self.finished, self.epochs = [], [], 0
        self.after_first = after_first

    def say(self, text):
        self.said.append(text)

    def run_progress(self, *_):
        self.epochs += 1

    def run_finished(self, arm, seed, *_, **__):
        self.finished.append((arm, seed))
        if len(self.finished) == 1:
            self.after_first()


def ran(plan, path, ear=None):
    display = ear or NoDisplay()
    with Store.open(path) as store, plan.open_executor(display) as executor:
        return run_study(plan, store, display, executor)


def stored(path):
    """The rows of a store, without clocks."""
    with Store.open(path, read_only=True) as store:
        return {
            row.hash: (row.spec, {**json.loads(row.result), "seconds": None}, row.per_example)
            for row in store.rows()
        }


def own(address, pairs=3, **options):
    arms = (OwnArm("before"), OwnArm("after"))
    return OwnPlan(
        arms,
        own_source(train, options, arms),
        metric=Metric("score"),
        margin=0.01,
        pairs=pairs,
        executor="ray",
        address=address,
    )


def kinds(events):
    return {e.key: type(e) for e in events if isinstance(e, Done | Failed | Died)}


def inspection(act="fine"):
    return work.inspection([Arm("before", {"act": act})], "auto", "cpu")


@pytest.fixture(scope="class")
def executor(data):
    setup = Setup(resolve(builder), data, jobs=1, address="local")
    with RayExecutor(setup, patience=0.3) as executor:
        yield executor


class TestOneExecutor:
    """What the local executor's tests ask of it, on a Ray of this machine."""

    def run(self, executor, *acts, limit=None):
        return list(executor.run(Task(act, inspection(act), limit) for act in acts))

    def test_every_task_has_its_event_and_the_others_go_on(self, executor):
        events = self.run(executor, "fine", "error", "exit", "fork")
        assert kinds(events) == {"fine": Done, "error": Failed, "exit": Died, "fork": Done}
        (failed,) = (e for e in events if isinstance(e, Failed))
        assert "RuntimeError: no such luck" in str(failed.error)
        (died,) = (e for e in events if isinstance(e, Died))
        assert "your function, or a library that it uses, ended it" in died.reason
        assert not died.machine

    def test_a_task_that_takes_too_long_is_ended(self, executor):
        events = self.run(executor, "hang", "fine", limit=1)
        assert kinds(events) == {"hang": Died, "fine": Done}
        assert any(
            "longer than 1 seconds (--run-timeout)" in getattr(e, "reason", "") for e in events
        )

    def test_a_signal_that_was_the_programs_stays_so(self, executor):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_a_program_that_has_connected_keeps_its_ray(self, executor, data):
        with RayExecutor(Setup(resolve(builder), data, jobs=1)):
            pass
        assert ray.is_initialized()
        with pytest.raises(InputError, match="connected to Ray already"):
            RayExecutor(Setup(resolve(builder), data, address="auto")).__enter__()

    def test_more_cores_or_gpus_than_any_node_has(self, executor, data):
        with pytest.raises(InputError, match=r"a run needs 500 cores .*no node of the Ray cluster"):
            RayExecutor(Setup(resolve(builder), data, threads=500)).__enter__()
        with pytest.raises(InputError, match=r"a run needs 1 core and 0\.5 GPU .*and 0 GPUs"):
            RayExecutor(Setup(resolve(builder), data, gpus_per_run=0.5)).__enter__()

    def test_another_relucate_on_the_nodes(self, executor, data, monkeypatch):
        monkeypatch.setattr(executor_module, "__version__", "9.9")
        with RayExecutor(Setup(resolve(builder), data, jobs=1)) as other:
            events = other.run([Task("fine", inspection())])
            with pytest.raises(InputError, match=r"has relucate .*, and the driver 9\.9: install"):
                list(events)

    def test_nodes_without_relucate(self, executor, data, monkeypatch):
        class Elsewhere:
            """Stands for a class whose module the nodes can't import."""

            def __reduce__(self):
                return __import__, ("relucate_that_is_not_installed",)

        monkeypatch.setattr(executor_module, "__version__", Elsewhere())
        with RayExecutor(Setup(resolve(builder), data, jobs=1)) as other:
            events = other.run([Task("fine", inspection())])
            with pytest.raises(InputError, match=r"can't start in the Ray cluster: .*No module na"):
                list(events)

    def test_a_token_that_the_cluster_refuses(self):
        """What Ray says then; it needs a cluster that is older than the token."""
        said = Exception("The actor never ran - it was cancelled before it started running.")
        assert "set RAY_AUTH_MODE=disabled." in str(executor_module._cannot_start(said))

    def test_other_packages_on_a_node(self, executor):
        spec = {"versions": {"numpy": "1.0"}}
        (event,) = executor.run([Task("run", {"task": "run", "spec": spec})])
        with pytest.raises(InputError, match=r"has numpy .* computes with 1\.0, .* on all nodes"):
            raise event.error


def test_the_bits_of_the_local_executor_and_the_data_only_once(
    two_nodes, data, tmp_path, monkeypatch
):
    put = []
    original = ray.put
    monkeypatch.setattr(ray, "put", lambda value: put.append(value) or original(value))
    arms, recipe = arms_from(["before", "after"]), Recipe(epochs=2, batch_size=16)
    plan = StudyPlan(arms, resolve(builder), data, recipe, pairs=2, jobs=1)
    local, away = tmp_path / "local.sqlite", tmp_path / "ray.sqlite"
    ran(plan, local)
    elsewhere = replace(plan, executor="ray", address=two_nodes.address)
    ear = Ear()
    ran(elsewhere, away, ear)
    assert stored(away) == stored(local)
    assert ear.epochs == 8
    assert len(put) == 1
    assert "Ray: 3 nodes with 2 cores and 0 GPUs; 1 run at the same time" in str(ear.said)
    assert ran(elsewhere, away).resumed == 4


@pytest.mark.parametrize(
    "graceful",
    [False, True],
    ids=["killed", "told to go"],
)
def test_a_node_that_is_lost_midway(graceful, two_nodes, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()

    def lose():
        started = {path for path in notes.iterdir() if path.name != "first"}
        done = {
            notes / f"{'before' if arm == 'linear-norm-act' else 'after'}-{seed}"
            for arm, seed in ear.finished
        }
        (running,) = started - done
        node = next(n for n in two_nodes.worker_nodes if n.node_id == running.read_text().strip())
        two_nodes.remove_node(node, allow_graceful=graceful)

    ear = Ear(lose)
    plan = own(two_nodes.address, pairs=4, notes=str(notes), seconds=0.5)
    outcome = ran(plan, tmp_path / "ray.sqlite", ear)
    repeated = [text for text in ear.said if "is repeated: its node" in text]
    assert len(repeated) == 1, ear.said
    assert not outcome.failed
    local = replace(plan, executor="local", address=None, jobs=1)
    (tmp_path / "local").mkdir()
    source = own_source(train, {"seconds": 0.0}, plan.arms)
    scores = ran(replace(local, source=source), tmp_path / "local.sqlite").results
    assert {k: v["metric"] for k, v in outcome.results.items()} == {
        k: v["metric"] for k, v in scores.items()
    }


def test_a_process_that_always_ends_itself(two_nodes, tmp_path):
    plan = own(two_nodes.address, notes=str(tmp_path), trouble="always", pairs=1)
    ear = Ear()
    with pytest.raises(InputError, match=r"failed twice, so that its pair doesn't count: the wor"):
        ran(plan, tmp_path / "runs.sqlite", ear)
    assert sum("is repeated: the worker process on node" in text for text in ear.said) == 2


def test_files_that_the_nodes_do_not_have(two_nodes, tmp_path):
    plan = own(two_nodes.address, trouble="missing")
    ear = Ear()
    with pytest.raises(InputError, match=r"/no/such/data.csv.* \(on node "):
        ran(plan, tmp_path / "runs.sqlite", ear)
    path, helper = tmp_path / "here.py", tmp_path / "only_here.py"
    helper.write_text("score = 0.5")
    path.write_text("import only_here\ndef train(order, seed): return only_here.score")
    there = replace(plan, source=own_source(f"{path}:train", {}, plan.arms))
    path.unlink()  # its content goes to the nodes, what it imports doesn't
    helper.unlink()
    what = r"No module named 'only_here' .* on node .*ray job submit --working-dir"
    with pytest.raises(InputError, match=what):
        ran(there, tmp_path / "runs.sqlite", ear)


def test_looks_and_a_study_that_ends_early(two_nodes, tmp_path):
    def certain(order, seed):
        return (order == "after") + seed * 1e-6

    study = relucate.compare(
        run=certain,
        metric="score",
        margin=0.1,
        executor="ray",
        address=two_nodes.address,
        progress=False,
        store=tmp_path / "runs.sqlite",
    )
    assert study.verdict == "better"
    assert len(study.to_dict()["runs"]) < 20
    assert study.to_dict()["engine"]["executor"] == "ray"


SCRIPT = """
    import sys
    from relucate.cli import main
    sys.argv = ["relucate", "compare", "--run", {run!r}, "--metric", "auc", "--margin", "0.01",
                "--pairs", "20", "--executor", "ray", "--address", {address!r},
                "--out", {out!r}, "--format", "json"] + {more!r}
    main()
"""


def command(tmp_path, address, *more):
    path = tmp_path / "mine.py"
    text = Path(__file__).read_text()
    start = text.index("def train(")
    path.write_text("import os\n" + text[start : text.index("@pytest.fixture", start)])
    script = SCRIPT.format(
        run=f"{path}:train", address=address, out=str(tmp_path / "out"), more=list(more)
    )
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )


def test_a_worker_that_dies_leaves_standard_output_to_the_result(two_nodes, tmp_path):
    more = ("-O", f"notes={tmp_path}", "-O", "trouble=once")
    output, errors = command(tmp_path, two_nodes.address, *more).communicate(timeout=LIMIT)
    assert len(json.loads(output)["runs"]) == 40
    assert "is repeated" in errors
    assert "raylet" not in errors


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_runs_and_keeps_what_finished(sent, two_nodes, tmp_path):
    process = command(tmp_path, two_nodes.address, "-O", "seconds=0.4", "-O", f"notes={tmp_path}")
    deadline = time.monotonic() + LIMIT
    while len(list(tmp_path.glob("*-*"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "continue with: relucate compare" in errors
    assert 1 <= len(stored(tmp_path / "out" / "runs.sqlite")) < 20
    begun = set(tmp_path.glob("*-*"))
    time.sleep(1)
    assert set(tmp_path.glob("*-*")) == begun


def test_another_ray_than_the_clusters(two_nodes, data, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "1.0")
    setup = Setup(resolve(builder), data, address=two_nodes.address)
    with pytest.raises(InputError, match=r"1\.0.*the same versions of Python and Ray"):
        RayExecutor(setup).__enter__()
    assert not ray.is_initialized()

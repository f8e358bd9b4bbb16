"""The benchmark of a GPU runs, in small, on a CPU, so that it works where there is a GPU."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_every_table_of_the_gpu_benchmark(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    y = np.arange(60) % 10
    np.savez(tmp_path / "few.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    out = tmp_path / "found.json"
    options = ["--smoke", "--rounds", "1", "--json", str(out)]
    options += ["--data", f"npz:{tmp_path / 'few.npz'}"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")
    found = json.loads(out.read_text())
    ours = {"relucate, same net", "relucate, Keras net"}
    assert all(
        {"bare loop", *ours} <= rows.keys() and all(rows[name]["ms_per_step"] > 0 for name in ours)
        for rows in found["step"].values()
    )
    assert found["32"]["runs"] == 4
    assert found["side"].keys() == {"1", "2"}
    assert [run["name"] for run in found["94"]["runs"]] == [
        "by hand, before, seed 0",
        "relucate, linear-norm-act, seed 0",
        "relucate, linear-act-norm, seed 0",
    ]
    assert all(0 <= run["end"] <= 1 for run in found["94"]["runs"])


def test_without_a_gpu_it_says_what_to_do():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "benchmarks/gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PyTorch sees no NVIDIA GPU: --smoke" in done.stderr

"""Everything follows the device of a model: `on_a_gpu`, in a process of its own.

PyTorch must know a device before its first backward pass in a process.
"""

import subprocess
import sys
from pathlib import Path


def test_on_a_gpu_real_or_pretended():
    file = Path(__file__).with_name("on_a_gpu.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parents[2])
    assert done.returncode == 0, done.stdout

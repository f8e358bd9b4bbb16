"""The environment of a worker process, on this machine or another: threads, memory, imports."""

from __future__ import annotations

import os
import sys

from ..backend import choose_backend

_KEPT = str(2**32)  # bytes: no block is larger


def variables(threads: int) -> dict[str, str]:
    """Return the environment variables of a worker, with the threads for every framework.

    By default glibc returns large free blocks to the system at once, which then zeroes every page
    of the next block: that takes a tenth of a training step, a third of an evaluation on a CPU.
    Here glibc keeps them, unless the user's environment decides (other systems don't read these
    variables).
    """
    count = str(threads)
    kept = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    environment = {
        **{name: os.environ.get(name, _KEPT) for name in kept},
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count),
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "agg",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS may give other bits in every run
        "PYTHONPATH": os.pathsep.join(import_path()),
        "KERAS_BACKEND": choose_backend(),  # this process's, also if it was set in code
    }
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return environment


def import_path() -> list[str]:
    """Return `sys.path` for another process, where "" would mean another folder."""
    return [path or os.getcwd() for path in sys.path]


def users_path() -> list[str]:
    """Return the part of `import_path` that isn't the interpreter's own: it is also elsewhere."""
    own = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    return [path for path in import_path() if not path.startswith(own)]


def own_gpu(gpus: tuple[str, ...], number: int) -> dict[str, str]:
    """Return the variable by which worker `number` sees one of the GPUs, in turn, and no other."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}

"""The environment of a worker process, on any machine: threads, memory, imports, versions."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata

from ..backend import choose_backend
from ..version import __version__

_KEPT = str(2**32)  # bytes: no block is larger
_TENSORFLOWS = ("tensorflow-cpu", "tensorflow-macos")  # other packages bring parts of it


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


def versions(
    used: Iterable[str] = (), always: Iterable[str] = ("relucate", "numpy")
) -> dict[str, str]:
    """Return the versions of the packages that compute: they are part of a run's identity.

    Args: used: the frameworks in use; other installed packages don't matter.
        always: packages that matter in any case.
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in (*always, *sorted(set(used))):
        version = _version(package)
        if version is not None:
            found[package] = version
    return found


def _version(package: str) -> str | None:
    """Return the version of an installed package; sklearn's is scikit-learn's.

    To find a distribution of another name, all that are installed have to be read.
    """
    if package == "relucate":  # on the path alone, it has no distribution
        return __version__
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    for name in _TENSORFLOWS if package == "tensorflow" else _distributions().get(package, ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()

"""Break each formula of the surgery once and see the tests go red: `python tests/mutations.py`.

Not collected by pytest: it takes some minutes and edits the source while it runs. Each entry is a
file, a piece of its text, and what stands there in the mutant. A mutant that no test sees is an
error of the tests; so is an entry whose text isn't there any more.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = [
    "tests/surgery/test_orders.py",
    "tests/properties/test_convert.py",
    "tests/properties/test_fold.py",
    "tests/api/test_transform.py",
]
MUTANTS = [
    ("surgery/convert.py", '"gamma": np.sqrt(variance + epsilon)', '"gamma": np.sqrt(variance)'),
    ("surgery/convert.py", '"beta": mean if carry is None else mean + carry', '"beta": mean'),
    ("surgery/convert.py", 'draft.drop_array(node.name, "bias")', "pass"),
    ("surgery/convert.py", "draft.sharing(node) != set(linears)", "False"),
    ("surgery/blocks.py", "if len(following) != 1 or name in graph.outputs:", "if False:"),
    (
        "surgery/blocks.py",
        "        if len(readers) != 1 or not added:\n            return name",
        "        return name",
    ),
    ("surgery/blocks.py", "    if len(shape) != len(old):", "    if False:"),
    (
        "surgery/channels.py",
        'return any(size > 1 for size in window) if padding == "same" else any(map(sum, padding))',
        "return False",
    ),
    ("surgery/channels.py", "if np.any(channels.scale < 0):", "if False:"),
    ("surgery/channels.py", "if channels.shifts and _counts_padding(node):", "if False:"),
    ("surgery/channels.py", 'elif node.op in {"add", "subtract"} and number:', "elif False:"),
    (
        "surgery/algebra.py",
        "return kernel * scale  # conv and dense: outputs last",
        "return kernel / scale",
    ),
    (
        "surgery/fold.py",
        "shift = channels.shift if bias is None else channels.scale * bias + channels.shift",
        "shift = channels.shift if bias is None else bias + channels.shift",
    ),
    ("surgery/rebuild.py", 'elif not redundant and "bias" not in node.arrays:', "elif False:"),
    ("surgery/rebuild.py", 'if redundant and "bias" in node.arrays:', "if False:"),
    ("surgery/rebuild.py", "norm.op in _BLENDS or (", 'norm.kind == "norm" or ('),
    ("surgery/rebuild.py", 'if old[0] == "act" and _makes_output(paths, linear):', "if False:"),
    (
        "surgery/verify.py",
        "relative = max(relative, gap / scale",
        "relative = max(0.0, 0.0 * gap / scale",
    ),
    ("keras/writer.py", 'changes["activation"] = "linear"', "pass"),
    (
        "keras/writer.py",
        "                _set(variable, self.graph.tensors[node.arrays[role]], node)",
        "                pass",
    ),
    ("torch/writer.py", "module.inplace = False\n\n    # A new", "pass\n\n    # A new"),
    ("torch/writing/tensors.py", "target.copy_(tensor_like", "target.add_(0 * tensor_like"),
    ("surgery/moments.py", "np.square(gap) * (self.count * len(values) / total)", "0"),
]


def survives(name, old, new):
    """Return whether all tests still pass with `old` replaced by `new`."""
    path = ROOT / "src" / "relucate" / name
    text = path.read_text()
    if old not in text:
        raise SystemExit(f"{name} has no {old!r} any more: update the list.")
    path.write_text(text.replace(old, new, 1))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not nightly and not slow"]
        return subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True).returncode == 0
    finally:
        path.write_text(text)


def main():
    """Print each mutant with what the tests say; exit with 1 if one survives."""
    alive = 0
    for name, old, new in MUTANTS:
        survived = survives(name, old, new)
        alive += survived
        print("ALIVE" if survived else "red  ", name, repr(old.strip()[:60]), flush=True)
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()

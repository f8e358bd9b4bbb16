"""Break each formula of the surgery once and see the tests go red: `python tests/mutations.py`.

Not collected by pytest: it takes some minutes. Each entry is a file, a piece of its text, and the
mutant's text in its place. A mutant is a copy of the source in a temporary folder. A mutant that
no test notices is an error of the tests; so is an entry whose text no longer exists. Words after
the command choose the mutants whose file or text has one of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = [
    "tests/surgery/test_borders.py",
    "tests/surgery/test_fold.py",
    "tests/surgery/test_orders.py",
    "tests/surgery/test_parallel.py",
    "tests/properties/test_convert.py",
    "tests/properties/test_fold.py",
    "tests/properties/test_names.py",
    "tests/api/test_transform.py",
    "tests/parity/test_fusion.py",
    "tests/keras/test_writer.py",
    "tests/torch/test_writer.py",
    "tests/test_affine.py",
    "tests/moments/test_running.py",
]
MUTANTS = [
    ("surgery/convert.py", '"gamma": np.sqrt(variance + epsilon)', '"gamma": np.sqrt(variance)'),
    ("surgery/convert.py", '"beta": mean if carry is None else mean + carry', '"beta": mean'),
    ("surgery/convert.py", 'draft.drop_array(node.name, "bias")', "pass"),
    ("surgery/convert.py", "draft.sharing(node) != set(linears)", "False"),
    ("surgery/blocks.py", "if len(following) != 1 or name in graph.outputs:", "if False:"),
    ("surgery/blocks.py", "draft.readers(tail)] == [name]:", "draft.readers(tail)] == [None]:"),
    ("surgery/blocks.py", "    if len(shape) != len(old):", "    if False:"),
    (
        "surgery/channels.py",
        'return adds_zeros(padding) and (padding != "same" or any(size > 1 for size in window))',
        "return False",
    ),
    ("surgery/channels.py", "np.any(channels.scale < 0):", "False:"),
    ("surgery/channels.py", 'if shift == "borders" and channels.shifts:', "if False:"),
    ("surgery/channels.py", 'elif node.operation.shift != "commutes" and number:', "elif False:"),
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
    ("surgery/fold.py", "own.scale * channels.shift + own.shift", "channels.shift + own.shift"),
    ("surgery/parallel.py", "weight / factor", "weight * factor"),
    ("surgery/parallel.py", "tap.append(before // step)", "tap.append(size // 2)"),
    ("surgery/parallel.py", "or before % step:", "and False:"),
    ("surgery/algebra.py", "outputs % kernel.shape[-2], outputs", "0 * outputs, outputs"),
    ("surgery/rebuild.py", 'elif not redundant and "bias" not in node.arrays:', "elif False:"),
    ("surgery/rebuild.py", 'if redundant and "bias" in node.arrays:', "if False:"),
    ("surgery/rebuild.py", "norm.centers_channels and axis", 'norm.kind == "norm" and axis'),
    ("surgery/rebuild.py", 'if old[0] == "act" and _makes_output(paths, linear):', "if False:"),
    (
        "surgery/verify.py",
        "relative = max(relative, gap / scale",
        "relative = max(0.0, 0.0 * gap / scale",
    ),
    # The shift's sign; rounding before the product; through the activation; without its border.
    ("affine.py", "shift = -mean64 * scale", "shift = mean64 * scale"),
    ("affine.py", "scale = scale * np", "scale = scale.astype(np.float32) * np"),
    (
        "surgery/draft.py",
        "        self.tensors[key] = np.asarray(value, np.float64)\n\n    def drop",
        "        self.tensors[key] = np.asarray(value, np.float32)\n\n    def drop",
    ),
    ("graph/ops.py", 'scale="positive", not_lowered="axis"', '**_SAME, not_lowered="axis"'),
    ("surgery/channels.py", "part = channels.unshifted()", "pass"),
    ("surgery/borders.py", "np.ones((1, *spatial, 1))", "np.zeros((1, *spatial, 1))"),
    ("surgery/borders.py", 'attrs = {"scale": 0.0, "offset": 1.0}', 'attrs = {"scale": 0.0}'),
    ("surgery/borders.py", "channels.shift / scale", "channels.shift * scale"),
    ("surgery/borders.py", "one.scale * two.scale, one.shift + two.shift", "two.scale, two.shift"),
    ("surgery/convert.py", "check_crossing(draft.source, paths, site, wanted)", "pass"),
    ("surgery/rebuild.py", "sizes.append(fit(draft, paths, site, wanted))", "pass"),
    ("surgery/blocks.py", "if not _same_rank(draft.source", "if False and (draft.source"),
    ("keras/writing/writer.py", '{"activation": "linear"} if', "{} if"),
    (
        "keras/writing/weights.py",
        "            _set(variable, graph.tensors[node.arrays[role]], node)",
        "            pass",
    ),
    ("torch/writing/edits.py", "module.inplace = False\n\n    def _al", "pass\n\n    def _al"),
    ("torch/writing/tensors.py", "target.copy_(tensor_like", "target.add_(0 * tensor_like"),
    # What is refused, what a scale and shift pass, and how they are seen there.
    ("graph/conventions.py", "Conventions(True, False, True)", "Conventions(True, False, False)"),
    ("surgery/fold.py", "else scale * offset + shift", "else offset + shift"),
    ("surgery/fold.py", "first.equals(other)", "True"),
    ("surgery/borders.py", "return lost if norm.is_masked(norm.calls)", "return lost if False"),
    ("surgery/borders.py", "a.border or a.node in meets", "a.border"),
    ("surgery/borders.py", "key=lambda border: border.cost(norm)", "key=lambda border: 0"),
    (
        "surgery/channels.py",
        "inner = behind(draft, node.inputs[0], channels.unshifted())",
        "inner = []",
    ),
    (
        "surgery/channels.py",
        "if what.spatial and channels.axis",
        "if False and channels.axis",
    ),
    ("surgery/channels.py", 'node.attrs.get("forced") and (', "False and ("),
    (
        "surgery/channels.py",
        "(before, after), constant_values=1.0)",
        "(after, before), mode='edge')",
    ),
    ("surgery/channels.py", "if np.count_nonzero(inner.shift) <", "if False and 0 <"),
    ("surgery/channels.py", "if any(_padding_of(pad, channels.axis)):", "if False:"),
    ("surgery/channels.py", "if len(node.inputs) != 1 or node.op ==", "if node.op =="),
    ("surgery/blocks.py", "if node.operation.mixes and not is_function(node):", "if False:"),
    ("surgery/blocks.py", "draft.users(node, role) - set(calls)", "()"),
    ("surgery/blocks.py", "    if len(found) > 1:", "    if False:"),
    ("surgery/blocks.py", "(groups == was) != (groups == size)", "False"),
    (
        "surgery/blocks.py",
        'if name and graph.nodes[name].attrs.get("time_distributed"):',
        "if False:",
    ),
    (
        "surgery/blocks.py",
        "paths.front(paths.graph.nodes[site.linears[0]]).name",
        "site.linears[0]",
    ),
    ("surgery/sites.py", "norm.lone_act = norm.prev_act", "pass"),
    ("surgery/sites.py", "(paths.whole(end.node) for end", "(end.node for end"),
    ("surgery/convert.py", "outcome = replace(outcome, new=new, reason=reason)", "pass"),
    ("surgery/rebuild.py", 'if attrs.get("renorm"):', "if False:"),
    ("surgery/rebuild.py", 'if attrs.get("forced") is True', "if False"),
    ("keras/writing/weights.py", "            _restore_variables(old, new)", "            pass"),
    ("moments/running.py", "+ g**2 * (a * b / n)", ""),
    ("moments/running.py", "3 * g * (a * other.m2 - b * self.m2) / n", "0"),
]


def survives(name, old, new):
    """Return whether all tests still pass with `old` replaced by `new`."""
    text = (ROOT / "src" / "relucate" / name).read_text()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src", folder, dirs_exist_ok=True)
        (Path(folder) / "relucate" / name).write_text(text.replace(old, new, 1))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not nightly and not slow"]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run([*command, *TESTS], cwd=ROOT, env=environment, capture_output=True)
    return done.returncode == 0


def main():
    """Print each mutant with what the tests say; exit with 1 if one survives."""
    words, alive = sys.argv[1:], 0
    for name, old, _ in MUTANTS:
        if old not in (ROOT / "src" / "relucate" / name).read_text():
            sys.exit(f"{name} has no {old!r} any more: update the list.")
    for name, old, new in MUTANTS:
        if words and not any(word in name or word in old for word in words):
            continue
        survived = survives(name, old, new)
        alive += survived
        print("ALIVE" if survived else "red  ", name, repr(old.strip()[:60]), flush=True)
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()

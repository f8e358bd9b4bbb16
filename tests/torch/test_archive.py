"""A .pt2 archive that would run code is refused before PyTorch loads it."""

import io
import json
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from relucate.errors import InputError
from relucate.torch.archive import _check_expression, _check_target, _Unsafe
from relucate.torch.running import export, load_exported


class Runs:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture
def saved(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    export(net.eval(), tmp_path / "net.pt2", (2, 3, 8, 8))
    return tmp_path / "net.pt2"


def changed(path, **changes):
    """Write the archive again; `changes` maps the end of a member's name to what it becomes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for ending, change in changes.items():
        (name,) = [name for name in members if name.endswith(ending.replace("__", "/"))]
        members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def in_json(edit):
    def change(content):
        plain = json.loads(content)
        edit(plain)
        return json.dumps(plain).encode()

    return change


def pickled(marker):
    stream = io.BytesIO()
    torch.save((Runs(marker),), stream)
    return stream.getvalue()


def refused(path, marker, what):
    with pytest.raises(InputError, match=what):
        load_exported(path)
    assert not marker.exists()


def test_a_pickle_as_sample_inputs(saved, tmp_path):
    marker = tmp_path / "marker"
    changed(saved, **{"sample_inputs__model.pt": lambda _: pickled(marker)})
    refused(saved, marker, r"holds pickled objects besides tensors.*could run code")


def test_weights_marked_as_pickles(saved, tmp_path):
    marker = tmp_path / "marker"

    def mark(plain):
        for payload in plain["config"].values():
            payload["use_pickle"] = True

    edits = {"weights_config.json": in_json(mark), "weight_0": lambda _: pickled(marker)}
    changed(saved, **edits)
    refused(saved, marker, "marked as pickled")


@pytest.mark.parametrize("prefix", ["custom_obj_0", "opaque_obj_0"])
def test_constants_that_are_pickled_objects(saved, tmp_path, prefix):
    marker = tmp_path / "marker"

    def add(plain):
        plain["config"]["c"] = {"path_name": prefix, "is_param": False, "use_pickle": False}

    changed(saved, **{"constants_config.json": in_json(add)})
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(f"net/data/constants/{prefix}", pickle.dumps(Runs(marker)))
    refused(saved, marker, "pickled object")


def test_guards_are_left_out(saved, tmp_path):
    marker = tmp_path / "marker"
    guard = f"open({str(marker)!r}, 'w') is not None"
    changed(saved, **{"models__model.json": in_json(lambda p: p.update(guards_code=[guard]))})
    model, example = load_exported(saved)
    model(example)
    assert not marker.exists()


def test_calls_of_other_functions(saved, tmp_path):
    marker = tmp_path / "marker"

    def call(plain):
        node = plain["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.serialization.os.system"

    changed(saved, **{"models__model.json": in_json(call)})
    refused(saved, marker, "no operator of PyTorch")


def test_names_that_are_code(saved, tmp_path):
    marker = tmp_path / "marker"

    def rename(plain):
        (signature, *_) = plain["graph_module"]["module_call_graph"]
        signature["signature"]["forward_arg_names"] = [f"x=open({str(marker)!r}, 'w')"]

    changed(saved, **{"models__model.json": in_json(rename)})
    refused(saved, marker, "isn't a Python name")


def test_modules_to_import(saved, tmp_path):
    def name(plain):
        (call, *_) = plain["graph_module"]["module_call_graph"]
        hidden = json.dumps({"__enum__": True, "fqn": "antigravity:A", "name": "a"})
        call["signature"]["in_spec"] = json.dumps([1, {"type": None, "context": hidden}])

    changed(saved, **{"models__model.json": in_json(name)})
    refused(saved, tmp_path / "marker", "name a Python module to import")


def test_two_members_of_one_name(saved, tmp_path):
    with zipfile.ZipFile(saved, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(archive.namelist()[0].upper(), b"")
    refused(saved, tmp_path / "marker", "two files of the same name")


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s31', positive=True, integer=True)",
        "2*s0 + 1",
        "Max(1, FloorDiv(s1 - 1, 2))",
        "And(Eq(s0, 4), s1 < 3)",
    ],
)
def test_sizes_are_arithmetic(text):
    _check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')",
        "exec(chr(1))",
        "Max('open(1)', 2)",
        "Symbol('s0').__class__",
        "[x for x in (1,)]",
        "lambda: 0",
        "s0.real",
        "(((",
    ],
)
def test_sizes_that_are_code(text):
    with pytest.raises(_Unsafe):
        _check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.higher_order.cond",
        "_operator.add",
        "math.floor",
        "torch.sym_max",
    ],
)
def test_operators_may_be_called(text):
    _check_target(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch.ops.load_library",
        "torch.ops.aten.__class__.x",
        "torch.hub.load",
        "_operator.methodcaller",
        "_operator.os.system",
        "torch.serialization.os.system",
        "math.os.x",
    ],
)
def test_other_functions_may_not(text):
    with pytest.raises(_Unsafe):
        _check_target(text)

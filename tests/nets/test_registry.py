import subprocess
import sys

import pytest

from relucate import nets
from relucate.errors import InputError


def test_the_list():
    assert list(nets.NETS) == ["cnn", "vgg", "caffenet", "inception_v3", "mlp", "bn_paper_mlp"]


@pytest.mark.parametrize("name", nets.NETS)
def test_every_net_has_a_summary_and_the_same_options(name):
    assert nets.summary(name).endswith(".") or nets.summary(name)
    shared = ["act", "norm", "width", "depth", "dropout", "init", "bias"]
    if name == "inception_v3":  # its depth is what it is
        shared = ["act", "norm", "width", "dropout", "init", "bias", "edition"]
    if name == "caffenet":
        shared = ["act", "norm", "width", "affine", "dropout", "fc_dropout", "init", "bias"]
    assert list(nets.options(name)) == shared


def test_defaults():
    assert nets.options("bn_paper_mlp") == {
        "act": "sigmoid",
        "norm": "batch",
        "width": 100,
        "depth": 3,
        "dropout": 0.0,
        "init": "small_normal",
        "bias": "rule",
    }


def test_unknown_net():
    with pytest.raises(InputError, match=r"unknown net 'vg': did you mean 'vgg'. Choose from: cnn"):
        nets.find("vg")


def test_unknown_option():
    with pytest.raises(
        InputError, match="unknown option of net 'cnn' 'widht': did you mean 'width'"
    ):
        nets.check_options("cnn", {"widht": 3})


@pytest.mark.parametrize(
    ("given", "typed"),
    [("16", 16), (16, 16), (16.0, 16)],
)
def test_numbers_may_come_as_text(given, typed):
    checked = nets.check_options("cnn", {"width": given})["width"]
    assert (checked, type(checked)) == (typed, int)
    assert nets.check_options("cnn", {"dropout": "0.5"}) == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("width", "wide", "option width of net 'cnn' must be of type int, got 'wide'"),
        ("width", 2.5, "whole number above 0, got 2.5"),
        ("width", 0, "whole number above 0, got 0"),
        ("depth", -1, "whole number above 0, got -1"),
        ("width", float("inf"), "of type int, got inf"),
        ("width", True, "of type int, got True"),
        ("width", None, "of type int, got None"),
        ("dropout", "much", "option dropout of net 'cnn' must be of type float, got 'much'"),
        ("act", 3, "option act of net 'cnn' must be of type str, got 3"),
    ],
)
def test_ill_typed_options(option, value, message):
    with pytest.raises(InputError, match=message):
        nets.check_options("cnn", {option: value})


def test_listing_the_nets_imports_no_framework():
    code = "import sys, relucate.nets as n; n.options('cnn'); n.summary('vgg')\n"
    code += "assert not {'keras', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

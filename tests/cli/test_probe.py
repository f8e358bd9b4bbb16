"""`relucate probe`: table, JSON, options, errors."""

import json
import textwrap

import numpy as np
import pytest
from PIL import Image

NETS = """
    def deep():
        import keras
        from keras import layers as kl

        x = image = keras.Input((64,))
        for number in range(25):
            x = kl.BatchNormalization(name=f"norm{number}")(kl.Dense(4)(x))
            x = kl.ReLU()(x)
        return keras.Model(image, kl.Dense(2)(x))

    def scaled():
        import keras
        from keras import layers as kl

        x = image = keras.Input((8, 8, 1))
        x = kl.Conv2D(4, 3)(kl.Rescaling(1 / 16)(x))
        return keras.Model(image, kl.ReLU()(kl.BatchNormalization(name="norm")(x)))

    def module_of_classes():
        from torch import nn

        first = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
        return nn.Sequential(*first, nn.Flatten(), nn.Linear(144, 10))

    def no_norm():
        from torch import nn

        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    def module():
        from torch import nn

        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(textwrap.dedent(NETS))
    return lambda name: f"{path}:{name}"


def test_the_table_fits_80_columns_and_says_what_was_used(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call("probe", "mlp", "--data", "digits", "--images", "200", "-O", "width=16")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "mlp (keras): 3 norms" in out
    assert "200 of the 1,437 training examples, standardised as in compare." in out
    assert "Behind relu the values are more skewed" in out


def test_json_is_one_document(call):
    _, out, _ = call(
        "probe", "mlp", "--data", "digits", "--format", "json", "--site", "block2", "--raw"
    )
    document = json.loads(out)
    assert document["schema"] == "relucate.probe/1"
    assert [site["name"] for site in document["sites"]] == ["block2_bn"]
    assert document["data"] == "digits: 512 of the 1,437 training examples, not standardised"


def test_many_sites_are_grouped_unless_all_are_wanted(call, net, tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 64)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 2)
    given = ["probe", net("deep"), "--data", f"npz:{tmp_path / 'data.npz'}"]
    _, grouped, _ = call(*given)
    _, every, _ = call(*given, "--all")
    assert "linear-norm" in grouped
    assert "norm24" not in grouped
    assert "norm24" in every


def test_a_torch_module_needs_no_shape(call, net):
    _, out, _ = call("probe", net("module"), "--data", "digits", "--images", "100")
    assert "1 norm, 3 points, 100 examples" in out


def test_a_model_that_scales_its_inputs_gets_them_raw(call, net):
    _, out, _ = call("probe", net("scaled"), "--data", "digits", "--images", "100")
    assert "not standardised, because the model scales them itself" in " ".join(out.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--site", "zzz"], "block1_bn"),
        (["--images", "1"], "--images must be at least 2"),
        (["--batch", "0"], "batch"),
        (["--input-shape", "9"], "don't fit the model"),
    ],
)
def test_bad_input_is_one_line(call, given, message):
    code, _, error = call("probe", "mlp", "--data", "digits", *given)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_gradients_take_the_labels_of_the_data(call, net):
    given = ["probe", net("module_of_classes"), "--data", "digits", "--images", "100"]
    code, out, err = call(*given, "--gradients", "--format", "json")
    assert code == 0, err
    document = json.loads(out)
    assert {p["node"] for p in document["gradients"]} == {p["node"] for p in document["points"]}
    _, out, _ = call(*given)
    assert "gradients of each" not in out


def test_fewer_images_than_classes_are_still_so_many(call, net):
    _, out, _ = call("probe", net("module"), "--data", "digits", "--images", "5")
    assert "1 norm, 3 points, 5 examples" in out
    assert "5 of the 1,437 training examples" in out


def test_a_folder_is_read_with_the_options_of_compare(call, net, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        side = 8 + number % 3
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(path)
    given = ["probe", net("module"), "--data", f"folder:{tmp_path / 'images'}"]
    code, out, err = call(*given, "--size", "9", "--grayscale")
    assert code == 0, err
    assert "1 norm, 3 points, 32 examples" in out
    code, _, err = call(*given)
    assert code == 2
    assert "--size" in err or "size=" in err


def test_without_norms_the_table_has_no_columns_of_them(call, net):
    given = ["probe", net("no_norm"), "--data", "digits", "--images", "100", "--gradients"]
    _, out, _ = call(*given)
    assert "norm reads" not in " ".join(out.split())
    assert "norm in" not in out
    assert "what the next layer reads" in " ".join(out.split())
    _, out, _ = call(*["probe", net("module_of_classes"), *given[2:]])
    assert "norm in" in out

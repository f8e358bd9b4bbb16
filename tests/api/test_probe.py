"""relucate.probe: measured values, roles, claims that follow the data, and bad input."""

import json

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from scipy import stats
from torch import nn

import relucate
from relucate.errors import InputError
from relucate.moments.sample import MOST

ROLES = ["linear", "norm_in", "norm_out", "act_in", "act_out", "next"]


def chain(order="before", act="relu", width=6):
    """Two blocks of a convolutional net with random statistics, and a head."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    for number in (1, 2):
        norm, activation = kl.BatchNormalization(name=f"norm{number}"), kl.Activation(act)
        x = kl.Conv2D(width, 3, padding="same", name=f"conv{number}")(x)
        for layer in (norm, activation) if order == "before" else (activation, norm):
            x = layer(x)
    return keras.Model(image, kl.Dense(4)(kl.Flatten()(x)))


def images(n=128, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def torch_chain():
    torch.manual_seed(0)
    steps = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3)]
    return nn.Sequential(*steps).eval()


@pytest.mark.parametrize("batch", [1, 7, 128])
def test_the_figures_are_those_of_the_values(batch):
    model, x = chain(), images()
    report = relucate.probe(model, x, batch=batch)
    inner = keras.Model(model.input, model.get_layer("norm1").output)
    values = keras.ops.convert_to_numpy(inner(x, training=False)).reshape(-1, 6).astype(float)
    seen = report["norm1"]
    assert seen.count == 128 * 64
    assert seen.kept == MOST
    found = seen.statistics
    np.testing.assert_allclose(found["mean"], values.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["variance"], values.var(0), rtol=1e-5)
    np.testing.assert_allclose(found["skewness"], stats.skew(values), atol=1e-5)
    np.testing.assert_allclose(found["kurtosis"], stats.kurtosis(values), atol=1e-4)
    np.testing.assert_allclose(found["q50"], np.median(values, 0), atol=0.2)


def test_batches_change_nothing():
    one, other = (relucate.probe(chain(), images(), batch=batch).to_dict() for batch in (5, 64))
    for a, b in zip(one["points"], other["points"], strict=True):
        for name, values in a["statistics"].items():
            floats = [np.array(v, float) for v in (values, b["statistics"][name])]
            np.testing.assert_allclose(*floats, rtol=2e-4, atol=2e-4, err_msg=name)


def test_a_value_with_two_roles_is_measured_once():
    report = relucate.probe(chain(), images())
    nodes = [point.node for point in report.points]
    assert len(nodes) == len(set(nodes)) == 7  # conv, norm, relu, twice, and the flat input
    assert report["norm1"].roles == (("norm1", "norm_out"), ("norm1", "act_in"))
    assert report["conv1"].roles == (("norm1", "linear"), ("norm1", "norm_in"))
    assert all(set(site.points) == set(ROLES) for site in report.sites)


def test_torch_and_keras_see_the_same():
    model, x = torch_chain(), images()
    image = keras.Input((8, 8, 3))
    y = kl.Conv2D(6, 3, name="c")(image)
    y = kl.ReLU()(kl.BatchNormalization(epsilon=1e-5, name="n")(y))
    twin = keras.Model(image, kl.Conv2D(4, 3, name="d")(y))
    for name, place in (("c", 0), ("d", 3)):
        kernel = model[place].weight.detach().numpy().transpose(2, 3, 1, 0)
        twin.get_layer(name).set_weights([kernel, model[place].bias.detach().numpy()])
    one = relucate.probe(model, np.moveaxis(x, -1, 1))
    other = relucate.probe(twin, x)
    for a, b in zip(one.points, other.points, strict=True):
        assert [role for _, role in a.roles] == [role for _, role in b.roles]
        for name in ("mean", "skewness", "q15", "zeros", "normal_distance"):
            np.testing.assert_allclose(a.statistics[name], b.statistics[name], atol=2e-3)


def claim(report, name):
    return next(row for row in report.to_dict()["claims"] if row["claim"] == name)


def test_relu_skews_and_the_claim_says_by_how_much():
    found = claim(relucate.probe(chain(), images()), "skewed")
    assert (found["sites"], found["more"], found["act_op"]) == (2, 2, "relu")
    assert found["after"] > 3 * found["before"]
    assert f"{found['after']:.2f} against {found['before']:.2f}" in found["text"]
    assert "2 of 2 sites" in found["text"]


def test_a_claim_falls_the_other_way_where_the_data_do():
    model, x = chain(act="tanh"), np.exp(2 * images())  # skewed inputs; tanh bounds them
    found = claim(relucate.probe(model, x), "skewed")
    assert found["after"] < found["before"]
    assert f"in {found['more']} of 2 sites" in found["text"]
    assert found["more"] < 2


def test_tanh_behind_a_large_one_sided_input_is_saturated():
    model = chain("after", "tanh")
    for number in (1, 2):
        model.get_layer(f"conv{number}").bias.assign(np.full(6, 4.0))
    found = claim(relucate.probe(model, images()), "saturated")
    assert found["saturation"] > 0.9
    assert found["asymmetry"] > 0.9
    weak = claim(relucate.probe(chain("after", "tanh"), 0.01 * images()), "saturated")
    assert weak["saturation"] < 0.1
    relu = relucate.probe(chain(), images()).to_dict()["claims"]
    assert "saturated" not in {row["claim"] for row in relu}


def test_dead_channels_are_found_behind_a_norm_too():
    model = chain("after")
    bias = np.zeros(6)
    bias[:2] = -1e3
    model.get_layer("conv1").bias.assign(bias)
    report = relucate.probe(model, images())
    assert report["norm1"].statistics["constant"].tolist() == [True] * 2 + [False] * 4
    found = claim(report, "dead")
    assert found["dead"] == 2
    assert found["channels"] == 12


def test_without_norms_the_activations_are_looked_at():
    image = keras.Input((8,))
    net = keras.Model(image, kl.Dense(3)(kl.Dense(5, activation="relu", name="fused")(image)))
    report = relucate.probe(net, images(shape=(8,)))
    (site,) = report.sites
    assert site.points == {"linear": "fused", "act_in": "fused"} | dict.fromkeys(
        ("act_out", "next"), "fused/relu"
    )
    assert "no norms" in str(report)
    assert report["fused"].statistics["min"].min() < 0


class Opaque(keras.layers.Layer):
    def call(self, x):
        return keras.ops.cumsum(x, axis=1)


def test_an_opaque_layer_is_said_and_the_others_go_on():
    image = keras.Input((8,))
    y = kl.BatchNormalization(name="norm")(Opaque(name="strange")(kl.Dense(4)(image)))
    report = relucate.probe(keras.Model(image, kl.Dense(2)(kl.ReLU()(y))), images(shape=(8,)))
    assert any("strange" in text for text in report.warnings)
    assert len(report["norm"].statistics["mean"]) == 4
    assert report.unseen == ()


def test_what_cannot_be_seen_is_said():
    image = keras.Input((8, 8, 3))
    row = keras.Input((8, 3))
    x = kl.ReLU()(kl.BatchNormalization()(kl.Dense(4)(row)))
    inner = keras.Model(row, keras.ops.cumsum(x, axis=1))  # so it can't be taken apart
    model = keras.Model(image, kl.Dense(2)(kl.TimeDistributed(inner)(image)))
    report = relucate.probe(model, images())
    assert [name.rpartition("/")[2][:5] for name in report.unseen] == [
        "dense",
        "batch",
        "re_lu",
    ]
    assert "Not seen" in str(report)
    assert not report.points


@pytest.mark.parametrize("few", [2, 29, 95, 96])
def test_few_examples_are_said(few):
    report = relucate.probe(chain(), images(few))
    assert any("aren't reliable" in text for text in report.warnings) == (few < 96)
    assert any("quantiles" in text for text in report.warnings) == (few < 30)


def test_nan_inside_names_the_layer_and_the_first_batch():
    model, x = torch_chain(), images()
    x = np.moveaxis(x, -1, 1).copy()
    x[70] = 3e38
    with torch.no_grad():
        model[0].weight *= 100  # so that the convolution overflows
    with pytest.raises(InputError, match=r"'0' .*isn't finite, first in batch 4 \(examples 64 to"):
        relucate.probe(model, x, batch=16)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (images(shape=(8, 8, 2)), {}, r"expected \('n', 8, 8, 3\), got \(128, 8, 8, 2\)"),
        (images(1), {}, "one example"),
        (images() * np.nan, {}, "finite"),
        (images(), {"site": "x9"}, "norm1, norm2"),
        (images(), {"batch": 0}, "batch"),
    ],
    ids=["shape", "one", "nan", "site", "batch"],
)
def test_bad_input(data, options, message):
    with pytest.raises(InputError, match=message):
        relucate.probe(chain(), data, **options)


def test_the_model_is_unchanged():
    model = torch_chain().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    relucate.probe(model, np.moveaxis(images(), -1, 1))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_document_is_json_and_complete():
    report = relucate.probe(chain(), images())
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["schema"] == "relucate.probe/1"
    nodes = {point["node"] for point in document["points"]}
    assert {n for site in document["sites"] for n in site["points"].values()} == nodes
    for point in document["points"]:
        rows = point["statistics"]
        assert {len(values) for values in rows.values()} == {point["channels"]}
        assert all(sum(counts) == point["kept"] for counts in rows["histogram"])
        assert len(rows["histogram"][0]) == len(document["edges"]) + 1


def test_an_unknown_point_or_picture():
    report = relucate.probe(chain(), images())
    with pytest.raises(InputError, match="no point 'x': conv1"):
        report["x"]
    with pytest.raises(InputError, match="unknown plot 'pie'"):
        report.plot("pie")


def test_inputs_too_wide_for_a_covariance_are_said():
    image = keras.Input((4,))
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(kl.Dense(600, name="wide")(image)))
    report = relucate.probe(keras.Model(image, kl.Dense(2)(x)), images(shape=(4,)))
    assert any("effective rank: not measured" in text for text in report.warnings)
    assert all(point.rank is None for point in report.points)


def test_the_effective_rank_is_that_of_what_the_next_layer_reads():
    model, x = chain(), images()
    report = relucate.probe(model, x)
    node = report.sites[0].points["next"]
    inner = keras.Model(model.input, model.get_layer("conv2").input)
    rows = keras.ops.convert_to_numpy(inner(x, training=False)).reshape(-1, 6).astype(float)
    p = np.linalg.eigvalsh(np.cov(rows.T))
    p = p[p > 0] / p.sum()
    assert report[node].rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_kim_et_al_is_said_of_norms_behind_a_bounded_activation():
    found = claim(relucate.probe(chain("after", "tanh"), images()), "sparse")
    assert "Kim et al., 2023" in found["text"]
    assert f"in {found['more']} of 2 sites" in found["text"]
    before = relucate.probe(chain("before", "tanh"), images()).to_dict()["claims"]
    assert "sparse" not in {row["claim"] for row in before}


@pytest.mark.parametrize("data", ["digits", (x for x in ()), 3.0, None])
def test_data_that_are_no_arrays_are_refused(data):
    with pytest.raises(InputError, match="data must be an array with the examples along its first"):
        relucate.probe(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), data)

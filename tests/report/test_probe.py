"""A probe as text, HTML and a picture."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from markupsafe import escape

import relucate
from relucate.report.probe import channels_svg, gradient_table, probe_html, table


@pytest.fixture(scope="module")
def report():
    keras.utils.set_random_seed(0)
    x = image = keras.Input((6, 6, 2))
    for name in ("<b>1", "two"):
        x = kl.BatchNormalization(name=name)(kl.Conv2D(4, 3, padding="same")(x))
        x = kl.ReLU()(x)
    model = keras.Model(image, kl.Conv2D(2, 1)(x))
    data = np.random.default_rng(0).standard_normal((100, 6, 6, 2))
    return relucate.probe(model, data)


def test_a_row_has_the_sites_figures(report):
    header, rows = table(report.to_dict())
    row = dict(zip(header, rows[1], strict=True))
    summaries = {point.node: point.summary for point in report.points}
    points = report.sites[1].points
    assert row["norm"] == "two"
    assert row["skew\nbehind"] == f"{summaries[points['act_out']]['skewness']:.2f}"
    assert row["norm\nreads"] == f"{summaries[points['norm_in']]['normal_distance']:.2f}"
    assert row["zeros"] == f"{100 * summaries[points['next']]['zeros']:.0f} %"
    assert row["dead"] == f"{summaries[points['act_out']]['dead']}/4"


def test_html_escapes_names_and_has_the_picture(report):
    html = probe_html(report.to_dict())
    assert "<b>1" not in html
    assert "&lt;b&gt;1" in html
    assert html.count("<svg") == 1
    for claim in report.claims:
        assert escape(claim) in html


def test_the_picture_draws_the_medians(report):
    axes = report.plot()
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"norm reads", "next layer reads"}
    for role, label in (("norm_in", "norm reads"), ("next", "next layer reads")):
        wanted = [report[site.points[role]].summary["skewness"] for site in report.sites]
        np.testing.assert_allclose(lines[label].get_ydata(), wanted, rtol=1e-4)
    colours = {line.get_color() for line in lines.values()}
    assert len(colours) == len({line.get_marker() for line in lines.values()}) == 2


def test_it_draws_on_given_axes(report):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert report.plot("channels", ax=axes) is axes


def test_the_svg_takes_the_pages_colours(report):
    svg = channels_svg(report.to_dict())
    assert "var(--arm-0" in svg
    assert "Skewness of the channels by depth" in svg


def test_the_rank_of_what_the_next_layer_reads_is_shown(report):
    header, rows = table(report.to_dict())
    last = report[report.sites[1].points["next"]]
    assert 1 <= last.rank <= 4
    assert dict(zip(header, rows[1], strict=True))["rank"] == f"{last.rank:.1f}"
    assert report[report.sites[0].points["linear"]].rank is None


@pytest.fixture(scope="module")
def backed():
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)]
    x = np.random.default_rng(0).standard_normal((100, 6))
    return relucate.probe(nn.Sequential(*layers), x, gradients=True, labels=np.arange(100) % 3)


def test_gradients_have_a_table(report, backed):
    assert gradient_table(report.to_dict()) is None
    header, ((*cells,),) = gradient_table(backed.to_dict())
    found = {point.node: point.summary["rms"] for point in backed.gradients}
    points = backed.sites[0].points
    row = dict(zip(header, cells, strict=True))
    assert row["norm out"] == f"{found[points['norm_out']]:.1e}"
    assert row["next"] == f"{found[points['next']]:.1e}"
    assert "gradients of each" in str(backed)
    assert "gradients of each" in probe_html(backed.to_dict())
    assert "gradients of each" not in str(report)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["channels", "dead", "distributions", "drift"])
def test_every_picture_is_svg_and_png_light_and_dark(report, kind, dark, tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    assert report.plot(kind, axes, others=[report], dark=dark) is axes
    for ending in ("svg", "png"):
        figure.savefig(tmp_path / f"{kind}.{ending}")


def test_distributions_are_side_by_side_and_are_the_samples(report):
    from matplotlib.figure import Figure

    axes = report.plot("distributions", Figure().subplots(), others=[report])
    assert len(axes.child_axes) == 2 * len(report.sites)
    seen = report[report.sites[0].points["norm_in"]]
    wanted = seen.statistics["histogram"].sum(0) / seen.statistics["histogram"].sum()
    filled = [patch for patch in axes.child_axes[0].patches if patch.get_fill()]
    np.testing.assert_allclose(filled[0].get_data().values, wanted, rtol=1e-6)


def test_dead_channels_by_depth_are_shares():
    image = keras.Input((6,))
    x = kl.BatchNormalization(name="norm")(kl.Dense(4, name="first")(image))
    model = keras.Model(image, kl.Dense(2, name="last")(kl.ReLU()(x)))
    model.get_layer("norm").beta.assign([-99.0, 0.0, 0.0, 0.0])
    from matplotlib.figure import Figure

    report = relucate.probe(model, np.random.default_rng(0).standard_normal((100, 6)))
    axes = report.plot("dead", Figure().subplots())
    (line,) = axes.get_lines()
    assert line.get_ydata().tolist() == [25.0]

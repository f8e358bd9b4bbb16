"""A probe as text, HTML and a picture."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from markupsafe import escape

import relucate
from relucate.report.probe import channels_svg, probe_html, table


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

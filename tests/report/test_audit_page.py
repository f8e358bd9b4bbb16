"""The audit as a page of its own, as a map alone, and in a notebook."""

import keras
import pytest
from keras import layers as kl

import relucate
from relucate.errors import InputError


@pytest.fixture(scope="module")
def report():
    image = keras.Input((8, 8, 3))
    x = kl.BatchNormalization(name="<b>first")(kl.Conv2D(4, 3, name="conv")(image))
    x = kl.ReLU()(x)
    x = kl.BatchNormalization(name="second")(kl.ReLU()(kl.Conv2D(4, 3)(x)))
    return relucate.audit(keras.Model(image, x))


def test_the_page_has_the_map_the_norms_and_the_findings(report, tmp_path):
    text = report.report(tmp_path / "new" / "audit.html").read_text()
    assert text.count('class="map"') == 1
    assert "<b>first" not in text
    assert "&lt;b&gt;first" in text
    for finding in report.findings:
        assert finding.code in text
    assert "1 before the activation" in text
    assert "1 after the activation" in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "<script" not in text


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_the_map_alone(report, tmp_path, ending, start):
    assert report.report(tmp_path / f"map.{ending}").read_bytes().startswith(start)


def test_another_ending_or_picture_is_refused(report, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.html, \.svg or \.png, got '.*map\.pdf'"):
        report.report(tmp_path / "map.pdf")
    with pytest.raises(InputError, match="unknown plot 'pie'"):
        report.plot("pie")
    (tmp_path / "file").write_text("")
    for ending in ("html", "png"):
        with pytest.raises(InputError, match="can't write"):
            report.report(tmp_path / "file" / f"map.{ending}")


def test_the_notebook_shows_the_map(report):
    html = report._repr_html_()
    assert html.count('class="map"') == 1
    assert "<b>first" not in html
    assert "No findings" in html or "warning" in html


def test_a_plot_needs_no_axes(report):
    from matplotlib import pyplot

    axes = report.plot("map", dark=True)
    assert axes.patches
    pyplot.close(axes.figure)


def test_a_model_without_norms_has_a_map():
    image = keras.Input((4,))
    report = relucate.audit(keras.Model(image, kl.Dense(2)(image)))
    assert "no norms" in report._repr_html_()

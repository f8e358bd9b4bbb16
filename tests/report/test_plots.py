"""Figures as SVG: what they draw, under which ids, and what a user's text can't do to them."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

from relucate.report import plots
from relucate.report.numbers import Units
from relucate.report.palette import colours, placeholder


def differences(study, name="d", **changes):
    """Return the figure of a study's first comparison."""
    comparison = {**study["comparisons"][0], **changes}
    reach = plots.reach_of([comparison])
    return plots.differences_svg(
        comparison,
        arms=(1, 0),
        units=Units.of_study(study),
        margin=study["margin"],
        reach=reach,
        name=name,
        alt="alt",
    )


def marks(svg, group):
    """Return how many marks the SVG places with that arm's colour."""
    return len(re.findall(rf"<use [^>]*var\(--{group},", svg))


def tick_height(svg, label):
    """Return how far down the SVG a tick's label is."""
    found = re.search(rf'<text [^>]*y="([\d.]+)"[^>]*>{re.escape(label)}</text>', svg)
    assert found
    return float(found.group(1))


def test_a_mark_per_seed_in_the_look_of_the_arm_ahead(study):
    values = [0.01, -0.02, 0.004, None, 0.0]
    pairs = [{"seed": k, "value": v} for k, v in enumerate(values)]
    svg = differences(study, differences=pairs)
    assert (marks(svg, "arm-1"), marks(svg, "arm-0")) == (2, 1)
    assert ">seed 4<" in svg
    assert ">seed 3<" not in svg
    assert "→" in svg


def test_no_interval_draws_the_mean_alone(make_study):
    assert "var(--arm-1" in differences(make_study(1))


def test_many_seeds_label_every_few_rows(make_study):
    svg = differences(make_study(100))
    assert 20 < len(re.findall(r">seed \d+<", svg)) <= plots.MOST_SEED_LABELS


def test_every_id_has_the_figures_name_and_every_reference_its_id(study):
    svg = differences(study, name="here")
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith("here-") for one in ids)
    referenced = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
    assert referenced
    assert set(referenced) <= set(ids)


def test_figures_take_the_pages_colours_only(study):
    svg = differences(study) + plots.curves_svg(study, "accuracy", name="c", alt="")
    assert not [variable for variable in colours() if placeholder(variable) in svg]
    bare = re.sub(r"var\(--[\w-]+, #\w+\)", "", svg)
    assert set(re.findall(r"#[0-9a-f]{6}\b", bare)) <= {"#000000", "#ffffff"}
    assert "<style" not in svg
    assert "<metadata" not in svg


def test_drawing_is_deterministic_and_leaves_no_setting_behind(study):
    before = dict(matplotlib.rcParams)
    assert differences(study) == differences(study)
    assert dict(matplotlib.rcParams) == before


def test_a_hostile_matplotlibrc_changes_nothing(study):
    usual = differences(study)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "axes.facecolor": "red"}):
        assert differences(study) == usual


@pytest.mark.parametrize("name", ["$\\frac{$", "<script>", "_hidden", "活性化", "a" * 80, "\n", ""])
def test_any_name_draws_and_stays_text(name, study):
    study["arms"][0]["label"] = name
    for run in study["runs"]:
        run["arm"] = name if run["arm"] == "linear-norm-act" else run["arm"]
    drawings = [
        differences(study, against=name),
        plots.scatter_svg(study, name="s", alt=name),
        plots.curves_svg(study, "accuracy", name="c", alt='"><script>'),
    ]
    for svg in drawings:
        assert "<script" not in svg
        ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_mean_curve_of_unequal_and_broken_runs():
    runs = [
        {"curve": {"epoch": [1, 2, 3], "train_loss": [1.0, 0.5, None]}},
        {"curve": {"epoch": [1, 2], "train_loss": [2.0, float("nan")]}},
        {"curve": None},
        {},
    ]
    epochs, mean, sd = plots.mean_curve(runs, "train_loss")
    assert epochs.tolist() == [1, 2]
    np.testing.assert_allclose(mean, [1.5, 0.5])
    np.testing.assert_allclose(sd, [np.sqrt(0.5), np.nan])


def test_a_loss_that_falls_far_gets_a_logarithmic_axis_with_plain_numbers(make_study):
    svg = plots.curves_svg(make_study(3, epochs=60), "train_loss", name="c", alt="")
    assert "mathdefault" not in svg
    height = {value: tick_height(svg, value) for value in ("0.1", "0.2", "1", "2")}
    assert height["0.1"] - height["0.2"] == pytest.approx(height["1"] - height["2"], rel=0.01)


def test_scatter_leaves_out_pairs_without_two_results(make_study):
    study = make_study(5, lost={("linear-act-norm", 2): "diverged"})
    svg = plots.scatter_svg(study, name="s", alt="")
    assert marks(svg, "arm-1") == 4


def test_reach_has_a_floor():
    comparison = {"differences": [], "difference": {"low": None, "high": None}}
    assert plots.reach_of([comparison]) == plots.SMALLEST_REACH


def test_reach_shows_the_margin_where_all_is_zero():
    comparison = {"differences": [], "difference": {"low": None, "high": None}}
    assert plots.reach_of([comparison], 0.005) > 0.005


def tick_labels(svg):
    """Return the texts of an SVG that are numbers."""
    return re.findall(r">([−-]?\d[\d.e+]*)</text>", svg)


def test_constant_results_have_readable_ticks_without_an_offset(make_study):
    study = make_study(4)
    for run in study["runs"]:
        run["metric"] = 1.0
    svg = plots.scatter_svg(study, name="s", alt="")
    labels = tick_labels(svg)
    assert "100.0" in labels
    assert len(labels) <= 12
    assert not [label for label in labels if "e" in label]


def test_a_loss_that_explodes_keeps_its_ticks(make_study):
    study = make_study(3, epochs=2)
    for run in study["runs"][::2]:
        run["curve"] |= {"epoch": [1, 2], "train_loss": [2e19, None]}
    svg = plots.curves_svg(study, "train_loss", name="c", alt="")
    assert len([label for label in tick_labels(svg) if "e+" in label]) >= 3

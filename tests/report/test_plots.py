"""Pictures as SVG: what they draw, under which ids, and what a user's text can't do to them."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from relucate.errors import InputError
from relucate.report import plots
from relucate.report.figures import figures
from relucate.report.numbers import Units
from relucate.report.palette import colours, placeholder
from relucate.report.plots import curves, narrowing
from relucate.report.plots.axis import SMALLEST_REACH, reach_of
from relucate.stats.sequential import MONITORED, Monitor

FOUR = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "linear-act")
EIGHT = tuple(f"arm {k}" for k in range(8))


def wide(study, kind, name="d"):
    """Return a picture for a wide place."""
    return plots.svgs(study, kind, name=name, alt="alt")[0]


def both(study, kind):
    """Return a picture for a wide and for a narrow place, in one text."""
    return "".join(plots.svgs(study, kind, name="d", alt="alt"))


def marks(svg, variable):
    """Return how many marks the SVG places with that colour."""
    return len(re.findall(rf"<use [^>]*var\(--{variable},", svg))


def tick_labels(svg):
    """Return the texts of an SVG that are numbers."""
    return re.findall(r">([−-]?\d[\d.e+]*)</text>", svg)


def tick_height(svg, label):
    """Return how far down the SVG a tick's label is."""
    found = re.search(rf'<text [^>]*y="([\d.]+)"[^>]*>{re.escape(label)}</text>', svg)
    assert found
    return float(found.group(1))


def monitored(study):
    """Return a study whose interval is that of looks after every pair."""
    values = [pair["value"] for pair in study["differences"]]
    found = Monitor().interval(np.zeros(len(values)), values)
    ends = {"estimate": found.estimate, "low": found.low, "high": found.high}
    study["comparisons"][0]["difference"] |= {**ends, "method": MONITORED}
    study["difference"] = study["comparisons"][0]["difference"]
    return study


@pytest.fixture
def tuned(study):
    point = {"runs": 1, "diverged": 0}
    rates = [(0.01, 0.5, 1), (0.1, 0.9, 2), (1.0, 0.7, 2)]
    curve = [{"lr": lr, "score": score, "epochs": n, **point} for lr, score, n in rates]
    arms = [{"label": a["label"], "lr": 0.1, "edge": False, "curve": curve} for a in study["arms"]]
    comparison = {"arm": FOUR[1], "against": FOUR[0], "sentence": "-"}
    same = {"lr": 0.1, "sentence": "-", "comparisons": [comparison]}
    return {**study, "tuning": {"held_out": 9, "first_seed": 9, "arms": arms, "same_rate": same}}


# ---- every kind


@pytest.mark.parametrize("kind", plots.KINDS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_kind_draws_onto_given_axes(kind, dark, tuned):
    ax = Figure().subplots()
    assert plots.plot(tuned, kind, ax, dark=dark) is ax
    assert ax.get_children()


@pytest.mark.parametrize("kind", plots.KINDS)
def test_every_kind_has_a_wide_and_a_narrow_drawing(kind, tuned):
    drawn = plots.svgs(tuned, kind, name="n", alt="what it shows")
    widths = [float(re.search(r'viewBox="0 0 ([\d.]+)', svg).group(1)) for svg in drawn]
    assert widths[1] < 300 < widths[0]
    assert all('role="img" aria-label="what it shows"' in svg for svg in drawn)
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", "".join(drawn))]
    assert sizes
    assert min(sizes) >= 11


@pytest.mark.parametrize("kind", plots.KINDS)
def test_pictures_take_the_pages_colours_only(kind, tuned):
    svg = both(tuned, kind)
    assert not [variable for variable in colours() if placeholder(variable) in svg]
    bare = re.sub(r"var\(--[\w-]+, #\w+\)", "", svg)
    assert set(re.findall(r"#[0-9a-f]{6}\b", bare)) <= {"#000000", "#ffffff"}
    assert "<style" not in svg
    assert "<metadata" not in svg


@pytest.mark.parametrize("kind", plots.KINDS)
def test_every_id_has_the_pictures_name_and_every_reference_its_id(kind, tuned):
    svg = both(tuned, kind)
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith(("d-wide-", "d-narrow-")) for one in ids)
    referenced = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
    assert set(referenced) <= set(ids)


@pytest.mark.parametrize("name", ["$\\frac{$", "<script>", "_hidden", "活性化", "a" * 80, "\n", ""])
def test_any_name_draws_and_stays_text(name, tuned):
    tuned["arms"][0].update(label=name, alias=None, order=None)
    for found in (*tuned["comparisons"], *tuned["runs"]):
        for key in ("arm", "against"):
            if found.get(key) == "linear-norm-act":
                found[key] = name
    for kind in plots.KINDS:
        for svg in plots.svgs(tuned, kind, name="c", alt='"><script>'):
            assert "<script" not in svg
            ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.mark.parametrize("name", ["$\\frac{$", "活性化"])
def test_any_name_draws_on_the_users_axes_too(name, make_study):
    study = make_study(4, orders=(name, "b", "c"))
    figure = Figure()
    for kind in ("forest", "scores", "curves"):
        figure.clear()
        plots.plot(study, kind, figure.subplots())
        figure.canvas.draw()


def test_drawing_is_deterministic_and_leaves_no_setting_behind(study):
    before = dict(matplotlib.rcParams)
    assert both(study, "forest") == both(study, "forest")
    assert dict(matplotlib.rcParams) == before


def test_a_hostile_matplotlibrc_changes_nothing(study):
    usual = both(study, "differences")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "axes.facecolor": "red"}):
        assert both(study, "differences") == usual


def test_an_unknown_kind_or_arm_is_named_and_so_is_what_is_missing(study):
    with pytest.raises(InputError, match="'pie'"):
        plots.plot(study, "pie")
    with pytest.raises(InputError, match="'nobody'"):
        plots.plot(study, "differences", arm="nobody")
    with pytest.raises(InputError, match="--tune lr"):
        plots.plot(study, "rates")


def test_matplotlib_is_imported_only_to_draw():
    code = (
        "import sys, relucate.report.plots, relucate.report.html; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- forest


def test_a_forest_has_a_row_per_comparison_and_its_pairs(make_study):
    study = make_study(6, orders=FOUR)
    ax = plots.plot(study, "forest", Figure().subplots())
    rows = [text.get_text() for text in ax.texts[:-2]]
    assert rows[:3] == ["after", *FOUR[2:3], "none"]
    units = Units.of_study(study)
    for text, found in zip(rows[3:], study["comparisons"], strict=True):
        difference = found["difference"]
        ends = units.interval(difference["low"], difference["high"])
        wanted = f"{units.difference(difference['estimate'])} ({ends})"
        assert text == wanted.replace("-", "−")
    strokes = [line for line in ax.lines if line.get_marker() == "|" and len(line.get_xdata()) == 6]
    assert len(strokes) == 3
    assert all(text.get_bbox_patch() for text in ax.texts[3:6])  # zero's line isn't seen through


@pytest.mark.parametrize("kind", ["forest", "scores", "curves"])
def test_a_figure_of_its_own_has_a_title_and_given_axes_have_none(make_study, kind):
    study = make_study(6)
    figure = plots.plot(study, kind).figure
    assert figure.get_suptitle() == f"{plots.heading(study, kind)} · cnn on digits"
    own = Figure()
    plots.plot(study, kind, own.subplots())
    assert own.get_suptitle() == ""
    pyplot.close(figure)


@pytest.mark.parametrize("count", [2, 5])
def test_the_legend_covers_no_words(make_study, count):
    study = make_study(4, orders=tuple("abcde")[:count])
    figure = plots.plot(study, "curves").figure
    figure.canvas.draw()
    (axes,) = figure.axes
    box = axes.get_legend().get_window_extent()
    assert not any(box.overlaps(text.get_window_extent()) for text in axes.texts)
    pyplot.close(figure)


def test_a_hollow_diamond_has_no_answer(make_study):
    def filled(effect):
        ax = plots.plot(make_study(6, effect=effect, spread=0.001), "forest", Figure().subplots())
        (diamond,) = (line for line in ax.lines if line.get_marker() == "D")
        return diamond.get_markerfacecolor() == diamond.get_color()

    assert filled(0.03)
    assert not filled(0.0)


def test_eight_arms_are_eight_rows_and_one_colour(make_study):
    study = make_study(5, orders=EIGHT)
    svg = wide(study, "forest")
    assert all(f">{arm}<" in svg for arm in EIGHT[1:])
    scores = wide(study, "scores")
    assert marks(scores, "arm-0") == 5
    assert marks(scores, "muted") >= 35
    assert not re.search(r"var\(--arm-[1-9]", scores)


def test_reach_has_a_floor_and_shows_the_margin():
    assert reach_of([]) == SMALLEST_REACH
    assert reach_of([], 0.005) > 0.005


# ---- the interval pair by pair


def test_looks_are_those_of_the_study(make_study):
    study = monitored(make_study(8))
    values = [pair["value"] for pair in study["differences"]]
    found = narrowing.looks(study["comparisons"][0])
    assert [look.pairs for look in found] == list(range(3, 9))
    for look in found:
        then = Monitor().interval(np.zeros(look.pairs), values[: look.pairs])
        np.testing.assert_allclose((look.low, look.high), (then.low, then.high))


def test_the_last_look_of_a_fixed_number_is_the_stored_interval(study):
    last = narrowing.looks(study["comparisons"][0])[-1]
    assert (last.low, last.high) == (study["difference"]["low"], study["difference"]["high"])


def test_few_or_identical_pairs_have_no_such_picture(make_study, same_in_all):
    assert "four pairs" in plots.missing(make_study(3), "interval")
    assert "that vary" in plots.missing(same_in_all(make_study(9)), "interval")


def test_a_level_that_no_study_has_is_no_crash(study):
    study["comparisons"][0]["difference"] |= {"method": MONITORED, "level": 0.3}
    assert "can't be computed" in plots.missing(study, "interval")


def test_many_looks_are_a_band(make_study):
    assert "PolyCollection" in wide(monitored(make_study(narrowing.MOST_BARS + 9)), "interval")


# ---- differences


def test_a_mark_per_seed_in_ink(study):
    values = [0.01, -0.02, 0.004, None, 0.0]
    pairs = [{"seed": k, "value": v} for k, v in enumerate(values)]
    study["comparisons"][0]["differences"] = pairs
    svg = wide(study, "differences")
    assert marks(svg, "ink") >= 4
    assert "var(--arm-" not in svg
    assert ">seed 4<" in svg
    assert ">seed 3<" not in svg
    assert "→" in svg


def test_many_seeds_label_every_few_rows(make_study):
    labels = re.findall(r">seed \d+<", wide(make_study(100), "differences"))
    assert 20 < len(labels) <= 40


def test_the_arm_decides_which_comparison_is_shown(make_study):
    study = make_study(4, orders=FOUR)
    axes = [plots.plot(study, "differences", Figure().subplots(), arm=a) for a in FOUR[1:3]]
    assert axes[0].get_xlim() != axes[1].get_xlim()


# ---- curves


def test_points_without_an_epoch_are_left_out():
    curve = {"epoch": [1, None, 3], "accuracy": [0.5, 0.6, 0.7]}
    epochs, mean, _ = curves.mean_curve([{"curve": curve}], "accuracy")
    assert (epochs.tolist(), mean.tolist()) == ([1, 3], [0.5, 0.7])


def test_mean_curve_of_unequal_and_broken_runs():
    runs = [
        {"curve": {"epoch": [1, 2, 3], "train_loss": [1.0, 0.5, None]}},
        {"curve": {"epoch": [1, 2], "train_loss": [2.0, float("nan")]}},
        {"curve": None},
        {},
    ]
    epochs, mean, sd = curves.mean_curve(runs, "train_loss")
    assert epochs.tolist() == [1, 2]
    np.testing.assert_allclose(mean, [1.5, 0.5])
    np.testing.assert_allclose(sd, [np.sqrt(0.5), np.nan])


def test_one_epoch_is_no_curve(make_study):
    assert plots.missing(make_study(3, epochs=1), "curves") == "a curve needs two epochs or more"


def test_a_loss_that_falls_far_gets_a_logarithmic_axis_with_plain_numbers(make_study):
    svg = wide(make_study(3, epochs=60), "loss")
    assert "mathdefault" not in svg
    height = {value: tick_height(svg, value) for value in ("0.1", "0.3", "1")}
    shares = (height["0.1"] - height["0.3"]) / (height["0.1"] - height["1"])
    assert shares == pytest.approx(np.log10(3), rel=0.02)


def test_a_loss_that_explodes_keeps_its_ticks(make_study):
    study = make_study(3, epochs=2)
    for run in study["runs"]:
        run["curve"]["train_loss"] = [1.0, 1e30]
    assert len([label for label in tick_labels(wide(study, "loss")) if "e+" in label]) >= 3


def test_a_curve_by_time_ends_at_the_median_time_of_a_run(make_study):
    study = make_study(3, epochs=4)
    for run in study["runs"]:
        slow = 2.0 if run["arm"] == FOUR[1] else 1.0
        run["seconds"] = 40.0 if run["seed"] == 0 else 6.0 * slow
    ends = [line.get_xdata()[-1] for line in plots.plot(study, "time", Figure().subplots()).lines]
    assert ends == pytest.approx([6.0, 12.0])
    for run in study["runs"]:
        run["seconds"] = None
    assert plots.missing(study, "time") == "no run of an arm has a time"


@pytest.mark.parametrize(("seconds", "shown"), [(30.0, True), (10.5, False), (0.3, False)])
def test_the_page_has_the_curve_by_time_if_one_arm_is_slower(seconds, shown, make_study):
    study = make_study(3)
    for arm, each in zip(study["arms"], (seconds, min(seconds, 10.0)), strict=True):
        arm["seconds"] = each
    assert ("time" in [figure["name"] for figure in figures(study)]) is shown


def test_many_arms_have_a_panel_each_with_the_first(make_study):
    svg = wide(make_study(3, orders=EIGHT), "curves")
    assert all(f">{arm}<" in svg for arm in EIGHT[1:])


# ---- rates, scores, cost


def test_rates_of_different_epochs_are_not_joined(tuned):
    ax = plots.plot(tuned, "rates", Figure().subplots())
    joined = [line.get_xdata() for line in ax.lines if line.get_linestyle() != "None"]
    ends = [sorted(round(x, 3) for x in xs) for xs in joined if len(xs) == 2 and xs[0] != xs[1]]
    assert len(ends) == 2
    assert all(low > 0.05 for low, _ in ends)


def test_scores_have_a_mark_per_run_and_say_which_have_none(make_study):
    study = make_study(5, lost={("linear-act-norm", 2): "diverged"})
    svg = wide(study, "scores")
    assert (marks(svg, "arm-0"), marks(svg, "arm-1")) == (5, 4)
    assert ">1 diverged<" in svg


def test_constant_results_have_readable_ticks_without_an_offset(make_study):
    study = make_study(4)
    for run in study["runs"]:
        run["metric"] = 1.0
    labels = tick_labels(wide(study, "scores"))
    assert "100" in labels
    assert len(labels) <= 12
    assert not [label for label in labels if "e" in label]


def test_costs_that_nobody_measured_are_left_out(study):
    for arm in study["arms"]:
        arm.update(seconds=0.001, parameters=None)
    assert "neither" in plots.missing(study, "cost")
    study["arms"][1]["seconds"] = 2.0
    assert "time a run" in wide(study, "cost")
    assert "parameters" not in wide(study, "cost")

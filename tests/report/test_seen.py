"""What the layers saw: the small multiples, the drift, the words, the section of the page."""

from xml.etree import ElementTree

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.report import panels, seen


def probed(arms=("linear-norm-act", "linear-act-norm"), epochs=(0, 2, 4), sites=3, **extra):
    """A study with a section `probe`, its numbers made up."""
    rng = np.random.default_rng(0)

    def point(node):
        low = rng.normal(-1, 0.1)
        return {
            "node": node,
            "layer": node,
            "channels": 8,
            "summary": {"skewness": 1.0, "dead": 0},
            "quantiles": [low, low + 1, low + 2],
            "histogram": (np.ones(14) / 14).tolist(),
        }

    def one(label):
        names = [f"<norm>{k}" for k in range(sites)]
        roles = ("norm_in", "next")
        rows = [
            {"name": n, "norm": True, "points": {role: f"{n}/{role}" for role in roles}}
            for n in names
        ]
        nodes = [node for row in rows for node in row["points"].values()]
        steps = [{"epoch": e, "points": [point(node) for node in nodes]} for e in epochs]
        claims = [{"text": f"Claimed of <{label}>."}]
        return {"arm": label, "sites": rows, "left": 0, "steps": steps, "claims": claims}

    found = [one(label) for label in arms]
    predictions = [{"text": "Skewed <inputs>; predicts a. Measured: b.", "source": "Book, 8.7.1"}]
    section = {"seed": 3, "examples": 256, "arms": found, "predictions": predictions}
    return {"arms": [{"label": label} for label in arms], "probe": section | extra}


def test_without_a_probe_there_is_nothing():
    assert seen.lines({}) == []
    assert seen.parts({}) is None
    with pytest.raises(InputError, match="probe=True"):
        seen.plot({"arms": []}, "distributions")


def test_the_words_say_what_was_predicted_and_what_failed():
    study = probed()
    first, second = study["probe"]["arms"]
    first["refused"], first["steps"] = "no way in.", []
    second["steps"][1] |= {"points": [], "error": "the output of 'x' isn't finite."}
    second["left"] = 70
    said = seen.lines(study)
    assert said == [
        "Skewed <inputs>; predicts a. Measured: b.",
        "linear-norm-act could not be looked at: no way in.",
        "linear-act-norm, after epoch 2: the output of 'x' isn't finite.",
        "linear-act-norm: 3 of 73 sites, evenly spread.",
    ]
    assert seen.heading(study) == "What the layers saw (seed 3, 256 test examples)"
    assert seen.parts(study)["figures"]


def test_without_a_prediction_the_claims_are_said():
    assert seen.lines(probed(predictions=[]))[0] == "linear-norm-act: Claimed of <linear-norm-act>."


@pytest.mark.parametrize(("arms", "figures"), [(2, 1), (3, 2), (5, 3)])
def test_a_figure_has_at_most_two_arms_and_ids_of_its_own(arms, figures):
    study = probed([f"arm {k}" for k in range(arms)])
    found = seen.parts(study, "m1-")["figures"]
    assert len(found) == figures * len(seen.KINDS)
    ids = [name for one in found for name in _ids(one["svg"])]
    assert len(ids) == len(set(ids))
    for one in found:
        assert one["name"].startswith("m1-")
        assert "<norm>" not in one["svg"]
        assert "<inputs>" not in one["svg"]


def _ids(svg):
    root = ElementTree.fromstring(f"<div>{svg}</div>")  # wide and narrow
    return [element.get("id") for element in root.iter() if element.get("id")]


def test_nothing_but_failed_looks_has_no_figures():
    study = probed()
    for arm in study["probe"]["arms"]:
        arm["steps"] = [{"epoch": 0, "points": [], "error": "NaN"}]
    assert seen.parts(study)["figures"] == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", seen.KINDS)
def test_every_picture_is_svg_and_png_light_and_dark(kind, dark, tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    assert seen.plot(probed(), kind, axes, dark=dark) is axes
    assert axes.child_axes
    for ending in ("svg", "png"):
        figure.savefig(tmp_path / f"{kind}.{ending}")
    with pytest.raises(InputError, match="unknown plot 'pie'"):
        seen.plot(probed(), "pie")


def test_drift_draws_the_quantiles_over_the_epochs_with_one_scale_in_a_row():
    from matplotlib.figure import Figure

    study = probed()
    axes = seen.plot(study, "drift_next", Figure().subplots())
    cells = axes.child_axes
    arm = study["probe"]["arms"][0]
    nodes = [arm["sites"][k]["points"]["next"] for k in (0, 1, 2)]
    for cell, node in zip(cells[::2], nodes, strict=True):
        (line,) = [line for line in cell.get_lines() if len(line.get_xdata()) == 3]
        quantiles = [
            next(p["quantiles"] for p in step["points"] if p["node"] == node)
            for step in arm["steps"]
        ]
        assert line.get_xdata().tolist() == [0, 2, 4]
        np.testing.assert_allclose(line.get_ydata(), [q[1] for q in quantiles])
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        assert left.get_ylim() == right.get_ylim()


def test_arms_keep_their_colours_in_every_figure():
    study = probed(["a", "b", "c"])
    svg = [one["svg"] for one in seen.parts(study)["figures"] if "drift_next" in one["name"]]
    assert "var(--arm-0" in svg[0]
    assert "var(--arm-1" in svg[0]
    assert "var(--arm-2" in svg[1]
    assert "var(--arm-0" not in svg[1]


def test_sites_are_taken_by_depth():
    assert panels.by_depth(range(1)) == [0]
    assert panels.by_depth(range(94)) == [0, 18, 37, 55, 74, 93]


def test_names_of_common_layers_are_whole():
    study = probed()
    for arm in study["probe"]["arms"]:
        arm["sites"][0]["name"] = "batch_normalization_1"
    ax = seen.plot(study, "distributions")
    texts = [text.get_text() for panel in ax.child_axes for text in panel.texts]
    assert "batch_normalization_1" in texts

"""The order map: cuts, repeats, lanes without collisions, escaped names, every norm counted."""

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from relucate.report import map as order_map
from relucate.report.flow import groups, lanes_of, segments


def box(kind, *inputs, label="", place=None, name="layer"):
    order = "linear-norm-act" if place else None
    texts = {"kind": kind, "label": label or kind, "name": name, "place": place, "order": order}
    return {**texts, "inputs": list(inputs)}


def block(start, place="before"):
    """conv, norm, act that read box `start - 1`."""
    kinds = (("linear", None), ("norm", place), ("act", None))
    return [box(k, start - 1 + n, place=p, name=f"{k}{start}") for n, (k, p) in enumerate(kinds)]


def chain(blocks, **more):
    found = [box("input")]
    for _ in range(blocks):
        found += block(len(found), **more)
    return [*found, box("output", len(found) - 1)]


def residual():
    """A block with a skip, and one with three branches of different lengths."""
    found = [box("input"), *block(1)]
    found.append(box("merge", 3, 0, label="add"))
    found += [box("linear", 4), box("linear", 5), box("linear", 4), box("other", 4)]
    return [*found, box("merge", 6, 7, 8, label="concat"), box("output", 9)]


def random_network(seed, size=40):
    rng = np.random.default_rng(seed)
    found = [box("input")]
    while len(found) < size:
        few = rng.integers(1, 3)
        reach = range(max(0, len(found) - 6), len(found))
        inputs = sorted({int(i) for i in rng.choice(list(reach), few)})
        kind = "merge" if len(inputs) > 1 else str(rng.choice(["linear", "norm", "act", "other"]))
        found.append(box(kind, *inputs, place="before" if kind == "norm" else None))
    return found


def test_cuts_are_where_one_value_carries_everything():
    assert [part.boxes for part in segments(residual())] == [
        (0,),
        (1, 2, 3, 4),
        (5, 6, 7, 8, 9),
        (10,),
    ]


@pytest.mark.parametrize("make", [lambda: chain(12), residual, lambda: random_network(3)])
def test_every_box_is_drawn_once_or_counted(make):
    network = make()
    counted = [b for group in groups(network) for others in group.others for b in others]
    assert sorted(counted) == list(range(len(network)))


def test_repeated_blocks_are_drawn_once():
    found = [group.times for group in groups(chain(12))]
    assert found == [1, 12, 1]
    (repeated,) = [group for group in groups(chain(12)) if group.times > 1]
    assert len(repeated.segments) == 3
    assert "×12" in order_map.svg(chain(12))


def test_a_block_with_its_norm_elsewhere_is_not_a_repeat():
    network = [*chain(3)[:-1], *block(10, place="after"), *block(13, place="after")]
    assert [group.times for group in groups(network)] == [1, 3, 2]


@pytest.mark.parametrize("seed", range(12))
def test_no_two_boxes_overlap_and_rows_follow_the_flow(seed):
    network = random_network(seed)
    for part in segments(network):
        lanes = lanes_of(network, part)
        places = [(lanes.rows[b], lanes.lanes[b]) for b in part.boxes]
        assert len(set(places)) == len(places)
        for b in part.boxes:
            for source in network[b]["inputs"]:
                if source in lanes.rows:
                    assert lanes.rows[source] < lanes.rows[b]
        edges = {(a, b) for a, b, _ in lanes.edges}
        assert edges == {(s, b) for b in part.boxes for s in network[b]["inputs"]}


@pytest.mark.parametrize("seed", range(12))
def test_no_edge_runs_through_a_box(seed):
    network = random_network(seed)
    for part in segments(network):
        lanes = lanes_of(network, part)
        at = {(lanes.rows[b], lanes.lanes[b]): b for b in part.boxes}
        for source, reader, lane in lanes.edges:
            top = lanes.rows.get(source, -1)
            for row in range(top + 1, lanes.rows[reader]):
                assert at.get((row, lane)) is None


def test_the_map_is_well_formed_and_fits_its_width():
    drawing = order_map.drawing(residual())
    ElementTree.fromstring(order_map.svg(residual()))
    ElementTree.fromstring(order_map.svg_file(residual(), "residual"))
    for shape in drawing.shapes:
        for x, y in shape.points:
            assert 0 <= x <= order_map.WIDTH
            assert 0 <= y <= drawing.height


def test_names_are_escaped():
    network = [box("input"), box("norm", 0, place="before", name='<script>"&', label="<b>BN")]
    for text in (order_map.svg(network), order_map.svg_file(network, "<script>")):
        assert "<script>" not in text
        assert "<b>" not in text
        ElementTree.fromstring(text)


def test_each_place_has_its_colour_its_mark_and_its_number():
    network = [box("input")]
    for place in order_map.PLACES:
        network += block(len(network), place=place)
    rows = order_map.legend(network)
    assert [row["number"] for row in rows] == [1] * 5
    assert len({row["colour"] for row in rows}) == len({row["path"] for row in rows}) == 5
    drawn = order_map.svg(network)
    for row in rows:
        assert f"var(--{row['colour']}" in drawn
        assert row["path"] in drawn
    assert "norms: 1 before the activation, 1 after the activation" in order_map.alt(network)


def test_matplotlib_draws_the_same_boxes(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 12))
    axes = figure.subplots()
    assert order_map.draw(residual(), axes, dark=True) is axes
    rects = [shape for shape in order_map.drawing(residual()).shapes if shape.kind == "rect"]
    assert len(axes.patches) == len(rects)
    for ending in ("svg", "png"):
        figure.savefig(tmp_path / f"map.{ending}")


def test_the_letters_are_at_least_11_px_on_a_phone():
    (size,) = {float(x) for x in re.findall(r"font:([\d.]+)px", order_map.svg(chain(2)))}
    assert size * (360 - 2 * 16) / order_map.WIDTH >= 11


def test_the_groups_of_a_map_follow_each_other_and_hold_all_of_it():
    made = order_map.drawing(residual())
    pieces = list(made.groups())
    assert pieces[0][0] == 0
    assert pieces[-1][1] == made.height
    assert all(end == top for (_, end, _), (top, *_) in pairwise(pieces))
    assert [shape for *_, shapes in pieces for shape in shapes] == made.shapes
    assert order_map.svg(residual()).count("<svg") == len(pieces) > 1


def test_a_label_without_room_loses_its_sizes_first_and_keeps_to_its_box():
    assert order_map.fitted("max pool 3×3 /2", 60) == "max pool"
    tight = order_map.Shape("text", ((0, 0),), text="conv 1×1", style="middle", room=52)
    assert 'textLength="50.0"' in order_map._element(tight)
    assert "textLength" not in order_map._element(replace(tight, room=90))

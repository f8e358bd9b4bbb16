"""The order map: a network as boxes in data flow, each norm in the colour of its place.

One drawing, made of a few kinds of shapes, written as SVG (in the page's colours, or as a file of
its own for light and dark) or onto matplotlib axes. It is as wide as a phone, and scrolls down. Not
here: which box comes where (`flow`), what a box is (`surgery.network`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..errors import printable
from ..phrases import count, some
from .flow import Group, Lanes, groups, lanes_of
from .palette import ARM_LOOKS, colours
from .rendering import escaped

WIDTH, LEFT, RIGHT = 340.0, 3.0, 34.0
TALL, BRANCH_GAP, BLOCK_GAP, JOINED = 20.0, 9.0, 10.0, 2.0
WIDEST, BETWEEN = 132.0, 4.0
_LETTER = 6.8  # width of a letter of the map's text, in its own units
_SIZE = 12.5
_NARROW = 30.0  # a box that has no room for words

PLACES = ("before", "after", "first", "alone", "unknown")
_COLOURS = {"before": "arm-0", "after": "arm-1", "first": "arm-2", "alone": "arm-3"}
_NOUNS = {
    "before": "before the activation",
    "after": "after the activation",
    "first": "before the linear layer",
    "alone": "without an activation of its own",
    "unknown": "unknown",
}


@dataclass(frozen=True)
class Shape:
    """A rectangle, a line, a text or a mark; `colour`, `fill`: CSS variables; `title`: its name."""

    kind: str  # rect, line, text, mark
    points: tuple[tuple[float, float], ...]
    colour: str = "ink"
    fill: str = ""
    text: str = ""
    title: str = ""
    style: str = ""  # rect: round or dashed; text: the anchor
    strong: bool = False
    room: float = 0.0  # text: it must not be wider, in any font


@dataclass
class Drawing:
    """Shapes, and how tall they are together."""

    shapes: list[Shape] = field(default_factory=list)
    height: float = 8.0
    starts: list[tuple[float, int]] = field(default_factory=list)  # of groups: top, first shape

    def add(self, kind: str, *points: tuple[float, float], **more: Any) -> None:
        """Append a shape."""
        self.shapes.append(Shape(kind, points, **more))

    def groups(self) -> Iterator[tuple[float, float, list[Shape]]]:
        """Yield the top, the end and the shapes of each group: paper may break between them."""
        starts = [(0.0, 0), *self.starts[1:], (self.height, len(self.shapes))]
        for (top, first), (end, last) in pairwise(starts):
            yield top, end, self.shapes[first:last]


def drawing(boxes: Sequence[dict[str, Any]]) -> Drawing:
    """Return the map of a network as shapes."""
    made = Drawing()
    first = True
    for group in groups(boxes):
        top = made.height
        made.starts.append((top, len(made.shapes)))
        others = _others(group)
        for part in group.segments:
            _draw_segment(made, boxes, part, others, first)
            first = False
        if group.times > 1:
            _bracket(made, top + BLOCK_GAP / 2, made.height, group.times)
    made.height += 8
    return made


def _others(group: Group) -> dict[int, tuple[int, ...]]:
    drawn = [box for part in group.segments for box in part.boxes]
    return dict(zip(drawn, group.others, strict=True))


def _draw_segment(
    made: Drawing,
    boxes: Sequence[dict[str, Any]],
    part: Any,
    others: dict[int, tuple[int, ...]],
    first: bool,
) -> None:
    lanes = lanes_of(boxes, part)
    rows = 1 + max(lanes.rows.values())
    joined = lanes.width == 1 and rows == 1 and boxes[part.boxes[0]]["kind"] in {"norm", "act"}
    gap = JOINED if joined else BLOCK_GAP if lanes.width == 1 else BLOCK_GAP + 4
    top = made.height + (0 if first else gap)
    last = part.boxes[-1]
    place = _Place(lanes, top, last if boxes[last]["kind"] == "merge" else None)
    for edge in lanes.edges:
        made.add("line", *place.way(*edge, start=made.height), colour="muted")
    for box in part.boxes:
        names = [boxes[other]["name"] for other in others[box]]
        _draw_box(made, boxes[box], names, *place.of(box))
    made.height = top + rows * TALL + (rows - 1) * BRANCH_GAP


class _Place:
    """Where the lanes and the rows of one segment are."""

    def __init__(self, lanes: Lanes, top: float, last: int | None) -> None:
        self.lanes, self.top, self.last = lanes, top, last
        room = WIDTH - LEFT - RIGHT
        self.wide = min(WIDEST, (room - (lanes.width - 1) * BETWEEN) / lanes.width)
        self.all = lanes.width * self.wide + (lanes.width - 1) * BETWEEN
        self.left = LEFT + (room - self.all) / 2
        self.middle = self.left + self.all / 2
        self.spans = lanes.width > 1

    def of(self, box: int) -> tuple[float, float, float]:
        """Return a box's left side, top and width; a merge at the end is as wide as all lanes."""
        y = self.top + self.lanes.rows[box] * (TALL + BRANCH_GAP)
        if self.spans and box == self.last:
            return self.left, y, self.all
        return self.left + self.lanes.lanes[box] * (self.wide + BETWEEN), y, self.wide

    def centre(self, lane: int) -> float:
        """Return the middle of a lane."""
        return self.left + lane * (self.wide + BETWEEN) + self.wide / 2

    def way(
        self, source: int, reader: int, lane: int, start: float
    ) -> tuple[tuple[float, float], ...]:
        """Return the corners of an edge that runs in a lane."""
        x = self.centre(lane)
        if source in self.lanes.rows:
            left, y, wide = self.of(source)
            begin, turn = (left + wide / 2, y + TALL), y + TALL + BRANCH_GAP / 2
        else:
            begin, turn = (self.middle, start), start + (self.top - start) / 2
        left, end, wide = self.of(reader)
        spans = self.spans and reader == self.last
        to = x if spans else left + wide / 2
        before = end - BRANCH_GAP / 2 if self.lanes.rows[reader] else end - 3
        points = [begin, (begin[0], turn), (x, turn), (x, before), (to, before), (to, end)]
        return tuple(dict.fromkeys(points))


_LOOKS = {  # kind -> colour of the frame, filling, style
    "linear": ("ink", "card", ""),
    "act": ("rule", "band", "round"),
    "merge": ("muted", "rule", ""),
    "opaque": ("ink", "", "dashed"),
}


def _draw_box(
    made: Drawing, box: dict[str, Any], names: list[str], x: float, y: float, wide: float
) -> None:
    title = f"{some(names, 6)}: {box['label']}" + (f", {box['order']}" if box["order"] else "")
    corners = ((x, y), (x + wide, y + TALL))
    mark = 0.0
    if box["kind"] == "norm":
        colour = _COLOURS.get(box["place"], "muted")
        dashed = "dashed" if box["place"] == "unknown" else ""
        made.add("rect", *corners, colour="card", fill="card")
        given: dict[str, Any] = {"fill": colour, "title": title, "style": dashed, "strong": True}
        made.add("rect", *corners, colour=colour, **given)
        mark = 13.0 if wide > _NARROW else 0.0
        across = x + 3.5 if mark else x + wide / 2 - 5
        made.add("mark", (across, y + TALL / 2 - 5), colour=colour, text=str(box["place"]))
        if not mark:
            return
    elif box["kind"] in _LOOKS:
        colour, fill, style = _LOOKS[box["kind"]]
        made.add("rect", *corners, colour=colour, fill=fill, style=style, title=title)
    plain = box["kind"] in {"other", "drop"}
    room = wide - mark - 4
    label = fitted(box["label"], room)
    if wide <= _NARROW:
        return
    centre = (x + mark + (wide - mark) / 2, y + TALL / 2 + 4)
    strong = box["kind"] in {"input", "output"}
    given = {"text": label, "title": title, "style": "middle", "strong": strong, "room": room}
    made.add("text", centre, colour="muted" if plain else "ink", **given)


def fitted(text: str, width: float) -> str:
    """Return a text that fits in a width of the map: without its sizes, or else cut.

    >>> fitted("conv 3×3", 60), fitted("avg pool 3×3", 60), fitted("a long name of a layer", 60)
    ('conv 3×3', 'avg pool', 'a long n…')
    """
    most = max(round(width / _LETTER), 1)
    if len(text) > most:
        words = [word for word in text.split(" ") if not any(map(str.isdigit, word))]
        text = " ".join(words) or text
    return text if len(text) <= most else text[: most - 1] + "…"


def _bracket(made: Drawing, top: float, end: float, times: int) -> None:
    x = WIDTH - RIGHT + 6
    made.add("line", (x - 4, top), (x, top), (x, end), (x - 4, end), colour="muted")
    centre = (x + 4, (top + end) / 2 + 4)
    made.add("text", centre, text=f"×{times}", style="start", strong=True)


# ---- words


def counted(boxes: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many norms are at each place, the places in their usual order."""
    found = Counter(box["place"] for box in boxes if box["place"])
    return {place: found[place] for place in PLACES if found[place]}


def legend(boxes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return name, colour variable, light colour, mark and number of each place that occurs."""
    return [
        {
            "name": _NOUNS[place],
            "colour": _colour(place),
            "light": colours()[_colour(place)][0],
            "path": _path(place),
            "number": number,
        }
        for place, number in counted(boxes).items()
    ]


def _colour(place: str) -> str:
    return _COLOURS.get(place, "muted")


def _path(place: str) -> str:
    return ARM_LOOKS[PLACES.index(place)].path


def sentence(boxes: Sequence[dict[str, Any]]) -> str:
    """Return how many norms are where, in plain words; "" if there are none.

    >>> sentence([{"place": "after"}, {"place": "after"}, {"place": None}])
    '2 norms, all after the activation'
    """
    places = counted(boxes)
    norms = count(sum(places.values()), "norm")
    if len(places) == 1:
        (place,) = places
        return f"{norms}, {'all ' if norms != '1 norm' else ''}{_NOUNS[place]}"
    return f"{norms}: {_places(boxes)}" if places else ""


def _places(boxes: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{number} {_NOUNS[place]}" for place, number in counted(boxes).items())


def alt(boxes: Sequence[dict[str, Any]]) -> str:
    """Return the map in a sentence, for those who don't see it."""
    places = _places(boxes)
    kinds = Counter(box["kind"] for box in boxes)
    parts = [count(kinds["linear"], "linear layer"), f"norms: {places}" if places else "no norms"]
    if kinds["opaque"]:
        parts.append(f"{count(kinds['opaque'], 'layer')} that could not be read")
    return f"Map of the network in data flow. {'; '.join(parts)}."


# ---- SVG


def svg(boxes: Sequence[dict[str, Any]]) -> str:
    """Return the map in the page's colours; every name is escaped.

    It is a `<div>` with an `<svg>` for each group, so that paper can break between them.
    """
    found = [f'<div class="map" role="img" aria-label="{escaped(alt(boxes))}">']
    for top, end, shapes in drawing(boxes).groups():
        box = f"0 {top:g} {WIDTH:g} {end - top:g}"
        style = "display:block;width:100%;height:auto;overflow:visible"
        found.append(f'<svg viewBox="{box}" style="{style}" xmlns="http://www.w3.org/2000/svg">')
        found += [*map(_element, shapes), "</svg>"]
    return "\n".join([*found, "</div>"])


def svg_file(boxes: Sequence[dict[str, Any]], title: str) -> str:
    """Return the map with its title and legend as a file of its own, for light and dark."""
    made = drawing(boxes)
    key = list(_key(legend(boxes)))
    head = 34.0 + 18 * len(legend(boxes))
    themes = [";".join(f"--{n}:{pair[k]}" for n, pair in colours().items()) for k in (0, 1)]
    style = (
        f"<style>svg{{{themes[0]}}}@media (prefers-color-scheme:dark){{svg{{{themes[1]}}}}}</style>"
    )
    height = head + made.height
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
            f'aria-label="{escaped(alt(boxes))}" width="{WIDTH:g}" height="{height:g}" '
            f'viewBox="0 0 {WIDTH:g} {height:g}">',
            style,
            f'<rect width="{WIDTH:g}" height="{height:g}" style="fill:{_var("paper")}"/>',
            _element(Shape("text", ((LEFT, 20.0),), text=fitted(title, 330), strong=True)),
            *key,
            f'<g transform="translate(0 {head:g})">',
            *map(_element, made.shapes),
            "</g></svg>",
        ]
    )


def _key(rows: list[dict[str, Any]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        y = 30.0 + 18 * number
        yield (
            f'<path d="{row["path"]}" transform="translate({LEFT:g} {y:g})" '
            f'style="fill:{_var(row["colour"])}"/>'
        )
        text = f"{row['number']} {row['name']}"
        yield _element(Shape("text", ((LEFT + 18, y + 10),), text=text, style="start"))


def _element(shape: Shape) -> str:
    return {"rect": _rect, "line": _line, "text": _text, "mark": _mark}[shape.kind](shape)


def _var(name: str) -> str:
    """Return a CSS variable, with its light colour where a page doesn't set it."""
    return f"var(--{name}, {colours()[name][0]})"


def _rect(shape: Shape) -> str:
    (x, y), (right, bottom) = shape.points
    width = 1.8 if shape.strong else 1
    fill = f"fill:{_var(shape.fill)}" if shape.fill else "fill:none"
    fill += ";fill-opacity:.16" if shape.strong else ""
    dashes = ' stroke-dasharray="4 2.5"' if shape.style == "dashed" else ""
    radius = TALL / 2 if shape.style == "round" else 2
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" '
        f'rx="{radius:g}" style="stroke:{_var(shape.colour)};stroke-width:{width};{fill}"{dashes}>'
        f"{_title(shape)}</rect>"
    )


def _line(shape: Shape) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    return f'<polyline points="{points}" style="fill:none;stroke:{_var(shape.colour)}"/>'


def _text(shape: Shape) -> str:
    ((x, y),) = shape.points
    weight = ";font-weight:600" if shape.strong else ""
    tight = f'textLength="{shape.room - 2:.1f}" lengthAdjust="spacingAndGlyphs" '
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{shape.style or "start"}" '
        f"{tight if shape.room and len(shape.text) * _LETTER > shape.room - 4 else ''}"
        f'style="fill:{_var(shape.colour)};font:{_SIZE}px system-ui,sans-serif{weight}">'
        f"{_title(shape)}{escaped(shape.text)}</text>"
    )


def _title(shape: Shape) -> str:
    return f"<title>{escaped(shape.title)}</title>" if shape.title else ""


def _mark(shape: Shape) -> str:
    ((x, y),) = shape.points
    return (
        f'<path d="{_path(shape.text)}" transform="translate({x:.1f} {y:.1f}) scale(.83)" '
        f'style="fill:{_var(shape.colour)}"/>'
    )


# ---- matplotlib


def draw(boxes: Sequence[dict[str, Any]], ax: Any = None, *, dark: bool = False) -> Any:
    """Draw the map onto matplotlib axes, by default those of a new figure, and return them."""
    made = drawing(boxes)
    if ax is None:
        ax = _own_axes(made.height, dark)
    theme = {name: pair[dark] for name, pair in colours().items()}
    inches = ax.get_window_extent().height / ax.figure.dpi
    size = min(9.0, _SIZE * 72 * inches / made.height * 0.8)
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(made.height, 0)
    ax.set_aspect("equal")
    ax.axis("off")
    for shape in made.shapes:
        _DRAWN[shape.kind](ax, shape, theme, size)
    _legend(ax, boxes, theme)
    return ax


def _own_axes(height: float, dark: bool) -> Any:
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(WIDTH / 72, height / 72 + 0.6))
    figure.set_facecolor(colours()["paper"][dark])
    share = height / (height + 0.6 * 72)
    return figure.add_axes((0.0, 0.0, 1.0, share))


def _draw_rect(ax: Any, shape: Shape, theme: dict[str, str], size: float) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    (x, y), (right, bottom) = shape.points
    radius = TALL / 2 - 0.5 if shape.style == "round" else 2
    fill = to_rgba(theme[shape.fill], 0.16 if shape.strong else 1) if shape.fill else "none"
    patch = FancyBboxPatch(
        (x, y),
        right - x,
        bottom - y,
        boxstyle=f"round,pad=0,rounding_size={radius}",
        facecolor=fill,
        edgecolor=theme[shape.colour],
        linewidth=1.4 if shape.strong else 0.8,
        linestyle="--" if shape.style == "dashed" else "-",
    )
    ax.add_patch(patch)


def _draw_line(ax: Any, shape: Shape, theme: dict[str, str], size: float) -> None:
    x, y = zip(*shape.points, strict=True)
    ax.plot(x, y, color=theme[shape.colour], linewidth=0.8, zorder=0.5)


def _draw_text(ax: Any, shape: Shape, theme: dict[str, str], size: float) -> None:
    ((x, y),) = shape.points
    side = {"middle": "center"}.get(shape.style, "left")
    weight = "bold" if shape.strong else "normal"
    given: dict[str, Any] = {"ha": side, "va": "center", "parse_math": False}
    if shape.room:
        size *= min(1.0, shape.room / (1.15 * _LETTER * len(shape.text)))
    given |= {"color": theme[shape.colour], "size": size, "weight": weight}
    ax.text(x, y - 4, printable(shape.text), **given)


def _draw_mark(ax: Any, shape: Shape, theme: dict[str, str], size: float) -> None:
    ((x, y),) = shape.points
    marker = ARM_LOOKS[PLACES.index(shape.text)].marker
    ax.plot(x + 5, y + 5, marker=marker, color=theme[shape.colour], markersize=0.55 * size)


_DRAWN: dict[str, Callable[[Any, Shape, dict[str, str], float], None]] = {
    "rect": _draw_rect,
    "line": _draw_line,
    "text": _draw_text,
    "mark": _draw_mark,
}


def _legend(ax: Any, boxes: Sequence[dict[str, Any]], theme: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D(
            [],
            [],
            linestyle="none",
            color=theme[_colour(place)],
            marker=ARM_LOOKS[PLACES.index(place)].marker,
            label=f"{number} {_NOUNS[place]}",
        )
        for place, number in counted(boxes).items()
    ]
    if entries:
        given: dict[str, Any] = {"frameon": False, "labelcolor": theme["ink"], "fontsize": 8}
        ax.legend(handles=entries, loc="lower left", bbox_to_anchor=(0, 1), **given)

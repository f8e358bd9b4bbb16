"""Where the boxes of a network are drawn: top to bottom in data flow, branches side by side.

The network is cut wherever a single value carries everything (between two residual blocks, say).
Segments in a row that look alike are drawn once and counted. Inside a segment a box's row is its
distance from the start, and each branch has a lane of its own, which is free again behind it.
Boxes are those of `surgery.network`. Not here: colours and files (`map`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Box = dict[str, Any]
_LONGEST = 40  # segments in a group that repeats
_SAVES = 3  # boxes at least that a group of repeats leaves out
_INNER = frozenset({"norm", "act", "drop"})  # no block begins with one of these


@dataclass(frozen=True)
class Segment:
    """Boxes between two cuts, by position, in topological order; entry: what they read from."""

    boxes: tuple[int, ...]
    entry: int | None


@dataclass(frozen=True)
class Group:
    """Segments that are drawn once, and how many times they come in a row."""

    segments: tuple[Segment, ...]
    times: int
    others: tuple[tuple[int, ...], ...]  # for each box in turn, the boxes that look like it


@dataclass
class Lanes:
    """A segment's geometry: row and lane of each box, and the edges with the lane they run in.

    edges: (box that is read, or the entry; box that reads; lane). width: number of lanes.
    """

    rows: dict[int, int] = field(default_factory=dict)
    lanes: dict[int, int] = field(default_factory=dict)
    edges: list[tuple[int, int, int]] = field(default_factory=list)
    width: int = 1


def segments(boxes: Sequence[Box]) -> list[Segment]:
    """Cut a network behind every box where only one value is still needed.

    >>> chain = [{"inputs": []}, {"inputs": [0]}, {"inputs": [0, 1]}, {"inputs": [2]}]
    >>> [(one.boxes, one.entry) for one in segments(chain)]
    [((0,), None), ((1, 2), 0), ((3,), 2)]
    """
    last = {source: place for place, box in enumerate(boxes) for source in box["inputs"]}
    found, start, entry = [], 0, None
    live: set[int] = set()
    for place in range(len(boxes)):
        live = {box for box in live if last[box] > place} | ({place} if place in last else set())
        if len(live) <= 1:
            found.append(Segment(tuple(range(start, place + 1)), entry))
            start, entry = place + 1, next(iter(live), None)
    return found


def groups(boxes: Sequence[Box]) -> list[Group]:
    """Return the segments, those that repeat in a row once, with their number."""
    parts = segments(boxes)
    looks = [_look(boxes, part) for part in parts]
    found, at = [], 0
    while at < len(parts):
        period, times = _repeated(looks, at)
        repeats = [parts[at + k * period : at + (k + 1) * period] for k in range(times)]
        each = zip(*([b for part in one for b in part.boxes] for one in repeats), strict=True)
        found.append(Group(tuple(repeats[0]), times, tuple(each)))
        at += period * times
    return found


def _look(boxes: Sequence[Box], part: Segment) -> tuple[Any, ...]:
    start = part.boxes[0]
    return tuple(
        (boxes[b]["kind"], boxes[b]["label"], boxes[b]["place"], _relative(boxes[b], start))
        for b in part.boxes
    )


def _relative(box: Box, start: int) -> tuple[int, ...]:
    return tuple(max(source - start, -1) for source in box["inputs"])


def _repeated(looks: list[Any], at: int) -> tuple[int, int]:
    """Return the period from here that is worth drawing once, and how often it comes.

    The shortest one, unless something shorter comes several times inside it.
    """
    period, times = _shortest(looks, at)
    inside = (_shortest(looks, place)[0] for place in range(at + 1, at + period))
    if any(0 < other < period for other in inside):
        return 1, 1
    return max(period, 1), times


def _shortest(looks: list[Any], at: int) -> tuple[int, int]:
    """Return the shortest period from here and its repeats, (0, 1) if nothing repeats."""
    if len(looks[at]) == 1 and looks[at][0][0] in _INNER:
        return 0, 1
    for period in range(1, min(_LONGEST, (len(looks) - at) // 2) + 1):
        times = 1
        while looks[at : at + period] == looks[at + times * period : at + (times + 1) * period]:
            times += 1
        if (times - 1) * sum(map(len, looks[at : at + period])) >= _SAVES:
            return period, times
    return 0, 1


def lanes_of(boxes: Sequence[Box], part: Segment) -> Lanes:
    """Return the rows and the lanes of a segment's boxes."""
    made = Lanes()
    for box in part.boxes:
        sources = [made.rows[s] for s in boxes[box]["inputs"] if s in made.rows]
        made.rows[box] = 1 + max(sources, default=-1)
    busy: list[set[int]] = []  # rows that each lane has given away
    chains = _chains(boxes, part)
    for chain in chains:
        top, end = _span(boxes, part, made.rows, chain)
        lane = _free(busy, range(top, end + 1))
        made.lanes |= dict.fromkeys(chain[1:-1], lane)
        edges = pairwise(chain)
        made.edges += [(a, b, lane) for a, b in edges if a is not None and b is not None]
    made.width = max(len(busy), 1)
    return made


def _chains(boxes: Sequence[Box], part: Segment) -> list[list[Any]]:
    """Return paths that together hold each box and each edge once.

    A path is [what its first box reads, its boxes, what reads its last box]; None for nothing.
    """
    inside, ahead = set(part.boxes), _readers(boxes, part)
    done: set[int] = set()
    used: set[tuple[Any, Any]] = set()
    found: list[list[Any]] = []
    starts = [(None, b) for b in part.boxes if not boxes[b]["inputs"]]
    starts += [(s, b) for s in (part.entry, *part.boxes) for b in ahead.get(s, ())]
    for source, box in starts:
        if (source, box) in used:
            continue
        chain: list[Any] = [source]
        while box is not None and box not in done:
            used.add((chain[-1], box))
            chain.append(box)
            done.add(box)
            waiting = [b for b in ahead.get(box, ()) if b in inside]
            box = next((b for b in waiting if b not in done), waiting[0] if waiting else None)
        used.add((chain[-1], box))
        found.append([*chain, box])
    return found


def _readers(boxes: Sequence[Box], part: Segment) -> dict[int | None, list[int]]:
    ahead: dict[int | None, list[int]] = {}
    for box in part.boxes:
        for source in boxes[box]["inputs"]:
            ahead.setdefault(source, []).append(box)
    return ahead


def _span(
    boxes: Sequence[Box], part: Segment, rows: dict[int, int], chain: list[Any]
) -> tuple[int, int]:
    """Return the first and the last row that a chain's lane needs."""
    source, *own, reader = chain
    top = rows[source] + 1 if source in rows else 0
    end = rows[reader] - 1 if reader is not None else max(rows[b] for b in own)
    return top, max(end, *(rows[b] for b in own)) if own else end


def _free(busy: list[set[int]], rows: range) -> int:
    for lane, taken in enumerate(busy):
        if taken.isdisjoint(rows):
            taken.update(rows)
            return lane
    busy.append(set(rows))
    return len(busy) - 1

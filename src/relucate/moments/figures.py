"""The figures of a probe's document at its sites, by role, for whoever compares them.

A site names its points by role; a point has its figures in `summary`. Called by `claims` and by
the predictions of a study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Point = Mapping[str, Any]
Site = Mapping[str, Any]
Seen = Mapping[str, Point]


def by_node(points: Sequence[Point]) -> Seen:
    """Return the points by their nodes."""
    return {point["node"]: point for point in points}


def summary(site: Site, seen: Seen, role: str) -> Mapping[str, Any]:
    """Return the figures of a site's point; empty if it wasn't seen."""
    return seen.get(site["points"].get(role), {"summary": {}})["summary"]


def table(sites: Sequence[Site], seen: Seen, figure: str, *roles: str) -> np.ndarray:
    """Return a figure at these roles, shape (sites, roles), of the sites that have it at all.

    >>> sites = [{"points": {"act_in": "a", "act_out": "b"}}, {"points": {"act_in": "b"}}]
    >>> seen = {"a": {"summary": {"skewness": 1.0}}, "b": {"summary": {"skewness": 3.0}}}
    >>> table(sites, seen, "skewness", "act_in", "act_out").tolist()
    [[1.0, 3.0]]
    """
    rows = [[summary(site, seen, role).get(figure) for role in roles] for site in sites]
    return np.array([row for row in rows if None not in row], float).reshape(-1, len(roles))


def medians(found: np.ndarray) -> list[float]:
    """Return the median of each column."""
    return [float(middle) for middle in np.median(found, axis=0)]

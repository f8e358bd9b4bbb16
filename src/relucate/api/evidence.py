"""`relucate.evidence`: what is known about the place of the norm, for a network like mine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..arguments import whole
from ..errors import InputError
from ..records import Result, known, matching
from ..records.results import read_card, summary, without_numbers
from .audit import audit
from .shown import Shown


class EvidenceTable(Shown):
    """Results of publications and of our own studies. Prints as a table with what they add up to.

    results: the rows that fit; asked: what they were selected by.
    """

    def __init__(
        self,
        results: list[Result],
        asked: dict[str, Any],
        choices: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.results, self.asked, self._choices = results, asked, choices or {}

    def _data(self) -> dict[str, Any]:
        return {
            "schema": "relucate.evidence/1",
            "asked": self.asked,
            "choices": dict(self._choices),
            "summary": summary(self.results),
            "results": [result.to_dict() for result in self.results],
            "without_numbers": [study.to_dict() for study in without_numbers()],
        }

    def _views(self) -> Any:
        from ..report.evidence import evidence_html, print_evidence

        return print_evidence, evidence_html

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"<EvidenceTable: {len(self)} results>"


def evidence(
    *,
    act: str | None = None,
    net: str | None = None,
    data: str | None = None,
    task: str | None = None,
    norm: str | None = None,
    depth: int | None = None,
    model: Any = None,
    example: Any = None,
    cards: str | Path | None = None,
) -> EvidenceTable:
    """Return what is known about norm before or after the activation, published and measured.

    Args:
        act: the activation's name, such as "tanh"; net, data: a part of the name of the network
            and of the data set; task: such as "classification"; norm: the kind of norm, "batch".
        depth: linear layers on the longest path: networks of half to twice as many fit.
        model: a Keras model or torch module: its commonest activation and kind of norm and its
            depth are taken as `act`, `norm` and `depth` where these aren't given, the depth only
            if there are results for it; example: as for `audit`.
        cards: your own cards (`Study.card`, `compare --card`), a file or a folder of them; they
            come first.

    Returns: an EvidenceTable; it is empty if nothing fits.
    Raises: InputError: an argument that isn't text, a model without norms. Refused: a model that
    can't be read.

    >>> found = evidence(act="tanh", net="VGG16", data="CIFAR-100")
    >>> [(r.study.id, round(r.difference, 2)) for r in found.results]
    [('kim-2023', 7.33)]
    """
    given: dict[str, Any] = {"act": act, "net": net, "data": data, "task": task, "norm": norm}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} must be a text, got {value!r}.")
    given["depth"] = None if depth is None else whole(depth, "depth", 1)
    if model is not None:
        given = {**_of_model(model, example), **{k: v for k, v in given.items() if v is not None}}
    asked = {name: value for name, value in given.items() if value is not None}
    own = () if cards is None else _cards(Path(cards))
    found = matching((*own, *known()), **asked)
    if not found and depth is None and asked.pop("depth", None):
        found = matching((*own, *known()), **asked)
    return EvidenceTable(found, asked, {} if found else _choices((*own, *known()), asked))


def _choices(rows: Iterable[Result], asked: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, for each name that no result has, the names that there are, without their sizes."""
    rows = [row for row in rows if row.difference is not None]
    missing = (name for name, value in asked.items() if not matching(rows, **{name: value}))
    return {
        name: sorted({str(getattr(row, name)).partition(", ")[0] for row in rows})
        for name in missing
    }


def _cards(place: Path) -> list[Result]:
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not paths:
        raise InputError(f"there are no cards in '{place}': expected JSON files that --card wrote.")
    rows = (row for path in paths for row in read_card(path))
    return [replace(row, study=replace(row.study, yours=True)) for row in rows]


def _of_model(model: Any, example: Any) -> dict[str, Any]:
    """Return the commonest activation next to a norm, the commonest kind of norm, the depth."""
    found = audit(model, example=example)
    sites = found.sites
    if not sites:
        raise InputError("the model has no norms: name what to look for, such as act='relu'.")
    acts = Counter(site.act_op for site in sites if site.act_op)
    kinds = Counter(site.kind for site in sites)
    return {
        "act": acts.most_common(1)[0][0] if acts else None,
        "norm": kinds.most_common(1)[0][0],
        "depth": found.depth or None,
    }

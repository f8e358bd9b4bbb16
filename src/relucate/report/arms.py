"""How the arms of a study look: which colour and marker each has, and what a legend says.

If options vary, a colour means an order, whatever the values. With more arms than colours the first
arm alone has one. Called by `view` and the pictures.
"""

from __future__ import annotations

from typing import Any

from relucate.phrases import chosen
from relucate.report.facts import short_names
from relucate.report.palette import ARM_LOOKS, OTHER, ArmLook, look

Study = dict[str, Any]


def looks(study: Study) -> dict[str, ArmLook]:
    """Return each arm's look by its label."""
    return {label: _look(place, study) for label, place in _places(study).items()}


def legend(study: Study) -> list[tuple[str, ArmLook]]:
    """Return what each look means, the first arm's first."""
    short = short_names(study)
    labels = _orders(study) or [arm["label"] for arm in study["arms"]]
    named = [short.get(label, label) for label in labels]
    if coloured(study):
        return [(name, look(place)) for place, name in enumerate(named)]
    return [(named[0], look(0)), ("each other arm", OTHER)]


def coloured(study: Study) -> bool:
    """Return whether every arm, or every order if options vary, has its own colour."""
    return len(_orders(study) or study["arms"]) <= len(ARM_LOOKS)


def groups(study: Study) -> list[tuple[str, list[Study]]]:
    """Return the arms in groups that belong in one panel, with the panel's title.

    One group of all arms with title "" if they have a colour each; a group per choice of values if
    options vary; else the first arm with each other arm.
    """
    short = short_names(study)
    arms = {arm["label"]: arm for arm in study["arms"]}
    if study.get("factors"):
        return [
            (chosen(row["values"]), [arms[c["arm"]] for c in row["cells"] if c.get("arm") in arms])
            for row in study["table"]
        ]
    first, *others = study["arms"]
    if coloured(study):
        return [("", study["arms"])]
    return [(short[arm["label"]], [first, arm]) for arm in others]


def _orders(study: Study) -> list[str]:
    """Return the orders of a study that varies options, else nothing."""
    return [cell["order"] for cell in study["table"][0]["cells"]] if study.get("factors") else []


def _places(study: Study) -> dict[str, int]:
    """Return each arm's place: of its order if options vary, else among the arms."""
    places = {arm["label"]: place for place, arm in enumerate(study["arms"])}
    for row in study["table"] if study.get("factors") else ():
        for place, cell in enumerate(row["cells"]):
            places |= {cell["arm"]: place} if cell.get("arm") in places else {}
    return places


def _look(place: int, study: Study) -> ArmLook:
    return look(place) if coloured(study) or place == 0 else OTHER

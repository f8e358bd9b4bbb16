"""A card: what one finished study found, made from its document and never typed.

Cards lie in `own/` and are read with the published results. Called by `compare --card` and
`relucate.Study.card`. Not here: reading cards (`results`).
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..phrases import count
from ..train.recipe import Recipe
from ..version import __version__
from .place import place_of_norm

SCHEMA = "relucate.card/1"
UNKNOWN = "not named"  # an activation or a kind of norm that the builder doesn't take as an option
_SAID = ("optimizer", "lr", "schedule", "label_smoothing", "initialization")  # if not the default
_PERCENT = "points"  # the unit of differences whose values are in percent


def card_of(
    study: Mapping[str, Any],
    *,
    question: str = "",
    name: str = "",
    usual: Mapping[str, Any] | None = None,
    depth: Callable[[Mapping[str, Any]], int | None] = lambda options: None,
) -> dict[str, Any]:
    """Return the card of a study's document (schema relucate.compare/2) as JSON-ready data.

    It has a row per choice of varied values, each with the mean and sd of every order over the
    runs, the interval of after minus before, and what is needed to
    repeat the study: command, commit, versions, hardware, seconds.

    Args:
        question: what the study was made to answer.
        name: of the card, by default from the model, the data and the date.
        usual: the builder's defaults of `act` and `norm`, if they are known.
        depth: returns the network's depth for the builder's options, if it can be known.
    Raises: InputError: a document of another schema, or one whose runs weren't trained by this
    package: scores from elsewhere, a training of one's own.
    """
    if study.get("schema") != "relucate.compare/2" or not study.get("data"):
        raise InputError("a card is made from a study whose networks relucate compare has trained.")
    model, data = study["model"]["name"].rpartition(":")[2], study["data"]["name"]
    day = study["created"][:10]
    return {
        "schema": SCHEMA,
        "study": {
            "id": name or f"{model}-{data}-{day}".replace("/", "-"),
            "authors": "relucate",
            "title": question or f"{model} on {data}: which order?",
            "year": int(day[:4]),
            "source": study["command"],
            "checked": "made by relucate compare",
            "own": True,
        },
        "rows": [_row(study, arms, usual or {}, depth) for arms in _choices(study)],
        "made": {
            "version": __version__,
            "commit": commit(),
            "versions": study["versions"],
            "hardware": {
                "machine": platform.machine(),
                "processor": platform.processor(),
                "threads": study["engine"]["threads"],
                "jobs": study["engine"]["jobs"],
                "device": study["engine"].get("device"),
                **({"card": study["engine"]["card"]} if study["engine"].get("card") else {}),
            },
            "engine": study["engine"]["name"],
            "recipe": study["recipe"],
            "seconds": study["seconds"],
            "created": study["created"],
        },
    }


def commit() -> str | None:
    """Return the commit that this package is at, "-dirty" behind it if its code was changed.

    None if the package isn't in a checkout of its own: installed, or copied into one that ignores
    it.
    """
    here = Path(__file__)
    try:
        _git("ls-files", "--error-unmatch", here.name)
        changed = _git("status", "--porcelain", "--", str(here.parents[1]), ":(exclude)*.json")
        return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    folder = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _choices(study: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the arms, those with the same varied values together."""
    names = [factor["name"] for factor in study["factors"]]
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in study["arms"]:
        found.setdefault(repr([arm["options"].get(name) for name in names]), []).append(arm)
    return list(found.values())


def _settings(study: Mapping[str, Any], arms: list[dict[str, Any]]) -> list[str]:
    """Return what else the arms are trained with; an option that differs, by order."""
    options = {**study["model"]["options"], **arms[0]["options"]}
    said = {"act", "norm", "epochs", "batch_size"}
    options = {name: value for name, value in options.items() if name not in said}
    found = []
    for name, value in options.items():
        own = {arm["order"]: arm["options"].get(name, value) for arm in arms}
        if len(set(map(repr, own.values()))) == 1:
            found.append(f"{name} {value}")
        else:
            each = (f"{value} {place_of_norm(order) or order}" for order, value in own.items())
            found.append(f"{name} {', '.join(each)}")
    recipe = {**study["recipe"], **arms[0]["options"]}
    usual = Recipe(optimizer=recipe["optimizer"]).to_dict() | {"optimizer": Recipe().optimizer}
    for name in _SAID:
        if name in recipe and name not in options and recipe[name] != usual.get(name):
            found.append(f"{name.replace('_', ' ')} {recipe[name]}")
    return [*found, count(recipe["epochs"], "epoch"), f"batch {recipe['batch_size']}"]


def _row(
    study: Mapping[str, Any],
    arms: list[dict[str, Any]],
    usual: Mapping[str, Any],
    depth: Callable[[Mapping[str, Any]], int | None],
) -> dict[str, Any]:
    metric, options = study["metric"], {**study["model"]["options"], **arms[0]["options"]}
    scale, named = metric["scale"], {"act": UNKNOWN, "norm": UNKNOWN, **usual, **options}
    return {
        "net": study["model"]["name"].rpartition(":")[2],
        "data": f"{study['data']['name'].rpartition('/')[2]}, {study['data']['train']:,} examples",
        "act": str(named["act"]),
        "norm": str(named["norm"]),
        "task": study["task"]["name"],
        "depth": depth(options),
        "metric": metric["name"],
        "unit": "%" if metric["unit"] == _PERCENT else metric["unit"],
        "lower_is_better": metric["direction"] == "lower",
        "runs": study["pairs"],
        "tuned": "tuning" in study,
        "setting": ", ".join(_settings(study, arms)),
        "scores": {
            arm["order"]: {"value": scale * arm["mean"]}
            | ({} if arm["sd"] is None else {"sd": scale * arm["sd"]})
            for arm in arms
        },
        **_interval(study, arms),
    }


def _interval(study: Mapping[str, Any], arms: list[dict[str, Any]]) -> dict[str, Any]:
    """Return interval and verdict on after minus before, if the study compared them directly."""
    labels = {place_of_norm(arm["order"]): arm["label"] for arm in arms}
    for found in study["comparisons"]:
        pair = (found["against"], found["arm"])
        for sign, wanted in ((1, ("before", "after")), (-1, ("after", "before"))):
            if pair == tuple(labels.get(place) for place in wanted):
                return _signed(study, found, sign)
    return {}


def _signed(study: Mapping[str, Any], found: Mapping[str, Any], sign: int) -> dict[str, Any]:
    metric, ends = study["metric"], found["difference"]
    verdict = {"verdict": found["verdict"]}
    if ends["low"] is None or ends["high"] is None:
        return verdict
    low, high = sorted(sign * metric["scale"] * ends[end] for end in ("low", "high"))
    return {
        **verdict,
        "interval": [low, high],
        "details": {"level": ends["level"], "method": ends["method"], "margin": study["margin"]},
    }

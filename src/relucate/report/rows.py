"""A study's runs as flat rows, for a data frame. Called by `Study.to_frame`."""

from __future__ import annotations

from typing import Any


def run_rows(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row a run; every row has the same columns."""
    options = {arm["label"]: arm.get("options") or {} for arm in study["arms"]}
    names = list(dict.fromkeys(name for chosen in options.values() for name in chosen))
    metric = study["metric"]["name"]
    scores = dict.fromkeys(name for run in study["runs"] for name in run.get("scores") or {})
    others = [name for name in scores if name != metric]
    return [
        {
            **{key: run.get(key) for key in ("arm", "order", "seed")},
            **{name: options[run["arm"]].get(name) for name in names},
            metric: run["metric"],
            **{name: (run.get("scores") or {}).get(name) for name in others},
            **{key: run.get(key) for key in ("status", "loss", "seconds", "epochs")},
            **{key: run.get(key) for key in ("hash", "note")},
        }
        for run in study["runs"]
    ]

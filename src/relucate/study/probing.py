"""What the layers of the first pair saw while it trained, as a study's document has it.

Beside the figures stand the claims of the literature: what each would predict of the verdict from
what was measured here, and what the verdict was. Not here: looking (`train.looking`), the claims
about one network (`moments.claims`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import whole
from ..errors import InputError
from ..moments.claims import BOUNDED, claims
from ..moments.figures import by_node, medians, table
from ..phrases import chosen
from ..train.looking import EXAMPLES
from .comparison import Comparison
from .results import StudyResults

STEPS = 7  # looks at a run, from before the training to its end, evenly spread

Part = Mapping[str, Any]


def check_probe(probe: object) -> None:
    """Raise InputError unless it is a bool or a sequence of epochs."""
    if isinstance(probe, bool):
        return
    if isinstance(probe, str) or not isinstance(probe, Sequence) or not probe:
        raise InputError(
            f"probe must be True, False or epochs such as [0, 1, 5], got {probe!r:.80}."
        )
    for epoch in probe:
        whole(epoch, "an epoch of probe", 0)


def look(probe: bool | Sequence[int], epochs: int, examples: int) -> dict[str, Any]:
    """Return after which epochs a run is looked at, and with how many of the test examples.

    >>> look(True, 10, 1000)
    {'epochs': [0, 2, 3, 5, 7, 8, 10], 'examples': 256}
    >>> look(False, 10, 1000)
    {}
    """
    if probe is False:
        return {}
    spread = np.linspace(0, epochs, min(STEPS, epochs + 1)).round().astype(int).tolist()
    chosen = spread if probe is True else sorted({int(epoch) for epoch in probe})
    if beyond := [epoch for epoch in chosen if epoch > epochs]:
        raise InputError(f"probe has epoch {beyond[0]}, and the runs have {epochs} epochs.")
    return {"epochs": chosen, "examples": min(EXAMPLES, examples)}


def probed(
    outcome: StudyResults[Comparison], comparisons: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the section `probe` of a document; nothing if no run was looked at."""
    from ..moments.sample import EDGES  # imports SciPy: the workers start first

    seed = outcome.plan.seeds[0]
    runs = ((arm, outcome.results.get((arm.label, seed), {})) for arm in outcome.plan.arms)
    arms = [_arm(arm, found) for arm, run in runs if (found := run.get("probe"))]
    if not arms:
        return {}
    examples = max(arm.pop("examples") for arm in arms)
    predicted = list(predictions(arms, comparisons))
    given = {"seed": seed, "examples": examples, "edges": EDGES.tolist()}
    return {"probe": {**given, "arms": arms, "predictions": predicted}}


def _arm(arm: Any, found: Part) -> dict[str, Any]:
    points = _last(found)
    return {
        "arm": arm.label,
        "order": None if arm.order is None else str(arm.order),
        "place": _place(arm.order),
        "options": arm.varied,
        **found,
        "claims": claims(found["sites"], points) if points else [],
    }


def _last(arm: Part) -> Sequence[Part]:
    """Return the points of the last look that worked; nothing if none did."""
    return next((step["points"] for step in reversed(arm["steps"]) if step["points"]), [])


def _place(order: Any) -> str | None:
    """Return whether the norm is before or after the activation behind its linear layer."""
    tokens = [] if order is None else [token for token in str(order).split("-") if token != "drop"]
    return {"linear-norm-act": "before", "linear-act-norm": "after"}.get("-".join(tokens))


# ---- what the claims predict


def predictions(
    arms: Sequence[Part], comparisons: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield for each claim what it predicts of norm before against norm after the activation.

    `claim`, `source`, `before` and `after` (arms), `measured` (the figure in each), `predicts` (an
    arm or None), `verdict`, `winner`, `agrees` (None: the claim or the verdict leaves it open) and
    `text`.
    """
    for before in arms:
        for after in arms:
            ours = (before["place"], after["place"]) == ("before", "after")
            if not ours or before["options"] != after["options"]:
                continue
            pair = {before["arm"], after["arm"]}
            found = next((c for c in comparisons if {c["arm"], c["against"]} == pair), None)
            for claim in _CLAIMS:
                yield from claim(before, after, found)


def _figures(arm: Part, role: str, figure: str) -> np.ndarray:
    """Return a figure at the sites that have it at this role, at the last look that worked."""
    return table(arm["sites"], by_node(_last(arm)), figure, role)


def _medians(arms: Sequence[Part], role: str, figure: str) -> list[float]:
    """Return a figure's median over the sites of each arm; nothing if an arm lacks it."""
    found = [_figures(arm, role, figure) for arm in arms]
    return [medians(values)[0] for values in found] if all(map(len, found)) else []


Claim = Callable[[Part, Part, Any], Iterator[dict[str, Any]]]


def _skewed(before: Part, after: Part, found: Any) -> Iterator[dict[str, Any]]:
    if not (middles := _medians((before, after), "norm_in", "skewness")):
        return
    b, a = middles
    ops = {site["act_op"] for site in after["sites"] if site["act_op"]}
    behind = " and ".join(sorted(ops)) or "the activation"
    said = (
        f"skewed inputs behind {behind} are harder to standardize: |skewness| of what the norm "
        f"reads {_two(b, a)}"
    )
    predicted = before if a > b else None
    source = "Goodfellow, Bengio and Courville, Deep Learning, 2016, 8.7.1"
    yield _row("skewed", source, said, (before, after), (b, a), predicted, found)


def _normal(before: Part, after: Part, found: Any) -> Iterator[dict[str, Any]]:
    if not (middles := _medians((before, after), "norm_in", "normal_distance")):
        return
    b, a = middles
    said = (
        "in front of the activation the norm reads values closer to a normal distribution: "
        f"distance {_two(b, a)}"
    )
    source = "Ioffe and Szegedy, Batch Normalization, 2015, 3.2"
    predicted = before if b < a else None
    yield _row("normal", source, said, (before, after), (b, a), predicted, found)


def _centred(before: Part, after: Part, found: Any) -> Iterator[dict[str, Any]]:
    if not (middles := _medians((before, after), "next", "mean_in_sd")):
        return
    b, a = middles
    said = (
        "layers learn faster from inputs with a mean near zero: |mean| in sd of what the next "
        f"layer reads {_two(b, a)}"
    )
    predicted = None if a == b else after if a < b else before
    source = "LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, 4.3"
    yield _row("centred", source, said, (before, after), (b, a), predicted, found)


def _sparse(before: Part, after: Part, found: Any) -> Iterator[dict[str, Any]]:
    ops = {site["act_op"] for site in after["sites"] if site["act_op"]} & BOUNDED
    sparse = _medians((before, after), "next", "sparsity")
    sided = _medians((before, after), "act_out", "asymmetry")
    if not ops or not sparse or not sided:
        return
    b, a = sparse
    said = (
        f"with the norm behind it, {' and '.join(sorted(ops))} saturates on one side of each "
        f"channel, and the next layer reads sparse values: one-sidedness "
        f"{_two(sided[0], sided[1])}; sparsity {_two(b, a)}"
    )
    predicted = after if a > b and sided[1] > sided[0] else None
    source = "Kim, Kim and Kim, Tanh Works Better with Asymmetry, 2023"
    yield _row("saturated", source, said, (before, after), (b, a), predicted, found)


def _dead(before: Part, after: Part, found: Any) -> Iterator[dict[str, Any]]:
    b, a = (float(_figures(arm, "act_out", "dead").sum()) for arm in (before, after))
    if not b and not a:
        return
    said = f"dead channels can't learn: {b:.0f} with the norm before, {a:.0f} after"
    predicted = None if a == b else after if a < b else before
    source = "Lu, Shin, Su and Karniadakis, Dying ReLU and Initialization, 2019"
    yield _row("dead", source, said, (before, after), (b, a), predicted, found)


_CLAIMS: tuple[Claim, ...] = (_skewed, _normal, _centred, _sparse, _dead)


def _two(b: float, a: float) -> str:
    return f"{b:.2f} with the norm before, {a:.2f} after"


def _row(
    claim: str,
    source: str,
    said: str,
    arms: tuple[Part, Part],
    figures: tuple[float, float],
    predicted: Part | None,
    found: Mapping[str, Any] | None,
) -> dict[str, Any]:
    verdict, winner = (None, None) if found is None else (found["verdict"], found["winner"])
    predicts = None if predicted is None else predicted["arm"]
    names = {arms[0]["arm"]: "norm before ahead", arms[1]["arm"]: "norm after ahead"}
    measured = "not compared" if verdict is None else names.get(winner, verdict)
    guess = "predicts nothing here" if predicts is None else f"predicts {names[predicts]}"
    values = chosen(arms[0]["options"])
    said = f"{values}: {said}" if values else f"{said[:1].upper()}{said[1:]}"
    return {
        "claim": claim,
        "source": source,
        "before": arms[0]["arm"],
        "after": arms[1]["arm"],
        "measured": {"before": figures[0], "after": figures[1]},
        "predicts": predicts,
        "verdict": verdict,
        "winner": winner,
        "agrees": None if predicts is None or winner is None else predicts == winner,
        "text": f"{said}; {guess}. Measured: {measured}.",
    }

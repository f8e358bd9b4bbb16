"""A study's dict as the rows and words of the HTML page; the template only places them.

Numbers come in the metric's own unit and are returned as text with a true minus sign. Not here:
escaping (the template's), figures (`plots`). Called by `html`.
"""

from __future__ import annotations

import re
from typing import Any

from relucate.phrases import some
from relucate.report import answer, arms, reach, tuning, varied
from relucate.report.facts import (
    arm_verdict,
    bare_sentence,
    failed_runs,
    short_names,
    sole_winner,
    source,
    span,
    unpaired,
)
from relucate.report.numbers import MISSING, Units, duration, known, level_percent, plain, whole
from relucate.train.metric import Metric
from relucate.train.recipe import OPTIMIZATION


def typographic(text: str) -> str:
    """Return a number's text with true minus signs, and an en dash for an unknown number.

    >>> typographic("-0.35 to +0.87") == "\\u22120.35 to +0.87", typographic("-") == "\\u2013"
    (True, True)
    """
    return "–" if text == "-" else text.replace("-", "−")


def minus(text: str) -> str:
    """Return words with true minus signs before their numbers; hyphens stay.

    >>> minus("linear-act: -0.35 to +0.87") == "linear-act: \\u22120.35 to +0.87"
    True
    """
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def page(study: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the page says about a study, except the figures."""
    return {
        "title": source(study),
        "name": study["metric"]["name"],
        "paired": not unpaired(study),
        "units": units(study),
        "verdict": verdict(study),
        "keys": key_numbers(study),
        "surprise": minus(answer.surprise(study)),
        "legend": legend(study),
        "arms": arm_table(study),
        "comparisons": comparison_table(study),
        "varied": varied_table(study),
        "tuning": {
            "lines": [minus(line) for line in tuning.lines(study)],
            "heads": tuning_heads(study),
            "rows": tuning.table(study),
        },
        "reach": reach_tables(study),
        "pairs": pair_table(study),
        "runs": run_table(study),
        "facts": facts(study),
        "recipe": recipe(study),
        "versions": flat(study["versions"]),
        "pairing": pairing(study),
        "engine": engine(study),
        "words": words(study),
        "notes": [
            note.removesuffix(study.get("continue") or "").rstrip() for note in study["notes"]
        ],
        "continue": study.get("continue") or "",
        "command": study["command"],
        "created": str(study["created"]).replace("T", " ").replace("+00:00", " UTC"),
    }


def units(study: dict[str, Any]) -> dict[str, str]:
    """Return the units of values and differences, to append to a heading.

    >>> from relucate.train.metric import ACCURACY
    >>> units({"metric": ACCURACY.to_dict()})
    {'value': ', %', 'difference': ', points'}
    """
    metric = Metric.from_dict(study["metric"])
    found = {"value": metric.value_unit, "difference": metric.unit}
    return {name: f", {unit}" if unit else "" for name, unit in found.items()}


def verdict(study: dict[str, Any]) -> dict[str, str]:
    """Return the verdict's word ("" if there are several), its style and the answer's sentence."""
    word = answer.word(study)
    return {**badge(word), "sentence": minus(_opened(word, answer.sentence(study), study))}


def _opened(word: str, sentence: str, study: dict[str, Any]) -> str:
    """Return a sentence without the verdict's word, with a capital unless a label opens it."""
    bare = bare_sentence(word, sentence)
    labelled = bare.startswith(tuple(arm["label"] for arm in study["arms"]))
    return bare if labelled else bare[:1].upper() + bare[1:]


def badge(word: str) -> dict[str, str]:
    """Return a verdict's word and its style, a known word or "other"."""
    return {"word": word, "style": word if word in answer.WORDS else "other"}


def key_numbers(study: dict[str, Any]) -> list[dict[str, str]]:
    """Return the three numbers that matter: name, value and a short explanation."""
    return [
        {"name": row["name"], "value": _value(row["value"]), "about": minus(row["about"])}
        for row in answer.keys(study)
    ]


def _value(text: str) -> str:
    return typographic(text) if text == MISSING else minus(text)


def _runs(comparison: dict[str, Any]) -> str:
    """Return the number of pairs, or of the runs of the first arm and of this one."""
    if runs := comparison.get("runs"):
        return f"{runs[0]:,} and {runs[1]:,}"
    return str(comparison["pairs"])


def legend(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each look in a picture means: name, colour variable and marker."""
    return [
        {
            "name": name,
            "colour": look.variable,
            "light": look.light,
            "path": look.path,
        }
        for name, look in arms.legend(study)
    ]


def marks(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each arm's short name with its colour variable and marker."""
    short = short_names(study)
    return [
        {"name": short[label], "colour": look.variable, "path": look.path}
        for label, look in arms.looks(study).items()
    ]


def arm_table(study: dict[str, Any]) -> dict[str, Any]:
    """Return the table of arms, which of its columns are needed, and what its means count."""
    failed, units = failed_runs(study), Units.of_study(study)
    rows = [
        {
            **arm,
            **mark,
            "words": words if (words := arm.get("words") or "") != arm["label"] else "",
            "winner": arm["label"] == sole_winner(study),
            "mean": typographic(units.value(arm["mean"])),
            "sd": typographic(units.value(arm["sd"])),
            "parameters": typographic(whole(arm["parameters"])),
            "norm_parameters": typographic(whole(arm["norm_parameters"])),
            "seconds": duration(arm["seconds"]),
            "failed": failed.get(arm["label"], 0),
            "options": flat(arm.get("options") or {}),
        }
        for arm, mark in zip(study["arms"], marks(study), strict=True)
    ]
    return {
        "rows": rows,
        "failed": bool(failed),
        "diverged": any(arm["diverged"] for arm in study["arms"]),
        "options": any(row["options"] for row in rows) and not study.get("factors"),
        "ordered": any(row["order"] for row in rows),
        "trained": study["engine"] is not None,
        "sized": any(arm["parameters"] is not None for arm in study["arms"]),
        "counted": _counted(study, units),
    }


def _counted(study: dict[str, Any], units: Units) -> str:
    """Return how diverged runs enter the means, if there are any."""
    lost = [(arm["diverged"], arm["n"], arm["label"]) for arm in study["arms"] if arm["diverged"]]
    if not lost:
        return ""
    short = short_names(study)
    counts = some([f"{n} of {runs} runs of {short[label]}" for n, runs, label in lost], 6)
    if all(n == runs for n, runs, _ in lost):  # such an arm has no mean
        return f"Diverged: {counts}."
    worst = units.valued(units.metric.worst)
    others = (
        "" if units.metric.is_worst_possible else ", or as the other arm's run if that is worse"
    )
    return f"Diverged: {counts}. In mean, sd and differences they count as {worst}{others}."


def comparison_table(study: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row per comparison."""
    rows, units, short = [], Units.of_study(study), short_names(study)
    for comparison in study["comparisons"]:
        difference = comparison["difference"]
        rows.append(
            {
                "arm": short[comparison["arm"]],
                "against": short[comparison["against"]],
                **badge(arm_verdict(comparison)),
                "sentence": minus(_opened(comparison["verdict"], comparison["sentence"], study)),
                "estimate": typographic(units.difference(difference["estimate"])),
                "interval": typographic(span(difference, comparison["pairs"], units)),
                "pairs": _runs(comparison),
                "correlation": typographic(plain(comparison["correlation"])),
            }
        )
    return rows


def tuning_heads(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the legend with the arms' names without their learning rates."""
    tuned, short = (study.get("tuning") or {}).get("arms", []), short_names(study)
    return [
        {**entry, "name": short.get(arm["label"], arm["label"])}
        for entry, arm in zip(marks(study), tuned, strict=False)
    ]


def varied_table(study: dict[str, Any]) -> dict[str, Any] | None:
    """Return the table of a study that varies more than the order, otherwise None."""
    if not study.get("factors"):
        return None
    several = len(study["table"][0]["effects"]) > 1
    headings, rows = (varied.long_table if several else varied.table)(study)
    return {
        "headings": [
            {"text": text, "number": side == "right", "badge": text == "verdict"}
            for text, side in headings
        ],
        "rows": [
            [{**badge(cell), "text": _value(cell), "known": cell != MISSING} for cell in row]
            for row in rows
        ],
        "sentences": [minus(text) for text in varied.sentences(study)],
    }


def reach_tables(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, by comparison, the figures besides its verdict as rows of (name, text)."""
    units, short = Units.of_study(study), short_names(study)
    tables = [
        {
            "name": f"{short[comparison['arm']]} minus {short[comparison['against']]}",
            "rows": [(name, minus(text)) for name, text in reach.rows(comparison, units)],
        }
        for comparison in study["comparisons"]
    ]
    return [table for table in tables if table["rows"]]


def pair_table(study: dict[str, Any]) -> dict[str, Any]:
    """Return a row per seed: every arm's metric (or the run's status), then differences."""
    units = Units.of_study(study)
    runs = {(run["seed"], run["arm"]): run for run in study["runs"]}
    by_seed = [
        {pair["seed"]: pair["value"] for pair in comparison["differences"]}
        for comparison in study["comparisons"]
    ]
    rows = [
        {
            "seed": seed,
            "metrics": [_metric(runs.get((seed, arm["label"])), units) for arm in study["arms"]],
            "differences": [typographic(units.difference(values.get(seed))) for values in by_seed],
        }
        for seed in dict.fromkeys(run["seed"] for run in study["runs"])
    ]
    differences = 0 if unpaired(study) else len(by_seed)
    return {
        "rows": rows,
        "arms": marks(study),
        "parts": _parts(len(study["arms"]), differences),
    }


PAPER = 7  # columns of scores that fit across a printed page

Part = tuple[slice, slice]


def _parts(arms: int, differences: int) -> list[Part]:
    """Return which arms and which differences are in one table: all of them, or a few at a time.

    >>> [(a.stop, d.stop) for a, d in _parts(2, 1)], len(_parts(8, 7))
    ([(2, 1)], 3)
    """
    if arms + differences <= PAPER:
        return [(slice(arms), slice(differences))]
    nothing = slice(0)
    return [
        *((few, nothing) for few in _few(arms)),
        *((nothing, few) for few in _few(differences)),
    ]


def _few(number: int) -> list[slice]:
    return [slice(start, start + PAPER) for start in range(0, number, PAPER)]


def _metric(run: dict[str, Any] | None, units: Units) -> dict[str, str]:
    """Return a run's score, or its status where it has none."""
    if run is None:
        return {"text": "–", "status": "missing"}
    if run["status"] != "done":
        return {"text": run["status"], "status": "lost"}
    return {"text": typographic(units.value(run["metric"])), "status": "done"}


def run_table(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per run with everything known about it, except its curves."""
    units = Units.of_study(study)
    return [
        {
            **run,
            "metric": typographic(units.value(run["metric"])),
            "loss": typographic(plain(run["loss"], 4)),
            "seconds": duration(run["seconds"]),
            "hash": str(run.get("hash") or "")[:12],
        }
        for run in study["runs"]
    ]


def facts(study: dict[str, Any]) -> list[tuple[str, str]]:
    """Return model and data, or where the scores come from, as (name, value) rows."""
    model, data, scores = study["model"] or {}, study["data"], study.get("scores") or {}
    options = ", ".join(f"{key} = {value}" for key, value in flat(model.get("options") or {}))
    rows = [
        ("model", model.get("name", "") + (f" ({options})" if options else "")),
        ("model source", str(model.get("source") or "")),
        *_task_facts(study.get("task"), study["metric"]["name"]),
        *(_data_facts(data) if data else []),
        ("runs" if known(study["seconds"]) else "scores", f"{len(study['runs']):,}"),
        ("time of the whole study", duration(study["seconds"]) if known(study["seconds"]) else ""),
        ("file" if scores.get("fingerprint") else "source", str(scores.get("source") or "")),
        ("SHA-256", str(scores.get("fingerprint") or "")),
    ]
    return [(name, value) for name, value in rows if value]


def _task_facts(task: dict[str, Any] | None, metric: str) -> list[tuple[str, str]]:
    return [("task", f"{task['name']} by {metric}"), ("loss", task["loss"])] if task else []


def _data_facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("data", data["name"]),
        ("input shape", " × ".join(str(size) for size in data["input_shape"])),
        (data.get("labels", "classes"), str(data["classes"])),
        ("images", f"{data['train']:,} to train, {data['test']:,} to test"),
        ("data fingerprint", str(data.get("fingerprint") or "")),
    ]


def engine(study: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the training engine and the reason for it as (name, value) rows."""
    found = study["engine"] or {}
    return flat({key.replace("name", "engine"): v for key, v in found.items() if key != "compiled"})


def recipe(study: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the recipe as (name, value) rows, without what a compiled model has of its own."""
    found, own = study["recipe"] or {}, (study["engine"] or {}).get("compiled")
    used = {name: v for name, v in found.items() if not own or name not in OPTIMIZATION}
    return flat({**used, "the model's own": own})


def flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows of a flat dict without those that are None or empty.

    >>> flat({"batch_size": 64, "nesterov": True, "clip": None, "augment": ["flip", "crop"]})
    [('batch size', '64'), ('nesterov', 'yes'), ('augment', 'flip, crop')]
    """
    return [
        (str(key).replace("_", " "), _text(value))
        for key, value in values.items()
        if value is not None and value != ""
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def pairing(study: dict[str, Any]) -> dict[str, Any]:
    """Return what the arms of a pair share, and which tensors only one of them has."""
    shared = study.get("pairing") or {}
    only = [(arm, names) for arm, names in (shared.get("only") or {}).items() if names]
    tensors, same = shared.get("tensors"), shared.get("shared")
    sentence = (
        f"{same} of {tensors} tensors have the same name and shape in every arm; within a pair "
        "they start from the same values, and the data come in the same order."
        if known(tensors) and known(same)
        else _unrecorded(study)
    )
    return {"sentence": sentence, "only": only}


def _unrecorded(study: dict[str, Any]) -> str:
    """Return what is known of pairs without a list of shared tensors."""
    if (study["engine"] or {}).get("name") == "run":
        return "Your own training got the same seed for every arm of a pair; the rest is up to it."
    return "What the arms of a pair share was not recorded."


def words(study: dict[str, Any]) -> list[tuple[str, str]]:
    """Return one line per term used on the page."""
    level, metric = level_percent(study["level"]), Metric.from_dict(study["metric"])
    unit = f", in {metric.words[1]}" if metric.unit else ""
    direction = f" A lower {metric.name} is better." if metric.lower_is_better else ""
    given, paired = study["engine"] is None, not unpaired(study)
    over = "averaged over pairs" if paired else "between the means of their runs"
    few = "pairs" if paired else "runs"
    terms = [
        ("order", "what a block does, in the order of the data: linear (convolution or dense), "
         "norm, act (activation), drop (dropout)."),
        ("arm", "one of the variants that are compared."),
        ("pair", "the scores of all arms with the same seed." if given else
         "every arm trained once with the same seed: what the arms share starts equal, "
         "and they see the same data in the same order."),
        ("difference", f"one arm's {metric.name} minus the other's, {over}{unit}."
         f"{direction}"),
        ("interval", f"a range computed so that, over many such studies, {level} of the ranges "
         "contain the true mean difference."),
        ("margin", "the smallest difference that matters, chosen before "
         f"{'looking at the scores' if given else 'the first run'}."),
        ("correlation", "how far the arms do well with the same seeds, from 0 (not at all) to 1. "
         "The higher it is, the more pairing narrows the interval."),
        ("verdict", "equivalent: the whole interval is inside the margin. Better: it isn't, but it "
         f"is on one side of zero. Inconclusive: neither, or too few {few}."),
        ("how far it reaches", _reach_words(given)),
        ("sd", f"standard deviation over {'seeds' if paired else 'runs'}{unit}."),
        ("diverged", _diverged_words(metric, given)),
    ]  # fmt: skip
    left_out = set() if any(arm["order"] for arm in study["arms"]) else {"order"}
    left_out |= set() if paired else {"pair", "correlation", "how far it reaches"}
    left_out |= {"diverged"} if given and not any(a["diverged"] for a in study["arms"]) else set()
    return [(name, text) for name, text in terms if name not in left_out]


def _reach_words(given: bool) -> str:
    reach = (
        "the verdict's interval is about new seeds, with everything else as it was."
        if given
        else "the verdict's interval is about new seeds on these test examples. The wider one "
        "treats the test examples as a sample, too."
    )
    return (
        f"{reach} Student's t, Wilcoxon, TOST and the chance to be ahead are there for readers who "
        "expect them. They are valid for a number of pairs fixed beforehand, and the verdict "
        "doesn't use them."
    )


def _diverged_words(metric: Metric, given: bool) -> str:
    worst = Units(metric).valued(metric.worst) if metric.worst else "zero"
    what = "the run has no score" if given else "the loss became infinite or undefined"
    return (
        f"{what}; {'it' if given else 'the run'} counts with {metric.named} of {worst}, so that no "
        "arm benefits from it."
    )

"""Draw the README's picture of the published comparisons: python docs/evidence.py"""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import relucate

BEFORE, AFTER = "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion
ROWS = {  # label: which results
    "ReLU conv net, each order tuned": lambda r: relu(r) and r["tuned"],
    "ReLU conv net, one recipe for both": lambda r: relu(r) and not (r["tuned"] or dense(r)),
    "ReLU dense net, one recipe for both": lambda r: relu(r) and dense(r),
    "PReLU, at most 30 epochs": lambda r: r["act"] == "prelu",
    "tanh, LeCun tanh, softsign": lambda r: r["act"] in ("tanh", "lecun_tanh", "softsign"),
}
TARGET = Path(__file__).parent / "images" / "evidence.svg"


def relu(result):
    return result["act"] == "relu"


def dense(result):
    return result["net"].startswith("MLP")


def compared():
    """Return the published results that have both orders, by row."""
    found = relucate.evidence().to_dict()["results"]
    published = [r for r in found if r["axis"] == "order" and not r["study"].get("own")]
    results = [r for r in published if r["difference"] is not None]
    return {label: [r for r in results if chosen(r)] for label, chosen in ROWS.items()}


def draw(rows):
    """A dot for each comparison: filled for several runs, hollow for one."""
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.9)
    for height, results in enumerate(reversed(rows.values())):
        values = np.sort([r["difference"] for r in results])
        order = np.argsort([r["difference"] for r in results])
        for value, which, shift in zip(values, order, spread(values), strict=True):
            colour = AFTER if value > 0 else BEFORE
            fill = colour if results[which]["runs"] > 1 else "white"
            axes.plot(value, height + shift, "o", color=colour, markerfacecolor=fill, markersize=8)
        ahead = sum(value < 0 for value in values)
        text = f"before ahead in {ahead} of {len(values)}"
        axes.annotate(text, (8.7, height), va="center", fontsize=10, annotation_clip=False)
    axes.set_yticks(range(len(rows)), list(reversed(rows)), fontsize=11)
    axes.set(xlim=(-4, 8.6), ylim=(-0.6, len(rows) - 0.4))
    axes.set_xlabel("norm after minus norm before the activation, points of accuracy", fontsize=10)
    axes.set_title("← before is better", loc="left", x=0.02, color=BEFORE, fontsize=11)
    axes.set_title("after is better →", loc="right", color=AFTER, fontsize=11)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def spread(values):
    """Return heights that keep dots with nearly the same value apart."""
    return [0.16 * (-1) ** place if len(values) > 3 else 0.0 for place in range(len(values))]


def save(target):
    """Write the picture; the same bytes each time."""
    with rc_context({"svg.hashsalt": "relucate"}):
        draw(compared()).savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    save(TARGET)

"""Draw the README's picture: python docs/picture.py study.json docs/images/cifar10.svg"""

import json
import sys

import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73")  # Okabe and Ito's


def main(source: str, target: str) -> None:
    """Read the study and write the picture."""
    with open(source) as text:
        study = json.load(text)
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_curves(left, study)
    draw_differences(right, study)
    figure.savefig(target, metadata={"Date": None})


def draw_curves(axes, study) -> None:
    """Test accuracy of both arms over the epochs: mean over seeds, band of one sd."""
    for arm, colour in zip(study["arms"], COLOURS, strict=False):
        runs = [run["curve"] for run in study["runs"] if run["arm"] == arm["label"]]
        values = 100 * np.array([run["accuracy"] for run in runs], float)
        epochs, mean, sd = runs[0]["epoch"], values.mean(0), values.std(0, ddof=1)
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
        axes.plot(epochs, mean, color=colour, marker="o", markersize=4, label=arm["label"])
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.set_title("mean over seeds, band: one sd", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def draw_differences(axes, study) -> None:
    """A dot per pair, the mean with its interval, zero and the margin."""
    values = 100 * np.array([pair["value"] for pair in study["differences"]])
    difference, margin = study["difference"], 100 * study["margin"]
    rows = np.arange(len(values), 0, -1)
    axes.axvspan(-margin, margin, color="#e8ebf0")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.plot(values, rows, "o", color="#555555", markersize=5)
    low, high = 100 * difference["low"], 100 * difference["high"]
    axes.plot([low, high], [0, 0], color="black", linewidth=2)
    axes.plot([100 * difference["estimate"]], [0], "D", color="black")
    axes.set_yticks([0, *rows], ["mean", *(f"seed {p['seed']}" for p in study["differences"])])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel(f"{difference['of']} (points)", fontsize=9)
    axes.set_title(f"{study['verdict']}; shaded: the margin", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    main(*sys.argv[1:3])

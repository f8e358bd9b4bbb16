"""Everything that is measured at one point of a network: moments, a sample, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .rank import Covariance
from .running import Running
from .sample import Sample, histogram, normal_distance, quantiles

QUANTILES = (0.15, 0.5, 0.85)  # as in the figure of Ioffe and Szegedy, 2015


@dataclass
class Channels:
    """A stream of values at one point; `axis` is that of the channels."""

    axis: int = -1
    running: Running = field(default_factory=Running)
    sample: Sample = field(default_factory=Sample)
    examples: int = 0
    covariance: Covariance | None = None  # of the channels, if the effective rank is wanted

    def add(self, values: np.ndarray) -> bool:
        """Take in a batch, examples along axis 0; return whether all of it is finite."""
        self.running.add(values, self.axis)
        self.sample.add(values, self.axis)
        if self.covariance is not None:
            self.covariance.add(values)
        self.examples += len(values)
        return bool(np.isfinite(self.running.low).all() and np.isfinite(self.running.high).all())

    def statistics(self) -> dict[str, np.ndarray]:
        """Return every figure per channel, shape (channels,); `histogram` has (channels, 14).

        `constant`: dead. `sparsity` is Hoyer's (2004) for many values, 1 - E|x| / sqrt(E x²): 0 if
        all magnitudes are equal, 1 if nearly all are 0. `saturation` is E|x|: of an activation that
        is bounded by -1 and 1, the share of its bound (Rakitianskaia and Engelbrecht, 2015, with
        bins that are arbitrarily small). `asymmetry` is |E x| / E|x|: 1 if all is on one side.
        """
        found, mean, variance = self.running, self.running.mean, self.running.variance
        sd = np.where(found.constant, np.nan, np.sqrt(variance))
        ascending = self.sample.ascending
        low, middle, high = quantiles(ascending, QUANTILES)
        size = found.magnitude / found.count
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "mean": mean,
                "variance": variance,
                "skewness": found.skewness,
                "kurtosis": found.kurtosis,
                "min": found.low,
                "max": found.high,
                "q15": low,
                "q50": middle,
                "q85": high,
                "zeros": found.zeros / found.count,
                "constant": found.constant,
                "normal_distance": normal_distance(ascending, mean, sd),
                "saturation": size,
                "asymmetry": np.abs(mean) / size,
                "sparsity": 1 - size / np.sqrt(variance + mean**2),
                "histogram": histogram(ascending, mean, sd),
            }

"""The plan of a study whose runs are the user's own training.

Not here: calling it (`own`), what any plan has (`plan.Executed`).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from ..train.run import RunSpec
from .executors import Setup
from .executors.perform import own_inspection, own_run
from .own import OwnArm
from .plan import Executed
from .source import ModelSource
from .tasks import Inspection


@dataclass(frozen=True)
class OwnPlan(Executed):
    """The plan of a study whose runs are the user's own training.

    source: the function; key: identifies what its code doesn't show, such as the data;
    nan_diverges: a score that isn't finite means a diverged run, which counts with the worst score.
    """

    arms: tuple[OwnArm, ...]
    source: ModelSource
    _: KW_ONLY
    key: str = ""
    nan_diverges: bool = False

    quick = 0.05  # type: ignore[misc]  # less than a commit may take

    @property
    def preparing(self) -> str:  # type: ignore[override]
        """What the first task does, in words."""
        return f"loading '{self.source.text}'"

    @property
    def setup(self) -> Setup:
        """The settings that all tasks share."""
        cluster = {"address": self.address, "gpus_per_run": self.gpus_per_run}
        return Setup(self.source, None, self.workers, self.threads, **cluster)

    def inspection(self) -> dict[str, Any]:
        """Return the work of loading the function."""
        return own_inspection(self.arms)

    def spec(self, inspection: Inspection, index: int, seed: int) -> RunSpec:
        """Return the spec of arm `index` at `seed`: the code, the arguments, and the key."""
        engine = {key: inspection.engine[key] for key in ("name", "backend", "device")}
        return RunSpec(
            model={"code": inspection.code, "options": dict(self.source.options), "key": self.key},
            arm=self.arms[index].to_dict(),
            before=(),
            seed=seed,
            data={},
            recipe={},
            engine={**engine, "threads": self.threads},
            versions=inspection.versions,
            task={"metric": self.metric.name},
        )

    def work(self, spec: RunSpec) -> dict[str, Any]:
        """Return the work of calling the function."""
        return own_run(spec, self.nan_diverges)

    def activation(self, inspection: Inspection, arm: OwnArm) -> str | None:
        """Return the activation, if an option says it."""
        named = {**self.source.options, **arm.options}.get("act")
        return named if isinstance(named, str) else None

    def settings(self, inspection: Inspection) -> dict[str, Any]:
        """Return the document's sections on how the scores came about."""
        return {
            **super().settings(inspection),
            "model": {
                "name": self.source.text,
                "options": dict(self.source.options),
                "source": "your own training",
                "norms": {},
            },
            "engine": {**inspection.engine, **self.place},
            "versions": inspection.versions,
        }

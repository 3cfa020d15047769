"""A finished stage, and how its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from calib_utils import crossing, models
from calib_utils.models import LanguageModel
from calib_utils.training.stage import Stage
from calib_utils.types import Origin


@dataclass(frozen=True)
class Trained:
    """A finished stage.

    Attributes
    ----------
    stage : what was trained.
    key : hash of everything that determines the weights, parents included.
    folder : holds `step-N/` (adapter or whole model) for every kept step, `log.csv` and `stage.json`.
    base : name of the model below the adapter: the base model, or the folder of a fully trained parent.
    dtype, device : how to load it.
    origin : what finds what is shipped of it.
    """

    stage: Stage
    key: str
    folder: Path
    base: str
    dtype: str
    device: str
    origin: Origin

    @property
    def log(self) -> pd.DataFrame:
        """One row per step: loss, and what the method reports (log-probabilities of chosen and rejected, reward)."""
        if crossing.reading():
            return crossing.found("log", self.origin.key, self.origin)
        table = pd.read_csv(self.folder / "log.csv")
        crossing.note("log", self.origin.key, table)
        return table

    @property
    def finished(self) -> bool:
        """Whether the weights are there."""
        return (self.folder / "stage.json").exists()

    def where(self, step: int | None = None) -> tuple[str, str | None]:
        """Model and adapter after `step` (the last one by default), for `models.load`; KeyError if not kept."""
        step = self.stage.steps if step is None else step
        if step not in self.stage.kept:
            raise KeyError(f"step {step} of {self.stage.method} was not kept; kept: {self.stage.kept}")
        folder = str(self.folder / f"step-{step}")
        return (self.base, folder) if self.stage.lora_rank else (folder, None)

    def load(self, step: int | None = None) -> LanguageModel:
        """The model after `step`, with the adapter merged into the weights."""
        name, adapter = self.where(step)
        origin = replace(self.origin, step=step or self.stage.steps)
        return models.load(name, self.dtype, self.device, adapter, origin=origin)

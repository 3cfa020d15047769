"""Repair: what notebook 05 trains on top of a lineage, what that starts from, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from calib_utils.studies import regimes
from calib_utils.training import CFTOptions, Stage

if TYPE_CHECKING:
    from calib_utils.models import LanguageModel
    from calib_utils.training.trained import Trained

_ECE = "ece_equal_width_10"


class Repair:
    """For the parameters of notebook 05 (`parameters.RepairStudy`)."""

    @property
    def start(self) -> str:
        """What the repaired model is called: "aligned", or "DPO" for the lineage's own."""
        return "aligned" if self.aligned else "DPO"

    def repairs(self) -> dict[str, Stage]:
        """CFT, cross-entropy on the right option, and RCFT, which also holds confidence to accuracy."""
        window = {"first": self.first, "n_questions": self.cft_questions, "batch_size": 8}
        shape = {"keep": tuple(self.cft_steps[:-1]), "lora_rank": self.lora_rank}
        parent = None if self.aligned else self.dpo
        cft = Stage("cft", self.cft_steps[-1], self.cft_lr, parent, **window, **shape)
        return {"CFT": cft, "RCFT": replace(cft, options=CFTOptions(self.rcft_weight, self.estimate_steps))}

    def before(self, fit: Callable[[Stage], Trained]) -> dict[tuple[str, int], Callable[[], LanguageModel]]:
        """How to load what was there before the repair, by name and seed: SFT and DPO, or the aligned model."""
        if self.aligned:
            return {(self.start, s): partial(self.load_model, self.aligned) for s in self.train_seeds}
        found = {}
        for s in self.train_seeds:
            found["SFT", s] = fit(self.sft.with_seed(s)).load
            found[self.start, s] = partial(fit(self.dpo.with_seed(s)).load, self.dpo_reported)
        return found

    def path(
        self,
        seeds: Mapping[tuple[str, str], Sequence[pd.DataFrame]],
        steps: Mapping[tuple[str, int], str],
        critical: float,
    ) -> pd.DataFrame:
        """Along training: accuracy on the tuned questions, its regime, and the ECE on tuned and on test questions.

        Parameters
        ----------
        seeds : scores by place ("tuned", "in") and model, one table per training seed.
        steps : (method, steps) -> name of the model; before the first of them a method is at its start.
        critical : A*, the critical accuracy (`regimes`).
        """
        rows = []
        for method in dict.fromkeys(name for name, _ in steps):
            models = {0: self.start} | {k: name for (own, k), name in steps.items() if own == method}
            for k, model in models.items():
                accuracy = self.estimate(seeds["tuned", model], "accuracy").value
                side = regimes.regime(accuracy, critical)
                row = {"method": method, "steps": k, "model": model, "accuracy_tuned": accuracy}
                row |= {"calibratable": side.calibratable, "bound": side.bound, "use": side.method}
                for place in ("tuned", "in"):
                    ece = vars(self.estimate(seeds[place, model], _ECE))
                    row |= {f"ece_{place}_{name}": value for name, value in ece.items()}
                rows.append(row)
        return pd.DataFrame(rows)

    @staticmethod
    def bounds(least: float, critical: float) -> pd.DataFrame:
        """Both bounds of the ECE along the accuracy on tuned questions, from `least` to 1 (`regimes.bounds`)."""
        return regimes.bounds(least, critical)

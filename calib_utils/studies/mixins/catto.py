"""CATTO: the methods that notebook 04 compares, and what CATTO's term asks of a token."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from calib_utils.claims import BASELINES, CANDIDATES
from calib_utils.semantics import score
from calib_utils.studies.selection import select
from calib_utils.training import CATTOOptions, CFTOptions, DPOOptions, Stage, label_smoothed
from calib_utils.types import Collapse, Record


class CattoMethods:
    """For the parameters of notebook 04 (`parameters.CattoStudy`)."""

    def methods(self) -> dict[str, Stage]:
        """Every method that is compared, by name: from the same SFT model, on the same pairs, for as many steps.

        CFT and RCFT, which train on options, are left out where the questions have none.
        """
        beside = replace(self.dpo, steps=self.dpo_reported, keep=())
        catto = replace(beside, method="catto", options=CATTOOptions(**self.choices))
        bce = replace(catto.options, calibration_form="bce", calibration_weight=self.bce_weight)
        with_sft = DPOOptions(loss_type=("sigmoid", "sft"), loss_weights=(1.0, self.sft_weight))
        found = {"SFT": self.sft, "DPO": self.dpo, "DPO + SFT": replace(beside, options=with_sft)}
        found["cDPO"] = replace(beside, options=label_smoothed(self.label_smoothing))
        found["DPO + BCE"] = replace(catto, options=bce)
        if all(question.choices for question in self.pool("train")):
            found["CFT"] = self.after_sft("cft", self.dpo_reported, self.cft_lr)
            found["RCFT"] = replace(found["CFT"], options=CFTOptions(self.rcft_weight, 0))
        return {**found, "CATTO": catto}

    def ablated(self) -> dict[str, Stage]:
        """CATTO with one choice changed at a time, by choice and value (`ablation`)."""
        catto = self.methods()["CATTO"]
        return {
            f"{name.replace('_', ' ')}: {value}": replace(catto, options=replace(catto.options, **{name: value}))
            for name, values in self.ablation.items()
            for value in values
        }

    @property
    def starts(self) -> dict[int, int]:
        """Per training seed the seed of the SFT model that it starts from."""
        return dict(zip(self.train_seeds, self.sft_seeds, strict=True))

    def surrogate_targets(self, temperatures: Sequence[float] = (1.0, 0.1)) -> pd.DataFrame:
        """The target z = sigmoid(m / s) against the confidence c of a token, if all probability lies on two tokens.

        The margin m is 2 c - 1 for the model's first choice, 1 - 2 c for its second. Columns: s, token, confidence in
        [0.5, 1], target.
        """
        from calib_utils.training.losses import correctness_surrogate

        c, parts = np.linspace(0.5, 1, 101), []
        for s in temperatures:
            for kind, sign in (("first choice", 1), ("second choice", -1)):
                z = correctness_surrogate(sign * (2 * c - 1), s)
                parts.append(pd.DataFrame({"s": s, "token": kind, "confidence": np.array(c), "target": np.array(z)}))
        return pd.concat(parts)

    def select(
        self, drawn: Mapping[int, Sequence[Record]], greedy: Mapping[int, Sequence[Record]], collapse: Collapse
    ) -> pd.DataFrame:
        """How often one of k candidates is right, by strategy, k, question and training seed (`selection.select`).

        `drawn` and `greedy` hold records by training seed, the latter with one completion each (temperature 0): the
        strategy `greedy`, whatever k.
        """
        parts = [
            select(found, collapse, self.candidates, seed=self.seed).assign(seed=s) for s, found in drawn.items()
        ]
        for s, found in greedy.items():
            first = score(found, collapse)[["question_id", "correct"]].assign(strategy="greedy", seed=s)
            parts += [first.assign(k=k) for k in self.candidates]
        return pd.concat(parts)

    @property
    def reported_candidates(self) -> int:
        """The k that claims about Confidence@k are decided at."""
        return CANDIDATES

    @staticmethod
    def baseline(methods: Collection[str]) -> str:
        """What CATTO is compared with, fixed before the run: the first of `claims.BASELINES` that it has."""
        return next(name for name in BASELINES if name in methods)

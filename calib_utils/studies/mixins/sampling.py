"""Sampling: the questions of notebook 01, and what it computes from the draws of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from calib_utils import data, prompts
from calib_utils.crossing import Lazy
from calib_utils.types import Collapse, Estimate, Question, Record

# Metrics and the world are imported where they are used: parameters are checked before a run, which needs neither.
mechanism = Lazy("calib_utils.world.mechanism")


class Sampling:
    """For the parameters of notebook 01 (`parameters.SamplingStudy`); scores are tables by kind of question."""

    def test_questions(self) -> list[Question]:
        """Public test questions, without the `n_public_used` that earlier runs reported on."""
        used = self.reported(self.n_public_used)
        return self.load_questions("test", used + self.n_questions)[used:]

    def selected(self) -> list[Question]:
        """Selected facts of the test split, without the `n_used` that earlier runs reported on."""
        return self.load_questions("test", self.n_used + self.n_curated, self.curated)[self.n_used :]

    def shots(self, dataset: str = "") -> list[Question]:
        """Worked examples from the train split of the notebook's data set, or of another one."""
        return prompts.pick_shots(self.load_questions("train", dataset=dataset), self.n_shots, self.seed)

    def example(self) -> Question:
        """A question whose answer has several names."""
        (question,) = (q for q in data.load_questions("facts") if q.text.endswith("currency of Canada?"))
        return question

    def loss_gaps(self, scores: Mapping[str, pd.DataFrame]) -> tuple[dict[str, Estimate], pd.DataFrame]:
        """The loss gap of every table in nats, by kind, and a table that also says what it bounds.

        Columns: kind, metric, value, low, high, n, tilt (the mean of the best one, `mechanism.best_tilt`), and the
        largest calibration error that a gap of this value allows (`mechanism.error_bound`).
        """
        found, rows = {}, []
        for kind, table in scores.items():
            pair, finest = (table["confidence"], table["correct"]), 1 / (2 * self.n_samples)
            found[kind] = mechanism.loss_gap(*pair, entities=table["entity"], seed=self.seed, resolution=finest)
            tilt = mechanism.best_tilt(*pair, resolution=finest).mean()
            rows.append({"kind": kind, "metric": "gap", **vars(found[kind]), "tilt": tilt})
        told = pd.DataFrame(rows)
        told["error at most"] = mechanism.error_bound(told["value"])
        return found, told

    @staticmethod
    def most_confident(scores: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """The quarter of the questions with the highest confidence, and those that tie with them."""
        return {
            f"{kind}, top quarter": table[table["confidence"] >= table["confidence"].quantile(0.75)]
            for kind, table in scores.items()
        }

    @staticmethod
    def risks(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """`metrics.risk_coverage` of every table, below each other, by `kind`."""
        from calib_utils import metrics

        found = {kind: metrics.risk_coverage(table["confidence"], table["correct"]) for kind, table in scores.items()}
        return metrics.stack(found, "kind")

    def budgets(self, records: Sequence[Record], collapse: Collapse) -> pd.DataFrame:
        """Metrics by `m` and `estimator` where only m of the M draws are kept, for every m of `m_values`."""
        from calib_utils import metrics, semantics

        thinned = {m: [semantics.subsample_draws(one, m, self.seed) for one in records] for m in self.m_values}
        found = {(m, e): semantics.score(thinned[m], collapse, e) for m in thinned for e in ("frequency", "mass")}
        return metrics.compare(found, ["m", "estimator"], n_boot=self.n_boot, seed=self.seed)

    def rungs(self, records: Sequence[Record], collapse: Collapse) -> dict[str, pd.DataFrame]:
        """Scores of the same draws under collapse functions that merge less and less, down to the first token."""
        from calib_utils import semantics

        ladder = {"semantic": collapse, "canonical text": semantics.canonical, "exact text": semantics.exact}
        ladder["first token"] = semantics.first_token
        return {name: semantics.score(records, function) for name, function in ladder.items()}

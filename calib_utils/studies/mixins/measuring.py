"""Measuring: the metrics with a notebook's number of resamples and seed, over one table of scores or one per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from calib_utils.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

# Metrics are imported where they are used: parameters are checked before a run, which needs none.


class Measuring:
    """For parameters with `n_boot` and `seed`; scores are one table, or a list of one per training seed."""

    def compare(
        self,
        tables: Mapping[object, pd.DataFrame | Sequence[pd.DataFrame]],
        by: str | Sequence[str],
        wanted: Sequence[str] = ("smece", "accuracy", "mean_confidence"),
    ) -> pd.DataFrame:
        """`metrics.compare`: metrics of several tables of scores with their 95 % intervals, in long form."""
        from calib_utils import metrics

        return metrics.compare(tables, [by] if isinstance(by, str) else by, wanted, self.n_boot, self.seed)

    def estimate(self, scores, metric: str = "smece", minus=()) -> Estimate:
        """`metrics.evaluate_seeds`: a metric, or its difference to that of `minus`, with its 95 % interval."""
        from calib_utils import metrics

        return metrics.evaluate_seeds(_listed(scores), metric, _listed(minus), self.n_boot, self.seed)

    def reduction(self, before, after, metric: str = "ece_equal_width_10") -> Estimate:
        """`metrics.relative_reduction`: the share of the error in `before` that `after` has not."""
        from calib_utils import metrics

        return metrics.relative_reduction(_listed(before), _listed(after), metric, self.n_boot, self.seed)

    def mean_by(self, table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
        """`metrics.mean_by`: the mean of a column in every group, with its 95 % interval over questions."""
        from calib_utils import metrics

        return metrics.mean_by(table, by, column, self.n_boot, self.seed)

    def mean_over_seeds(self, tables: Sequence[pd.DataFrame], column: str) -> Estimate:
        """`metrics.mean_over_seeds`: the mean of a per-question column over questions and training seeds."""
        from calib_utils import metrics

        return metrics.mean_over_seeds(tables, column, self.n_boot, self.seed)

    def classwise(self, probabilities, labels: Sequence[int]) -> Estimate:
        """`metrics.evaluate_classwise`: the ECE of every option's probability in ten bins, (n, K) and n labels."""
        from calib_utils import metrics

        return metrics.evaluate_classwise(np.array(probabilities), np.array(labels), 10, self.n_boot, self.seed)

    def reliability(
        self, tables: Mapping[str, pd.DataFrame], by: str = "model"
    ) -> tuple[pd.DataFrame, dict[str, Estimate]]:
        """The curves of several reliability diagrams and the smECE of each, for `plots.reliability_grid`.

        Returns the curves one below the other, with their keys in a first column `by`, and the smECE by key.
        """
        from calib_utils import metrics

        curves = {
            key: metrics.reliability_curve(table["confidence"], table["correct"], self.n_boot, self.seed)
            for key, table in tables.items()
        }
        return metrics.stack(curves, by), {key: self.estimate(table) for key, table in tables.items()}

    def histograms(self, tables: Mapping[str, pd.DataFrame], low: float = 0.0, n_bins: int = 12) -> pd.DataFrame:
        """`metrics.confidence_histogram` of several tables, below each other, with their keys in column `model`."""
        from calib_utils import metrics

        found = {
            key: metrics.confidence_histogram(table["confidence"], table["correct"], low, n_bins)
            for key, table in tables.items()
        }
        return metrics.stack(found, "model")


def _listed(scores) -> Sequence[pd.DataFrame]:
    return scores if isinstance(scores, list | tuple) else [scores]

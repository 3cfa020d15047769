"""The table of metrics: function, label, range, and the kind that decides the interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from calib_utils.metrics.scores import (
    Function,
    accuracy,
    aurc,
    auroc,
    brier,
    brier_reliability,
    brier_resolution,
    brier_uncertainty,
    brier_within_bins,
    ece_equal_mass,
    ece_equal_width,
    log_loss,
    mce_equal_width,
    mean_confidence,
    overconfidence,
)
from calib_utils.metrics.smooth import smece

KINDS = ("mean", "error", "rank", "bootstrap")


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`; it is called as its function is.

    Attributes
    ----------
    kind : one of `KINDS`: how the interval is made (`metrics.intervals`).
    low, high : range of values.
    each : for means, the value of every question from confidence and correct.
    counts_answers : whether `each` is a count of right answers, so that the interval needs pseudo-answers.

    Raises ValueError for an unknown kind, and one that does not fit the rest.
    """

    function: Function
    label: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    each: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    counts_answers: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == "mean") != (self.each is not None):
            raise ValueError(
                f"metric {self.label!r} has kind {self.kind!r} and {'an' if self.each else 'no'} `each`; the kind is "
                f"one of {KINDS}, and means, they alone, have `each`"
            )
        if self.kind == "rank" and self.function is not auroc:
            raise ValueError(f"metric {self.label!r}: the interval of kind 'rank' is that of AUROC; use 'bootstrap'")

    def __call__(self, confidence, correct, weights) -> np.ndarray:
        """(B,) values."""
        return self.function(confidence, correct, weights)


def _log_loss_each(confidence, correct, eps=1e-6):
    return -np.log(np.maximum(np.where(correct == 1, confidence, 1 - confidence), eps))


METRICS: dict[str, Metric] = {
    "smece": Metric(smece, "smECE", "error"),
    "ece_equal_width_10": Metric(partial(ece_equal_width, n_bins=10), "ECE", "error"),
    "ece_equal_mass_10": Metric(partial(ece_equal_mass, n_bins=10), "ECE, equal mass", "error"),
    "mce_equal_width_10": Metric(partial(mce_equal_width, n_bins=10), "MCE", "error"),
    "accuracy": Metric(accuracy, "accuracy", "mean", each=lambda f, y: y, counts_answers=True),
    "mean_confidence": Metric(mean_confidence, "mean confidence", "mean", each=lambda f, y: f),
    "overconfidence": Metric(
        overconfidence, "mean confidence - accuracy", "mean", -1.0, each=lambda f, y: f - y, counts_answers=True
    ),
    "brier": Metric(brier, "Brier score", "mean", each=lambda f, y: (f - y) ** 2),
    "brier_reliability_10": Metric(partial(brier_reliability, n_bins=10), "reliability", "error"),
    "brier_resolution_10": Metric(partial(brier_resolution, n_bins=10), "resolution", "bootstrap"),
    "brier_uncertainty": Metric(brier_uncertainty, "uncertainty", "bootstrap"),
    "brier_within_bins_10": Metric(partial(brier_within_bins, n_bins=10), "within bins", "bootstrap", -1.0),
    "log_loss": Metric(log_loss, "log loss", "mean", high=np.inf, each=_log_loss_each),
    "auroc": Metric(auroc, "AUROC", "rank"),
    "aurc": Metric(aurc, "AURC", "bootstrap"),
}

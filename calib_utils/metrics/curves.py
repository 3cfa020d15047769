"""Curves: the numbers behind a reliability diagram, a histogram, a risk-coverage curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
import relplot

from calib_utils.metrics.intervals import resample_counts
from calib_utils.metrics.scores import checked, equal_width_bins
from calib_utils.metrics.smooth import FINEST, GRID, smoother_matrix, to_grid


def reliability_curve(confidence, correct, n_boot: int = 1000, seed: int = 0, n_points: int = 201) -> pd.DataFrame:
    """The smoothed reliability diagram: what `plots.reliability_diagram` draws.

    At bandwidth sigma of the smECE: accuracy(t) = t + E_K[correct - confidence | t], with a 95 % percentile band over
    resampled questions, and the density of confidence (integrates to 1).

    Columns: confidence, accuracy, low, high, density.
    """
    confidence, correct = checked(confidence, correct)
    _, sigma = relplot.smECE(confidence, correct, return_width=True)
    sigma = max(sigma, FINEST)
    points = np.linspace(0, 1, n_points)
    smoother, at = smoother_matrix(sigma, np.arange(GRID), n_points), to_grid(confidence, GRID)

    def curve(weights):
        density = weights @ at @ smoother
        return points + ((weights * (correct - confidence)) @ at @ smoother) / np.maximum(density, 1e-12), density

    mean, density = curve(np.ones((1, len(correct))))
    band, _ = curve(resample_counts(len(correct), n_boot, seed))
    low, high = np.quantile(band, [0.025, 0.975], axis=0)
    density = density[0] / np.trapezoid(density[0], points)
    return pd.DataFrame(
        {
            "confidence": points,
            "accuracy": np.clip(mean[0], 0, 1),
            "low": np.clip(low, 0, 1),
            "high": np.clip(high, 0, 1),
            "density": density,
        }
    )


def binned_curve(confidence, correct, n_bins: int = 10) -> pd.DataFrame:
    """The binned reliability diagram, the table that ECE sums up: one row per bin of equal width that is not empty.

    Columns: low, high (edges), confidence, accuracy (means in the bin), n.
    """
    confidence, correct = checked(confidence, correct)
    bins = equal_width_bins(confidence, n_bins)
    table = pd.DataFrame({"confidence": confidence, "accuracy": correct}).groupby(bins).mean()
    table.insert(0, "low", table.index / n_bins)
    table.insert(1, "high", (table.index + 1) / n_bins)
    return table.assign(n=np.bincount(bins)[table.index]).reset_index(drop=True)


def confidence_histogram(confidence, correct, low: float = 0.0, n_bins: int = 15) -> pd.DataFrame:
    """How the confidences of right and of wrong answers are spread over `n_bins` equal bins of [low, 1].

    Columns: low, high (edges), right, wrong (shares of the right and of the wrong answers; NaN if there are none),
    n_right, n_wrong (how many there are in all). Raises ValueError for a confidence below `low`.
    """
    confidence, correct = checked(confidence, correct)
    if confidence.min() < low - 1e-9:
        raise ValueError(f"a confidence of {confidence.min()} lies below the histogram's lower end {low}")
    edges = np.linspace(low, 1, n_bins + 1)
    counts = {
        name: np.histogram(np.maximum(confidence[correct == kind], low), edges)[0]
        for name, kind in (("right", 1), ("wrong", 0))
    }
    shares = {name: count / count.sum() if count.sum() else np.full(n_bins, np.nan) for name, count in counts.items()}
    totals = {f"n_{name}": int(count.sum()) for name, count in counts.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **shares, **totals})


def risk_coverage(confidence, correct) -> pd.DataFrame:
    """Error rate among the most confident answers, against the share of questions answered.

    Columns: coverage in (0, 1], risk, threshold. Questions of equal confidence are answered together.
    """
    confidence, correct = checked(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - correct[order])
    last = np.append(np.flatnonzero(np.diff(confidence[order])), len(correct) - 1)
    answered = last + 1
    return pd.DataFrame(
        {"coverage": answered / len(correct), "risk": wrong[last] / answered, "threshold": confidence[order][last]}
    )

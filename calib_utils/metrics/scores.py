"""Scores of (confidence, correct) pairs as functions of weights; `table.METRICS` lists them with range and label.

All take `confidence` (n,) in [0, 1], `correct` (n,) of 0 and 1, and `weights` (B, n): how often each pair counts in
each of B resamples; they return (B,) values. Errors are also called with `correct` (B, n) and `weights` (1, n).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def checked(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    """Both as float arrays; raises ValueError for unequal lengths, none at all, NaN, or values out of range."""
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be equally long, not empty")
    outside = ~((confidence >= 0) & (confidence <= 1))  # True for NaN as well
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise ValueError(f"confidence[{at}] is {confidence[at]}; it must lie in [0, 1]")
    wrong = ~np.isin(correct, (0.0, 1.0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"correct[{at}] is {correct[at]}; it must be 0 or 1")
    return confidence, correct


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means (B,) of `values` (n,) under each row of `weights` (B, n)."""
    return weights @ values / weights.sum(axis=1)


def accuracy(confidence, correct, weights):
    """Share of correct answers."""
    return weighted_mean(correct, weights)


def mean_confidence(confidence, correct, weights):
    """Mean confidence."""
    return weighted_mean(confidence, weights)


def overconfidence(confidence, correct, weights):
    """Mean confidence minus accuracy: positive when the model promises more than it holds."""
    return weighted_mean(confidence - correct, weights)


def brier(confidence, correct, weights):
    """Brier score, mean of (confidence - correct)^2."""
    return weighted_mean((confidence - correct) ** 2, weights)


def log_loss(confidence, correct, weights, eps: float = 1e-6):
    """Mean of -log of the probability given to what happened, in nats.

    A confidence of exactly 0 or 1 that is wrong costs -log(eps): M draws cannot tell 1 from 1 - 1/M, so eps is
    a stated floor, not a repair; set it to what the estimator can resolve.
    """
    right = np.where(correct == 1, confidence, 1 - confidence)
    return weighted_mean(-np.log(np.maximum(right, eps)), weights)


def auroc(confidence, correct, weights):
    """Probability that a correct answer has more confidence than a wrong one, ties counting half.

    NaN where a resample has only one kind.
    """
    _, rank = np.unique(confidence, return_inverse=True)
    right = sum_by(rank, weights * correct)
    wrong = sum_by(rank, weights * (1 - correct))
    below = np.cumsum(wrong, axis=1) - wrong
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (right * (below + wrong / 2)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)


def aurc(confidence, correct, weights):
    """Area under the risk-coverage curve: error rate of the most confident answers, averaged over coverage.

    Answers of equal confidence are given together. 0 is best; the error rate itself is what random order gives.
    """
    _, rank = np.unique(-confidence, return_inverse=True)
    answered, wrong = sum_by(rank, weights), sum_by(rank, weights * (1 - correct))
    so_far = np.maximum(np.cumsum(answered, axis=1), 1)
    return (np.cumsum(wrong, axis=1) / so_far * answered).sum(axis=1) / weights.sum(axis=1)


def sum_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the columns of `values` (B, n) by `group` (n,): (B, groups)."""
    return values @ csr_array((np.ones(len(group)), (np.arange(len(group)), group)))


def _gaps(bins, confidence, correct, weights) -> tuple[np.ndarray, np.ndarray]:
    """Per resample and bin |mean confidence - accuracy| (0 where empty) and the bin's share of the weight."""
    mass = sum_by(bins, weights)
    gap = np.abs(sum_by(bins, weights * (confidence - correct)))
    return np.divide(gap, mass, out=np.zeros_like(gap), where=mass > 0), mass / mass.sum(axis=1, keepdims=True)


def equal_width_bins(confidence, n_bins: int = 10) -> np.ndarray:
    """Bin numbers of (k/n, (k+1)/n]; 0 belongs to the first bin."""
    return np.clip(np.ceil(np.asarray(confidence) * n_bins).astype(int) - 1, 0, n_bins - 1)


def equal_mass_bins(confidence, n_bins: int = 10) -> np.ndarray:
    """Bin numbers by the sample's quantiles; equal confidences share a bin. Fixed for all resamples."""
    edges = np.quantile(confidence, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.searchsorted(edges, confidence, side="left")


def ece_equal_width(confidence, correct, weights, n_bins: int = 10):
    """Expected calibration error: sum over bins of share x |mean confidence - accuracy|, bins of equal width."""
    gap, share = _gaps(equal_width_bins(confidence, n_bins), confidence, correct, weights)
    return (gap * share).sum(axis=1)


def ece_equal_mass(confidence, correct, weights, n_bins: int = 10):
    """Expected calibration error with bins of equal numbers of questions."""
    gap, share = _gaps(equal_mass_bins(confidence, n_bins), confidence, correct, weights)
    return (gap * share).sum(axis=1)


def mce_equal_width(confidence, correct, weights, n_bins: int = 10):
    """Maximum calibration error: the largest gap of any bin of equal width that is not empty."""
    gap, _ = _gaps(equal_width_bins(confidence, n_bins), confidence, correct, weights)
    return gap.max(axis=1)


def classwise_ece(probabilities, labels, weights=None, n_bins: int = 10):
    """Classwise ECE: the mean over classes of the equal-width ECE of p(class) against [label = class].

    `probabilities` (n, K) with rows that sum to 1, `labels` (n,) in 0..K-1, `weights` (B, n) or None. Raises
    ValueError for rows that do not sum to 1 or labels out of range.
    """
    probabilities, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-4):
        at = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(f"the probabilities of row {at} sum to {sums[at]}; they must sum to 1")
    n_classes = probabilities.shape[1]
    if not ((labels >= 0) & (labels < n_classes)).all():
        raise ValueError(f"labels must lie in 0..{n_classes - 1}; found {labels.min()}..{labels.max()}")
    weights = np.ones((1, len(labels))) if weights is None else weights
    errors = [
        ece_equal_width(*checked(np.clip(probabilities[:, k], 0, 1), labels == k), weights, n_bins)
        for k in range(n_classes)
    ]
    return np.mean(errors, axis=0)


def brier_reliability(confidence, correct, weights, n_bins: int = 10):
    """Reliability part of the Brier score: sum over equal-width bins of share x (mean confidence - accuracy)^2.

    With the other three parts (Murphy 1973; Stephenson 2008) over the same bins,
    Brier = reliability - resolution + uncertainty + within-bin variation.
    """
    gap, share = _gaps(equal_width_bins(confidence, n_bins), confidence, correct, weights)
    return (gap**2 * share).sum(axis=1)


def brier_resolution(confidence, correct, weights, n_bins: int = 10):
    """Resolution part: sum over equal-width bins of share x (accuracy of the bin - accuracy)^2."""
    base = weighted_mean(correct, weights)[:, None]
    gap, share = _gaps(equal_width_bins(confidence, n_bins), np.zeros_like(confidence), correct, weights)
    return (np.where(share > 0, gap - base, 0) ** 2 * share).sum(axis=1)


def brier_uncertainty(confidence, correct, weights):
    """Uncertainty part: accuracy x (1 - accuracy)."""
    base = weighted_mean(correct, weights)
    return base * (1 - base)


def brier_within_bins(confidence, correct, weights, n_bins: int = 10):
    """Within-bin part: variance of confidence less twice its covariance with correctness, inside the bins."""
    bins = equal_width_bins(confidence, n_bins)
    mass = sum_by(bins, weights)

    def mean(values):
        return np.divide(sum_by(bins, weights * values), mass, out=np.zeros_like(mass), where=mass > 0)

    variance = mean(confidence**2) - mean(confidence) ** 2
    covariance = mean(confidence * correct) - mean(confidence) * mean(correct)
    return ((variance - 2 * covariance) * mass).sum(axis=1) / mass.sum(axis=1)

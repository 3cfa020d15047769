"""Metrics: calibration errors and scores of (confidence, correct) pairs, each with its 95 % interval.

All take `confidence` (n,) in [0, 1] and `correct` (n,) of 0 and 1. A metric is a function
`metric(confidence, correct, weights)` with `weights` (B, n): how often each pair counts in each of B resamples;
it returns (B,) values. `METRICS` lists them with range, label and kind; the kind decides the interval
(`calib_utils.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import relplot
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.sparse import csr_array

from calib_utils import intervals
from calib_utils.intervals import resample_counts

_GRID = 1001  # relplot's grid for bandwidths of at least _FINEST
_FINEST = 0.01
_ROWS = 64  # resamples that are smoothed together on a finer grid

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


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(axis=1)


def accuracy(confidence, correct, weights):
    """Share of correct answers."""
    return _mean(correct, weights)


def mean_confidence(confidence, correct, weights):
    """Mean confidence."""
    return _mean(confidence, weights)


def overconfidence(confidence, correct, weights):
    """Mean confidence minus accuracy: positive when the model promises more than it holds."""
    return _mean(confidence - correct, weights)


def brier(confidence, correct, weights):
    """Brier score, mean of (confidence - correct)^2."""
    return _mean((confidence - correct) ** 2, weights)


def log_loss(confidence, correct, weights, eps: float = 1e-6):
    """Mean of -log of the probability given to what happened, in nats.

    A confidence of exactly 0 or 1 that is wrong costs -log(eps): M draws cannot tell 1 from 1 - 1/M, so eps is
    a stated floor, not a repair; set it to what the estimator can resolve.
    """
    right = np.where(correct == 1, confidence, 1 - confidence)
    return _mean(-np.log(np.maximum(right, eps)), weights)


def auroc(confidence, correct, weights):
    """Probability that a correct answer has more confidence than a wrong one, ties counting half.

    NaN where a resample has only one kind.
    """
    _, rank = np.unique(confidence, return_inverse=True)
    right = _sum_by(rank, weights * correct)
    wrong = _sum_by(rank, weights * (1 - correct))
    below = np.cumsum(wrong, axis=1) - wrong
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (right * (below + wrong / 2)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)


def aurc(confidence, correct, weights):
    """Area under the risk-coverage curve: error rate of the most confident answers, averaged over coverage.

    Answers of equal confidence are given together. 0 is best; the error rate itself is what random order gives.
    """
    _, rank = np.unique(-confidence, return_inverse=True)
    answered, wrong = _sum_by(rank, weights), _sum_by(rank, weights * (1 - correct))
    so_far = np.maximum(np.cumsum(answered, axis=1), 1)
    return (np.cumsum(wrong, axis=1) / so_far * answered).sum(axis=1) / weights.sum(axis=1)


def _sum_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the columns of `values` (B, n) by `group` (n,): (B, groups)."""
    return values @ csr_array((np.ones(len(group)), (np.arange(len(group)), group)))


def _gaps(bins, confidence, correct, weights) -> tuple[np.ndarray, np.ndarray]:
    """Per resample and bin |mean confidence - accuracy| (0 where empty) and the bin's share of the weight."""
    mass = _sum_by(bins, weights)
    gap = np.abs(_sum_by(bins, weights * (confidence - correct)))
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
    base = _mean(correct, weights)[:, None]
    gap, share = _gaps(equal_width_bins(confidence, n_bins), np.zeros_like(confidence), correct, weights)
    return (np.where(share > 0, gap - base, 0) ** 2 * share).sum(axis=1)


def brier_uncertainty(confidence, correct, weights):
    """Uncertainty part: accuracy x (1 - accuracy)."""
    base = _mean(correct, weights)
    return base * (1 - base)


def brier_within_bins(confidence, correct, weights, n_bins: int = 10):
    """Within-bin part: variance of confidence less twice its covariance with correctness, inside the bins."""
    bins = equal_width_bins(confidence, n_bins)
    mass = _sum_by(bins, weights)

    def mean(values):
        return np.divide(_sum_by(bins, weights * values), mass, out=np.zeros_like(mass), where=mass > 0)

    variance = mean(confidence**2) - mean(confidence) ** 2
    covariance = mean(confidence * correct) - mean(confidence) * mean(correct)
    return ((variance - 2 * covariance) * mass).sum(axis=1) / mass.sum(axis=1)


def smece(confidence, correct, weights, near: float | None = None):
    """SmoothECE (Blasiok & Nakkiran, 2023): kernel-smoothed |E[confidence - correct]| at its own bandwidth.

    The same number as `relplot.smECE`, the authors' code, for many resamples at once. `correct` may also be
    (B, n), one set of outcomes per row of `weights`. With `near`, a value known to 0.01 for all rows, the search
    looks only at bandwidths that are as near to it; the result is the same.
    """
    weights = np.asarray(weights, dtype=float)
    residual = np.broadcast_to(confidence - np.asarray(correct, dtype=float), weights.shape)
    at = _to_grid(confidence, _GRID)
    used = np.flatnonzero(at.sum(axis=0))  # most of the grid is empty
    sums, counts = (weights * residual) @ at[:, used], weights @ at[:, used]  # what the smoothing sees

    def smoothed(rows, sigma):
        if sigma < _FINEST:
            return _smoothed_finely(confidence, residual[rows], weights[rows], sigma)
        smoother = _smoother(sigma, used)
        mass = counts[rows] @ smoother.sum(axis=1) + 1e-4 * smoother.shape[1]
        return np.abs(sums[rows] @ smoother).sum(axis=1) / mass

    def each(sigmas, rows):
        values = np.empty(len(rows))
        if near is not None and (np.abs(sigmas - near) > 0.01).all():
            return np.full(len(rows), near)
        for sigma in np.unique(sigmas):
            same = sigmas == sigma
            values[same] = smoothed(rows[same], sigma)
        return values

    # The bandwidth is the fixed point sigma = smoothed ECE, by relplot's ten bisections from (0, 1].
    low, high = np.zeros(len(weights)), np.ones(len(weights))
    at_high = each(high, np.arange(len(weights)))
    searching = np.flatnonzero(at_high <= 1)
    for _ in range(10):
        middle = (low[searching] + high[searching]) / 2
        values = each(middle, searching)
        below = (middle < 0.001) | (middle < values)
        low[searching[below]] = middle[below]
        high[searching[~below]], at_high[searching[~below]] = middle[~below], values[~below]
    return at_high


def _smoothed_finely(confidence, residual, weights, sigma: float) -> np.ndarray:
    """(B,) smoothed errors at a bandwidth below the common grid's resolution, on relplot's finer one, by FFT."""
    size = round(20 / sigma) // 2 + 1
    kernel = relplot.kernels.ReflectedGaussianKernel(sigma).kernel_ev(size)[None]
    points = np.linspace(0, 1, round(10 / sigma))
    left = np.clip((points * (size - 1)).astype(int), 0, size - 2)
    part = points * (size - 1) - left
    at = _to_grid(confidence, size)

    def total(values):  # of |the smoothed values| over the points
        reflected = np.concatenate([values[:, :0:-1], values, values[:, -2::-1]], axis=1)
        smooth = fftconvolve(reflected, kernel, "valid", axes=1)[:, size // 2 : size // 2 + size]
        return np.abs(smooth[:, left] * (1 - part) + smooth[:, left + 1] * part).sum(axis=1)

    found = []
    for start in range(0, len(weights), _ROWS):
        some = slice(start, start + _ROWS)
        found.append(total((weights[some] * residual[some]) @ at) / (total(weights[some] @ at) + 1e-4 * len(points)))
    return np.concatenate(found)


def _to_grid(confidence, grid_size: int) -> csr_array:
    """(n, grid): how relplot rounds each confidence to its two neighbours."""
    left = np.clip((confidence * (grid_size - 1)).astype(int), 0, grid_size - 2)
    part = confidence * (grid_size - 1) - left
    shares, columns = np.concatenate([1 - part, part]), np.concatenate([left, left + 1])
    return csr_array((shares, (np.tile(np.arange(len(left)), 2), columns)), shape=(len(left), grid_size))


def _smoother(sigma: float, used: np.ndarray, n_points: int | None = None) -> np.ndarray:
    """(used, points): reflected Gaussian smoothing of points of the grid, read at equally spaced points in [0, 1]."""
    last = _GRID - 1
    reach = last // 2  # the kernel's support is half the grid on either side
    kernel = relplot.kernels.ReflectedGaussianKernel(sigma).kernel_ev(_GRID)
    direct, reflected = np.zeros((2, 2 * last + 1))  # by source - target + last; by source + target
    direct[last - reach : last + reach + 1] = kernel
    reflected[: reach + 1], reflected[2 * last - reach :] = kernel[reach::-1], kernel[: reach - 1 : -1]
    points = np.linspace(0, 1, n_points or max(round(10 / sigma), relplot.config.smECE_mesh_pts))
    left = np.clip((points * last).astype(int), 0, last - 1)
    part = points * last - left
    lag, total = used[:, None] - left + last - 1, used[:, None] + left
    ends = (used == 0) | (used == last)  # these are their own reflection

    def smoothed_at(direct, reflected, share):
        found, twin = direct.take(lag, mode="clip"), reflected.take(total, mode="clip")
        twin[ends] = 0
        found += twin
        found *= share
        return found

    return smoothed_at(direct[1:], reflected[:-1], 1 - part) + smoothed_at(direct[:-1], reflected[1:], part)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of questions.

    Calibration errors are debiased: `plug_in` is the usual value, which sampling noise inflates, and `floor` the
    95 % quantile of what a calibrated model with these confidences would read. NaN for other metrics.
    """

    value: float
    low: float
    high: float
    n: int
    plug_in: float = np.nan
    floor: float = np.nan

    def __str__(self) -> str:
        """`0.041 [0.030, 0.052]`."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`; it is called as its function is.

    Attributes
    ----------
    kind : mean, error, rank or bootstrap: how the interval is made (`calib_utils.intervals`).
    low, high : range of values.
    each : for means, the value of every question from confidence and correct.
    counts_answers : whether `each` is a count of right answers, so that the interval needs pseudo-answers.
    """

    function: Function
    label: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    each: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    counts_answers: bool = False

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


def evaluate(
    confidence, correct, metric: str = "smece", n_boot: int = 1000, seed: int = 0, entities=None
) -> Estimate:
    """A metric with its 95 % interval over questions, or over `entities` (n,) where several questions share one.

    `n_boot` sets how many data sets are simulated or resampled. Raises ValueError for out-of-range input or an
    unknown metric.
    """
    pair = checked(confidence, correct)
    group = intervals.groups(entities, len(pair[0]))
    return _joined([_part(metric, *pair, group, n_boot, seed)], [1.0], group, (0.0, 1), len(pair[0]), metric)


def evaluate_classwise(probabilities, labels, n_bins: int = 10, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """`classwise_ece` with its interval and noise floor, as `evaluate` gives them."""
    plug_in = float(classwise_ece(probabilities, labels, n_bins=n_bins)[0])
    p, group = np.clip(np.asarray(probabilities, dtype=float), 0, 1), np.arange(len(labels))

    def error(outcomes):
        ones = np.ones((1, len(p)))
        return np.mean([ece_equal_width(p[:, k], outcomes[..., k], ones, n_bins) for k in range(p.shape[1])], axis=0)

    part = intervals.ray(error, p, np.eye(p.shape[1])[np.asarray(labels)], group, n_boot, seed)
    return replace(_joined([part], [1.0], group, (0.0, 1), len(group), "smece"), plug_in=plug_in)


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}; use one of {sorted(METRICS)}")
    return METRICS[name]


def _part(name: str, confidence, correct, group, n_boot: int, seed: int) -> intervals.Part:
    _metric(name)
    return _kept_part(name, confidence.tobytes(), correct.tobytes(), group.tobytes(), n_boot, seed)


@lru_cache(maxsize=1024)  # a notebook shows a model alone, then in differences
def _kept_part(name: str, confidence: bytes, correct: bytes, group: bytes, n_boot: int, seed: int) -> intervals.Part:
    confidence, correct, group = np.frombuffer(confidence), np.frombuffer(correct), np.frombuffer(group, dtype=int)
    metric = METRICS[name]
    if metric.kind == "mean":
        flipped = metric.each(confidence, 1 - correct) if metric.counts_answers else None
        return intervals.mean(metric.each(confidence, correct), flipped, group)
    if metric.kind == "error":
        part = intervals.ray(_error(metric, confidence), confidence, correct, group, n_boot, seed)
        if metric.function is smece:  # draws are measured to 0.001, what is reported as relplot does
            return replace(
                part, plug_in=float(smece(confidence, correct, np.ones((1, len(correct))), part.plug_in)[0])
            )
        return part
    if metric.kind == "rank":
        value = float(metric(confidence, correct, np.ones((1, len(correct))))[0])
        return intervals.rank(value, correct, _auroc_influence(confidence, correct, value), group)
    return intervals.bootstrap(partial(metric, confidence, correct), group, n_boot, seed)


def _error(metric: Metric, confidence) -> intervals.Error:
    """The error of `confidence` as a function of outcomes (B, n)."""
    if metric.function is smece:
        return partial(intervals.smooth_error, confidence)
    return lambda outcomes: metric(confidence, outcomes, np.ones((1, len(confidence))))


def _auroc_influence(confidence, correct, value: float) -> np.ndarray:
    """(n,) influences of mean 0: the share of answers of the other kind on the right side of each, less AUROC."""
    _, rank = np.unique(confidence, return_inverse=True)
    right, wrong = np.bincount(rank, correct), np.bincount(rank, 1 - correct)
    if not right.sum() or not wrong.sum():
        return np.zeros(len(correct))
    below = (np.cumsum(wrong) - wrong / 2) / wrong.sum()
    above = (right.sum() - np.cumsum(right) + right / 2) / right.sum()
    share = correct.mean()
    return np.where(correct == 1, (below[rank] - value) / share, (above[rank] - value) / (1 - share))


def _joined(parts, weights, group, between, n: int, metric: str | None = None, signed: bool = False) -> Estimate:
    """The weighted sum of parts as an Estimate, cut to the metric's range."""
    value, low, high = intervals.combine(parts, weights, group, between)
    least, most = (METRICS[metric].low, METRICS[metric].high) if metric else (-np.inf, np.inf)
    if signed:
        least, most = least - most, most - least
    value = value if np.isnan(value) else float(np.clip(value, least, most))
    plug_in = float(np.dot(weights, [part.plug_in for part in parts]))
    floor = float(np.dot(weights, [part.floor for part in parts]))
    return Estimate(
        value,
        least if np.isnan(value) else float(max(min(low, value), least)),
        most if np.isnan(value) else float(min(max(high, value), most)),
        n,
        np.nan if np.isnan(plug_in) else plug_in,
        np.nan if signed or np.isnan(floor) else floor,
    )


def _groups(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    return intervals.groups(tables[0].get("entity"), len(tables[0]))


def _between(first: Sequence[float], tables, second: Sequence[float], minus) -> tuple[float, int]:
    """Variance of the (difference of) means over training seeds, and its degrees of freedom.

    Tables with the same value in a column `origin` come from one earlier model and count as one seed. Equally many
    seeds on both sides are paired in their order; a side with one seed counts as fixed.
    """
    sides = [_per_origin(values, found) for values, found in ((first, tables), (second, minus))]
    if len(sides[0]) == len(sides[1]):
        sides = [sides[0] - sides[1]]
    parts = [(side.var(ddof=1) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    return (sum(v for v, _ in parts), min(f for _, f in parts)) if parts else (0.0, 1)


def _per_origin(values, tables) -> np.ndarray:
    if not any("origin" in table for table in tables):
        return np.array(values)
    origins = [table["origin"].iloc[0] for table in tables]
    return np.array(
        [np.mean([v for v, o in zip(values, origins, strict=True) if o == one]) for one in dict.fromkeys(origins)]
    )


@dataclass(frozen=True)
class _Side:
    """Parts of one model's tables, one per training seed, with keys that are equal for equal tables."""

    parts: list[intervals.Part]
    keys: list[Hashable]
    tables: Sequence[pd.DataFrame]

    @property
    def values(self) -> list[float]:
        """Per seed the plug-in value, which varies as the data do, or the value."""
        return [part.value if np.isnan(part.plug_in) else part.plug_in for part in self.parts]


def _side(tables, metric: str, group, n_boot: int, seed: int) -> _Side:
    pairs = [checked(table["confidence"], table["correct"]) for table in tables]
    keys = [(f.tobytes(), y.tobytes()) for f, y in pairs]
    return _Side([_part(metric, *pair, group, n_boot, seed) for pair in pairs], keys, tables)


def _sides(tables, minus, metric: str, n_boot: int, seed: int) -> tuple[_Side, _Side, np.ndarray]:
    ids = list(tables[0]["question_id"])
    if any(list(table["question_id"]) != ids for table in (*tables, *minus)):
        raise ValueError("the tables to average or subtract are about different questions")
    group = _groups(tables)
    return *(_side(side, metric, group, n_boot, seed) for side in (tables, minus)), group


def _weighted(first: _Side, second: _Side, times: float = 1.0):
    """Parts and weights of mean(first) - times x mean(second); a table on both sides cancels."""
    weights, parts = {}, {}
    for side, sign in ((first, 1.0), (second, -times)):
        for key, part in zip(side.keys, side.parts, strict=True):
            weights[key] = weights.get(key, 0.0) + sign / len(side.parts)
            parts[key] = part
    kept = [key for key, weight in weights.items() if abs(weight) > 1e-12] or list(weights)[:1]
    return [parts[key] for key in kept], [weights[key] for key in kept]


def evaluate_seeds(
    tables: Sequence[pd.DataFrame],
    metric: str = "smece",
    minus: Sequence[pd.DataFrame] = (),
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of a metric over training seeds, or its difference to another model's, paired by question and seed.

    `tables` are scores (`question_id`, `confidence`, `correct`) of the same questions in the same order, one table
    per seed; `minus`, if given, those of the model to subtract. A column `entity` says which questions belong
    together, a column `origin` which seeds do. The interval is over training seeds, entities and questions.

    Raises ValueError for no tables, tables of different questions or an unknown metric.
    """
    _some(tables, "tables of scores, one per training seed")
    _metric(metric)
    first, second, group = _sides(tables, minus, metric, n_boot, seed)
    between = _between(first.values, tables, second.values, minus)
    return _joined(*_weighted(first, second), group, between, len(group), metric, bool(minus))


def _some(tables, what: str) -> None:
    if not len(tables):
        raise ValueError(f"there are no tables to evaluate; give {what}")


def contrast(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "smece", n_boot: int = 1000, seed: int = 0
) -> Estimate:
    """Difference of a metric between two tables of scores of different questions.

    `n` counts the questions of both.
    """
    _metric(metric)
    parts = [_side([table], metric, _groups([table]), n_boot, seed).parts[0] for table in (first, second)]
    return _joined(parts, [1.0, -1.0], None, (0.0, 1), len(first) + len(second), metric, signed=True)


def relative_reduction(
    before: Sequence[pd.DataFrame],
    after: Sequence[pd.DataFrame],
    metric: str = "ece_equal_width_10",
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """1 - after / before of a (debiased) metric, paired as in `evaluate_seeds`: 0.09 is "9 % lower".

    The interval holds every ratio r for which the interval of after - r x before holds 0 (Fieller, 1954). Its low
    end is -inf where `before` may be 0; the value is NaN where it is 0.
    """
    _metric(metric)
    first, second, group = _sides(after, before, metric, n_boot, seed)

    def ends(r: float) -> np.ndarray:
        spread = _between(first.values, after, [r * value for value in second.values], before)
        return np.array(intervals.combine(*_weighted(first, second, r), group, spread))

    (over, _, _), top = ends(0.0), float(np.mean([part.value for part in second.parts]))
    ratio = max(over, 0.0) / top if top > 0 else np.nan
    start = min(ratio, 100.0) if np.isfinite(ratio) else 100.0
    if ends(0.0)[1] <= 0:
        least = 0.0
    else:
        least = start if ends(start)[1] >= 0 else brentq(lambda r: ends(r)[1], 0.0, start, xtol=1e-4)
    if ends(100.0)[2] >= 0:
        most = np.inf
    else:  # `after` may be below what calibrated models read, so that nothing of the error is left
        most = start if ends(start)[2] <= 0 else brentq(lambda r: ends(r)[2], start, 100.0, xtol=1e-4)
    plug_in = 1 - float(np.mean(first.values)) / float(np.mean(second.values))
    return Estimate(1 - ratio, 1 - most, 1 - least, len(group), plug_in)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of a quantity over several tasks, whose questions may be the same; `n` is that of the smallest task.

    The distances to the ends are averaged too, as if the errors of all estimates had the correlation 1: whatever it
    is, the interval covers at least as often. Raises ValueError for no estimates.
    """
    if not len(estimates):
        raise ValueError("there are no estimates to average; give one per task")
    value, low, high, plug_in, floor = (
        float(np.mean([getattr(one, name) for one in estimates]))
        for name in ("value", "low", "high", "plug_in", "floor")
    )
    return Estimate(value, low, high, min(one.n for one in estimates), plug_in, floor)


def noise_floor(confidence, n_draws: int = 500, seed: int = 0, level: float = 0.95, metric: str = "smece") -> float:
    """The error that perfectly calibrated answers would show: its `level` quantile under sampling noise alone.

    Outcomes are drawn as correct ~ Bernoulli(confidence); a plug-in value below it is no evidence of miscalibration.
    """
    confidence, _ = checked(confidence, np.zeros(len(confidence)))
    error = _error(_metric(metric), confidence)
    return float(np.quantile(intervals.noise(error, confidence, n_draws, seed), level))


def mean_estimate(
    values, n_boot: int = 1000, seed: int = 0, limits: tuple[float, float] = (-np.inf, np.inf), entities=None
) -> Estimate:
    """Mean of any per-question values with its 95 % interval (Student's t, cut to `limits`)."""
    values = np.asarray(values, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"mean_estimate needs finite values, got {values!r}")
    group = intervals.groups(entities, len(values))
    found = _joined([intervals.mean(values, None, group)], [1.0], group, (0.0, 1), len(values))
    return replace(found, low=max(found.low, limits[0]), high=min(found.high, limits[1]))


def _plain(estimate: Estimate) -> dict[str, float]:
    """The columns of an estimate that is no calibration error."""
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "n")}


def mean_by(table: pd.DataFrame, by: Sequence[str], column: str, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of probabilities in every group, with 95 % intervals over questions; rows of one question count as one.

    `table` has a column `question_id`. Columns: those of `by`, then value, low, high, n (questions).
    """
    rows = []
    for key, part in table.groupby(list(by), sort=True):
        values = part.groupby("question_id", sort=True)[column].mean()
        rows.append({**dict(zip(by, key, strict=True)), **_plain(mean_estimate(values, n_boot, seed, (0.0, 1.0)))})
    return pd.DataFrame(rows)


def compare(
    tables: Mapping[object, pd.DataFrame | Sequence[pd.DataFrame]],
    names: Sequence[str],
    metrics: Sequence[str] = ("smece", "accuracy", "mean_confidence"),
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of several tables of scores (or lists of tables, one per training seed), in long form.

    `names` are the columns that the keys of `tables` fill; then follow metric, value, low, high, n, plug_in, floor.
    Raises ValueError for a key with an empty list.
    """
    rows = []
    for key, scores in tables.items():
        if not isinstance(scores, pd.DataFrame):
            _some(scores, f"those of {key!r}")
        labels = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
        for metric in metrics:
            seeds = [scores] if isinstance(scores, pd.DataFrame) else scores
            rows.append({**labels, "metric": metric, **vars(evaluate_seeds(seeds, metric, (), n_boot, seed))})
    return pd.DataFrame(rows)


def wide(table: pd.DataFrame, index: str | list[str]) -> pd.DataFrame:
    """The values of `compare`, a column per metric, beside every calibration error its noise floor.

    Rows and metrics stay in the order of `table`.
    """
    by = [index] if isinstance(index, str) else list(index)
    values = table.pivot(index=by, columns="metric", values="value")
    floors = table.pivot(index=by, columns="metric", values="floor")
    columns = {}
    for metric in dict.fromkeys(table["metric"]):
        columns[metric] = values[metric]
        if floors[metric].notna().any():
            columns[f"{metric}, noise floor"] = floors[metric]
    rows = table[by].drop_duplicates()
    return pd.DataFrame(columns).loc[rows[by[0]] if len(by) == 1 else pd.MultiIndex.from_frame(rows)]


def confidence_bias(
    tables: Mapping[object, pd.DataFrame],
    truth: pd.DataFrame,
    names: Sequence[str],
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of confidence minus the confidence of the same question in `truth`, with 95 % intervals.

    `names` are the columns that the keys of `tables` fill; then follow value, low, high, n.
    """
    target = truth.set_index("question_id")["confidence"]
    rows = []
    for key, scores in tables.items():
        gap = scores["confidence"].to_numpy() - target.loc[scores["question_id"]].to_numpy()
        labels = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
        rows.append({**labels, **_plain(mean_estimate(gap, n_boot, seed))})
    return pd.DataFrame(rows)


def stack(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """Tables one below the other, with their keys in a first column `name`."""
    return pd.concat(tables, names=[name]).reset_index(level=0).reset_index(drop=True)


def reliability_curve(confidence, correct, n_boot: int = 1000, seed: int = 0, n_points: int = 201) -> pd.DataFrame:
    """The smoothed reliability diagram: what `plots.reliability_diagram` draws.

    At bandwidth sigma of the smECE: accuracy(t) = t + E_K[correct - confidence | t], with a 95 % percentile band over
    resampled questions, and the density of confidence (integrates to 1).

    Columns: confidence, accuracy, low, high, density.
    """
    confidence, correct = checked(confidence, correct)
    _, sigma = relplot.smECE(confidence, correct, return_width=True)
    sigma = max(sigma, _FINEST)
    points = np.linspace(0, 1, n_points)
    smoother, at = _smoother(sigma, np.arange(_GRID), n_points), _to_grid(confidence, _GRID)

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


def mean_over_seeds(tables: Sequence[pd.DataFrame], column: str, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Mean of a per-question column over questions and training seeds, with its interval over both.

    Raises ValueError for no tables.
    """
    _some(tables, "tables of scores, one per training seed")
    group = _groups(tables)
    part = intervals.mean(np.mean([table[column] for table in tables], axis=0), None, group)
    means = [float(table[column].mean()) for table in tables]
    return _joined([part], [1.0], group, _between(means, tables, [], []), len(group))


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

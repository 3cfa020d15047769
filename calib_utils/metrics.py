"""Metrics: calibration errors and scores of (confidence, correct) pairs, each with a bootstrap interval.

All take `confidence` (n,) in [0, 1] and `correct` (n,) of 0 and 1. A metric is a function
`metric(confidence, correct, weights)` with `weights` (B, n): how often each pair counts in each of B resamples;
it returns (B,) values. `evaluate` calls it on the sample itself and on all bootstrap resamples at once, whose weights
are those of `resample_counts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import relplot
from scipy.signal import fftconvolve
from scipy.sparse import csr_array

_GRID = 1001  # relplot's grid for bandwidths of at least _FINEST
_FINEST = 0.01
_ROWS = 64  # resamples that are smoothed together on a finer grid

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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


def smece(confidence, correct, weights):
    """SmoothECE (Blasiok & Nakkiran, 2023): kernel-smoothed |E[confidence - correct]| at its own bandwidth.

    The same number as `relplot.smECE`, the authors' code, for many resamples at once. `correct` may also be
    (B, n), one set of outcomes per row of `weights`.
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
    """A value with its 95 % bootstrap interval and the number of pairs."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`0.041 [0.030, 0.052]`."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


METRICS: dict[str, Metric] = {
    "smece": smece,
    "ece_equal_width_10": partial(ece_equal_width, n_bins=10),
    "ece_equal_mass_10": partial(ece_equal_mass, n_bins=10),
    "mce_equal_width_10": partial(mce_equal_width, n_bins=10),
    "accuracy": accuracy,
    "mean_confidence": mean_confidence,
    "overconfidence": overconfidence,
    "brier": brier,
    "brier_reliability_10": partial(brier_reliability, n_bins=10),
    "brier_resolution_10": partial(brier_resolution, n_bins=10),
    "brier_uncertainty": brier_uncertainty,
    "brier_within_bins_10": partial(brier_within_bins, n_bins=10),
    "log_loss": log_loss,
    "auroc": auroc,
    "aurc": aurc,
}
_SIGNED = {"overconfidence", "brier_within_bins_10"}
_UNBOUNDED = {"log_loss"}


@lru_cache(maxsize=4)
def resample_counts(n: int, n_boot: int, seed: int) -> np.ndarray:
    """(n_boot, n) bootstrap counts: n draws with replacement per row. Read-only: callers share it."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot).astype(float)
    counts.flags.writeable = False
    return counts


def evaluate(confidence, correct, metric: str = "smece", n_boot: int = 1000, seed: int = 0) -> Estimate:
    """A metric with its 95 % interval from a basic (pivotal) bootstrap over questions.

    The interval is [2 v - q(97.5 %), 2 v - q(2.5 %)] of the resampled values, cut to the metric's range and
    stretched to hold v itself. Plug-in calibration errors are biased upwards by sampling noise, and resampling
    adds the same bias again: the basic interval takes it off where percentiles would count it twice.

    Raises
    ------
    ValueError : out-of-range input or an unknown metric.
    """
    pair = checked(confidence, correct)
    return _estimate(partial(_metric(metric), *pair), [len(pair[0])], n_boot, seed, _limits(metric))


def evaluate_classwise(probabilities, labels, n_bins: int = 10, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """`classwise_ece` with its interval, as `evaluate` gives it."""
    metric = partial(classwise_ece, probabilities, labels, n_bins=n_bins)
    return _estimate(lambda weights: metric(weights=weights), [len(labels)], n_boot, seed, (0.0, 1.0))


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}; use one of {sorted(METRICS)}")
    return METRICS[name]


def _limits(metric: str) -> tuple[float, float]:
    return (-1.0 if metric in _SIGNED else 0.0, np.inf if metric in _UNBOUNDED else 1.0)


def _estimate(
    metric, sizes: Sequence[int], n_boot: int, seed: int, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Value and basic interval; every group of `sizes` questions is resampled on its own."""
    value = float(metric(np.ones((1, sum(sizes))))[0])
    counts = np.hstack([resample_counts(n, n_boot, seed + turn) for turn, n in enumerate(sizes)])
    low, high = 2 * value - np.nanquantile(metric(counts), [0.975, 0.025])
    return Estimate(
        value, float(max(min(low, value), limits[0])), float(min(max(high, value), limits[1])), sum(sizes)
    )


def evaluate_seeds(
    tables: Sequence[pd.DataFrame],
    metric: str = "smece",
    minus: Sequence[pd.DataFrame] = (),
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of a metric over training seeds, or its difference to another model's, resampling questions.

    `tables` are scores (`question_id`, `confidence`, `correct`) of the same questions in the same order, one table
    per seed; `minus`, if given, those of the model to subtract. One resample of questions serves all tables, so
    that differences are paired. The interval (basic bootstrap) is over questions, not over seeds.

    Raises ValueError for no tables, tables of different questions or an unknown metric.
    """
    _some(tables, "tables of scores, one per training seed")
    function, ids = _metric(metric), list(tables[0]["question_id"])
    if any(list(table["question_id"]) != ids for table in (*tables, *minus)):
        raise ValueError("the tables to average or subtract are about different questions")
    pairs = [checked(table["confidence"], table["correct"]) for table in (*tables, *minus)]
    signs = [1 / len(tables)] * len(tables) + [-1 / max(len(minus), 1)] * len(minus)

    def mean(weights):
        return sum(sign * function(*pair, weights) for sign, pair in zip(signs, pairs, strict=True))

    return _estimate(mean, [len(ids)], n_boot, seed, (-np.inf, np.inf) if minus else _limits(metric))


def _some(tables, what: str) -> None:
    if not len(tables):
        raise ValueError(f"there are no tables to evaluate; give {what}")


def contrast(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "smece", n_boot: int = 1000, seed: int = 0
) -> Estimate:
    """Difference of a metric between two tables of scores of different questions, each resampled on its own.

    `n` counts the questions of both.
    """
    function, sizes = _metric(metric), [len(first), len(second)]
    one, other = (checked(table["confidence"], table["correct"]) for table in (first, second))

    def difference(weights):
        left, right = np.split(weights, [sizes[0]], axis=1)
        return function(*one, left) - function(*other, right)

    return _estimate(difference, sizes, n_boot, seed)


def noise_floor(confidence, n_draws: int = 500, seed: int = 0, level: float = 0.95) -> float:
    """The smECE that perfectly calibrated answers would show: its `level` quantile under sampling noise alone.

    Outcomes are drawn as correct ~ Bernoulli(confidence); a measured value below it is no evidence of
    miscalibration.
    """
    confidence, _ = checked(confidence, np.zeros(len(confidence)))
    outcomes = np.random.default_rng(seed).random((n_draws, len(confidence))) < confidence
    return float(np.quantile(smece(confidence, outcomes, np.ones(outcomes.shape)), level))


def mean_estimate(
    values, n_boot: int = 1000, seed: int = 0, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Mean of any per-question values with its 95 % interval (basic bootstrap, cut to `limits`)."""
    values = np.asarray(values, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"mean_estimate needs finite values, got {values!r}")
    return _estimate(partial(_mean, values), [len(values)], n_boot, seed, limits)


def mean_by(table: pd.DataFrame, by: Sequence[str], column: str, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of probabilities in every group, with 95 % intervals over questions; rows of one question count as one.

    `table` has a column `question_id`. Columns: those of `by`, then value, low, high, n (questions).
    """
    rows = []
    for key, part in table.groupby(list(by), sort=True):
        values = part.groupby("question_id", sort=True)[column].mean()
        rows.append({**dict(zip(by, key, strict=True)), **vars(mean_estimate(values, n_boot, seed, (0.0, 1.0)))})
    return pd.DataFrame(rows)


def compare(
    tables: Mapping[object, pd.DataFrame | Sequence[pd.DataFrame]],
    names: Sequence[str],
    metrics: Sequence[str] = ("smece", "accuracy", "mean_confidence"),
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of several tables of scores (or lists of tables, one per training seed), in long form.

    `names` are the columns that the keys of `tables` fill; then follow metric, value, low, high, n. Raises ValueError
    for a key with an empty list.
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
        rows.append({**labels, **vars(mean_estimate(gap, n_boot, seed))})
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
    """Mean of a per-question column over questions and training seeds, with its interval over questions.

    Raises ValueError for no tables.
    """
    _some(tables, "tables of scores, one per training seed")
    return mean_estimate(np.mean([table[column] for table in tables], axis=0), n_boot, seed)


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

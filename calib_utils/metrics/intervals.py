"""Intervals: a 95 % interval for any metric, for one model, a mean over training seeds, or a paired difference.

Every metric gives a `Part` per table of scores: value, interval, and the influence of every question. `combine`
puts parts together. The interval of a part depends on the kind of metric:

=========  ==========================================================================================================
kind       interval
=========  ==========================================================================================================
mean       Student's t on the per-question values; outcomes of 0 and 1 get two successes and two failures more
           (Agresti & Coull, 1998), so that the interval holds when almost every answer is right
error      test inversion along a ray of models, from calibrated ones to ones with more error than measured (`ray`)
rank       AUROC: score interval of Newcombe (2006, method 5)
bootstrap  normal, with the bias and the standard deviation of a bootstrap over entities or questions
=========  ==========================================================================================================

`combine` adds distances to the ends in squares (MOVER: Zou & Donner, 2008), with the correlation that the influences
show, and adds the spread between training seeds. `python -m calib_utils coverage` simulates how often all this holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from calib_utils.metrics.kernels import smoothed_gap

_TAIL = 0.025  # on either side
_Z = float(stats.norm.ppf(1 - _TAIL))
_LEVELS = 7  # of the true error along a ray
_EVEN = 1.0  # bandwidth that smooths over all confidences
_FLOOR = 0.95  # quantile that `Part.floor` is
Error = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """A metric of one table: value, 95 % interval, plug-in value, noise floor, influence of each question (n,)."""

    value: float
    low: float
    high: float
    plug_in: float
    floor: float
    influence: np.ndarray


def groups(entities: Sequence | None, n: int) -> np.ndarray:
    """(n,) numbers of the groups that are drawn together: the entities, or every question for itself."""
    if entities is None:
        return np.arange(n)
    if len(entities) != n:
        raise ValueError(f"there are {len(entities)} entities for {n} questions")
    return np.unique(np.asarray(entities).astype(str), return_inverse=True)[1]


def mean(values: np.ndarray, flipped: np.ndarray | None, group: np.ndarray) -> Part:
    """Mean of per-question `values` (n,); `flipped` are the values had every outcome been the other one.

    With `flipped`, four outcomes are added, two as they are and two flipped, spread over the questions.
    """
    value, n = float(values.mean()), len(values)
    centre, extra, added = value, 0.0, 0.0
    if flipped is not None:
        added, middle = 4.0, (values + flipped) / 2
        centre = float((values.sum() + added * middle.mean()) / (n + added))
        extra = added * float(np.mean((middle - centre) ** 2 + (values - flipped) ** 2 / 4))
    sums = np.bincount(group, values - centre)
    clusters = len(sums)
    if clusters < 2:
        return Part(value, -np.inf, np.inf, np.nan, np.nan, values - value)
    spread = np.sqrt((float(sums @ sums) + extra) * clusters / (clusters - 1)) / (n + added)
    reach = stats.t.ppf(1 - _TAIL, clusters - 1) * spread
    return Part(value, centre - reach, centre + reach, np.nan, np.nan, values - value)


def rank(value: float, correct: np.ndarray, influence: np.ndarray, group: np.ndarray) -> Part:
    """AUROC `value` with Newcombe's interval; entities widen it by what they add to the influences' variance.

    [0, 1] where there is only one kind of answer, since every value is possible.
    """
    right, wrong = correct.sum(), (1 - correct).sum()
    if not right or not wrong:
        return Part(np.nan, 0.0, 1.0, np.nan, np.nan, np.zeros(len(correct)))
    sums, own = np.bincount(group, influence), float(influence @ influence)
    design = max(1.0, float(sums @ sums) / own) if own > 0 else 1.0

    def distance(at: float) -> float:
        half = (right + wrong) / 2 - 1
        spread = at * (1 - at) * (1 + half * ((1 - at) / (2 - at) + at / (1 + at))) / (right * wrong)
        return abs(value - at) - _Z * np.sqrt(design * spread)

    low = 0.0 if value <= 1e-9 or distance(1e-9) < 0 else brentq(distance, 1e-9, value)
    high = 1.0 if value >= 1 - 1e-9 or distance(1 - 1e-9) < 0 else brentq(distance, value, 1 - 1e-9)
    return Part(value, low, high, np.nan, np.nan, influence)


def bootstrap(metric: Callable[[np.ndarray], np.ndarray], group: np.ndarray, n_boot: int, seed: int) -> Part:
    """Any function of weights (B, n): normal interval around the value less the bootstrap's bias."""
    value = float(metric(np.ones((1, len(group))))[0])
    counts = resample_counts(int(group.max()) + 1, n_boot, seed)[:, group]
    found = metric(counts)
    centre, reach = 2 * value - float(np.mean(found)), _Z * float(np.std(found))
    rest = (counts - 1).T @ (found - found.mean()) / len(found)  # regression on how often a question was drawn
    return Part(value, min(centre - reach, value), max(centre + reach, value), np.nan, np.nan, rest)


@lru_cache(maxsize=4)
def resample_counts(n: int, n_boot: int, seed: int) -> np.ndarray:
    """(n_boot, n) bootstrap counts: n draws with replacement per row. Read-only: callers share it."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot).astype(float)
    counts.flags.writeable = False
    return counts


def ray(
    error: Error, confidence: np.ndarray, outcomes: np.ndarray, group: np.ndarray, n_boot: int, seed: int
) -> Part:
    """A calibration error: debiased, with an interval by test inversion and its noise floor.

    A plug-in error is the norm of gap plus noise, so noise raises it, most where the gap is small. Simulated models
    have the probabilities p_t = clip(confidence - t gap), t from 0 (calibrated) upwards, for two gaps that are
    estimated from the data: `local`, smoothed at the bandwidth of the smECE, and `even`, smoothed over all
    confidences. They have the true error e(t), the error with p_t in place of outcomes. Outcomes drawn from p_t
    give the law of the plug-in error. The interval holds every e(t) under which the measured error lies between
    the 2.5 and 97.5 % quantiles, for either gap; the value is the e(t) under which it is the median (`local`). Below
    what calibrated models read, all three are negative; `calib_utils.metrics` cuts them at 0 where one stands alone.

    Parameters
    ----------
    error : maps outcomes (B, n) or (B, n, K), which may be probabilities, to (B,) errors of `confidence`.
    confidence, outcomes : (n,) of one event, or (n, K) of K classes of which one happens.
    """
    f, y = confidence.reshape(len(confidence), -1), outcomes.reshape(len(outcomes), -1)
    local, even = (
        np.stack([smoothed_gap(f[:, k], y[:, k], width) for k in range(f.shape[1])], axis=1)
        for width in (None, _EVEN)
    )
    within = _within((f - y - even)[:, 0], group)
    gaps = [gap.reshape(confidence.shape) for gap in (local, even)]
    measured, *units = error(np.stack([outcomes, *(_moved(confidence, gap, 1.0) for gap in gaps)]))
    wanted = measured + 1.3 / np.sqrt(len(f))  # 2.6 standard errors of a mean of outcomes, at most
    models = [  # of either gap as far as the error that is wanted
        _moved(confidence, gap, step * np.clip(wanted / max(unit, 1e-6), 1.0, 1000.0))
        for gap, unit in zip(gaps, units, strict=True)
        for step in np.linspace(0, 1, _LEVELS)
    ]
    n_draws = max(n_boot // 5, 2)
    uniforms = [_uniforms(group, n_draws, within, seed + turn) for turn in range(_LEVELS)]
    drawn = error(np.concatenate([_outcomes(u, p) for u, p in zip(uniforms * 2, models, strict=True)]))
    drawn, levels = drawn.reshape(2, _LEVELS, n_draws), error(np.stack(models)).reshape(2, _LEVELS)
    levels[:, 0] = 0.0
    (value, low, high), other = (_invert(*ray, measured) for ray in zip(levels, drawn, strict=True))
    low, high = min(low, other[1], value), max(high, other[2], value)
    floor = float(np.quantile(drawn[0, 0], _FLOOR))
    return Part(value, low, high, float(measured), floor, ((f - y - local) * np.sign(local)).sum(axis=1))


def _moved(confidence, gap, t):
    moved = np.clip(confidence - t * gap, 0, 1)
    return moved if moved.ndim == 1 else moved / np.maximum(moved.sum(axis=1, keepdims=True), 1e-12)


def _outcomes(uniforms, p):
    if p.ndim == 1:
        return (uniforms < p).astype(float)
    upper = np.cumsum(p, axis=1)
    return ((uniforms[..., None] < upper) & (uniforms[..., None] >= upper - p)).astype(float)


def _invert(levels, draws, measured) -> tuple[float, float, float]:
    """Debiased value, low, high. Of a few draws' quantile and the normal one the wider is taken.

    What lies below a calibrated model's quantile is mirrored to negative errors: cut at 0, values of calibrated
    models would be too high on average, and so would means over seeds and what is subtracted in differences.
    """
    middle, spread = draws.mean(axis=1), _Z * draws.std(axis=1)
    quantiles = np.quantile(draws, [_TAIL, 0.5, 1 - _TAIL], axis=1)
    levels = np.maximum.accumulate(levels)
    bounds = np.minimum(quantiles[0], middle - spread), quantiles[1], np.maximum(quantiles[2], middle + spread)
    bounds = np.maximum.accumulate(bounds, axis=1)
    above = measured - bounds[:, 0]
    high, value, low = (
        float(np.sign(more) * np.interp(bound[0] + abs(more), bound, levels))
        for more, bound in zip(above, bounds, strict=True)
    )
    return value, low, high


def noise(error: Error, confidence: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """(n_draws,) errors of perfectly calibrated answers: outcomes drawn from the confidences themselves."""
    group = np.arange(len(confidence))
    return error(_outcomes(_uniforms(group, n_draws, 0.0, seed), confidence))


def _uniforms(group, n_draws, within, seed):
    """(n_draws, n) uniform numbers; those of one entity have the correlation `within` (Gaussian copula)."""
    n, n_groups = len(group), int(group.max()) + 1
    if n_groups == n or within <= 0:
        return _independent(n, n_draws, seed)
    shared, own = _normals(n_groups, n, n_draws, seed)
    return special.ndtr(np.sqrt(np.float32(within)) * shared[:, group] + np.sqrt(np.float32(1 - within)) * own)


@lru_cache(maxsize=_LEVELS)
def _normals(n_groups: int, n: int, n_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_draws, n_groups) and (n_draws, n) standard normal numbers. Read-only: callers share them."""
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal((n_draws, size), dtype=np.float32) for size in (n_groups, n)]
    for numbers in found:
        numbers.flags.writeable = False
    return found[0], found[1]


@lru_cache(maxsize=_LEVELS)  # the same for every error of every model at these questions
def _independent(n: int, n_draws: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((n_draws, n), dtype=np.float32)
    drawn.flags.writeable = False
    return drawn


def _within(residual, group) -> float:
    """Latent correlation of outcomes about one entity, from the residuals of all such pairs; in [0, 0.95]."""
    sizes = np.bincount(group)
    pairs = float((sizes * (sizes - 1)).sum())
    variance = float(residual @ residual) / len(residual)
    if pairs == 0 or variance == 0:
        return 0.0
    sums = np.bincount(group, residual)
    share = (float(sums @ sums) - float(residual @ residual)) / (pairs * variance)
    return float(np.clip(np.sin(np.pi / 2 * np.clip(share, 0, 1)), 0, 0.95))


def combine(
    parts: Sequence[Part],
    weights: Sequence[float],
    group: np.ndarray | None,
    between: tuple[float, int] = (0.0, 1),
) -> tuple[float, float, float]:
    """Value, low and high of the sum of weight x part.

    Parameters
    ----------
    group : groups of the questions that all parts share; None for parts about different questions.
    between : variance of the sum between training seeds, and its degrees of freedom.
    """
    value = float(sum(weight * part.value for weight, part in zip(weights, parts, strict=True)))
    signs = np.sign(weights)
    correlation = np.eye(len(parts))
    if group is not None:
        sums = np.stack([np.bincount(group, part.influence) for part in parts])
        size = np.sqrt((sums**2).sum(axis=1))
        safe = np.where(size > 0, size, 1)
        correlation = np.where(np.eye(len(parts)) > 0, 1.0, (sums @ sums.T) / np.outer(safe, safe))
    ends = []
    for downwards in (True, False):
        reach = np.array(
            [
                abs(weight) * (part.value - part.low if (weight > 0) == downwards else part.high - part.value)
                for weight, part in zip(weights, parts, strict=True)
            ]
        )
        signed = signs * reach
        square = max(float(signed @ correlation @ signed), 0.0) if np.isfinite(reach).all() else np.inf
        ends.append(_with_seeds(np.sqrt(square), *between))
    return value, value - ends[0], value + ends[1]


def _with_seeds(reach: float, between: float, freedom: int) -> float:
    """Half a width with the variance between seeds added; degrees of freedom after Satterthwaite (1946)."""
    if between <= 0 or not np.isfinite(reach):
        return reach
    total = (reach / _Z) ** 2 + between
    return float(stats.t.ppf(1 - _TAIL, freedom * (total / between) ** 2) * np.sqrt(total))

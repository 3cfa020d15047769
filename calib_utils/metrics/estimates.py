"""Estimates: a metric with its 95 % interval, of one model, a mean over training seeds, or a difference."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from calib_utils.metrics import intervals
from calib_utils.metrics.kernels import smooth_error
from calib_utils.metrics.scores import checked, classwise_ece, ece_equal_width
from calib_utils.metrics.smooth import smece
from calib_utils.metrics.table import METRICS, Metric
from calib_utils.types import Estimate


def evaluate(
    confidence, correct, metric: str = "smece", n_boot: int = 1000, seed: int = 0, entities=None
) -> Estimate:
    """A metric with its 95 % interval over questions, or over `entities` (n,) where several questions share one.

    `n_boot` sets how many data sets are simulated or resampled. Raises ValueError for out-of-range input or an
    unknown metric.
    """
    pair = checked(confidence, correct)
    group = intervals.groups(entities, len(pair[0]))
    return joined([_part(metric, *pair, group, n_boot, seed)], [1.0], group, (0.0, 1), len(pair[0]), metric)


def evaluate_classwise(probabilities, labels, n_bins: int = 10, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """`classwise_ece` with its interval and noise floor, as `evaluate` gives them."""
    plug_in = float(classwise_ece(probabilities, labels, n_bins=n_bins)[0])
    p, group = np.clip(np.asarray(probabilities, dtype=float), 0, 1), np.arange(len(labels))

    def error(outcomes):
        ones = np.ones((1, len(p)))
        return np.mean([ece_equal_width(p[:, k], outcomes[..., k], ones, n_bins) for k in range(p.shape[1])], axis=0)

    part = intervals.ray(error, p, np.eye(p.shape[1])[np.asarray(labels)], group, n_boot, seed)
    return replace(joined([part], [1.0], group, (0.0, 1), len(group), "smece"), plug_in=plug_in)


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}; use one of {sorted(METRICS)}")
    return METRICS[name]


def _part(name: str, confidence, correct, group, n_boot: int, seed: int) -> intervals.Part:
    _metric(name)
    return _kept_part(name, confidence.tobytes(), correct.tobytes(), group.tobytes(), n_boot, seed)


@lru_cache(maxsize=10_000)  # a notebook shows a model alone, then in differences; 06 has some 9,000 of these parts
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
        return partial(smooth_error, confidence)
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


def joined(parts, weights, group, between, n: int, metric: str | None = None, signed: bool = False) -> Estimate:
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


def groups_of(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """Numbers of the entities that the questions of score tables are about, or of the questions themselves."""
    return intervals.groups(tables[0].get("entity"), len(tables[0]))


def between_seeds(first: Sequence[float], tables, second: Sequence[float], minus) -> tuple[float, int]:
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
    group = groups_of(tables)
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
    some_tables(tables, "tables of scores, one per training seed")
    _metric(metric)
    first, second, group = _sides(tables, minus, metric, n_boot, seed)
    between = between_seeds(first.values, tables, second.values, minus)
    return joined(*_weighted(first, second), group, between, len(group), metric, bool(minus))


def some_tables(tables, what: str) -> None:
    """Raise ValueError for no tables, saying `what` to give."""
    if not len(tables):
        raise ValueError(f"there are no tables to evaluate; give {what}")


def contrast(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "smece", n_boot: int = 1000, seed: int = 0
) -> Estimate:
    """Difference of a metric between two tables of scores of different questions.

    `n` counts the questions of both.
    """
    _metric(metric)
    parts = [_side([table], metric, groups_of([table]), n_boot, seed).parts[0] for table in (first, second)]
    return joined(parts, [1.0, -1.0], None, (0.0, 1), len(first) + len(second), metric, signed=True)


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
        spread = between_seeds(first.values, after, [r * value for value in second.values], before)
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
    found = joined([intervals.mean(values, None, group)], [1.0], group, (0.0, 1), len(values))
    return replace(found, low=max(found.low, limits[0]), high=min(found.high, limits[1]))


def mean_over_seeds(tables: Sequence[pd.DataFrame], column: str, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Mean of a per-question column over questions and training seeds, with its interval over both.

    Raises ValueError for no tables.
    """
    some_tables(tables, "tables of scores, one per training seed")
    group = groups_of(tables)
    part = intervals.mean(np.mean([table[column] for table in tables], axis=0), None, group)
    means = [float(table[column].mean()) for table in tables]
    return joined([part], [1.0], group, between_seeds(means, tables, [], []), len(group))

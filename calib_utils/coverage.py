"""Coverage: how often the 95 % intervals of `metrics` hold the true value, by simulation.

Confidences have one of four laws, outcomes a known probability given the confidence, so that every true value can be
computed. `simulate` draws data sets, calls `metrics` as a notebook does and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from calib_utils import intervals, metrics

ERRORS = (0.0, 0.02, 0.05, 0.1, 0.2)
SIZES = (100, 400, 1500)
SCORED = (
    "smece",
    "ece_equal_width_10",
    "ece_equal_mass_10",
    "overconfidence",
    "auroc",
    "accuracy",
    "brier",
    "log_loss",
)
SEEDED = ("smece", "ece_equal_width_10", "overconfidence", "accuracy")
GROUPED = (*SEEDED, "auroc")
REDUCED = ("smece", "ece_equal_width_10")
COLUMNS = tuple(
    "quantity comparison confidences n true_error truth coverage data_sets standard_error width bias".split()
)
_SEEN = "quantity comparison confidences n true_error truth held width bias".split()
_ALIKE = 0.7  # latent correlation of two models' confidences and outcomes on one question, or of an entity's outcomes
_POPULATION = 20_000


@dataclass(frozen=True)
class Law:
    """A law of confidences, from uniform numbers, and the probability of being right at size s of the gap."""

    confidence: Callable[[np.ndarray], np.ndarray]
    right: Callable[[np.ndarray, float], np.ndarray]


def _two_modes(u):
    low, high = stats.beta(2, 20).ppf(u / 0.4), stats.beta(20, 2).ppf((u - 0.4) / 0.6)
    return np.round(np.where(u < 0.4, low, high) * 50) / 50  # as from 50 draws


SHARP = "spread, too sharp"
LAWS = {
    "spread, overconfident": Law(lambda u: stats.beta(1.3, 1.1).ppf(u), lambda f, s: f - s),
    SHARP: Law(lambda u: stats.beta(1.3, 1.1).ppf(u), lambda f, s: f - s * (f - 0.5)),
    "bimodal, too sharp": Law(_two_modes, lambda f, s: f - s * np.sign(f - 0.5)),
    "nearly constant, overconfident": Law(lambda u: 0.85 + 0.02 * stats.norm.ppf(u), lambda f, s: f - s),
}


@cache
def _population(law: str) -> np.ndarray:
    return np.clip(LAWS[law].confidence((np.arange(_POPULATION) + 0.5) / _POPULATION), 0, 1)


def _right(law: str, confidence, size: float):
    return np.clip(LAWS[law].right(confidence, size), 0, 1)


@cache
def _size(law: str, error: float) -> float:
    """The size of the gap at which the population's smECE is `error`."""
    if not error:
        return 0.0
    f = _population(law)
    return brentq(lambda s: float(intervals.smooth_error(f, _right(law, f, s)[None])[0]) - error, 0.0, 1.3, xtol=1e-4)


@cache
def truth(law: str, size: float, metric: str) -> float:
    """The population's value: every confidence counts as right and as wrong, with its probability of either."""
    f = _population(law)
    right = _right(law, f, size)
    if metric == "smece":
        return float(intervals.smooth_error(f, right[None])[0]) if size else 0.0
    weights = np.concatenate([right, 1 - right])[None]
    return float(metrics.METRICS[metric](np.tile(f, 2), np.repeat([1.0, 0.0], len(f)), weights)[0])


def _latent(rng, shape, alike: float) -> np.ndarray:
    """(models, n) uniform numbers, correlated between models."""
    z = np.sqrt(alike) * rng.standard_normal(shape[1:]) + np.sqrt(1 - alike) * rng.standard_normal(shape)
    return np.clip(stats.norm.cdf(z), 1e-9, 1 - 1e-9)


def draw(law: str, sizes: Sequence[float], n: int, rng, per_entity: int = 1) -> list[pd.DataFrame]:
    """Score tables of models with these sizes of the gap, on the same n questions."""
    f = np.clip(LAWS[law].confidence(_latent(rng, (len(sizes), n), _ALIKE)), 0, 1)
    if per_entity == 1:
        u = _latent(rng, f.shape, _ALIKE)
    else:
        shared = np.repeat(rng.standard_normal((len(sizes), -(-n // per_entity))), per_entity, axis=1)[:, :n]
        u = stats.norm.cdf(np.sqrt(_ALIKE) * shared + np.sqrt(1 - _ALIKE) * rng.standard_normal(f.shape))
    tables = []
    for confidence, uniform, size in zip(f, u, sizes, strict=True):
        correct = (uniform < _right(law, confidence, size)).astype(float)
        tables.append(pd.DataFrame({"question_id": range(n), "confidence": confidence, "correct": correct}))
        if per_entity > 1:
            tables[-1]["entity"] = np.arange(n) // per_entity
    return tables


def _seen(law, n, errors, rng, n_boot, seed, scored=SCORED):
    """(quantity, comparison, true error, truth, estimate) of models with these errors and one more of the first."""
    errors = [*errors, errors[0]]
    sizes = [_size(law, error) for error in errors]
    tables = draw(law, sizes, n, rng)
    estimate = partial(metrics.evaluate_seeds, n_boot=n_boot, seed=seed)
    for metric in scored:
        true = [truth(law, size, metric) for size in sizes]
        for i, error in enumerate(errors):
            yield metric, "one model", error, true[i], estimate([tables[i]], metric)
        for i, error in enumerate(errors[:-1]):  # against the next smaller error, the smallest against its equal
            found = estimate([tables[i]], metric, [tables[i - 1]])
            yield metric, "difference", error, true[i] - true[i - 1], found
            if metric in REDUCED and true[i] > true[i - 1]:
                found = metrics.relative_reduction([tables[i]], [tables[i - 1]], metric, n_boot, seed)
                yield metric, "relative reduction", error, 1 - true[i - 1] / true[i], found


def _seen_seeds(law, n, errors, rng, n_boot, seed, n_seeds=3):
    """Means over training seeds whose gaps differ as much as a sample of n questions does, alone and paired."""
    spread = 0.45 / np.sqrt(n)
    for error in errors:
        drawn = _size(law, error) + spread * rng.standard_normal(n_seeds)
        *tables, plain = draw(law, [*drawn, 0.0], n, rng)
        for metric in SEEDED:
            value = _mean_truth(law, error, spread, metric)
            found = metrics.evaluate_seeds(tables, metric, (), n_boot, seed)
            yield metric, f"mean of {n_seeds} seeds", error, value, found
            found = metrics.evaluate_seeds(tables, metric, [plain], n_boot, seed)
            yield metric, f"mean of {n_seeds} seeds, difference", error, value - truth(law, 0.0, metric), found


@cache
def _mean_truth(law, error, spread, metric) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(15)
    values = [truth(law, _size(law, error) + spread * point, metric) for point in points]
    return float(np.dot(values, weights) / weights.sum())


def _seen_entities(law, n, errors, rng, n_boot, seed):
    """Four questions about each entity, with correlated outcomes, and a calibrated model beside the other."""
    for error in errors:
        sizes = [_size(law, error), 0.0]
        first, second = draw(law, sizes, n, rng, per_entity=4)
        for metric in GROUPED:
            true = [truth(law, size, metric) for size in sizes]
            found = metrics.evaluate_seeds([first], metric, (), n_boot, seed)
            yield metric, "one model, 4 questions an entity", error, true[0], found
            found = metrics.evaluate_seeds([first], metric, [second], n_boot, seed)
            yield metric, "difference, 4 questions an entity", error, true[0] - true[1], found


def simulate(
    repeats: int = 220,
    sizes: Sequence[int] = SIZES,
    errors: Sequence[float] = ERRORS,
    laws: Sequence[str] = tuple(LAWS),
    n_boot: int = 250,
    scored: Sequence[str] = SCORED,
    extras: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Coverage of every quantity and comparison in every setting; a row per cell.

    `truth` is the true value, *true_error* the smECE of the (first) model; `width` (of the interval) and `bias` (of
    the value) are medians over the repeats. `extras` adds training seeds and entities, at n = 400. The second shape
    of a gap for spread confidences is simulated at n = 400 alone.
    """
    seen = []
    for turn in range(repeats):
        seen += once(turn, sizes, errors, laws, n_boot, scored, extras)
        if (turn + 1) % 10 == 0:
            report(f"{turn + 1} of {repeats} data sets per cell")
    return summarise(seen)


def once(turn, sizes, errors, laws, n_boot, scored, extras) -> list[tuple]:
    """One data set per cell: rows of `_SEEN`."""
    rows = []
    for law, n in product(laws, sizes):
        if law == SHARP and n != 400:
            continue
        rng = np.random.default_rng([list(LAWS).index(law), n, turn])
        found = [*_seen(law, n, errors, rng, n_boot, turn, scored)]
        if extras and n == 400:
            if law == laws[0]:
                found += _seen_seeds(law, n, [error for error in errors if error >= 0.05], rng, n_boot, turn)
            found += _seen_entities(law, n, [error for error in errors if error in (0, 0.1)], rng, n_boot, turn)
        rows += [
            (q, c, law, n, e, t, f.low <= t + 1e-12 and t - 1e-12 <= f.high, f.high - f.low, f.value - t)
            for q, c, e, t, f in found
        ]
    return rows


def summarise(rows: list[tuple]) -> pd.DataFrame:
    """The table of `simulate` from the rows of `once`."""
    table = (
        pd.DataFrame(rows, columns=_SEEN)
        .groupby(_SEEN[:5], sort=False)
        .agg(
            truth=("truth", "mean"),
            coverage=("held", "mean"),
            data_sets=("held", "size"),
            width=("width", "median"),
            bias=("bias", "median"),
        )
        .reset_index()
    )
    table["standard_error"] = np.sqrt(table["coverage"] * (1 - table["coverage"]) / table["data_sets"])
    return table[list(COLUMNS)]

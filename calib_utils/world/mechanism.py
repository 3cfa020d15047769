"""Mechanism: why cross-entropy calibrates, as numbers. Tilts, the loss gap, and the error that it bounds.

Theorem 6 of arXiv 2511.04869: a model is calibrated just when no tilt of its top class, by an amount that depends on
the confidence alone, lowers its log loss. All functions take confidences and outcomes, of a world or of a real model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils import metrics
from calib_utils.metrics import intervals
from calib_utils.metrics.scores import checked
from calib_utils.types import Estimate

FORMS = ("smooth", "binned")
LEAST = 20  # questions that a loss gap needs, 10 in each half
_SPREAD = 3.0  # of the normal prior on tilts: it keeps them finite where all answers are right
_BINS = 10


def tilt(confidence, t) -> np.ndarray:
    """conf' = conf e^t / (conf e^t + 1 - conf): the top class moved by t on the logit scale, the rest in proportion.

    Raises ValueError for a confidence outside [0, 1] or a t that is not finite.
    """
    confidence, t = np.asarray(confidence, dtype=float), np.asarray(t, dtype=float)
    if not ((confidence >= 0) & (confidence <= 1)).all() or not np.isfinite(t).all():
        raise ValueError(f"confidence must lie in [0, 1] and t be finite, got {confidence} and {t}")
    return confidence / (confidence + (1 - confidence) * np.exp(-t))


def tilted_gap(confidence, t) -> float:
    """The loss gap of `tilt(confidence, t)` where `confidence` is the truth, in nats: mean KL(conf || conf').

    It is what a tilt by -t takes back: mean of conf log(conf / conf') + (1 - conf) log((1 - conf) / (1 - conf')).
    """
    return float(np.mean(_loss(tilt(confidence, t), np.asarray(confidence)) - _loss(confidence, confidence)))


def error_bound(gap):
    """The largest calibration error that a loss gap allows: sqrt(gap / 2).

    With the best tilt, gap = E KL(accuracy(conf) || conf) >= E 2 (accuracy(conf) - conf)^2 >= 2 error^2, by Pinsker's
    and Jensen's inequalities; the error is E |accuracy(conf) - conf|, which no smoothed error exceeds. No error is
    left where the gap is 0: that is Theorem 6.
    """
    return np.sqrt(np.maximum(gap, 0) / 2)


def loss_gap(
    confidence, correct, form: str = "smooth", resolution: float = 1e-6, entities=None, seed: int = 0
) -> Estimate:
    """How much the best tilt lowers the log loss, in nats, with a 95 % interval: 0 if none does.

    t = tau(conf) is fitted on one half of the questions and read on the other, then the other way round; the value is
    the mean of both. In that way a tilt that only fits noise costs something: the value may be negative.

    Parameters
    ----------
    confidence : (n,) in [0, 1].
    correct : (n,) 0 or 1, or the known probability that the prediction is right.
    form : ``"smooth"``, tau(conf) = a + b logit(conf); ``"binned"``, a constant in each of 10 bins of equal mass, for
        thousands of questions.
    resolution : a confidence nearer to 0 or 1 counts as this far from it; M draws tell no more than 1 / (2 M).
    entities : (n,) whatever questions are about; those of one entity stay in one half and count as one.
    seed : of the halves.

    Raises
    ------
    ValueError : values out of range, an unknown form, or fewer than `LEAST` questions.
    """
    confidence, correct = _checked(confidence, correct, form, resolution)
    group = intervals.groups(entities, len(confidence))
    first = np.random.default_rng(seed).permutation(int(group.max()) + 1)[group] % 2 == 0
    drop = np.empty(len(confidence))
    for fitted, read in ((first, ~first), (~first, first)):
        moved = tilt(confidence[read], _tau(confidence[fitted], correct[fitted], form)(confidence[read]))
        drop[read] = _loss(confidence[read], correct[read]) - _loss(moved, correct[read])
    return metrics.mean_estimate(drop, entities=entities)


def best_tilt(confidence, correct, form: str = "smooth", resolution: float = 1e-6) -> np.ndarray:
    """(n,) the tilt t = tau(conf) that fits all questions best; positive where the model is underconfident."""
    confidence, correct = _checked(confidence, correct, form, resolution)
    return _tau(confidence, correct, form)(confidence)


def _checked(confidence, correct, form: str, resolution: float):
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; use one of {FORMS}")
    if not 0 < resolution < 0.5:
        raise ValueError(f"resolution is {resolution}; it must lie between 0 and 0.5")
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    checked(confidence, np.zeros(len(confidence)))
    if correct.shape != confidence.shape or not ((correct >= 0) & (correct <= 1)).all():
        raise ValueError(f"correct must be {confidence.shape} values in [0, 1], got {correct}")
    if len(confidence) < LEAST:
        raise ValueError(f"a loss gap needs at least {LEAST} questions, 10 in each half; got {len(confidence)}")
    return np.clip(confidence, resolution, 1 - resolution), correct


def _loss(confidence, correct):
    """Log loss over classes, up to a part that no tilt changes."""
    return -(correct * np.log(confidence) + (1 - correct) * np.log1p(-confidence))


def _logit(p):
    return np.log(p) - np.log1p(-p)


def _tau(confidence: np.ndarray, correct: np.ndarray, form: str):
    """The fitted tilt as a function of confidence: logistic regression on its logit as an offset, by Newton steps."""
    edges = np.quantile(confidence, np.linspace(0, 1, _BINS + 1)[1:-1])

    def design(c):
        if form == "smooth":
            return np.stack([np.ones(len(c)), _logit(c)], axis=1)
        return np.eye(_BINS)[np.searchsorted(edges, c, side="left")]

    x, offset = design(confidence), _logit(confidence)

    def penalised(w):
        z = offset + x @ w
        return (np.logaddexp(0, z) - correct * z).sum() + (w @ w) / (2 * _SPREAD**2)

    weights = np.zeros(x.shape[1])
    lowest = penalised(weights)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(offset + x @ weights)))
        slope = x.T @ (correct - p) - weights / _SPREAD**2
        bend = (x * (p * (1 - p))[:, None]).T @ x + np.eye(len(weights)) / _SPREAD**2
        move = np.linalg.solve(bend, slope)
        move = move * min(1.0, 2.0 / max(np.abs(move).max(), 1e-12))
        # Where all are nearly sure the loss bends little, and a whole step would jump over the minimum for ever.
        while (reached := penalised(weights + move)) > lowest + 1e-9 * abs(lowest) and np.abs(move).max() > 1e-9:
            move = move / 2
        weights, lowest = weights + move, reached
        if np.abs(move).max() < 1e-9:
            break
    return lambda c: design(c) @ weights


def measure(
    tables: Mapping[str, pd.DataFrame], resolution: float = 0.005, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Loss gap and calibration error of tables of scores (confidence, correct; entity, if there is one), by name.

    Columns: notebook (first word of the name), condition, n, gap, gap_low, gap_high, error (smECE), error_low,
    error_high, floor (of the smECE), signed (mean confidence minus accuracy), bound (`error_bound` of the gap).

    Raises ValueError for no tables, or one of fewer than `LEAST` questions.
    """
    if not tables:
        raise ValueError("there are no tables of scores; give at least one condition")
    rows = []
    for name, table in tables.items():
        entities = table["entity"] if "entity" in table and table["entity"].notna().all() else None
        pair = table["confidence"].to_numpy(), table["correct"].to_numpy()
        gap = loss_gap(*pair, resolution=resolution, entities=entities, seed=seed)
        error = metrics.evaluate(*pair, "smece", n_boot, seed, entities)
        rows.append(
            {
                "notebook": name.split()[0],
                "condition": name,
                "n": len(table),
                "gap": gap.value,
                "gap_low": gap.low,
                "gap_high": gap.high,
                "error": error.value,
                "error_low": error.low,
                "error_high": error.high,
                "floor": error.floor,
                "signed": float(np.mean(pair[0] - pair[1])),
                "bound": float(error_bound(gap.value)),
            }
        )
    return pd.DataFrame(rows)


def read_scores(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Tables of scores that notebooks left in `folder` as ``NN_scores.csv``, by notebook and condition.

    A file has the columns question_id, confidence, correct, and entity if several questions are about one; every
    other column of text is a part of the condition's name. None there: an empty dictionary.

    Raises ValueError for a file without one of the three columns.
    """
    found = {}
    for path in sorted(Path(folder).glob("[0-9][0-9]_scores.csv")):
        table = pd.read_csv(path, dtype={"question_id": str, "entity": str})
        missing = [name for name in ("question_id", "confidence", "correct") if name not in table]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; scores are question_id, confidence, correct")
        known = ("question_id", "entity", "relation", "prediction", "reference")
        labels = [name for name in table if name not in known and not pd.api.types.is_numeric_dtype(table[name])]
        groups = table.groupby(labels, sort=False) if labels else [((), table)]
        for key, part in groups:
            found[" ".join([path.name[:2], *map(str, key)])] = part.reset_index(drop=True)
    return found

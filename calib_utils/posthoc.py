"""Post-hoc temperature scaling: one number fitted on dev makes confidences sharper or flatter (Guo et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from calib_utils.metrics import checked, log_loss

_RANGE = (0.05, 20.0)


def scaled_confidence(distributions: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """max_k p_k^(1/T) / sum_j p_j^(1/T) for each distribution; T > 1 lowers it, and the top class stays the same.

    Parameters
    ----------
    distributions : one array of class or option probabilities per question; zeros stay zero.

    Raises
    ------
    ValueError : T <= 0, or a distribution with negative values or without mass.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")
    found = []
    for i, p in enumerate(distributions):
        p = np.asarray(p, dtype=float)
        if not len(p) or not np.isfinite(p).all() or p.min() < 0 or p.max() <= 0:
            raise ValueError(f"distribution {i} is {p}; it needs probabilities with some mass")
        found.append(1 / ((p / p.max()) ** (1 / temperature)).sum())
    return np.array(found)


def fit_temperature(distributions: Sequence[np.ndarray], correct: Sequence[int]) -> float:
    """The T in [0.05, 20] with the lowest log loss of (scaled confidence, correct), on questions of the dev split.

    `correct` says whether the top class of each distribution is right. Raises ValueError as `scaled_confidence`.
    """
    _, correct = checked(scaled_confidence(distributions, 1.0), correct)
    ones = np.ones((1, len(correct)))

    def loss(log_t: float) -> float:
        return float(log_loss(scaled_confidence(distributions, float(np.exp(log_t))), correct, ones)[0])

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded").x))

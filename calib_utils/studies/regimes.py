"""Regimes: what accuracy says about the calibration that can be reached (after arXiv 2505.01997).

Labels y are drawn from a target distribution p*(y | x). Its accuracy A* = E max_k p*_k(x) is the critical accuracy:
no model is right more often on new labels. Let a be a model's accuracy on the labelled questions that it was tuned
on, a' its accuracy on new labels, c(x) its confidence, k(x) its choice. ECE means the expected calibration error
before binning, E |E[correct | c] - c|; bins can only lower it.

1. Up to A* no bound stands in the way (calibratable). The model that knows a coarser g(x) and says E[p* | g(x)] has
   an ECE of 0, and its accuracy E max_k E[p*_k | g(x)] runs from that of the most frequent label, if g is constant,
   to A*, if g is x; with a g that is drawn at random it takes every value between.
2. Beyond A* it does (non-calibratable). By the triangle inequality ECE >= |E c - accuracy|, on the tuned labels and
   on new ones, with the same E c. So ECE(tuned) + ECE(new) >= a - a' >= a - A*, and the larger of the two is at
   least (a - A*) / 2: accuracy beyond A* is learned noise, and confidence cannot be right about both. For new
   questions in place of new labels this holds as far as the model's mean confidence is the same on both.
3. A model that is nowhere underconfident has ECE = E c - a <= 1 - a: where preference collapse leads. Without that
   condition the most is 1 - a / K, with certain wrong answers and right ones at the least confidence 1 / K.
4. Cross-entropy leads to 0: |E[correct | c] - c| is at most the mean total variation between p and p*, so by
   Pinsker and Jensen ECE <= sqrt((L - H*) / 2), with L the log loss on new labels and H* the entropy of p*, in nats.

The paper states bounds of this kind by the target's accuracy; the derivations here are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


def lower_bound(accuracy, critical: float):
    """The larger of the ECEs on tuned and on new labels is at least max(0, a - A*) / 2 (2 above).

    Parameters
    ----------
    accuracy : a, on the labels that were tuned on; a number or an array.
    critical : A*, the accuracy of the target on new labels.

    Raises
    ------
    ValueError : outside [0, 1].
    """
    accuracy = _checked("accuracy", accuracy)
    return np.maximum(accuracy - _checked("critical", critical), 0) / 2


def upper_bound(accuracy, n_options: int | None = None):
    """1 - a, the ECE of a model that is certain of everything; with `n_options` the most of any model, 1 - a / K.

    Raises ValueError for an accuracy outside [0, 1] or fewer than two options.
    """
    accuracy = _checked("accuracy", accuracy)
    if n_options is None:
        return 1 - accuracy
    if n_options < 2:
        raise ValueError(f"n_options is {n_options}; a choice has at least 2")
    return 1 - accuracy / n_options


def excess_bound(log_loss: float, entropy: float) -> float:
    """ECE <= sqrt((L - H*) / 2) for the log loss L and the target's entropy H*, in nats (4 above).

    Raises ValueError for L below H*, which no model has on new labels.
    """
    if not log_loss >= entropy >= 0:
        raise ValueError(f"log loss {log_loss} and entropy {entropy}: the loss on new labels is at least the entropy")
    return float(np.sqrt((log_loss - entropy) / 2))


@dataclass(frozen=True)
class Regime:
    """Which side of the critical accuracy a model is on.

    Attributes
    ----------
    calibratable : whether an ECE of 0 is within reach at this accuracy.
    bound : what the larger of the ECEs on tuned and on new labels is at least.
    method : ``"CFT"``, or ``"RCFT"`` beyond the critical accuracy (arXiv 2505.01997).
    """

    calibratable: bool
    bound: float
    method: str


def regime(accuracy: float, critical: float) -> Regime:
    """The regime of a model with `accuracy` on the labels it was tuned on; `critical` and errors as in `lower_bound`.

    A* is not known for real data. The accuracy on held-out questions of a model trained with a proper loss until its
    held-out log loss rises again is an estimate from below.
    """
    bound = float(lower_bound(accuracy, critical))
    return Regime(bound == 0, bound, "CFT" if bound == 0 else "RCFT")


def bounds(least: float, critical: float, n: int = 101) -> pd.DataFrame:
    """Both bounds along the accuracy on tuned labels, from `least` to 1; columns accuracy, certain, lower."""
    a = np.linspace(least, 1, n)
    return pd.DataFrame({"accuracy": a, "certain": upper_bound(a), "lower": lower_bound(a, critical)})


def _checked(name: str, value):
    value = np.asarray(value, dtype=float)
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError(f"{name} is {value}; it must lie in [0, 1]")
    return value

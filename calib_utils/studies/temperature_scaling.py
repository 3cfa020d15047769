"""Post-hoc temperature scaling: one number fitted on dev makes confidences sharper or flatter (Guo et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from calib_utils.semantics import class_distribution, right_class
from calib_utils.types import Collapse, Question, Record

_RANGE = (0.05, 20.0)
_LEAST = 1e-6  # probability that a loss of certainty is cut at


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


def fit_temperature(distributions: Sequence[np.ndarray], labels: Sequence[int | None]) -> float:
    """The T in [0.05, 20] with the lowest multiclass negative log likelihood, on questions of the dev split.

    Loss (Guo et al., 2017): mean over questions of -log(p_y^(1/T) / sum_j p_j^(1/T)), y the true class.

    Departure: sampled answers may hold no draw of the true class, which cannot happen to Guo's classifiers. Its
    likelihood is then 0 at every T. Such a question (label None, or a class without mass) counts as "not the top
    class": -log(1 - max_k p_k^(1/T) / sum_j p_j^(1/T)), cut at -log(1e-6) where only one class was drawn.

    Parameters
    ----------
    distributions : one array of class or option probabilities per question.
    labels : position of the true class in each distribution; None where it is not among the classes.

    Raises
    ------
    ValueError : as `scaled_confidence`; unequal lengths; a label that is no position in its distribution.
    """
    if len(distributions) != len(labels) or not len(labels):
        raise ValueError(
            f"{len(distributions)} distributions and {len(labels)} labels must be equally many, not none"
        )
    for i, (p, label) in enumerate(zip(distributions, labels, strict=True)):
        if label is not None and not 0 <= label < len(p):
            raise ValueError(f"label {i} is {label}; its distribution has the classes 0..{len(p) - 1}, or give None")
    masses = np.array(
        [0.0 if y is None else p[y] / np.max(p) for p, y in zip(map(np.asarray, distributions), labels, strict=True)]
    )

    def loss(log_t: float) -> float:
        t = float(np.exp(log_t))
        top = scaled_confidence(distributions, t)
        likelihood = np.where(masses > 0, top * masses ** (1 / t), 1 - top)
        return float(-np.log(np.maximum(likelihood, _LEAST)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded").x))


@dataclass(frozen=True)
class Shares:
    """What temperature scaling acts on: per question a distribution, and which of its classes is the true one.

    Attributes
    ----------
    distributions : one array of class or option probabilities per question, up to a factor.
    labels : position of the true class in each; None where it is not among the classes.
    """

    distributions: Sequence[np.ndarray]
    labels: Sequence[int | None]

    @classmethod
    def of_answers(cls, records: Sequence[Record], collapse: Collapse) -> Shares:
        """Of the classes of freely drawn answers: their frequencies among the draws."""
        found = [class_distribution(record.question, record.completions, collapse) for record in records]
        right = [right_class(record.question, collapse, record.reference_ids) for record in records]
        labels = [
            [*shares].index(name) if name in shares else None for shares, name in zip(found, right, strict=True)
        ]
        return cls([np.array([*shares.values()]) for shares in found], labels)

    @classmethod
    def of_options(cls, questions: Sequence[Question], logprobs: Sequence[np.ndarray]) -> Shares:
        """Of the options of multiple choice: `logprobs` are log p(option | prompt), one array per question."""
        labels = [question.choices.index(question.answer) for question in questions]
        return cls([np.exp(values - values.max()) for values in logprobs], labels)

    def fit(self) -> float:
        """The temperature that these questions ask for (`fit_temperature`)."""
        return fit_temperature(self.distributions, self.labels)

    def scaled(self, temperature: float) -> np.ndarray:
        """The confidence in the top class of every question at a temperature (`scaled_confidence`)."""
        return scaled_confidence(self.distributions, temperature)

    def at(self, temperature: float) -> Shares:
        """The distributions themselves at a temperature: p_k^(1/T) / sum_j p_j^(1/T)."""
        raised = [p ** (1 / temperature) for p in self.distributions]
        return Shares([p / p.sum() for p in raised], self.labels)

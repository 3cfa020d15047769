"""Options: confidence in multiple choice, from the log-probabilities of the options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calib_utils.data import entity
from calib_utils.types import Question


def option_probabilities(logprobs: Sequence[np.ndarray]) -> np.ndarray:
    """(n, K) probabilities of the options, renormalised per question; 0 where a question has fewer than K options.

    `logprobs` are log p(option | prompt), one array per question (`sampling.option_logprobs`). Raises ValueError for
    no questions, or a question without options.
    """
    if not len(logprobs):
        raise ValueError("there are no questions with options: give one array of log-probabilities per question")
    without = [at for at, values in enumerate(logprobs) if not len(values)]
    if without:
        raise ValueError(f"question number {without[0]} has no options, so that there are no probabilities of them")
    p = np.zeros((len(logprobs), max(map(len, logprobs))))
    for row, values in zip(p, logprobs, strict=True):
        row[: len(values)] = np.exp(values - np.logaddexp.reduce(values))
    return p


def score_options(questions: Sequence[Question], logprobs: Sequence[np.ndarray]) -> pd.DataFrame:
    """One row per multiple-choice question: the top option, its probability and whether it is right.

    `logprobs` are log p(option | prompt) in the order of `Question.choices` (`sampling.option_logprobs`); they are
    renormalised over the options. Columns: question_id, entity, relation, prediction, reference, confidence in
    (0, 1], correct, p_reference. A question without options raises ValueError.
    """
    for question, values in zip(questions, logprobs, strict=True):
        if question.choices is None or len(values) != len(question.choices):
            raise ValueError(f"question {question.id!r} has the options {question.choices}, got {len(values)} values")
    rows = []
    for question, p in zip(questions, option_probabilities(logprobs), strict=True):
        prediction = question.choices[int(np.argmax(p))]
        rows.append(
            {
                "question_id": question.id,
                "entity": entity(question),
                "relation": question.relation,
                "prediction": prediction,
                "reference": question.answer,
                "confidence": float(min(p.max(), 1.0)),
                "correct": int(prediction == question.answer),
                "p_reference": float(p[question.choices.index(question.answer)]),
            }
        )
    return pd.DataFrame(rows)

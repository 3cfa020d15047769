"""Confidence: the distribution over classes that draws give, its top class, and whether that is right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import entr

from calib_utils import storage
from calib_utils.data import entity
from calib_utils.semantics.collapse import right_class
from calib_utils.types import Collapse, Question, Response


def classes(question: Question, completions: Sequence, collapse: Collapse) -> list[str]:
    """B of every completion, in their order."""
    return [collapse(Response(c.text, c.token_ids), question) for c in completions]


def class_distribution(
    question: Question, completions: Sequence, collapse: Collapse, estimator: str = "frequency"
) -> dict[str, float]:
    """Pushforward of the model's distribution through B: (B # p)(k) = Pr[B(z) = k].

    Parameters
    ----------
    completions : distinct completions with `text`, `token_ids`, `count`, `logprob`.
    estimator : `"frequency"`, the share of the M draws in the class (sums to 1; its maximum is biased upwards
        at small M), or `"mass"`, the summed probability of the distinct completions seen (a lower bound per
        class; what is missing from 1 was never drawn).

    Raises
    ------
    ValueError : no completions, an unknown estimator, or a total outside [0, 1].
    """
    if not completions:
        raise ValueError(f"question {question.id!r} has no completions")
    if estimator == "frequency":
        weights = [c.count for c in completions]
    elif estimator == "mass":
        weights = [float(np.exp(c.logprob)) for c in completions]
    else:
        raise ValueError(f"estimator is {estimator!r}; use 'frequency' or 'mass'")
    total = sum(weights)
    if estimator == "mass" and not 0 <= total <= 1 + 1e-3:
        raise ValueError(f"question {question.id!r}: the class probabilities sum to {total}")
    shares: dict[str, float] = defaultdict(int)
    for name, weight in zip(classes(question, completions, collapse), weights, strict=True):
        shares[name] += weight
    if estimator == "frequency":  # whole counts are summed and divided once, so that equal shares are equal
        shares = {name: count / total for name, count in shares.items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def semantic_confidence(classes: dict[str, float]) -> tuple[str, float]:
    """Semantic prediction k* = argmax_k and semantic confidence max_k of a class distribution.

    Ties go to the class first in the alphabet, so that the result does not depend on the order of drawing.
    Raises ValueError for no classes.
    """
    if not classes:
        raise ValueError("there are no classes, so that none is the most probable")
    top = max(classes.values())
    return min(k for k, p in classes.items() if p == top), min(top, 1.0)


def subsample_draws(record, m: int, seed: int = 0):
    """The record that a budget of `m` draws would have left: `m` of the M draws, without replacement.

    Raises ValueError for m outside 1..M.
    """
    counts = np.array([c.count for c in record.completions])
    if not 1 <= m <= counts.sum():
        raise ValueError(f"m is {m}; the record of {record.question.id!r} has {counts.sum()} draws")
    rng = storage.generator(seed, m, of=record.question.id)
    kept = rng.multivariate_hypergeometric(counts, m)
    pairs = zip(record.completions, kept, strict=True)
    return replace(record, completions=tuple(replace(c, count=int(k)) for c, k in pairs if k))


def answers(record, collapse: Collapse, top: int = 6) -> pd.DataFrame:
    """What a question was answered with: one row per class, the most confident first.

    Columns: class, confidence (frequency), reference ("yes" for the class of the reference answer), responses (the
    texts merged in the class with their counts, the most frequent first).
    """
    question = record.question
    merged: dict[str, Counter] = defaultdict(Counter)
    for name, completion in zip(classes(question, record.completions, collapse), record.completions, strict=True):
        merged[name][completion.text.strip()] += completion.count
    target = right_class(question, collapse, record.reference_ids)
    shares = class_distribution(question, record.completions, collapse)
    return pd.DataFrame(
        [
            {
                "class": name,
                "confidence": share,
                "reference": "yes" if name == target else "",
                "responses": ", ".join(f"{text!r} x{count}" for text, count in merged[name].most_common(4)),
            }
            for name, share in list(shares.items())[:top]
        ]
    )


def score(records: Iterable, collapse: Collapse, estimator: str = "frequency") -> pd.DataFrame:
    """One row per record: semantic prediction, confidence and correctness.

    `records` have `question`, `completions` and `reference_ids`. Columns: question_id, entity, relation,
    popularity, prediction, reference, confidence in (0, 1], correct (0 or 1), entropy (nats, of the class
    distribution), n_classes, covered (summed probability of the distinct completions seen).

    `correct` is [k* == B(reference)]. A reference that B maps to `NO_ANSWER` raises ValueError.
    """
    rows = []
    for record in records:
        question = record.question
        classes = class_distribution(question, record.completions, collapse, estimator)
        prediction, confidence = semantic_confidence(classes)
        reference = right_class(question, collapse, record.reference_ids)
        p = np.array(list(classes.values()))
        rows.append(
            {
                "question_id": question.id,
                "entity": entity(question),
                "relation": question.relation,
                "popularity": question.popularity,
                "prediction": prediction,
                "reference": reference,
                "confidence": confidence,
                "correct": int(prediction == reference),
                "entropy": float(entr(p / p.sum()).sum()),
                "n_classes": len(classes),
                "covered": float(np.exp([c.logprob for c in record.completions]).sum()),
            }
        )
    if not rows:
        raise ValueError("there are no records to score")
    return pd.DataFrame(rows)

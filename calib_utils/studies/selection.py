"""Selection: one answer out of k candidates, by confidence (Confidence@k), by vote, or by an oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calib_utils import storage
from calib_utils.semantics import classes, right_class
from calib_utils.text import NO_ANSWER
from calib_utils.types import Collapse, Record

_SCORES = {
    "token confidence": lambda completion: completion.token_confidence,
    "probability": lambda completion: completion.logprob / len(completion.token_ids),
}
STRATEGIES = (*_SCORES, "majority", "oracle")


def select(
    records: Sequence[Record],
    collapse: Collapse,
    ks: Sequence[int],
    strategies: Sequence[str] = STRATEGIES,
    repeats: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the selected one of k candidates is right, per question.

    The k candidates are drawn from the record's M draws without replacement, `repeats` times, and the result is
    averaged. Ties go to the candidate drawn first.

    ==================  =====================================================================================
    strategy            which candidate is kept
    ==================  =====================================================================================
    token confidence    the one with the highest mean of c_t = max_v p_t(v) over its tokens: Confidence@k
                        (CATTO, arXiv 2601.23096)
    probability         the one with the highest mean log-probability of its own tokens
    majority            any of the class drawn most often: self-consistency (Wang et al., 2023)
    oracle              a right one if there is one: what k candidates can reach at best
    ==================  =====================================================================================

    Columns: question_id, strategy, k, correct (in [0, 1]).

    Raises
    ------
    ValueError : no records, no k, an unknown strategy, k outside 1..M, or records without token confidences.
    """
    if not len(records) or not len(ks) or not len(strategies):
        raise ValueError(
            f"there is nothing to select: {len(records)} records, ks = {list(ks)}, strategies = {list(strategies)}; "
            "give at least one of each"
        )
    unknown = sorted(set(strategies) - set(STRATEGIES))
    if unknown:
        raise ValueError(f"strategy {unknown[0]!r} is unknown; use some of {STRATEGIES}")
    rows = []
    for record in records:
        question, draws = record.question, record.completions
        counts = [c.count for c in draws]
        if not 1 <= min(ks) <= max(ks) <= sum(counts):
            raise ValueError(f"k must lie in 1..{sum(counts)}, the draws of {question.id!r}; got {list(ks)}")
        names = np.array(classes(question, draws, collapse))
        right = names == right_class(question, collapse, record.reference_ids)
        scores = {name: np.array([score(c) for c in draws]) for name, score in _SCORES.items() if name in strategies}
        if any(np.isnan(values).any() for values in scores.values()):
            raise ValueError(f"the record of {question.id!r} has no token confidences; draw it anew")
        rng = storage.generator(seed, of=question.id)
        every = np.repeat(np.arange(len(draws)), counts)
        orders = [rng.permutation(every) for _ in range(repeats)]
        for k in ks:
            for strategy in strategies:
                hits = [_hit(strategy, order[:k], names, right, scores) for order in orders]
                rows.append({"question_id": question.id, "strategy": strategy, "k": k, "correct": np.mean(hits)})
    return pd.DataFrame(rows)


def _hit(strategy: str, drawn: np.ndarray, names: np.ndarray, right: np.ndarray, scores: dict) -> bool:
    if strategy == "oracle":
        return bool(right[drawn].any())
    if strategy == "majority":
        answered = [i for i in drawn if names[i] != NO_ANSWER] or list(drawn)
        votes = {name: 0 for name in names[answered]}  # in the order of drawing
        for i in answered:
            votes[names[i]] += 1
        best = max(votes, key=votes.get)
        return bool(right[next(i for i in answered if names[i] == best)])
    return bool(right[drawn[np.argmax(scores[strategy][drawn])]])

"""Splits: which questions are for training, which for choosing, which for measuring; drawing some of them evenly."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from calib_utils.errors import DataError
from calib_utils.storage import text_digest
from calib_utils.types import Question

SHARES = {"train": 0.5, "dev": 0.2, "test": 0.3}  # where a hash decides the split


def sample_evenly(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """`n` questions without replacement, as evenly over the relations as their sizes allow.

    Raises DataError for no questions at all, or for an `n` outside of 1 and their number.
    """
    if not questions:
        raise DataError(
            f"{n} questions were asked for; none is left to draw from. The data set has none of this split, or a "
            "filter leaves none, such as held_out with every relation of the set: use another data set or split, or "
            "a shorter held_out"
        )
    if not 1 <= n <= len(questions):
        raise DataError(f"{n} questions were asked for; there are {len(questions)} (use 1 to {len(questions)})")
    return take_turns(shuffled_by_relation(questions, random.Random(seed)))[:n]


def shuffled_by_relation(questions: Sequence[Question], rng: random.Random) -> list[list[Question]]:
    """One shuffled list per relation, relations in alphabetical order."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.relation].append(question)
    return [rng.sample(group, len(group)) for _, group in sorted(groups.items())]


def take_turns(lists: Sequence[Sequence[Question]]) -> list[Question]:
    """The first of every list, then the second of every list, and so on until all are empty."""
    longest = max(map(len, lists), default=0)
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]


def split_of(text: str, shares: dict[str, float]) -> str:
    """The split that a hash of `text` falls into, where `shares` says how much each split gets."""
    edges = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(edges, int(text_digest(text, 8), 16) / 16**8 * edges[-1], side="right"))]

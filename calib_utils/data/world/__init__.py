"""Worlds: generated questions whose true distribution of answers is known.

`answers` has ambiguous names with an exact posterior, several surface forms of an answer, and multiple choice;
`lookups` has chains of table look-ups; `vocabulary` has their words and tokenizer. The data set ``"world"`` is the
world of answers of seed 0, for models that have read it.
"""

from functools import cache

from calib_utils.data.world.answers import AnswerWorld
from calib_utils.types import Question


@cache
def questions(split: str) -> tuple[Question, ...]:
    """All questions of a split, each with an answer drawn from the truth."""
    return tuple(AnswerWorld().questions(split))

"""Names: every name by which the answers of a data set are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from calib_utils.text import canonical_text
from calib_utils.types import Question


def names_of(questions: Iterable[Question]) -> dict[str, dict[str, str]]:
    """Per relation, every name of every reference answer -> its class; names of two answers are left out."""
    meanings: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for question in questions:
        target = canonical_text(question.answer)
        for name in (question.answer, *question.aliases):
            meanings[question.relation][canonical_text(name)].add(target)
    return {
        relation: {name: next(iter(targets)) for name, targets in names.items() if len(targets) == 1}
        for relation, names in meanings.items()
    }

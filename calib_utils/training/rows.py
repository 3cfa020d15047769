"""Rows: what a stage's trainer is fed, made from its questions and the parent's draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from calib_utils import storage
from calib_utils.errors import TrainingError
from calib_utils.models import LanguageModel
from calib_utils.semantics import class_distribution, classes, right_class, semantic_confidence
from calib_utils.text import NO_ANSWER
from calib_utils.training import pretraining
from calib_utils.training.run import Run
from calib_utils.types import Collapse, Completion, Question, Record, Response


def preference_pairs(records: Sequence[Record], collapse: Collapse, seed: int = 0) -> list[tuple[Question, str]]:
    """(question, rejected answer) per record: one wrong answer out of the model's own draws, in proportion to
    how often each was drawn. Questions that were never answered wrongly, and drafts that end without an answer,
    give no pair.

    Raises TrainingError when no record holds a wrong answer.
    """
    pairs = []
    for record in records:
        question = record.question
        right = right_class(question, collapse, record.reference_ids)
        wrong = [completion for name, completion in _answered(record, collapse) if name != right]
        if wrong:
            pairs.append((question, _drawn(wrong, storage.generator(seed, of=question.id))))
    if not pairs:
        raise TrainingError("no draw was wrong: there is nothing to reject; take harder or more questions")
    return pairs


def majority_pairs(records: Sequence[Record], collapse: Collapse, seed: int = 0) -> list[tuple[Question, str, str]]:
    """(question, chosen, rejected) per record: an answer of the most frequent class, right or wrong, over another.

    Both are out of the model's own draws, in proportion to how often each was drawn. No reference is looked at. Of
    classes that are equally frequent the first in the alphabet is chosen, as for the semantic prediction. Questions
    that were always answered alike, and drafts that end without an answer, give no pair.

    Raises TrainingError when every question was always answered alike.
    """
    pairs = []
    for record in records:
        answered, votes = _answered(record, collapse), Counter()
        for name, completion in answered:
            votes[name] += completion.count
        if len(votes) > 1:
            top, rng = semantic_confidence(votes)[0], storage.generator(seed, of=record.question.id)
            chosen, rejected = ([c for name, c in answered if (name == top) is wanted] for wanted in (True, False))
            pairs.append((record.question, _drawn(chosen, rng), _drawn(rejected, rng)))
    if not pairs:
        raise TrainingError("every question was always answered alike, so that no answer is in the minority")
    return pairs


def _answered(record: Record, collapse: Collapse) -> list[tuple[str, Completion]]:
    """(class, completion) of what a record's draws hold in whole answers."""
    named = zip(classes(record.question, record.completions, collapse), record.completions, strict=True)
    return [(name, c) for name, c in named if name != NO_ANSWER and c.finished and c.text.strip()]


def _drawn(completions: Sequence[Completion], rng: np.random.Generator) -> str:
    """One of the texts, in proportion to how often each was drawn."""
    counts = np.array([c.count for c in completions])
    return completions[rng.choice(len(completions), p=counts / counts.sum())].text.strip()


def undecided(records: Sequence[Record], collapse: Collapse) -> list[Question]:
    """The questions answered rightly in some draws and wrongly in others, the only ones with an advantage to learn
    from (the filter of dynamic sampling: Yu et al., 2025, DAPO). Raises TrainingError when there are none.
    """
    kept = []
    for record in records:
        right = right_class(record.question, collapse, record.reference_ids)
        share = class_distribution(record.question, record.completions, collapse).get(right, 0.0)
        if 0 < share < 1:
            kept.append(record.question)
    if not kept:
        raise TrainingError("every question was answered always rightly or always wrongly: no reward would vary")
    return kept


def distractor_pairs(questions: Sequence[Question], seed: int = 0) -> list[tuple[Question, str]]:
    """(question, rejected answer) per question: one of its wrong options; TrainingError if it has no options."""
    pairs = []
    for question in questions:
        wrong = [choice for choice in question.choices or () if choice != question.answer]
        if not wrong:
            raise TrainingError(f"question {question.id!r} has no wrong options; use rejected='samples'")
        rng = storage.generator(seed, of=question.id)
        pairs.append((question, wrong[rng.integers(len(wrong))]))
    return pairs


def check_pairs(pairs: Sequence[tuple[Question, str]], collapse: Collapse) -> None:
    """Raise TrainingError for an empty rejected answer or one that means the same as the reference."""
    for question, rejected in pairs:
        if not rejected.strip():
            raise TrainingError(f"question {question.id!r}: the rejected answer is empty; drop the pair")
        right = right_class(question, collapse)
        if collapse(Response(rejected), question) == right:
            raise TrainingError(
                f"question {question.id!r}: chosen {question.answer!r} and rejected {rejected!r} are the same "
                f"answer ({right!r}); drop the pair or change the collapse function"
            )


def _packed_rows(run: Run) -> list[dict]:
    stage = run.stage
    drawn = pretraining.rows(run.base.tokenizer, run.questions, stage.steps * stage.batch_size, stage.seed)
    return [{"input_ids": ids} for ids in drawn]


def _reference_rows(run: Run) -> list[dict]:
    rows = ({"prompt": run.texts[q.id], "completion": run.answer(q)} for q in run.questions)
    return [_filled(run.base, row) for row in rows]


def _option_rows(run: Run) -> list[dict]:
    return [_with_options(q, run.texts[q.id], run.blank) for q in run.questions]


def _pair_rows(run: Run) -> list[dict]:
    if run.stage.rejected == "minority":
        majority = majority_pairs(run.draws(), run.collapse, run.stage.seed)
        pairs = [(q, run.blank + chosen, rejected) for q, chosen, rejected in majority]
    else:
        if run.stage.draws:
            told = preference_pairs(run.draws(), run.collapse, run.stage.seed)
        else:
            told = distractor_pairs(run.questions, run.stage.seed)
        check_pairs(told, run.collapse)
        pairs = [(q, run.answer(q), rejected) for q, rejected in told]
    return [
        _filled(run.base, {"prompt": run.texts[q.id], "chosen": chosen, "rejected": run.blank + rejected})
        for q, chosen, rejected in pairs
    ]


def _question_rows(run: Run) -> list[dict]:
    stage = run.stage
    chosen = undecided(run.draws(), run.collapse) if stage.draws else run.questions
    # One long epoch: the order of trl's later epochs is not restored when a run is resumed.
    rng = np.random.default_rng(stage.seed)
    rounds = -(-stage.steps * stage.batch_size // len(chosen))
    order = [chosen[i] for _ in range(rounds) for i in rng.permutation(len(chosen))]
    return [{"prompt": run.texts[q.id], "id": q.id} for q in order]


# How the rows of each kind in `ROWS` are made, as trl wants them.
MAKE_ROWS: dict[str, Callable[[Run], list[dict]]] = {
    "packed": _packed_rows,
    "references": _reference_rows,
    "options": _option_rows,
    "pairs": _pair_rows,
    "questions": _question_rows,
}


def _with_options(question: Question, prompt: str, blank: str) -> dict:
    if not question.choices:
        raise TrainingError(f"question {question.id!r} has no options; CFT needs multiple choice")
    choices = [blank + choice for choice in question.choices]
    return {"id": question.id, "prompt": prompt, "choices": choices, "label": question.choices.index(question.answer)}


def _filled(base: LanguageModel, example: dict) -> dict:
    """The example itself; TrainingError when a completion has no tokens."""
    for name, text in example.items():
        if not base.tokenizer(text.strip(), add_special_tokens=False).input_ids:
            raise TrainingError(f"the {name} of {example['prompt']!r} has no tokens: {text!r}; drop the question")
    return example

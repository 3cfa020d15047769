"""Rows: what a stage's trainer is fed, made from its questions and the parent's draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from calib_utils import models, prompts, storage
from calib_utils.errors import TrainingError
from calib_utils.models import LanguageModel
from calib_utils.records import collect
from calib_utils.semantics import class_distribution, classes, right_class, semantic_confidence
from calib_utils.text import NO_ANSWER
from calib_utils.training import pretraining
from calib_utils.training.stage import Stage
from calib_utils.types import Collapse, Completion, Prompt, Question, Record, Response

_DRAWS = 8  # draws per question that tell which answers are wrong, and which questions are undecided
_VOTES = 16  # draws per question that tell which class is the most frequent


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


def _packed_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    drawn = pretraining.rows(base.tokenizer, own, stage.steps * stage.batch_size, stage.seed)
    return [{"input_ids": ids} for ids in drawn]


def _reference_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text, answer = _texts(base, own, asked), _answers(stage, own, asked)
    return [_filled(base, {"prompt": text[q.id], "completion": answer[q.id]}) for q in own]


def _option_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text = _texts(base, own, asked)
    return [_with_options(q, text[q.id], asked[0].blank) for q in own]


def _pair_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text, blank = _texts(base, own, asked), asked[0].blank
    if stage.rejected == "minority":
        pairs = majority_pairs(draw(), collapse, stage.seed)
    else:
        told = preference_pairs(draw(), collapse, stage.seed) if stage.draws else distractor_pairs(own, stage.seed)
        check_pairs(told, collapse)
        pairs = [(q, prompts.reference_completion(q, stage.style), rejected) for q, rejected in told]
    return [
        _filled(base, {"prompt": text[q.id], "chosen": blank + chosen, "rejected": blank + rejected})
        for q, chosen, rejected in pairs
    ]


def _question_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text = _texts(base, own, asked)
    chosen = undecided(draw(), collapse) if stage.draws else own
    # One long epoch: the order of trl's later epochs is not restored when a run is resumed.
    rng = np.random.default_rng(stage.seed)
    rounds = -(-stage.steps * stage.batch_size // len(chosen))
    order = [chosen[i] for _ in range(rounds) for i in rng.permutation(len(chosen))]
    return [{"prompt": text[q.id], "id": q.id} for q in order]


# How the rows of each kind in `stages.ROWS` are made, as trl wants them. `draw()` gives the parent's draws.
MAKE_ROWS: dict[str, Callable[..., list[dict]]] = {
    "packed": _packed_rows,
    "references": _reference_rows,
    "options": _option_rows,
    "pairs": _pair_rows,
    "questions": _question_rows,
}


def _texts(base: LanguageModel, own, asked) -> dict[str, str]:
    return {q.id: prompt_text(base.tokenizer, prompt) for q, prompt in zip(own, asked, strict=True)}


def _answers(stage: Stage, own, asked) -> dict[str, str]:
    return {q.id: asked[0].blank + prompts.reference_completion(q, stage.style) for q in own}


def _with_options(question: Question, prompt: str, blank: str) -> dict:
    if not question.choices:
        raise TrainingError(f"question {question.id!r} has no options; CFT needs multiple choice")
    choices = [blank + choice for choice in question.choices]
    return {"id": question.id, "prompt": prompt, "choices": choices, "label": question.choices.index(question.answer)}


def _draws(stage, base, parent, own, asked, folder, progress) -> list[Record]:
    n = _VOTES if stage.rejected == "minority" else _DRAWS
    config = prompts.sampling_config(stage.style, n, stage.seed)
    drawer = base if parent is None else parent.load(stage.parent_step)
    return collect(drawer, own, asked, config, folder / "draws", label=stage.style, progress=progress)


def _filled(base: LanguageModel, example: dict) -> dict:
    """The example itself; TrainingError when a completion has no tokens."""
    for name, text in example.items():
        if not base.tokenizer(text.strip(), add_special_tokens=False).input_ids:
            raise TrainingError(f"the {name} of {example['prompt']!r} has no tokens: {text!r}; drop the question")
    return example


def prompt_text(tokenizer, prompt: Prompt) -> str:
    """The prompt as text that `tokenizer(text)` turns into what the sampler uses: BOS once or not at all."""
    text, bos = prompt.shared + prompt.own, tokenizer.bos_token or ""
    wanted = models.encode(tokenizer, text, prompt.chat)
    for candidate in (text, bos + text, text.removeprefix(bos)):
        if tokenizer(candidate).input_ids == wanted:
            return candidate
    raise TrainingError(f"the tokenizer adds special tokens to {text!r} that the sampler does not; use another one")

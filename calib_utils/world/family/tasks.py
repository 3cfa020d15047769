"""Tasks: the three tasks of the lifecycle study, its extensions, and their scores, for all training seeds at once.

As in *On the Calibration of Large Language Models and Alignment* (arXiv 2311.13240): next tokens of held-out text,
facts by the first token of the entity, and multiple choice. Extensions: the whole answer of a fact, and the first
token for people of whom nothing was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from calib_utils.claims import TASKS
from calib_utils.studies.lifecycle import EXTENSIONS
from calib_utils.world.family.text import RELATIONS, ROW, FactWorld
from calib_utils.world.stack import Stack

_OPTIONS = 4
_ROWS = 250  # rows of text forwarded together: bounds the memory


@dataclass(frozen=True)
class Exam:
    """What the models of all seeds are asked, the same at every step and after every tuning.

    Attributes
    ----------
    rows, at : (S, n, 32) held-out text and (S, n) the position in each row that is predicted.
    asked, answers : (S, n, T) beginnings of facts and (S, n, 2) how they go on.
    chosen, options : (S, n, T) beginnings of other facts, and (S, n, 4, 2) options, the right one first.
    new, right : (S, m, T) and (S, m, 2) beginnings and ends of facts about people who were never mentioned.
    people : by task, (S, n) whom a question is about.
    """

    rows: torch.Tensor
    at: torch.Tensor
    asked: torch.Tensor
    answers: torch.Tensor
    chosen: torch.Tensor
    options: torch.Tensor
    new: torch.Tensor
    right: torch.Tensor
    people: dict[str, np.ndarray]

    @classmethod
    def of(cls, worlds: Sequence[FactWorld], n_texts: int, n_questions: int, seed: int = 0) -> Exam:
        """Texts and questions of every world.

        Raises ValueError if a world has fewer facts than `n_questions`.
        """
        found = [_asked(world, n_texts, n_questions, seed) for world in worlds]
        fields = {name: torch.from_numpy(np.stack([one[name] for one in found])) for name in found[0]}
        people = {task: fields.pop(task).numpy() for task in (*TASKS[1:], "new people")}
        return cls(**fields, people=people | {"whole answers": people[TASKS[1]]})


def _asked(world: FactWorld, n_texts: int, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([world.seed, seed, 44])
    rows = world.text(n_texts, rng)
    every = len(world.group("asked")) * len(RELATIONS)
    if n > every:
        raise ValueError(f"n_questions is {n}; the people who are asked about have {every} facts")
    first, second = rng.permutation(every)[:n], rng.permutation(every)[:n]
    people, relation = world.group("asked")[second // len(RELATIONS)], second % len(RELATIONS)
    right = world.values[people, relation]
    order = rng.random((n, world.n_values))
    order[np.arange(n), right] = -1.0
    options = order.argsort(axis=1)[:, :_OPTIONS]
    fresh = world.group("new").repeat(len(RELATIONS)), np.tile(np.arange(len(RELATIONS)), len(world.group("new")))
    about = world.group("asked")[first // len(RELATIONS)], first % len(RELATIONS)
    return {
        "rows": rows,
        "at": rng.integers(1, ROW, size=n_texts),
        "asked": world.prompts(*about),
        "answers": world.value_ids(about[1], world.values[about]),
        "chosen": world.prompts(people, relation),
        "options": world.value_ids(relation[:, None], options),
        "new": world.prompts(*fresh),
        "right": world.value_ids(fresh[1], world.values[fresh]),
        TASKS[1]: about[0],
        TASKS[2]: people,
        "new people": fresh[0],
    }


@torch.no_grad()
def measure(stack: Stack, exam: Exam) -> dict[str, list[pd.DataFrame]]:
    """Scores of every task, one table per seed: question_id, entity, confidence, correct.

    *next token*, *facts generation*, *new people*: confidence = max_v p(v | text before), correct if it stands there.
    *multiple choice*: p(option) renormalised over four options. *whole answers*: the probability of the greedy
    answer of two tokens.
    """
    said = [_at(stack, *part) for part in zip(exam.rows.split(_ROWS, 1), exam.at.split(_ROWS, 1), strict=True)]
    found = {TASKS[0]: _top(torch.cat(said, dim=1), exam.rows.gather(2, exam.at[..., None])[..., 0])}
    first, cache = stack.extend(exam.asked, None, last=1)
    found[TASKS[1]] = _top(first[:, :, 0], exam.answers[..., 0])
    found[TASKS[2]] = _choice(stack, exam)
    said = first[:, :, 0].argmax(dim=-1)
    second, _ = stack.extend(said[..., None], cache, last=1)
    one, two = found[TASKS[1]], _top(second[:, :, 0], exam.answers[..., 1])
    found[EXTENSIONS[0]] = one[0] * two[0], one[1] * two[1]
    found[EXTENSIONS[1]] = _top(stack.logits(exam.new, last=1)[:, :, 0], exam.right[..., 0])
    return {task: _tables(*pair, exam.people.get(task)) for task, pair in found.items()}


def _at(stack: Stack, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """(S, n, V) logits for the position `at` of every row."""
    logits = stack.logits(rows[..., :-1])
    return logits.gather(2, (at - 1)[..., None, None].expand(*at.shape, 1, logits.shape[-1]))[:, :, 0]


def _top(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    top = logits.softmax(dim=-1).max(dim=-1)
    return top.values, top.indices.eq(right).float()


def _choice(stack: Stack, exam: Exam) -> tuple[torch.Tensor, torch.Tensor]:
    s, n, k, _ = exam.options.shape
    ids = torch.cat([exam.chosen.repeat_interleave(k, dim=1), exam.options.reshape(s, n * k, 2)[..., :1]], dim=2)
    logprobs = stack.logits(ids, last=2).log_softmax(dim=-1)
    of_options = logprobs.gather(-1, exam.options.reshape(s, n * k, 2, 1))[..., 0].sum(dim=-1)
    top = of_options.view(s, n, k).softmax(dim=-1).max(dim=-1)
    return top.values, top.indices.eq(0).float()


def _tables(confidence: torch.Tensor, correct: torch.Tensor, people: np.ndarray | None) -> list[pd.DataFrame]:
    tables = []
    for i, (p, y) in enumerate(zip(confidence.double().clamp(max=1).numpy(), correct.int().numpy(), strict=True)):
        table = pd.DataFrame({"question_id": np.arange(len(p)), "confidence": p, "correct": y})
        tables.append(table if people is None else table.assign(entity=[f"person {n}" for n in people[i]]))
    return tables

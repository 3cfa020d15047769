"""The three tasks of the lifecycle study, each as a table of confidence and correctness.

Next tokens, facts generation and multiple choice as in *On the Calibration of Large Language Models and Alignment*
(arXiv 2311.13240); the third is `semantics.score_options`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils import prompts, records, semantics
from calib_utils.data import entity
from calib_utils.models import LanguageModel, encode, needs_weights
from calib_utils.semantics import classes, right_class
from calib_utils.types import Collapse, Question, Record

TASKS = ("next token", "facts generation", "multiple choice", "new entities")


def log_steps(last: int, per_decade: int = 3, first: int = 10) -> tuple[int, ...]:
    """Steps evenly spaced on a logarithmic axis from about `first` to `last`, which is one of them."""
    if not 1 <= first <= last or per_decade < 1:
        raise ValueError(f"no schedule from {first} to {last} with {per_decade} steps a decade")
    n = int(np.log10(last / first) * per_decade + 1e-9)
    return tuple(sorted({round(last / 10 ** (i / per_decade)) for i in range(n + 1)}))


def measure(
    lm: LanguageModel,
    questions: Sequence[Question],
    texts: Sequence[str],
    collapse: Collapse,
    folder: str | Path,
    new: Sequence[Question] = (),
    shots: Sequence[Question] = (),
    chat: bool = False,
    seed: int = 0,
    max_rows: int = 128,
) -> dict[str, pd.DataFrame]:
    """A table of question_id, confidence and correct for each of `TASKS` that can be measured, kept in `folder`.

    Parameters
    ----------
    questions : what is asked in facts generation, and those with options in multiple choice.
    texts : held-out texts of next-token prediction, one position of each (`next_tokens`).
    collapse : B, which decides whether a generated answer is right.
    new : questions about entities that the model has never read of, for facts generation on its own.
    shots, chat : worked examples, and whether the tokenizer's chat template is used.
    seed : of the positions.
    """
    template = lm.tokenizer if chat else None
    every = [*questions, *new]
    asked = prompts.build_prompts(every, shots, "concise", template)
    greedy = prompts.sampling_config("concise", 1, temperature=0.0)
    answers = records.collect(lm, every, asked, greedy, folder, "greedy", max_rows=max_rows, progress=False)
    posed = [(question, prompt) for question, prompt in zip(questions, asked, strict=False) if question.choices]
    options = [[f"{prompt.blank}{choice}" for choice in question.choices] for question, prompt in posed]
    tables = {
        TASKS[0]: records.cached_table(
            folder, "next-token", lm, [list(texts), seed], lambda: next_tokens(lm, texts, seed)
        ),
        TASKS[1]: generated(answers[: len(questions)], collapse),
    }
    if posed:
        after_examples = bool(shots) and not chat  # then an answer ends as the examples' do
        ending = prompts.ENDING if after_examples else lm.tokenizer.eos_token or prompts.ENDING
        rated = records.collect_option_logprobs(
            lm, [prompt for _, prompt in posed], options, folder, ending, max_rows
        )
        tables[TASKS[2]] = semantics.score_options([question for question, _ in posed], rated)
    if new:
        tables[TASKS[3]] = generated(answers[len(questions) :], collapse)
    return tables


def step_of(revision: str, otherwise: int) -> int:
    """The training step in a revision's name (`"step1000"` is 1000), else `otherwise`."""
    digits = re.findall(r"\d+", revision)
    return int(digits[-1]) if digits else otherwise


def next_tokens(lm: LanguageModel, texts: Sequence[str], seed: int = 0, batch_size: int = 16) -> pd.DataFrame:
    """Next-token prediction on held-out text, one position of every text, so that rows are independent.

    confidence = max_v p(v | tokens before), correct = [argmax_v p is the token that stands there]. The position is
    drawn evenly from those with a token before them, the beginning-of-sequence token included.

    Returns one row per text: question_id (its number), position, confidence in (0, 1], correct (0 or 1).

    Raises ValueError for a text of which no token can be predicted.
    """
    import torch

    needs_weights(lm, "the most probable next token")
    ids = [encode(lm.tokenizer, text) for text in texts]
    short = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) < 2]
    if short:
        raise ValueError(f"text {short[0]!r} is a single token: nothing comes before it; leave it out")
    rng, rows = np.random.default_rng(seed), []
    at = [int(rng.integers(1, len(tokens))) for tokens in ids]
    for start in range(0, len(ids), batch_size):
        # What comes after the position cannot matter to it: the prefix is all that is forwarded.
        prefixes = [tokens[:end] for tokens, end in zip(ids[start:][:batch_size], at[start:], strict=False)]
        longest = max(map(len, prefixes))
        mask = torch.tensor([[1] * len(p) + [0] * (longest - len(p)) for p in prefixes], device=lm.device)
        padded = torch.tensor([p + [0] * (longest - len(p)) for p in prefixes], device=lm.device)
        with torch.inference_mode():
            logits = lm.model(input_ids=padded, attention_mask=mask).logits
        last = logits[torch.arange(len(prefixes)), mask.sum(dim=1) - 1].float()
        top = last.softmax(dim=-1).max(dim=-1)
        for i, (confidence, guess) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True), start):
            rows.append((i, at[i], min(confidence, 1.0), int(guess == ids[i][at[i]])))
    return pd.DataFrame(rows, columns=["question_id", "position", "confidence", "correct"])


def generated(answers: Sequence[Record], collapse: Collapse) -> pd.DataFrame:
    """Facts generation: the greedy answer, its exact probability, and whether it means the reference.

    confidence = product over the answer's tokens of p(token | before), the token that ends it included; `answers`
    hold one greedy completion each (temperature 0). One row per record: question_id, entity, relation, answer,
    confidence in [0, 1], correct.

    Raises ValueError for records with several completions.
    """
    rows = []
    for record in answers:
        if len(record.completions) != 1:
            raise ValueError(f"question {record.question.id!r} has several completions; draw with temperature 0")
        (answer,) = record.completions
        (found,) = classes(record.question, record.completions, collapse)
        right = right_class(record.question, collapse, record.reference_ids)
        rows.append(
            {
                "question_id": record.question.id,
                "entity": entity(record.question),
                "relation": record.question.relation,
                "answer": answer.text.strip(),
                "confidence": min(float(np.exp(answer.logprob)), 1.0),
                "correct": int(found == right),
            }
        )
    return pd.DataFrame(rows)

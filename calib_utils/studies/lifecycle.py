"""The tasks of the lifecycle study on a published model, and differences of conditions in its table of scores.

Next tokens, facts by the first token of the entity, and multiple choice as in *On the Calibration of Large Language
Models and Alignment* (arXiv 2311.13240); the third is `semantics.score_options`. Whole answers are an extension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils import metrics, prompts, records, semantics
from calib_utils.claims import TASKS
from calib_utils.data import entity
from calib_utils.models import LanguageModel, encode, needs_weights
from calib_utils.semantics import classes, right_class
from calib_utils.types import Collapse, Estimate, Prompt, Question, Record

WHOLE = "whole answers"
EXTENSIONS = (WHOLE, "new people")
PANELS = ("series", "memorising", "tuning", "diversity", "preference")
LABELS = {"ece_equal_width_10": "ECE", "accuracy": "accuracy", "overconfidence": "confidence - accuracy"}
Condition = tuple[str, str, int]  # panel, condition, strength


def per_seed(scores: pd.DataFrame, by: Sequence[str]) -> dict[tuple, list[pd.DataFrame]]:
    """Tables of scores, one per training seed, for every combination of the columns `by`."""
    found: dict[tuple, list[pd.DataFrame]] = {}
    for key, table in scores.groupby([*by, "seed"], sort=False):
        found.setdefault(key[:-1], []).append(table.dropna(axis=1, how="all"))
    return found


def estimates(scores: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`LABELS` of every condition, strength and task of a panel, means over training seeds (`metrics.compare`)."""
    by = ["condition", "strength", "task"]
    return metrics.compare(per_seed(scores, by), by, list(LABELS), n_boot, seed)


def differences(
    scores: pd.DataFrame,
    more: Condition,
    less: Condition,
    metric: str = "ece_equal_width_10",
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[Estimate, dict[str, Estimate | None]]:
    """A metric of one condition minus that of another: its mean over the paper's tasks, and that of every task.

    Paired by training seed and question. A task that was not measured is None. Raises ValueError if none was.
    """
    tables = per_seed(scores, ["panel", "condition", "strength", "task"])
    found: dict[str, Estimate | None] = {}
    for task in TASKS:
        pair = [tables.get((*side, task)) for side in (more, less)]
        found[task] = metrics.evaluate_seeds(pair[0], metric, pair[1], n_boot, seed) if all(pair) else None
    return metrics.average([one for one in found.values() if one]), found


def conditions(
    run, models: Sequence[str], steps: Sequence[int], tuned: str, lessons: Sequence[str]
) -> dict[str, tuple[Condition, Condition]]:
    """Per claim of the study the two conditions whose errors are compared, that which it says is worse first.

    `run` is a `LifecycleStudy`; `models` go from the smallest to the largest, `steps` from the first checkpoint to
    the last, `lessons` from narrow to broad, and `tuned` is the model that is tuned. Preferences: `preferences`.
    """
    last, largest, epochs = steps[-1], models[-1], run.reported_epochs
    return {
        "scale": (("series", models[0], last), ("series", largest, last)),
        "time": (("series", largest, steps[0]), ("series", largest, last)),
        "instruction": (("tuning", "full", epochs), ("series", tuned, last)),
        "epochs": (("tuning", "full", max(run.epochs)), ("tuning", "full", min(run.epochs))),
        "lora": (("tuning", "full", epochs), ("tuning", "LoRA", epochs)),
        "diversity": (("diversity", lessons[0], epochs), ("diversity", lessons[-1], epochs)),
    }


def preferences(run) -> dict[str, tuple[Condition, Condition]]:
    """The same of the claims about preference tuning; GRPO without a KL term has a claim of its own."""
    named = {"dpo": "DPO"} | {"rlhf" if weight else "grpo": f"GRPO, KL {weight:g}" for weight in run.kl_weights}
    full = ("tuning", "full", run.reported_epochs)
    return {claim: (("preference", name, run.rl_epochs), full) for claim, name in named.items()}


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
    shots: Sequence[Question] = (),
    chat: bool = False,
    seed: int = 0,
    max_rows: int = 128,
) -> dict[str, pd.DataFrame]:
    """A table of question_id, confidence and correct for each task that can be measured, kept in `folder`.

    Parameters
    ----------
    questions : what is asked, and those with options in multiple choice.
    texts : held-out texts of next-token prediction, one position of each (`next_tokens`).
    collapse : B, which decides whether a whole answer is right.
    shots, chat : worked examples, and whether the tokenizer's chat template is used.
    seed : of the positions.
    """
    asked = prompts.build_prompts(questions, shots, "concise", lm.chat_tokenizer if chat else None)
    greedy = prompts.sampling_config("concise", 1, temperature=0.0)
    answers = records.collect(lm, questions, asked, greedy, folder, "greedy", max_rows=max_rows, progress=False)
    told = [prompt.shared + prompt.own for prompt in asked]
    tables = {
        TASKS[0]: records.cached_table(
            folder, "next-token", lm, [list(texts), seed], lambda: next_tokens(lm, texts, seed)
        ),
        TASKS[1]: records.cached_table(
            folder, "first-token", lm, [told, chat], lambda: first_tokens(lm, asked, answers)
        ),
        WHOLE: generated(answers, collapse),
    }
    pairs = [pair for pair in zip(questions, asked, strict=True) if pair[0].choices]
    if pairs:
        posed, shown = zip(*pairs, strict=True)
        ending = prompts.ending(lm, bool(shots) and not chat)
        options = prompts.option_texts(posed, shown)
        rated = records.collect_option_logprobs(lm, shown, options, folder, ending, max_rows)
        tables[TASKS[2]] = semantics.score_options(posed, rated)
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
    needs_weights(lm, "the most probable next token")
    ids = [encode(lm.tokenizer, text) for text in texts]
    short = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) < 2]
    if short:
        raise ValueError(f"text {short[0]!r} is a single token: nothing comes before it; leave it out")
    rng = np.random.default_rng(seed)
    at = [int(rng.integers(1, len(tokens))) for tokens in ids]
    # What comes after the position cannot matter to it: the prefix is all that is forwarded.
    found = _foreseen(lm, [tokens[:end] for tokens, end in zip(ids, at, strict=True)], batch_size)
    rows = [
        (i, end, confidence, int(guess == tokens[end]))
        for i, (tokens, end, (confidence, guess)) in enumerate(zip(ids, at, found, strict=True))
    ]
    return pd.DataFrame(rows, columns=["question_id", "position", "confidence", "correct"])


def first_tokens(
    lm: LanguageModel, asked: Sequence[Prompt], answers: Sequence[Record], batch_size: int = 16
) -> pd.DataFrame:
    """Facts by the first token of the entity: confidence = max_v p(v | prompt), correct if the reference begins so.

    `answers` are the records of the same prompts. One row per question: question_id, entity, relation, confidence in
    (0, 1], correct. A question of which the reference has no token in the records raises ValueError.
    """
    needs_weights(lm, "the most probable first token")
    ids = [encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat) for prompt in asked]
    rows = []
    for record, (confidence, guess) in zip(answers, _foreseen(lm, ids, batch_size), strict=True):
        question = record.question
        if not record.reference_ids:
            raise ValueError(f"question {question.id!r}: the record has no tokens of the reference; collect it anew")
        about = {"question_id": question.id, "entity": entity(question), "relation": question.relation}
        rows.append({**about, "confidence": confidence, "correct": int(guess == record.reference_ids[0])})
    return pd.DataFrame(rows)


def _foreseen(lm: LanguageModel, prefixes: Sequence[list[int]], batch_size: int) -> list[tuple[float, int]]:
    """Probability and id of the most probable token after every prefix."""
    import torch

    found = []
    for start in range(0, len(prefixes), batch_size):
        part = prefixes[start : start + batch_size]
        longest = max(map(len, part))
        mask = torch.tensor([[1] * len(p) + [0] * (longest - len(p)) for p in part], device=lm.device)
        padded = torch.tensor([p + [0] * (longest - len(p)) for p in part], device=lm.device)
        with torch.inference_mode():
            logits = lm.model(input_ids=padded, attention_mask=mask).logits
        last = logits[torch.arange(len(part)), mask.sum(dim=1) - 1].float()
        top = last.softmax(dim=-1).max(dim=-1)
        found += [(min(p, 1.0), at) for p, at in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
    return found


def generated(answers: Sequence[Record], collapse: Collapse) -> pd.DataFrame:
    """Whole answers: the greedy answer, its exact probability, and whether it means the reference.

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

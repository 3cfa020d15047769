"""Chains: intermediate confidence, how sure a model is of its final answer while it still reasons.

g_i(z_<=i; x) = Pr[B(z) = k | x, z_<=i], the probability of class k given the question and the chain so far (Theorem 9
of arXiv 2511.04869), measured by cutting stored chains and drawing the rest anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from calib_utils import storage
from calib_utils.semantics import class_distribution, classes, final_answer, right_class
from calib_utils.text import NO_ANSWER
from calib_utils.types import Collapse, Prompt, Question, Record

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Cut:
    """A stored chain, cut.

    Attributes
    ----------
    question : the question, under an id of its own for this cut.
    prompt : the question's prompt and the steps that are kept.
    source : id of the question.
    chain : number of the chain among those taken from the question.
    fraction : share of its steps that are kept, as asked for.
    final : class of the answer that the whole chain ends with.
    right : whether that is the reference's class.
    """

    question: Question
    prompt: Prompt
    source: str
    chain: int
    fraction: float
    final: str
    right: bool


def reachable(questions: Sequence[Question], max_steps: int, known: Sequence[str] = ()) -> list[Question]:
    """Questions of at most `max_steps` steps; those composed from two facts only if both relations are in `known`.

    `known` are relations of the embedded facts, all if there are none: a chain can be right only where the model
    knows the facts.
    """
    composed = "multihop/"
    return [
        question
        for question in questions
        if len(question.chain) <= max_steps
        and (not known or not question.id.startswith(composed) or {*question.id.split("/")[1:3]} <= {*known})
    ]


def steps(text: str) -> list[str]:
    """The sentences of a chain before the one that gives the final answer."""
    found = [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
    return [sentence for sentence in found if final_answer(sentence) is None]


def cut(
    records: Sequence[Record],
    prompts: Sequence[Prompt],
    collapse: Collapse,
    fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    per_question: int = 2,
    seed: int = 0,
) -> list[Cut]:
    """Cuts of up to `per_question` different chains per record, drawn as often as the model drew them.

    Chains that never reach an answer have no final class and are left out; so are those without a step. A fraction
    f of n steps keeps the first round(f n) of them (half up); 1 keeps all, and only the answer is left to say.

    Raises ValueError for fractions outside [0, 1] and when no chain is left.
    """
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions are {tuple(fractions)}; they must lie between 0 and 1")
    cuts = []
    for record, prompt in zip(records, prompts, strict=True):
        question, right = record.question, right_class(record.question, collapse, record.reference_ids)
        pairs = zip(record.completions, classes(question, record.completions, collapse), strict=True)
        usable = [(c, name) for c, name in pairs if name != NO_ANSWER and steps(c.text)]
        if not usable:
            continue
        counts = np.array([c.count for c, _ in usable])
        rng = storage.generator(seed, of=question.id)
        taken = rng.choice(len(usable), min(per_question, len(usable)), replace=False, p=counts / counts.sum())
        for number, (completion, name) in enumerate(usable[i] for i in taken):
            sentences = steps(completion.text)
            for fraction in fractions:
                kept = sentences[: int(fraction * len(sentences) + 0.5)]
                begun = prompt.own + (prompt.blank + " ".join(kept) if kept else "")
                asked = replace(question, id=f"{question.id}/chain-{number}/{fraction:g}")
                part = replace(prompt, own=begun)
                cuts.append(Cut(asked, part, question.id, number, fraction, name, name == right))
    if not cuts:
        raise ValueError(f"none of {len(records)} questions has a chain that reaches an answer: nothing to cut")
    return cuts


def intermediate_confidence(cuts: Sequence[Cut], records: Sequence[Record], collapse: Collapse) -> pd.DataFrame:
    """One row per cut: how often the continuations in `records` end with the answer of the whole chain.

    Columns: question_id, chain, fraction, right, confidence in [0, 1].
    """
    rows = []
    for one, record in zip(cuts, records, strict=True):
        shares = class_distribution(record.question, record.completions, collapse)
        rows.append(
            {
                "question_id": one.source,
                "chain": one.chain,
                "fraction": one.fraction,
                "right": one.right,
                "confidence": shares.get(one.final, 0.0),
            }
        )
    return pd.DataFrame(rows)

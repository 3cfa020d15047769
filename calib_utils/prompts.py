"""Prompts: answer styles, few-shot examples, chat templates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calib_utils.data import shuffled_by_relation, take_turns
from calib_utils.storage import digest
from calib_utils.types import Prompt, Question, SamplingConfig

STOP = ("\n",)
ENDING = "\n\n"  # what follows an answer in the plain-text examples


@dataclass(frozen=True)
class Style:
    """How a question is to be answered.

    Attributes
    ----------
    instruction : what a chat model is told.
    max_new_tokens : how long an answer may get.
    completion : the reference answer in this style, as examples and training show it; ValueError for a question
        that has none.
    """

    instruction: str
    max_new_tokens: int
    completion: Callable[[Question], str]


def _worked_chain(question: Question) -> str:
    if not question.chain:
        raise ValueError(f"question {question.id!r} has no worked chain, which style 'cot' shows; use another style")
    return " ".join((*question.chain, f"The answer is {question.answer}."))


# The one list of answer styles.
STYLES = {
    "concise": Style("Answer with a word or a short phrase.", 16, lambda question: question.answer),
    "sentence": Style("Answer in one short sentence.", 40, lambda question: question.statement),
    "cot": Style(
        "Reason step by step in short sentences, on one line. End with 'The answer is' and the answer.",
        128,
        _worked_chain,
    ),
}


def find(style: str) -> Style:
    """The row of `STYLES`; ValueError for an unknown style."""
    if style not in STYLES:
        raise ValueError(f"style is {style!r}; use one of {sorted(STYLES)}")
    return STYLES[style]


def reference_completion(question: Question, style: str) -> str:
    """The reference answer as `style` gives it: the answer, the statement, or the chain and then the answer.

    Raises ValueError for an unknown style, and for style `cot` with a question that has no chain.
    """
    return find(style).completion(question)


def sampling_config(
    style: str, n_samples: int, seed: int = 0, temperature: float = 1.0, max_new_tokens: int | None = None
) -> SamplingConfig:
    """How to draw answers in a style: one line each, at most `max_new_tokens` long, by default as the style says."""
    longest = find(style).max_new_tokens if max_new_tokens is None else max_new_tokens
    return SamplingConfig(n_samples, temperature, longest, STOP, seed)


def option_texts(questions: Sequence[Question], asked: Sequence[Prompt]) -> list[list[str]]:
    """The options of every question as continuations of its prompt, as `sampling.option_logprobs` takes them."""
    return [
        [f"{prompt.blank}{choice}" for choice in question.choices or ()]
        for question, prompt in zip(questions, asked, strict=True)
    ]


def ending(lm, after_examples: bool) -> str:
    """What ends an answer: as the worked examples do, or where there are none the token that ends a trained one.

    `lm`, or a tokenizer, has an `eos_token`, which is read only where it is needed.
    """
    return ENDING if after_examples else lm.eos_token or ENDING


def pick_shots(train: Sequence[Question], n: int, seed: int) -> list[Question]:
    """`n` worked examples from the train split, as many different relations as possible, in random order.

    Raises ValueError when a question is not from train or there are fewer than `n`.
    """
    strangers = [question.id for question in train if question.split != "train"]
    if strangers:
        raise ValueError(f"few-shot examples must come from the train split; {strangers[0]!r} does not")
    if not 0 <= n <= len(train):
        raise ValueError(f"{n} few-shot examples were asked for; there are {len(train)} training questions")
    rng = random.Random(seed)
    relations = shuffled_by_relation(train, rng)
    rng.shuffle(relations)
    shots = take_turns(relations)[:n]
    rng.shuffle(shots)
    return shots


def build_prompts(
    questions: Sequence[Question],
    shots: Sequence[Question],
    style: str = "concise",
    tokenizer=None,
) -> list[Prompt]:
    """One prompt per question: examples first, then the question.

    Parameters
    ----------
    questions, shots : what to ask and the worked examples.
    style : a key of `STYLES`.
    tokenizer : give it to use its chat template if it has one: examples become earlier turns. Without it, or
        without a template, the prompt is plain text.

    Raises
    ------
    ValueError : an unknown style, or an example without the chain that style `cot` shows.
    """
    row = find(style)
    examples = [(shot.text, row.completion(shot)) for shot in shots]
    if tokenizer is not None and getattr(tokenizer, "chat_template", None):
        return [_chat(tokenizer, row.instruction, examples, question) for question in questions]
    shared = "".join(f"Question: {text}\nAnswer: {answer}{ENDING}" for text, answer in examples)
    return [Prompt(shared, f"Question: {question.text}\nAnswer:") for question in questions]


def _chat(tokenizer, instruction, examples, question) -> Prompt:
    turns = []
    for text, answer in examples:
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    turns.append({"role": "user", "content": question.text})
    turns[0] = {"role": "user", "content": f"{instruction}\n\n{turns[0]['content']}"}
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    at = text.rfind(question.text)
    return Prompt(text[:at], text[at:], chat=True, turns=digest(turns))

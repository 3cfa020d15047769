"""Semantics: collapse functions B from responses to classes, class distributions, semantic confidence.

A collapse function is called as `collapse(response, question)` and returns the class as text. It sees the
question, because what counts as the same answer depends on it; it never sees how often a response was drawn.

======================  =========================================================================================
collapse function       what it merges
======================  =========================================================================================
`first_token`           responses with the same first token (next-token calibration)
`exact`                 the same string, blanks at the ends aside
`canonical`             case, accents, articles, punctuation, remarks in brackets, ways to write a number, units
`Semantic`              all of these, the question's own aliases ("Japanese yen" = "yen"), other names of known
                        answers of the relation ("U.S." = "United States"), a known answer followed by a comma
                        ("Oklahoma, USA"), and for whole sentences the answer named in them
`number`                responses that give the same number, whatever stands around it
`Chain`                 chains of thought with the same final answer, compared by one of the functions above
======================  =========================================================================================

A response without an answer (empty, or going on with a new question) is the class `NO_ANSWER` and stays counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from calib_utils.data import Question, entity, fold

NO_ANSWER = "<no answer>"
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_SCALE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_UNITS = {
    unit: names.split()[0]
    for names in (
        "km kilometer kilometers kilometre kilometres",
        "m meter meters metre metres",
        "cm centimeter centimeters centimetre centimetres",
        "mile miles",
        "foot feet ft",
        "kg kilogram kilograms",
        "gram grams",
        "second seconds",
        "minute minutes",
        "hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "% percent",
        "dollar dollars $",
        "euro euros €",
        "pound pounds £",
        "proton protons",
        "people persons",
    )
    for unit in names.split()
}
_NUMBER = re.compile(r"^([$€£])?\s*([+-]?\d+(?:\.\d+)?)\s*(hundred|thousand|million|billion)?\s*(%|[^\W\d]+)?$")
_EMPTY_WORDS = frozenset(
    "a an the of in on at is are was be it its this that and or to for by with from as which who what called "
    "named known located found used stands answer s has also country code city state capital symbol element "
    "number language currency continent domain official chemical international".split()
)

# Symbols, state and domain codes that are also English words: in a sentence they count in capitals only.
_LOOKS_LIKE_A_WORD = frozenset(
    "al am an as at be by co de do go he hi id if in is it la ma me my no of ok on or pa so to us".split()
)


class Response(NamedTuple):
    """What a collapse function looks at: the text of a completion and its token ids."""

    text: str
    token_ids: tuple[int, ...] = ()


Collapse = Callable[[Response, Question], str]


def first_token(response: Response, question: Question) -> str:
    """B(z) = the first token: calibration of the next token, not of the meaning.

    Raises ValueError when the response has no tokens.
    """
    if not response.token_ids:
        raise ValueError(f"question {question.id!r}: a response without token ids has no first token")
    return str(response.token_ids[0])


def exact(response: Response, question: Question) -> str:
    """B(z) = the text without blanks at its ends."""
    return response.text.strip() or NO_ANSWER


def canonical(response: Response, question: Question) -> str:
    """B(z) = `canonical_text` of the text."""
    return canonical_text(response.text)


@lru_cache(maxsize=2**16)
def canonical_text(text: str) -> str:
    """The form in which two spellings of one answer agree.

    Lower case, no accents, articles, punctuation or bracketed remarks; "1,000" and "one thousand" are "1000",
    "1000 kilometres" is "1000 km". Nothing left, or the start of a new question, is `NO_ANSWER`.
    """
    text = fold(text)
    if text.startswith(("question:", "q:")):
        return NO_ANSWER
    text = re.sub(r"\([^)]*\)?", " ", text).strip() or text.strip("() ")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text).replace("&", " and ")
    number = _number(text.strip().rstrip(".!;,"))
    if number is not None:
        return number
    text = re.sub(r"['’ʻ`´]", "", text)
    text = re.sub(r"\b(\w)\.(?=\w\b)", r"\1", text)  # d.c. -> dc., u.s.a. -> usa.
    text = re.sub(r"[\W_]+", " ", text)
    text = re.sub(r"^(?:(?:a|an|the)\s+)+(?=\S)", "", text.strip())
    return text.strip() or NO_ANSWER


def _number(text: str) -> str | None:
    """A number in digits, with its unit if it has one that is known; None for anything else."""
    words = text.split()
    if words and words[0] in _NUMBER_WORDS:
        text = " ".join([_NUMBER_WORDS[words[0]], *words[1:]])
    match = _NUMBER.match(text)
    if match is None:
        return None
    unit = match[1] or match[4]
    if unit is not None and unit not in _UNITS:
        return None
    number = f"{float(match[2]) * _SCALE.get(match[3], 1):.12g}"
    return number if unit is None else f"{number} {_UNITS[unit]}"


@dataclass(frozen=True)
class Semantic:
    """B(z) = the answer that a response gives, by any of its names.

    Attributes
    ----------
    names : per relation, canonical name -> class, for answers known to the relation (`known_names`).
    sentences : also look for the answer inside a full sentence.
    """

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    sentences: bool = False

    def __call__(self, response: Response, question: Question) -> str:
        """The class of `response`."""
        text = response.text
        whole = canonical_text(text)
        own = self._own(question)
        if _is_number(canonical_text(question.answer)) and _is_number(whole.split()[0]) and _number(whole):
            whole = whole.split()[0]  # the question asks for a bare number: its unit is no part of the answer
        known = self.names.get(question.relation, {})
        if whole in own or whole in known:
            return own.get(whole) or known[whole]
        if whole == NO_ANSWER:
            return NO_ANSWER
        head = canonical_text(text.split(",")[0])
        if head in own or head in known:
            return own.get(head) or known[head]
        return self._in_sentence(text, question, {**known, **own}) if self.sentences else whole

    @staticmethod
    def _own(question: Question) -> dict[str, str]:
        target = canonical_text(question.answer)
        return {canonical_text(name): target for name in (question.answer, *question.aliases)}

    @staticmethod
    def _in_sentence(text: str, question: Question, names: dict[str, str]) -> str:
        """The first known name in a sentence that the question does not already contain, else what it adds.

        A name inside a longer one does not count ("Guinea" in "Equatorial Guinea"), nor does an alias of the
        reference behind a word that qualifies it ("Hong Kong dollar" where "dollar" is an alias). For sets
        without known names only the reference's own names are found.
        """
        asked = f" {canonical_text(question.text)} "
        said = f" {canonical_text(text)} "
        aliases = {canonical_text(alias) for alias in question.aliases} - {canonical_text(question.answer)}
        spans = []
        for name, target in names.items():
            at = said.find(f" {name} ")
            if at < 0 or ((name in _LOOKS_LIKE_A_WORD or len(name) == 1) and not _stands_out(name, text)):
                continue
            before = said[:at].split()[-1:]
            qualified = name in aliases and before and before[0] not in _EMPTY_WORDS and f" {before[0]} " not in asked
            if not qualified:
                spans.append((at, at + len(name) + 1, f" {name} " in asked, target))
        whole = [s for s in spans if not any(o[0] <= s[0] and s[1] <= o[1] and o[:2] != s[:2] for o in spans)]
        if whole:
            return min(whole, key=lambda span: (span[2], span[0]))[3]
        added = [word for word in said.split() if word not in _EMPTY_WORDS and f" {word} " not in asked]
        return " ".join(added) or NO_ANSWER


def _stands_out(name: str, text: str) -> bool:
    """Whether a name is written as one: in capitals ("In", "OR"), as a domain (".in"), or as a number."""
    spelled = f"{re.escape(name.capitalize())}|{re.escape(name.upper())}|(?<=\\.){re.escape(name)}"
    return re.search(rf"(?<![^\W_])(?:{spelled})(?![^\W_])", text) is not None


def number(response: Response, question: Question) -> str:
    """B(z) = the first number in the text; without one, `canonical_text` of it."""
    text = canonical_text(response.text)
    if _is_number(text):
        return text
    found = re.search(r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?", response.text)
    return text if found is None else canonical_text(found[0])


_MARK = re.compile(r"(?i)\banswer(?:\s+(?:is|was|must be|should be))?\b\s*:?|####")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def final_answer(text: str) -> str | None:
    """What a chain of thought ends with: the text after its last "answer is", "answer:" or "####", or what stands
    in its last \\boxed{}; None when it never comes to that.
    """
    boxed = _BOXED.findall(text)
    if boxed:
        return boxed[-1].strip() or None
    *_, tail = _MARK.split(text)
    tail = tail.strip().strip("*$:").strip().rstrip(".").strip()
    return tail if tail and _MARK.search(text) else None


@dataclass(frozen=True)
class Chain:
    """B(z) = `answer` of the final answer of a chain of thought; a chain that never reaches one is `NO_ANSWER`.

    Attributes
    ----------
    answer : the collapse function for final answers, `number` or a `Semantic`.
    """

    answer: Collapse

    def __call__(self, response: Response, question: Question) -> str:
        """The class of `response`."""
        final = final_answer(response.text)
        return NO_ANSWER if final is None else self.answer(Response(final), question)


def right_class(question: Question, collapse: Collapse, token_ids: tuple[int, ...] = ()) -> str:
    """B of the reference answer, which is a final answer without a chain.

    Raises ValueError when B maps it to `NO_ANSWER`.
    """
    answer = collapse.answer if isinstance(collapse, Chain) else collapse
    name = answer(Response(question.answer, token_ids), question)
    if name == NO_ANSWER:
        raise ValueError(f"question {question.id!r}: the reference {question.answer!r} collapses to no answer")
    return name


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", text) is not None


def known_names(questions: Iterable[Question]) -> dict[str, dict[str, str]]:
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


def classes(question: Question, completions: Sequence, collapse: Collapse) -> list[str]:
    """B of every completion, in their order."""
    return [collapse(Response(c.text, c.token_ids), question) for c in completions]


def class_distribution(
    question: Question, completions: Sequence, collapse: Collapse, estimator: str = "frequency"
) -> dict[str, float]:
    """Pushforward of the model's distribution through B: (B # p)(k) = Pr[B(z) = k].

    Parameters
    ----------
    completions : distinct completions with `text`, `token_ids`, `count`, `logprob`.
    estimator : `"frequency"`, the share of the M draws in the class (sums to 1; its maximum is biased upwards
        at small M), or `"mass"`, the summed probability of the distinct completions seen (a lower bound per
        class; what is missing from 1 was never drawn).

    Raises
    ------
    ValueError : no completions, an unknown estimator, or a total outside [0, 1].
    """
    if not completions:
        raise ValueError(f"question {question.id!r} has no completions")
    if estimator == "frequency":
        weights = [c.count for c in completions]
    elif estimator == "mass":
        weights = [float(np.exp(c.logprob)) for c in completions]
    else:
        raise ValueError(f"estimator is {estimator!r}; use 'frequency' or 'mass'")
    total = sum(weights)
    if estimator == "mass" and not 0 <= total <= 1 + 1e-3:
        raise ValueError(f"question {question.id!r}: the class probabilities sum to {total}")
    shares: dict[str, float] = defaultdict(int)
    for name, weight in zip(classes(question, completions, collapse), weights, strict=True):
        shares[name] += weight
    if estimator == "frequency":  # whole counts are summed and divided once, so that equal shares are equal
        shares = {name: count / total for name, count in shares.items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def semantic_confidence(classes: dict[str, float]) -> tuple[str, float]:
    """Semantic prediction k* = argmax_k and semantic confidence max_k of a class distribution.

    Ties go to the class first in the alphabet, so that the result does not depend on the order of drawing.
    Raises ValueError for no classes.
    """
    if not classes:
        raise ValueError("there are no classes, so that none is the most probable")
    top = max(classes.values())
    return min(k for k, p in classes.items() if p == top), min(top, 1.0)


def thin(record, m: int, seed: int = 0):
    """The record that a budget of `m` draws would have left: `m` of the M draws, without replacement.

    Raises ValueError for m outside 1..M.
    """
    counts = np.array([c.count for c in record.completions])
    if not 1 <= m <= counts.sum():
        raise ValueError(f"m is {m}; the record of {record.question.id!r} has {counts.sum()} draws")
    rng = np.random.default_rng([seed, m, *record.question.id.encode()])
    kept = rng.multivariate_hypergeometric(counts, m)
    pairs = zip(record.completions, kept, strict=True)
    return replace(record, completions=tuple(replace(c, count=int(k)) for c, k in pairs if k))


def answers(record, collapse: Collapse, top: int = 6) -> pd.DataFrame:
    """What a question was answered with: one row per class, the most confident first.

    Columns: class, confidence (frequency), reference ("yes" for the class of the reference answer), responses (the
    texts merged in the class with their counts).
    """
    question = record.question
    merged: dict[str, list] = defaultdict(list)
    for name, completion in zip(classes(question, record.completions, collapse), record.completions, strict=True):
        merged[name].append(completion)
    target = right_class(question, collapse, record.reference_ids)
    shares = class_distribution(question, record.completions, collapse)
    return pd.DataFrame(
        [
            {
                "class": name,
                "confidence": share,
                "reference": "yes" if name == target else "",
                "responses": ", ".join(f"{c.text.strip()!r} x{c.count}" for c in merged[name][:4]),
            }
            for name, share in list(shares.items())[:top]
        ]
    )


def score(records: Iterable, collapse: Collapse, estimator: str = "frequency") -> pd.DataFrame:
    """One row per record: semantic prediction, confidence and correctness.

    `records` have `question`, `completions` and `reference_ids`. Columns: question_id, entity, relation,
    fame, prediction, reference, confidence in (0, 1], correct (0 or 1), entropy (nats, of the class distribution),
    n_classes, covered (summed probability of the distinct completions seen).

    `correct` is [k* == B(reference)]. A reference that B maps to `NO_ANSWER` raises ValueError.
    """
    rows = []
    for record in records:
        question = record.question
        classes = class_distribution(question, record.completions, collapse, estimator)
        prediction, confidence = semantic_confidence(classes)
        reference = right_class(question, collapse, record.reference_ids)
        p = np.array(list(classes.values()))
        p = p[p > 0] / p.sum()
        rows.append(
            {
                "question_id": question.id,
                "entity": entity(question),
                "relation": question.relation,
                "fame": question.fame,
                "prediction": prediction,
                "reference": reference,
                "confidence": confidence,
                "correct": int(prediction == reference),
                "entropy": float(-(p * np.log(p)).sum()),
                "n_classes": len(classes),
                "covered": float(np.exp([c.logprob for c in record.completions]).sum()),
            }
        )
    if not rows:
        raise ValueError("there are no records to score")
    return pd.DataFrame(rows)


def option_probabilities(logprobs: Sequence[np.ndarray]) -> np.ndarray:
    """(n, K) probabilities of the options, renormalised per question; 0 where a question has fewer than K options.

    `logprobs` are log p(option | prompt), one array per question (`sampling.option_logprobs`). Raises ValueError for
    no questions, or a question without options.
    """
    if not len(logprobs):
        raise ValueError("there are no questions with options: give one array of log-probabilities per question")
    without = [at for at, values in enumerate(logprobs) if not len(values)]
    if without:
        raise ValueError(f"question number {without[0]} has no options, so that there are no probabilities of them")
    p = np.zeros((len(logprobs), max(map(len, logprobs))))
    for row, values in zip(p, logprobs, strict=True):
        row[: len(values)] = np.exp(values - np.logaddexp.reduce(values))
    return p


def score_options(questions: Sequence[Question], logprobs: Sequence[np.ndarray]) -> pd.DataFrame:
    """One row per multiple-choice question: the top option, its probability and whether it is right.

    `logprobs` are log p(option | prompt) in the order of `question.choices` (`sampling.option_logprobs`); they are
    renormalised over the options. Columns: question_id, entity, relation, prediction, reference, confidence in
    (0, 1], correct, p_reference. A question without options raises ValueError.
    """
    for question, values in zip(questions, logprobs, strict=True):
        if question.choices is None or len(values) != len(question.choices):
            raise ValueError(f"question {question.id!r} has the options {question.choices}, got {len(values)} values")
    rows = []
    for question, p in zip(questions, option_probabilities(logprobs), strict=True):
        prediction = question.choices[int(np.argmax(p))]
        rows.append(
            {
                "question_id": question.id,
                "entity": entity(question),
                "relation": question.relation,
                "prediction": prediction,
                "reference": question.answer,
                "confidence": float(min(p.max(), 1.0)),
                "correct": int(prediction == question.answer),
                "p_reference": float(p[question.choices.index(question.answer)]),
            }
        )
    return pd.DataFrame(rows)

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
from dataclasses import dataclass, field

from calib_utils.text import NO_ANSWER, canonical_text, is_bare_number, number_with_unit
from calib_utils.types import Collapse, Question, Response

_EMPTY_WORDS = frozenset(
    "a an the of in on at is are was be it its this that and or to for by with from as which who what called "
    "named known located found used stands answer s has also country code city state capital symbol element "
    "number language currency continent domain official chemical international".split()
)
# Symbols, state and domain codes that are also English words: in a sentence they count in capitals only.
_LOOKS_LIKE_A_WORD = frozenset(
    "al am an as at be by co de do go he hi id if in is it la ma me my no of ok on or pa so to us".split()
)


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


@dataclass(frozen=True)
class Semantic:
    """B(z) = the answer that a response gives, by any of its names.

    Attributes
    ----------
    names : per relation, canonical name -> class, for answers known to the relation (`data.known_names`).
    sentences : also look for the answer inside a full sentence.
    """

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    sentences: bool = False

    def __call__(self, response: Response, question: Question) -> str:
        """The class of `response`."""
        text = response.text
        whole = canonical_text(text)
        own = self._own(question)
        if (
            is_bare_number(canonical_text(question.answer))
            and is_bare_number(whole.split()[0])
            and number_with_unit(whole)
        ):
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
    if is_bare_number(text):
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


def of_style(style: str, names: dict | None = None, chat: bool = False) -> Semantic | Chain:
    """The collapse function for answers in a style (a key of `prompts.STYLES`) that knows these names.

    In sentences, and in what a chat model says, the answer is looked for; a chain is compared by its final answer.
    """
    meaning = Semantic(names or {}, sentences=chat or style == "sentence")
    return Chain(meaning) if style == "cot" else meaning


def right_class(question: Question, collapse: Collapse, token_ids: tuple[int, ...] = ()) -> str:
    """B of the reference answer, which is a final answer without a chain.

    Raises ValueError when B maps it to `NO_ANSWER`.
    """
    answer = collapse.answer if isinstance(collapse, Chain) else collapse
    name = answer(Response(question.answer, token_ids), question)
    if name == NO_ANSWER:
        raise ValueError(f"question {question.id!r}: the reference {question.answer!r} collapses to no answer")
    return name

"""Look-ups: a world of chains, questions that take k table look-ups, answered at once or step by step.

A question names a number and k tables, "3 f c a now" or "3 f c a stepwise". Each table maps every number to another;
the answer is table_k(... table_1(number)). Every step is easy, and the answer at once is a composition. `slips` is
how often a step of the text that is read slips to another number, after which the chain goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calib_utils.data.splits import SHARES
from calib_utils.data.world.vocabulary import (
    ANSWER,
    END,
    QUESTION,
    SPECIAL,
    THEREFORE,
    WorldError,
    build_tokenizer,
    check_words,
)
from calib_utils.types import SPLITS, Question

RELATION = "table look-ups"
STYLES = {"concise": "now", "cot": "stepwise"}  # the answer style of `prompts.STYLES`, and the word that asks for it
_KEPT_BACK = 3  # look-ups from which on problems of dev and test are kept back
_TABLES = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class LookupWorld:
    """The world of one seed.

    Attributes
    ----------
    n_numbers : numbers there are, 2 to 10.
    n_tables : tables, 1 to 26, permutations of the numbers.
    longest : largest k, at least 1.
    slips : probability in [0, 1) that a step of the text that is read slips.
    seed : of the tables and the split.

    Raises WorldError for a world that cannot exist.
    """

    n_numbers: int = 6
    n_tables: int = 6
    longest: int = 3
    slips: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("n_numbers", self.n_numbers, 2, 10),
            ("n_tables", self.n_tables, 1, len(_TABLES)),
            ("longest", self.longest, 1, 6),
        ):
            if not least <= value <= most:
                raise WorldError(f"{name} is {value}; a world of look-ups has {least} to {most}")
        if not 0 <= self.slips < 1:
            raise WorldError(f"slips is {self.slips}; it must lie in [0, 1)")
        check_words([word.removesuffix(".") + "x" * word.endswith(".") for word in self.words])

    @property
    def words(self) -> tuple[str, ...]:
        """All words but the special ones, in the order of their token ids; a number with a full stop is a step."""
        numbers = [str(i) for i in range(self.n_numbers)]
        return (*numbers, *(f"{i}." for i in numbers), *_TABLES[: self.n_tables], *STYLES.values())

    @cached_property
    def tables(self) -> np.ndarray:
        """(tables, numbers): where each table leads."""
        rng = np.random.default_rng([self.seed, 5])
        return np.stack([rng.permutation(self.n_numbers) for _ in range(self.n_tables)])

    @property
    def first_number(self) -> int:
        """Token id of the number 0; the others follow, then the same numbers as steps."""
        return len(SPECIAL)

    @property
    def first_step(self) -> int:
        """Token id of the step "0."; the others follow."""
        return len(SPECIAL) + self.n_numbers

    def check_k(self, k: int) -> None:
        """Raise WorldError for a number of look-ups that is not in 1..longest."""
        if not 1 <= k <= self.longest:
            raise WorldError(f"k is {k}; questions of this world take 1 to {self.longest} look-ups")

    @staticmethod
    def check_style(style: str) -> None:
        """Raise WorldError for a style that look-ups are not answered in."""
        if style not in STYLES:
            raise WorldError(f"style is {style!r}; look-ups are answered in one of {sorted(STYLES)}")

    def problems(self, k: int, split: str) -> np.ndarray:
        """(n, 1 + k) number and tables of all problems of a split.

        One or two look-ups are read and asked alike: there are too few to keep any back. With three or more, those
        of dev and test are never read.
        """
        self.check_k(k)
        shape = (self.n_numbers, *[self.n_tables] * k)
        every = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
        every = np.random.default_rng([self.seed, 6, k]).permutation(every)
        if k < _KEPT_BACK:
            return every
        ends = (np.cumsum([SHARES[one] for one in SPLITS]) * len(every)).astype(int)
        return np.split(every, ends[:-1])[SPLITS.index(split)]

    def steps(self, problems: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """(n, k) numbers after each look-up; with `rng` the steps slip, as in the text that is read."""
        at, found = problems[:, 0], []
        for table in problems[:, 1:].T:
            at = self.tables[table, at]
            if rng is not None and self.slips:
                slipped = rng.random(len(at)) < self.slips
                at = np.where(slipped, (at + rng.integers(1, self.n_numbers, len(at))) % self.n_numbers, at)
            found.append(at)
        return np.stack(found, axis=1)

    def prompt_ids(self, problems: np.ndarray, style: str) -> np.ndarray:
        """(n, k + 4) token ids of the questions, the same as the tokenizer gives."""
        self.check_style(style)
        first = np.full((len(problems), 1), SPECIAL.index(QUESTION))
        asked = self.first_step + self.n_numbers + self.n_tables + list(STYLES).index(style)
        tables = self.first_step + self.n_numbers + problems[:, 1:]
        end = np.full_like(first, SPECIAL.index(ANSWER))
        return np.concatenate(
            [first, self.first_number + problems[:, :1], tables, np.full_like(first, asked), end], axis=1
        )

    def answer_ids(self, steps: np.ndarray, style: str) -> np.ndarray:
        """Token ids of answers with END: (n, 2) at once; (n, k + 2) by a chain, all steps but the last, and then
        "The answer is" the last one.
        """
        self.check_style(style)
        end = np.full((len(steps), 1), SPECIAL.index(END))
        if style == "concise":
            return np.concatenate([self.first_number + steps[:, -1:], end], axis=1)
        chain = self.first_step + steps
        therefore = np.full_like(end, SPECIAL.index(THEREFORE))
        return np.concatenate([chain[:, :-1], therefore, chain[:, -1:], end], axis=1)

    def tokenizer(self):
        """The tokenizer of this world."""
        return build_tokenizer(self.words)

    def questions(self, k: int, split: str, n: int, style: str, seed: int = 0) -> list[Question]:
        """`n` different questions of k look-ups; WorldError for more than the split has."""
        self.check_style(style)
        found = []
        for problem in self.pick(k, split, n, seed):
            steps = self.steps(problem[None])[0]
            text = " ".join([str(problem[0]), *(_TABLES[t] for t in problem[1:]), STYLES[style]])
            name = f"world-{self.seed}-{text.replace(' ', '')}"
            chain = tuple(f"{step}." for step in steps[:-1])
            answer = str(steps[-1])
            found.append(Question(name, text, answer, RELATION, split, f"{text} {answer}.", chain=chain))
        return found

    def pick(self, k: int, split: str, n: int, seed: int = 0) -> np.ndarray:
        """(n, 1 + k) different problems of a split; WorldError for more than there are."""
        found = self.problems(k, split)
        if not 1 <= n <= len(found):
            raise WorldError(f"{n} questions of {k} look-ups are asked for; split {split!r} has {len(found)}")
        return found[np.random.default_rng([seed, 7]).permutation(len(found))[:n]]


def check_same(worlds: Sequence) -> None:
    """Raise WorldError for no worlds, or for worlds that differ in more than seeds: one vocabulary is needed."""
    if not len(worlds):
        raise WorldError("there are no worlds; give one per training seed")
    if any(world.words != worlds[0].words for world in worlds):
        raise WorldError(
            "the worlds have different words; side by side they may differ in seed and probabilities only"
        )

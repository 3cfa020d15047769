"""Text: a generated world of people, what is written about it, and what is asked.

A person has a name, and one value in each of several relations, such as the place where the person lives. A value is
a name of two words, whose first word several values share. Text is a mixture of facts in many phrasings, sums,
counts and echoes, all drawn anew, so that no text is read twice on purpose. How often a fact is read follows the
fame of its person: proportional to 1 / (rank + people / 50).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calib_utils.data.world.vocabulary import ANSWER, QUESTION, SPECIAL, SYLLABLES, build_tokenizer

ROW = 32  # tokens of a row of text
RELATIONS = ("home", "job", "friend")
GROUPS = ("asked", "known", "unread", "new")
KINDS = ("fact", "sum", "count", "echo")
_SHARES = (0.6, 0.15, 0.125, 0.125)
_FIRST, _SECOND = 12, 3  # words of the names of values; every pair is a value
_LONGEST = 12  # tokens of a text or instruction with the END before it
_ASKED_LONGEST, ANSWER_LONGEST = 9, 4  # tokens of an instruction, and of its answer with the END behind it
_NUMBERS = 40
_STATED = {  # phrasings of facts: what stands before the name, between it and the value, and after the value
    "home": (
        ("", "lives in", ""), ("", "is at home in", ""), ("the home of", "is", ""), ("today", "lives in", "again"),
    ),
    "job": (
        ("", "works as", ""), ("", "is known as", ""), ("the job of", "is", ""), ("today", "works as", "again"),
    ),
    "friend": (
        ("", "plays with", ""), ("", "is fond of", ""), ("the friend of", "is", ""), ("today", "plays with", "again"),
    ),
}  # fmt: skip
_ASKED = {  # instructions: what stands before the name and after it
    "home": (("where lives", ""), ("say where", "lives"), ("tell the home of", ""), ("", "is at home where")),
    "job": (("what works", "as"), ("say what job", "has"), ("tell the job of", ""), ("", "is known as what")),
    "friend": (("who likes", ""), ("say who is friend of", ""), ("tell the friend of", ""), ("", "is fond of who")),
    "sum": (("add", ""), ("say what is", "added"), ("tell the sum of", ""), ("", "makes what")),
    "count": (
        ("count from", ""),
        ("say what comes after", ""),
        ("tell the numbers after", ""),
        ("", "and then what"),
    ),
    "echo": (("repeat", ""), ("say again", ""), ("tell again", ""), ("", "and again")),
}


def _plain(spec) -> list[str]:
    return [
        word for phrasings in spec.values() for phrasing in phrasings for part in phrasing for word in part.split()
    ]


@dataclass(frozen=True)
class FactWorld:
    """People, their facts, and the text about them, of one seed.

    Attributes
    ----------
    n_people : people by group, `GROUPS`: those asked about and those known are read of; of those unread only
        instructions tell, of those that are new nothing does.
    seed : of names, facts and fame.
    """

    n_people: tuple[int, int, int, int] = (60, 40, 96, 40)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_people) < 1 or sum(self.n_people) > len(SYLLABLES) ** 2:
            raise ValueError(
                f"n_people is {self.n_people}; every group needs one, and {len(SYLLABLES) ** 2} have names"
            )

    @property
    def n_values(self) -> int:
        """Values in each relation."""
        return _FIRST * _SECOND

    @property
    def words(self) -> tuple[str, ...]:
        """All words but the special ones, in the order of their token ids."""
        names = [SYLLABLES[i // 70] + SYLLABLES[i % 70] for i in range(sum(self.n_people))]
        values = [f"{relation}{letter}" for relation in RELATIONS for letter in "abcdefghijkl"]
        ends = [f"of{letter}" for letter in "xyz"]
        numbers = [str(number) for number in range(_NUMBERS)]
        said = dict.fromkeys([*_plain(_STATED), *_plain(_ASKED), "plus", "equals", "next"])
        return (*names, *values, *ends, *numbers, *said)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token id of every word."""
        return {word: at for at, word in enumerate((*SPECIAL, *self.words))}

    def tokenizer(self):
        """One token per word (`calib_utils.data.world.vocabulary.build_tokenizer`)."""
        return build_tokenizer(self.words)

    def written(self, ids: np.ndarray) -> str:
        """The text of these token ids."""
        words = (*SPECIAL, *self.words)
        return " ".join(words[i] for i in ids)

    def group(self, name: str) -> np.ndarray:
        """Numbers of the people of one of `GROUPS`."""
        ends = np.cumsum((0, *self.n_people))
        at = GROUPS.index(name)
        return np.arange(ends[at], ends[at + 1])

    @cached_property
    def names(self) -> np.ndarray:
        """(people, 1) token ids of names."""
        rng = np.random.default_rng([self.seed, 41])
        return len(SPECIAL) + rng.permutation(sum(self.n_people))[:, None]

    @cached_property
    def values(self) -> np.ndarray:
        """(people, relations) the value that a person has, by number."""
        rng = np.random.default_rng([self.seed, 42])
        return rng.integers(_FIRST * _SECOND, size=(sum(self.n_people), len(RELATIONS)))

    def value_ids(self, relation: np.ndarray, value: np.ndarray) -> np.ndarray:
        """(..., 2) token ids of values."""
        first = self.ids[f"{RELATIONS[0]}a"] + relation * _FIRST + value // _SECOND
        return np.stack([first, self.ids["ofx"] + value % _SECOND], axis=-1)

    def value_of(self, ids: np.ndarray) -> np.ndarray:
        """(...,) the values whose token ids (..., 2) these are."""
        first = (ids[..., 0] - self.ids[f"{RELATIONS[0]}a"]) % _FIRST
        return first * _SECOND + ids[..., 1] - self.ids["ofx"]

    @cached_property
    def exposure(self) -> np.ndarray:
        """(people read of,) probability that a fact is about this person."""
        n = self.n_people[0] + self.n_people[1]
        rank = np.random.default_rng([self.seed, 43]).permutation(n)
        weight = 1 / (rank + n / 50)
        return weight / weight.sum()

    def said(self, text: str) -> list[int]:
        """Token ids of words; QUESTION and ANSWER are words, too."""
        return [self.ids[word] for word in text.split()]

    def facts(self, people: np.ndarray, relation: np.ndarray, phrasing: np.ndarray) -> np.ndarray:
        """(n, 12) token ids of stated facts, -1 where there is none."""
        table = np.full((len(people), _LONGEST), -1)
        value = self.value_ids(relation, self.values[people, relation])
        for r, name in enumerate(RELATIONS):
            for k, (before, between, after) in enumerate(_STATED[name]):
                at = np.flatnonzero((relation == r) & (phrasing == k))
                parts = ([0, *self.said(before)], self.names[people[at]], self.said(between), value[at],
                         self.said(after))  # fmt: skip
                table[at] = _beside(parts, len(at))
        return table

    def prompts(self, people: np.ndarray, relation: np.ndarray) -> np.ndarray:
        """(n, T) the beginning of facts in the first phrasing, up to the value; padded with END in front."""
        table = self.facts(people, relation, np.zeros_like(relation))
        rows = [row[row >= 0][:-2] for row in table]
        longest = max(map(len, rows))
        return np.stack([np.concatenate([np.zeros(longest - len(row), dtype=int), row]) for row in rows])

    def text(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, 32) rows of fresh text: documents one after another, END before each."""
        said = np.empty(0, dtype=int)
        while len(said) < n * ROW:
            said = np.concatenate([said, self._documents(n * 5, rng)])
        return said[: n * ROW].reshape(n, ROW)

    def _documents(self, n: int, rng: np.random.Generator) -> np.ndarray:
        kind = rng.choice(len(KINDS), size=n, p=_SHARES)
        table = np.full((n, _LONGEST), -1)
        at = np.flatnonzero(kind == 0)
        people = rng.choice(len(self.exposure), size=len(at), p=self.exposure)
        table[at] = self.facts(people, rng.integers(len(RELATIONS), size=len(at)), rng.integers(4, size=len(at)))
        for which, name in enumerate(KINDS[1:], start=1):
            at = np.flatnonzero(kind == which)
            asked, answer = self.drills(name, len(at), rng)
            between = {"sum": "equals", "count": "next", "echo": "again"}[name]
            if name == "sum":
                plus = np.full((len(at), 1), self.ids["plus"])
                asked = np.concatenate([asked[:, :1], plus, asked[:, 1:]], axis=1)
            table[at] = _beside(([0], asked, self.said(between), answer), len(at))
        return table[table >= 0]

    def drills(self, kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) what is given and (n, m) what follows from it: sums, counts and echoes."""
        zero = self.ids["0"]
        if kind == "sum":
            pair = rng.integers(_NUMBERS // 2, size=(n, 2))
            return zero + pair, zero + pair.sum(axis=1, keepdims=True)
        if kind == "count":
            start, step = rng.integers(10, size=(n, 1)), rng.integers(1, 5, size=(n, 1))
            row = zero + start + step * np.arange(5)
            return row[:, :2], row[:, 2:]
        given = self.names[rng.integers(len(self.exposure), size=(n, 3)), 0]
        return given, given


@dataclass(frozen=True)
class Lesson:
    """What instruction tuning tells: a few texts of some kinds in some phrasings, of a form that no text has.

    Attributes
    ----------
    kinds : among `RELATIONS` (facts about people who were never mentioned before) and sum, count and echo.
    phrasings : how many of the four phrasings of each kind are used.
    """

    kinds: tuple[str, ...]
    phrasings: int = 4

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(_ASKED) or not 1 <= self.phrasings <= 4:
            raise ValueError(f"{self} is no lesson: kinds are among {tuple(_ASKED)}, phrasings 1 to 4")


EVERYTHING = tuple(_ASKED)


def instructions(
    world: FactWorld, lesson: Lesson, n: int, rng: np.random.Generator, group: str = "unread"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 9) instructions with END in front, (n, 4) answers with END behind, and (n,) relations, -1 for none.

    Facts are about people of the `group`, each fact told once before one is told again.
    """
    kind = np.array(lesson.kinds)[np.arange(n) % len(lesson.kinds)]
    phrasing = (np.arange(n) // len(lesson.kinds)) % lesson.phrasings
    asked, answers = np.zeros((n, _ASKED_LONGEST), dtype=int), np.zeros((n, ANSWER_LONGEST), dtype=int)
    relations = np.full(n, -1)
    for name in lesson.kinds:
        at = np.flatnonzero(kind == name)
        if name in RELATIONS:
            relations[at] = RELATIONS.index(name)
            people = np.resize(rng.permutation(world.group(group)), len(at))
            given, answer = world.names[people], world.value_ids(relations[at], world.values[people, relations[at]])
        else:
            given, answer = world.drills(name, len(at), rng)
        answers[at, : answer.shape[1]] = answer
        for k in range(lesson.phrasings):
            before, after = _ASKED[name][k]
            rows = phrasing[at] == k
            parts = [world.said(f"{QUESTION} {before}"), given[rows], world.said(f"{after} {ANSWER}")]
            told = _beside(parts, rows.sum())
            told = told[:, : (told[0] >= 0).sum()] if len(told) else told[:, :0]
            asked[at[rows], _ASKED_LONGEST - told.shape[1] :] = told
    order = rng.permutation(n)
    return asked[order], answers[order], relations[order]


def spread(world: FactWorld, asked: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """How diverse instructions are: distinct forms, distinct pairs of words, and entropy of words (bits).

    A form is an instruction without its names and numbers. Pairs are counted as a share of all pairs (distinct-2).
    """
    content = set(range(len(SPECIAL), len(SPECIAL) + sum(world.n_people)))
    content |= {world.ids[str(number)] for number in range(_NUMBERS)}
    rows = [[token for token in row if token] for row in np.concatenate([asked, answers], axis=1).tolist()]
    forms = {tuple(-1 if token in content else token for token in row if token) for row in asked.tolist()}
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    _, counts = np.unique(np.concatenate(rows), return_counts=True)
    p = counts / counts.sum()
    return {
        "forms": len(forms),
        "distinct pairs": len(set(pairs)) / len(pairs),
        "entropy": float(-(p * np.log2(p)).sum()),
    }


def _beside(parts, n: int) -> np.ndarray:
    """(n, 12) parts next to each other, -1 behind them; a list is the same in every row."""
    row = np.concatenate([np.broadcast_to(np.asarray(p, dtype=int), (n, np.shape(p)[-1])) for p in parts], axis=1)
    return np.pad(row, ((0, 0), (0, _LONGEST - row.shape[1])), constant_values=-1)

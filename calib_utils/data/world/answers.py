"""Answers: a world of ambiguous names, in which the probability of every answer is known.

A name has three syllables. The first two decide how probable each answer is, the third how an answer is
put into words:

    P(a | name) = softmax_a((u[s1, a] + v[s2, a]) / ambiguity),   u, v ~ N(0, 1.6^2)
    P(form | name) = softmax_f(w[s3, f]),                         w ~ N(0, 1)

so that one answer has several surface forms, and the first token is not the meaning. In style ``"sentence"`` an
answer says the name again, then a verb that also depends on the third syllable, and then the same form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import softmax

from calib_utils.data.names import names_of
from calib_utils.data.splits import SHARES
from calib_utils.data.world.vocabulary import (
    ANSWER,
    END,
    QUESTION,
    SPECIAL,
    SYLLABLES,
    WorldError,
    build_tokenizer,
    check_words,
)
from calib_utils.types import SPLITS, Question

RELATION = "colour of a name"
COLOURS = tuple(
    "red blue green amber violet coral ivory teal olive indigo maroon khaki cyan beige crimson lilac".split()
)
BEFORE = ("maybe", "surely", "simply", "mostly")
AFTER = ("indeed", "again", "today", "here")
VERBS = ("is", "looks", "seems")
STYLES = ("concise", "sentence")
_LONGEST = 3  # tokens of a short answer with the one that ends it
_OPENING = 4  # tokens of a sentence before its short answer
_EVIDENCE = 1.6


@dataclass(frozen=True)
class AnswerWorld:
    """The world of one seed.

    Attributes
    ----------
    n_answers : answers there are, at least 2.
    n_forms : surface forms of an answer: the bare word, then a word before or after it in turn.
    ambiguity : temperature of the posterior; near 0 every name has one answer, large values make all equal.
    shift : distribution shift in [0, 1]: how far the meaning of the second syllable has turned away.
    n_syllables : different syllables at each of the three places.
    seed : of u, v, w and of what they are turned to.
    style : how answers are given: ``"concise"``, one of the forms, or ``"sentence"``, that form after name and verb.

    Raises WorldError for a world that cannot exist.
    """

    n_answers: int = 8
    n_forms: int = 5
    ambiguity: float = 1.0
    shift: float = 0.0
    n_syllables: int = 20
    seed: int = 0
    style: str = "concise"

    def __post_init__(self) -> None:
        most = 1 + len(BEFORE) + len(AFTER)
        for name, value, least, limit in (
            ("n_answers", self.n_answers, 2, len(COLOURS)),
            ("n_forms", self.n_forms, 1, most),
            ("n_syllables", self.n_syllables, 4, len(SYLLABLES) // 3),
        ):
            if not least <= value <= limit:
                raise WorldError(f"{name} is {value}; a world has {least} to {limit}")
        if not (self.ambiguity > 0 and np.isfinite(self.ambiguity)):
            raise WorldError(f"ambiguity is {self.ambiguity}; it must be a positive number")
        if not 0 <= self.shift <= 1:
            raise WorldError(f"shift is {self.shift}; it must lie between 0 (none) and 1")
        if self.style not in STYLES:
            raise WorldError(f"style is {self.style!r}; names are answered in one of {STYLES}")
        check_words(self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """All words but the special ones, in the order of their token ids."""
        return (*SYLLABLES[: 3 * self.n_syllables], *self.answers, *self.before, *self.after, *self.verbs)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers as bare words."""
        return COLOURS[: self.n_answers]

    @property
    def before(self) -> tuple[str, ...]:
        """Words that stand before an answer in one of its forms."""
        return BEFORE[: self.n_forms // 2]

    @property
    def after(self) -> tuple[str, ...]:
        """Words that stand after an answer in one of its forms."""
        return AFTER[: (self.n_forms - 1) // 2]

    @property
    def verbs(self) -> tuple[str, ...]:
        """Words between the name and the form of an answer in a sentence; none in short answers."""
        return VERBS if self.style == "sentence" else ()

    @property
    def longest(self) -> int:
        """Tokens of the longest answer with the one that ends it."""
        return _LONGEST + (_OPENING if self.verbs else 0)

    def forms(self, answer: str) -> tuple[str, ...]:
        """The surface forms of an answer: bare, with a word before it, with a word after it."""
        return answer, *(f"{word} {answer}" for word in self.before), *(f"{answer} {word}" for word in self.after)

    @cached_property
    def _evidence(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, 2])
        first, second, other = rng.normal(0, _EVIDENCE, (3, self.n_syllables, self.n_answers))
        turned = np.cos(self.shift * np.pi / 2) * second + np.sin(self.shift * np.pi / 2) * other
        return first, turned, rng.normal(0, 1, (self.n_syllables, self.n_forms))

    def posterior(self, names: np.ndarray) -> np.ndarray:
        """(n, answers) true probabilities of the answers of `names` (n, 3), syllables by number."""
        first, second, _ = self._evidence
        return softmax((first[names[:, 0]] + second[names[:, 1]]) / self.ambiguity, axis=1)

    def form_probabilities(self, names: np.ndarray) -> np.ndarray:
        """(n, forms) true probabilities of the surface forms, the same for every answer.

        Sentences have verbs * forms of them, those of the first verb first.
        """
        p = softmax(self._evidence[2][names[:, 2]], axis=1)
        if not self.verbs:
            return p
        said = np.random.default_rng([self.seed, 8]).normal(0, 1, (self.n_syllables, len(self.verbs)))
        return (softmax(said[names[:, 2]], axis=1)[:, :, None] * p[:, None]).reshape(len(p), -1)

    @cached_property
    def _splits(self) -> dict[str, np.ndarray]:
        """Names by split: those of dev and test never stand in the text that is read."""
        every = np.stack(np.unravel_index(np.arange(self.n_syllables**3), (self.n_syllables,) * 3), axis=1)
        every = np.random.default_rng([self.seed, 1]).permutation(every)
        ends = (np.cumsum([SHARES[split] for split in SPLITS]) * len(every)).astype(int)
        return dict(zip(SPLITS, np.split(every, ends[:-1]), strict=True))

    def names(self, split: str, n: int | None = None, seed: int = 0) -> np.ndarray:
        """(n, 3) different names of a split, all of them by default; WorldError for more than there are."""
        found = self._splits[split]
        if n is None:
            return found
        if not 1 <= n <= len(found):
            raise WorldError(
                f"{n} names are asked for; split {split!r} has {len(found)} of {self.n_syllables} syllables"
            )
        return found[np.random.default_rng([seed, 3]).permutation(len(found))[:n]]

    def draw(self, names: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One true answer and one form, by number, for each of `names`."""
        return _drawn(self.posterior(names), rng), _drawn(self.form_probabilities(names), rng)

    def prompt_ids(self, names: np.ndarray) -> np.ndarray:
        """(n, PROMPT) token ids of the questions, the same as the tokenizer gives."""
        edge = np.full((len(names), 1), SPECIAL.index(QUESTION))
        return np.concatenate([edge, self.first_syllable + names, np.full_like(edge, SPECIAL.index(ANSWER))], axis=1)

    def answer_ids(self, names: np.ndarray, answers: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """(n, longest) token ids of answers in their forms, filled up with END."""
        verbs, forms = forms // self.n_forms, forms % self.n_forms
        word, at = self.first_answer + answers, np.clip(forms - 1, 0, None)
        end = np.full_like(word, SPECIAL.index(END))
        bare = np.stack([word, end, end], axis=1)
        led = np.stack([self.first_before + at, word, end], axis=1)
        followed = np.stack([word, self.first_before + at, end], axis=1)
        leads = (forms > 0) & (forms <= len(self.before))
        short = np.where(leads[:, None], led, np.where((forms == 0)[:, None], bare, followed))
        return np.concatenate([self.opening_ids(names, verbs), short], axis=1) if self.verbs else short

    def opening_ids(self, names: np.ndarray, verbs: np.ndarray) -> np.ndarray:
        """(n, 4) token ids of what a sentence says before the form: the name and a verb."""
        return np.concatenate([self.first_syllable + names, self.first_verb + verbs[:, None]], axis=1)

    @property
    def first_syllable(self) -> np.ndarray:
        """Token id of the first syllable of each of the three places."""
        return len(SPECIAL) + self.n_syllables * np.arange(3)

    @property
    def first_answer(self) -> int:
        """Token id of the first answer; the others follow."""
        return len(SPECIAL) + 3 * self.n_syllables

    @property
    def first_before(self) -> int:
        """Token id of the first word that stands before an answer; the others and those after it follow."""
        return self.first_answer + self.n_answers

    @property
    def first_verb(self) -> int:
        """Token id of the first verb; the others follow."""
        return self.first_before + len(self.before) + len(self.after)

    def tokenizer(self):
        """The tokenizer of this world."""
        return build_tokenizer(self.words)

    def known_names(self) -> dict[str, dict[str, str]]:
        """Every form of every answer -> its class, as `data.known_names` gives them."""
        return names_of(self._question("", np.zeros(3, int), a, "train", None) for a in range(self.n_answers))

    def questions(self, split: str, n: int | None = None, seed: int = 0, n_choices: int = 4) -> list[Question]:
        """`n` questions about different names, each with an answer drawn from the truth and wrong options beside it.

        Without `n` all names of the split are asked about.

        Raises WorldError for more names than the split has, or an impossible number of options.
        """
        if not 2 <= n_choices <= self.n_answers:
            raise WorldError(f"n_choices is {n_choices}; it must lie in 2..{self.n_answers}, the number of answers")
        names, rng = self.names(split, n, seed), np.random.default_rng([seed, self.seed, 4])
        found = []
        for name, answer in zip(names, self.draw(names, rng)[0], strict=True):
            wrong = rng.choice([a for a in range(self.n_answers) if a != answer], n_choices - 1, replace=False)
            options = rng.permutation([answer, *wrong])
            found.append(self._question(f"{self.seed}-", name, int(answer), split, options))
        return found

    def _question(self, about: str, name: np.ndarray, answer: int, split: str, options) -> Question:
        text = " ".join(self.words[place * self.n_syllables + s] for place, s in enumerate(name))
        bare, *others = self.forms(self.answers[answer])
        choices = None if options is None else tuple(self.answers[a] for a in options)
        return Question(
            f"world-{about}{text.replace(' ', '')}",
            text,
            bare,
            RELATION,
            split,
            f"{text} {VERBS[0]} {bare}",
            tuple(others),
            choices,
        )


def _drawn(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column per row of probabilities."""
    return np.minimum((rng.random((len(p), 1)) >= p.cumsum(axis=1)).sum(axis=1), p.shape[1] - 1)

"""Arithmetic: word problems of k steps with a worked chain each, generated from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from calib_utils.data.splits import SHARES, split_of
from calib_utils.errors import DataError
from calib_utils.storage import text_digest
from calib_utils.types import SPLITS, Question

OPERATIONS = ("add", "subtract", "multiply")
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
_FACTORS = {2: "doubles", 3: "triples", 4: "quadruples"}
_TOLD = {
    "add": (
        "{name} buys {n} more.",
        "{name} finds {n} more.",
        "{friend} gives {name} {n} more.",
        "{name} gets {n} more from {friend}.",
    ),
    "subtract": (
        "{name} gives {n} to {friend}.",
        "{name} loses {n}.",
        "{name} sells {n}.",
        "{friend} takes {n} away.",
    ),
    "multiply": ("{name} {times} the number of {things}.", "{friend} {times} what {name} has."),
}
_ASIDE = (
    "{friend} has {n} {others}.",
    "{name} also has {n} {others}.",
    "{friend} is {n} years old.",
    "The shop next door sells {n} kinds of {others}.",
)
_NAMES = (
    "Ada Ben Clara David Emma Felix Grace Hugo Iris Jonas Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor"
).split()
_THINGS = (
    "apples books cards coins marbles stickers stamps pencils shells buttons balloons tickets candles postcards "
    "oranges plums"
).split()
_STEPS = range(1, 7)
_PROBLEMS = {"train": 1000, "dev": 300, "test": 500}  # of every number of steps, in `questions`


def questions(split: str) -> list[Question]:
    """Problems of 1 to 6 steps that add and subtract 1 to 5, the same number of each."""
    made = (problems(k, _PROBLEMS[split], split, ("add", "subtract"), (1, 5)) for k in _STEPS)
    return [question for some in made for question in some]


def problems(
    k: int,
    n: int,
    split: str = "test",
    operations: Sequence[str] = OPERATIONS,
    operands: tuple[int, int] = (2, 9),
    largest: int = 99,
    irrelevant: int = 0,
    seed: int = 0,
) -> list[Question]:
    """`n` word problems that take `k` operations each.

    Problem i is a function of the arguments and (k, i) alone, so more problems begin with the same ones. A hash of
    the computation (numbers and operations, not the words around them) decides the split: no computation of the test
    split stands in the train split. Every intermediate result lies in 1..`largest`.

    Parameters
    ----------
    operations : which of `OPERATIONS` occur; a factor is 2, 3 or 4.
    operands : smallest and largest number that is added or subtracted. A story starts with a number from the
        smallest to two thirds of `largest`.
    irrelevant : sentences with a number that does not matter, at random places.

    Returns
    -------
    Questions with the relation "k step(s)" and a `chain` of k equations.

    Raises
    ------
    DataError : a value outside its range, or numbers so narrow that no problem of k steps exists in the split.
    """
    low, high = operands
    strange = sorted(set(operations) - set(OPERATIONS))
    if strange or not operations:
        raise DataError(f"operations are {tuple(operations)}; use some of {OPERATIONS}")
    if not (k >= 1 and n >= 1 and irrelevant >= 0 and 1 <= low <= high <= largest):
        raise DataError(
            f"k = {k} and n = {n} must be at least 1, irrelevant = {irrelevant} not negative, and operands = "
            f"{operands} lie in 1..largest = {largest}"
        )
    if split not in SPLITS:
        raise DataError(f"split is {split!r}; use one of {SPLITS}")
    knobs = f"{','.join(operations)}/{low}-{high}/{largest}/{irrelevant}/{seed}"
    return [_problem(k, i, split, operations, operands, largest, irrelevant, knobs) for i in range(n)]


def _problem(k, i, split, operations, operands, largest, irrelevant, knobs: str) -> Question:
    rng = random.Random(f"{knobs}/{split}/{k}/{i}")
    for _ in range(1000):
        start, steps = rng.randint(operands[0], max(operands[0], 2 * largest // 3)), []
        value = start
        while len(steps) < k:
            choices = _choices(value, operations, operands, largest)
            if not choices:
                break
            weights = [min(len(numbers), 10) for numbers in choices.values()]  # spreads the answers
            operation = rng.choices(list(choices), weights)[0]
            number = rng.choice(choices[operation])
            result = {"add": value + number, "subtract": value - number, "multiply": value * number}[operation]
            steps.append((operation, value, number, result))
            value = result
        computation = f"{start} {[(operation, number) for operation, _, number, _ in steps]}"
        if len(steps) == k and split_of(computation, SHARES) == split:
            return _told(k, i, split, steps, irrelevant, knobs, rng)
    raise DataError(
        f"no problem of {k} steps was found in split {split!r} with operations {tuple(operations)}, operands "
        f"{operands} and largest = {largest}; widen them"
    )


def _choices(value: int, operations, operands, largest: int) -> dict[str, list[int]]:
    """Per operation the numbers that keep the result in 1..largest."""
    low, high = operands
    found = {
        "add": list(range(low, min(high, largest - value) + 1)),
        "subtract": list(range(low, min(high, value - 1) + 1)),
        "multiply": [factor for factor in _FACTORS if value * factor <= largest],
    }
    return {name: numbers for name, numbers in found.items() if name in operations and numbers}


def _told(k, i, split, steps, irrelevant, knobs, rng: random.Random) -> Question:
    """The computation as a story."""
    name, friend = rng.sample(_NAMES, 2)
    things, others = rng.sample(_THINGS, 2)
    words = {"name": name, "friend": friend, "things": things, "others": others}
    story = [f"{name} has {steps[0][1]} {things}."]
    for operation, _, number, _ in steps:
        sentence = rng.choice(_TOLD[operation])
        story.append(sentence.format(n=number, times=_FACTORS.get(number, ""), **words))
    for _ in range(irrelevant):
        aside = rng.choice(_ASIDE).format(n=rng.randint(2, 60), **words)
        story.insert(rng.randint(1, len(story)), aside)
    answer = str(steps[-1][3])
    text = " ".join([*story, f"How many {things} does {name} have now?"])
    digest = text_digest(f"{knobs}/{text}", 8)
    return Question(
        id=f"arithmetic/{split}/{k}/{i}-{digest}",
        text=text,
        answer=answer,
        relation=f"{k} step{'s' if k > 1 else ''}",
        split=split,
        statement=f"The answer is {answer}.",
        chain=tuple(f"{value}{_SIGNS[name]}{number}={result}." for name, value, number, result in steps),
    )

"""Explorer, the numbers: calibration of recorded answers under any choice of draws, temperature and collapse.

Everything is computed from shipped records (`records.shipped`), so that no model and no torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from calib_utils import metrics
from calib_utils.data import known_names
from calib_utils.prompts import STYLES
from calib_utils.semantics import NO_ANSWER, canonical, exact, of_style, right_class
from calib_utils.types import Collapse, Estimate, Question, Response

ALL = "all"  # relations
N_BOOT = 200  # simulated data sets of an interval: fewer than in notebooks, so that a change shows at once
_ERRORS = ("smece", "ece_equal_width_10")
SOURCE = ("stage", "style", "dataset")  # fields of `Choice` that say whose answers are looked at


# What the explorer calls a collapse function, from the style of the answers and the known names of the data set.
COLLAPSE: dict[str, Callable[[str, dict], Collapse]] = {
    "meaning": of_style,
    "own aliases only": lambda style, names: of_style(style),
    "canonical text": lambda style, names: canonical,
    "exact text": lambda style, names: exact,
}


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    Attributes
    ----------
    stage, style, dataset : whose answers, in which style, to which questions.
    relation : one relation of the questions, or `ALL`.
    collapse : a key of `COLLAPSE`.
    m : the first m of the M draws of every question.
    temperature : T > 0 of whole answers. A draw z of probability p(z) gets the weight p(z)^(1/T - 1), so that shares
        estimate p^(1/T) / sum p^(1/T) (self-normalised importance sampling). T = 1 leaves the draws as they are.
    question : position of the question whose classes are shown, among those of the relation.
    """

    stage: str
    style: str
    dataset: str
    relation: str = ALL
    collapse: str = "meaning"
    m: int = 50
    temperature: float = 1.0
    question: int = 0


@dataclass(frozen=True)
class Shown:
    """What a choice looks like.

    Attributes
    ----------
    scores : question_id, entity, relation, confidence, correct: a row per question.
    smece, ece : smooth and binned calibration error with interval, plug-in value and noise floor.
    accuracy, mean_confidence, gap : shares; gap is mean confidence minus accuracy.
    curve, bins : what a smooth and a binned diagram draw (`metrics.reliability_curve`, `metrics.binned_curve`).
    question : the question whose classes are shown.
    classes : its classes, the most confident first: class, confidence, right (whether it is the reference's).
    """

    scores: pd.DataFrame
    smece: Estimate
    ece: Estimate
    accuracy: float
    mean_confidence: float
    gap: float
    curve: pd.DataFrame
    bins: pd.DataFrame
    question: Question
    classes: pd.DataFrame


@dataclass(frozen=True)
class _Coded:
    """The draws of one source as numbers: class (n, M), log-probability (n, M), class of the reference (n,)."""

    codes: np.ndarray
    logprobs: np.ndarray
    right: np.ndarray
    names: list[list[str]]


class Explorer:
    """Recorded answers, ready to be looked at under any `Choice`."""

    def __init__(self, records: pd.DataFrame):
        """`records` are rows of `records.shipped.read`; those of an answer style at temperature 1 count.

        Other temperatures follow from these. Raises ValueError if there are none.
        """
        rows = records[np.isclose(records["temperature"], 1.0) & records["style"].isin(list(STYLES))]
        rows = rows.reset_index(drop=True)
        if rows.empty:
            raise ValueError("there are no records at temperature 1 to explore; give rows of records.shipped.read")
        self._rows = {
            key: part.drop_duplicates("question_id").reset_index(drop=True)
            for key, part in rows.assign(stage=stages(rows)).groupby(list(SOURCE), sort=False)
        }
        self._lineage = _lineage(rows)
        self._coded = lru_cache(maxsize=64)(self._code)

    def sources(self, **chosen: str) -> pd.DataFrame:
        """Combinations of stage, style and dataset that there are, those with the `chosen` values if given."""
        table = pd.DataFrame(list(self._rows), columns=list(SOURCE))
        for name, value in chosen.items():
            table = table[table[name] == value]
        return table.reset_index(drop=True)

    def lineage(self) -> list[str]:
        """Stages of the base model's lineage, one per condition without details: most steps, first seed."""
        return self._lineage

    def start(self, **given) -> Choice:
        """The first source with all its draws, or what is `given` of a choice.

        Raises ValueError where nothing is recorded for it.
        """
        found = self.sources(**{name: value for name, value in given.items() if name in SOURCE})
        if found.empty:
            raise ValueError(f"nothing is recorded for {given}; there are {self.sources().to_dict('records')}")
        choice = Choice(**{**found.iloc[0].to_dict(), **given})
        return choice if "m" in given else replace(choice, m=self.n_draws(choice))

    def n_draws(self, choice: Choice) -> int:
        """M: how many draws every question of the source has."""
        return int(self._of(choice)["draws"].map(len).min())

    def relations(self, choice: Choice) -> list[str]:
        """`ALL` and the relations of the source's questions."""
        return [ALL, *sorted(self._of(choice)["group"].unique())]

    def questions(self, choice: Choice) -> list[str]:
        """Texts of the questions of the relation, in the order of `Choice.question`."""
        rows = self._of(choice)
        return rows.loc[self._asked(rows, choice), "question"].tolist()

    def show(self, choice: Choice) -> Shown:
        """The numbers of a choice.

        Raises ValueError for a value that is not among the options, or out of range.
        """
        rows, most = self._of(choice), self.n_draws(choice)
        if not 1 <= choice.m <= most:
            raise ValueError(f"m is {choice.m}; every question has {most} draws")
        if not choice.temperature > 0:
            raise ValueError(f"temperature is {choice.temperature}; it must be positive")
        asked = self._asked(rows, choice)
        if not 0 <= choice.question < len(asked):
            raise ValueError(f"question is {choice.question}; there are {len(asked)} in {choice.relation!r}")
        coded = self._coded(self._key(choice), choice.collapse)
        shares = class_shares(coded.codes[asked], coded.logprobs[asked], choice.m, choice.temperature)
        top = shares.argmax(axis=1)  # codes follow the alphabet: ties go to the class first in it
        scores = pd.DataFrame(
            {
                "question_id": rows["question_id"].to_numpy()[asked],
                "entity": rows["entity"].to_numpy()[asked],
                "relation": rows["group"].to_numpy()[asked],
                "confidence": np.minimum(shares.max(axis=1), 1.0),
                "correct": (top == coded.right[asked]).astype(int),
            }
        )
        pair = scores["confidence"].to_numpy(), scores["correct"].to_numpy()
        at = asked[choice.question]
        names, share = np.array(coded.names[at]), shares[choice.question]
        seen = [code for code in np.argsort(-share, kind="stable") if share[code] > 0]
        classes = pd.DataFrame(
            {"class": names[seen], "confidence": share[seen], "right": np.array(seen) == coded.right[at]}
        )
        return Shown(
            scores,
            *(metrics.evaluate(*pair, name, N_BOOT, entities=scores["entity"]) for name in _ERRORS),
            float(pair[1].mean()),
            float(pair[0].mean()),
            float((pair[0] - pair[1]).mean()),
            metrics.reliability_curve(*pair, n_boot=N_BOOT),
            metrics.binned_curve(*pair),
            question_of(rows.iloc[at]),
            classes,
        )

    def _key(self, choice: Choice) -> tuple[str, ...]:
        key = tuple(getattr(choice, name) for name in SOURCE)
        if key not in self._rows:
            raise ValueError(f"nothing is recorded for {key}; there are {list(self._rows)}")
        return key

    def _of(self, choice: Choice) -> pd.DataFrame:
        return self._rows[self._key(choice)]

    def _asked(self, rows: pd.DataFrame, choice: Choice) -> np.ndarray:
        found = np.flatnonzero((rows["group"] == choice.relation) | (choice.relation == ALL))
        if not len(found):
            raise ValueError(f"relation is {choice.relation!r}; use one of {self.relations(choice)}")
        return found

    def _code(self, key: tuple[str, ...], collapse: str) -> _Coded:
        if collapse not in COLLAPSE:
            raise ValueError(f"collapse is {collapse!r}; use one of {list(COLLAPSE)}")
        _, style, dataset = key
        function = COLLAPSE[collapse](style, known_names(dataset))
        most = int(self._rows[key]["draws"].map(len).min())
        codes, logprobs, right, names = [], [], [], []
        for row in self._rows[key].to_dict("records"):
            question = question_of(row)
            merged = [function(Response(text), question) for text in row["texts"]]
            order = sorted(set(merged))
            at = {name: code for code, name in enumerate(order)}
            codes.append(np.array([at[name] for name in merged])[np.asarray(row["draws"][:most])])
            logprobs.append(np.asarray(row["logprobs"][:most], dtype=float))
            right.append(at.get(right_class(question, function), -1))
            names.append([name if name != NO_ANSWER else "(no answer)" for name in order])
        return _Coded(np.stack(codes), np.stack(logprobs), np.array(right), names)


def stages(rows: pd.DataFrame) -> pd.Series:
    """Names of the models: the condition, and what tells them apart of steps, training seed and worked examples.

    The largest number of worked examples in front of the question is not named.
    """
    names = rows["condition"]
    most = rows.groupby("condition")["examples"].transform("max")
    names = names.where(~(rows["examples"] < most), names + ", " + rows["examples"].map("{:.0f} examples".format))
    for column, word in (("step", "step"), ("seed", "seed")):
        several = rows.groupby("condition")[column].transform("nunique") > 1
        names = names.where(~several, names + f", {word} " + rows[column].astype(str))
    return names


def _lineage(rows: pd.DataFrame) -> list[str]:
    models = set(rows.loc[rows["condition"] == "base", "model"])
    plain = rows[rows["model"].isin(models) & ~rows["condition"].str.contains(", ")]
    order = ["examples", "step", "seed"]
    last = plain.sort_values(order, ascending=[False, False, True]).drop_duplicates("condition").index
    return stages(rows)[sorted(last)].tolist()


def question_of(row) -> Question:
    """The question of a row of shipped records; its gold answers are the reference and other names of it."""
    answer, *aliases = row["gold"]
    return Question(row["question_id"], row["question"], answer, row["group"], "test", "", tuple(aliases))


def class_shares(codes: np.ndarray, logprobs: np.ndarray, m: int, temperature: float) -> np.ndarray:
    """(n, K) shares of the classes among the first m draws, weighted as `Choice.temperature` says; rows sum to 1.

    `codes` (n, M) are classes from 0, `logprobs` (n, M) those of the draws at temperature 1.
    """
    codes, power = codes[:, :m], (1 / temperature - 1) * logprobs[:, :m]
    weights = np.exp(power - power.max(axis=1, keepdims=True))
    n, width = len(codes), int(codes.max()) + 1
    cells = codes + width * np.arange(n)[:, None]
    totals = np.bincount(cells.ravel(), weights.ravel(), minlength=n * width).reshape(n, width)
    return totals / weights.sum(axis=1, keepdims=True)

"""Results: what the answers of one model say about its calibration, in numbers and in one sentence. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from calib_utils.errors import DataError
from calib_utils.metrics import compare, evaluate, evaluate_seeds
from calib_utils.storage import text_digest
from calib_utils.studies.temperature_scaling import fit_temperature, scaled_confidence
from calib_utils.types import Estimate

METRICS = (
    "overconfidence",
    "accuracy",
    "mean_confidence",
    "smece",
    "ece_equal_width_10",
    "brier",
    "auroc",
)
FOLDS = 5  # a temperature is measured on questions that it was not fitted on
LEAST = 4 * FOLDS  # with fewer questions no temperature is fitted
SMALLEST_GROUP = 5


@dataclass(frozen=True)
class Answered:
    """One question and how the model's probability is spread over its answers.

    Attributes
    ----------
    id, text, reference : the question and its right answer.
    answers : classes that were drawn, or options.
    shares : their probabilities, which sum to 1.
    right : position of the right one in `answers`; None where it was never drawn.
    group : for results per group.
    entity : questions with the same one count as one in intervals; empty for the question itself.
    said : the responses that each class merges; empty for options.
    """

    id: str
    text: str
    reference: str
    answers: tuple[str, ...]
    shares: tuple[float, ...]
    right: int | None
    group: str
    entity: str = ""
    said: tuple[str, ...] = ()

    @property
    def top(self) -> int:
        """Position of the most probable answer, the first of several."""
        return int(np.argmax(self.shares))


@dataclass(frozen=True)
class Temperature:
    """What post-hoc temperature scaling would do.

    Attributes
    ----------
    value : the temperature fitted on all questions, to be used from now on.
    smece : the error after scaling, every question by a temperature that was fitted on the others' folds.
    change : that error less the one before, paired by question.
    """

    value: float
    smece: Estimate
    change: Estimate

    @property
    def within_noise(self) -> bool:
        """Whether what is left reads no more than a calibrated model would."""
        return self.smece.plug_in <= self.smece.floor


@dataclass(frozen=True)
class Result:
    """One model's calibration on one set of questions.

    Attributes
    ----------
    name : what the model is called.
    answered : every question with its answers.
    about : what was asked, and how; plain values.
    estimates : of every one of `METRICS`, with 95 % intervals; calibration errors are debiased.
    temperature : None for fewer than `LEAST` questions.
    groups : accuracy and signed gap per group of at least `SMALLEST_GROUP` questions; empty for a single group.
    """

    name: str
    answered: tuple[Answered, ...]
    about: Mapping[str, object]
    estimates: Mapping[str, Estimate]
    temperature: Temperature | None
    groups: pd.DataFrame

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per question: question_id, entity, relation, prediction, reference, confidence, correct."""
        return scores_of(self.answered)

    @property
    def miscalibrated(self) -> bool:
        """Whether the error reads more than a calibrated model's would, or the gap has a certain sign."""
        error, gap = self.estimates["smece"], self.estimates["overconfidence"]
        return error.plug_in > error.floor or gap.low > 0 or gap.high < 0

    @property
    def verdict(self) -> str:
        """One line that a person can act on."""
        return f"{self._gap()}; {self._error()}{self._repair()}"

    def _gap(self) -> str:
        gap, accuracy = self.estimates["overconfidence"], self.estimates["accuracy"].value
        if gap.low > 0:
            return f"overconfident by {brief(gap)} at accuracy {accuracy:.2f}"
        if gap.high < 0:
            return f"underconfident by {brief(_turned(gap))} at accuracy {accuracy:.2f}"
        start = "miscalibrated in no certain direction" if self.miscalibrated else "no miscalibration found"
        return f"{start} in {gap.n} questions (confidence - accuracy {brief(gap, True)}) at accuracy {accuracy:.2f}"

    def _error(self) -> str:
        error = self.estimates["smece"]
        return (
            f"smECE {brief(error)} (uncorrected {error.plug_in:.2f}; a calibrated model would read up to "
            f"{error.floor:.2f})"
        )

    def _repair(self) -> str:
        found = self.temperature
        if not self.miscalibrated:
            return ""
        if found is None:
            return f"; {len(self.answered)} questions are too few to fit a temperature ({LEAST} are needed)"
        to = f"to {found.smece.value:.2f}"
        if found.change.high < 0:
            return f"; temperature {found.value:.2g} {'repairs' if found.within_noise else 'lowers'} it, {to}"
        if found.within_noise:
            return f"; temperature {found.value:.2g} may repair it, {to} (undecided in {found.smece.n} questions)"
        return f"; no temperature repairs it ({found.value:.2g} leaves {found.smece.value:.2f})"


def _turned(estimate: Estimate) -> Estimate:
    """The estimate of the negative quantity."""
    return Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.n)


def estimate_in(row: pd.Series) -> Estimate:
    """The estimate in a row of a table with columns value, low, high and n."""
    return Estimate(row["value"], row["low"], row["high"], row["n"])


def brief(estimate: Estimate, signed: bool = False) -> str:
    """`0.12 [0.08, 0.16]`, with a sign if asked for."""
    form = "+.2f" if signed else ".2f"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def scores_of(answered: Sequence[Answered]) -> pd.DataFrame:
    """The table that `metrics` takes: confidence max_k p_k and whether the most probable answer is right."""
    return pd.DataFrame(
        [
            {
                "question_id": one.id,
                "entity": one.entity or one.id,
                "relation": one.group,
                "prediction": one.answers[one.top],
                "reference": one.reference,
                "confidence": float(min(one.shares[one.top], 1.0)),
                "correct": int(one.top == one.right),
            }
            for one in answered
        ]
    )


def measure(
    name: str, answered: Sequence[Answered], about: Mapping[str, object], n_boot: int = 1000, seed: int = 0
) -> Result:
    """The calibration of one model from its answers.

    Raises DataError for fewer than two questions.
    """
    if len(answered) < 2:
        raise DataError(f"{name}: {len(answered)} question answered; an audit needs at least 2, better 200")
    scores = scores_of(answered)
    pair, entities = (scores["confidence"], scores["correct"]), scores["entity"]
    estimates = {metric: evaluate(*pair, metric, n_boot, seed, entities) for metric in METRICS}
    scaled = temperature(answered, scores, n_boot, seed)
    return Result(name, tuple(answered), dict(about), estimates, scaled, per_group(scores, n_boot, seed))


def temperature(
    answered: Sequence[Answered], scores: pd.DataFrame, n_boot: int = 1000, seed: int = 0
) -> Temperature | None:
    """Temperature scaling by cross-fitting; None for fewer than `LEAST` questions.

    Questions fall into `FOLDS` folds by a hash of their entity; those of a fold are scaled by the temperature fitted
    on the other folds, so that no question is measured by a number that was chosen on it.
    """
    if len(answered) < LEAST:
        return None
    shares = [np.array(one.shares) for one in answered]
    labels = [one.right for one in answered]
    folds = np.array([int(text_digest(entity, 8), 16) % FOLDS for entity in scores["entity"]])
    confidence = np.empty(len(answered))
    for fold in set(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if not len(outside):
            return None
        fitted = fit_temperature([shares[i] for i in outside], [labels[i] for i in outside])
        confidence[inside] = scaled_confidence([shares[i] for i in inside], fitted)
    after = scores.assign(confidence=np.minimum(confidence, 1.0))
    return Temperature(
        fit_temperature(shares, labels),
        evaluate_seeds([after], "smece", (), n_boot, seed),
        evaluate_seeds([after], "smece", [scores], n_boot, seed),
    )


def per_group(scores: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Accuracy and signed gap of every group of at least `SMALLEST_GROUP` questions, the largest gap first.

    Columns: group, metric, value, low, high, n, plug_in, floor. No rows where there is one group in all.
    """
    parts = {name: part for name, part in scores.groupby("relation") if len(part) >= SMALLEST_GROUP}
    if scores["relation"].nunique() < 2 or not parts:
        return pd.DataFrame(columns=["group", "metric", "value", "low", "high", "n", "plug_in", "floor"])
    found = compare(parts, ["group"], ["overconfidence", "accuracy"], n_boot, seed)
    gaps = found[found["metric"] == "overconfidence"].set_index("group")["value"].abs()
    return found.sort_values("group", key=lambda names: -names.map(gaps), kind="stable").reset_index(drop=True)


DIFFERENCES = ("overconfidence", "accuracy", "smece", "brier")


def differences(results: Sequence[Result], n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Every further result less the first, paired by question.

    Columns: model, against, metric, value, low, high, n, plug_in, floor. No rows where the questions differ.
    """
    rows, first = [], results[0]
    for other in results[1:]:
        if list(other.scores["question_id"]) != list(first.scores["question_id"]):
            continue
        for metric in DIFFERENCES:
            found = evaluate_seeds([other.scores], metric, [first.scores], n_boot, seed)
            rows.append({"model": other.name, "against": first.name, "metric": metric, **vars(found)})
    columns = ["model", "against", "metric", "value", "low", "high", "n", "plug_in", "floor"]
    return pd.DataFrame(rows, columns=columns)


_WORDS = {  # metric: what a rise is called, and a fall
    "overconfidence": ("more confident for its accuracy", "less confident for its accuracy"),
    "accuracy": ("more accurate", "less accurate"),
    "smece": ("worse calibrated (smECE)", "better calibrated (smECE)"),
}


def difference_sentence(table: pd.DataFrame, model: str) -> str:
    """What changed from the first model to `model`, from the table of `differences`."""
    rows = table[table["model"] == model].set_index("metric")
    parts, open_ones = [], []
    for metric, (rise, fall) in _WORDS.items():
        change = estimate_in(rows.loc[metric])
        if change.low > 0:
            parts.append(f"{rise} by {brief(change)}")
        elif change.high < 0:
            parts.append(f"{fall} by {brief(_turned(change))}")
        else:
            open_ones.append(f"{metric} {brief(change, True)}")
    said = ", ".join(parts) or "no certain difference"
    left = f" (undecided: {', '.join(open_ones)})" if open_ones else ""
    return f"{model} against {rows['against'].iloc[0]}, on the same {rows['n'].iloc[0]} questions: {said}{left}"

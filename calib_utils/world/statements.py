"""Statements: what the exact world says about each claim, as estimates over training seeds: no thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from calib_utils.types import Estimate
from calib_utils.world.mechanism import error_bound
from calib_utils.world.study import paired, seed_estimate

Tables = Mapping[str, pd.DataFrame]
PAPER, EXTENSION = "paper", "extension"


@dataclass(frozen=True)
class Statement:
    """One statement about the world.

    Attributes
    ----------
    kind : paper (whose statement it is) or extension.
    quantity : what the estimate is.
    measure : the estimate, from `tables`: answers, tilts, exam and text (`study.per_seed`), growth, learnability,
        selection.
    """

    kind: str
    statement: str
    quantity: str
    measure: Callable[[Tables], Estimate]


def _at(panel: str, condition: str, measure: str = "error"):
    return lambda tables: seed_estimate(_condition(tables, panel, condition)[measure])


def _condition(tables: Tables, panel: str, condition: str, last: bool = True) -> pd.DataFrame:
    """Rows of a condition, one per seed, at its largest strength, or at its smallest."""
    rows = tables["answers"].query("panel == @panel and condition == @condition")
    end = rows["strength"].max() if last else rows["strength"].min()
    return rows[rows["strength"] == end].sort_values("seed")


def _minus(first: tuple[str, str], second: tuple[str, str], measure: str = "error"):
    def found(tables: Tables) -> Estimate:
        sides = [_condition(tables, *side)[measure].to_numpy() for side in (first, second)]
        return seed_estimate(*sides)

    return found


def _removed(after: str, measure: str):
    """1 - after / before, of every seed."""

    def found(tables: Tables) -> Estimate:
        sides = [_condition(tables, "method", name)[measure].to_numpy() for name in (after, "DPO")]
        return seed_estimate(1 - sides[0] / sides[1])

    return found


def _ends(panel: str):
    def found(tables: Tables) -> Estimate:
        sides = [_condition(tables, panel, "base", last)["error"].to_numpy() for last in (False, True)]
        return seed_estimate(*sides) if panel == "width" else seed_estimate(*sides[::-1])

    return found


def _within_bound(tables: Tables) -> Estimate:
    rows = pd.concat([tables["answers"], tables["tilts"]])
    excess = rows.assign(excess=rows["error"] - error_bound(rows["gap"]))
    return seed_estimate(excess.groupby("seed")["excess"].max())


def _rank_correlation(rows: pd.DataFrame, first: str, second: str) -> Estimate:
    return seed_estimate([stats.spearmanr(part[first], part[second])[0] for _, part in rows.groupby("seed")])


def _chains(table: str, measure: str, minus: bool):
    def found(tables: Tables) -> Estimate:
        rows = tables[table]
        rows = rows[(rows["k"] == rows["k"].max()) & (rows["strength"] == rows["strength"].max())]
        if minus:
            return paired(rows, "cot", "concise", measure, "style")
        return seed_estimate(rows[rows["style"] == "cot"][measure])

    return found


def _growth(tables: Tables) -> Estimate:
    rows = tables["growth"]
    rows = rows[rows["k"] == rows["k"].max()]
    spread = rows.groupby(["seed", "given"])["confidence"].std().unstack()
    return seed_estimate(spread.iloc[:, -1], spread.iloc[:, 0])


def _selected(model: str, first: str, second: str):
    def found(tables: Tables) -> Estimate:
        rows = tables["selection"]
        rows = rows[(rows["model"] == model) & (rows["k"] == rows["k"].max())]
        return paired(rows, first, second, "correct", "strategy")

    return found


def _probed(tables: Tables) -> Estimate:
    rows = tables["learnability"]
    return _rank_correlation(rows[rows["setting"] != "DPO, mode"], "kl", "error")


_ERROR = "smECE against the truth"
_DPO = "DPO, mode"
STATEMENTS = {
    "world-reading": Statement(
        PAPER, "Cross-entropy alone calibrates the meaning", f"{_ERROR} of models that read", _at("method", "base")
    ),
    "world-posterior": Statement(
        EXTENSION,
        "A model that reads comes near the true posterior",
        "total variation between its classes and the truth",
        _at("method", "base", "distance"),
    ),
    "world-size": Statement(
        PAPER,
        "Larger models are no better calibrated, once they have learned",
        f"{_ERROR} of the narrowest models minus that of the widest",
        _ends("width"),
    ),
    "world-shift": Statement(
        PAPER,
        "Calibration needs questions like those that were read",
        f"{_ERROR} on the most shifted questions minus that on unshifted ones",
        _ends("shift"),
    ),
    "world-bound": Statement(
        PAPER,
        "Theorem 6: without a loss gap there is no calibration error",
        "largest error beyond sqrt(gap / 2) of any condition",
        _within_bound,
    ),
    "world-order": Statement(
        PAPER,
        "Theorem 6: the larger the loss gap, the larger the error",
        "rank correlation of error and loss gap over conditions",
        lambda tables: _rank_correlation(pd.concat([tables["answers"], tables["tilts"]]), "gap", "error"),
    ),
    "world-learnable": Statement(
        PAPER,
        "Claim 10: a model is calibrated where its own answer distribution is easy to learn",
        "rank correlation of KL gap and error over settings trained by cross-entropy",
        _probed,
    ),
    "world-growth": Statement(
        PAPER,
        "Theorem 9: what a chain will answer is decided on the way, not before its first step",
        "spread of g before the last step minus spread before the first, longest chains",
        _growth,
    ),
    "world-sft-keeps": Statement(
        PAPER,
        "Supervised tuning keeps calibration",
        f"{_ERROR} of SFT minus base",
        _minus(("tuning", "SFT"), ("method", "base")),
    ),
    "world-rl-breaks": Statement(
        PAPER,
        "Reinforcement learning breaks calibration",
        f"{_ERROR} of GRPO minus base",
        _minus(("tuning", "GRPO"), ("method", "base")),
    ),
    "world-rl-overconfident": Statement(
        PAPER,
        "Reinforcement learning makes the model overconfident",
        "mean confidence minus accuracy, GRPO",
        _at("tuning", "GRPO", "signed"),
    ),
    "world-rl-accuracy": Statement(
        EXTENSION,
        "Reinforcement learning breaks it at unchanged accuracy",
        "accuracy of GRPO minus base",
        _minus(("tuning", "GRPO"), ("method", "base"), "accuracy"),
    ),
    "world-dpo-breaks": Statement(
        PAPER,
        "Preference tuning breaks calibration",
        f"{_ERROR} of DPO on mode preferences minus base",
        _minus(("tuning", _DPO), ("method", "base")),
    ),
    "world-dpo-drawn": Statement(
        EXTENSION,
        "Preferences break it if they favour the mode, less if they are drawn from the truth",
        f"{_ERROR} of DPO on mode preferences minus DPO on drawn ones",
        _minus(("tuning", _DPO), ("tuning", "DPO, drawn")),
    ),
    "world-chains-break": Statement(
        PAPER,
        "Chains break calibration",
        "smECE of chains minus smECE at once, longest chains, graded by the tables",
        _chains("exam", "error", True),
    ),
    "world-chains-underconfident": Statement(
        PAPER,
        "Chains make a model underconfident",
        "mean confidence minus accuracy of the longest chains, graded by the tables",
        _chains("exam", "signed", False),
    ),
    "world-chains-text": Statement(
        EXTENSION,
        "Chains are calibrated against the text that was read",
        "smECE of the longest chains against the posterior of that text",
        _chains("text", "error", False),
    ),
    "world-catto": Statement(
        PAPER,
        "CATTO removes calibration error of DPO",
        f"share of DPO's {_ERROR} that CATTO (s = 1) removes",
        _removed("CATTO, s = 1", "error"),
    ),
    "world-catto-choices": Statement(
        PAPER,
        "CATTO lowers the ECE of multiple choice",
        "share of DPO's ECE of multiple choice that CATTO (s = 1) removes",
        _removed("CATTO, s = 1", "choices"),
    ),
    "world-catto-accuracy": Statement(
        PAPER,
        "CATTO keeps the accuracy of DPO",
        "accuracy of CATTO (s = 1) minus DPO",
        _minus(("method", "CATTO, s = 1"), ("method", "DPO"), "accuracy"),
    ),
    "world-sft-added": Statement(
        EXTENSION,
        "Cross-entropy beside DPO restores calibration",
        f"share of DPO's {_ERROR} that DPO + cross-entropy removes",
        _removed("DPO + cross-entropy", "error"),
    ),
    "world-cft": Statement(
        PAPER,
        "CFT restores calibration of multiple choice",
        "share of DPO's ECE of multiple choice that CFT removes",
        _removed("CFT after DPO", "choices"),
    ),
    "world-rcft": Statement(
        PAPER,
        "RCFT gives up some of CFT's calibration",
        "ECE of multiple choice of RCFT minus CFT",
        _minus(("method", "RCFT after DPO"), ("method", "CFT after DPO"), "choices"),
    ),
    "world-scaled": Statement(
        EXTENSION,
        "One temperature restores calibration",
        f"share of DPO's {_ERROR} that temperature scaling removes",
        _removed("DPO, scaled", "error"),
    ),
    "world-at-k": Statement(
        PAPER,
        "Confidence@k of CATTO is better than a vote",
        "accuracy of Confidence@k minus majority vote, largest k, CATTO",
        _selected("CATTO", "token confidence", "majority"),
    ),
    "world-bayes": Statement(
        EXTENSION,
        "Confidence@k of CATTO chooses as well as the exact posterior",
        "accuracy of Confidence@k minus that of the Bayes choice, largest k, CATTO",
        _selected("CATTO", "token confidence", "Bayes choice"),
    ),
}


def informative(tables: Tables) -> Estimate:
    """AUROC of the confidence of models that have read: a constant one would pass every bound on an error."""
    return seed_estimate(_condition(tables, "method", "base")["auroc"], limits=(0.0, 1.0))


def estimates(tables: Tables) -> dict[str, Estimate]:
    """The estimate of every statement, by its id. `n` counts training seeds."""
    return {name: statement.measure(tables) for name, statement in STATEMENTS.items()}


def table(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """One row per statement: id, kind, statement, quantity, value, low, high, n (training seeds)."""
    rows = []
    for name, estimate in found.items():
        about = STATEMENTS[name]
        row = {"id": name, "kind": about.kind, "statement": about.statement, "quantity": about.quantity}
        rows.append(row | {column: getattr(estimate, column) for column in ("value", "low", "high", "n")})
    return pd.DataFrame(rows)

"""Statements: what the exact world says about each claim, as estimates over training seeds: no thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import pandas as pd
from scipy import stats

from calib_utils.claims import CLAIMS
from calib_utils.types import Estimate
from calib_utils.world.mechanism import error_bound
from calib_utils.world.study import paired, seed_estimate

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Statement:
    """What one estimate is about.

    Attributes
    ----------
    kind : paper (whose statement it is) or extension.
    statement, quantity : what is stated, and what the estimate is.
    """

    kind: str
    statement: str
    quantity: str


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


_DPO = "DPO, mode"
# How each is measured, from `tables`: answers, tilts, exam and text (`study.per_seed`), growth, learnability and
# selection.
MEASURED: dict[str, Callable[[Tables], Estimate]] = {
    "world-reading": _at("method", "base"),
    "world-posterior": _at("method", "base", "distance"),
    "world-size": _ends("width"),
    "world-shift": _ends("shift"),
    "world-bound": _within_bound,
    "world-order": lambda tables: _rank_correlation(pd.concat([tables["answers"], tables["tilts"]]), "gap", "error"),
    "world-learnable": _probed,
    "world-growth": _growth,
    "world-sft-keeps": _minus(("tuning", "SFT"), ("method", "base")),
    "world-rl-breaks": _minus(("tuning", "GRPO"), ("method", "base")),
    "world-rl-overconfident": _at("tuning", "GRPO", "signed"),
    "world-rl-accuracy": _minus(("tuning", "GRPO"), ("method", "base"), "accuracy"),
    "world-dpo-breaks": _minus(("tuning", _DPO), ("method", "base")),
    "world-dpo-drawn": _minus(("tuning", _DPO), ("tuning", "DPO, drawn")),
    "world-chains-break": _chains("exam", "error", True),
    "world-chains-underconfident": _chains("exam", "signed", False),
    "world-chains-text": _chains("text", "error", False),
    "world-catto": _removed("CATTO, s = 1", "error"),
    "world-catto-choices": _removed("CATTO, s = 1", "choices"),
    "world-catto-accuracy": _minus(("method", "CATTO, s = 1"), ("method", "DPO"), "accuracy"),
    "world-sft-added": _removed("DPO + cross-entropy", "error"),
    "world-cft": _removed("CFT after DPO", "choices"),
    "world-rcft": _minus(("method", "RCFT after DPO"), ("method", "CFT after DPO"), "choices"),
    "world-scaled": _removed("DPO, scaled", "error"),
    "world-at-k": _selected("CATTO", "token confidence", "majority"),
    "world-bayes": _selected("CATTO", "token confidence", "Bayes choice"),
}
_ERROR = "smECE against the truth"
# What is measured beside the claims of `claims.world`, which say for themselves what they are about.
BESIDE = {
    "world-posterior": Statement(
        "extension",
        "A model that reads comes near the true posterior",
        "total variation between its classes and the truth",
    ),
    "world-size": Statement(
        "paper",
        "Larger models are no better calibrated, once they have learned",
        f"{_ERROR} of the narrowest models minus that of the widest",
    ),
    "world-shift": Statement(
        "paper",
        "Calibration needs questions like those that were read",
        f"{_ERROR} on the most shifted questions minus that on unshifted ones",
    ),
    "world-bound": Statement(
        "paper",
        "Theorem 6: without a loss gap there is no calibration error",
        "largest error beyond sqrt(gap / 2) of any condition",
    ),
    "world-growth": Statement(
        "paper",
        "Theorem 9: what a chain will answer is decided on the way, not before its first step",
        "spread of g before the last step minus spread before the first, longest chains",
    ),
    "world-rl-accuracy": Statement(
        "extension",
        "Reinforcement learning breaks it at unchanged accuracy",
        "accuracy of GRPO minus base",
    ),
    "world-chains-break": Statement(
        "paper",
        "Chains break calibration",
        "smECE of chains minus smECE at once, longest chains, graded by the tables",
    ),
    "world-chains-text": Statement(
        "extension",
        "Chains are calibrated against the text that was read",
        "smECE of the longest chains against the posterior of that text",
    ),
    "world-sft-added": Statement(
        "extension",
        "Cross-entropy beside DPO restores calibration",
        f"share of DPO's {_ERROR} that DPO + cross-entropy removes",
    ),
    "world-bayes": Statement(
        "extension",
        "Confidence@k of CATTO chooses as well as the exact posterior",
        "accuracy of Confidence@k minus that of the Bayes choice, largest k, CATTO",
    ),
}


def informative(tables: Tables) -> Estimate:
    """AUROC of the confidence of models that have read: a constant one would pass every bound on an error."""
    return seed_estimate(_condition(tables, "method", "base")["auroc"], limits=(0.0, 1.0))


def estimates(tables: Tables) -> dict[str, Estimate]:
    """The estimate of every statement, by its id. `n` counts training seeds."""
    return {name: measure(tables) for name, measure in MEASURED.items()}


def about(name: str) -> Statement:
    """What the estimate with this id is about: the claim says it, if there is one."""
    claim = CLAIMS.get(name)
    return BESIDE[name] if claim is None else Statement(claim.kind, claim.claim, claim.measure)


def table(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """One row per statement: id, kind, statement, quantity, value, low, high, n (training seeds)."""
    columns = ("value", "low", "high", "n")
    return pd.DataFrame(
        {"id": name, **asdict(about(name)), **{column: getattr(estimate, column) for column in columns}}
        for name, estimate in found.items()
    )

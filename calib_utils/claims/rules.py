"""Rules: what a claim is, the two tests that decide it, and the verdict that an estimate gives.

A claim says on which side of a null its quantity lies (`Effect`), or that the quantity stays within a tolerance
(`Bound`). Null, margin and tolerance are data of the claim; a notebook hands over estimates. Every comparison is with
the 95 % interval:

===========  ========================================================================================================
verdict      when
===========  ========================================================================================================
reproduced   the interval lies on the claim's side, and every condition holds
partly       so, but the effect is smaller than the claim's margin or than the paper's smallest figure, or a
             condition fails
refuted      the interval excludes the claim: no effect as large as its margin, or beyond its tolerance
undecided    neither, or a condition is undecided; then `n_to_decide` says how many questions would decide
===========  ========================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from calib_utils.types import Estimate

VERDICTS = ("reproduced", "partly", "refuted", "undecided")
KINDS = ("paper", "extension")
PLACES = ("real", "world", "gpu")
QUANTITIES = {
    "signed gap": "mean confidence minus accuracy",
    "signed gap difference": "mean confidence minus accuracy, difference of two models or styles",
    "error": "calibration error, debiased",
    "error difference": "calibration error, debiased, difference of two models",
    "relative reduction": "share of the debiased calibration error that is removed",
    "accuracy difference": "accuracy, difference of two models",
    "AUROC": "AUROC of confidence",
    "loss gap": "loss gap: what the best tilt of confidence gains, in nats",
    "rank correlation": "rank correlation over conditions",
}
ABOVE, BELOW = "above", "below"
_Z = NormalDist().inv_cdf(0.975)
_POWER = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Effect:
    """The quantity lies on one `side` of `null`.

    Attributes
    ----------
    margin : the smallest effect that counts as the claim's; an interval that excludes it and holds the null refutes.
    smallest : the smallest figure that the paper gives for this effect, None where it gives none.
    """

    quantity: str
    side: str
    margin: float
    smallest: float | None = None
    null: float = 0.0

    @property
    def limit(self) -> float:
        """Where the claim's side begins."""
        return self.null

    def judge(self, estimate: Estimate) -> str:
        """`holds`, `small` (shown, but smaller than the claim says), `excluded` or `open`."""
        value, low, high = _towards(self.side, self.null, estimate)
        if low > 0:
            return "small" if high < self.margin or value < (self.smallest or 0.0) else "holds"
        return "excluded" if high < self.margin else "open"

    def in_words(self) -> dict[str, str]:
        """When the test is `holds`, `small` and, where it is neither, `excluded`, for a reader."""
        end, beyond = ("upper", BELOW) if self.side == ABOVE else ("lower", ABOVE)
        size = self.null + (self.margin if self.side == ABOVE else -self.margin)
        paper = f" or the value is less than {self.smallest:g}, the paper's smallest" if self.smallest else ""
        return {
            "holds": f"its 95 % interval lies {self.side} {self.null:g}",
            "small": f"its {end} end is {beyond} {size:g}{paper}",
            "excluded": f"its {end} end is {beyond} {size:g}",
        }


@dataclass(frozen=True)
class Bound:
    """The quantity stays on one `side` of `limit`, a tolerance around `ideal`."""

    quantity: str
    side: str
    limit: float
    ideal: float = 0.0

    @property
    def margin(self) -> float:
        """The tolerance."""
        return abs(self.limit - self.ideal)

    def judge(self, estimate: Estimate) -> str:
        """`holds`, `excluded` or `open`."""
        _, low, high = _towards(self.side, self.limit, estimate)
        if low > 0:
            return "holds"
        return "excluded" if high <= 0 else "open"

    def in_words(self) -> dict[str, str]:
        """When the test is `holds` and `excluded`, for a reader."""
        other = BELOW if self.side == ABOVE else ABOVE
        return {
            "holds": f"its 95 % interval lies {self.side} {self.limit:g}",
            "excluded": f"it lies {other} {self.limit:g}",
        }


def _towards(side: str, limit: float, estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high, counted from the limit in the direction of the claim."""
    if side == ABOVE:
        return estimate.value - limit, estimate.low - limit, estimate.high - limit
    return limit - estimate.value, limit - estimate.high, limit - estimate.low


@dataclass(frozen=True)
class Condition:
    """A further statement that has to hold.

    Attributes
    ----------
    test : what decides it from an estimate; None for a statement that is handed over as True, False or None.
    burden : `shown`, the test has to hold; or `not excluded`, it holds unless the interval excludes it.
    """

    name: str
    test: Effect | Bound | None = None
    burden: str = "shown"

    def answer(self, given: Estimate | bool | None) -> str:
        """`yes`, `no`, `undecided` or `not measured` (None, which does not count).

        Raises TypeError for a truth value where an estimate decides, for an estimate where none does, and for truth
        values of other libraries.
        """
        if given is None:
            return "not measured"
        if self.test is None:
            if type(given) is not bool:
                raise TypeError(f"condition {self.name!r} takes True, False or None, got {given!r}; use bool(...)")
            return "yes" if given else "no"
        if not isinstance(given, Estimate):
            raise TypeError(f"condition {self.name!r} is decided from an Estimate, got {given!r}; hand that over")
        found = self.test.judge(given)
        if found == "excluded":
            return "no"
        return "undecided" if found == "open" and self.burden == "shown" else "yes"

    def in_words(self) -> str:
        """The condition and what decides it, for a reader."""
        if self.test is None:
            return self.name
        if self.burden == "not excluded":
            return f"{self.name} does not exclude it"
        return f"{self.name} ({QUANTITIES[self.test.quantity]}: {self.test.in_words()['holds']})"


@dataclass(frozen=True)
class Claim:
    """A published statement, or one of this project, and how its verdict is decided.

    Attributes
    ----------
    kind : one of `KINDS`: whose statement it is.
    quote : what the paper states that the rule decides, in this project's words.
    faithful : what is kept of the paper's setting, and what departs.
    measure : what exactly the estimate is.
    rule : the test of the estimate.
    where : one of `PLACES`: what the claim is tested on.
    paper_low, paper_high : the paper's figures, in the units of the rule's quantity, where it gives any.
    """

    id: str
    notebook: str
    claim: str
    kind: str
    quote: str
    source: str
    paper_value: str
    faithful: str
    measure: str
    rule: Effect | Bound
    conditions: tuple[Condition, ...] = ()
    where: str = "real"
    paper_low: float | None = None
    paper_high: float | None = None

    def rule_in_words(self) -> str:
        """Such as "smECE of concise answers: reproduced if ...; partly if ...; else undecided"."""
        told = self.rule.in_words()
        conditions = "".join(f", and {condition.in_words()}" for condition in self.conditions)
        partly = [told["small"]] if "small" in told else []
        partly += ["a condition fails"] if self.conditions else []
        return (
            f"{self.measure}: reproduced if {told['holds']}{conditions}"
            + (f"; partly if so, but {' or '.join(partly)}" if partly else "")
            + f"; else refuted if {told['excluded']}; else undecided"
        )


def answers(claim: Claim, given: Mapping[str, Estimate | bool | None]) -> dict[str, str]:
    """The answer to every condition of a claim; ValueError for other conditions than the claim's own."""
    names = [condition.name for condition in claim.conditions]
    if set(given) != set(names):
        raise ValueError(f"claim {claim.id!r} has the conditions {names}, got {sorted(given)}")
    return {condition.name: condition.answer(given[condition.name]) for condition in claim.conditions}


def verdict(claim: Claim, estimate: Estimate, answered: Mapping[str, str]) -> str:
    """One of `VERDICTS`, from the estimate and the answers to the conditions."""
    found = claim.rule.judge(estimate)
    if found in ("excluded", "open"):
        return {"excluded": "refuted", "open": "undecided"}[found]
    if found == "small" or "no" in answered.values():
        return "partly"
    return "undecided" if "undecided" in answered.values() else "reproduced"


def n_to_decide(test: Effect | Bound, estimate: Estimate) -> int | None:
    """Questions for 80 % power at the test's margin: n ((1.96 + 0.84) se / margin)^2, never fewer than n.

    se is `_reach` over 1.96. It is taken to fall with the root of n, which the part from training seeds does not.
    None where the interval has no end, so that no number of questions of this kind is known to do.
    """
    reach = _reach(test.quantity, estimate)
    if not math.isfinite(reach):
        return None
    return max(estimate.n, math.ceil(estimate.n * ((_Z + _POWER) * reach / _Z / test.margin) ** 2))


def _reach(quantity: str, estimate: Estimate) -> float:
    """Half the width of the interval, or one side where the other is no measure of the standard error.

    An error is cut at 0. A share of an error has a long lower side where that error is hardly known; it is cut at 1.
    """
    down, up = estimate.value - estimate.low, estimate.high - estimate.value
    if quantity == "relative reduction":
        return up if estimate.high < 1 else down
    return up if quantity == "error" and estimate.low <= 0 else (down + up) / 2


def n_that_decides(claim: Claim, estimate: Estimate, given: Mapping[str, Estimate | bool | None]) -> int | None:
    """`n_to_decide` of whatever is open in an undecided claim, the largest; None where one of them has none."""
    open_ones = [(claim.rule, estimate)] if claim.rule.judge(estimate) == "open" else []
    open_ones += [
        (condition.test, given[condition.name])
        for condition in claim.conditions
        if condition.test is not None and condition.answer(given[condition.name]) == "undecided"
    ]
    needed = [n_to_decide(*one) for one in open_ones]
    return None if not needed or None in needed else max(needed)

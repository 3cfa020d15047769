"""Claims of notebook 07: what the papers state, held against the truth in a generated world.

Every error is against the known probability of being right, so that none has a noise floor. An estimate counts
training seeds, each with a world of its own, in place of questions.
"""

from calib_utils.claims.base import CALIBRATED, TELLS_APART
from calib_utils.claims.papers import CATTO, REPAIR, SEMANTIC
from calib_utils.claims.rules import ABOVE, BELOW, Bound, Claim, Condition, Effect

NOTEBOOK = "07_mechanism"
FINDING = "the same in a world whose truth is known"
_GAP = 0.05  # as on the real model: models with a smaller error count as calibrated
_SAME = 0.02  # differences of errors that count as none, as on the real model
_RANK = 0.5  # rank correlation
_LOST = 0.01  # accuracy that "kept" allows
_EXACT = (
    "kept: what is trained and how, semantic classes. Departs: models of 0.05M parameters in a generated world with "
    "a known posterior, exact class probabilities in place of draws"
)
_OURS = "No paper states it: the world makes it measurable."
_BREAKS = Effect("error difference", ABOVE, margin=_GAP)


def _claim(
    name: str,
    claim: str,
    source: str,
    quote: str,
    measure: str,
    rule: Effect | Bound,
    conditions: tuple[Condition, ...] = (),
    **paper,
) -> Claim:
    kind = "extension" if quote == _OURS else "paper"
    value = paper.pop("value", "not measured there")
    return Claim(
        id=f"world-{name}",
        notebook=NOTEBOOK,
        claim=claim,
        kind=kind,
        quote=quote,
        source=source,
        paper_value=value,
        faithful=_EXACT,
        measure=measure,
        rule=rule,
        conditions=conditions,
        where="world",
        **paper,
    )


CLAIMS = (
    _claim(
        "reading",
        "Cross-entropy on tokens alone calibrates the meaning",
        SEMANTIC,
        "The paper proves that a model at a minimum of the loss is calibrated in meaning (Theorem 6).",
        "smECE against the truth of models that have read",
        CALIBRATED,
        (TELLS_APART,),
    ),
    _claim(
        "order",
        "The larger the loss gap, the larger the calibration error",
        SEMANTIC,
        "The paper proves (Theorem 6) that a model is calibrated just where no tilt of confidence lowers its loss.",
        "rank correlation of calibration error and loss gap over conditions",
        Effect("rank correlation", ABOVE, margin=_RANK),
    ),
    _claim(
        "learnable",
        "Settings in which the distribution of answers is hard to learn are less calibrated",
        SEMANTIC,
        "The paper reports that the KL gap of a rank-8 probe correlates with the smECE (Claim 10).",
        "rank correlation of the probe's KL gap and the calibration error, settings trained by cross-entropy",
        Effect("rank correlation", ABOVE, margin=_RANK),
    ),
    _claim(
        "sft-keeps",
        "Supervised fine-tuning keeps calibration",
        SEMANTIC,
        "The paper reports that a model after supervised fine-tuning is about as calibrated as its base model.",
        "smECE against the truth after SFT minus that of the base model",
        Bound("error difference", BELOW, _SAME),
    ),
    _claim(
        "rl-breaks",
        "Reinforcement learning breaks calibration",
        SEMANTIC,
        "The paper reports that models tuned by reinforcement learning are not calibrated.",
        "smECE against the truth after GRPO minus that of the base model",
        _BREAKS,
    ),
    _claim(
        "rl-overconfident",
        "Reinforcement learning makes the model overconfident",
        SEMANTIC,
        "The paper reports that models tuned by reinforcement learning are overconfident.",
        "mean confidence minus true accuracy after GRPO",
        Effect("signed gap", ABOVE, margin=_GAP),
    ),
    _claim(
        "dpo-breaks",
        "Preference tuning breaks calibration",
        SEMANTIC,
        "The paper reports that a model after DPO is not calibrated where the model before it is.",
        "smECE against the truth after DPO on preferences for the mode minus that of the base model",
        _BREAKS,
    ),
    _claim(
        "dpo-drawn",
        "Preferences for the mode break calibration more than preferences that are drawn from the truth",
        SEMANTIC,
        _OURS,
        "smECE against the truth after DPO on mode preferences minus that after DPO on drawn ones",
        _BREAKS,
    ),
    _claim(
        "chains-underconfident",
        "Chains make a model underconfident",
        SEMANTIC,
        "The paper reports that base models are underconfident with chains.",
        "mean confidence minus accuracy of the longest chains, graded by the tables",
        Effect("signed gap", BELOW, margin=_GAP),
    ),
    _claim(
        "catto-choices",
        "CATTO lowers the calibration error of DPO in multiple choice",
        CATTO,
        "The paper reports that CATTO has a lower ECE than DPO.",
        "share of DPO's ECE against the truth that CATTO (s = 1) removes, multiple choice",
        Effect("relative reduction", ABOVE, margin=0.09, smallest=0.09),
        value="9 to 28 % of DPO's ECE",
        paper_low=0.09,
        paper_high=0.28,
    ),
    _claim(
        "catto",
        "CATTO lowers the calibration error of DPO in free answers",
        CATTO,
        _OURS,
        "share of DPO's smECE against the truth that CATTO (s = 1) removes",
        Effect("relative reduction", ABOVE, margin=0.09),
    ),
    _claim(
        "catto-accuracy",
        "CATTO keeps the accuracy of DPO",
        CATTO,
        "The paper reports that CATTO keeps the accuracy of DPO or raises it.",
        "accuracy of CATTO (s = 1) minus that of DPO",
        Bound("accuracy difference", ABOVE, -_LOST),
    ),
    _claim(
        "at-k",
        "After CATTO, Confidence@k is at least as good as a majority vote",
        CATTO,
        _OURS,
        "accuracy of Confidence@k minus that of a majority vote, largest k",
        Bound("accuracy difference", ABOVE, -_LOST),
    ),
    _claim(
        "cft",
        "CFT restores calibration in multiple choice",
        REPAIR,
        "The paper reports that CFT lowers the confidence-ECE of four aligned models by 65 to 88 %.",
        "share of DPO's ECE against the truth that CFT removes, multiple choice",
        Effect("relative reduction", ABOVE, margin=0.65, smallest=0.65),
        value="65 to 88 % of the ECE",
        paper_low=0.65,
        paper_high=0.88,
    ),
    _claim(
        "rcft",
        "RCFT gives up some of CFT's calibration",
        REPAIR,
        "The paper reports that RCFT trades some of CFT's calibration for accuracy.",
        "ECE against the truth of RCFT minus that of CFT, multiple choice",
        Effect("error difference", ABOVE, margin=_SAME),
    ),
    _claim(
        "scaled",
        "One temperature restores calibration",
        REPAIR,
        _OURS,
        "share of DPO's smECE against the truth that temperature scaling removes",
        Effect("relative reduction", ABOVE, margin=0.25),
    ),
)

"""Methods: the one table of what a stage may name, and of all that tells one method from another."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = ("packed", "references", "options", "pairs", "questions")


@dataclass(frozen=True)
class Method:
    """What a training method needs.

    Attributes
    ----------
    rows : what it trains on: ``"packed"`` rows of token ids, ``"references"`` (prompt and reference answer),
        ``"options"`` of multiple choice, preference ``"pairs"`` (prompt, chosen, rejected), or ``"questions"``, whose
        answers are drawn and rewarded during training.
    config, trainer : where its configuration and its trainer are, for `pkgutil.resolve_name`: named, not imported,
        because trl takes seconds to load.

    Raises
    ------
    ValueError : rows of another kind.
    """

    rows: str
    config: str
    trainer: str

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"rows is {self.rows!r}; use one of {ROWS}")


# The one list of methods: what a stage may name, and all that tells one method from another in training.
METHODS = {
    "pretrain": Method("packed", "trl:SFTConfig", "trl:SFTTrainer"),
    "sft": Method("references", "trl:SFTConfig", "trl:SFTTrainer"),
    "dpo": Method("pairs", "trl:DPOConfig", "trl:DPOTrainer"),
    "catto": Method("pairs", "calib_utils.training.catto:CATTOConfig", "calib_utils.training.catto:CATTOTrainer"),
    "grpo": Method("questions", "trl:GRPOConfig", "trl:GRPOTrainer"),
    "cft": Method("options", "calib_utils.training.cft:CFTConfig", "calib_utils.training.cft:CFTTrainer"),
}

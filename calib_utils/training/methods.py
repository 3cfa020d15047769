"""Methods: the one table of what a stage may name, and of all that tells one method from another."""

from __future__ import annotations

from dataclasses import dataclass, fields

_HERE = "calib_utils.training"
ROWS = ("packed", "references", "options", "pairs", "questions")


@dataclass(frozen=True)
class Options:
    """Settings of a method's trainer beside those of every stage; what is None stays as the trainer has it."""

    def settings(self) -> dict[str, object]:
        """What is set, by the names of the trainer's configuration and in their order here."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class PretrainOptions(Options):
    """Of `trl.SFTConfig`, for training from a random start."""

    warmup_steps: int | None = None
    lr_scheduler_type: str | None = None


@dataclass(frozen=True)
class DPOOptions(Options):
    """Of `trl.DPOConfig`: a mixture of losses with their weights, and label smoothing (see `label_smoothed`)."""

    label_smoothing: float | None = None
    loss_type: tuple[str, ...] | None = None
    loss_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class CATTOOptions(Options):
    """Of `CATTOConfig`: the weight and the choices of the calibration term."""

    calibration_weight: float | None = None
    surrogate_temperature: float | None = None
    surrogate_gradient: bool | None = None
    rejected_side: str | None = None
    calibration_form: str | None = None


@dataclass(frozen=True)
class CFTOptions(Options):
    """Of `CFTConfig`: the weight of RCFT's term, when its bins are estimated, and how many there are."""

    calibration_weight: float | None = None
    estimate_steps: int | None = None
    n_bins: int | None = None


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
    options : the class that the options of its stages are of.

    Raises
    ------
    ValueError : rows of another kind.
    """

    rows: str
    config: str
    trainer: str
    options: type[Options] = Options

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"rows is {self.rows!r}; use one of {ROWS}")


# The one list of methods: what a stage may name, and all that tells one method from another in training.
METHODS = {
    "pretrain": Method("packed", "trl:SFTConfig", "trl:SFTTrainer", PretrainOptions),
    "sft": Method("references", "trl:SFTConfig", "trl:SFTTrainer"),
    "dpo": Method("pairs", "trl:DPOConfig", "trl:DPOTrainer", DPOOptions),
    "catto": Method("pairs", f"{_HERE}.catto:CATTOConfig", f"{_HERE}.catto:CATTOTrainer", CATTOOptions),
    "grpo": Method("questions", "trl:GRPOConfig", "trl:GRPOTrainer"),
    "cft": Method("options", f"{_HERE}.cft:CFTConfig", f"{_HERE}.cft:CFTTrainer", CFTOptions),
}

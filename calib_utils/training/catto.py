"""CATTO: a token-level calibration loss added to DPO (arXiv 2601.23096), as a trainer in place of trl's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from trl import DPOConfig, DPOTrainer

from calib_utils.training import losses
from calib_utils.training.compat import scored_head


def check_trainable(model: torch.nn.Module) -> None:
    """Raise ValueError for a model of which no weight would be trained, as `models.load` gives it."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no weight of the model is trainable: pass a peft_config, or call model.requires_grad_(True) to train all"
        )


@dataclass
class CATTOConfig(DPOConfig):
    """`trl.DPOConfig` with the calibration term: L = L_DPO + lambda (L_cal(chosen) + L_cal(rejected)).

    The defaults are the paper's literal form. `[choice]` marks what the paper leaves open.

    Attributes
    ----------
    calibration_weight : lambda >= 0; 0 is DPO itself.
    surrogate_temperature : s > 0 of z = sigmoid(margin / s); 1 is the literal form.
    surrogate_gradient : let the gradient through z [choice].
    rejected_side : what dispreferred responses are compared with: `"z"` [paper], `"1-z"`, or `"off"`.
    calibration_form : `"l1"` [paper], `"l2"` or `"bce"`.
    """

    calibration_weight: float = field(default=1.0, metadata={"help": "Weight of the calibration term (lambda)."})
    surrogate_temperature: float = field(default=1.0, metadata={"help": "Temperature s of the surrogate."})
    surrogate_gradient: bool = field(default=True, metadata={"help": "Whether gradients flow through z."})
    rejected_side: str = field(default="z", metadata={"help": "Target on dispreferred responses: z, 1-z or off."})
    calibration_form: str = field(default="l1", metadata={"help": "Distance of confidence and target: l1, l2, bce."})

    def __post_init__(self):
        super().__post_init__()
        if not self.calibration_weight >= 0:
            raise ValueError(f"calibration_weight is {self.calibration_weight}; it must be 0 or more")
        probe = torch.full((1, 1), 0.5)  # the loss itself refuses what it does not know
        losses.catto(probe, probe, probe, True, *self.calibration)

    @property
    def calibration(self) -> tuple:
        """The choices of `losses.catto`, in its order."""
        return self.surrogate_temperature, self.surrogate_gradient, self.rejected_side, self.calibration_form


class CATTOTrainer(DPOTrainer):
    """`trl.DPOTrainer` with the calibration term of `CATTOConfig`; everything else is trl's own.

    The term is computed from the same projection to the vocabulary as DPO's log-probabilities: no second pass of
    the policy, no second output layer. Logs `calibration/chosen`, `calibration/rejected` (the two terms) and
    `confidence/chosen`, `confidence/rejected` (mean c_t).
    """

    _tag_names: ClassVar[list[str]] = ["trl", "dpo", "catto"]
    _name = "CATTO"

    def __init__(self, model=None, ref_model=None, args: CATTOConfig | None = None, **options):
        """As `trl.DPOTrainer`.

        Raises TypeError for any other configuration than a `CATTOConfig`, ValueError for a model without a weight to
        train.
        """
        if not isinstance(args, CATTOConfig):
            raise TypeError(f"CATTOTrainer takes a CATTOConfig, got {type(args).__name__}")
        super().__init__(model, ref_model, args, **options)
        check_trainable(self.model)

    def _compute_loss(self, model, inputs, return_outputs):
        if self.args.calibration_weight == 0:
            return super()._compute_loss(model, inputs, return_outputs)
        scored: list[tuple[torch.Tensor, torch.Tensor]] = []
        with scored_head(scored, compact=True):
            result = super()._compute_loss(model, inputs, return_outputs)
        confidence, margin = self._at_their_places(scored, inputs["completion_mask"][:, 1:])
        terms = self._terms(confidence, margin, inputs["completion_mask"][:, 1:])
        loss, *outputs = result if return_outputs else (result,)
        loss = loss + self.args.calibration_weight * (terms["chosen"] + terms["rejected"])
        return (loss, *outputs) if return_outputs else loss

    @staticmethod
    def _at_their_places(scored: list, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the policy's projection found, the first of the step, as (B, T); 0 outside the completions."""
        mask = mask.bool()
        return tuple(row.new_zeros(mask.shape).masked_scatter(mask, row) for row in scored[0])

    def _terms(self, confidence, margin, mask) -> dict[str, torch.Tensor]:
        mode = "train" if self.model.training else "eval"
        terms = {}
        # The batch is [chosen, rejected].
        parts = zip(confidence.chunk(2), margin.chunk(2), mask.chunk(2), strict=True)
        for (c, m, inside), side in zip(parts, ("chosen", "rejected"), strict=True):
            each = losses.catto(c, m, inside, side == "rejected", *self.args.calibration)
            terms[side] = each.mean()
            means = losses.response_mean(c, inside)
            for name, values in (("calibration", each), ("confidence", means)):
                gathered = self.accelerator.gather_for_metrics(values.detach())
                self._metrics[mode][f"{name}/{side}"].append(gathered.mean().item())
        return terms

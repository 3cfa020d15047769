"""CFT and RCFT: calibration-aware fine-tuning on multiple choice (arXiv 2505.01997), in place of trl's SFTTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from trl import SFTConfig, SFTTrainer
from trl.data_utils import common_prefix_length

from calib_utils.metrics import ece_equal_width, equal_width_bins
from calib_utils.training import losses
from calib_utils.training.catto import check_trainable
from calib_utils.training.compat import scored_head

OPTIONS = range(2, 11)
_STATE = "calibration.safetensors"


@dataclass
class CFTConfig(SFTConfig):
    """`trl.SFTConfig` for rows of prompt, choices and label: L = L_CE(right option) + lambda L_ECE.

    Attributes
    ----------
    calibration_weight : lambda >= 0. 0 is CFT, cross-entropy alone; 1 is the paper's RCFT.
    n_bins : bins of equal width that the top option's probability is sorted into.
    estimate_steps : optimisation steps between two E-steps; 0: every epoch.
    completion_only_loss : trl's own: True trains on the answer only, False on context and answer.
    """

    calibration_weight: float = field(default=0.0, metadata={"help": "Weight of the calibration term (lambda)."})
    n_bins: int = field(default=10, metadata={"help": "Bins of equal width of the top option's probability."})
    estimate_steps: int = field(default=0, metadata={"help": "Steps between two E-steps; 0: every epoch."})

    def __post_init__(self):
        super().__post_init__()
        if not self.calibration_weight >= 0:
            raise ValueError(f"calibration_weight is {self.calibration_weight}; it must be 0 or more")
        if self.n_bins < 1 or self.estimate_steps < 0:
            raise ValueError(
                f"n_bins = {self.n_bins} must be 1 or more, estimate_steps = {self.estimate_steps} 0 or more"
            )


def check_choices(rows: Sequence[dict]) -> None:
    """Raise ValueError for a row with too few or too many options, two that are the same, or a label beyond them.

    A row has prompt, choices (2 to 10 texts), label (index of the right one), and may have an id to be named by. No
    rows at all, or one without these, is a ValueError, too.
    """
    if not len(rows):
        raise ValueError("there are no rows to train on; give rows of prompt, choices and label")
    for number, row in enumerate(rows):
        missing = [name for name in ("prompt", "choices", "label") if name not in row]
        if missing:
            raise ValueError(f"row {number} has no {missing[0]!r}; it has the fields {sorted(row)}")
        name = f"question {row.get('id', number)!r} ({str(row['prompt'])[-60:]!r})"
        choices, label = row["choices"], row["label"]
        if len(choices) not in OPTIONS:
            raise ValueError(f"{name} has {len(choices)} options; it takes 2 to 10")
        plain = [str(choice).strip().casefold() for choice in choices]
        if len(set(plain)) < len(plain) or not all(plain):
            raise ValueError(f"{name} has options that are empty or the same: {choices}; drop or mend it")
        if not isinstance(label, int) or not 0 <= label < len(choices):
            raise ValueError(f"{name} has label {label!r}; it must be the index of one of {len(choices)} options")


class CFTTrainer(SFTTrainer):
    """`trl.SFTTrainer` on multiple-choice rows, with RCFT's calibration term.

    The probability of an option is that of its full text and the end-of-sequence token after the prompt, renormalised
    over the options (tokens of the options: one or several). RCFT alternates: the E-step sorts every training row
    into a bin by its top option's probability under the current model and takes each bin's accuracy; the M-step is
    training towards these (`losses.rcft`) until the next E-step. Logs `calibration/loss`, `calibration/ece` (of
    the training rows at the last E-step) and `calibration/accuracy`.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "sft", "cft"]
    _name = "CFT"

    def __init__(self, model=None, args: CFTConfig | None = None, *, train_dataset=None, **options):
        """As `trl.SFTTrainer`, without its own collator; rows as in `check_choices`, plain text.

        Raises TypeError for any other configuration than a `CFTConfig`, ValueError for unusable or missing rows or
        a model without a weight to train.
        """
        if not isinstance(args, CFTConfig):
            raise TypeError(f"CFTTrainer takes a CFTConfig, got {type(args).__name__}")
        if train_dataset is None:
            raise ValueError("train_dataset is None; CFTTrainer takes rows of prompt, choices and label")
        check_choices(train_dataset)
        self._rows, self._estimated = list(train_dataset), None
        answers = Dataset.from_list(
            [
                {"prompt": row["prompt"], "completion": row["choices"][row["label"]], "row": i}
                for i, row in enumerate(self._rows)
            ]
        )
        super().__init__(model, args, train_dataset=answers, **options)
        check_trainable(self.model)
        self.data_collator = _WithRow(self.data_collator)
        self._pad = self.processing_class.pad_token_id

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "row" not in self._signature_columns:
            self._signature_columns.append("row")

    def training_step(self, model, inputs, num_items_in_batch=None):
        """trl's step, after an E-step where one is due."""
        if self.args.calibration_weight and self._due():
            self._estimate()
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """trl's loss, plus lambda times `losses.rcft` of the batch in training."""
        rows = inputs.pop("row", None)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not (self.args.calibration_weight and self.model.training):
            return result
        p, mask = self.option_probabilities(model, [self._rows[i] for i in rows.tolist()])
        bins, accuracy = (values[rows] for values in (self._estimated["bins"], self._estimated["accuracy"]))
        # The bins are those of the whole batch, of which each process has a part; gradients are averaged over them.
        sizes = (bins[:, None] == self.accelerator.gather(bins)).sum(dim=1)
        term = losses.rcft(p, accuracy, bins, mask, sizes) * self.accelerator.num_processes
        gathered = self.accelerator.gather(term.detach())
        self._metrics["train"]["calibration/loss"].append(gathered.mean().item())
        loss, *outputs = result if return_outputs else (result,)
        scale = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        loss = loss + self.args.calibration_weight * term / scale
        return (loss, *outputs) if return_outputs else loss

    def option_probabilities(self, model, rows: Sequence[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        """(p, mask), each (n, K): probabilities of the options of every row, and where there is an option."""
        ids, starts, places = [], [], []
        end = [self.processing_class.eos_token_id]
        for i, row in enumerate(rows):
            prompt = self.processing_class(row["prompt"]).input_ids
            for j, choice in enumerate(row["choices"]):
                whole = self.processing_class(row["prompt"] + choice).input_ids
                ids.append(whole + end)
                starts.append(common_prefix_length(prompt, whole))
                places.append((i, j))
        device = self.accelerator.device
        inputs = pad_sequence([torch.tensor(row) for row in ids], True, self._pad).to(device)
        inside = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in ids], True).to(device)
        position = torch.arange(inputs.shape[1], device=device)
        labels = inputs.masked_fill((inside == 0) | (position < torch.tensor(starts, device=device)[:, None]), -100)
        with scored_head(compact=True), self.compute_loss_context_manager():
            found = model(input_ids=inputs, attention_mask=inside, labels=labels, fused_lm_head=True)
        where = torch.tensor(places, device=device).T
        most = max(len(row["choices"]) for row in rows)
        scores = torch.full((len(rows), most), -torch.inf, device=device)
        scores = scores.index_put(tuple(where), found.log_probs.float().sum(dim=1))
        return scores.softmax(dim=1), torch.isfinite(scores.detach())

    def _due(self) -> bool:
        step = self.state.global_step
        step_rows = (
            self.args.train_batch_size * self.accelerator.num_processes * self.args.gradient_accumulation_steps
        )
        every = self.args.estimate_steps or -(-len(self._rows) // step_rows)
        return self._estimated is None or step // every > int(self._estimated["step"]) // every

    @torch.no_grad()
    def _estimate(self) -> None:
        """The E-step: bin and bin accuracy of every training row under the current model."""
        here = range(self.accelerator.process_index, len(self._rows), self.accelerator.num_processes)
        size, found = self.args.per_device_eval_batch_size, []
        self.model.eval()
        try:
            for start in range(0, len(here), size):
                part = list(here[start : start + size])
                p, _ = self.option_probabilities(self.model, [self._rows[i] for i in part])
                top = p.max(dim=1)
                found += zip(part, top.values.tolist(), top.indices.tolist(), strict=True)
        finally:
            self.model.train()
        found = sorted(gather_object(found)) if self.accelerator.num_processes > 1 else found
        confidence = np.array([min(value, 1.0) for _, value, _ in found])
        correct = np.array([float(choice == self._rows[i]["label"]) for i, _, choice in found])
        bins = equal_width_bins(confidence, self.args.n_bins)
        accuracy = np.bincount(bins, correct) / np.bincount(bins).clip(min=1)
        self._estimated = {
            "bins": torch.from_numpy(bins).to(self.accelerator.device),
            "accuracy": torch.from_numpy(accuracy[bins]).float().to(self.accelerator.device),
            "step": torch.tensor(self.state.global_step),
        }
        ece = ece_equal_width(confidence, correct, np.ones((1, len(correct))), self.args.n_bins)
        self._metrics["train"]["calibration/ece"].append(float(ece[0]))
        self._metrics["train"]["calibration/accuracy"].append(float(correct.mean()))

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self._estimated is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            save_file({name: value.cpu().contiguous() for name, value in self._estimated.items()}, folder / _STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = Path(resume_from_checkpoint) / _STATE
        if state.exists():
            self._estimated = load_file(state, device=str(self.accelerator.device))


class _WithRow:
    """trl's collator, and the number of each row."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, examples):
        rows = torch.tensor([example.pop("row", -1) for example in examples])  # rows to evaluate on have no number
        return {**self.collate(examples), "row": rows}

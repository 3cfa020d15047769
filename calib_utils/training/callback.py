"""Callback: calibration on fixed questions while a trainer of transformers or trl trains."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from calib_utils import prompts
from calib_utils.errors import TrainingError
from calib_utils.metrics import evaluate
from calib_utils.models import LanguageModel
from calib_utils.sampling import option_logprobs, sample
from calib_utils.semantics import of_style, score, score_options
from calib_utils.types import Collapse, Question, Record

log = logging.getLogger(__name__)


class CalibrationCallback(TrainerCallback):
    """Accuracy, signed gap, smECE and confidence on a fixed question set, in the trainer's own log.

    Every `every` steps, at the start and at the end, a line goes to the trainer's log, and with it to every tracker
    that the trainer reports to, of

    ===========================  ==================================================================================
    `calibration/accuracy`       share of questions whose most probable answer is right
    `calibration/confidence`     mean probability of that answer
    `calibration/gap`            confidence less accuracy: positive is overconfident
    `calibration/smece`          the debiased smECE (`metrics.evaluate`)
    `calibration/smece_floor`    what a calibrated model with these confidences would read at most
    `calibration/seconds`        how long the measurement took
    ===========================  ==================================================================================

    Training goes on as if nothing had been measured: the weights at its end are the same to the last bit. The states
    of all random generators are put back, as is every module's mode, and nothing is measured with gradients.

    Measuring takes at most the share `budget` of the whole run, by the time that steps have taken so far: where that
    is not enough for every `every` steps, the measurements stand further apart. The first one is made in any case,
    because it tells what the others will cost.

    Parameters
    ----------
    trainer : the trainer to add it to, as for trl's own callbacks:
        ``trainer.add_callback(CalibrationCallback(trainer, questions))``.
    questions : what is asked, always the same. They should not be trained on.
    every : steps between measurements.
    budget : largest share of the run's time, above 0 and below 1.
    shots, style, chat : as `prompts.build_prompts`; `chat` uses the tokenizer's template.
    n_samples : draws per question.
    choice : rate the questions' options instead of drawing answers.
    collapse : what counts as the same answer.
    seed : of the draws, which are the same at every measurement.

    Raises
    ------
    ValueError : no questions, `every` below 1, or a budget out of range.
    TrainingError : weights that are spread over devices (FSDP, DeepSpeed), or a tokenizer that is none.
    """

    def __init__(
        self,
        trainer: Trainer,
        questions: Sequence[Question],
        every: int = 50,
        budget: float = 0.1,
        shots: Sequence[Question] = (),
        style: str = "concise",
        chat: bool = False,
        n_samples: int = 20,
        choice: bool = False,
        collapse: Collapse | None = None,
        seed: int = 0,
    ) -> None:
        """As above."""
        if not questions or every < 1 or not 0 < budget < 1:
            raise ValueError(
                f"{len(questions)} questions every {every} steps with a budget of {budget}: give at least one "
                "question and step, and a budget above 0 and below 1"
            )
        if getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_deepspeed_enabled", False):
            raise TrainingError(
                "CalibrationCallback needs the whole weights on one device; leave FSDP or DeepSpeed out"
            )
        tokenizer = trainer.processing_class
        if not callable(getattr(tokenizer, "decode", None)):
            raise TrainingError(f"the trainer's processing_class is {type(tokenizer).__name__}; give it a tokenizer")
        self.trainer, self.tokenizer, self.questions = trainer, tokenizer, list(questions)
        self.every, self.budget, self.choice = every, budget, choice
        self.collapse = of_style(style, chat=chat) if collapse is None else collapse
        self.asked = prompts.build_prompts(self.questions, shots, style, tokenizer if chat else None)
        self.config = prompts.sampling_config(style, n_samples, seed)
        self.ending = prompts.ending(tokenizer, bool(shots) and not chat)
        self.spacing: float = every
        self.spent, self.cost, self.last = 0.0, 0.0, -1

    def on_train_begin(self, args, state, control, **_):
        """Measure what training starts from."""
        self.began, self.first = time.perf_counter(), state.global_step
        self.spent, self.spacing = 0.0, self.every
        self._measure(state)

    def on_step_end(self, args, state, control, **_):
        """Measure where it is time to, and set the spacing by what measuring and training cost."""
        steps = state.global_step - self.first
        trained = time.perf_counter() - self.began - self.spent
        self.spacing = self._spacing(trained / max(steps, 1) * (state.max_steps - self.first), state)
        if state.global_step - self.last >= self.spacing:
            self._measure(state)

    def on_train_end(self, args, state, control, **_):
        """Measure what training ended with, if the budget holds that too."""
        trained = time.perf_counter() - self.began - self.spent
        if state.global_step != self.last and self.spent + self.cost <= self._allowed(trained):
            self._measure(state)

    def _allowed(self, trained: float) -> float:
        """Seconds of measuring beside which `trained` seconds of training leave the share at the budget."""
        return self.budget / (1 - self.budget) * trained

    def _spacing(self, trained: float, state) -> float:
        further = math.floor((self._allowed(trained) - self.spent) / max(self.cost, 1e-9))
        needed = (state.max_steps - self.last) / further if further >= 1 else math.inf
        if needed > self.every and self.spacing <= self.every:
            log.warning(
                "a measurement takes %.2g s: with a budget of %.0f %% of the time there is one every %s steps, not "
                "every %d; fewer questions or draws make room",
                self.cost,
                100 * self.budget,
                "inf" if math.isinf(needed) else math.ceil(needed),
                self.every,
            )
        return max(self.every, math.ceil(needed)) if math.isfinite(needed) else math.inf

    def _measure(self, state) -> None:
        self.last = state.global_step
        if not state.is_world_process_zero:
            return
        start = time.perf_counter()
        with _undisturbed(self.trainer.model):
            table = self._scores()
            pair = table["confidence"], table["correct"]
            error = evaluate(*pair, "smece", n_boot=200)
        self.cost = time.perf_counter() - start
        self.spent += self.cost
        values = {
            "accuracy": float(pair[1].mean()),
            "confidence": float(pair[0].mean()),
            "gap": float(pair[0].mean() - pair[1].mean()),
            "smece": error.value,
            "smece_floor": error.floor,
            "seconds": self.cost,
        }
        due = self.trainer.control.should_log
        # Not trl's own `log`, which would close the averages of the training step that is not over yet.
        Trainer.log(self.trainer, {f"calibration/{name}": value for name, value in values.items()})
        self.trainer.control.should_log = due  # the line with the loss is still to come

    def _scores(self):
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
        policy = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        lm = LanguageModel.of(policy, self.tokenizer, "the model in training", "")
        with self.trainer.accelerator.autocast():
            if self.choice:
                options = prompts.option_texts(self.questions, self.asked)
                return score_options(self.questions, option_logprobs(lm, self.asked, options, self.ending))
            drawn = sample(lm, self.asked, self.config)
        records = [
            Record(question, tuple(completions), (), {}, "")
            for question, completions in zip(self.questions, drawn, strict=True)
        ]
        return score(records, self.collapse)


@contextlib.contextmanager
def _undisturbed(model: torch.nn.Module):
    """Within it the model is in evaluation mode; after it modes and random states are what they were."""
    modes = {module: module.training for module in model.modules()}
    # The old generator of numpy is what trainers draw from.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    model.eval()  # no dropout, and no gradient checkpointing, which would switch the cache off
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)

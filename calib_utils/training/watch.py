"""What a stage's trainer does beside training: show progress, keep weights, stop when a number is not finite."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from calib_utils.errors import TrainingError
from calib_utils.training.stage import Stage


class Watch(TrainerCallback):
    """Progress, checkpoints at the kept steps and in between, and a stop when loss or gradient is not finite.

    Parameters
    ----------
    stage : what is trained.
    work : where the trainer leaves its checkpoints.
    progress : show a text progress bar.
    """

    _SHOWN = ("loss", "logps/chosen", "logps/rejected", "reward")

    def __init__(self, stage: Stage, work: Path, progress: bool) -> None:
        """As above."""
        self.work, self.stage, self.progress, self.bar = work, stage, progress, None
        self.every = max(20, stage.steps // 5)

    def on_train_begin(self, args, state, control, **_):
        """Open the bar."""
        self.bar = tqdm(
            total=self.stage.steps,
            initial=state.global_step,
            desc=self.stage.method,
            unit="step",
            mininterval=5,
            disable=not self.progress,
        )

    def on_step_end(self, args, state, control, **_):
        """Keep weights where the stage asks for them, and now and then."""
        step = state.global_step
        control.should_save = step in self.stage.keep or step == self.stage.steps or step % self.every == 0
        self.bar.update(1)
        return control

    def on_log(self, args, state, control, logs=None, **_):
        """Raise TrainingError for a loss or gradient that is not finite."""
        # A gradient that is not finite spoils the weights of this very step, before the loss can show it. In
        # float16 the scaler skips such steps by itself.
        watched = ("loss",) if args.fp16 else ("loss", "grad_norm")
        wrong = {name: logs[name] for name in watched if not math.isfinite(float((logs or {}).get(name, 0)))}
        for name, value in wrong.items():
            last = last_checkpoint(self.work)
            raise TrainingError(
                f"{self.stage.method} diverged at step {state.global_step}: the {name} is {value}. The last good "
                f"weights are {last or 'those it started from'}; lower learning_rate (now {self.stage.learning_rate})"
            )
        shown = {name: f"{float(logs[name]):.3g}" for name in self._SHOWN if name in logs}
        self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args, state, control, **_):
        """Close the bar."""
        self.bar.close()


def last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint, without those that are not: the trainer's state is what it writes last."""
    for folder in work.glob("checkpoint-*"):
        try:
            json.loads((folder / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(folder)
    return get_last_checkpoint(str(work)) if work.is_dir() else None

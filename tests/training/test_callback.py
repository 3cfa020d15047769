"""Calibration while a trainer trains."""

import random
import re
from itertools import product

import numpy as np
import pytest
import torch
from conftest import tiny_model
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from calib_utils.errors import TrainingError
from calib_utils.home import ROOT
from calib_utils.metrics import evaluate
from calib_utils.models import LanguageModel
from calib_utils.sampling import option_logprobs
from calib_utils.semantics import score_options
from calib_utils.training import CalibrationCallback
from calib_utils.types import Question

COLOURS = ("red", "blue", "green")
QUESTIONS = [
    Question(f"q/{i}", f"{first} {second}", COLOURS[i % 3], "r", "test", "x.", choices=COLOURS)
    for i, (first, second) in enumerate(product(("one", "two", "yes"), ("#", ":", "Q")))
]
ROWS = [{"prompt": f"Q {q.text} A", "chosen": f" {q.answer}", "rejected": " no"} for q in QUESTIONS]
STEPS = 6


class Tracker(TrainerCallback):
    """What a tracker such as TensorBoard is given."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **_):
        self.seen.append({"step": state.global_step, **logs})


class Disturbing(TrainerCallback):
    """Draws a number at every step: training is to go on with the same random numbers."""

    def __init__(self):
        self.drawn = []

    def on_step_end(self, args, state, control, **_):
        self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))  # noqa: NPY002


def trainer_in(folder, tracker=None):
    torch.manual_seed(0)
    lm = tiny_model()
    args = DPOConfig(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=3,
        learning_rate=1e-2,
        logging_steps=3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.3, target_modules="all-linear", task_type="CAUSAL_LM")
    options = {"processing_class": lm.tokenizer, "peft_config": lora, "callbacks": [tracker or Tracker()]}
    return DPOTrainer(lm.model, args=args, train_dataset=Dataset.from_list(ROWS), **options)


def trained(folder, **options):
    tracker, noise = Tracker(), Disturbing()
    trainer = trainer_in(folder, tracker)
    if options:
        trainer.add_callback(CalibrationCallback(trainer, QUESTIONS, **options))
    trainer.add_callback(noise)
    trainer.train()
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    return trainer, tracker, noise, weights


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("choice", [False, True])
def test_training_ends_in_the_same_weights_with_and_without_it(plain, tmp_path, choice):
    trainer, tracker, noise, weights = trained(tmp_path, every=2, budget=0.99, n_samples=6, choice=choice)
    assert all(torch.equal(value, weights[name]) for name, value in plain[3].items())
    assert noise.drawn == plain[2].drawn
    measured = [row for row in trainer.state.log_history if "calibration/smece" in row]
    assert [row["step"] for row in measured] == [0, 2, 4, 6]
    seen = [row["step"] for row in tracker.seen if "calibration/gap" in row]
    assert seen == [0, 2, 4, 6]  # a tracker that was there before gets them too
    for row in measured:
        assert row["calibration/gap"] == pytest.approx(row["calibration/confidence"] - row["calibration/accuracy"])
    rest = [[row for row in run.state.log_history if "loss" in row] for run in (trainer, plain[0])]
    assert rest[0] == rest[1]  # trl's own averages are over the same steps


def test_the_numbers_are_those_of_the_model_as_it_is_then(tmp_path):
    trainer, _, _, _ = trained(tmp_path, every=STEPS, budget=0.99, choice=True)
    policy = trainer.model.get_base_model().eval()
    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, CalibrationCallback))
    lm = LanguageModel.of(policy, trainer.processing_class, "m", "")
    rated = option_logprobs(lm, callback.asked, [[f" {c}" for c in COLOURS]] * 9, trainer.processing_class.eos_token)
    table = score_options(QUESTIONS, rated)
    found = next(row for row in reversed(trainer.state.log_history) if "calibration/smece" in row)
    assert found["calibration/accuracy"] == table["correct"].mean() and found["step"] == STEPS
    assert found["calibration/confidence"] == pytest.approx(table["confidence"].mean(), abs=1e-6)
    assert found["calibration/smece"] == evaluate(table["confidence"], table["correct"], "smece", n_boot=200).value


def test_over_budget_measurements_stand_further_apart(tmp_path, caplog):
    trainer, _, _, _ = trained(tmp_path, every=1, budget=1e-6, n_samples=6)
    assert [row["step"] for row in trainer.state.log_history if "calibration/gap" in row] == [0]
    assert "there is one every inf steps, not every 1" in caplog.text


def test_the_spacing_keeps_the_share_of_time(tmp_path):
    trainer = trainer_in(tmp_path)
    callback = CalibrationCallback(trainer, QUESTIONS, every=10, budget=0.1)
    state = trainer.state
    state.max_steps, callback.first, callback.last, callback.cost, callback.spent = 1000, 0, 0, 2.0, 2.0
    assert callback._spacing(9000.0, state) == 10  # 1,000 s may be measured, 200 s are
    assert callback._spacing(90.0, state) == 250  # 10 s may be: 4 measurements more
    assert callback._spacing(20.0, state) == float("inf")
    spent = 2.0 + 2.0 * (1000 // 250)
    assert spent / (90.0 + spent) == pytest.approx(0.1)


def test_what_it_cannot_work_with_is_refused(tmp_path):
    trainer = trainer_in(tmp_path)
    for wrong in ({"every": 0}, {"budget": 0.0}, {"budget": 1.0}):
        with pytest.raises(ValueError, match="give at least one question and step, and a budget above 0"):
            CalibrationCallback(trainer, QUESTIONS, **wrong)
    with pytest.raises(ValueError, match="0 questions"):
        CalibrationCallback(trainer, [])
    trainer.processing_class = None
    with pytest.raises(TrainingError, match="processing_class is NoneType; give it a tokenizer"):
        CalibrationCallback(trainer, QUESTIONS)


def test_the_lines_of_the_readme_run(tmp_path):
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Your model\n")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    trainer = trainer_in(tmp_path)
    exec(lines, {"trainer": trainer, "questions": QUESTIONS})
    assert trainer.state.global_step == STEPS and "calibration/gap" in trainer.state.log_history[0]

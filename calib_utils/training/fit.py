"""Fitting: one stage trained by trl in a working folder, and moved to its place."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from safetensors import SafetensorError

from calib_utils import models, prompts, storage
from calib_utils.errors import TrainingError
from calib_utils.records import reference_ids
from calib_utils.training.compat import scored_head, silence_experiments, unnamed_data
from calib_utils.training.key import versions
from calib_utils.training.methods import METHODS
from calib_utils.training.reward import correctness_reward, rollout_by_sampler
from calib_utils.training.rows import MAKE_ROWS
from calib_utils.training.run import Run
from calib_utils.training.trained import Trained

if TYPE_CHECKING:
    from transformers import TrainerCallback


def _policy(run: Run):
    """The model to train: a new adapter, the parent's adapter to go on with, or all weights in float32."""
    from peft import LoraConfig, PeftModel, get_peft_model

    stage, base = run.stage, run.base
    name, adapter = (base.name, None) if run.parent is None else run.parent.where(stage.parent_step)
    if not stage.lora_rank:
        model = models.load(name, "float32", str(base.device), adapter).model
        return model.requires_grad_(True)
    fresh = models.load(name, base.dtype, str(base.device))
    if name == base.name and fresh.fingerprint != base.fingerprint:
        raise TrainingError(
            f"{base.name!r} loads with the fingerprint {fresh.fingerprint}, the base model given has "
            f"{base.fingerprint}: it has an adapter, or changed since; save it to a folder and start from that"
        )
    model = fresh.model
    torch.manual_seed(stage.seed)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    else:
        lora = LoraConfig(
            r=stage.lora_rank, lora_alpha=2 * stage.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, lora)
    return model


def fit(run: Run) -> None:
    """Train in a working folder next to the final one, resuming where it stopped, and move it there."""
    from datasets import Dataset, disable_progress_bars

    from calib_utils.training.watch import Watch, last_checkpoint

    stage, work = run.stage, run.work
    examples = MAKE_ROWS[stage.rows](run)
    disable_progress_bars()
    watch = [Watch(stage, work, run.progress), *run.callbacks]
    light = scored_head(compact=True) if run.base.device.type == "cpu" else contextlib.nullcontext()
    try:
        with _written(work), light, unnamed_data(), models.without_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that trl and peft still use, pinned here
            trainer = _trainer(run, Dataset.from_list(examples), watch)
            trainer.train(resume_from_checkpoint=last_checkpoint(work))
        log = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row and row["step"] <= stage.steps])
    finally:  # trl ties the model to itself: only the collector frees it, and the next stage needs the room
        trainer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if stage.rows == "questions" and (log["frac_reward_zero_std"] == 1).all():
        raise TrainingError(
            f"the reward was the same for all {stage.group_size} answers of every question in all {stage.steps} "
            f"steps (mean {log['reward'].mean():.3g}): nothing was learned. Take questions that the model gets "
            "right sometimes, a larger group_size, or check the collapse function"
        )
    with _written(run.done.folder):
        _publish(run.done, work, log)


@contextlib.contextmanager
def _written(folder: Path):
    """Within it a full disk is a TrainingError, in whichever words the libraries that write tell of it."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch.save
            raise
        raise TrainingError(
            f"cannot write {folder}: {error}; free space or choose another folder. Training goes on from its last "
            "whole checkpoint"
        ) from error


def _trainer(run: Run, rows, callbacks: list[TrainerCallback]):
    """trl's trainer of the stage's method, with its configuration."""
    from transformers import PrinterCallback

    stage, base = run.stage, run.base
    cpu = base.device.type == "cpu"
    settings = {
        "output_dir": str(run.work),
        "max_steps": stage.steps,
        "per_device_train_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # the callback says when
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": cpu,
        "bf16": base.dtype == "bfloat16",
        "fp16": base.dtype == "float16",
        "gradient_checkpointing": not cpu,
        "seed": stage.seed,
        "max_length": None,
        **stage.settings,
    }
    policy = _policy(run)
    arguments = {"train_dataset": rows, "processing_class": base.tokenizer, "callbacks": callbacks}
    if stage.rows == "pairs":
        settings = dict(**settings, beta=stage.beta)
        arguments["ref_model"] = None if stage.lora_rank else _policy(run).requires_grad_(False)
    elif stage.rows == "questions":
        silence_experiments()
        del settings["max_length"]
        settings["per_device_train_batch_size"] *= stage.group_size
        pairs = zip(run.asked, run.questions, strict=True)
        references = [reference_ids(base, prompt, question) for prompt, question in pairs]
        settings |= {"num_generations": stage.group_size, "beta": stage.beta}
        settings["max_completion_length"] = prompts.STYLES[stage.style].max_new_tokens
        arguments["reward_funcs"] = correctness_reward(run.questions, references, run.collapse)
        arguments["rollout_func"] = rollout_by_sampler(run)
    method = METHODS[stage.method]
    configure, build = pkgutil.resolve_name(method.config), pkgutil.resolve_name(method.trainer)
    trainer = build(policy, args=configure(**settings), **arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _publish(done: Trained, work: Path, log: pd.DataFrame) -> None:
    """Weights of the kept steps, the log and what made them, moved into place in one rename."""
    stage = done.stage
    ready = done.folder.with_suffix(".ready")
    shutil.rmtree(ready, ignore_errors=True)
    wanted = ("adapter_*",) if stage.lora_rank else ("*.json", "*.safetensors", "*.jinja", "*.model")
    for step in stage.kept:
        target = ready / f"step-{step}"
        target.mkdir(parents=True)
        for pattern in wanted:
            for file in (work / f"checkpoint-{step}").glob(pattern):
                shutil.copy2(file, target)
        (target / "trainer_state.json").unlink(missing_ok=True)
        if stage.lora_rank:  # the same weights get the same description, without this machine's folders in it
            described = json.loads((target / "adapter_config.json").read_text())
            described |= {"base_model_name_or_path": done.base, "target_modules": sorted(described["target_modules"])}
            (target / "adapter_config.json").write_text(json.dumps(described, indent=1, sort_keys=True))
    log.to_csv(ready / "log.csv", index=False)
    about = {"key": done.key, "stage": stage.as_row(), "versions": versions()}
    storage.publish(ready / "stage.json", json.dumps(about, indent=1))
    storage.share(ready)
    os.replace(ready, done.folder)
    shutil.rmtree(work)

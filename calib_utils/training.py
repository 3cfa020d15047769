"""Training: a lineage of stages (base -> SFT -> DPO or GRPO), run with trl and peft, each stage cached."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import pkgutil
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError

from calib_utils import family, files, models, prompts
from calib_utils.data import DataError, Question
from calib_utils.lm_head import scored_head
from calib_utils.models import LanguageModel
from calib_utils.records import Record, collect, reference_ids
from calib_utils.sampling import Prompt, SamplingConfig, sample
from calib_utils.semantics import NO_ANSWER, Collapse, Response, class_distribution, classes, right_class
from calib_utils.stages import METHODS, Stage, TrainingError

if TYPE_CHECKING:
    from transformers import TrainerCallback

_VERSION = 1  # part of every key: change it when the same stage would train differently
_PACKAGE = __name__.partition(".")[0]
_DRAWS = 8  # draws per question that tell which answers are wrong, and which questions are undecided


@dataclass(frozen=True)
class Trained:
    """A finished stage.

    Attributes
    ----------
    stage : what was trained.
    key : hash of everything that determines the weights, parents included.
    folder : holds `step-N/` (adapter or whole model) for every kept step, `log.csv` and `stage.json`.
    base : name of the model below the adapter: the base model, or the folder of a fully trained parent.
    dtype, device : how to load it.
    """

    stage: Stage
    key: str
    folder: Path
    base: str
    dtype: str
    device: str

    @property
    def log(self) -> pd.DataFrame:
        """One row per step: loss, and what the method reports (log-probabilities of chosen and rejected, reward)."""
        return pd.read_csv(self.folder / "log.csv")

    @property
    def finished(self) -> bool:
        """Whether the weights are there."""
        return (self.folder / "stage.json").exists()

    def where(self, step: int | None = None) -> tuple[str, str | None]:
        """Model and adapter after `step` (the last one by default), for `models.load`; KeyError if not kept."""
        step = self.stage.steps if step is None else step
        if step not in self.stage.kept:
            raise KeyError(f"step {step} of {self.stage.method} was not kept; kept: {self.stage.kept}")
        folder = str(self.folder / f"step-{step}")
        return (self.base, folder) if self.stage.lora_rank else (folder, None)

    def load(self, step: int | None = None) -> LanguageModel:
        """The model after `step`, with the adapter merged into the weights."""
        name, adapter = self.where(step)
        return models.load(name, self.dtype, self.device, adapter)


def train(
    stage: Stage,
    base: LanguageModel,
    questions: Sequence[Question],
    collapse: Collapse,
    folder: str | Path,
    chat: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train `stage` and the stages it comes from, or find them finished in `folder`.

    A stage is trained zero-shot in its own style. It resumes from its last checkpoint after a kill: same
    order of questions, same optimiser state. Finished weights appear under their final name at once or not at all.

    Parameters
    ----------
    base : the model that the lineage starts from; it is loaded anew for training and left alone.
    questions : training questions in a fixed order; each stage sees its window of them.
    collapse : B, which decides what is right: rewards, and which samples are wrong. A finished stage is found by it:
        a function of a module counts by its name (not by its body), a dataclass instance by its fields, a
        `functools.partial` by its function and arguments.
    folder : finished stages, checkpoints, and the draws that preference pairs are made of.
    chat : use the tokenizer's chat template.
    callbacks : handed to the trainer of every stage that is not finished yet.

    Raises
    ------
    DataError : a question outside the train split, or a window with fewer questions than asked for.
    TrainingError : unusable pairs, an empty completion, a diverged run, a reward that never varied, or a collapse
        function that has no name to find its stages by, such as a lambda.
    """
    models.needs_weights(base, "training")
    folder = Path(folder)
    parent = (
        None
        if stage.parent is None
        else train(stage.parent, base, questions, collapse, folder, chat, progress, callbacks)
    )
    own = _window(stage, questions)
    asked = prompts.build_prompts(own, [], stage.style, base.tokenizer if chat else None)
    meaning = _named(collapse)
    lineage = asdict(replace(stage, parent=None, parent_step=None))
    lineage |= {"parent": parent and parent.key, "parent_step": stage.parent_step}
    key = _digest(_VERSION, lineage, models.describe(base), _versions(), asked, [asdict(q) for q in own], meaning)
    below = base.name if parent is None else parent.where(stage.parent_step)[0]
    done = Trained(stage, key, folder / f"{stage.method}-{key}", below, base.dtype, str(base.device))
    if done.finished:
        return done
    with files.alone(done.folder):
        if not done.finished:
            _fit(done, base, parent, own, asked, collapse, progress, callbacks)
    return done


def _window(stage: Stage, questions: Sequence[Question]) -> Sequence[Question]:
    own = questions[stage.first : stage.first + stage.n_questions]
    strangers = [question.id for question in own if question.split != "train"]
    if strangers:
        raise DataError(f"training questions must come from the train split; {strangers[0]!r} does not")
    if len(own) < stage.n_questions:
        raise DataError(
            f"{stage.method} asks for {stage.n_questions} questions from number {stage.first} on; there are "
            f"{len(questions)} in all: lower n_questions or first"
        )
    return own


def _versions() -> dict[str, str]:
    return {name: models.version(name) for name in ("trl", "peft", "transformers", "torch")}


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=asdict).encode()).hexdigest()[:16]


def _named(value) -> str:
    """What identifies a collapse function, or a value in one, in every process; TrainingError for anything else.

    The package's own functions and classes go without their module, so that moving one to another module retrains
    nothing. All others have their module and a colon, and cannot be taken for one of the package. What is defined in
    a script or notebook is refused: the next script may give the same name to something else.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if type(value) in (list, tuple):
        items = ", ".join(map(_named, value))
        return f"[{items}]" if type(value) is list else f"({items}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{_named(k)}: {_named(v)}" for k, v in value.items()) + "}"
    if type(value) in (set, frozenset):  # the order of a set of texts differs between processes
        return f"{type(value).__name__}({sorted(map(_named, value))})"
    if type(value) is partial:
        parts = [value.func, *value.args]
        given = [f"{name}={_named(item)}" for name, item in sorted(value.keywords.items())]
        return f"partial({', '.join([*map(_named, parts), *given])})"
    if is_dataclass(value) and not isinstance(value, type):
        shown = ", ".join(f"{field.name}={_named(getattr(value, field.name))}" for field in fields(value))
        return f"{_named(type(value))}({shown})"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in (None, "__main__") or _found(module, name) is not value:
        raise TrainingError(
            f"a stage trained with {repr(value)[:80]} could not be found again: no other process knows it by a name. "
            "Define the collapse function at the top level of a module and import it, take one of `semantics`, or "
            "use a dataclass whose fields hold plain values"
        )
    return name if module.partition(".")[0] == _PACKAGE else f"{module}:{name}"


def _found(module: str, name: str | None):
    """What another process would import under this name; None for lambdas, local functions and bound methods."""
    found = sys.modules.get(module)
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    return found


def preference_pairs(records: Sequence[Record], collapse: Collapse, seed: int = 0) -> list[tuple[Question, str]]:
    """(question, rejected answer) per record: one wrong answer out of the model's own draws, in proportion to
    how often each was drawn. Questions that were never answered wrongly, and drafts that end without an answer,
    give no pair.

    Raises TrainingError when no record holds a wrong answer.
    """
    pairs = []
    for record in records:
        question = record.question
        right = right_class(question, collapse, record.reference_ids)
        wrong = [
            c
            for c, name in zip(record.completions, classes(question, record.completions, collapse), strict=True)
            if name not in (right, NO_ANSWER) and c.finished and c.text.strip()
        ]
        if wrong:
            rng = np.random.default_rng([seed, *question.id.encode()])
            counts = np.array([c.count for c in wrong])
            pairs.append((question, wrong[rng.choice(len(wrong), p=counts / counts.sum())].text.strip()))
    if not pairs:
        raise TrainingError("no draw was wrong: there is nothing to reject; take harder or more questions")
    return pairs


def undecided(records: Sequence[Record], collapse: Collapse) -> list[Question]:
    """The questions answered rightly in some draws and wrongly in others, the only ones with an advantage to learn
    from (the filter of dynamic sampling: Yu et al., 2025, DAPO). Raises TrainingError when there are none.
    """
    kept = []
    for record in records:
        right = right_class(record.question, collapse, record.reference_ids)
        share = class_distribution(record.question, record.completions, collapse).get(right, 0.0)
        if 0 < share < 1:
            kept.append(record.question)
    if not kept:
        raise TrainingError("every question was answered always rightly or always wrongly: no reward would vary")
    return kept


def distractor_pairs(questions: Sequence[Question], seed: int = 0) -> list[tuple[Question, str]]:
    """(question, rejected answer) per question: one of its wrong options; TrainingError if it has no options."""
    pairs = []
    for question in questions:
        wrong = [choice for choice in question.choices or () if choice != question.answer]
        if not wrong:
            raise TrainingError(f"question {question.id!r} has no wrong options; use rejected='samples'")
        rng = np.random.default_rng([seed, *question.id.encode()])
        pairs.append((question, wrong[rng.integers(len(wrong))]))
    return pairs


def check_pairs(pairs: Sequence[tuple[Question, str]], collapse: Collapse) -> None:
    """Raise TrainingError for an empty rejected answer or one that means the same as the reference."""
    for question, rejected in pairs:
        if not rejected.strip():
            raise TrainingError(f"question {question.id!r}: the rejected answer is empty; drop the pair")
        right = right_class(question, collapse)
        if collapse(Response(rejected), question) == right:
            raise TrainingError(
                f"question {question.id!r}: chosen {question.answer!r} and rejected {rejected!r} are the same "
                f"answer ({right!r}); drop the pair or change the collapse function"
            )


def _packed_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    drawn = family.rows(base.tokenizer, own, stage.steps * stage.batch_size, stage.seed)
    return [{"input_ids": ids} for ids in drawn]


def _reference_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text, answer = _texts(base, own, asked), _answers(stage, own, asked)
    return [_filled(base, {"prompt": text[q.id], "completion": answer[q.id]}) for q in own]


def _option_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text = _texts(base, own, asked)
    return [_with_options(q, text[q.id], asked[0].blank) for q in own]


def _pair_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text, answer = _texts(base, own, asked), _answers(stage, own, asked)
    pairs = preference_pairs(draw(), collapse, stage.seed) if stage.draws else distractor_pairs(own, stage.seed)
    check_pairs(pairs, collapse)
    return [
        _filled(base, {"prompt": text[q.id], "chosen": answer[q.id], "rejected": asked[0].blank + rejected})
        for q, rejected in pairs
    ]


def _question_rows(stage, base, own, asked, collapse, draw) -> list[dict]:
    text = _texts(base, own, asked)
    chosen = undecided(draw(), collapse) if stage.draws else own
    # One long epoch: the order of trl's later epochs is not restored when a run is resumed.
    rng = np.random.default_rng(stage.seed)
    rounds = -(-stage.steps * stage.batch_size // len(chosen))
    order = [chosen[i] for _ in range(rounds) for i in rng.permutation(len(chosen))]
    return [{"prompt": text[q.id], "id": q.id} for q in order]


# How the rows of each kind in `stages.ROWS` are made, as trl wants them. `draw()` gives the parent's draws.
_MAKE_ROWS: dict[str, Callable[..., list[dict]]] = {
    "packed": _packed_rows,
    "references": _reference_rows,
    "options": _option_rows,
    "pairs": _pair_rows,
    "questions": _question_rows,
}


def _texts(base: LanguageModel, own, asked) -> dict[str, str]:
    return {q.id: prompt_text(base.tokenizer, prompt) for q, prompt in zip(own, asked, strict=True)}


def _answers(stage: Stage, own, asked) -> dict[str, str]:
    return {q.id: asked[0].blank + prompts.worked(q, stage.style) for q in own}


def _with_options(question: Question, prompt: str, blank: str) -> dict:
    if not question.choices:
        raise TrainingError(f"question {question.id!r} has no options; CFT needs multiple choice")
    choices = [blank + choice for choice in question.choices]
    return {"id": question.id, "prompt": prompt, "choices": choices, "label": question.choices.index(question.answer)}


def _draws(stage, base, parent, own, asked, folder, progress) -> list[Record]:
    config = SamplingConfig(_DRAWS, 1.0, prompts.MAX_NEW_TOKENS[stage.style], prompts.STOP, stage.seed)
    drawer = base if parent is None else parent.load(stage.parent_step)
    return collect(drawer, own, asked, config, folder / "draws", label=stage.style, progress=progress)


def _filled(base: LanguageModel, example: dict) -> dict:
    """The example itself; TrainingError when a completion has no tokens."""
    for name, text in example.items():
        if not base.tokenizer(text.strip(), add_special_tokens=False).input_ids:
            raise TrainingError(f"the {name} of {example['prompt']!r} has no tokens: {text!r}; drop the question")
    return example


def prompt_text(tokenizer, prompt: Prompt) -> str:
    """The prompt as text that `tokenizer(text)` turns into what the sampler uses: BOS once or not at all."""
    text, bos = prompt.shared + prompt.own, tokenizer.bos_token or ""
    wanted = models.encode(tokenizer, text, prompt.chat)
    for candidate in (text, bos + text, text.removeprefix(bos)):
        if tokenizer(candidate).input_ids == wanted:
            return candidate
    raise TrainingError(f"the tokenizer adds special tokens to {text!r} that the sampler does not; use another one")


def _policy(stage: Stage, base: LanguageModel, parent: Trained | None):
    """The model to train: a new adapter, the parent's adapter to go on with, or all weights in float32."""
    from peft import LoraConfig, PeftModel, get_peft_model

    name, adapter = (base.name, None) if parent is None else parent.where(stage.parent_step)
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


def _fit(done: Trained, base, parent, own, asked, collapse, progress, callbacks) -> None:
    """Train in a working folder next to the final one, resuming where it stopped, and move it there."""
    from datasets import Dataset, disable_progress_bars

    from calib_utils.watch import Watch, last_checkpoint

    stage, work = done.stage, done.folder.with_suffix(".work")
    draw = partial(_draws, stage, base, parent, own, asked, done.folder.parent, progress)
    examples = _MAKE_ROWS[stage.rows](stage, base, own, asked, collapse, draw)
    disable_progress_bars()
    watch = [Watch(stage, work, progress), *callbacks]
    light = scored_head(compact=True) if base.device.type == "cpu" else contextlib.nullcontext()
    try:
        with _written(work), light, _unnamed_data(), models.without_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that trl and peft still use, pinned here
            trainer = _trainer(done, base, parent, own, asked, collapse, Dataset.from_list(examples), work, watch)
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
    with _written(done.folder):
        _publish(done, work, log)


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


@contextlib.contextmanager
def _unnamed_data():
    """Within it `datasets` names what it makes at random. By default it hashes the tokenizer for every name, which
    takes as long as several steps for a large one; the names serve its cache on disk only, which is not used here.
    """
    from datasets import fingerprint

    before = fingerprint.Hasher.__dict__["hash"]
    fingerprint.Hasher.hash = staticmethod(lambda _: fingerprint.generate_random_fingerprint())
    try:
        yield
    finally:
        fingerprint.Hasher.hash = before


def _trainer(done: Trained, base, parent, own, asked, collapse, rows, work: Path, callbacks: list[TrainerCallback]):
    from transformers import PrinterCallback

    stage, cpu = done.stage, base.device.type == "cpu"
    settings = {
        "output_dir": str(work),
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
        **dict(stage.options),
    }
    policy = _policy(stage, base, parent)
    arguments = {"train_dataset": rows, "processing_class": base.tokenizer, "callbacks": callbacks}
    if stage.rows == "pairs":
        settings = dict(**settings, beta=stage.beta)
        arguments["ref_model"] = None if stage.lora_rank else _policy(stage, base, parent).requires_grad_(False)
    elif stage.rows == "questions":
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is; trl is pinned
        del settings["max_length"]
        settings["per_device_train_batch_size"] *= stage.group_size
        references = [reference_ids(base, prompt, question) for prompt, question in zip(asked, own, strict=True)]
        settings |= {"num_generations": stage.group_size, "beta": stage.beta}
        settings["max_completion_length"] = prompts.MAX_NEW_TOKENS[stage.style]
        arguments["reward_funcs"] = correctness_reward(own, references, collapse)
        arguments["rollout_func"] = _rollout(stage, base, asked)
    method = METHODS[stage.method]
    configure, build = pkgutil.resolve_name(method.config), pkgutil.resolve_name(method.trainer)
    trainer = build(policy, args=configure(**settings), **arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer


def correctness_reward(questions: Sequence[Question], references: Sequence[tuple[int, ...]], collapse: Collapse):
    """The verifiable reward of RL: 1 where B(answer) = B(reference), else 0. A reward function for trl.

    `references` are the token ids of the reference answers, for collapse functions that look at tokens.
    """
    known = {
        question.id: (question, right_class(question, collapse, ids))
        for question, ids in zip(questions, references, strict=True)
    }

    def correct(completions, completion_ids, id, **_):
        rewards = []
        for text, ids, name in zip(completions, completion_ids, id, strict=True):
            question, right = known[name]
            answer = min((text.partition(stop)[0] for stop in prompts.STOP), key=len)
            rewards.append(float(collapse(Response(answer, tuple(ids)), question) == right))
        return rewards

    return correct


def _rollout(stage: Stage, base: LanguageModel, asked: Sequence[Prompt]):
    """Draws for GRPO by the package's own sampler: each distinct prefix of a group is computed once."""
    known = {prompt_text(base.tokenizer, prompt): prompt for prompt in asked}

    def rollout(texts: list[str], trainer) -> dict:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        policy = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        lm = LanguageModel.of(policy, base.tokenizer, base.name, base.fingerprint)
        size = trainer.num_generations
        seed = stage.seed * 1_000_003 + trainer.state.global_step
        config = SamplingConfig(size, 1.0, trainer.max_completion_length, prompts.STOP, seed)
        policy.eval()  # no dropout, and no gradient checkpointing, which would switch the cache off
        try:
            with trainer.accelerator.autocast():
                drawn = sample(lm, [known[text] for text in texts[::size]], config)
        finally:
            policy.train()
        answers = [list(c.token_ids) for completions in drawn for c in completions for _ in range(c.count)]
        ids = [base.tokenizer(text).input_ids for text in texts]
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": None}

    return rollout


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
    about = {"key": done.key, "stage": asdict(stage), "versions": _versions()}
    files.publish(ready / "stage.json", json.dumps(about, indent=1))
    files.share(ready)
    os.replace(ready, done.folder)
    shutil.rmtree(work)

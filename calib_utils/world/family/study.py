"""Study: the scores of notebook 06 for the family, each panel computed once for its parameters and kept.

Scores have one row per model, training seed and question: panel, condition, strength, task, seed, question_id,
entity, confidence, correct. Strength is the step of pre-training, or the epoch of tuning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from calib_utils import crossing, models
from calib_utils.claims import TASKS
from calib_utils.crossing import Lazy
from calib_utils.records.kept import code_digest, kept
from calib_utils.studies import lifecycle
from calib_utils.studies.published import Series
from calib_utils.world.family.settings import PreTraining, Shape, Tuning
from calib_utils.world.family.text import EVERYTHING, RELATIONS, FactWorld, Lesson, instructions, spread

if TYPE_CHECKING:
    from calib_utils.world.family import tasks
    from calib_utils.world.family.learning import pretrain, tune
    from calib_utils.world.stack import Stack
else:  # what trains and measures: tables that are there already need none of it, nor torch
    tasks, Stack = map(Lazy, ("calib_utils.world.family.tasks", "calib_utils.world.stack:Stack"))
    pretrain, tune = (Lazy(f"calib_utils.world.family.learning:{name}") for name in ("pretrain", "tune"))

_UNUSED = ("profile", "figures", "runs", "n_boot", "models", "revisions", "device", "dtype", "max_rows")
LESSONS = {  # from narrow to broad
    "one relation, one phrasing": Lesson(RELATIONS[:1], 1),
    "three relations, one phrasing": Lesson(RELATIONS, 1),
    "six kinds, four phrasings": Lesson(EVERYTHING, 4),
}


class Study:
    """All that notebook 06 trains and measures, for the parameters in `run` (a `LifecycleStudy`)."""

    name, dataset, tasks = "family from scratch", "generated text", (*TASKS, *lifecycle.EXTENSIONS)

    def __init__(self, run) -> None:
        """Worlds, one per training seed, and what is asked in them; nothing is trained yet."""
        self.run, self.seeds = run, list(run.train_seeds)
        self.home = Path(run.records_dir).parent / "family"
        self.worlds = [FactWorld(seed=seed) for seed in self.seeds]
        self.shapes = {str(Shape(*shape)): Shape(*shape) for shape in run.shapes}
        kept = tuple(step for step in run.kept_steps if step < run.pretrain_steps)
        self.reading = PreTraining(run.pretrain_steps, run.pretrain_batch, run.pretrain_lr, kept)
        self.steps = (*kept, run.pretrain_steps)
        self.tuned = list(self.shapes)[run.tuned_model]
        self._read: dict[str, dict[int, Stack]] = {}

    def text(self, n: int = 3) -> list[str]:
        """Rows of what the first seed's models read."""
        rows = self.worlds[0].text(n, np.random.default_rng(self.run.seed))
        return [self.worlds[0].written(row) for row in rows]

    @cached_property
    def exam(self) -> tasks.Exam:
        """What all models are asked."""
        return tasks.Exam.of(self.worlds, self.run.n_texts, self.run.n_questions, self.run.seed)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters of one model of every shape."""
        found = self._kept("parameters", self._counted)
        return dict(zip(found["shape"], found["parameters"].tolist(), strict=True))

    def _counted(self) -> Iterator[pd.DataFrame]:
        tokenizer = self.worlds[0].tokenizer()
        for name, shape in self.shapes.items():
            weights = Stack.untrained(tokenizer, [0], shape.width, shape.layers).parameters()
            yield pd.DataFrame({"shape": [name], "parameters": [sum(w[0].numel() for w in weights)]})

    def scores(self, *panels: str) -> pd.DataFrame:
        """Scores of these panels, of all `lifecycle.PANELS` by default."""
        found = {panel: self._kept(panel, getattr(self, f"_{panel}")) for panel in panels or lifecycle.PANELS}
        return pd.concat([table.assign(panel=panel) for panel, table in found.items()], ignore_index=True)

    def conditions(self) -> dict[str, tuple[tuple, tuple]]:
        """Per claim the two conditions (panel, condition, strength) whose errors are compared, the first minus the
        second: that which the claim says is worse comes first.
        """
        last = self.run.pretrain_steps
        found = lifecycle.conditions(self.run, list(self.shapes), self.steps, self.tuned, list(LESSONS))
        found["memorising"] = ("memorising", "read again", last), ("memorising", "fresh", last)
        return found | lifecycle.preferences(self.run)

    def diversity(self) -> pd.DataFrame:
        """How diverse each lesson is (`text.spread`), means over seeds."""
        rows = []
        for name, lesson in LESSONS.items():
            told = [self._told(world, lesson) for world in self.worlds]
            rows.append({"lesson": name, "examples": self.run.sft_examples, **pd.DataFrame(told).mean()})
        return pd.DataFrame(rows)

    def _told(self, world: FactWorld, lesson: Lesson) -> dict[str, float]:
        asked, answers, _ = instructions(
            world, lesson, self.run.sft_examples, np.random.default_rng([world.seed, 52])
        )
        return spread(world, asked, answers)

    def read(self, name: str) -> dict[int, Stack]:
        """The models of a shape, by step; trained when first asked for."""
        if name not in self._read:
            self._read[name] = self._pretrained(self.shapes[name], self.reading)
        return self._read[name]

    @property
    def base(self) -> Stack:
        """The models that are tuned: they have read everything."""
        return self.read(self.tuned)[self.run.pretrain_steps]

    @cached_property
    def instructed(self) -> dict[int, Stack]:
        """`base` after full fine-tuning on the narrow lesson, by epoch."""
        return tune(self.base, self.worlds, self._sft())

    def _pretrained(self, shape: Shape, reading: PreTraining) -> dict[int, Stack]:
        with tqdm(total=reading.steps, desc=str(shape), mininterval=5) as bar:
            return pretrain(self.worlds, shape, reading, lambda step: bar.update(1))

    def _sft(self, lesson: str = "", **changes) -> Tuning:
        run = self.run
        epochs, last = tuple(run.epochs), max(run.epochs)
        lesson = LESSONS[lesson or next(iter(LESSONS))]
        return replace(
            Tuning("sft", lesson, run.sft_lr, run.sft_examples, last, run.tuning_batch, keep=epochs), **changes
        )

    def _series(self) -> Iterator[pd.DataFrame]:
        for name in self.shapes:
            for step, stack in self.read(name).items():
                yield self._scored(stack, name, step)

    def _memorising(self) -> Iterator[pd.DataFrame]:
        middle = list(self.shapes)[len(self.shapes) // 2]
        again = self._pretrained(self.shapes[middle], replace(self.reading, rows=self.run.memorised_rows))
        for name, found in {"fresh": self.read(middle), "read again": again}.items():
            for step, stack in found.items():
                yield self._scored(stack, name, step)

    def _tuning(self) -> Iterator[pd.DataFrame]:
        lora = self._sft(rank=self.run.lora_rank, learning_rate=self.run.lora_lr)
        for name, found in {"full": self.instructed, "LoRA": tune(self.base, self.worlds, lora)}.items():
            for epoch, stack in found.items():
                yield self._scored(stack, name, epoch)

    def _diversity(self) -> Iterator[pd.DataFrame]:
        for at, name in enumerate(LESSONS):
            found = tune(self.base, self.worlds, self._sft(name)) if at else self.instructed
            for epoch, stack in found.items():
                yield self._scored(stack, name, epoch)

    def _preference(self) -> Iterator[pd.DataFrame]:
        run, start = self.run, self.instructed[self.run.reported_epochs]
        size = {"examples": run.rl_examples, "epochs": run.rl_epochs, "batch_size": run.tuning_batch}
        size |= {"lesson": next(iter(LESSONS.values())), "learning_rate": run.rl_lr}
        every = {"DPO": Tuning("dpo", beta=run.dpo_beta, **size)}
        every |= {f"GRPO, KL {weight:g}": Tuning("grpo", beta=weight, **size) for weight in run.kl_weights}
        for name, tuning in every.items():
            for epoch, stack in tune(start, self.worlds, tuning).items():
                yield self._scored(stack, name, epoch)

    def _scored(self, stack: Stack, condition: str, strength: int) -> pd.DataFrame:
        found = tasks.measure(stack, self.exam)
        parts = [
            table.assign(condition=condition, strength=strength, task=task, seed=seed)
            for task, tables in found.items()
            for seed, table in zip(self.seeds, tables, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _kept(self, panel: str, compute: Callable[[], Iterator[pd.DataFrame]]) -> pd.DataFrame:
        parts: Mapping = {name: value for name, value in self.run.model_dump().items() if name not in _UNUSED}
        local = [] if crossing.reading() else _local()
        told = json.dumps([panel, parts, *local], sort_keys=True)
        target = self.home / f"{panel}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.table"
        return kept("family", target, panel, parts, lambda: pd.concat(compute(), ignore_index=True))


def of(run) -> Study | Series:
    """What the parameters name: the published series, if they name models, else the family."""
    return Series(run) if run.models else Study(run)


def _local() -> list[str]:
    """What decides a table beside the parameters: code that it comes from, version and dtype of the arithmetic."""
    import torch

    house = Path(__file__).parents[1]
    paths = [*sorted(Path(__file__).parent.glob("*.py")), house / "stack.py", house / "training.py"]
    return [code_digest(paths), torch.__version__, str(models.best_cpu_dtype())]

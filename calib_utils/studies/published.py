"""Published: a series of published checkpoints in place of the family of notebook 06, with the same table of scores.

Facts and texts are those of a data set, tuning is by trl and peft. Panels, conditions and strengths are those of
the study of the family; what the series lacks (reading again, new people) is left out.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pandas as pd

from calib_utils import data, models, prompts, semantics
from calib_utils.claims import TASKS
from calib_utils.models import LanguageModel
from calib_utils.studies import lifecycle
from calib_utils.training import Stage, train
from calib_utils.types import Question

NARROW, BROAD = "one relation", "all relations"


class Series:
    """The series that `models` and `revisions` of `run` (a `LifecycleStudy`) name, measured and tuned."""

    def __init__(self, run) -> None:
        """Questions and texts; nothing is loaded yet."""
        self.run, self.seeds, self.tasks = run, list(run.train_seeds), (*TASKS, lifecycle.WHOLE)
        self.name, self.dataset = run.models[-1], run.dataset
        load = partial(data.load_questions, run.dataset, path=run.data_path or None)
        self.train = random.Random(0).sample(load("train"), len(load("train")))
        self.questions = data.sample_evenly(load("test"), run.n_questions, run.seed)
        held_out = data.sample_evenly(load("test"), run.n_texts, run.seed)
        self.texts = [q.statement if data.find(run.dataset).statements else q.text for q in held_out]
        self.answer = semantics.Semantic(data.known_names(run.dataset))
        self.shots = prompts.pick_shots(self.train, run.n_shots, run.seed)
        named = enumerate(run.revisions or ["main"], start=1)
        self.revisions = {lifecycle.step_of(revision, at): revision for at, revision in named}
        self.steps, self.tuned = tuple(self.revisions), run.models[run.tuned_model]
        self.parameters: dict[str, int] = {}

    def text(self, n: int = 3) -> list[str]:
        """Held-out texts."""
        return self.texts[:n]

    def scores(self, *panels: str) -> pd.DataFrame:
        """Scores of these panels, of all by default; no rows of those that the series lacks."""
        made = {"series": self._series, "tuning": self._tuning, "diversity": self._diversity}
        made |= {"preference": self._preference, "memorising": lambda: iter([])}
        parts = [table for panel in panels or lifecycle.PANELS for table in made[panel]()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def conditions(self) -> dict[str, tuple[lifecycle.Condition, lifecycle.Condition]]:
        """Per claim the two conditions that it compares, as the study of the family does."""
        found = lifecycle.conditions(self.run, self.run.models, self.steps, self.tuned, (NARROW, BROAD))
        if self.steps[0] == self.steps[-1]:
            del found["time"]  # one checkpoint is no series
        return found | lifecycle.preferences(self.run)

    def diversity(self) -> pd.DataFrame:
        """How diverse each lesson is: relations and distinct pairs of words."""
        rows = []
        for name in (NARROW, BROAD):
            told = self._lesson(name)
            words = [f"{q.text} {q.answer}".split() for q in told]
            pairs = [pair for text in words for pair in itertools.pairwise(text)]
            about = {"relations": len({q.relation for q in told}), "distinct pairs": len(set(pairs)) / len(pairs)}
            rows.append({"lesson": name, "examples": len(told), **about})
        return pd.DataFrame(rows)

    def _name(self, model: str, step: int) -> str:
        return f"{model}@{self.revisions[step]}" if self.run.revisions else model

    def _load(self, model: str, step: int) -> LanguageModel:
        return models.load(self._name(model, step), self.run.dtype, self.run.device)

    def _scored(self, lm: LanguageModel, panel: str, condition: str, strength: int, seed: int) -> pd.DataFrame:
        run = self.run
        asked = (self.questions, self.texts, self.answer, run.records_dir, self.shots)
        found = lifecycle.measure(lm, *asked, run.chat, run.seed, run.max_rows)
        about = {"panel": panel, "condition": condition, "strength": strength, "seed": seed}
        return pd.concat([table.assign(task=task, **about) for task, table in found.items()], ignore_index=True)

    def _series(self) -> Iterator[pd.DataFrame]:
        for model in self.run.models:
            for step in self.steps:
                lm = self._load(model, step)
                self.parameters[model] = lm.n_parameters
                yield self._scored(lm, "series", model, step, self.seeds[0])

    def _lesson(self, name: str) -> list[Question]:
        ((common, _),) = Counter(q.relation for q in self.train).most_common(1)
        among = [q for q in self.train if q.relation == common] if name == NARROW else self.train
        return data.sample_evenly(among, min(self.run.sft_examples, len(among)), self.run.seed)

    def _sft(self, n: int, rank: int = 0) -> Stage:
        run = self.run
        each = max(n // run.tuning_batch, 1)
        last, rate = max(run.epochs), run.lora_lr if rank else run.sft_lr
        kept = tuple(each * epoch for epoch in sorted(run.epochs) if epoch != last)
        return Stage(
            "sft", each * last, rate, n_questions=n, batch_size=run.tuning_batch, keep=kept, lora_rank=rank
        )  # fmt: skip

    def _fitted(self, stage: Stage, told: list[Question], panel: str, name: str, strengths: dict[int, int]):
        start = self._load(self.tuned, self.steps[-1])
        fit = partial(train, collapse=self.answer, folder=self.run.stages_dir, chat=self.run.chat)
        for seed in self.seeds:
            done = fit(stage.with_seed(seed), start, told)
            for strength, step in strengths.items():
                yield self._scored(done.load(step), panel, name, strength, seed)

    def _tuning(self) -> Iterator[pd.DataFrame]:
        yield from self._instructed("tuning", "full", NARROW)
        yield from self._instructed("tuning", "LoRA", NARROW, self.run.lora_rank)

    def _diversity(self) -> Iterator[pd.DataFrame]:
        for name in (NARROW, BROAD):
            yield from self._instructed("diversity", name, name)

    def _instructed(self, panel: str, name: str, lesson: str, rank: int = 0) -> Iterator[pd.DataFrame]:
        told = self._lesson(lesson)
        stage = self._sft(len(told), rank)
        each = stage.steps // max(self.run.epochs)
        yield from self._fitted(stage, told, panel, name, {epoch: each * epoch for epoch in self.run.epochs})

    def _preference(self) -> Iterator[pd.DataFrame]:
        run, told = self.run, self._lesson(NARROW)
        parent = self._sft(len(told))
        others = [q for q in self.train if q not in told][: run.rl_examples]
        each = parent.steps // max(run.epochs)
        shared = {"parent": parent, "parent_step": each * run.reported_epochs, "first": len(told), "lora_rank": 0}
        shared |= {"n_questions": len(others), "batch_size": run.tuning_batch}
        steps = max(len(others) // run.tuning_batch, 1) * run.rl_epochs
        stages = {"DPO": Stage("dpo", steps, run.rl_lr, rejected="distractors", beta=run.dpo_beta, **shared)}
        for weight in run.kl_weights:
            stages[f"GRPO, KL {weight:g}"] = Stage("grpo", steps, run.rl_lr, beta=weight, **shared)
        for name, stage in stages.items():
            yield from self._fitted(stage, [*told, *others], "preference", name, {run.rl_epochs: steps})

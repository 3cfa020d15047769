"""Lineage: the questions, stages and training that notebooks 02, 04 and 05 share, so that each is defined once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from calib_utils import data, prompts
from calib_utils.semantics import Semantic
from calib_utils.training import Stage
from calib_utils.types import Question

if TYPE_CHECKING:
    from calib_utils.models import LanguageModel
    from calib_utils.training.trained import Trained


class Lineage:
    """For the parameters of a lineage base -> SFT -> DPO (`parameters.PreferenceStudy`)."""

    def pool(self, split: str) -> list[Question]:
        """Questions of a split about the relations that are trained on: all but `held_out`."""
        return [question for question in self.load_questions(split) if question.relation not in self.held_out]

    def train_questions(self) -> list[Question]:
        """The training questions in the order in which stages take their windows of them, relations by turns."""
        every = self.pool("train")
        return data.sample_evenly(every, len(every), seed=0)

    def test_questions(self, n: int = 0) -> list[Question]:
        """Test questions, evenly over the trained relations, without the `n_used` that earlier runs reported on.

        `n` : how many, by default `n_questions`.
        """
        used = self.reported(self.n_used)
        return data.sample_evenly(self.pool("test"), used + (n or self.n_questions), self.seed)[used:]

    def shots(self) -> list[Question]:
        """The worked examples for a base model, from the train split."""
        return prompts.pick_shots(self.pool("train"), self.n_shots, self.seed)

    def outside(self) -> list[Question]:
        """Test questions out-of-distribution: of the held-out relations, or of another data set (`out_dataset`)."""
        if self.out_dataset:
            return data.load_questions(self.out_dataset, "test")
        return [question for question in self.load_questions("test") if question.relation in self.held_out]

    def places(self) -> dict[str, list[Question]]:
        """What is asked, by place: test questions "in" and "out" of the trained distribution, and "dev" questions."""
        asked = {"in": (self.test_questions(), self.n_questions), "out": (self.outside(), self.n_out)}
        asked["dev"] = self.pool("dev"), self.n_dev
        return {place: data.sample_evenly(pool, n, self.seed) for place, (pool, n) in asked.items()}

    @property
    def sft(self) -> Stage:
        """Supervised fine-tuning of the base model on reference answers, its rate falling to 0."""
        window = {"n_questions": self.sft_questions, "batch_size": 8, "schedule": "linear"}
        return Stage("sft", self.sft_steps, self.sft_lr, lora_rank=self.lora_rank, **window)

    @property
    def dpo(self) -> Stage:
        """Preference tuning of the SFT model, on the training questions after those of SFT."""
        pairs = {"beta": self.dpo_beta, "rejected": self.dpo_rejected, "keep": tuple(self.dpo_steps[:-1])}
        return self.after_sft("dpo", self.dpo_steps[-1], self.dpo_lr, **pairs)

    def after_sft(self, method: str, steps: int, learning_rate: float, **settings) -> Stage:
        """A stage that starts from the SFT model, on the window of training questions after those of SFT."""
        window = {"first": self.sft_questions, "n_questions": self.dpo_questions, "batch_size": 8}
        return Stage(method, steps, learning_rate, self.sft, lora_rank=self.lora_rank, **settings, **window)

    def dpo_on(self, rejected: str) -> Stage:
        """DPO on another kind of pairs: what they reject, one of `training.stage.REJECTED`."""
        return replace(self.dpo, rejected=rejected)

    def trainer(self, base: LanguageModel) -> Callable[[Stage], Trained]:
        """A function that trains a stage and its parents from `base`, or finds them (`training.train`).

        What is right is decided by a collapse function that knows the names of the train split only.
        """
        from calib_utils.training import train

        right = Semantic(self.names(self.pool("train")))
        asked = {"questions": self.train_questions(), "collapse": right}
        return partial(train, base=base, folder=self.stages_dir, chat=self.chat, **asked)

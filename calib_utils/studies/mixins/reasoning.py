"""Reasoning: the questions, models and conditions of notebook 03, and what it computes from the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from calib_utils import data, prompts, semantics
from calib_utils.studies import chains
from calib_utils.training import Stage
from calib_utils.types import Collapse, Estimate, Question, Record

if TYPE_CHECKING:
    from calib_utils.models import LanguageModel
    from calib_utils.training.trained import Trained

STYLES = ("concise", "cot")
Key = tuple[str, str, str]  # family of questions, "base" or "trained", style


class ChainMethods:
    """For the parameters of notebook 03 (`parameters.ChainStudy`); a family of questions goes by its data set."""

    def _within(self, family: str, split: str) -> list[Question]:
        return chains.reachable(self.load_questions(split, dataset=family), self.max_steps)

    def test_questions(self, steps: int = 0) -> dict[str, list[Question]]:
        """Test questions of both families, without those that earlier runs reported on.

        `steps` : only word problems of so few steps, and `n_few` of them.
        """
        sizes = {self.dataset: (self.reported(self.n_used), self.n_few if steps else self.n_questions)}
        sizes[self.elsewhere] = 0, self.n_elsewhere
        found = {}
        for family, (used, n) in sizes.items():
            most = steps if steps and family == self.dataset else self.max_steps
            pool = chains.reachable(self._within(family, "test"), most, self.known)
            found[family] = data.sample_evenly(pool, used + n, self.seed)[used:]
        return found

    def shots(self, family: str) -> list[Question]:
        """Worked examples from the train split, of as many steps as the base model is asked for."""
        most = self.few_steps if family == self.dataset else self.max_steps
        pool = chains.reachable(self._within(family, "train"), most, self.known)
        return prompts.pick_shots(pool, self.n_shots, self.seed)

    def conditions(self) -> dict[Key, tuple[list[Question], list[Question]]]:
        """(questions, worked examples) by family, model and style: the base model is asked what it can reach."""
        few, every = self.test_questions(self.few_steps), self.test_questions()
        asked = {(family, "base", style): (few[family], self.shots(family)) for family in few for style in STYLES}
        return asked | {(family, "trained", style): (every[family], []) for family in every for style in STYLES}

    def worked(self, question: Question) -> str:
        """The chain that training shows for a question (`prompts.reference_completion`)."""
        return prompts.reference_completion(question, "cot")

    def stages(self) -> dict[str, Stage]:
        """By style: cross-entropy on the answers alone, or on worked chains, two thirds of them word problems."""
        shape = {"n_questions": self.sft_questions // 3 * 3, "batch_size": 8, "schedule": "linear"}
        shape |= {"lora_rank": self.lora_rank, "seed": self.seed}
        steps = dict(zip(STYLES, (self.concise_steps, self.sft_steps), strict=True))
        return {style: Stage("sft", n, self.sft_lr, style=style, **shape) for style, n in steps.items()}

    def train(self, base: LanguageModel) -> dict[str, Trained]:
        """Both stages, trained from `base` or found."""
        from calib_utils.training import train

        third = self.sft_questions // 3
        own = data.sample_evenly(self._within(self.dataset, "train"), 2 * third, self.seed)
        others = data.sample_evenly(self._within(self.elsewhere, "train"), third, self.seed)
        mixed = data.take_turns([own[::2], own[1::2], others])
        return {
            style: train(stage, base, mixed, semantics.exact, self.stages_dir, self.chat)
            for style, stage in self.stages().items()
        }

    def length(self, style: str) -> dict[str, int]:
        """How long a completion may get, for `draw`: a chain takes more tokens than other answers."""
        return {"max_new_tokens": self.max_new_tokens} if style == "cot" else {}

    def collapse(self) -> dict[tuple[str, str], Collapse]:
        """Collapse functions by family and style: the number, or the thing, that an answer or a chain ends with."""
        answer = {
            self.dataset: semantics.number,
            self.elsewhere: semantics.Semantic(self.names(dataset=self.elsewhere)),
        }
        found = {(family, "concise"): function for family, function in answer.items()}
        return found | {(family, "cot"): semantics.Chain(function) for family, function in answer.items()}

    def by_length(self, scores: Mapping[Key, pd.DataFrame], wanted: Sequence[str]) -> pd.DataFrame:
        """Metrics by family, model, style and the number of steps of the questions."""
        parts, steps_of = {}, self._steps()
        for key, table in scores.items():
            for steps, part in table.groupby(table["question_id"].map(steps_of)):
                parts[(*key, steps)] = part
        return self.compare(parts, ["family", "model", "style", "steps"], wanted)

    def growth(self, records: Sequence[Record], lm: LanguageModel, collapse: Collapse) -> pd.DataFrame:
        """Intermediate confidence of the chains in `records` (`chains.intermediate_confidence`), by cuts.

        `n_cut` chains of two steps or more are cut after each of `fractions` of their steps, and `cut_samples`
        continuations are drawn. Column "chain is" says whether a chain ends rightly.
        """
        chosen = [record for record in records if len(record.question.chain) >= 2][: self.n_cut]
        begun = self.prompts(lm, [record.question for record in chosen], style="cot")
        cuts = chains.cut(chosen, begun, collapse, self.fractions, 1, self.seed)
        asked = {"given": [cut.prompt for cut in cuts], "n_samples": self.cut_samples, "seed": self.seed + 1}
        drawn = self.draw(lm, [cut.question for cut in cuts], style="cot", label="cut", **asked, **self.length("cot"))
        found = chains.intermediate_confidence(cuts, drawn, collapse)
        return found.assign(**{"chain is": found["right"].map({True: "right", False: "wrong"})})

    def grows(self, scores: pd.DataFrame) -> Estimate:
        """The smECE of questions of more than the median number of steps minus that of the others."""
        from calib_utils import metrics

        steps = scores["question_id"].map(self._steps())
        many = steps > steps.median()
        return metrics.contrast(scores[many], scores[~many], "smece", self.n_boot, self.seed)

    def _steps(self) -> dict[str, int]:
        every = [question for questions, _ in self.conditions().values() for question in questions]
        return {question.id: len(question.chain) for question in every}

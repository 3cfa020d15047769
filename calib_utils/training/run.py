"""A run: everything that training one stage is made of, put together once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from calib_utils import models, prompts
from calib_utils.errors import TrainingError
from calib_utils.models import LanguageModel
from calib_utils.records import collect
from calib_utils.training.stage import Stage
from calib_utils.training.trained import Trained
from calib_utils.types import Collapse, Prompt, Question, Record

if TYPE_CHECKING:
    from transformers import TrainerCallback

_DRAWS = 8  # draws per question that tell which answers are wrong, and which questions are undecided
_VOTES = 16  # draws per question that tell which class is the most frequent


@dataclass(frozen=True)
class Run:
    """One stage that is to be trained.

    Attributes
    ----------
    done : what it will leave: stage, key, folder.
    base : the model that the lineage starts from.
    parent : the finished stage that it goes on from; None for the base model.
    questions, asked : its window of the training questions, and their prompts.
    collapse : B, which decides what is right.
    progress : show a text progress bar.
    callbacks : handed to the trainer.
    """

    done: Trained
    base: LanguageModel
    parent: Trained | None
    questions: Sequence[Question]
    asked: Sequence[Prompt]
    collapse: Collapse
    progress: bool = True
    callbacks: Sequence[TrainerCallback] = ()

    @property
    def stage(self) -> Stage:
        """What is trained."""
        return self.done.stage

    @property
    def work(self) -> Path:
        """Where the trainer leaves its checkpoints, next to the final folder."""
        return self.done.folder.with_suffix(".work")

    @property
    def blank(self) -> str:
        """What stands between a prompt and an answer."""
        return self.asked[0].blank

    @cached_property
    def texts(self) -> dict[str, str]:
        """Per question the prompt as text for trl."""
        pairs = zip(self.questions, self.asked, strict=True)
        return {question.id: prompt_text(self.base.tokenizer, prompt) for question, prompt in pairs}

    def answer(self, question: Question) -> str:
        """The reference answer in the stage's style, as it follows the prompt."""
        return self.blank + prompts.reference_completion(question, self.stage.style)

    def draws(self) -> list[Record]:
        """What the model that the stage starts from answers to its questions."""
        drawer = self.base if self.parent is None else self.parent.load(self.stage.parent_step)
        n = _VOTES if self.stage.rejected == "minority" else _DRAWS
        config = prompts.sampling_config(self.stage.style, n, self.stage.seed)
        folder, label = self.done.folder.parent / "draws", self.stage.style
        return collect(drawer, self.questions, self.asked, config, folder, label, progress=self.progress)


def prompt_text(tokenizer, prompt: Prompt) -> str:
    """The prompt as text that `tokenizer(text)` turns into what the sampler uses: BOS once or not at all."""
    text, bos = prompt.shared + prompt.own, tokenizer.bos_token or ""
    wanted = models.encode(tokenizer, text, prompt.chat)
    for candidate in (text, bos + text, text.removeprefix(bos)):
        if tokenizer(candidate).input_ids == wanted:
            return candidate
    raise TrainingError(f"the tokenizer adds special tokens to {text!r} that the sampler does not; use another one")

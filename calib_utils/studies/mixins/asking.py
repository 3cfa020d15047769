"""Asking: models and questions as a notebook's parameters name them, and answers drawn or found in its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from calib_utils import data, prompts

if TYPE_CHECKING:
    import numpy as np

    from calib_utils.models import LanguageModel
    from calib_utils.types import Prompt, Question, Record

# Models and the collecting of records are imported where they are used, and torch with them.


class Asking:
    """For the parameters of a notebook that asks models (`parameters.AskingConfig`)."""

    def load_model(self, name: str = "", adapter: str | None = None, backend: str = "transformers") -> LanguageModel:
        """A model by its name, folder or hub id (`models.load`), by default the notebook's own."""
        from calib_utils import models

        return models.load(name or self.model, self.dtype, self.device, adapter, backend)

    def load_questions(self, split: str, n: int | None = None, dataset: str = "") -> list[Question]:
        """Questions of one split of the notebook's data set, or of another one (`data.load_questions`)."""
        path = self.data_path or None if dataset in ("", self.dataset) else None
        return data.load_questions(dataset or self.dataset, split, n, self.seed, path)

    def reported(self, n: int) -> int:
        """`n`, how many test questions earlier runs reported on; 0 for another data set than the notebook's own."""
        own = type(self).model_fields["dataset"].default
        return n if self.dataset == own and not self.data_path else 0

    def names(self, questions: Sequence[Question] | None = None, dataset: str = "") -> dict[str, dict[str, str]]:
        """Every name by which a data set's answers are known (`data.known_names`), for `semantics.Semantic`."""
        return data.known_names(dataset or self.dataset, questions)

    def prompts(
        self,
        lm: LanguageModel,
        questions: Sequence[Question],
        shots: Sequence[Question] = (),
        style: str = "concise",
        chat: bool | None = None,
    ) -> list[Prompt]:
        """What `draw` asks (`prompts.build_prompts`), in the tokenizer's chat template if `chat` says so."""
        template = lm.chat_tokenizer if (self.chat if chat is None else chat) else None
        return prompts.build_prompts(questions, shots, style, template)

    def draw(
        self,
        lm: LanguageModel,
        questions: Sequence[Question],
        shots: Sequence[Question] = (),
        style: str = "concise",
        label: str = "",
        chat: bool | None = None,
        given: Sequence[Prompt] | None = None,
        n_samples: int | None = None,
        **settings,
    ) -> list[Record]:
        """One record per question: M answers drawn at temperature 1, or found in the records (`records.collect`).

        Parameters
        ----------
        shots : worked examples in front of every question.
        style : how to answer, a key of `prompts.STYLES`; `label` names the records, by default as the style.
        chat : whether to ask in the tokenizer's chat template, by default as the parameters say.
        given : prompts to use in place of those that questions, shots and style make.
        n_samples, settings : changes of `SamplingConfig`: M, temperature, max_new_tokens, seed.
        """
        from calib_utils import records

        asked = self.prompts(lm, questions, shots, style, chat) if given is None else given
        config = replace(prompts.sampling_config(style, n_samples or self.n_samples, self.seed), **settings)
        return records.collect(lm, questions, asked, config, self.records_dir, label or style, max_rows=self.max_rows)

    def option_logprobs(
        self, lm: LanguageModel, questions: Sequence[Question], shots: Sequence[Question] = ()
    ) -> list[np.ndarray]:
        """log p(option | prompt) of every question's options and their `prompts.ending`, computed or found."""
        from calib_utils import records

        asked = self.prompts(lm, questions, shots)
        options = prompts.option_texts(questions, asked)
        ending = prompts.ending(lm, bool(shots) and not self.chat)
        return records.collect_option_logprobs(lm, asked, options, self.records_dir, ending, self.max_rows)

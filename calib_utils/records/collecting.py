"""Collecting: what is not in the records yet is computed by the model, and recorded; or read where it was shipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calib_utils import crossing
from calib_utils.models import LanguageModel, describe
from calib_utils.records import shipped, store
from calib_utils.records.keys import table_key
from calib_utils.records.resuming import resume
from calib_utils.types import Prompt, Question, Record, SamplingConfig

if TYPE_CHECKING:
    from calib_utils.sampling import option_logprobs, sample
else:  # records that are there already need no torch
    sample, option_logprobs = (
        crossing.Lazy(f"calib_utils.sampling:{name}") for name in ("sample", "option_logprobs")
    )


def collect(
    lm: LanguageModel,
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    folder: str | Path,
    label: str,
    chunk_size: int = 64,
    max_rows: int = 128,
    progress: bool = True,
) -> list[Record]:
    """Records of `questions`, sampled where they are not in `folder` yet.

    Chunks of `chunk_size` questions are written atomically as they are finished, so that a killed run loses at
    most one chunk and a rerun samples only what is missing. Of two processes that want the same records one waits
    for the other. `max_rows` is no part of the key: a run that lacked memory goes on with fewer.

    Parameters
    ----------
    label : the answer style or condition name, kept with the record.
    progress : show a text progress bar.

    Returns
    -------
    records; their log-probabilities and token confidences have the precision of float32, as shipped ones do.

    Raises
    ------
    RecordError : a damaged file in `folder`, or a folder that cannot be written; where shipped records are read, one
        that is not among them.
    """
    if len(questions) != len(prompts):
        raise ValueError(f"{len(questions)} questions but {len(prompts)} prompts")
    finders = [shipped.key_of(lm.origin, label, config, *asked) for asked in zip(prompts, questions, strict=True)]
    if crossing.reading():
        return [
            shipped.record_of(crossing.found(shipped.DRAWS, key, f"{lm.origin}, {label}, {q.id}"), q, key)
            for key, q in zip(finders, questions, strict=True)
        ]
    settings = {"label": label, **describe(lm), **asdict(config), "max_rows": max_rows}
    kept = resume(
        questions,
        prompts,
        json.loads(json.dumps(settings)),  # as it will be read back
        folder,
        label,
        lambda chunk: [tuple(map(store.single, completions)) for completions in sample(lm, chunk, config, max_rows)],
        lambda prompt, question: reference_ids(lm, prompt, question),
        chunk_size,
        progress,
    )
    found = [_as_asked(lm, *one) for one in zip(kept, prompts, questions, strict=True)]
    if crossing.noting():
        for key, record, prompt in zip(finders, found, prompts, strict=True):
            crossing.note(shipped.DRAWS, key, shipped.row(record, lm.origin, label, prompt))
    return found


def _as_asked(lm: LanguageModel, record: Record, prompt: Prompt, question: Question) -> Record:
    """The draws as they were kept, with what is known about the question now (its aliases, say)."""
    same = record.question.answer == question.answer
    reference = record.reference_ids if same else reference_ids(lm, prompt, question)
    return replace(record, question=question, reference_ids=reference)


def cached_table(
    folder: str | Path, label: str, lm: LanguageModel, parts, compute: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """The table that `compute()` gives, or gave before in `folder` for the same label, model and parts.

    For what is measured on a model and is no draw. `parts` is everything else that decides the table, as plain
    values (text, numbers, lists of them). Raises RecordError as `collect`.
    """
    key = shipped.table_key(lm.origin, parts)
    if crossing.reading():
        return crossing.found(label, key, lm.origin)
    target = Path(folder) / label / f"{table_key(describe(lm), parts)}.table"
    table = store.stored(target, compute)
    crossing.note(label, key, table)
    return table


def collect_option_logprobs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    folder: str | Path,
    ending: str = "",
    max_rows: int = 128,
) -> list[np.ndarray]:
    """`sampling.option_logprobs`, computed once and kept in `folder`."""

    def compute() -> pd.DataFrame:
        found = option_logprobs(lm, prompts, options, ending, max_rows)
        return pd.DataFrame(
            {"prompt": np.repeat(range(len(found)), list(map(len, found))), "logprob": np.concatenate(found)}
        )

    parts = [[p.shared, p.own, p.chat, *texts] for p, texts in zip(prompts, options, strict=True)]
    table = cached_table(folder, "options", lm, [ending, parts], compute)
    return [part.to_numpy() for _, part in table.groupby("prompt")["logprob"]]


def reference_ids(lm: LanguageModel, prompt: Prompt, question: Question) -> tuple[int, ...]:
    """Tokens of the reference answer as a continuation: what follows the prompt when both are tokenized."""
    before = lm.tokenizer(prompt.own, add_special_tokens=False).input_ids
    after = lm.tokenizer(f"{prompt.own}{prompt.blank}{question.answer}", add_special_tokens=False).input_ids
    return tuple(after[len(before) :])

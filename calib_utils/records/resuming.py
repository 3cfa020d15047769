"""Resuming: what is not in a folder of records yet is drawn in chunks, each written as it is finished. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from calib_utils.records import store
from calib_utils.records.keys import condition_key, record_key
from calib_utils.types import Completion, Prompt, Question, Record

Draw = Callable[[Sequence[Prompt]], Sequence[Sequence[Completion]]]


def resume(
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    condition: dict,
    folder: str | Path,
    label: str,
    draw: Draw,
    reference_ids: Callable[[Prompt, Question], tuple[int, ...]],
    chunk_size: int = 64,
    progress: bool = True,
) -> list[Record]:
    """Records of `questions` under `condition`, as they were kept, drawn where they are not in `folder` yet.

    Parameters
    ----------
    condition : plain values, as JSON gives them back; what decides the draws is a part of every key (`records.keys`).
    label : names the folder and the progress bar.
    draw : completions of some prompts.
    reference_ids : tokens of the reference answer as a continuation of its prompt.
    chunk_size : questions that are drawn and written together; a killed run loses at most these.

    Raises
    ------
    RecordError : a damaged file in `folder`, or a folder that cannot be written.
    """
    if len(questions) != len(prompts):
        raise ValueError(f"{len(questions)} questions but {len(prompts)} prompts")
    if not questions:
        raise ValueError("there are no questions to sample; check data set, split and n")
    home = Path(folder) / f"{label}-{condition_key(condition)}"
    keys = [record_key(condition, prompt, q.id) for q, prompt in zip(questions, prompts, strict=True)]
    known = store.known(home)
    if not known.keys() >= set(keys):
        with store.lock(home):
            known = store.known(home)
            missing = [i for i, key in enumerate(keys) if key not in known]
            done = len(keys) - len(missing)
            bar = tqdm(total=len(keys), initial=done, desc=label, unit="q", disable=not progress, mininterval=5)
            with bar:
                for start in range(0, len(missing), chunk_size):
                    chunk = missing[start : start + chunk_size]
                    drawn = draw([prompts[i] for i in chunk])
                    rows = [
                        Record(
                            questions[i],
                            tuple(completions),
                            reference_ids(prompts[i], questions[i]),
                            condition,
                            keys[i],
                        )
                        for i, completions in zip(chunk, drawn, strict=True)
                    ]
                    store.write(rows, [prompts[i] for i in chunk], home)
                    known.update((row.key, row) for row in rows)
                    bar.update(len(chunk))
    return [known[key] for key in keys]

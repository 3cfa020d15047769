"""Records: what crosses from the model to the numbers. One parquet row per question and condition."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from calib_utils import files
from calib_utils.data import Question
from calib_utils.models import LanguageModel, describe
from calib_utils.sampling import Completion, Prompt, SamplingConfig, option_logprobs, sample

_TOLD = ("python", "model", "max_rows")  # of a condition, without being part of the key
_VERSION = 2  # part of every key: change it when the sampler's draws or the columns change
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),  # the whole question as JSON
        ("condition", pa.string()),  # model, dtype, device, style, sampling settings, versions as JSON
        ("prompt", pa.string()),
        ("reference_ids", pa.list_(pa.int32())),
        ("texts", pa.list_(pa.string())),
        ("token_ids", pa.list_(pa.list_(pa.int32()))),
        ("counts", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float64())),
        ("finished", pa.list_(pa.bool_())),
        ("confidences", pa.list_(pa.float64())),
    ]
)


class RecordError(RuntimeError):
    """A record file cannot be read or written; the message names the file and the remedy."""


@dataclass(frozen=True)
class Record:
    """One question under one condition.

    Attributes
    ----------
    question : what was asked.
    completions : distinct completions; counts sum to M.
    reference_ids : token ids of the reference answer as it would continue the prompt.
    condition : model, fingerprint, dtype, device, style, sampling settings, library versions.
    key : hash of everything that determines the draws.
    """

    question: Question
    completions: tuple[Completion, ...]
    reference_ids: tuple[int, ...]
    condition: dict
    key: str


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

    Raises
    ------
    RecordError : a damaged file in `folder`, or a folder that cannot be written.
    """
    if len(questions) != len(prompts):
        raise ValueError(f"{len(questions)} questions but {len(prompts)} prompts")
    if not questions:
        raise ValueError("there are no questions to sample; check data set, split and n")
    settings = {"label": label, **describe(lm), **asdict(config), "max_rows": max_rows}
    condition = json.loads(json.dumps(settings))  # as it will be read back
    decisive = {k: v for k, v in condition.items() if k not in _TOLD}
    home = Path(folder) / f"{label}-{_digest([_VERSION, decisive])}"
    keys = [
        _digest([_VERSION, decisive, prompt.shared, prompt.own, prompt.chat, question.id])
        for question, prompt in zip(questions, prompts, strict=True)
    ]
    known = _known(home)
    if not known.keys() >= set(keys):
        with _alone(home):
            known = _known(home)
            missing = [i for i, key in enumerate(keys) if key not in known]
            with tqdm(
                total=len(keys),
                initial=len(keys) - len(missing),
                desc=label,
                unit="q",
                disable=not progress,
                mininterval=5,
            ) as bar:
                for start in range(0, len(missing), chunk_size):
                    chunk = missing[start : start + chunk_size]
                    drawn = sample(lm, [prompts[i] for i in chunk], config, max_rows)
                    rows = [
                        Record(
                            questions[i],
                            tuple(completions),
                            reference_ids(lm, prompts[i], questions[i]),
                            condition,
                            keys[i],
                        )
                        for i, completions in zip(chunk, drawn, strict=True)
                    ]
                    _write(rows, [prompts[i] for i in chunk], home)
                    known.update((row.key, row) for row in rows)
                    bar.update(len(chunk))
    return [_as_asked(lm, known[key], *asked) for key, *asked in zip(keys, prompts, questions, strict=True)]


def _as_asked(lm: LanguageModel, record: Record, prompt: Prompt, question: Question) -> Record:
    """The draws as they were kept, with what is known about the question now (its aliases, say)."""
    same = record.question.answer == question.answer
    reference = record.reference_ids if same else reference_ids(lm, prompt, question)
    return replace(record, question=question, reference_ids=reference)


def _known(home: Path) -> dict[str, Record]:
    return {record.key: record for record in read(home)} if home.is_dir() else {}


@contextlib.contextmanager
def _alone(target: Path):
    """While it lasts no other process computes what `target` holds."""
    try:
        with files.alone(target):
            yield
    except files.WriteError as error:
        raise _unwritable(error) from error


def read(folder: str | Path) -> list[Record]:
    """All records below `folder`, in the order of their file names."""
    records = []
    for path in sorted(Path(folder).rglob("*.parquet")):
        records += [_record(row) for row in _read(path, _SCHEMA).to_pylist()]
    return records


def _read(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema)
    except PermissionError as error:
        raise RecordError(f"{path} cannot be read ({error}); ask its owner, or choose another folder") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(
            f"{path} is damaged ({error}); delete it and run again: what it held is computed anew"
        ) from error


def keep(
    folder: str | Path, label: str, lm: LanguageModel, parts, compute: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """The table that `compute()` gives, or gave before in `folder` for the same label, model and parts.

    For what is measured on a model and is no draw. `parts` is everything else that decides the table, as plain
    values (text, numbers, lists of them). Raises RecordError as `collect`.
    """
    decisive = {name: value for name, value in describe(lm).items() if name not in _TOLD}
    target = Path(folder) / label / f"{_digest([_VERSION, decisive, parts])}.table"
    if not target.exists():
        with _alone(target):
            if not target.exists():
                _publish(pa.Table.from_pandas(compute(), preserve_index=False), target)
    return _read(target).to_pandas()


def rate(
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
    table = keep(folder, "options", lm, [ending, parts], compute)
    return [part.to_numpy() for _, part in table.groupby("prompt")["logprob"]]


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def reference_ids(lm: LanguageModel, prompt: Prompt, question: Question) -> tuple[int, ...]:
    """Tokens of the reference answer as a continuation: what follows the prompt when both are tokenized."""
    before = lm.tokenizer(prompt.own, add_special_tokens=False).input_ids
    after = lm.tokenizer(f"{prompt.own}{prompt.blank}{question.answer}", add_special_tokens=False).input_ids
    return tuple(after[len(before) :])


def _write(rows: Sequence[Record], prompts: Sequence[Prompt], home: Path) -> None:
    table = pa.Table.from_pylist(
        [
            {
                "key": row.key,
                "question_id": row.question.id,
                "question": json.dumps(asdict(row.question), ensure_ascii=False),
                "condition": json.dumps(row.condition, sort_keys=True),
                "prompt": prompt.shared + prompt.own,
                "reference_ids": row.reference_ids,
                "texts": [c.text for c in row.completions],
                "token_ids": [c.token_ids for c in row.completions],
                "counts": [c.count for c in row.completions],
                "logprobs": [c.logprob for c in row.completions],
                "finished": [c.finished for c in row.completions],
                "confidences": [c.confidence for c in row.completions],
            }
            for row, prompt in zip(rows, prompts, strict=True)
        ],
        schema=_SCHEMA,
    )
    _publish(table, home / f"{_digest([row.key for row in rows])}.parquet")


def _publish(table: pa.Table, target: Path) -> None:
    """The table under its name at once or not at all."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    try:
        files.publish(target, content.getvalue())
    except files.WriteError as error:
        raise _unwritable(error) from error


def _unwritable(error: files.WriteError) -> RecordError:
    return RecordError(f"{error}. Finished chunks are kept")


_condition = lru_cache(maxsize=64)(json.loads)  # the same for all questions of a file


def _record(row: dict) -> Record:
    question = json.loads(row["question"])
    question["aliases"], question["chain"] = tuple(question["aliases"]), tuple(question.get("chain", ()))
    question["choices"] = tuple(question["choices"]) if question["choices"] else None
    names = ("texts", "token_ids", "counts", "logprobs", "finished", "confidences")
    columns = zip(*(row[name] for name in names), strict=True)
    completions = tuple(Completion(text, tuple(ids), *rest) for text, ids, *rest in columns)
    return Record(
        Question(**question),
        completions,
        tuple(row["reference_ids"]),
        _condition(row["condition"]),
        row["key"],
    )

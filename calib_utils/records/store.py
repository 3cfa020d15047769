"""Records on disk: one parquet row per question and condition, and tables of what is no draw. No torch."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from calib_utils import storage
from calib_utils.errors import RecordError, WriteError
from calib_utils.storage import digest
from calib_utils.types import Completion, Prompt, Question, Record

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


def known(home: Path) -> dict[str, Record]:
    """Records in a folder by their keys; none if the folder is not there."""
    return {record.key: record for record in read(home)} if home.is_dir() else {}


@contextlib.contextmanager
def lock(target: Path):
    """While it lasts no other process computes what `target` holds."""
    try:
        with storage.lock(target):
            yield
    except WriteError as error:
        raise _unwritable(error) from error


def read(folder: str | Path) -> list[Record]:
    """All records below `folder`, in the order of their file names."""
    records = []
    for path in sorted(Path(folder).rglob("*.parquet")):
        records += [_record(row) for row in read_table(path, _SCHEMA).to_pylist()]
    return records


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A parquet file's table; RecordError that says what to do if it cannot be read."""
    try:
        return pq.read_table(path, schema=schema)
    except PermissionError as error:
        raise RecordError(f"{path} cannot be read ({error}); ask its owner, or choose another folder") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(
            f"{path} is damaged ({error}); delete it and run again: what it held is computed anew"
        ) from error


def stored(target: Path, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in the file `target`, put there by `compute()` where it is not yet; of two processes one waits."""
    if not target.exists():
        with lock(target):
            if not target.exists():
                publish(pa.Table.from_pandas(compute(), preserve_index=False), target)
    return read_table(target).to_pandas()


def write(rows: Sequence[Record], prompts: Sequence[Prompt], home: Path) -> None:
    """One file with a row per record, named by their keys."""
    table = pa.Table.from_pylist(
        [
            {
                "key": row.key,
                "question_id": row.question.id,
                "question": json.dumps(row.question.as_row(), ensure_ascii=False),
                "condition": json.dumps(row.condition, sort_keys=True),
                "prompt": prompt.shared + prompt.own,
                "reference_ids": row.reference_ids,
                "texts": [c.text for c in row.completions],
                "token_ids": [c.token_ids for c in row.completions],
                "counts": [c.count for c in row.completions],
                "logprobs": [c.logprob for c in row.completions],
                "finished": [c.finished for c in row.completions],
                "confidences": [c.token_confidence for c in row.completions],
            }
            for row, prompt in zip(rows, prompts, strict=True)
        ],
        schema=_SCHEMA,
    )
    publish(table, home / f"{digest([row.key for row in rows])}.parquet")


def publish(table: pa.Table, target: Path) -> None:
    """The table under its name at once or not at all."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    try:
        storage.publish(target, content.getvalue())
    except WriteError as error:
        raise _unwritable(error) from error


def _unwritable(error: WriteError) -> RecordError:
    return RecordError(f"{error}. Finished chunks are kept")


def single(completion: Completion) -> Completion:
    """The same completion with numbers of single precision: what is shipped, so that all numbers follow from that."""
    values = completion.logprob, completion.token_confidence
    logprob, confidence = (math.nan if math.isnan(value) else float(np.float32(value)) for value in values)
    return replace(completion, logprob=logprob, token_confidence=confidence)


_condition = lru_cache(maxsize=64)(json.loads)  # the same for all questions of a file


def _record(row: dict) -> Record:
    names = ("texts", "token_ids", "counts", "logprobs", "finished", "confidences")
    columns = zip(*(row[name] for name in names), strict=True)
    completions = tuple(single(Completion(text, tuple(ids), *rest)) for text, ids, *rest in columns)
    return Record(
        Question.of_row(json.loads(row["question"])),
        completions,
        tuple(row["reference_ids"]),
        _condition(row["condition"]),
        row["key"],
    )

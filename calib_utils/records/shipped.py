"""Shipped records: NN.parquet and NN_tables.parquet, all that the numbers of a notebook took from models. No torch.

The first file has one row per condition and question, slim: no prompts, and of the token ids only the first one and
their number. The second one holds what is no draw (probabilities of options, next tokens, training logs, tables of
the exact world, what is known of the models), one row per column of a table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from calib_utils import crossing, storage
from calib_utils.data import DATASETS, entity, known_names
from calib_utils.errors import RecordError
from calib_utils.home import ROOT
from calib_utils.records.store import read_table
from calib_utils.types import Completion, Origin, Prompt, Question, Record, SamplingConfig

FOLDER = "records"  # in the folder of figures
DRAWS = "draws"  # the kind of notes that the first file holds; all others are tables
_DRAWS = pa.schema(
    [
        ("key", pa.int64()),
        ("model", pa.string()),
        ("stage", pa.string()),  # method, empty for a model that was not trained here
        ("details", pa.string()),
        ("seed", pa.int32()),
        ("step", pa.int32()),
        ("style", pa.string()),  # label of the records: answer style, or what else they were drawn for
        ("examples", pa.int32()),  # worked examples in front of the question
        ("temperature", pa.float64()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("entity", pa.string()),
        ("group", pa.string()),
        ("gold", pa.list_(pa.string())),
        ("reference", pa.int32()),  # first token of the reference answer
        ("texts", pa.list_(pa.string())),
        ("counts", pa.list_(pa.int16())),
        ("logprobs", pa.list_(pa.float32())),
        ("confidences", pa.list_(pa.float32())),
        ("first_tokens", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int16())),  # in tokens
        ("finished", pa.list_(pa.bool_())),
    ]
)
_TABLES = pa.schema(
    [
        ("kind", pa.string()),
        ("key", pa.string()),
        ("column", pa.string()),
        ("type", pa.string()),
        ("numbers", pa.list_(pa.float64())),
        ("texts", pa.list_(pa.string())),
    ]
)
_REPEATED = [f"{name}.list.element" for name in ("gold", "texts", "counts", "first_tokens", "lengths")]
_REPEATED += "model stage details style question_id question entity group kind column type".split()
_SPLIT = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("logprobs", "confidences", "numbers")}
_ORDER = "stage model details seed step style examples temperature question_id key".split()
_UNKNOWN = -1  # token ids after the first, which are not shipped


def read(notebook: str, folder: str | Path | None = None) -> pd.DataFrame:
    """The answers that a notebook's numbers rest on, one row per condition and question.

    Parameters
    ----------
    notebook : its two digits, or its name.
    folder : the folder of figures that holds the folder of records; by default the shipped one.

    Returns
    -------
    condition : "base" for the notebook's own model, the method of a trained stage ("sft", "dpo", "grpo"), the name
        of any other model. Where a notebook trains a method in several ways, their `details` follow after a comma;
        those of the plainest one are left out.
    seed, step : of the stage, missing for models that were not trained here.
    style : label of the records: concise, sentence, cot, or what else they were drawn for.
    dataset, temperature, examples (worked ones in front of the question), question_id, question, entity.
    group : relation of the question. gold : the reference answer and its other names.
    texts : distinct answers. logprobs : natural logarithm of the probability of each draw.
    draws : for each of the M draws its place in `texts`, in an order that is a function of the question alone: draws
        are independent, so that any order is as good as that of drawing.

    Raises RecordError where the file is missing or damaged.
    """
    figures = ROOT / "figures" if folder is None else Path(folder)
    number = notebook[:2]
    path = figures / FOLDER / f"{number}.parquet"
    if not path.is_file():
        remedy = f"restore it (git checkout), or run: python -m calib_utils run --only {number}"
        raise RecordError(f"{path} is missing; {remedy}")
    table = read_table(path, _DRAWS).to_pandas()
    about = _parameters(figures / f"{number}_manifest.json")
    table = table.astype(dict.fromkeys(("seed", "step", "examples"), "Int64"))
    table["condition"] = _conditions(table, about.get("model"))
    table["dataset"] = _datasets(table, about.get("dataset", "world"))
    drawn = [_in_turns(*each) for each in zip(table["question_id"], table["counts"], strict=True)]
    table["draws"] = drawn
    table["logprobs"] = [values[at] for values, at in zip(table["logprobs"], drawn, strict=True)]
    for name in ("gold", "texts"):
        table[name] = table[name].map(list)
    columns = "condition seed step style dataset temperature examples question_id question entity group gold texts"
    return table[[*columns.split(), "draws", "logprobs", "details", "model"]]


def _parameters(manifest: Path) -> dict:
    return json.loads(manifest.read_text(encoding="utf-8"))["parameters"] if manifest.is_file() else {}


def _conditions(table: pd.DataFrame, base: str | None) -> pd.Series:
    """What a notebook calls its models, as `read` says."""
    kinds = table[table["stage"] != ""].groupby(["stage", "details"]).size().reset_index(name="rows")
    kinds["words"] = kinds["details"].str.count(",")
    plainest = kinds.sort_values(["words", "rows"], ascending=[True, False]).groupby("stage")["details"].first()
    plain = table["details"] == table["stage"].map(plainest)
    trained = table["stage"] + (", " + table["details"]).where(~plain, "")
    return trained.where(table["stage"] != "", table["model"].replace({base: "base"} if base else {}))


def _datasets(table: pd.DataFrame, otherwise: str) -> list[str]:
    """The data set that a question's id or group names, or whose relation its group is; a notebook asks several."""
    facts = known_names("facts")
    found = []
    for prefix, group in zip(table["question_id"].str.split("/").str[0], table["group"], strict=True):
        named = [name for name in (prefix, group) if name in DATASETS]
        found.append(named[0] if named else "facts" if group in facts else otherwise)
    return found


def _in_turns(question_id: str, counts: np.ndarray) -> np.ndarray:
    every = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    return storage.generator(0, of=question_id).permutation(every)


def key_of(origin: Origin, label: str, config: SamplingConfig, prompt: Prompt, question: Question) -> str:
    """What finds the draws of one question: 16 hexadecimal digits of all that decides them."""
    asked = prompt.turns if prompt.chat else [prompt.shared, prompt.own]
    return storage.digest([origin.parts, label, config, asked, question.id])


def table_key(origin: Origin, parts) -> str:
    """What finds a table that was measured on a model; `parts` is what decides it beside the model."""
    return storage.digest([origin.parts, parts])


def row(record: Record, origin: Origin, label: str, prompt: Prompt) -> dict:
    """A record as `record_of` reads it back; `questions` and settings are kept for readers."""
    question, drawn = record.question, record.completions
    return {
        **{name: getattr(origin, name) for name in ("model", "stage", "details", "seed", "step")},
        "style": label,
        "examples": prompt.shared.count("\nAnswer:") if not prompt.chat else None,
        "temperature": float(record.condition["temperature"]),
        "question_id": question.id,
        "question": question.text,
        "entity": entity(question),
        "group": question.relation,
        "gold": [question.answer, *question.aliases],
        "reference": record.reference_ids[0] if record.reference_ids else None,
        "texts": [c.text for c in drawn],
        "counts": [c.count for c in drawn],
        "logprobs": [c.logprob for c in drawn],
        "confidences": [c.token_confidence for c in drawn],
        "first_tokens": [c.token_ids[0] for c in drawn],
        "lengths": [len(c.token_ids) for c in drawn],
        "finished": [c.finished for c in drawn],
    }


def record_of(found: dict, question: Question, key: str) -> Record:
    """The record of a `row`: its token ids are the first one and as many unknown ones as there were."""
    names = ("texts", "first_tokens", "lengths", "counts", "logprobs", "finished", "confidences")
    completions = tuple(
        Completion(text, (first, *[_UNKNOWN] * (length - 1)), *rest)
        for text, first, length, *rest in zip(*(found[name] for name in names), strict=True)
    )
    reference = () if found["reference"] is None else (found["reference"],)
    condition = {name: found[name] for name in ("model", "stage", "seed", "step", "temperature")}
    return Record(question, completions, reference, condition, key)


def write(folder: Path, notebook: str, notes: crossing.Notes) -> None:
    """Put the notes of a notebook's run into its two files in `folder`; a file without rows is not written.

    Rows stand in an order of their own, by model and question, so that a run from caches writes the same bytes as
    the first one.
    """
    ordered = sorted(notes.items(), key=lambda note: note[0])
    draws = [{"key": int(key, 16) - 2**63, **value} for (kind, key), value in ordered if kind == DRAWS]
    draws.sort(key=lambda row: [(row[name] is not None, row[name]) for name in _ORDER])
    tables = [
        {"kind": kind, "key": key, **column}
        for (kind, key), value in ordered
        if kind != DRAWS
        for column in _columns(value)
    ]
    for rows, schema, end in ((draws, _DRAWS, ""), (tables, _TABLES, "_tables")):
        if rows:
            content = io.BytesIO()
            pq.write_table(
                pa.Table.from_pylist(rows, schema),
                content,
                compression="zstd",
                compression_level=19,
                use_dictionary=_REPEATED,
                column_encoding=_SPLIT,
            )
            storage.publish(folder / f"{notebook[:2]}{end}.parquet", content.getvalue())


def load(folder: Path, notebook: str) -> crossing.Shipment:
    """What `write` has put into `folder` for a notebook; a file that is not there has no rows.

    Raises RecordError for a damaged file.
    """
    notes, path = {}, folder / f"{notebook[:2]}.parquet"
    if path.is_file():
        for found in read_table(path, _DRAWS).to_pylist():
            notes[DRAWS, f"{found['key'] + 2**63:016x}"] = found
    tables = folder / f"{notebook[:2]}_tables.parquet"
    if tables.is_file():
        columns: dict[tuple[str, str], dict] = {}
        for found in read_table(tables, _TABLES).to_pylist():
            columns.setdefault((found["kind"], found["key"]), {})[found["column"]] = _series(found)
        notes |= {at: pd.DataFrame(values) for at, values in columns.items()}
    return crossing.Shipment(notebook, path, notes)


def _columns(table: pd.DataFrame) -> Iterable[dict]:
    for name, values in table.items():
        if pd.api.types.is_numeric_dtype(values):
            filled = {"numbers": values.astype(float).tolist()}
        else:
            filled = {"texts": [None if pd.isna(value) else value for value in values]}
        yield {"column": name, "type": str(values.dtype), **filled}


def _series(found: dict) -> pd.Series:
    if found["texts"] is not None:
        return pd.Series(found["texts"], dtype=found["type"])
    return pd.Series(found["numbers"], dtype=float).astype(found["type"])

"""Public sets: where each is published, how its rows become questions; the same rows from local files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from calib_utils.data.splits import SHARES, split_of
from calib_utils.errors import DataError
from calib_utils.storage import text_digest
from calib_utils.types import Question

_BRACKETS = ("[", "{")  # how a list or an object begins in a text


@dataclass(frozen=True)
class Schema:
    """Where a public set is published and how a row becomes a question.

    `parse` maps a row to (question, answers, relation, choices); the first answer is the reference. `splits`
    are the published names (train, evaluation); train is None for sets published as a single split. `chain` gives a
    row's worked reasoning, for sets that have it.
    """

    name: str
    hub_id: str
    config: str | None
    splits: tuple[str | None, str]
    parse: Callable[[dict], tuple[str, list[str], str, list[str] | None]]
    chain: Callable[[dict], tuple[str, ...]] = lambda row: ()


def _trivia_qa(row: dict):
    answer = row["answer"]
    if isinstance(answer, dict):
        return row["question"], [answer["value"], *_texts(answer["aliases"])], "triviaqa", None
    return row["question"], _texts(answer), "triviaqa", None


def _nq_open(row: dict):
    return row["question"], _texts(row["answer"]), "nq_open", None


def _simple_qa(row: dict):
    return row["problem"], [row["answer"]], "simpleqa", None


def _gsm8k(row: dict):
    _, mark, final = row["answer"].rpartition("####")
    if not mark:
        raise KeyError("answer after '####'")
    return row["question"], [final.strip().replace(",", "")], "gsm8k", None


def _gsm8k_chain(row: dict) -> tuple[str, ...]:
    """The published reasoning line by line, without the calculator's notes in <<...>>."""
    lines = row["answer"].rpartition("####")[0].splitlines()
    return tuple(re.sub(r"<<[^>]*>>", "", line).strip() for line in lines if line.strip())


def _mmlu(row: dict):
    """A few published rows repeat an option: they keep question and answer, without the multiple-choice form."""
    choices = [str(choice).strip() for choice in _list(row["choices"], "a list of options")]
    if not 0 <= int(row["answer"]) < len(choices):
        raise KeyError(f"answer within 0..{len(choices) - 1}")
    options = choices if len(set(choices)) == len(choices) else None
    return row["question"], [choices[int(row["answer"])]], row["subject"], options


def _truthful_qa(row: dict):
    return row["question"], [row["best_answer"], *_texts(row["correct_answers"])], "truthfulqa", None


def _texts(value) -> list:
    """A list of answers; a text is one answer, unless it looks like a list that JSON cannot read."""
    if isinstance(value, str) and not value.startswith(_BRACKETS):
        return [value]
    return _list(value, 'a text, or a list of answers in JSON such as ["yes", "no"]')


def _list(value, what: str) -> list:
    if not isinstance(value, list):
        raise TypeError(f"wanted {what}, got {value!r}")
    return value


TRIVIA_QA = Schema("triviaqa", "mandarjoshi/trivia_qa", "rc.nocontext", ("train", "validation"), _trivia_qa)
NQ_OPEN = Schema("nq_open", "google-research-datasets/nq_open", None, ("train", "validation"), _nq_open)
SIMPLE_QA = Schema("simpleqa", "basicv8vc/SimpleQA", None, (None, "test"), _simple_qa)
GSM8K = Schema("gsm8k", "openai/gsm8k", "main", ("train", "test"), _gsm8k, _gsm8k_chain)
MMLU = Schema("mmlu", "cais/mmlu", "all", ("dev", "test"), _mmlu)
TRUTHFUL_QA = Schema("truthfulqa", "truthfulqa/truthful_qa", "generation", (None, "validation"), _truthful_qa)


def published(schema: Schema, split: str, path: Path | None = None) -> list[Question]:
    """Questions of a split of a public set, from the hub or from the rows of a local file.

    Raises DataError for a file that is missing, empty or of another kind, or a row that does not follow the schema.
    """
    rows = None if path is None else read_rows(path)
    return [question for question in _questions(schema, rows, split) if question.split == split]


def _questions(schema: Schema, rows: Iterable[dict] | None, split: str) -> Iterable[Question]:
    train, evaluation = schema.splits
    if rows is not None or train is None:
        shares = SHARES
    else:
        shares = {"train": 1.0} if split == "train" else {"dev": 0.4, "test": 0.6}
    if rows is None:
        from datasets import load_dataset

        named = train if train is not None and split == "train" else evaluation
        rows = load_dataset(schema.hub_id, schema.config, split=named)
    for number, row in enumerate(rows, start=1):
        yield _question(schema, number, row, shares)


def _question(schema: Schema, number: int, row: dict, shares: dict[str, float]) -> Question:
    try:
        text, answers, relation, choices = schema.parse({k: unpacked(v) for k, v in row.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"row {number} does not follow the schema of {schema.name!r} ({schema.hub_id}): missing or wrong: "
            f"{error}; it has the fields {sorted(map(str, row))}"
        ) from error
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"row {number} has no question: {text!r}")
    strange = [answer for answer in answers if not isinstance(answer, str)]
    if strange:
        raise DataError(f"row {number}: the answer {strange[0]!r} is not text (question {text!r})")
    answers = [answer.strip() for answer in answers if answer.strip()]
    if not answers:
        raise DataError(f"row {number} has no answer (question {text!r})")
    return Question(
        id=f"{schema.name}/{number}-{text_digest(text, 8)}",
        text=text.strip(),
        answer=answers[0],
        relation=relation,
        split=split_of(text, shares),
        statement=f"The answer is {answers[0]}.",
        aliases=tuple(dict.fromkeys(answers[1:])),
        choices=tuple(choices) if choices else None,
        chain=schema.chain(row),
    )


def unpacked(value):
    """Lists and objects that a CSV cell or a parquet column carries as text or as an array."""
    if isinstance(value, str) and value.startswith(_BRACKETS):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def read_rows(path: Path) -> list[dict]:
    """Rows of a JSONL, CSV or parquet file; DataError if it is none of these, damaged or empty."""
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if path.suffix == ".jsonl":
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is not an object: {line[:60]!r}")
            rows.append(row)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
    else:
        raise DataError(f"{path} ends in {path.suffix!r}; use .jsonl, .csv or .parquet")
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows

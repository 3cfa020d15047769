"""Questions: the embedded facts, public sets by hub id, and the same rows from local files."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from itertools import cycle
from pathlib import Path

import numpy as np

SPLITS = ("train", "dev", "test")
SHARES = {"train": 0.5, "dev": 0.2, "test": 0.3}  # where a hash decides the split
FACTS = "facts"
GENERATED = ("arithmetic", "multihop")
_BRACKETS = ("[", "{")  # how a list or an object begins in a text
PHRASINGS = 3  # ways to ask for an embedded fact, of every relation


class DataError(ValueError):
    """A row, a field or a file is not what the schema says; the message names it."""


@dataclass(frozen=True)
class Question:
    """One question with its reference answer.

    Attributes
    ----------
    id : unique within its data set.
    text : the question as asked.
    answer : the reference answer.
    aliases : other names of the reference answer that count as the same class.
    relation : group for per-relation results (a relation of the facts, a subject of MMLU, or the data set).
    split : train, dev or test.
    statement : the answer as a full sentence, for style ``"sentence"``.
    choices : options of the multiple-choice form with `answer` among them, or None.
    fame : 0 (obscure) to 1 (famous) within its relation, or None.
    chain : the worked reasoning, one sentence per step, for style ``"cot"``; empty if there is none.
    """

    id: str
    text: str
    answer: str
    relation: str
    split: str
    statement: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    fame: float | None = None
    chain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("text", "answer"):
            if not str(getattr(self, field)).strip():
                raise DataError(f"question {self.id!r} has an empty {field}")
        if self.split not in SPLITS:
            raise DataError(f"question {self.id!r} has split {self.split!r}; use one of {SPLITS}")
        if self.choices is not None:
            if self.answer not in self.choices:
                raise DataError(f"question {self.id!r}: the answer {self.answer!r} is not among {self.choices}")
            if len(set(self.choices)) != len(self.choices):
                raise DataError(f"question {self.id!r} repeats an option: {self.choices}")


def load_questions(
    dataset: str = FACTS,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    path: str | Path | None = None,
) -> list[Question]:
    """Questions of one split.

    Parameters
    ----------
    dataset : `"facts"` (embedded), `"arithmetic"` (generated: word problems of 1 to 6 steps), `"multihop"`
        (composed from the facts), or one of `sorted(SCHEMAS)` by its hub id or short name.
    split : train, dev or test. Public sets keep their published train split as `train`; what they call
        validation or test is cut by a hash of the question into dev (40 %) and test (60 %), and sets published
        as a single split, like local files, into train, dev and test (50, 20, 30 %).
    n : how many; drawn evenly over the relations, without replacement, by `seed`. None keeps all.
    path : JSONL, CSV or parquet file with the rows of `dataset` in its published schema, instead of the hub. Where
        the schema has a list of answers, a text is its only answer.

    Raises
    ------
    DataError : unknown data set or split, a `path` for a set that is built in, a row without question or answer, a
        wrong field name, an empty file, or fewer than `n` questions.
    """
    if split not in SPLITS:
        raise DataError(f"split is {split!r}; use one of {SPLITS}")
    if path is not None and dataset in (FACTS, *GENERATED):
        raise DataError(
            f"data set {dataset!r} is built in and takes no file, got the path {str(path)!r}: leave the path out, or "
            f"name the data set whose schema the rows follow, one of {sorted(SCHEMAS)}"
        )
    if dataset == FACTS:
        questions = [question for question in facts() if question.split == split]
    elif dataset in GENERATED:
        questions = import_module(f"calib_utils.{dataset}").questions(split)
    else:
        schema = _schema(dataset)
        rows = _read_rows(Path(path)) if path is not None else None
        questions = [q for q in _public(schema, rows, split) if q.split == split]
    if n is None:
        return list(questions)
    if not questions:
        raise DataError(
            f"data set {dataset!r}{f' from {path}' if path else ''} has no question of split {split!r}: use another "
            f"split of {SPLITS}, or more rows"
        )
    return sample_evenly(questions, n, seed)


def sample_evenly(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """`n` questions without replacement, as evenly over the relations as their sizes allow.

    Raises DataError for no questions at all, or for an `n` outside of 1 and their number.
    """
    if not questions:
        raise DataError(
            f"{n} questions were asked for; none is left to draw from. The data set has none of this split, or a "
            "filter leaves none, such as held_out with every relation of the set: use another data set or split, or "
            "a shorter held_out"
        )
    if not 1 <= n <= len(questions):
        raise DataError(f"{n} questions were asked for; there are {len(questions)} (use 1 to {len(questions)})")
    return take_turns(shuffled_by_relation(questions, random.Random(seed)))[:n]


def shuffled_by_relation(questions: Sequence[Question], rng: random.Random) -> list[list[Question]]:
    """One shuffled list per relation, relations in alphabetical order."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.relation].append(question)
    return [rng.sample(group, len(group)) for _, group in sorted(groups.items())]


def take_turns(lists: Sequence[Sequence[Question]]) -> list[Question]:
    """The first of every list, then the second of every list, and so on until all are empty."""
    longest = max(map(len, lists), default=0)
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]


@cache
def fact_rows() -> tuple[dict, ...]:
    """The embedded facts as they are stored: id, relation, entity, split, subject, answer, aliases, ..."""
    lines = (files("calib_utils.facts") / "facts.jsonl").read_text(encoding="utf-8").split("\n")
    return tuple(json.loads(line) for line in lines if line)


@cache
def fact_templates() -> dict[str, dict]:
    """Per relation of the facts the ways to ask for it (`questions`) and to state it (`statement`)."""
    return json.loads((files("calib_utils.facts") / "relations.json").read_text(encoding="utf-8"))


@cache
def facts() -> tuple[Question, ...]:
    """The embedded facts as questions, all splits."""
    return tuple(_fact(row, fact_templates()) for row in fact_rows())


def _fact(row: dict, templates: dict) -> Question:
    template = templates[row["relation"]]
    text = template["questions"][row["phrasing"]].format(subject=row["subject"])
    statement = template["statement"].format(subject=row["subject"], answer=row["answer"])
    return Question(
        id=row["id"],
        text=capitalised(text),
        answer=row["answer"],
        relation=row["relation"],
        split=row["split"],
        statement=capitalised(statement),
        aliases=tuple(row["aliases"]),
        choices=tuple(row["choices"]),
        fame=row["fame"],
    )


def rephrased(questions: Sequence[Question], *phrasings: int) -> list[Question]:
    """Questions about embedded facts, in these of their `PHRASINGS` (0, 1, 2) by turns; DataError for others."""
    subjects = {row["id"]: row["subject"] for row in fact_rows()}
    strangers = [question.id for question in questions if question.id not in subjects]
    if strangers:
        raise DataError(f"question {strangers[0]!r} is not an embedded fact: it has one phrasing only")
    found = []
    for question, k in zip(questions, cycle(phrasings), strict=False):
        text = fact_templates()[question.relation]["questions"][k].format(subject=subjects[question.id])
        found.append(replace(question, text=capitalised(text)))
    return found


@cache
def _entities() -> dict[str, str]:
    return {row["id"]: row["entity"] for row in fact_rows()}


def entity(question: Question) -> str:
    """What a question is about: several embedded facts share an entity; any other question stands for itself."""
    return _entities().get(question.id, question.id)


def capitalised(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[0].upper() + text[1:]


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


SCHEMAS = {
    schema.name: schema
    for schema in (
        Schema("triviaqa", "mandarjoshi/trivia_qa", "rc.nocontext", ("train", "validation"), _trivia_qa),
        Schema("nq_open", "google-research-datasets/nq_open", None, ("train", "validation"), _nq_open),
        Schema("simpleqa", "basicv8vc/SimpleQA", None, (None, "test"), _simple_qa),
        Schema("gsm8k", "openai/gsm8k", "main", ("train", "test"), _gsm8k, _gsm8k_chain),
        Schema("mmlu", "cais/mmlu", "all", ("dev", "test"), _mmlu),
        Schema("truthfulqa", "truthfulqa/truthful_qa", "generation", (None, "validation"), _truthful_qa),
    )
}


def _schema(dataset: str) -> Schema:
    for schema in SCHEMAS.values():
        if dataset in (schema.name, schema.hub_id):
            return schema
    known = [FACTS, *GENERATED, *sorted(SCHEMAS)]
    raise DataError(f"data set {dataset!r} is unknown; use one of {known} or a hub id of theirs")


def _public(schema: Schema, rows: Iterable[dict] | None, split: str) -> Iterable[Question]:
    train, evaluation = schema.splits
    if rows is not None or train is None:
        shares = SHARES
    else:
        shares = {"train": 1.0} if split == "train" else {"dev": 0.4, "test": 0.6}
    if rows is None:
        from datasets import load_dataset

        published = train if train is not None and split == "train" else evaluation
        rows = load_dataset(schema.hub_id, schema.config, split=published)
    for number, row in enumerate(rows, start=1):
        yield _question(schema, number, row, shares)


def _question(schema: Schema, number: int, row: dict, shares: dict[str, float]) -> Question:
    try:
        text, answers, relation, choices = schema.parse({k: _unpacked(v) for k, v in row.items()})
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
        id=f"{schema.name}/{number}-{short_hash(text)}",
        text=text.strip(),
        answer=answers[0],
        relation=relation,
        split=split_of(text, shares),
        statement=f"The answer is {answers[0]}.",
        aliases=tuple(dict.fromkeys(answers[1:])),
        choices=tuple(choices) if choices else None,
        chain=schema.chain(row),
    )


def split_of(text: str, shares: dict[str, float]) -> str:
    """The split that a hash of `text` falls into, where `shares` says how much each split gets."""
    edges = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(edges, int(short_hash(text), 16) / 16**8 * edges[-1], side="right"))]


def short_hash(text: str) -> str:
    """The first eight hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def fold(text: str) -> str:
    """Lower case without accents and blanks at the ends: two spellings of one name are the same."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip()


def _unpacked(value):
    """Lists and objects that a CSV cell or a parquet column carries as text or as an array."""
    if isinstance(value, str) and value.startswith(_BRACKETS):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _read_rows(path: Path) -> list[dict]:
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

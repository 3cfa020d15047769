"""The table of data sets: what each holds, where its questions come from, what it suits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calib_utils.config import nearest
from calib_utils.data import arithmetic, facts, multihop, natural_questions, public, world
from calib_utils.data.names import names_of
from calib_utils.data.splits import sample_evenly
from calib_utils.errors import DataError
from calib_utils.types import SPLITS, Question


@dataclass(frozen=True)
class DataSet:
    """One row of `DATASETS`.

    Attributes
    ----------
    about : what it holds, in a few words.
    source : a function from a split to its questions, for a set that is built in, or the schema of a public one.
    name : what `load_questions` calls it.
    closed : the answers of a relation are a closed list, so that every name of any of them is known (`known_names`).
    phrasings : ways to ask each question (`rephrased`).
    choices : its questions have options.
    chains : its questions have worked reasoning, for style ``"cot"``.
    statements : `Question.statement` says the whole fact, as a text to read.
    """

    about: str
    source: Callable[[str], Sequence[Question]] | public.Schema
    name: str
    closed: bool = False
    phrasings: int = 1
    choices: bool = False
    chains: bool = False
    statements: bool = False

    @property
    def built_in(self) -> bool:
        """Whether it needs neither the hub nor a file."""
        return not isinstance(self.source, public.Schema)

    def check_path(self, path: str | Path) -> None:
        """Raise DataError if the set takes no file."""
        if self.built_in:
            public_sets = [name for name, one in DATASETS.items() if not one.built_in]
            raise DataError(
                f"data set {self.name!r} is built in and takes no file, got the path {str(path)!r}: leave the path "
                f"out, or name the data set whose schema the rows follow, one of {public_sets}"
            )

    def questions(self, split: str, path: Path | None = None) -> Sequence[Question]:
        """All questions of a split; those of a public set from the rows at `path`, if that is given."""
        return self.source(split) if self.built_in else public.published(self.source, split, path)


# The one list of data sets: a new one is a row here, and its file (or its schema in `public`).
DATASETS = {
    row.name: row
    for row in (
        DataSet(
            "real facts over 17 relations, embedded, split by entity",
            facts.questions,
            "facts",
            closed=True,
            phrasings=facts.PHRASINGS,
            choices=True,
            statements=True,
        ),
        DataSet("word problems of 1 to 6 steps, generated", arithmetic.questions, "arithmetic", chains=True),
        DataSet("questions composed from the facts", multihop.questions, "multihop", closed=True, chains=True),
        DataSet(
            "questions to a search engine, 2,000 of NQ-Open, embedded",
            natural_questions.questions,
            "natural_questions",
        ),
        DataSet(
            "names of an exact world, generated, for models that have read it",
            world.questions,
            "world",
            closed=True,
            choices=True,
            statements=True,
        ),
        DataSet("grade-school word problems", public.GSM8K, "gsm8k", chains=True),
        DataSet("exam questions of 57 subjects", public.MMLU, "mmlu", choices=True),
        DataSet("questions to a search engine", public.NQ_OPEN, "nq_open"),
        DataSet("short facts that models get wrong", public.SIMPLE_QA, "simpleqa"),
        DataSet("trivia with many aliases", public.TRIVIA_QA, "triviaqa"),
        DataSet("questions that invite false answers", public.TRUTHFUL_QA, "truthfulqa"),
    )
}


def find(dataset: str) -> DataSet:
    """The row of a data set by its name or hub id; DataError for any other."""
    for row in DATASETS.values():
        if dataset == row.name or (not row.built_in and dataset == row.source.hub_id):
            return row
    hint = nearest(dataset, DATASETS)
    raise DataError(f"data set {dataset!r} is unknown; {hint}use one of {list(DATASETS)} or a hub id of theirs")


def load_questions(
    dataset: str = "facts",
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    path: str | Path | None = None,
) -> list[Question]:
    """Questions of one split.

    Parameters
    ----------
    dataset : a name of `DATASETS`, or the hub id of a public set: `"facts"` (embedded), `"arithmetic"` (generated:
        word problems of 1 to 6 steps), `"multihop"` (composed from the facts),
        `"world"` (generated, with a known distribution of answers),
        `"natural_questions"` (2,000 of NQ-Open, embedded), ...
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
    row = find(dataset)
    if path is not None:
        row.check_path(path)
    questions = row.questions(split, path and Path(path))
    if n is None:
        return list(questions)
    if not questions:
        raise DataError(
            f"data set {dataset!r}{f' from {path}' if path else ''} has no question of split {split!r}: use another "
            f"split of {SPLITS}, or more rows"
        )
    return sample_evenly(questions, n, seed)


def known_names(dataset: str, questions: Iterable[Question] | None = None) -> dict[str, dict[str, str]]:
    """Per relation every known name -> its class, for a data set whose answers are a closed list; else none.

    `questions` are those whose answers count; by default all of the data set.
    """
    row = find(dataset)
    if not row.closed:
        return {}
    return names_of([q for split in SPLITS for q in row.questions(split)] if questions is None else questions)

"""Build the embedded questions of Natural Questions: `python -m calib_utils.data.natural_questions.build FILE`.

FILE is the development set of NQ-Open as its owners publish it (JSONL with `question` and `answer`, a list). 2,000 of
its 3,610 rows are taken by a hash of the question, so that nothing about their content decides. Nothing is changed in
them; a row keeps the number that it has in FILE. A row with an answer that has no word (")") is left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from calib_utils.data.natural_questions.embedded import FILE
from calib_utils.data.public import NQ_OPEN, read_rows
from calib_utils.data.splits import split_of
from calib_utils.errors import DataError
from calib_utils.storage import publish, text_digest
from calib_utils.text import NO_ANSWER, canonical_text

N_QUESTIONS = 2000
SHARES = {"train": 0.1, "dev": 0.25, "test": 0.65}  # the train split is for worked examples only


def build(rows: list[dict], n: int = N_QUESTIONS) -> list[dict]:
    """`n` rows with id and split, in the order of the file; DataError for fewer rows or questions that repeat."""
    if len({row["question"] for row in rows}) != len(rows):
        raise DataError("two rows have the same question; give the published file, in which every question is once")
    usable = [(number, row) for number, row in enumerate(rows, start=1) if all(map(_has_words, row["answer"]))]
    if len(usable) < n:
        raise DataError(f"there are {len(usable)} rows, {n} are needed; give the published development set")
    numbered = [(text_digest(row["question"], 16), number, row) for number, row in usable]
    chosen = sorted((number, row) for _, number, row in sorted(numbered, key=lambda each: each[:2])[:n])
    found = []
    for number, row in chosen:
        text, answers, _, _ = NQ_OPEN.parse(row)
        split = split_of(f"split of {text}", SHARES)  # the hash of the text alone has chosen the row
        found.append({"id": f"nq/{number}", "split": split, "question": text, "answers": answers})
    return found


def _has_words(answer: str) -> bool:
    return canonical_text(answer) != NO_ANSWER


def main() -> None:
    """Write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="NQ-Open's development set, JSONL")
    rows = build(read_rows(parser.parse_args().file))
    publish(FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} questions in {FILE}")


if __name__ == "__main__":
    main()

"""Slim data of the course assignments, from the records and stages of a run.

    python notebooks/assignments/build_data.py runs

`RUNS/records` holds the draws of notebook 01 (base model, concise answers) and 02 (SFT and DPO), `RUNS/stages` the
trained stages, by which a record tells whose draws it holds. Four files are written beside this script:

=====================  ==========================================================================================
`base_answers.csv`     base model: one row per question and distinct answer, with how often it was drawn
`base_classes.csv`     base model: one row per question and class of answers by `semantics.Semantic`, the largest
                       first, with its draws and whether it is the right one
`base_scores.csv`      base model: one row per question, confidence and correctness by `semantics.Semantic`
`tuned_scores.csv`     SFT and DPO: one row per training seed, model and question both were asked
=====================  ==========================================================================================
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from calib_utils import data, models, prompts, records, semantics

MODEL, N_QUESTIONS, N_DRAWS, N_SHOTS, SEED = "gemma-3-270m", 408, 50, 10, 0  # notebook 01 in profile `cpu`
REPORTED = {"method": "dpo", "steps": 20, "beta": 0.1, "rejected": "minority", "options": []}  # notebook 02
LARGEST = 3_000_000  # bytes of all files together
TEXT = ["question_id", "relation", "question", "reference", "aliases"]


def main(runs: Path, folder: Path) -> None:
    """Write the files to `folder`; raise SystemExit where records of the base model are missing."""
    known = data.known_names("facts")
    collapse = semantics.Semantic(known)
    base = _base(runs / "records")
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "base_answers": pd.DataFrame(_answers(base)),
        "base_classes": pd.DataFrame(_classes(base, collapse)),
        "base_scores": _scores(base, collapse),
        "tuned_scores": _tuned(runs, collapse),
    }
    if tables["tuned_scores"].empty:
        print(f"{runs} holds no draws of SFT and DPO with the same seed: run notebook 02 there for tuned_scores.csv")
        del tables["tuned_scores"]
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    size = sum((folder / f"{name}.csv").stat().st_size for name in tables)
    if size > LARGEST:
        raise SystemExit(f"the data take {size:,} bytes, more than {LARGEST:,}: write fewer questions or columns")
    print({name: len(table) for name, table in tables.items()}, f"{size:,} bytes")


def _base(folder: Path) -> list:
    """`Record`s of the base model for the questions and the few-shot prompt of notebook 01, in its order."""
    questions = data.load_questions(split="test", n=N_QUESTIONS, seed=SEED)
    shots = prompts.pick_shots(data.load_questions(split="train"), N_SHOTS, SEED)
    asked = prompts.build_prompts(questions, shots, "concise")
    plain = _settings(models.load(MODEL).fingerprint)
    wanted = {prompt.shared + prompt.own for prompt in asked}
    keys = {
        row["key"]
        for path in sorted(folder.rglob("*.parquet"))
        for row in pq.read_table(path, columns=["key", "prompt"]).to_pylist()
        if row["prompt"] in wanted
    }
    found = {r.question.id: r for r in records.read(folder) if r.key in keys and _is(r, plain)}
    return _complete(found, questions, "the base model (notebook 01)")


def _settings(fingerprint: str) -> dict:
    return {"fingerprint": fingerprint, "label": "concise", "n_samples": N_DRAWS, "temperature": 1.0, "seed": SEED}


def _is(record, settings: dict) -> bool:
    return all(record.condition.get(name) == value for name, value in settings.items())


def _complete(found: dict, questions: list, whose: str) -> list:
    missing = [question.id for question in questions if question.id not in found]
    if missing:
        raise SystemExit(f"{len(missing)} records of {whose} are missing, {missing[0]!r} first: run its notebook")
    return [found[question.id] for question in questions]


def _text(question) -> dict[str, str]:
    values = question.id, question.relation, question.text, question.answer, "|".join(question.aliases)
    return dict(zip(TEXT, values, strict=True))


def _answers(drawn: list) -> Iterator[dict]:
    """One row per question and distinct text; blanks at the ends of a text are no part of it."""
    for record in drawn:
        counts: dict[str, int] = {}
        for completion in record.completions:
            counts[completion.text.strip()] = counts.get(completion.text.strip(), 0) + completion.count
        for text, count in counts.items():
            yield {**_text(record.question), "text": text, "count": count}


def _classes(drawn: list, collapse: semantics.Semantic) -> Iterator[dict]:
    for record in drawn:
        right = semantics.right_class(record.question, collapse)
        shares = semantics.class_distribution(record.question, record.completions, collapse)
        for name, share in shares.items():
            yield {
                "question_id": record.question.id,
                "class": name,
                "count": round(share * N_DRAWS),
                "right": int(name == right),
            }


def _scores(drawn: list, collapse: semantics.Semantic) -> pd.DataFrame:
    columns = ["question_id", "relation", "prediction", "reference", "confidence", "correct"]
    return semantics.score(drawn, collapse)[columns]


def _tuned(runs: Path, collapse: semantics.Semantic) -> pd.DataFrame:
    """Scores of SFT and DPO of every training seed with both, on the questions that all of them were asked.

    Empty where `runs` has no draws of such a pair.
    """
    drawn = records.read(runs / "records")
    found: dict[tuple[int, str], dict] = {}
    for seed, pair in _pairs(runs / "stages"):
        own = {
            (seed, model): {
                r.question.id: r for r in drawn if r.question.split == "test" and _is(r, _settings(fingerprint))
            }
            for model, fingerprint in pair.items()
        }
        if all(own.values()):
            found |= own
    if not found:
        return pd.DataFrame()
    common = sorted(set.intersection(*(set(own) for own in found.values())))
    tables = [
        _scores([own[name] for name in common], collapse).assign(seed=seed, model=model)
        for (seed, model), own in sorted(found.items())
    ]
    return pd.concat(tables)[["seed", "model", "question_id", "relation", "confidence", "correct"]]


def _pairs(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Training seed, and the fingerprints of the DPO that notebook 02 reports and of the SFT that it comes from."""
    stages = {
        path.parent: json.loads(path.read_text("utf-8"))["stage"] for path in sorted(folder.glob("*/stage.json"))
    }
    for path, stage in stages.items():
        if all(stage[name] == value for name, value in REPORTED.items()) and stage["parent"] in stages.values():
            (before,) = (other for other, parent in stages.items() if parent == stage["parent"])
            yield stage["seed"], {"SFT": _fingerprint(before, stage["parent"]), "DPO": _fingerprint(path, stage)}


def _fingerprint(folder: Path, stage: dict) -> str:
    return models.load(MODEL, adapter=str(folder / f"step-{stage['steps']}")).fingerprint


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of runs, with records/ and stages/")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data", help="where the files go")
    main(*vars(parser.parse_args()).values())

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
import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from papermill import inspect_notebook

from calib_utils import data, home, models, prompts, records, semantics

BASE, TUNED = "01_base_semantic_calibration", "02_rl_degradation"  # their parameters say what was asked and reported
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


def _parameters(notebook: str) -> dict:
    """The parameters of a notebook with their defaults, those of profile `cpu`."""
    found = inspect_notebook(str(home.ROOT / "notebooks" / f"{notebook}.ipynb"))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}


def _base(folder: Path) -> list:
    """`Record`s of the base model for the questions and the few-shot prompt of notebook 01, in its order."""
    run = _parameters(BASE)
    questions = data.load_questions(split="test", n=run["n_questions"], seed=run["seed"])
    shots = prompts.pick_shots(data.load_questions(split="train"), run["n_shots"], run["seed"])
    asked = prompts.build_prompts(questions, shots, "concise")
    plain = _settings(models.load(run["model"]).fingerprint, run)
    wanted = {prompt.shared + prompt.own for prompt in asked}
    keys = {
        row["key"]
        for path in sorted(folder.rglob("*.parquet"))
        for row in pq.read_table(path, columns=["key", "prompt"]).to_pylist()
        if row["prompt"] in wanted
    }
    found = {r.question.id: r for r in records.read(folder) if r.key in keys and _is(r, plain)}
    return _complete(found, questions, "the base model (notebook 01)")


def _settings(fingerprint: str, run: dict) -> dict:
    """What tells a record of free answers, concise and at temperature 1, by the model with this fingerprint."""
    sampled = {"n_samples": run["n_samples"], "temperature": 1.0, "seed": run["seed"]}
    return {"fingerprint": fingerprint, "label": "concise", **sampled}


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
                "count": round(share * sum(completion.count for completion in record.completions)),
                "right": int(name == right),
            }


def _scores(drawn: list, collapse: semantics.Semantic) -> pd.DataFrame:
    columns = ["question_id", "relation", "prediction", "reference", "confidence", "correct"]
    return semantics.score(drawn, collapse)[columns]


def _tuned(runs: Path, collapse: semantics.Semantic) -> pd.DataFrame:
    """Scores of SFT and DPO of every training seed with both, on the questions that all of them were asked.

    Empty where `runs` has no draws of such a pair.
    """
    run, drawn = _parameters(TUNED), records.read(runs / "records")
    found: dict[tuple[int, str], dict] = {}
    for seed, pair in _pairs(runs / "stages", run):
        for model, fingerprint in pair.items():
            wanted = _settings(fingerprint, run)
            found[seed, model] = {r.question.id: r for r in drawn if r.question.split == "test" and _is(r, wanted)}
    if not found or not all(found.values()):
        return pd.DataFrame()
    common = sorted(set.intersection(*(set(own) for own in found.values())))
    tables = [
        _scores([own[name] for name in common], collapse).assign(seed=seed, model=model)
        for (seed, model), own in sorted(found.items())
    ]
    return pd.concat(tables)[["seed", "model", "question_id", "relation", "confidence", "correct"]]


def _pairs(folder: Path, run: dict) -> Iterator[tuple[int, dict[str, str]]]:
    """Training seed, and the fingerprints of the DPO that notebook 02 reports and of the SFT that it comes from."""
    reported = {"method": "dpo", "beta": run["dpo_beta"], "rejected": run["dpo_rejected"], "options": []}
    reported |= {"learning_rate": run["dpo_lr"], "steps": run["dpo_steps"][-1]}
    stages = {}
    for path in sorted(folder.glob("*/stage.json")):
        stages[path.parent] = json.loads(path.read_text(encoding="utf-8"))["stage"]
    for path, stage in stages.items():
        wanted = stage["seed"] in run["train_seeds"] and all(stage[name] == value for name, value in reported.items())
        if wanted and stage["parent"] in stages.values():
            (before,) = (other for other, parent in stages.items() if parent == stage["parent"])
            steps = {"SFT": (before, stage["parent"]["steps"]), "DPO": (path, run["dpo_reported"])}
            yield stage["seed"], {model: _fingerprint(run["model"], *at) for model, at in steps.items()}


def _fingerprint(model: str, folder: Path, step: int) -> str:
    return models.load(model, adapter=str(folder / f"step-{step}")).fingerprint


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of runs, with records/ and stages/")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data", help="where the files go")
    main(*vars(parser.parse_args()).values())

"""Build the folder of a course: sources with the data of a course seed, and the release to hand out.

    python notebooks/assignments/build_course.py --seed 2027 --folder runs/course

Solutions are public, so each course draws its own questions from the data: three quarters of them, and another split
into dev and test. Assignment 7 gets worlds of its own. Functions graded by hidden tests stay the same; every number
that a student reports differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from nbgrader.apps import NbGraderAPI
from traitlets.config import PyFileConfigLoader

HERE = Path(__file__).parent
BASE, TUNED = ("base_answers", "base_classes", "base_scores"), ("tuned_scores",)
NEEDS = {  # assignment -> tables that its notebook reads
    "a1": ("base_scores",),
    "a2": ("base_answers",),
    "a3": ("base_classes",),
    "a4": ("base_classes", "split"),
    "a5": ("base_classes",),
    "a6": ("tuned_scores",),
    "a7": ("worlds",),
}
SHARE = 0.75  # of the questions that a course seed draws
DEV = 0.4  # of the drawn questions
WORLDS = 3  # generated worlds of assignment 7


def course_data(seed: int) -> dict[str, pd.DataFrame]:
    """The tables of the course with this seed: the same questions in all tables of one model, and its own worlds."""
    files = sorted((HERE / "data").glob("*.csv"))
    tables = {file.stem: pd.read_csv(file, keep_default_na=False) for file in files}
    for names, stream in ((BASE, 1), (TUNED, 2)):
        if not set(names) <= set(tables):
            continue
        rng = np.random.default_rng([seed, stream])
        ids = np.sort(tables[names[0]]["question_id"].unique())
        kept = rng.permutation(ids)[: round(SHARE * len(ids))]
        for name in names:
            tables[name] = tables[name][tables[name]["question_id"].isin(kept)]
        if names == BASE:
            is_dev = np.arange(len(kept)) < DEV * len(kept)
            split = pd.DataFrame({"question_id": kept, "split": np.where(is_dev, "dev", "test")})
            tables["split"] = split.sort_values("question_id")
    worlds = np.random.default_rng([seed, 3]).choice(1_000_000, WORLDS, replace=False)
    return {**tables, "worlds": pd.DataFrame({"seed": worlds})}


def build(folder: Path, seed: int) -> None:
    """Write `folder`/source, `folder`/release and the gradebook; raise SystemExit if it holds submissions."""
    if (folder / "submitted").exists():
        raise SystemExit(f"{folder} holds submissions: name another --folder, so that their course stays as it is")
    (folder / "gradebook.db").unlink(missing_ok=True)
    tables = course_data(seed)
    ready = {name: needed for name, needed in NEEDS.items() if set(needed) <= set(tables)}
    for name in sorted(set(NEEDS) - set(ready)):
        print(f"left out {name}: data/ lacks {', '.join(NEEDS[name])}.csv, which build_data.py writes from a run")
    for part in ("source", "release"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name, needed in ready.items():
        shutil.copytree(HERE / "source" / name, folder / "source" / name)
        for table in needed:
            tables[table].to_csv(folder / "source" / name / f"{table}.csv", index=False, lineterminator="\n")
        shutil.copy(HERE / "STUDENTS.md", folder / "source" / name / "README.md")
        shutil.copy(HERE.parents[1] / "requirements-course.txt", folder / "source" / name)
    shutil.copy(HERE / "nbgrader_config.py", folder)
    config = PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()
    config.CourseDirectory.root = str(folder.resolve())
    # nbgrader calls alembic by its bare name, which an environment that is not activated does not have on its path.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    api = NbGraderAPI(config=config)
    for name in ready:
        result = api.generate_assignment(name)
        if not result["success"]:
            sys.exit(f"nbgrader could not generate {name}:\n{result['log']}")
    print(f"course seed {seed}: hand out {folder / 'release'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="course seed: which questions, which split")
    parser.add_argument("--folder", type=Path, default=Path("runs/course"), help="where the course goes")
    given = parser.parse_args()
    build(given.folder, given.seed)

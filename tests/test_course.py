"""The course: a teacher builds it, students hand in, nbgrader grades; scores are read from its gradebook.

Runs in the course's own environment (`make course kernel`), without torch; assignment 7 alone is executed by a kernel
of the project's environment: `.venv-course/bin/python -m pytest --noconftest tests/test_course.py`.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("nbgrader") is None:
    reason = "nbgrader is not installed here: `make test` runs these tests in .venv-course"
    pytest.skip(reason, allow_module_level=True)

from jupyter_client.kernelspec import find_kernel_specs
from nbgrader.api import Gradebook

ASSIGNMENTS = Path(__file__).resolve().parents[1] / "notebooks" / "assignments"
sys.path.insert(0, str(ASSIGNMENTS))

import build_course  # noqa: E402

TABLES = {path.stem for path in (ASSIGNMENTS / "data").glob("*.csv")} | {"split", "worlds"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(name):
    return read(ASSIGNMENTS / "source" / name / f"{name}.ipynb")


def kernel(name):
    return source(name)["metadata"]["kernelspec"]["name"]


BUILT = [name for name, needed in build_course.NEEDS.items() if set(needed) <= TABLES]
NAMES = [name for name in BUILT if kernel(name) in find_kernel_specs()]  # those that can be executed here
FIRST = NAMES[0]
HANGS, DIES = "    while True:\n        pass", "    import os\n    os._exit(1)"


def label(cell):
    return cell["metadata"]["nbgrader"]


def submit(course, student, name, notebook):
    """Hand in a notebook alone, as a student does: the data come from the source."""
    folder = course / "submitted" / student / name
    folder.mkdir(parents=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def sabotaged(notebook, body):
    """The notebook with `body` in place of what its last function does."""
    cells = [cell for cell in notebook["cells"] if label(cell)["solution"]]
    cells[-1]["source"] = re.sub(
        r" *### BEGIN SOLUTION.*?### END SOLUTION", body, "".join(cells[-1]["source"]), flags=re.S
    )
    return notebook


def autograde(course, name):
    """Grade all submissions of an assignment; the exit status says nothing of scores."""
    command = [sys.executable, "-m", "nbgrader", "autograde", name]
    subprocess.run(command, cwd=course, capture_output=True, timeout=3600, check=False)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course that is built, handed in and graded: reference, blank and wrong submissions of all assignments."""
    folder = tmp_path_factory.mktemp("course")
    build_course.build(folder, seed=3)
    for name in NAMES:
        submit(folder, "reference", name, source(name))
        submit(folder, "blank", name, read(folder / "release" / name / f"{name}.ipynb"))
        submit(folder, "wrong", name, read(ASSIGNMENTS / "wrong" / f"{name}.ipynb"))
        autograde(folder, name)
    return folder


def points(course, name, student):
    """Points by graded cell, as they stand in the gradebook."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        grades = gradebook.find_submission(name, student).notebooks[0].grades
        return {grade.name: grade.score for grade in grades}


def possible(name):
    """Points by graded cell of the source, and the cells that a person reads."""
    cells = [label(cell) for cell in source(name)["cells"]]
    graded = {cell["grade_id"]: cell["points"] for cell in cells if cell["grade"]}
    return graded, {cell["grade_id"] for cell in cells if cell["grade"] and cell["solution"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_full_marks_once_a_person_has_read_the_paragraphs(course, name):
    full, by_hand = possible(name)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for cell in by_hand:
            grade = gradebook.find_grade(cell, name, name, "reference")
            assert grade.needs_manual_grade
            grade.manual_score = full[cell]
        gradebook.db.commit()
    assert points(course, name, "reference") == full


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_submission_gets_nothing(course, name):
    assert points(course, name, "blank") == dict.fromkeys(possible(name)[0], 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_submission_loses_the_points_of_its_misconception_and_no_others(course, name):
    expected = read(ASSIGNMENTS / "wrong" / f"{name}.ipynb")["metadata"]["expected_points"]
    full, by_hand = possible(name)
    assert points(course, name, "wrong") == expected
    assert any(0 == expected[cell] < full[cell] for cell in set(full) - by_hand)


def test_the_wrong_submission_differs_from_the_source_in_what_a_student_writes_only():
    for name in BUILT:
        right, wrong = source(name)["cells"], read(ASSIGNMENTS / "wrong" / f"{name}.ipynb")["cells"]
        assert [label(cell) for cell in right] == [label(cell) for cell in wrong]
        for one, other in zip(right, wrong, strict=True):
            visible = re.sub(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", "", "".join(one["source"]), flags=re.S)
            assert label(one)["solution"] or visible.strip() == "".join(other["source"]).strip()


def test_the_release_holds_neither_solution_nor_hidden_test(course):
    for name in BUILT:
        cells = ["".join(cell["source"]) for cell in source(name)["cells"]]
        marked = [
            re.findall(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", cell, flags=re.S) for cell in cells
        ]
        secrets = [line.strip() for parts in marked for part in parts for line in part.splitlines()]
        open_text = "\n".join(re.sub(r"### BEGIN.*?### END", "", cell, flags=re.S) for cell in cells)
        secrets = [line for line in secrets if len(line) > 20 and line not in open_text]
        assert len(secrets) > 10
        for path in (course / "release" / name).iterdir():
            text = path.read_text(encoding="utf-8")
            assert not re.search("BEGIN|END SOLUTION|HIDDEN", text) or path.suffix != ".ipynb"
            assert not [line for line in secrets if json.dumps(line, ensure_ascii=False)[1:-1] in text]
        assert (course / "release" / name / "README.md").exists()


def test_a_submission_that_hangs_or_kills_its_kernel_gets_nothing_and_the_others_are_graded(course, tmp_path):
    """In a course of its own, with a limit of 15 seconds a cell."""
    for part in ("source", "release"):
        shutil.copytree(course / part / FIRST, tmp_path / part / FIRST)
    shutil.copy(course / "gradebook.db", tmp_path)
    config = (course / "nbgrader_config.py").read_text(encoding="utf-8")
    assert "c.Execute.timeout = 60" in config
    (tmp_path / "nbgrader_config.py").write_text(config.replace("timeout = 60", "timeout = 15"), encoding="utf-8")
    submit(tmp_path, "a-hangs", FIRST, sabotaged(source(FIRST), HANGS))
    submit(tmp_path, "b-dies", FIRST, sabotaged(source(FIRST), DIES))
    submit(tmp_path, "c-honest", FIRST, source(FIRST))
    autograde(tmp_path, FIRST)
    full, _ = possible(FIRST)
    assert points(tmp_path, FIRST, "a-hangs") == {**full, list(full)[-1]: 0}
    assert sum(points(tmp_path, FIRST, "b-dies").values()) == 0
    assert points(tmp_path, FIRST, "c-honest") == full


def test_the_students_environment_has_no_torch_and_the_notebooks_import_three_packages_only():
    assert importlib.util.find_spec("torch") is None
    plain = {"numpy", "pandas", "matplotlib", "re", "unicodedata"}
    for name in BUILT:
        allowed = plain if kernel(name) == "python3" else plain | {"torch", "calib_utils"}
        for cell in source(name)["cells"]:
            if cell["cell_type"] == "code":
                text = "".join(cell["source"])
                assert set(re.findall(r"^\s*(?:import|from) (\w+)", text, flags=re.M)) <= allowed


def test_every_assignment_is_executed_here():
    missing = sorted(set(BUILT) - set(NAMES))
    if missing:
        pytest.skip(
            f"not executed here: {', '.join(missing)}, whose kernel {kernel(missing[0])!r} `make kernel` installs"
        )


def test_a_course_seed_draws_its_own_questions_and_the_same_ones_again():
    first, again, other = (build_course.course_data(seed) for seed in (1, 1, 2))
    assert not set(first["worlds"]["seed"]) & set(other["worlds"]["seed"])
    assert all(first[name].equals(again[name]) for name in first)
    asked = [set(tables["base_scores"]["question_id"]) for tables in (first, other)]
    assert asked[0] != asked[1] and set(first["split"]["question_id"]) == asked[0]
    assert {name: set(first[name]["question_id"]) == asked[0] for name in build_course.BASE} == dict.fromkeys(
        build_course.BASE, True
    )


def test_the_data_take_at_most_three_megabytes():
    assert sum(path.stat().st_size for path in (ASSIGNMENTS / "data").iterdir()) <= 3_000_000


def test_points_add_up_to_those_of_the_table_in_the_instructors_readme():
    text = (ASSIGNMENTS / "README.md").read_text(encoding="utf-8")
    told = {name.lower(): int(n) for name, n in re.findall(r"^\| (A\d) \|.*\| (\d+) \|$", text, flags=re.M)}
    assert {name: sum(possible(name)[0].values()) for name in build_course.NEEDS} == told

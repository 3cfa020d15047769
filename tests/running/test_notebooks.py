"""Every notebook is clean, declares its parameters, and runs on the real default model in profile smoke."""

import ast
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from papermill import inspect_notebook
from test_house import ABSENT

from calib_utils import claims, models, semantics, training
from calib_utils.config import PROFILES, profile_parameters
from calib_utils.data import load_questions
from calib_utils.errors import ConfigError, RunError
from calib_utils.home import ROOT
from calib_utils.running import batch, cli, manifest, runner
from calib_utils.studies import lifecycle
from calib_utils.studies.parameters import STUDIES, PreferenceStudy, RunConfig
from calib_utils.training import Stage, pretraining

NOTEBOOKS = runner.find_notebooks()
(FIRST,) = runner.find_notebooks(["01"])  # the first one that asks a model


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


LINES = 8  # of a code cell
WORDS = 120  # of text between two code cells; tables, and what opens a notebook, stand outside of it
NAMES = 45  # of the package, that a reader of all notebooks meets


def package_names(path):
    """Names of the package that a notebook uses: what it imports, or takes from a module that it imports."""
    tree = ast.parse("\n".join(cell.source for cell in code(path)))
    modules, found = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "calib_utils":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                where = ROOT / full.replace(".", "/")
                if where.is_dir() or where.with_suffix(".py").is_file():
                    modules[alias.asname or alias.name] = full
                else:
                    found.add(full)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("calib_utils") for alias in node.names), (
                "write: from calib_utils import"
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.add(f"{modules[node.value.id]}.{node.attr}")
    return found


def test_no_outputs_and_no_definitions(notebook):
    content = nbformat.read(notebook, 4)
    assert content.metadata["kernelspec"]["name"] == "python3"
    assert len({cell.id for cell in content.cells}) == len(content.cells)
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(cell.source)))


def test_no_code_cell_has_more_than_eight_lines(notebook):
    """Parameters stand in one cell, however many there are."""
    cells = [cell for cell in code(notebook) if "parameters" not in cell.metadata.get("tags", [])]
    lines = {cell.id: len(cell.source.splitlines()) for cell in cells}
    assert {name: n for name, n in lines.items() if n > LINES} == {}, f"cells of more than {LINES} lines"


def test_no_text_between_two_code_cells_is_longer_than_a_screen(notebook):
    words, begun = {}, False
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "code":
            begun, last = True, cell.id
        elif begun:
            prose = [line for line in cell.source.splitlines() if not line.startswith("|")]
            words[last] = words.get(last, 0) + len(" ".join(prose).split())
    assert {name: n for name, n in words.items() if n > WORDS} == {}, f"more than {WORDS} words after these cells"


def test_the_notebooks_together_use_few_names_of_the_package():
    found = set().union(*(package_names(path) for path in NOTEBOOKS))
    assert len(found) <= NAMES, sorted(found)


def test_every_name_of_the_package_that_is_used_is_counted(tmp_path):
    path = written(
        tmp_path,
        "profile: str = 'cpu'",
        "from calib_utils import metrics, plots as drawn\nfrom calib_utils.training import Stage",
        "drawn.grid(metrics.wide(1), metrics.wide(2).round(3), run.save)\nimport pandas as pd\npd.concat",
    )
    assert package_names(path) == {
        "calib_utils.metrics.wide",
        "calib_utils.plots.grid",
        "calib_utils.training.Stage",
    }


def test_parameters_are_declared_with_type_and_help(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    for name, parameter in inspect_notebook(str(notebook)).items():
        assert parameter["help"], name
        assert parameter["inferred_type_name"] in {"str", "int", "float", "bool", "list"}, name


def test_the_parameters_cell_declares_what_its_class_does_with_the_same_values(notebook):
    own = {name: ast.literal_eval(found["default"]) for name, found in inspect_notebook(str(notebook)).items()}
    assert own == STUDIES[notebook.stem].defaults()
    tags = [cell.metadata.get("tags", []) for cell in code(notebook)]
    after = code(notebook)[tags.index(["parameters"]) + 1].source
    assert f"run = studies.{STUDIES[notebook.stem].__name__}.from_namespace(globals())" in after


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_set_declared_parameters_only(notebook, profile):
    runner.parameters_of(notebook, profile, {})


@pytest.mark.parametrize("profile", PROFILES)
def test_notebooks_of_one_lineage_train_the_same_stages(profile):
    given = {}
    for notebook in ("02_rl_degradation", "04_catto", "05_calibration_aware"):
        given[notebook] = STUDIES[notebook].defaults() | profile_parameters(profile, notebook)
    shared = set(PreferenceStudy.model_fields) - set(RunConfig.model_fields) - {"train_seeds", "n_side", "n_used"}
    shared |= {"model", "chat", "dtype", "dataset", "data_path", "n_samples", "n_shots", "seed", "max_rows"}
    own = [found for found in given.values() if not found.get("aligned")]  # an aligned model has no lineage here
    assert len(given) == 3 and len(own) >= 2
    for found in own[1:]:
        assert {name: found[name] for name in shared} == {name: own[0][name] for name in shared}


@pytest.mark.real_model
def test_runs_in_smoke_on_the_real_model(notebook, tmp_path):
    where = {"figures": str(tmp_path / "figures"), "runs": str(tmp_path / "runs")}
    overview = notebook.stem in ("00_quickstart", "08_claims")  # read what the others wrote
    if notebook.stem == "00_quickstart" and not (ROOT / "figures" / "records" / "02.parquet").exists():
        pytest.skip("there are no shipped records: run the notebooks first")
    if notebook.stem == "08_claims":
        (tmp_path / "figures").mkdir()
        for path in (ROOT / "figures").glob("claims.csv"):
            shutil.copy(path, tmp_path / "figures")
    outcome = runner.run(notebook, "smoke", where, tmp_path / "executed")
    assert outcome.executed.exists()
    rows = [row for row in claims.read_claims(tmp_path / "figures") if row["notebook"] == notebook.stem]
    assert overview or (rows and all(row["profile"] == "smoke" for row in rows))
    made = json.loads((tmp_path / "figures" / f"{notebook.stem[:2]}_manifest.json").read_text(encoding="utf-8"))
    assert made["state"] == "complete" and made["parameters"]["profile"] == "smoke"
    loads_none = overview or notebook.stem == "06_lifecycle"  # whose models are trained there, from nothing
    assert bool(made["models"]) is not loads_none
    pictures = sorted((tmp_path / "figures").glob(f"{notebook.stem[:2]}_*.png"))
    assert pictures and all(path.with_suffix(".csv").exists() for path in pictures)
    first = {path.name: path.read_bytes() for path in pictures}
    runner.run(notebook, "smoke", where, tmp_path / "again")  # from records: same bytes
    assert {path.name: path.read_bytes() for path in pictures} == first
    redraw_without_models(notebook, tmp_path)
    for name in made["files"]:
        if Path(name).parent.name == "records":
            assert overview or manifest.sha256(tmp_path / "figures" / name) == made["files"][name]
    assert overview or f"records/{notebook.stem[:2]}_tables.parquet" in made["files"]


def redraw_without_models(notebook, folder):
    """In a process that has no torch, transformers, trl, peft or runs: all figures and claims, byte for byte."""
    if (folder / "runs").exists():
        (folder / "runs").rename(folder / "measured")
    (folder / "blocked").mkdir()
    (folder / "blocked" / "sitecustomize.py").write_text(ABSENT)
    words = ["redraw", "--only", notebook.stem[:2], "--figures", str(folder / "figures"), "--jobs", "1"]
    path = os.pathsep.join([str(folder / "blocked"), str(ROOT)])
    command = [sys.executable, "-m", "calib_utils", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0 and "all as in the run, byte for byte" in done.stdout, (done.stdout, done.stderr)
    assert not (folder / "runs").exists()


def test_a_published_series_goes_through_the_lifecycle_notebook(tmp_path):
    """A folder of checkpoints stands for the hub: names, revisions and everything after them are the same."""
    questions = load_questions("facts", "train")[:100]
    start = pretraining.untrained(pretraining.Shape(32, 1), questions, tmp_path, vocabulary=300)
    stage = Stage("pretrain", 20, 5e-3, n_questions=100, batch_size=2, lora_rank=0, keep=(10,))
    series = training.train(stage, models.load(str(start)), questions, semantics.canonical, tmp_path, progress=False)
    given = {"models": [str(series.folder)], "revisions": ["step-10", "step-20"], "n_shots": 1, "n_boot": 20}
    given |= {"train_seeds": [0], "kl_weights": []}  # so small a model answers nothing right: there is no reward
    given |= {"figures": str(tmp_path / "figures"), "runs": str(tmp_path / "runs")}
    (path,) = runner.find_notebooks(["06"])
    runner.run(path, "smoke", given, tmp_path / "executed")
    along = pd.read_csv(tmp_path / "figures" / "06_dynamics.csv")
    assert sorted(along["step"].unique()) == [10, 20] and set(along["task"]) == {*claims.TASKS, lifecycle.WHOLE}
    rows = pd.read_csv(tmp_path / "figures" / "claims.csv")
    assert set(rows["model"]) == {str(series.folder)} and rows["conditions"].str.startswith("next token: ").all()
    assert {"lifecycle-time", "lifecycle-lora", "lifecycle-diversity", "lifecycle-dpo"} <= set(rows["id"])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("n_question", 3, "did you mean 'n_questions'"),
        ("n_questions", "3", r"n_questions: Input should be a valid integer \(got '3'\); in YAML"),
        ("n_questions", True, r"n_questions: Input should be a valid integer \(got True\)"),
        ("model", False, r"model: Input should be a valid string \(got False\)"),
        ("n_questions", 0, r"n_questions: Input should be greater than or equal to 20 \(got 0\)$"),
        ("n_samples", 5, r"m_values \[5, 10, 20, 50\] go beyond n_samples = 5; lower them$"),
        ("zzz", 3, "'zzz'; there are"),
        ("dataset", "fact", "data set 'fact' is unknown; did you mean 'facts'"),
    ],
)
def test_a_wrong_override_is_refused_before_anything_runs(name, value, message):
    with pytest.raises(ConfigError, match=message):
        runner.parameters_of(FIRST, "cpu", {name: value})


@pytest.mark.parametrize(
    "given, message",
    [
        ("n_questions=0", "n_questions: Input should be greater than or equal to 20 (got 0)\n"),
        ("dataset=fact", "dataset: data set 'fact' is unknown; did you mean 'facts'? use one of "),
    ],
)
def test_a_value_that_cannot_be_ends_the_command_at_once_and_writes_nothing(given, message):
    def seen():
        return {
            path: path.stat().st_mtime_ns for name in ("figures", "runs/custom") for path in (ROOT / name).rglob("*")
        }

    before, began = seen(), time.monotonic()
    command = [sys.executable, "-m", "calib_utils", "run", "-p", given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and time.monotonic() - began < 10  # 0.7 s on an idle machine
    assert done.stderr.startswith(f"error: 01_base_semantic_calibration: {message}") and done.stderr.count("\n") == 1
    assert seen() == before


def test_only_the_standard_run_delivers_to_the_shipped_figures():
    notebooks = ROOT / "runs" / "notebooks"
    assert runner.destination("cpu", {}) == ("figures", notebooks / "cpu")
    assert runner.destination("cpu", {"device": "cuda:1", "max_rows": 8, "runs": "x"}) == (
        "figures",
        notebooks / "cpu",
    )
    assert runner.destination("smoke", {}) == ("runs/smoke/figures", notebooks / "smoke")
    assert runner.destination("gpu", {"device": "cuda"}) == ("runs/gpu/figures", notebooks / "gpu")
    custom = {
        runner.destination(p, {"n_boot": n, "device": d}) for p in PROFILES for n in (1, 2) for d in ("cpu", "x")
    }
    assert len(custom) == 6
    for figures, output in custom:
        assert figures.startswith("runs/custom/") and output == (ROOT / figures).parent / "notebooks"
    figures, output = runner.destination("cpu", {"figures": "runs/mine/figures"})  # what is given wins
    assert figures == "runs/mine/figures" and output.parent.parent == ROOT / "runs" / "custom"
    assert runner.parameters_of(FIRST, "cpu", {})["figures"] == "figures"
    assert runner.parameters_of(FIRST, "smoke", {})["figures"] == "runs/smoke/figures"


def shipped():
    every = (path for path in (ROOT / "figures").rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in every}


def test_notebook_08_by_plain_papermill_leaves_the_shipped_figures_alone(tmp_path):
    before, (path,) = shipped(), runner.find_notebooks(["08"])
    words = [str(path), str(tmp_path / "08.ipynb"), "--cwd", str(ROOT), "--no-progress-bar"]
    subprocess.run([sys.executable, "-m", "papermill", *words], check=True, capture_output=True)
    assert shipped() == before
    made = ROOT / "runs" / "interactive" / "08_claims" / "figures" / "08_claims.csv"
    with (ROOT / "figures" / "claims.csv").open(encoding="utf-8") as stream:  # which it has read
        assert list(pd.read_csv(made)["id"]) == [row["id"] for row in csv.DictReader(stream)]


ASKED = STUDIES[FIRST.stem].defaults()["n_questions"]
STUDY = [
    f'profile: str = "cpu"  # help\nn_questions: int = {ASKED}  # help\nfigures: str = ""  # help',
    "from calib_utils.studies.parameters import SamplingStudy; run = SamplingStudy.from_namespace(globals())",
    "print(run.profile, run.n_questions, run.n_samples, run.figures_dir)",
]
BY_HAND = ROOT / "runs" / "interactive" / "01_base_semantic_calibration" / "figures"


@pytest.mark.parametrize(
    ("cell", "injected", "expected"),
    [
        ("cpu", {}, f"cpu {ASKED} 50"),
        ("smoke", {}, "smoke 34 10"),
        ("cpu", {"profile": "smoke"}, "smoke 34 10"),
        ("smoke", {"n_questions": 408}, "smoke 408 10"),
        ("smoke", {"profile": "cpu", "n_questions": 20}, "cpu 20 50"),
    ],
)
def test_the_profile_sets_the_sizes_wherever_a_notebook_runs(tmp_path, cell, injected, expected):
    sources = [STUDY[0].replace('"cpu"', f'"{cell}"'), *STUDY[1:]]
    path = written(tmp_path, *sources)
    done = papermill.execute_notebook(str(path), str(tmp_path / "out.ipynb"), injected, progress_bar=False)
    assert done.cells[-1].outputs[0].text == f"{expected} {BY_HAND}\n"


def test_plain_papermill_with_an_unknown_name_ends_with_the_nearest_one(tmp_path):
    path = written(tmp_path, *STUDY)
    with pytest.raises(
        papermill.PapermillExecutionError, match="no parameter 'n_question'; did you mean 'n_questions'"
    ):
        papermill.execute_notebook(str(path), str(tmp_path / "out.ipynb"), {"n_question": 34}, progress_bar=False)


def test_a_notebook_executed_by_nbconvert_follows_its_profile(tmp_path):
    path = written(tmp_path, STUDY[0].replace('"cpu"', '"smoke"'), *STUDY[1:])
    done = nbformat.read(path, 4)
    NotebookClient(done, resources={"metadata": {"path": str(tmp_path)}}).execute()  # what nbconvert --execute does
    assert done.cells[-1].outputs[0].text == f"smoke 34 10 {BY_HAND}\n"


def test_overrides_go_to_the_notebooks_that_declare_them():
    first, last = FIRST, NOTEBOOKS[-1]  # the last one asks no model
    assert runner.assign([first, last], {"n_samples": 3}) == {first: {"n_samples": 3}, last: {}}
    with pytest.raises(ConfigError, match="profile is 'cpu' and 'smoke'; choose it with --profile alone"):
        runner.parameters_of(first, "cpu", {"profile": "smoke"})
    with pytest.raises(ConfigError, match="no chosen notebook has a parameter 'n_sample'; did you mean 'n_samples'"):
        runner.assign([first, last], {"n_sample": 3})


def test_overrides_are_parsed():
    assert runner.parse_overrides(["a=3", "b=1e-4", "c=no", "d=[1, 2]", "e=x=y"]) == {
        "a": 3, "b": 1e-4, "c": "no", "d": [1, 2], "e": "x=y"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="name=value"):
        runner.parse_overrides(["a"])


def written(tmp_path, parameters, *sources):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = tmp_path / "99_fake.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), path)
    return path


def fake(tmp_path, monkeypatch, *sources):
    path = written(tmp_path, "profile: str = 'cpu'  # help\nfigures: str = ''  # help", *sources)
    monkeypatch.setattr(runner, "profile_parameters", lambda profile, _, declared: {"profile": profile})
    monkeypatch.setattr(runner, "ROOT", tmp_path)  # its manifest is none of the project's
    return path


def test_failures_are_reported_with_the_executed_copy(tmp_path, monkeypatch):
    path = fake(tmp_path, monkeypatch, "1 / 0")
    with pytest.raises(RunError, match=r"ZeroDivisionError[\s\S]*99_fake\.failed\.ipynb"):
        runner.run(path, "cpu", {}, tmp_path / "out")
    assert "ZeroDivisionError" in json.loads((tmp_path / "out" / "99_manifest.failed.json").read_text())["state"]
    executed = nbformat.read(tmp_path / "out" / "99_fake.failed.ipynb", 4)
    assert executed.cells[-1].outputs[-1].ename == "ZeroDivisionError"
    path = fake(tmp_path, monkeypatch, "import sys; sys.exit(0)")
    with pytest.raises(RunError):
        runner.run(path, "cpu", {}, tmp_path / "out")
    path = fake(tmp_path, monkeypatch, "x = 1")
    with pytest.raises(RunError, match="without its last cell"):
        runner.run(path, "cpu", {}, tmp_path / "out")


def test_the_error_of_a_notebook_is_told_though_its_manifest_cannot_be_written(tmp_path, monkeypatch, capsys):
    lose = "import pathlib; pathlib.Path('out/99_manifest.failed.json/in the way').mkdir(parents=True, exist_ok=True)"
    path = fake(tmp_path, monkeypatch, lose, "1 / 0")
    with pytest.raises(RunError, match="ZeroDivisionError") as caught:
        runner.run(path, "cpu", {}, tmp_path / "out")
    (note,) = caught.value.__notes__
    at = tmp_path / "out" / "99_manifest.failed.json"
    assert note.startswith(f"cannot write {at}: ") and note.endswith("; free space or choose another folder")
    monkeypatch.setattr(runner, "find_notebooks", lambda _: [path])
    assert cli.main(["run", "--here", "--output", str(tmp_path / "out")]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in first and last == f"error: {note}"


def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(tmp_path, monkeypatch, capsys):
    path = fake(tmp_path, monkeypatch, "from calib_utils.running import runner; runner.complete('99_fake')")
    monkeypatch.setattr(runner, "find_notebooks", lambda _: [path])
    (tmp_path / "file").touch()
    for words, reason in (([], "Not a directory"), (["--here"], "Not a directory")):
        where = tmp_path / "file" / "o"
        assert cli.main(["run", *words, "--output", str(where)]) == 2
        out, said = capsys.readouterr()
        remedy = "free space or choose another folder: --output, -p figures=FOLDER, -p runs=FOLDER"
        assert out == "" and said == f"error: cannot write {where}: {reason}; {remedy}\n"
    (tmp_path / "figures").touch()
    assert cli.main(["run", "--here", "--output", str(tmp_path / "o")]) == 2
    assert f"error: cannot write {tmp_path / 'figures'}: File exists" in capsys.readouterr().err


def test_a_kernel_that_is_killed_is_reported(tmp_path, monkeypatch):
    path = fake(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunError, match=r"ended from outside[\s\S]*lower max_rows"):
        runner.run(path, "cpu", {}, tmp_path / "out")
    assert "ended from outside" in json.loads((tmp_path / "out" / "99_manifest.failed.json").read_text())["state"]


def program(path, *words):
    """What the command line does with a notebook of `fake`, in a process of its own."""
    code = (
        "import sys, pathlib; from calib_utils.running import batch, cli, runner; path = pathlib.Path(sys.argv[1])\n"
        "runner.profile_parameters = lambda profile, _, declared: {'profile': profile}\n"
        "runner.find_notebooks = lambda _: [path]; runner.ROOT = path.parent\n"
        "batch.devices = lambda: ['3', '5']\n"
        "batch.command = lambda *_: [sys.executable, '-c', sys.orig_argv[2], str(path), '--here']\n"
        "sys.exit(cli.main(['run', *sys.argv[2:], '--output', str(path.parent / path.stem)]))"
    )
    return [sys.executable, "-c", code, str(path), *words]


def alone(path):
    return subprocess.Popen(program(path, "--here"), cwd=path.parent, env={**os.environ, "PYTHONPATH": str(ROOT)})


def several(path):
    """As `alone`, through a process that starts the notebook's, in a group of its own as from a terminal."""
    given = {"cwd": path.parent, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "start_new_session": True}
    return subprocess.Popen(program(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **given)


def lives(process_id):
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the test looks processes up in /proc")
@pytest.mark.parametrize("killed", ["run", "notebook"])
def test_a_kernel_ends_with_what_started_it_and_holds_its_gpu_until_then(killed, tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path / "cache"))
    at = tmp_path / "processes"
    busy = (  # in C, without the interpreter
        f"import hashlib, os, pathlib; pathlib.Path({str(at)!r}).write_text(f'{{os.getppid()}} {{os.getpid()}}')\n"
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    process = several(fake(tmp_path, monkeypatch, busy))
    try:
        while not (at.exists() and at.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        notebook, kernel = map(int, at.read_text().split())
        os.kill(process.pid if killed == "run" else notebook, signal.SIGKILL)
        until = time.monotonic() + 90
        while True:
            name, lock = batch.pin(["3", "5"], 0)  # asked for first: once it is free the kernel must be gone
            os.close(lock)
            if not lives(kernel):
                break
            assert name == "5" and time.monotonic() < until
            time.sleep(0.05)
        process.communicate(timeout=90)
        while lives(notebook):
            assert time.monotonic() < until
            time.sleep(0.05)
        name, lock = batch.pin(["3", "5"], 0)
        os.close(lock)
        assert name == "3" and process.returncode == (-signal.SIGKILL if killed == "run" else 1)
    finally:
        process.kill()
    left = "99_manifest.failed.json" if killed == "run" else "running/99_fake/99_manifest.json"
    state = json.loads((tmp_path / "99_fake" / left).read_text())["state"]
    assert state.startswith("stopped by" if killed == "run" else "running")


@pytest.mark.parametrize("begun", [True, False], ids=["in a cell", "while the kernel starts"])
def test_ctrl_c_says_one_line(begun, tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path / "cache"))
    at = tmp_path / "kernel"
    begin = f"import os, pathlib, time; pathlib.Path({str(at)!r}).write_text(str(os.getpid())); time.sleep(60)"
    process = several(fake(tmp_path, monkeypatch, begin))
    try:
        while "running" not in process.stdout.readline():
            assert process.poll() is None
        while begun and not (at.exists() and at.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=90)
    finally:
        process.kill()
    assert said == "stopped; what was computed is kept: the same command goes on from there\n"
    assert process.returncode == 130


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_ends_its_kernel_and_says_so(how, tmp_path, monkeypatch):
    at = tmp_path / "kernel"
    begin = f"import os, pathlib, time; pathlib.Path({str(at)!r}).write_text(str(os.getpid())); time.sleep(60)"
    process = alone(fake(tmp_path, monkeypatch, begin))
    try:
        while not (at.exists() and at.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(how)
        process.send_signal(how)  # as a terminal and the parent do
        assert process.wait(30) == 130
    finally:
        process.kill()
    made = json.loads((tmp_path / "99_fake" / "99_manifest.failed.json").read_text())
    assert made["state"].startswith("stopped by KeyboardInterrupt")
    assert not (tmp_path / "figures" / "99_manifest.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(at.read_text()), 0)


def test_two_notebooks_run_at_once(tmp_path, monkeypatch):
    """Each waits until the other has begun: two kernels that took each other's sockets would never answer."""
    paths = []
    for name, other in ("ab", "ba"):
        (tmp_path / name).mkdir()
        meet = (
            f"import pathlib, time\nat = pathlib.Path({str(tmp_path)!r}); (at / 'began-{name}').touch()\n"
            f"while not (at / 'began-{other}').exists(): time.sleep(0.1); assert time.time() < {time.time() + 90}"
        )
        path = fake(
            tmp_path / name, monkeypatch, meet, "from calib_utils.running import runner; runner.complete('x')"
        )
        paths.append(path.rename(tmp_path / f"99_{name}.ipynb"))
    started = [alone(path) for path in paths]
    try:
        assert [process.wait(120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()


def test_a_manifest_says_how_a_run_stands(tmp_path, monkeypatch):
    at, out = tmp_path / "figures" / "99_manifest.json", tmp_path / "out"
    running = out / "running" / "99_fake" / "99_manifest.json"
    look = f"import json; print(json.load(open({str(running)!r}))['state'])"
    done = "from calib_utils import storage\nfrom calib_utils.running import runner\n"
    done += "storage.publish('x.parquet', ''); runner.complete('99_fake')"
    path = fake(tmp_path, monkeypatch, look, done)
    executed = runner.run(path, "cpu", {}, tmp_path / "out").executed
    assert "running" in nbformat.read(executed, 4).cells[2].outputs[0].text
    first = json.loads(at.read_text())
    assert first["state"] == "complete" and first["written"] == {".parquet": 1}
    assert first["seconds_anew"] == first["seconds"]
    runner.run(path, "cpu", {}, tmp_path / "out")  # a redraw does not count as what it takes anew
    again = json.loads(at.read_text())
    assert again["started"] >= first["started"] and again["seconds_anew"] == first["seconds"]
    assert not running.exists() and json.loads((out / "99_manifest.json").read_text()) == again
    assert runner.plan(path, "cpu", {}, out)[:2] == (runner.CACHED, first["seconds"])
    (out / "99_manifest.json").write_text(json.dumps({**again, "digest": "of other code"}))
    for left, state in ((running, "running"), (out / "99_manifest.failed.json", "stopped by hand")):  # killed, or not
        running.parent.mkdir(parents=True, exist_ok=True)
        left.write_text(json.dumps({**again, "state": state}))
        assert runner.plan(path, "cpu", {}, out)[:2] == (runner.RESUMED, first["seconds"])
        left.unlink()
        assert runner.plan(path, "cpu", {}, out)[:2] == (runner.ANEW, first["seconds"])


def drawing(tmp_path, monkeypatch, names, value, after="runner.complete('99_fake')", claim="base-concise"):
    """A notebook that writes files and a claim where its class says, and then ends or fails."""
    write = f"[storage.publish(run.figures_dir / name, {value!r}) for name in {names}]\n"
    about = f"seeds={value!r}, profile='', model='', dataset=''"
    row = f"claims.claim_row({claim!r}, Estimate(0.04, 0.01, 0.07, 9), {{claims.INFORMATIVE: None}}, {about})"
    return fake(
        tmp_path,
        monkeypatch,
        "from calib_utils import claims, storage\nfrom calib_utils.metrics import Estimate\n"
        "from calib_utils.running import runner\n"
        "from calib_utils.config import FolderConfig; run = FolderConfig.from_namespace(globals())",
        write + f"claims.record_claims([{{**{row}, 'notebook': '99_fake'}}], run.figures_dir)",
        after,
    )


def test_a_run_that_fails_replaces_nothing_and_a_success_clears_what_it_left(tmp_path, monkeypatch, capsys):
    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    out, figures = tmp_path / "runs" / "notebooks" / "cpu", tmp_path / "figures"
    path = drawing(tmp_path, monkeypatch, ["99_a.csv", "99_b.csv"], "1")
    monkeypatch.setattr(runner, "find_notebooks", lambda _: [path])
    assert cli.main(["run", "--here"]) == 0
    line, last = capsys.readouterr().out.splitlines()[-2:]
    assert line.startswith("99_fake: 0:") and line.endswith(f", 1 undecided; {out / '99_fake.ipynb'}")
    assert last == f"figures and claims are in {figures}"
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git("init", "-q"), git("add", "figures", ".gitignore")
    git("-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "shipped")
    executed = (out / "99_fake.ipynb").read_bytes()
    seconds = json.loads((figures / "99_manifest.json").read_text())["seconds_anew"]
    drawing(tmp_path, monkeypatch, ["99_a.csv", "99_c.csv"], "2", "1 / 0")
    assert cli.main(["run", "--here"]) == 1
    assert git("status", "--porcelain", "--", "figures") == ""
    assert (out / "99_fake.ipynb").read_bytes() == executed
    assert sorted(path.name for path in out.iterdir() if path.is_file() and path.suffix != ".lock") == [
        "99_fake.failed.ipynb", "99_fake.ipynb", "99_manifest.failed.json", "99_manifest.json"
    ]  # fmt: skip
    capsys.readouterr()
    assert cli.main(["run", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"99_fake: goes on, anew it took {seconds:.0f} s\n"
    drawing(tmp_path, monkeypatch, ["99_a.csv", "99_b.csv"], "1")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert cli.main(["verify"]) == 0
    drawing(tmp_path, monkeypatch, ["99_a.csv", "99_c.csv"], "3", claim="base-sentence")
    assert cli.main(["run", "--here"]) == 0
    made = json.loads((figures / "99_manifest.json").read_text())
    assert made["files"] == {name: manifest.sha256(figures / name) for name in ("99_a.csv", "99_c.csv")}
    assert {path.name for path in figures.glob("99_*")} == {"99_a.csv", "99_c.csv", "99_manifest.json"}
    assert (figures / "99_c.csv").read_text() == "3" and made["parameters"]["figures"] == "figures"
    rows = pd.read_csv(figures / "claims.csv", dtype=str)
    assert rows[["id", "seeds"]].values.tolist() == [["base-sentence", "3"]]  # the claim of the first run is gone
    assert not list(out.glob("*.failed.*"))
    (figures / "99_a.csv").write_text("4")
    assert cli.main(["verify"]) == 2
    assert "99_a.csv is not the file that its manifest describes" in capsys.readouterr().err


def test_claims_of_other_notebooks_stay(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "figures", tmp_path / "figures")
    before = pd.read_csv(tmp_path / "figures" / "claims.csv", dtype=str, keep_default_na=False)
    row = before.iloc[:1].assign(id="mine", notebook="99_fake")
    pd.concat([before, row]).to_csv(tmp_path / "figures" / "claims.csv", index=False)
    runner.run(
        fake(tmp_path, monkeypatch, "from calib_utils.running import runner; runner.complete('99_fake')"), "cpu", {}
    )
    after = pd.read_csv(tmp_path / "figures" / "claims.csv", dtype=str, keep_default_na=False)[list(before)]
    pd.testing.assert_frame_equal(before, after)
    assert {path.name for path in (ROOT / "figures").iterdir()} < {
        path.name for path in (tmp_path / "figures").iterdir()
    }


def test_two_runs_of_one_notebook_take_turns(tmp_path, monkeypatch):
    at = tmp_path / "busy"
    busy = f"import time, pathlib; at = pathlib.Path({str(at)!r}); at.mkdir(); time.sleep(1); at.rmdir()"
    path = fake(tmp_path, monkeypatch, busy, "from calib_utils.running import runner; runner.complete('99_fake')")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(runner.run, path, "cpu", {}, tmp_path / "out") for _ in range(2)]
        assert all(run.result().executed.exists() for run in runs)


def test_the_command_line_reports_bad_input_and_failure(tmp_path, monkeypatch, capsys):
    assert cli.main(["run", "--only", "77"]) == 2
    assert "no notebook begins with '77'" in capsys.readouterr().err
    assert cli.main(["run", "-p", "n_samples=many"]) == 2
    assert cli.main(["run", "--here"]) == 2
    capsys.readouterr()
    assert cli.main(["run", "01"]) == 2
    assert capsys.readouterr().err == "error: what is 01? Notebooks are chosen with --only: use --only 01\n"
    assert cli.main(["run", "--onyl"]) == 2
    assert capsys.readouterr().err.startswith("error: what is --onyl?")
    path = fake(tmp_path, monkeypatch, "raise MemoryError('full')")
    monkeypatch.setattr(runner, "find_notebooks", lambda _: [path])
    assert cli.main(["run", "--here"]) == 1
    assert "MemoryError: full" in capsys.readouterr().err


def test_a_dry_run_says_what_would_run(tmp_path, monkeypatch, capsys):
    path = fake(tmp_path, monkeypatch, "from calib_utils.running import runner; runner.complete('99_fake')")
    monkeypatch.setattr(runner, "find_notebooks", lambda _: [path])
    assert cli.main(["run", "--dry-run"]) == 0
    assert "99_fake: anew, time not known" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert cli.main(["run", "--here"]) == 0
    assert cli.main(["run", "--dry-run"]) == 0
    assert "99_fake: from cache, " in capsys.readouterr().out
    path.write_text(path.read_text().replace("99_fake')", "99_fake') "))
    assert cli.main(["run", "--dry-run"]) == 0
    assert "99_fake: anew, " in capsys.readouterr().out


def test_the_figure_of_all_claims_is_that_of_the_table():
    table, drawn = (pd.read_csv(ROOT / "figures" / name).set_index("id") for name in ("claims.csv", "08_claims.csv"))
    pd.testing.assert_frame_equal(table[["value", "verdict"]], drawn[["value", "verdict"]])

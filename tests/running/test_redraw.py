"""Figures and claims from shipped records; `test_notebooks` redraws every run notebook in a process without torch."""

import json
import shutil
import time

import pytest

from calib_utils import claims
from calib_utils.config import STAGED
from calib_utils.errors import RecordError
from calib_utils.home import ROOT
from calib_utils.records import shipped
from calib_utils.running import cli, manifest, redraw, runner

FIGURES = ROOT / "figures"
SHIPPED = [path for path in runner.find_notebooks() if redraw.shipped_of(path, FIGURES)]
SOURCES = [
    'profile: str = "cpu"  # help\nfigures: str = ""  # help\nruns: str = "runs"  # help',
    "from calib_utils import studies\nrun = studies.ClaimsStudy.from_namespace(globals())",
    "from IPython.display import display\nfigures = run.figures_dir\ndisplay(run)",
    '(figures / "08_a.csv").write_text(f"{run.profile}\\n")',
]


@pytest.mark.slow
def test_shipped_figures_are_redrawn_byte_for_byte_within_a_minute(tmp_path):
    began = time.monotonic()
    described = {path: manifest.read(runner.manifest_path(path, FIGURES)) for path in SHIPPED}
    for done in redraw.several(described, FIGURES, tmp_path / "redraw", jobs=2) if described else ():
        assert (done.error, done.different) == ("", ()), done
    assert time.monotonic() - began < 60


def test_what_is_shipped_is_small():
    files = [file for path in SHIPPED for file in redraw.shipped_of(path, FIGURES)]
    assert sum(file.stat().st_size for file in files) <= 12e6, {file.name: file.stat().st_size for file in files}


@pytest.fixture
def run(tmp_path):
    """A notebook, its figures as a run has left them, and their manifest."""
    figures, notebook = tmp_path / "figures", tmp_path / "08_claims.ipynb"
    cells = [{"cell_type": "code", "metadata": {}, "source": source.splitlines(keepends=True)} for source in SOURCES]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    notebook.write_text(json.dumps({"cells": [{"cell_type": "markdown", "metadata": {}, "source": "# A"}, *cells]}))
    (figures / shipped.FOLDER).mkdir(parents=True)
    for name, text in (("08_a.csv", "smoke\n"), ("records/08.parquet", "never read")):
        (figures / name).write_text(text)
    files = {name: manifest.sha256(figures / name) for name in ("08_a.csv", "records/08.parquet")}
    (figures / "records" / "08.parquet").unlink()
    return (
        notebook,
        figures,
        {"parameters": {"profile": "smoke", "figures": "figures", "runs": "runs"}, "files": files},
    )


def test_a_notebook_is_executed_with_the_parameters_of_its_run_and_leaves_its_figures_alone(run, tmp_path, capsys):
    notebook, figures, about = run
    (tmp_path / "new").mkdir()
    done = redraw.one(notebook, about, figures, tmp_path / "new")
    assert (done.files, done.different, done.error) == (1, (), "")
    assert (tmp_path / "new" / "08_a.csv").read_text() == "smoke\n" and capsys.readouterr().out == ""


def test_every_file_that_is_not_that_of_the_run_is_named(run, tmp_path):
    notebook, figures, about = run
    new = tmp_path / "new"
    new.mkdir()
    (new / "08_b.csv").write_text("not of the run")
    row = {name: "" for name in claims.COLUMNS} | {"id": "a", "notebook": "08_claims", "value": "0.1", "run": "abc"}
    claims.record_claims([row], figures)
    claims.record_claims([row | {"run": "another commit"}], new)
    assert redraw.one(notebook, about, figures, new).different == ("08_b.csv",)
    claims.record_claims([row | {"value": "0.2"}], new)
    changed = about | {"parameters": about["parameters"] | {"profile": "cpu"}}
    assert redraw.one(notebook, changed, figures, new).different == ("08_a.csv", "08_b.csv", "claims.csv")


def test_a_cell_that_finds_no_record_ends_the_notebook_with_its_name(run, tmp_path, monkeypatch):
    notebook, figures, about = run
    source = json.loads(notebook.read_text())
    load = "from calib_utils import models\nmodels.load('gemma-3-270m')"
    source["cells"][3]["source"] = [load]
    notebook.write_text(json.dumps(source))
    monkeypatch.delenv(STAGED, raising=False)
    done = redraw.one(notebook, about, figures, tmp_path)
    assert done.error.startswith("08_claims: ") and "holds no model of gemma-3-270m" in done.error
    assert "there is no such file" in done.error and "run --only 08" in done.error
    with pytest.raises(RecordError, match=r"05\.parquet is missing"):
        shipped.read("05", figures)


def test_without_records_the_command_says_where_they_were_looked_for(tmp_path, capsys):
    assert cli.main(["redraw", "--figures", str(tmp_path)]) == 2
    assert f"error: {tmp_path} holds no records; name the folder" in capsys.readouterr().err
    assert cli.main(["redraw", "--figures", str(tmp_path), "--only", "02"]) == 2
    assert "has no manifest of a complete run of 02_rl_degradation" in capsys.readouterr().err


def test_a_file_of_records_that_was_changed_is_refused_by_redraw_and_verify(tmp_path, capsys, monkeypatch):
    shutil.copytree(FIGURES, tmp_path / "figures")
    path = tmp_path / "figures" / "02_manifest.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / "figures" / "records").mkdir(exist_ok=True)
    (tmp_path / "figures" / "records" / "02.parquet").write_bytes(b"changed")
    files = about["files"] | {"records/02.parquet": "0" * 64}
    path.write_text(json.dumps(about | {"files": files}), encoding="utf-8")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    for words in (["redraw", "--only", "02"], ["verify", "--only", "02"]):
        assert cli.main(words) == 2
        assert "02.parquet is not the file that its manifest describes; restore it" in capsys.readouterr().err

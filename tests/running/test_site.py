"""What a reader finds: badges, notebooks with their results that do not drift, links and terms that are there."""

import json
import re

import nbformat
import pytest
import yaml

from calib_utils.claims import papers
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT
from calib_utils.running import badges, cli, manifest, runner, shown

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "site").glob("*.md"))]
MADE = ("site/claims.md", "site/made/")  # by `make site`


def test_the_badges_and_colabs_cell_name_the_repository(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    for name in ("README.md", "notebooks/00_quickstart.ipynb"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    badges.write(tmp_path, "someone/companion")
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "mybinder.org/v2/gh/someone/companion/main?urlpath=lab/tree/notebooks/00_quickstart.ipynb" in readme
    assert "colab.research.google.com/github/someone/companion/blob/main/notebooks/00_quickstart.ipynb" in readme
    cells = nbformat.read(tmp_path / "notebooks/00_quickstart.ipynb", 4).cells
    (colab,) = (cell.source for cell in cells if "colab" in cell.metadata.get("tags", []))
    said = []
    monkeypatch.setattr("os.system", said.append)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    monkeypatch.syspath_prepend("companion")  # undone after the test
    exec(colab, {})
    assert said == [
        "git clone --depth=1 https://github.com/someone/companion companion && pip install -q -e 'companion[explore]'"
    ]
    badges.write(tmp_path, "another/place")
    assert "someone" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="repository is 'https://x'; it must look like OWNER/NAME"):
        badges.write(tmp_path, "https://x")


def test_colabs_cell_does_nothing_elsewhere(monkeypatch):
    cells = nbformat.read(ROOT / "notebooks/00_quickstart.ipynb", 4).cells
    (colab,) = (cell.source for cell in cells if "colab" in cell.metadata.get("tags", []))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setattr("os.system", lambda words: pytest.fail(words))
    exec(colab, {})


@pytest.mark.parametrize("copy", sorted(shown.FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_that_is_shown_with_results_is_that_of_the_shipped_figures(copy):
    assert shown.drift(copy, runner.NOTEBOOKS / copy.name) == ""


def test_all_notebooks_with_their_results_together_take_at_most_six_megabytes():
    assert sum(path.stat().st_size for path in shown.FOLDER.glob("*.ipynb")) < 6e6


@pytest.fixture
def executed(tmp_path):
    """A run of one notebook that has left outputs of every kind, and its manifest in both places."""
    source = runner.find_notebooks(["08"])[0]
    notebook = nbformat.read(source, 4)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(place, nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["injected-parameters"]}))
    cell = notebook.cells[place + 1]
    cell.metadata["papermill"] = {"duration": 3.0}
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    data = {"image/png": picture, shown._WIDGETS: {"model_id": "x"}, "text/plain": "x"}
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="50 %"),
        nbformat.v4.new_output("stream", name="stdout", text=f"written to {ROOT}/figures"),
        nbformat.v4.new_output("execute_result", data=data, execution_count=7),
    ]
    notebook.metadata["papermill"] = {"output_path": str(tmp_path)}
    for folder in ("out", "figures"):
        (tmp_path / folder).mkdir()
        about = {"started": "now", "commit": "abc", "profile": "cpu"}
        manifest.write(tmp_path / folder / "08_manifest.json", about)
    nbformat.write(notebook, tmp_path / "out" / source.name)
    return tmp_path


def test_a_copy_keeps_results_and_nothing_of_the_machine(executed):
    folders = executed / "out", executed / "figures", executed / "site"
    assert shown.copies(*folders) == ["08_claims"]
    content = (executed / "site" / "08_claims.ipynb").read_text(encoding="utf-8")
    for gone in (str(ROOT), str(executed), "papermill", "50 %", "model_id", "injected"):
        assert gone not in content
    copy = nbformat.reads(content, 4)
    nbformat.validate(copy)
    (cell,) = (cell for cell in copy.cells if cell.cell_type == "code" and cell.outputs)
    assert cell.outputs[0].text == "written to figures" and cell.outputs[1].data["image/png"].startswith("iVBOR")
    shown.copies(*folders)
    assert (executed / "site" / "08_claims.ipynb").read_text(encoding="utf-8") == content


def test_a_copy_of_another_run_or_of_other_cells_is_removed(executed):
    folders = executed / "out", executed / "figures", executed / "site"
    shown.copies(*folders)
    manifest.write(executed / "figures" / "08_manifest.json", {"started": "later"})
    copy = executed / "site" / "08_claims.ipynb"
    notebook = runner.find_notebooks(["08"])[0]
    assert "of another run" in shown.drift(copy, notebook, executed / "figures")
    assert shown.copies(*folders) == [] and not copy.exists()
    changed = json.loads((executed / "out" / "08_claims.ipynb").read_text(encoding="utf-8"))
    changed["cells"][-1]["source"] = "print(1)"
    (executed / "out" / "08_claims.ipynb").write_text(json.dumps(changed), encoding="utf-8")
    manifest.write(executed / "figures" / "08_manifest.json", manifest.read(executed / "out" / "08_manifest.json"))
    assert shown.copies(*folders) == []
    with pytest.raises(ConfigError, match="holds no executed notebook; run `python -m calib_utils run` first"):
        shown.copies(executed / "site", *folders[1:])


def test_the_command_says_which_notebooks_are_shown(executed, monkeypatch, capsys):
    monkeypatch.setattr(runner, "destination", lambda profile, given: ("figures", executed / "out"))
    monkeypatch.setattr(shown.copies, "__defaults__", (executed / "figures", executed / "site"))
    assert cli.main(["show"]) == 0
    assert capsys.readouterr().out.startswith("08_claims: shown with its results in ")


def test_links_to_other_folders_lead_there_from_a_copy_too():
    for notebook in runner.find_notebooks():
        for cell in shown.relinked(nbformat.read(notebook, 4)).cells:
            for target in re.findall(r"\]\(([^)#\s]+)", cell.source) if cell.cell_type == "markdown" else ():
                copied = re.fullmatch(r"\d\d_\w+\.ipynb", target)  # beside it
                assert copied or "://" in target or (shown.FOLDER / target).exists(), (notebook.name, target)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_of_the_project_leads_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        place = (page.parent / target).resolve().relative_to(ROOT).as_posix() if "://" not in target else ""
        assert not place or place.startswith(MADE) or (ROOT / place).exists(), target


def test_the_glossary_is_in_the_alphabet_and_has_the_terms_that_readers_meet_first():
    text = (ROOT / "site" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"(?m)^- \*\*(.+?)\*\*: ", text)
    assert len(terms) >= 30 and terms == sorted(terms, key=str.lower)
    assert {"semantic confidence", "smECE", "noise floor", "collapse function", "lineage", "verdict"} <= set(terms)


def test_the_citation_names_the_software_and_every_paper():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    cited = {reference["url"].rpartition("/")[2] for reference in told["references"]}
    tested = [papers.SEMANTIC, papers.LIFECYCLE, papers.CATTO, papers.REPAIR]
    assert cited == {re.search(r"\d{4}\.\d{5}", paper)[0] for paper in tested}
    assert all(reference["authors"] and reference["title"] for reference in told["references"])

import errno
import json
import resource

import pytest
import torch
from conftest import tiny_model

from calib_utils import home, models
from calib_utils.errors import WriteError
from calib_utils.home import ROOT
from calib_utils.running import manifest


def test_code_environment_and_data_are_told():
    code, versions = home.of_code(), manifest.of_environment()
    assert len(code["commit"]) == 40 and code["dirty"] in (True, False)
    assert versions["torch"].startswith("2.13.0") and None not in versions.values()
    data = manifest.of_data({"data_path": str(ROOT / "README.md")})
    assert len(data["facts"]) == 64 and data["data_path"] != data["facts"]
    assert set(manifest.of_data({"data_path": ""})) == {"facts"}
    assert set(manifest.of_data({"dataset": "natural_questions"})) == {"facts", "natural_questions"}


def test_the_process_tells_its_models(tmp_path):
    lm = tiny_model()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = models.load(str(tmp_path), "float32", "cpu")
    about = manifest.of_process()
    assert loaded.fingerprint in {model["fingerprint"] for model in about["models"]}
    assert about["peak_gib"] > 0.1 and about["threads"] >= 1


def test_the_digest_follows_the_notebook(tmp_path):
    notebook = tmp_path / "01_x.ipynb"
    notebook.write_text("{}")
    first = manifest.digest(notebook)
    notebook.write_text("{ }")
    assert manifest.digest(notebook) != first


def test_it_is_written_whole_and_read_back(tmp_path):
    path = tmp_path / "deep" / "01_manifest.json"
    manifest.write(path, {"state": "complete", "seconds": 1.5})
    assert manifest.read(path) == json.loads(path.read_text()) == {"state": "complete", "seconds": 1.5}
    assert [file.name for file in path.parent.iterdir()] == ["01_manifest.json"]
    path.write_text('{"state": ')
    assert manifest.read(path) is None and manifest.read(tmp_path / "none.json") is None


def test_folders_of_the_project_are_told_from_its_root():
    inside, outside = {"model": str(ROOT / "runs" / "stages" / "x")}, {"model": "gemma-3-270m"}
    assert manifest._placed(inside) == {"model": "runs/stages/x"} and manifest._placed(outside) == outside


def staged(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / f"99_{name}.csv").write_text(text)
    return folder


def test_figures_are_published_with_the_manifest_that_describes_them(tmp_path):
    target, about = tmp_path / "figures", {"notebook": "99_fake", "state": "complete"}
    manifest.publish(staged(tmp_path / "one", a="1", b="1"), target, about)
    (target / "99_search.csv").write_text("kept: no run made it")
    made = manifest.publish(staged(tmp_path / "two", a="2", c="2"), target, about)
    assert manifest.read(target / "99_manifest.json") == made
    assert made["files"] == {name: manifest.sha256(target / name) for name in ("99_a.csv", "99_c.csv")}
    names = {"99_a.csv", "99_c.csv", "99_search.csv", "99_manifest.json"}  # b is gone: no manifest would tell of it
    assert {path.name for path in target.iterdir()} == names and (target / "99_a.csv").read_text() == "2"


def test_a_full_disk_replaces_no_figure(tmp_path):
    """A limit on the size of files stands for the disk: the system refuses the copy in the same place."""
    target, about = tmp_path / "figures", {"notebook": "99_fake", "state": "complete"}
    manifest.publish(staged(tmp_path / "one", a="1", b="1"), target, about)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    larger = staged(tmp_path / "two", a="2", b="2" * 5000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match=f"cannot write {target}") as found:
            manifest.publish(larger, target, about)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.value.__cause__.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_publishing_that_is_cut_short_leaves_no_manifest_that_lies(tmp_path):
    target, about = tmp_path / "figures", {"notebook": "99_fake", "state": "complete"}
    manifest.publish(staged(tmp_path / "one", a="1", b="1"), target, about)
    second = staged(tmp_path / "two", a="2", c="2")
    (second / "claims.csv").mkdir()  # which cannot be read: the figures are replaced already
    with pytest.raises(IsADirectoryError):
        manifest.publish(second, target, about)
    assert manifest.read(target / "99_manifest.json")["state"] == "publishing"
    (second / "claims.csv").rmdir()
    manifest.publish(second, target, about)  # the next run knows the files of both
    assert {path.name for path in target.iterdir()} == {"99_a.csv", "99_c.csv", "99_manifest.json"}


def test_the_system_and_torch_agree_on_bfloat16():
    assert manifest.native_bfloat16() is (models.best_cpu_dtype() is torch.bfloat16)


def test_without_the_systems_word_there_are_no_such_instructions(monkeypatch):
    for told, expected in (
        ("fpu avx512f avx512_bf16", True),
        ("amx_tile", True),
        ("avx512f bf16", False),
        (None, False),
    ):
        monkeypatch.setattr(manifest, "_cpuinfo", lambda _, told=told: told)
        assert manifest.native_bfloat16() is expected

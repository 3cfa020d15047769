"""The Snakefile: a grid of two times two cells on the real default model, on this machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from calib_utils.home import ROOT

ENGINE = Path(f"{sys.prefix}-batch") / "bin" / "snakemake"
NOTEBOOK = "01_base_semantic_calibration"
GRID = {
    "notebooks": [NOTEBOOK],
    "profile": "smoke",
    "python": sys.executable,
    "gpus": 0,
    "parameters": {
        "seed": [0, 1],
        "n_shots": [2, 4],
        **{"n_questions": [20], "n_curated": [20], "n_samples": [4], "m_values": [[2]], "n_boot": [20]},
    },
}
pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="`make engine` installs it")


def snakemake(tmp_path, *words, grid=GRID):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({**grid, "runs": str(tmp_path / "runs")}, sort_keys=False))
    command = [ENGINE, "--snakefile", ROOT / "Snakefile", "--directory", ROOT, "--cores", "2", "--configfile", path]
    done = subprocess.run(map(str, [*command, "--nolock", *words]), capture_output=True, text=True, cwd=tmp_path)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.real_model
def test_a_grid_of_two_by_two(tmp_path):
    status, told = snakemake(tmp_path)
    assert status == 0, told[-3000:]
    found = sorted((tmp_path / "runs" / NOTEBOOK).glob("*/figures/01_manifest.json"))
    made = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    assert {(m["parameters"]["seed"], m["parameters"]["n_shots"]) for m in made} == {(0, 2), (0, 4), (1, 2), (1, 4)}
    assert all(
        m["state"] == "complete" and (p.parent / "claims.csv").exists() for m, p in zip(made, found, strict=True)
    )
    assert all((path.parents[1] / f"{NOTEBOOK}.ipynb").exists() for path in found)
    status, told = snakemake(tmp_path)
    assert status == 0 and "Nothing to be done" in told


def test_a_wrong_parameter_stops_its_cell_and_keeps_the_log(tmp_path):
    grid = {**GRID, "parameters": {"n_question": [4]}}
    status, told = snakemake(tmp_path, grid=grid)
    assert status != 0 and "did you mean 'n_questions'" in told


def test_a_cell_waits_for_the_stages_it_starts_from(tmp_path):
    pair = ["04_catto", "02_rl_degradation"]
    status, told = snakemake(tmp_path, "--dry-run", grid={**GRID, "notebooks": pair, "parameters": {"seed": [0]}})
    assert status == 0 and re.search(r"input: \S+/02_rl_degradation/seed=0/figures\s+output: \S+/04_catto/", told), (
        told
    )


def test_the_sample_grid_and_profile_are_usable(tmp_path):
    for name in ("grid", "small"):
        sample = yaml.safe_load((ROOT / "batch" / f"{name}.yaml").read_text(encoding="utf-8"))
        for words in ([], ["--profile", str(ROOT / "batch" / "slurm")]):
            status, told = snakemake(tmp_path, "--dry-run", *words, grid=sample)
            assert status == 0 and re.search(r"cell\s+4\b", told), told[-3000:]


def test_a_cell_is_found_by_the_way_slurm_names_it(tmp_path):
    sample = yaml.safe_load((ROOT / "batch" / "small.yaml").read_text(encoding="utf-8"))
    words = ["--dry-run", "--target-jobs", f"cell:notebook={NOTEBOOK},cell=seed=1+n_shots=10"]
    status, told = snakemake(tmp_path, *words, grid=sample)
    assert status == 0 and re.search(r"cell\s+1\b", told) and "seed=1+n_shots=10/figures" in told, told[-3000:]

"""Notebook 00 in exactly Binder's environment, within Binder's memory. `make test` makes the environment."""

import json
import os
import resource
import subprocess

import pytest

from calib_utils.home import ROOT

PYTHON = ROOT / ".venv-binder" / "bin" / "python"
LIMIT = 2 * 2**30  # of Binder, in bytes
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-binder: make binder makes it"),
    pytest.mark.skipif(
        not (ROOT / "figures" / "records" / "02.parquet").exists(), reason="there are no shipped records"
    ),
]


def test_the_quickstart_runs_without_torch_in_two_gib_and_uses_a_fifth_of_it(tmp_path):
    missing = subprocess.run([PYTHON, "-c", "import torch"], cwd=ROOT, capture_output=True)
    assert missing.returncode == 1
    options = ["-p", f"figures={tmp_path / 'figures'}", "--output", tmp_path / "out"]
    done = subprocess.run(
        [PYTHON, "-m", "calib_utils", "run", "--only", "00", "--here", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),  # the kernel inherits it
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "figures" / "00_manifest.json").read_text(encoding="utf-8"))
    assert made["state"] == "complete" and made["peak_gib"] <= 0.4

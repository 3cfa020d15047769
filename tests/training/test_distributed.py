"""Two processes train as one does: the trainers under accelerate, each process with half of every batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_catto import trainer
from test_cft import build

from calib_utils import CATTOConfig, CATTOTrainer
from calib_utils.home import ROOT

TERMS = {"catto": ("calibration/chosen", "confidence/rejected", "logps/chosen"), "rcft": ("calibration/loss",)}


def make(name, folder, share):
    """A trainer of four steps with a global batch of 6 pairs or 4 questions, split over `share` processes."""
    if name == "catto":
        return trainer(CATTOTrainer, CATTOConfig, folder, per_device_train_batch_size=6 // share)
    return build(folder, calibration_weight=1.0, estimate_steps=2, per_device_train_batch_size=4 // share)


def work(folder, share):
    """Train both; leave each one's weights and its logged terms, by the main process."""
    for name, terms in TERMS.items():
        tuner = make(name, folder / name, share)
        tuner.train()
        logs = [row for row in tuner.state.log_history if "loss" in row]
        found = {key: torch.tensor([row[key] for row in logs]) for key in terms}
        found |= {key: value.detach().clone() for key, value in tuner.model.named_parameters()}
        if tuner.accelerator.is_main_process:
            assert tuner.accelerator.num_processes == share
            save_file(found, folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    about = {"env": {**os.environ, **paths}, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([*launch, str(folder)], **about)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = tmp_path_factory.mktemp("one")
    work(alone, 1)
    return folder, alone


@pytest.mark.parametrize("name", TERMS)
def test_two_processes_train_as_one(both, name):
    two, one = (load_file(folder / f"{name}.safetensors") for folder in both)
    assert two.keys() == one.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")


if __name__ == "__main__":
    work(Path(sys.argv[1]), 2)
    torch.distributed.destroy_process_group()

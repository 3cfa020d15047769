"""What is changed inside trl and datasets is there and used as before: a new version of theirs fails here first."""

import inspect
import os
from importlib.metadata import version

import pytest
from datasets import fingerprint
from packaging.requirements import Requirement
from trl.trainer import utils

from calib_utils.home import ROOT
from calib_utils.training import compat

PINNED = ("trl", "transformers", "datasets", "peft")


@pytest.mark.parametrize("name", PINNED)
def test_the_installed_version_is_the_pinned_one(name):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = [Requirement(line) for line in lines if line.startswith(f"{name}==")]
    assert pin.specifier.contains(version(name)), f"{name} is {version(name)}, pinned is {pin}"


def test_trl_projects_to_the_vocabulary_in_one_place_with_the_arguments_that_are_replaced():
    source = inspect.getsource(utils)
    assert source.count("_ChunkedLogProbFunction.apply(") == 1
    assert source.count("= _use_triton(hidden_states.device)") == 1  # read for this choice alone
    names = list(inspect.signature(utils._ChunkedLogProbFunction.forward).parameters)
    assert names == [
        "ctx",
        "hidden",
        "weight",
        "bias",
        "targets",
        "temperature",
        "chunk_size",
        "final_logit_softcapping",
        "logit_scale",
        "outputs",
    ]
    assert "outputs: 'tuple[str, ...]' = ('entropy', 'log_sum_sq_probs', 'mean_logits', 'is_top1')" in str(
        inspect.signature(utils._ChunkedLogProbFunction.forward)
    )


def test_trl_has_its_own_projection_back_afterwards():
    before = utils._ChunkedLogProbFunction, utils._use_triton
    with compat.scored_head(compact=True):
        assert utils._ChunkedLogProbFunction is not before[0] and utils._use_triton(None) is True
    assert (utils._ChunkedLogProbFunction, utils._use_triton) == before


def test_datasets_names_what_it_makes_by_the_hasher_that_is_replaced():
    before = fingerprint.Hasher.__dict__["hash"]
    assert isinstance(before, classmethod) and "Hasher" in inspect.getsource(fingerprint.update_fingerprint)
    with compat.unnamed_data():
        assert fingerprint.Hasher.hash("same") != fingerprint.Hasher.hash("same")
    assert fingerprint.Hasher.__dict__["hash"] is before
    assert fingerprint.Hasher.hash("same") == fingerprint.Hasher.hash("same")


def test_trl_is_told_that_its_experiments_are_known(monkeypatch):
    monkeypatch.delenv("TRL_EXPERIMENTAL_SILENCE", raising=False)
    compat.silence_experiments()
    assert os.environ["TRL_EXPERIMENTAL_SILENCE"] == "1"

"""Calibration of language models: sample, collapse by meaning, compare confidence with accuracy."""

import importlib
import os

# trl reports its use over the network unless told not to; nothing here sends anything by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_TRAINERS = {"CATTOConfig": "catto", "CATTOTrainer": "catto", "CFTConfig": "cft", "CFTTrainer": "cft"}


def __getattr__(name: str):
    """`from calib_utils import CATTOConfig, CATTOTrainer`: trl is loaded only when its trainers are asked for."""
    if name in _TRAINERS:
        return getattr(importlib.import_module(f"calib_utils.{_TRAINERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

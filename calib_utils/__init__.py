"""Calibration of language models: sample, collapse by meaning, compare confidence with accuracy."""

import os

# trl reports its use over the network unless told not to; nothing here sends anything by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def __getattr__(name: str):
    """`from calib_utils import CATTOConfig, CATTOTrainer`: trl is loaded only when they are asked for."""
    if name in ("CATTOConfig", "CATTOTrainer"):
        from calib_utils import catto

        return getattr(catto, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Calibration of language models: sample, collapse by meaning, compare confidence with accuracy."""

import os

# trl reports its use over the network unless told not to; nothing here sends anything by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

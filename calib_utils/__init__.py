"""Calibration of language models: sample, collapse by meaning, compare confidence with accuracy."""

"""Records: what crosses from the model to the numbers. Reading them needs no torch; collecting them does."""

import importlib

from calib_utils.records.resuming import resume as resume
from calib_utils.records.store import read as read

_COLLECTING = ("collect", "cached_table", "collect_option_logprobs", "reference_ids")


def __getattr__(name: str):
    """What computes with a model is loaded when it is asked for, and torch with it."""
    if name in _COLLECTING:
        return getattr(importlib.import_module("calib_utils.records.collecting"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

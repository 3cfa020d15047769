"""Records: what crosses from the model to the numbers. Reading them needs no torch; collecting them does."""

from calib_utils.crossing import on_demand
from calib_utils.records.resuming import resume as resume
from calib_utils.records.store import read as read

_COLLECTING = ("collect", "cached_table", "collect_option_logprobs", "reference_ids")
# What computes with a model is loaded when it is asked for, and torch with it.
__getattr__ = on_demand(__name__, dict.fromkeys(_COLLECTING, "collecting"))

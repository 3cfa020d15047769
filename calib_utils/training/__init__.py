"""Training: a lineage of stages (base -> SFT -> DPO or GRPO) as data, and run with trl and peft, each cached."""

import importlib

from calib_utils.training.methods import METHODS as METHODS
from calib_utils.training.methods import ROWS as ROWS
from calib_utils.training.methods import CATTOOptions as CATTOOptions
from calib_utils.training.methods import CFTOptions as CFTOptions
from calib_utils.training.methods import DPOOptions as DPOOptions
from calib_utils.training.methods import Method as Method
from calib_utils.training.methods import PretrainOptions as PretrainOptions
from calib_utils.training.stage import Stage as Stage
from calib_utils.training.stage import label_smoothed as label_smoothed

# Loaded when they are asked for, and torch with them.
_LAZY = {
    "train": "lineage",
    "Trained": "trained",
    "preference_pairs": "rows",
    "majority_pairs": "rows",
    "undecided": "rows",
    "distractor_pairs": "rows",
    "check_pairs": "rows",
    "prompt_text": "run",
    "correctness_reward": "reward",
    "CalibrationCallback": "callback",
    "CATTOConfig": "catto",
    "CATTOTrainer": "catto",
    "CFTConfig": "cft",
    "CFTTrainer": "cft",
}


def __getattr__(name: str):
    """What needs torch is loaded when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"calib_utils.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

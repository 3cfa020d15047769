"""Training: a lineage of stages (base -> SFT -> DPO or GRPO) as data, and run with trl and peft, each cached."""

from calib_utils.crossing import on_demand
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
__getattr__ = on_demand(
    __name__,
    {
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
    },
)

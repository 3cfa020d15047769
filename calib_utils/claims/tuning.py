"""Claims of notebook 02: cross-entropy keeps calibration, preference and RL tuning make a model overconfident."""

from calib_utils.claims.base import TELLS_APART
from calib_utils.claims.papers import SEMANTIC
from calib_utils.claims.rules import ABOVE, BELOW, Bound, Claim, Condition, Effect

NOTEBOOK = "02_rl_degradation"
FINDING = "preference and RL tuning break that"
OVERCONFIDENT = "mean confidence above accuracy"
# Models with an error of up to 0.047 count as calibrated in the paper: a smaller gap breaks nothing.
_GAP = 0.05
_IS_OVERCONFIDENT = Condition(OVERCONFIDENT, Effect("signed gap", ABOVE, margin=_GAP))
_LINEAGE = (
    "kept: semantic confidence, M draws at temperature 1, the same questions before and after. Departs: one lineage "
    "of a 270M model tuned here on curated facts, in place of released models of 7B and more"
)

CLAIMS = (
    Claim(
        "sft-keeps",
        NOTEBOOK,
        "Supervised fine-tuning keeps calibration: cross-entropy is a proper loss",
        "paper",
        "The paper reports that a model after supervised fine-tuning is about as calibrated as its base model.",
        SEMANTIC,
        "zephyr-7b-sft: calibrated (read off a diagram)",
        _LINEAGE,
        "smECE after SFT minus that of the few-shot base model, same questions",
        # 0.017 is the range of the paper's own base models, 0.030 to 0.047.
        Bound("error difference", BELOW, 0.02),
        (TELLS_APART,),
    ),
    Claim(
        "dpo-breaks",
        NOTEBOOK,
        "Direct preference optimisation breaks calibration: the model is overconfident",
        "paper",
        "The paper reports that a model after DPO is overconfident where the SFT model before it is calibrated.",
        SEMANTIC,
        "zephyr-7b-dpo: clearly not calibrated, overconfident (read off a diagram)",
        f"{_LINEAGE}; preferences are for the model's most frequent answer over another of its draws",
        "mean confidence minus accuracy after DPO, minus the same after SFT, same questions",
        Effect("signed gap difference", ABOVE, margin=_GAP),
        (_IS_OVERCONFIDENT,),
    ),
    Claim(
        "rl-breaks",
        NOTEBOOK,
        "Reinforcement learning with a verifiable reward breaks calibration: the model is overconfident",
        "paper",
        "The paper reports that models tuned by reinforcement learning are overconfident.",
        SEMANTIC,
        "RL-tuned models: overconfident (read off diagrams)",
        f"{_LINEAGE}; GRPO without a KL term",
        "mean confidence minus accuracy after GRPO, minus the same after SFT, same questions",
        Effect("signed gap difference", ABOVE, margin=_GAP),
        (_IS_OVERCONFIDENT,),
    ),
    Claim(
        "released-aligned",
        NOTEBOOK,
        "Released instruction-tuned models are overconfident",
        "paper",
        "The paper reports that released instruction-tuned models are overconfident.",
        SEMANTIC,
        "instruct models: overconfident (read off diagrams)",
        "kept: a released aligned model in its chat template, M draws at temperature 1. Departs: 135M parameters, "
        "4-bit weights, worked examples in the prompt, curated facts",
        "mean confidence minus accuracy of the released aligned model",
        Effect("signed gap", ABOVE, margin=_GAP),
    ),
)

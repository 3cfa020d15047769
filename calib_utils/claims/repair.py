"""Claims of notebook 05: fine-tuning on domain questions repairs an aligned model.

All errors are debiased, so that a reduction is a share of what stands above sampling noise: a perfect repair removes
all of it, at any number of questions.
"""

from calib_utils.claims.papers import REPAIR
from calib_utils.claims.rules import ABOVE, Bound, Claim, Condition, Effect

NOTEBOOK = "05_calibration_aware"
FINDING = "fine-tuning on the domain repairs an aligned model"
BEYOND = "accuracy on the tuned questions beyond the critical accuracy"
_CFT = (0.65, 0.88)  # relative reductions that the paper reports
_SOME = 0.25  # a reduction that is worth a repair, where the paper gives no figure
_SETTING = (
    "kept: an aligned model never tuned on these questions, multiple choice, confidence-ECE of ten bins. "
    "Departs: a 270M DPO model made here (the paper's aligned models have an ECE of 0.142 to 0.201), probabilities "
    "of full options in place of labels A to D, 160 questions in place of 3,000, rank 16 in place of 128"
)

CLAIMS = (
    Claim(
        "cft-lowers",
        NOTEBOOK,
        "Fine-tuning on domain questions (CFT) lowers the calibration error of an aligned model",
        "paper",
        "The paper reports that CFT lowers the confidence-ECE of four aligned models by 65 to 88 %.",
        REPAIR,
        "confidence-ECE 65 to 88 % lower on four aligned models of 7 to 8 billion parameters",
        _SETTING,
        "share of the aligned model's ECE that CFT removes, top option, same questions",
        Effect("relative reduction", ABOVE, margin=_CFT[0], smallest=_CFT[0]),
        paper_low=_CFT[0],
        paper_high=_CFT[1],
    ),
    Claim(
        "cft-accuracy",
        NOTEBOOK,
        "Fine-tuning on domain questions (CFT) keeps the accuracy of an aligned model",
        "paper",
        "The paper reports that CFT keeps the accuracy of the aligned models.",
        REPAIR,
        "accuracy kept on four aligned models",
        _SETTING,
        "accuracy after CFT minus that of the aligned model, same questions",
        Bound("accuracy difference", ABOVE, -0.01),
    ),
    Claim(
        "rcft-accuracy",
        NOTEBOOK,
        "RCFT raises the accuracy of an aligned model",
        "paper",
        "The paper reports that RCFT is more accurate than the DPO model it starts from, on OLMo2-7B.",
        REPAIR,
        "OLMo2-7B: accuracy 0.851 with RCFT against 0.621 with DPO",
        f"{_SETTING}; RCFT's loss is on the answer alone",
        "accuracy after RCFT minus that of the aligned model, last step, same questions",
        Effect("accuracy difference", ABOVE, margin=0.05),
        paper_low=0.23,
        paper_high=0.23,
    ),
    Claim(
        "rcft-ece",
        NOTEBOOK,
        "RCFT lowers the calibration error of an aligned model",
        "paper",
        "The paper reports that RCFT lowers the ECE of an aligned model, if by less than CFT.",
        REPAIR,
        "trades some of CFT's calibration for accuracy",
        f"{_SETTING}; RCFT's loss is on the answer alone",
        "share of the aligned model's ECE that RCFT removes, top option, same questions",
        Effect("relative reduction", ABOVE, margin=_SOME),
    ),
    Claim(
        "rcft-against-cft",
        NOTEBOOK,
        "Past the critical accuracy, RCFT keeps more accuracy than CFT",
        "extension",
        "No paper states it: the paper compares the accuracy of RCFT with that of DPO.",
        REPAIR,
        "not measured there",
        "this project's question; the critical accuracy is estimated by that of SFT on test questions",
        "accuracy after RCFT minus that after CFT, last step, same questions",
        Effect("accuracy difference", ABOVE, margin=0.02),
        (Condition(BEYOND),),
    ),
    Claim(
        "scaling-ece",
        NOTEBOOK,
        "Temperature scaling lowers the calibration error of an aligned model",
        "extension",
        "No claim of the paper: temperature scaling is a baseline there.",
        REPAIR,
        "a baseline there",
        "one temperature fitted on dev questions by the multiclass log loss (Guo et al., 2017)",
        "share of the aligned model's ECE that temperature scaling removes, top option, same questions",
        Effect("relative reduction", ABOVE, margin=_SOME),
    ),
)

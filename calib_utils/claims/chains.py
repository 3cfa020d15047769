"""Claims of notebook 03: chain-of-thought breaks semantic calibration."""

from calib_utils.claims.base import CALIBRATED, TELLS_APART
from calib_utils.claims.papers import SEMANTIC
from calib_utils.claims.rules import ABOVE, BELOW, Claim, Condition, Effect

NOTEBOOK = "03_cot_degradation"
FINDING = "so does chain-of-thought"
UNDERCONFIDENT = "mean confidence of chains below accuracy"
_GAP = 0.05  # as in `tuning`
_IS_UNDERCONFIDENT = Condition(UNDERCONFIDENT, Effect("signed gap", BELOW, margin=_GAP))
_OURS = "No paper states it: there, chains are those of few-shot base models."

CLAIMS = (
    Claim(
        "concise-calibrated",
        NOTEBOOK,
        "A base model that answers at once, asked with worked examples, is calibrated on mathematics",
        "paper",
        "The paper reports that base models that answer mathematics at once, in a word, are semantically calibrated.",
        SEMANTIC,
        "smECE 0.031 to 0.047 (GSM8K), 0.038 (OpenMathInstruct, Qwen2.5-Math-72B)",
        "kept: few-shot base model, concise answers to mathematics, frequencies of M draws at temperature 1, smECE. "
        "Departs: generated word problems of one step (those within the model's reach) in place of GSM8K, 270M "
        "parameters, M = 20",
        "smECE of concise answers of the base model",
        CALIBRATED,
        (TELLS_APART,),
        paper_low=0.031,
        paper_high=0.047,
    ),
    Claim(
        "cot-base",
        NOTEBOOK,
        "A base model, asked with worked examples, is underconfident with chains",
        "paper",
        "The paper reports that few-shot base models that reason before they answer are underconfident.",
        SEMANTIC,
        "base models with chains: underconfident (read off diagrams)",
        "kept: few-shot base model with worked chains, frequencies of M draws at temperature 1. Departs: 270M "
        "parameters, generated word problems of one step (those within the model's reach), M = 20",
        "mean confidence minus accuracy of the base model's chains",
        Effect("signed gap", BELOW, margin=_GAP),
    ),
    Claim(
        "cot-base-elsewhere",
        NOTEBOOK,
        "A base model, asked with worked examples, is underconfident with chains outside mathematics too",
        "extension",
        "No paper states it: chains are measured on mathematics there. Reviewers asked for other questions.",
        SEMANTIC,
        "not measured there",
        "the paper's setting on two-hop questions of relations that the model partly knows",
        "mean confidence minus accuracy of the base model's chains",
        Effect("signed gap", BELOW, margin=_GAP),
    ),
    Claim(
        "cot-breaks",
        NOTEBOOK,
        "Chains are underconfident after cross-entropy on chains too, against concise answers",
        "extension",
        _OURS,
        SEMANTIC,
        "not measured there; base models with chains are underconfident",
        "the paper's comparison of styles, with the same estimator and M for both, after training on either style",
        "mean confidence minus accuracy of chains, minus the same of concise answers, same questions",
        Effect("signed gap difference", BELOW, margin=_GAP),
        (_IS_UNDERCONFIDENT,),
    ),
    Claim(
        "cot-elsewhere",
        NOTEBOOK,
        "Chains are underconfident outside mathematics too, against concise answers",
        "extension",
        "No paper states it: chains are measured on mathematics there. Reviewers asked for other questions.",
        SEMANTIC,
        "not measured there",
        "the paper's comparison of styles on multi-hop questions, after training on either style",
        "mean confidence minus accuracy of chains, minus the same of concise answers, same questions",
        Effect("signed gap difference", BELOW, margin=_GAP),
        (_IS_UNDERCONFIDENT,),
    ),
    Claim(
        "cot-grows",
        NOTEBOOK,
        "The more steps a question takes, the less calibrated are chains",
        "extension",
        "No paper states it: the number of steps is not varied there.",
        SEMANTIC,
        "not measured there",
        "this project's question; generated word problems, whose number of steps is known",
        "smECE of chains on questions with more than the median number of steps minus that on the others",
        Effect("error difference", ABOVE, margin=_GAP),
    ),
)

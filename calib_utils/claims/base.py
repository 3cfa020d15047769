"""Claims of notebook 01: base models are semantically calibrated."""

from calib_utils.claims.papers import SEMANTIC
from calib_utils.claims.rules import ABOVE, BELOW, Bound, Claim, Condition, Effect

NOTEBOOK = "01_base_semantic_calibration"
FINDING = "base models are calibrated on the meaning of their answers"
INFORMATIVE = "confidence is informative"
# A constant confidence at the right height passes every bound on an error: it must tell right from wrong as well.
TELLS_APART = Condition(INFORMATIVE, Effect("AUROC", ABOVE, margin=0.1, null=0.5))
# The largest smECE that the paper quotes for a base model that it calls calibrated is 0.047.
_TOLERANCE = 0.05
CALIBRATED = Bound("error", BELOW, _TOLERANCE)
NO_TILT = "no tilt pays on public questions"
# The loss gap without which no calibration error exceeds the tolerance (`world.mechanism.error_bound`, Pinsker).
_PAYS = round(2 * _TOLERANCE**2, 6)
_FEW_SHOT = (
    "kept: base model, few-shot, public questions, frequencies of M draws at temperature 1, smECE. Departs: a 4-bit "
    "model of 270M parameters (the paper's begin at 0.5B), Natural Questions in place of TriviaQA, SimpleQA and "
    "GSM8K"
)

CLAIMS = (
    Claim(
        "base-concise",
        NOTEBOOK,
        "Base models are semantically calibrated on public questions, concise answers",
        "paper",
        "The paper reports that few-shot base models that answer in a word or phrase are semantically calibrated.",
        SEMANTIC,
        "smECE 0.047 (GSM8K, Qwen2.5-7B), 0.031 (GSM8K, gemma-3-27b)",
        _FEW_SHOT,
        "smECE of concise answers to public questions",
        CALIBRATED,
        (TELLS_APART,),
        paper_low=0.031,
        paper_high=0.047,
    ),
    Claim(
        "base-sentence",
        NOTEBOOK,
        "Base models are semantically calibrated on public questions, answers in a sentence",
        "paper",
        "The paper reports that few-shot base models that answer in a sentence are semantically calibrated.",
        SEMANTIC,
        "smECE 0.036 (TriviaQA, Mistral-7B), 0.030 (TriviaQA, Qwen2.5-7B)",
        _FEW_SHOT,
        "smECE of answers in a sentence to public questions",
        CALIBRATED,
        (TELLS_APART,),
        paper_low=0.030,
        paper_high=0.036,
    ),
    Claim(
        "base-curated",
        NOTEBOOK,
        "On curated facts a base model need not be calibrated: a tilt of its confidence lowers its loss",
        "extension",
        "The paper expects calibration only for questions that are distributed as the training text; it measures no "
        "loss gap.",
        SEMANTIC,
        "not measured there",
        "the paper's Theorem 6 as a number, on a real model: the best tilt is fitted on one half of the questions "
        "and read on the other; selected relations with one answer each, which are not distributed as text is",
        "loss gap of concise answers to curated facts, in nats",
        Effect("loss gap", ABOVE, margin=_PAYS),
        (Condition(NO_TILT, Bound("loss gap", BELOW, _PAYS), burden="not excluded"),),
    ),
)

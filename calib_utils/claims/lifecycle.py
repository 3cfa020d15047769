"""Claims of notebook 06: scale, training time and tuning move calibration.

Decided on the paper's three tasks, by the mean of their differences; a task that speaks against a claim makes
it "partly". Whole answers and new people, this project's own tasks, have no part in it.
"""

from calib_utils.claims.papers import LIFECYCLE
from calib_utils.claims.rules import ABOVE, BELOW, Bound, Claim, Condition, Effect

NOTEBOOK = "06_lifecycle"
FINDING = "scale, training time and tuning move calibration"
TASKS = ("next token", "facts generation", "multiple choice")
_SEEN = 0.02  # the paper shows diagrams: a smaller change of the ECE would hardly be read off them
_FAMILY = (
    "kept: three tasks, facts by the first token of the entity, ECE of ten bins, one family at equal data, text that "
    "is read once, every checkpoint. Departs: models of at most 0.4M parameters, generated text"
)
_TUNED = f"{_FAMILY}; instructions of a form that the tasks do not have, about people who were never mentioned"
_MEAN = "(10 equal-width bins, mean over next token, facts generation and multiple choice), same questions"
_RISES = Effect("error difference", ABOVE, margin=_SEEN)
_STAYS = Bound("error difference", BELOW, _SEEN)


def _claim(
    name: str, claim: str, quote: str, paper_value: str, difference: str, faithful: str, rule=_RISES, kind="paper"
) -> Claim:
    """A claim about a difference of errors."""
    tasks = tuple(Condition(task, rule, "not excluded") for task in TASKS)
    return Claim(
        f"lifecycle-{name}", NOTEBOOK, claim, kind, quote, LIFECYCLE, paper_value, faithful,
        f"{difference} {_MEAN}", rule, tasks,
    )  # fmt: skip


CLAIMS = (
    _claim(
        "scale",
        "Larger models are better calibrated",
        "The paper reports that ECE falls with the number of parameters, on each of three tasks.",
        "larger models: lower ECE (Pythia 70M to 12B, diagrams)",
        "ECE of the smallest model minus that of the largest, last checkpoint",
        _FAMILY,
    ),
    _claim(
        "time",
        "Longer-trained models are better calibrated",
        "The paper reports that ECE falls along pre-training, with early gains and then a plateau.",
        "longer-trained: lower ECE (Pythia checkpoints, diagrams)",
        "ECE of the first checkpoint minus that of the last, largest model",
        _FAMILY,
    ),
    _claim(
        "instruction",
        "Instruction tuning harms calibration",
        "The paper reports that ECE rises with instruction tuning.",
        "instruction tuning: higher ECE (LLaMA 7B, diagrams)",
        "ECE after full fine-tuning on narrow instructions minus that of the model before it",
        _TUNED,
    ),
    _claim(
        "epochs",
        "The longer instruction tuning lasts, the more it harms calibration",
        "The paper reports that the ECE rises with the epochs of instruction tuning.",
        "more epochs: higher ECE (LLaMA 7B, diagrams)",
        "ECE after the most epochs of full fine-tuning minus that after the fewest",
        _TUNED,
    ),
    _claim(
        "lora",
        "Parameter-efficient tuning harms calibration less than full fine-tuning",
        "The paper reports a lower ECE with LoRA than with full fine-tuning, at equal epochs.",
        "LoRA: lower ECE than full fine-tuning (diagrams)",
        "ECE of full fine-tuning minus that of LoRA at equal epochs",
        _TUNED,
    ),
    _claim(
        "diversity",
        "Less diverse instruction data harm calibration more",
        "The paper reports a higher ECE after tuning on less diverse instruction data.",
        "low diversity: higher ECE (diagrams)",
        "ECE after tuning on the least diverse instructions minus that after the most diverse ones, equally many",
        f"{_TUNED}; diversity is that of kinds and phrasings, and measured",
    ),
    _claim(
        "dpo",
        "Preference tuning keeps what supervised tuning left",
        "The paper reports that RLHF keeps the ECE that supervised tuning left, or lowers it slightly.",
        "RLHF: ECE kept or slightly lower",
        "ECE after DPO minus that after instruction tuning",
        f"{_TUNED}; DPO in place of PPO with a KL term",
        _STAYS,
    ),
    _claim(
        "rlhf",
        "Reinforcement learning with a KL term keeps what supervised tuning left",
        "The paper reports that RLHF keeps the ECE that supervised tuning left, or lowers it slightly.",
        "RLHF: ECE kept or slightly lower",
        "ECE after GRPO with a KL term minus that after instruction tuning",
        f"{_TUNED}; GRPO on a verifiable reward in place of PPO on a learned one",
        _STAYS,
    ),
    _claim(
        "grpo",
        "Reinforcement learning without a KL term keeps what supervised tuning left",
        "No paper states it: the paper's RLHF is PPO with a KL term and a learned reward.",
        "not measured there; RLHF: ECE kept or slightly lower",
        "ECE after GRPO without a KL term minus that after instruction tuning",
        f"{_TUNED}; GRPO on a verifiable reward, no KL term",
        _STAYS,
        "extension",
    ),
    _claim(
        "memorising",
        "Reading the same text again and again harms calibration",
        "No paper states it: Pythia reads its text about once.",
        "not measured there",
        "ECE after reading a few texts again and again minus that after as many steps of fresh text",
        f"{_FAMILY}; text that is read dozens of times",
        _RISES,
        "extension",
    ),
)

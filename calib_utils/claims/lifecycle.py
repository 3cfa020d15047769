"""Claims of notebook 06: scale, training time and tuning move calibration.

Decided on the paper's three tasks, by the mean of their differences; a task that speaks against a claim makes
it "partly". Facts about new entities, this project's own task, have no part in it.
"""

from calib_utils.claims.papers import LIFECYCLE
from calib_utils.claims.rules import ABOVE, BELOW, Bound, Claim, Condition, Effect

NOTEBOOK = "06_lifecycle"
TASKS = ("next token", "facts generation", "multiple choice")
_SEEN = 0.02  # the paper shows diagrams: a smaller change of the ECE would hardly be read off them
_FAMILY = (
    "kept: three tasks, ECE of ten bins, models of one family, every checkpoint. Departs: at most 4M parameters, "
    "trained here on a few hundred facts that are read many times, not once; whole answers in place of the first "
    "token of the entity"
)
_MEAN = "(10 equal-width bins, mean over next token, facts generation and multiple choice), same questions"


def _rises(name: str, claim: str, quote: str, paper_value: str, difference: str, faithful: str = _FAMILY) -> Claim:
    """A claim that an error is higher on one side of a difference."""
    test = Effect("error difference", ABOVE, margin=_SEEN)
    tasks = tuple(Condition(task, test, "not excluded") for task in TASKS)
    return Claim(
        f"lifecycle-{name}", NOTEBOOK, claim, "paper", quote, LIFECYCLE, paper_value, faithful,
        f"{difference} {_MEAN}", test, tasks,
    )  # fmt: skip


def _stays(name: str, kind: str, claim: str, quote: str, paper_value: str, difference: str, faithful: str) -> Claim:
    """A claim that an error does not rise."""
    test = Bound("error difference", BELOW, _SEEN)
    tasks = tuple(Condition(task, test, "not excluded") for task in TASKS)
    return Claim(
        f"lifecycle-{name}", NOTEBOOK, claim, kind, quote, LIFECYCLE, paper_value, faithful,
        f"{difference} {_MEAN}", test, tasks,
    )  # fmt: skip


CLAIMS = (
    _rises(
        "scale",
        "Larger models are better calibrated",
        "The paper reports that ECE falls with the number of parameters, on each of three tasks.",
        "larger models: lower ECE (Pythia 70M to 12B, diagrams)",
        "ECE of the smallest model minus that of the largest, last checkpoint",
    ),
    _rises(
        "time",
        "Longer-trained models are better calibrated",
        "The paper reports that ECE falls along pre-training, with early gains and then a plateau.",
        "longer-trained: lower ECE (Pythia checkpoints, diagrams)",
        "ECE halfway through the checkpoints (the earlier of two) minus that of the last, largest model",
    ),
    _rises(
        "instruction",
        "Instruction tuning harms calibration",
        "The paper reports that ECE rises with instruction tuning, the more the longer it lasts.",
        "instruction tuning: higher ECE (LLaMA 7B, diagrams)",
        "ECE after full fine-tuning minus that of the model it started from",
        f"{_FAMILY}; tuned on questions of the evaluated form, where the paper's instruction data are foreign to it",
    ),
    _rises(
        "lora",
        "Parameter-efficient tuning harms calibration less than full fine-tuning",
        "The paper reports a lower ECE with LoRA than with full fine-tuning, at equal epochs.",
        "LoRA: lower ECE than full fine-tuning (diagrams)",
        "ECE of full fine-tuning minus that of LoRA at the step with the nearest training loss",
        f"{_FAMILY}; compared at equal training loss in place of equal epochs",
    ),
    _rises(
        "diversity",
        "Less diverse instruction data harm calibration more",
        "The paper reports a higher ECE after tuning on less diverse instruction data.",
        "low diversity: higher ECE (diagrams)",
        "ECE after tuning on few relations in one phrasing minus that after all relations in two phrasings",
        f"{_FAMILY}; diversity is that of relations and phrasings, where the paper's is that of instructions",
    ),
    _stays(
        "dpo",
        "paper",
        "Preference tuning keeps what supervised tuning left",
        "The paper reports that RLHF keeps the ECE that supervised tuning left, or lowers it slightly.",
        "RLHF: ECE kept or slightly lower",
        "ECE after DPO minus that after SFT",
        f"{_FAMILY}; DPO in place of PPO with a KL term",
    ),
    _stays(
        "grpo",
        "extension",
        "Reinforcement learning without a KL term keeps what supervised tuning left",
        "No paper states it: the paper's RLHF is PPO with a KL term and a learned reward.",
        "not measured there; RLHF: ECE kept or slightly lower",
        "ECE after GRPO minus that after SFT",
        f"{_FAMILY}; GRPO on a verifiable reward, no KL term",
    ),
)

"""Claims: what a paper says, the rule fixed before the run, and the verdict the numbers give."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from calib_utils import files
from calib_utils.metrics import Estimate

COLUMNS = tuple(
    "id notebook claim source paper_value value ci_low ci_high n seeds profile model dataset verdict rule "
    "conditions".split()
)
VERDICTS = ("reproduced", "partly", "not reproduced")
FILES = ("claims.csv", "claims.md")


@dataclass(frozen=True)
class Claim:
    """A published statement and how its verdict is decided.

    `rule` says in words what `decide` does with the measured estimate; `conditions` are further statements that
    the notebook has to decide: all must hold for "reproduced", all but one for "partly".
    """

    id: str
    notebook: str
    claim: str
    source: str
    paper_value: str
    rule: str
    decide: Callable[[Estimate], str]
    conditions: tuple[str, ...] = ()


def above(limit: float) -> Callable[[Estimate], str]:
    """reproduced: the whole interval is above the limit; partly: only the value is; else not reproduced."""

    def decide(estimate: Estimate) -> str:
        if estimate.low > limit:
            return "reproduced"
        return "partly" if estimate.value > limit else "not reproduced"

    return decide


def below(limit: float) -> Callable[[Estimate], str]:
    """reproduced: the whole interval is below the limit; partly: only the value is; else not reproduced."""

    def decide(estimate: Estimate) -> str:
        if estimate.high < limit:
            return "reproduced"
        return "partly" if estimate.value < limit else "not reproduced"

    return decide


def at_most(limit: float) -> Callable[[Estimate], str]:
    """reproduced: value <= limit; partly: only the lower end of the interval is; else not reproduced."""

    def decide(estimate: Estimate) -> str:
        if estimate.value <= limit:
            return "reproduced"
        return "partly" if estimate.low <= limit else "not reproduced"

    return decide


def at_least(margin: float) -> Callable[[Estimate], str]:
    """reproduced: the whole interval is above 0 and the value at least the margin; partly: the value is above 0."""

    def decide(estimate: Estimate) -> str:
        if estimate.low > 0 and estimate.value >= margin:
            return "reproduced"
        return "partly" if estimate.value > 0 else "not reproduced"

    return decide


_AT_MOST_005 = (
    "reproduced if smECE <= 0.05 (the largest base-model figure quoted is 0.047); "
    "partly if only the 95 % interval reaches 0.05"
)
OVERCONFIDENT = "mean confidence above accuracy"
KEPT = "accuracy at most 3 points below SFT"
_BREAKS = (
    "smECE minus that of SFT on the same questions: reproduced if its 95 % interval is above 0, that of mean "
    "confidence minus accuracy too, and accuracy is at most 3 points below SFT; partly if one of the three fails but "
    "the smECE is still higher than that of SFT; else not reproduced"
)
_CHAINS = (
    "smECE of chains minus smECE of concise answers, both after cross-entropy, same questions: reproduced if its "
    "95 % interval is above 0 and that of mean confidence minus accuracy of chains below 0; partly if one of the two "
    "fails but the smECE is still higher; else not reproduced"
)
UNDERCONFIDENT = "mean confidence below accuracy"
_PAPER_A = "Trained on Tokens, Calibrated on Concepts (arXiv 2511.04869)"
_PAPER_B = "On the Calibration of Large Language Models and Alignment (arXiv 2311.13240)"
_PAPER_C = "Balancing Preferences and Confidence in Language Models (arXiv 2601.23096)"
_PAPER_D = "Restoring Calibration for Aligned Large Language Models (arXiv 2505.01997)"
KEPT_DPO = "accuracy at most 1 point below DPO"

MOST_REMOVED = "at least 68 % of the ECE removed"
KEPT_ALIGNED = "accuracy at most 1 point below the aligned model"
BEYOND = "accuracy on the tuned questions beyond the critical accuracy"


def _gain(over: str, margin: float, confidence: str = "semantic confidence") -> str:
    return (
        f"ECE (10 equal-width bins, {confidence}) of {over} minus that of CATTO, same questions: reproduced "
        f"if its 95 % interval is above 0, the value at least {margin} (the paper's smallest margin) and CATTO's "
        "accuracy at most 1 point below that of DPO; partly if accuracy fails or only the value is above 0; else not"
    )


_CHOICES = (
    "ECE (10 equal-width bins) of the top option's probability, full options renormalised, DPO minus CATTO, same "
    "questions: reproduced if its 95 % interval is above 0 and the value at least {} (the paper's smallest margin); "
    "partly if only the value is above 0"
)

OTHER_TASKS = ("next token", "multiple choice", "new entities")
_ELSEWHERE = (
    "Each of the other tasks (next tokens, multiple choice, facts about new entities) in which the value is on the "
    "other side lowers the verdict by one grade"
)
_FALLS = (
    "{} (10 equal-width bins, facts generation), same questions: reproduced if its 95 % interval is above 0; partly "
    "if only the value is. " + _ELSEWHERE
)
_STAYS = (
    "{} (10 equal-width bins, facts generation), same questions: reproduced if its 95 % interval is below 0.02; "
    "partly if only the value is. " + _ELSEWHERE
)

CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "base-concise",
            "01_base_semantic_calibration",
            "Base models are semantically calibrated on question answering, concise answers",
            _PAPER_A,
            "smECE 0.047 (GSM8K, Qwen2.5-7B), 0.031 (GSM8K, gemma-3-27b)",
            _AT_MOST_005,
            at_most(0.05),
        ),
        Claim(
            "base-sentence",
            "01_base_semantic_calibration",
            "Base models are semantically calibrated on question answering, answers in a sentence",
            _PAPER_A,
            "smECE 0.036 (TriviaQA, Mistral-7B), 0.030 (TriviaQA, Qwen2.5-7B)",
            _AT_MOST_005,
            at_most(0.05),
        ),
        Claim(
            "sft-keeps",
            "02_rl_degradation",
            "Supervised fine-tuning keeps calibration: cross-entropy is a proper loss",
            _PAPER_A,
            "zephyr-7b-sft: calibrated (read off a diagram)",
            "reproduced if smECE <= 0.05; partly if only the 95 % interval reaches 0.05",
            at_most(0.05),
        ),
        Claim(
            "dpo-breaks",
            "02_rl_degradation",
            "Direct preference optimisation breaks calibration: the model is overconfident",
            _PAPER_A,
            "zephyr-7b-dpo: clearly not calibrated, overconfident (read off a diagram)",
            _BREAKS,
            above(0.0),
            (OVERCONFIDENT, KEPT),
        ),
        Claim(
            "rl-breaks",
            "02_rl_degradation",
            "Reinforcement learning with a verifiable reward breaks calibration: the model is overconfident",
            _PAPER_A,
            "RL-tuned models: overconfident (read off diagrams)",
            _BREAKS,
            above(0.0),
            (OVERCONFIDENT, KEPT),
        ),
        Claim(
            "released-aligned",
            "02_rl_degradation",
            "Released instruction-tuned models are overconfident",
            _PAPER_A,
            "instruct models: overconfident (read off diagrams)",
            "mean confidence minus accuracy: reproduced if its 95 % interval is above 0; partly if only the value is",
            above(0.0),
        ),
        Claim(
            "concise-calibrated",
            "03_cot_degradation",
            "Trained on answers alone, the model is calibrated on questions that take several steps",
            _PAPER_A,
            "smECE 0.047 (GSM8K, Qwen2.5-7B), 0.038 (OpenMathInstruct, Qwen2.5-Math-72B)",
            _AT_MOST_005,
            at_most(0.05),
        ),
        Claim(
            "cot-base",
            "03_cot_degradation",
            "A base model, asked with worked examples, is underconfident with chains",
            _PAPER_A,
            "base models with chains: underconfident (read off diagrams)",
            "mean confidence minus accuracy: reproduced if its 95 % interval is below 0; partly if only the value is",
            below(0.0),
        ),
        Claim(
            "cot-breaks",
            "03_cot_degradation",
            "Chain-of-thought breaks calibration after cross-entropy on chains too: the model is underconfident",
            _PAPER_A,
            "base models with chains: underconfident (read off diagrams)",
            _CHAINS,
            above(0.0),
            (UNDERCONFIDENT,),
        ),
        Claim(
            "cot-grows",
            "03_cot_degradation",
            "The more steps a question takes, the less calibrated are chains",
            _PAPER_A,
            "not measured there",
            "smECE of chains on questions with more than the median number of steps minus that on the others: "
            "reproduced if its 95 % interval is above 0; partly if only the value is",
            above(0.0),
        ),
        Claim(
            "cot-elsewhere",
            "03_cot_degradation",
            "Chain-of-thought breaks calibration outside mathematics too",
            _PAPER_A,
            "not measured there",
            _CHAINS,
            above(0.0),
            (UNDERCONFIDENT,),
        ),
        Claim(
            "catto-in",
            "04_catto",
            "CATTO lowers the calibration error of DPO, on the trained relations",
            _PAPER_C,
            "ECE 2.22 to 7.61 points lower than DPO's (multiple choice)",
            _gain("DPO", 0.0222),
            at_least(0.0222),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-out",
            "04_catto",
            "CATTO lowers the calibration error of DPO, on relations never trained on",
            _PAPER_C,
            "ECE 1.46 to 10.44 points lower than DPO's (multiple choice)",
            _gain("DPO", 0.0146),
            at_least(0.0146),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-best-in",
            "04_catto",
            "CATTO is better calibrated than the best other variant of DPO, on the trained relations",
            _PAPER_C,
            "ECE 0.22 to 1.24 points lower than the strongest baseline's (multiple choice)",
            _gain("the variant of DPO with the lowest ECE", 0.0022),
            at_least(0.0022),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-best-out",
            "04_catto",
            "CATTO is better calibrated than the best other variant of DPO, on relations never trained on",
            _PAPER_C,
            "ECE 1.23 to 5.07 points lower than the strongest baseline's (multiple choice)",
            _gain("the variant of DPO with the lowest ECE", 0.0123),
            at_least(0.0123),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-choices-in",
            "04_catto",
            "CATTO lowers the calibration error of DPO in multiple choice, on the trained relations",
            _PAPER_C,
            "ECE 2.22 to 7.61 points lower than DPO's",
            _CHOICES.format(0.0222),
            at_least(0.0222),
        ),
        Claim(
            "catto-choices-out",
            "04_catto",
            "CATTO lowers the calibration error of DPO in multiple choice, on relations never trained on",
            _PAPER_C,
            "ECE 1.46 to 10.44 points lower than DPO's",
            _CHOICES.format(0.0146),
            at_least(0.0146),
        ),
        Claim(
            "catto-choices-best-in",
            "04_catto",
            "CATTO is better calibrated than the best other variant of DPO, multiple choice, trained relations",
            _PAPER_C,
            "ECE 0.22 to 1.24 points lower than the strongest baseline's",
            _gain("the variant of DPO with the lowest ECE", 0.0022, "top option's probability"),
            at_least(0.0022),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-choices-best-out",
            "04_catto",
            "CATTO is better calibrated than the best other variant of DPO, multiple choice, untrained relations",
            _PAPER_C,
            "ECE 1.23 to 5.07 points lower than the strongest baseline's",
            _gain("the variant of DPO with the lowest ECE", 0.0123, "top option's probability"),
            at_least(0.0123),
            (KEPT_DPO,),
        ),
        Claim(
            "catto-accuracy",
            "04_catto",
            "CATTO keeps the accuracy of DPO",
            _PAPER_C,
            "accuracy kept or slightly better on five sets",
            "accuracy of CATTO minus that of DPO, trained relations: reproduced if its 95 % interval is above -0.01; "
            "partly if only the value is",
            above(-0.01),
        ),
        Claim(
            "confidence-at-k",
            "04_catto",
            "After CATTO, the most confident of k answers is at least as good as the majority's (Confidence@k)",
            _PAPER_C,
            "Bayes-optimal where the confidence is calibrated",
            "accuracy of Confidence@k minus that of the majority vote at the largest k, trained relations: "
            "reproduced if its 95 % interval is above -0.01; partly if only the value is",
            above(-0.01),
        ),
        Claim(
            "cft-lowers",
            "05_calibration_aware",
            "Fine-tuning on domain questions (CFT) lowers the calibration error of an aligned model, accuracy kept",
            _PAPER_D,
            "confidence-ECE 68 to 88 % lower on four aligned models of 7 to 8 billion parameters",
            "ECE (10 equal-width bins, top option) of the aligned model minus that after CFT, same questions: "
            "reproduced if its 95 % interval is above 0, at least 68 % of the ECE is removed and accuracy is at most "
            "1 point lower; partly if one of the three fails but the ECE is lower; else not",
            above(0.0),
            (MOST_REMOVED, KEPT_ALIGNED),
        ),
        Claim(
            "rcft-accuracy",
            "05_calibration_aware",
            "Past the critical accuracy, RCFT keeps more accuracy than CFT",
            _PAPER_D,
            "OLMo2-7B: accuracy 0.851 with RCFT against 0.621 with DPO",
            "accuracy after RCFT minus that after CFT, last step, same questions: reproduced if its 95 % interval is "
            "above 0 and CFT's accuracy on the tuned questions is beyond the critical accuracy; partly if one of the "
            "two fails but the accuracy is higher; else not",
            above(0.0),
            (BEYOND,),
        ),
        Claim(
            "rcft-ece",
            "05_calibration_aware",
            "RCFT lowers the calibration error of an aligned model",
            _PAPER_D,
            "trades some of CFT's calibration for accuracy",
            "ECE of the aligned model minus that after RCFT, same questions: reproduced if its 95 % interval is "
            "above 0; partly if only the value is",
            above(0.0),
        ),
        Claim(
            "scaling-ece",
            "05_calibration_aware",
            "Temperature scaling lowers the calibration error without moving accuracy",
            _PAPER_D,
            "a baseline there",
            "ECE of the aligned model minus that after temperature scaling (fitted on dev), same questions: "
            "reproduced if its 95 % interval is above 0; partly if only the value is",
            above(0.0),
        ),
        Claim(
            "lifecycle-scale",
            "06_lifecycle",
            "Larger models are better calibrated",
            _PAPER_B,
            "larger models: lower ECE (Pythia 70M to 12B, diagrams)",
            _FALLS.format("ECE of the smallest model minus that of the largest, last checkpoint"),
            above(0.0),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-time",
            "06_lifecycle",
            "Longer-trained models are better calibrated",
            _PAPER_B,
            "longer-trained: lower ECE (Pythia checkpoints, diagrams)",
            _FALLS.format(
                "ECE halfway through the checkpoints (the earlier of two) minus that of the last, largest model"
            ),
            above(0.0),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-instruction",
            "06_lifecycle",
            "Instruction tuning harms calibration",
            _PAPER_B,
            "instruction tuning: higher ECE (LLaMA 7B, diagrams)",
            _FALLS.format("ECE after full fine-tuning minus that of the model it started from"),
            above(0.0),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-lora",
            "06_lifecycle",
            "Parameter-efficient tuning harms calibration less than full fine-tuning",
            _PAPER_B,
            "LoRA: lower ECE than full fine-tuning (diagrams)",
            _FALLS.format("ECE of full fine-tuning minus that of LoRA at the step with the nearest training loss"),
            above(0.0),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-diversity",
            "06_lifecycle",
            "Less diverse instruction data harm calibration more",
            _PAPER_B,
            "low diversity: higher ECE (diagrams)",
            _FALLS.format(
                "ECE after tuning on few relations in one phrasing minus that after all relations in two phrasings"
            ),
            above(0.0),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-dpo",
            "06_lifecycle",
            "Preference tuning keeps what supervised tuning left",
            _PAPER_B,
            "RLHF: ECE kept or slightly lower",
            _STAYS.format("ECE after DPO minus that after SFT"),
            below(0.02),
            OTHER_TASKS,
        ),
        Claim(
            "lifecycle-grpo",
            "06_lifecycle",
            "Reinforcement learning keeps what supervised tuning left",
            _PAPER_B,
            "RLHF: ECE kept or slightly lower",
            _STAYS.format("ECE after GRPO minus that after SFT"),
            below(0.02),
            OTHER_TASKS,
        ),
    )
}


_HELD = {True: "yes", False: "no", None: "not measured"}


def claim_row(
    claim_id: str,
    estimate: Estimate,
    holds: Mapping[str, bool | None] | None = None,
    *,
    seeds: str,
    profile: str,
    model: str,
    dataset: str,
) -> dict:
    """The row of `claims.csv` for a measured estimate.

    `holds` says of every condition of the claim whether it does; each one that does not lowers the verdict by one
    grade. None: it could not be measured, and does not count.

    Raises KeyError for an unknown claim, ValueError for conditions that are not the claim's own.
    """
    if claim_id not in CLAIMS:
        raise KeyError(f"claim {claim_id!r} is unknown; use one of {sorted(CLAIMS)}")
    claim, holds = CLAIMS[claim_id], dict(holds or {})
    if set(holds) != set(claim.conditions):
        raise ValueError(f"claim {claim_id!r} has the conditions {claim.conditions}, got {sorted(holds)}")
    failed = VERDICTS.index(claim.decide(estimate)) + sum(held is False for held in holds.values())
    verdict = VERDICTS[min(failed, 2)]
    return {
        "id": claim.id,
        "notebook": claim.notebook,
        "claim": claim.claim,
        "source": claim.source,
        "paper_value": claim.paper_value,
        "value": f"{estimate.value:.4f}",
        "ci_low": f"{estimate.low:.4f}",
        "ci_high": f"{estimate.high:.4f}",
        "n": str(estimate.n),
        "seeds": seeds,
        "profile": profile,
        "model": model,
        "dataset": dataset,
        "verdict": verdict,
        "rule": claim.rule,
        "conditions": "; ".join(f"{name}: {_HELD[holds[name]]}" for name in claim.conditions),
    }


def read_claims(folder: Path) -> list[dict]:
    """The rows of a folder's `claims.csv`; none if there is no such file."""
    if not (folder / "claims.csv").exists():
        return []
    with (folder / "claims.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def record_claims(rows: list[dict], folder: str | Path, replacing: str = "") -> pd.DataFrame:
    """Put rows into `claims.csv`, in place of earlier rows of the same id, and write `claims.md` from it.

    `replacing` names a notebook whose earlier rows go, whatever their id. Safe when several notebooks do it at once.
    Returns the rows given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".claims.lock"):
        table = {row["id"]: row for row in read_claims(folder) if row["notebook"] != replacing}
        table.update((row["id"], row) for row in rows)
        ordered = sorted(table.values(), key=lambda row: (row["notebook"], row["id"]))
        files.publish(
            folder / "claims.csv", pd.DataFrame(ordered, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
        )
        files.publish(folder / "claims.md", _markdown(ordered))
    return pd.DataFrame(rows, columns=COLUMNS)


def _markdown(rows: list[dict]) -> str:
    lines = [
        "# Claims",
        "",
        "Made from `claims.csv`; the rules are code, in `calib_utils/claims.py`.",
        "",
        "| claim | paper | measured (95 % interval) | n | model, data | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['claim']} ({row['source']}) | {row['paper_value']} "
        f"| {row['value']} [{row['ci_low']}, {row['ci_high']}] "
        f"| {row['n']} | {row['model']}, {row['dataset']}, profile {row['profile']}, seeds {row['seeds']} "
        f"| **{row['verdict']}**: {row['rule']}{_conditions(row)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _conditions(row: dict) -> str:
    return f" ({row['conditions']})" if row.get("conditions") else ""

"""Claims: what a paper says, the rule fixed before the run, and the verdict the numbers give."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from calib_utils.metrics import Estimate

COLUMNS = tuple(
    "id notebook claim source paper_value value ci_low ci_high n seeds profile model dataset verdict rule".split()
)
VERDICTS = ("reproduced", "partly", "not reproduced")


@dataclass(frozen=True)
class Claim:
    """A published statement and how its verdict is decided.

    `rule` says in words what `decide` does with the measured estimate.
    """

    id: str
    notebook: str
    claim: str
    source: str
    paper_value: str
    rule: str
    decide: Callable[[Estimate], str]


def at_most(limit: float) -> Callable[[Estimate], str]:
    """reproduced: value <= limit; partly: only the lower end of the interval is; else not reproduced."""

    def decide(estimate: Estimate) -> str:
        if estimate.value <= limit:
            return "reproduced"
        return "partly" if estimate.low <= limit else "not reproduced"

    return decide


_AT_MOST_005 = (
    "reproduced if smECE <= 0.05 (the largest base-model figure quoted is 0.047); "
    "partly if only the 95 % interval reaches 0.05"
)
_PAPER_A = "Trained on Tokens, Calibrated on Concepts (arXiv 2511.04869)"

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
    )
}


def claim_row(claim_id: str, estimate: Estimate, *, seeds: str, profile: str, model: str, dataset: str) -> dict:
    """The row of `claims.csv` for a measured estimate; raises KeyError with the known ids."""
    if claim_id not in CLAIMS:
        raise KeyError(f"claim {claim_id!r} is unknown; use one of {sorted(CLAIMS)}")
    claim = CLAIMS[claim_id]
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
        "verdict": claim.decide(estimate),
        "rule": claim.rule,
    }


def record_claims(rows: list[dict], folder: str | Path) -> pd.DataFrame:
    """Put rows into `claims.csv`, in place of earlier rows of the same id, and write `claims.md` from it.

    Safe when several notebooks do it at once. Returns the rows given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".claims.lock"):
        path = folder / "claims.csv"
        table = {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as stream:
                table = {row["id"]: row for row in csv.DictReader(stream)}
        table.update((row["id"], row) for row in rows)
        ordered = sorted(table.values(), key=lambda row: (row["notebook"], row["id"]))
        _replace(path, pd.DataFrame(ordered, columns=COLUMNS).to_csv(index=False, lineterminator="\n"))
        _replace(folder / "claims.md", _markdown(ordered))
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
        f"| **{row['verdict']}**: {row['rule']} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)

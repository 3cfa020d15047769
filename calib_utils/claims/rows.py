"""Rows: the table of claims, the row of an estimate, and the files that hold the rows."""

from __future__ import annotations

import csv
import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from filelock import FileLock

from calib_utils import home, storage
from calib_utils.claims.findings import MODULES
from calib_utils.claims.rules import KINDS, VERDICTS, Claim, answers, n_that_decides, verdict
from calib_utils.types import Estimate

CLAIMS = {claim.id: claim for module in MODULES for claim in module.CLAIMS}
COLUMNS = tuple(
    "id notebook kind claim quote source paper_value faithful where quantity side limit margin paper_low paper_high "
    "value ci_low ci_high plug_in floor n n_decides seeds profile model dataset verdict rule conditions rule_commit "
    "run".split()
)
NUMBERS = tuple(
    "limit margin paper_low paper_high value ci_low ci_high plug_in floor n n_decides".split()
)  # every other column is text
OF_A_RUN = ("rule_commit", "run")  # commits: they tell where a row comes from, and are no result
SHOWN = "id kind value ci_low ci_high plug_in floor n verdict n_decides conditions rule".split()  # in a notebook
FILES = ("claims.csv", "claims.md")
_DIRTY = "+"  # behind a commit: what ran, or the rule, was changed since


def claim_row(
    claim_id: str,
    estimate: Estimate,
    given: Mapping[str, Estimate | bool | None] | None = None,
    *,
    seeds: str,
    profile: str,
    model: str,
    dataset: str,
) -> dict[str, str]:
    """The row of `claims.csv` for a measured estimate.

    `given` holds, for every condition of the claim, the estimate that decides it, or True, False for a condition
    without a test; None: it could not be measured, and does not count.

    Raises KeyError for an unknown claim, ValueError for conditions that are not the claim's own, TypeError for a
    condition that is given as what it is not.
    """
    if claim_id not in CLAIMS:
        raise KeyError(f"claim {claim_id!r} is unknown; use one of {sorted(CLAIMS)}")
    claim, given = CLAIMS[claim_id], dict(given or {})
    answered = answers(claim, given)
    found = verdict(claim, estimate, answered)
    needed = n_that_decides(claim, estimate, given) if found == "undecided" else None
    return {
        "id": claim.id,
        "notebook": claim.notebook,
        "kind": claim.kind,
        "claim": claim.claim,
        "quote": claim.quote,
        "source": claim.source,
        "paper_value": claim.paper_value,
        "faithful": claim.faithful,
        "where": claim.where,
        "quantity": claim.rule.quantity,
        "side": claim.rule.side,
        "limit": f"{claim.rule.limit:g}",
        "margin": f"{claim.rule.margin:g}",
        "paper_low": _text(claim.paper_low),
        "paper_high": _text(claim.paper_high),
        "value": _text(estimate.value),
        "ci_low": _text(estimate.low),
        "ci_high": _text(estimate.high),
        "plug_in": _text(estimate.plug_in),
        "floor": _text(estimate.floor),
        "n": str(estimate.n),
        "n_decides": "" if needed is None else str(needed),
        "seeds": seeds,
        "profile": profile,
        "model": model,
        "dataset": dataset,
        "verdict": found,
        "rule": claim.rule_in_words(),
        "conditions": "; ".join(f"{name}: {answer}" for name, answer in answered.items()),
        "rule_commit": rule_commit(claim),
        "run": run_commit(),
    }


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def rule_commit(claim: Claim) -> str:
    """The last commit that touched the claim's rule: its file, or that of `Effect` and `Bound`.

    With a + behind it where the files differ from that commit; empty for an installed wheel, which has no history.
    """
    (module,) = (module for module in MODULES if claim in module.CLAIMS)
    return _last_commit(Path(module.__file__).name)


@functools.cache
def _last_commit(name: str) -> str:
    if (clone := home.checkout()) is None:
        return ""
    folder = Path(__file__).parent.relative_to(clone)
    paths = [str(folder / name), str(folder / "rules.py")]
    commit = home.git("log", "-1", "--format=%h", "--", *paths) or ""
    return commit + _DIRTY if commit and home.git("status", "--porcelain", "--", *paths) else commit


def run_commit() -> str:
    """The commit of the code that runs (`home.of_code`), a + behind it if something was changed since."""
    code = home.of_code()
    return f"{code['commit'][:7]}{_DIRTY if code['dirty'] else ''}" if code["commit"] else ""


def read_claims(folder: Path) -> list[dict]:
    """The rows of a folder's `claims.csv`; none if there is no such file."""
    if not (folder / "claims.csv").exists():
        return []
    with (folder / "claims.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def as_table(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Rows as a table of `COLUMNS`: numbers (NaN for none) and text, which a commit of digits is too."""
    table = pd.DataFrame(rows, columns=COLUMNS).fillna("")
    return table.assign(**{name: pd.to_numeric(table[name], errors="raise") for name in NUMBERS})


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
        storage.publish(
            folder / "claims.csv", pd.DataFrame(ordered, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
        )
        storage.publish(folder / "claims.md", _markdown(ordered))
    return pd.DataFrame(rows, columns=COLUMNS)


def legend() -> str:
    """What the verdicts mean, as a Markdown table."""
    meanings = {
        "reproduced": "the 95 % interval lies on the claim's side, and every condition holds",
        "partly": "so, but the effect is below the margin or the paper's smallest figure, or a condition fails",
        "refuted": "the interval excludes the claim: an effect as large as its margin, or its tolerance",
        "undecided": "neither; the row says how many questions would decide, at 80 % power at the claim's margin",
    }
    lines = [f"| **{name}** | {meanings[name]} |" for name in VERDICTS]
    return "\n".join(["| verdict | when |", "| --- | --- |", *lines])


def _markdown(rows: list[dict]) -> str:
    about = (
        "Made from `claims.csv`; the rules are code, in `calib_utils/claims/`. *Rule* and *run* name commits: the "
        "last that touched the rule, and that of the run."
    )
    return "\n".join(["# Claims", "", about, "", legend(), "", tables(rows)]) + "\n"


_TITLES = {"paper": "Claims of the papers", "extension": "Extensions of this project"}


def tables(rows: Iterable[Mapping]) -> str:
    """A Markdown table of the rows of every kind, each with its count of verdicts."""
    rows = list(rows)
    kinds = [*KINDS, *sorted({row.get("kind") or "" for row in rows} - set(KINDS))]
    return "\n\n".join(_table(kind, found) for kind in kinds if (found := _of_kind(rows, kind)))


def _of_kind(rows: list[Mapping], kind: str) -> list[Mapping]:
    return [row for row in rows if (row.get("kind") or "") == kind]


def _table(kind: str, rows: list[Mapping]) -> str:
    counted = Counter(row["verdict"] for row in rows)
    known = [name for name in VERDICTS if counted[name]]
    told = ", ".join(f"{counted[name]} {name}" for name in [*known, *sorted(counted.keys() - set(VERDICTS))])
    lines = [
        f"## {_TITLES.get(kind, 'Of earlier runs')}",
        "",
        f"{len(rows)} in all: {told}.",
        "",
        "| claim | paper | setting | measured (95 % interval) | model, data | verdict and rule | rule, run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(lines + [_line(row) for row in rows])


def _line(row: Mapping) -> str:
    def told(name: str, form: str = "{}") -> str:
        value = row.get(name)
        return "" if value is None or value == "" or value != value else form.format(value)

    measured = f"{row['value']} [{row['ci_low']}, {row['ci_high']}], n = {row['n']}"
    measured += told("plug_in", "; plug-in {}") + told("floor", "; noise floor {}")
    decided = told("n_decides", "; about {} questions would decide")
    cells = (
        f"**{row['claim']}**" + told("quote", ". {}"),
        f"{told('paper_value')} ({row['source']})",
        told("faithful"),
        measured,
        f"{row['model']}, {row['dataset']}, profile {row['profile']}, seeds {row['seeds']}",
        f"**{row['verdict']}**{decided}. {row['rule']}" + told("conditions", " ({})"),
        f"{told('rule_commit')}, {told('run')}".strip(", "),
    )
    return f"| {' | '.join(cells)} |"

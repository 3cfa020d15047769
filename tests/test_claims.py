import csv
import re

import pandas as pd
import pytest

from calib_utils.claims import CLAIMS, COLUMNS, VERDICTS, above, at_least, at_most, below, claim_row, record_claims
from calib_utils.home import ROOT
from calib_utils.types import Estimate

ABOUT = {"seeds": "0", "profile": "cpu", "model": "m", "dataset": "d"}


@pytest.mark.parametrize(
    "value, low, verdict",
    [(0.03, 0.01, "reproduced"), (0.05, 0.04, "reproduced"), (0.06, 0.04, "partly"), (0.09, 0.06, "not reproduced")],
)
def test_at_most(value, low, verdict):
    assert at_most(0.05)(Estimate(value, low, 0.2, 100)) == verdict


@pytest.mark.parametrize("claim_id", sorted(CLAIMS))
def test_every_claim_has_a_rule_that_decides(claim_id):
    met = dict.fromkeys(CLAIMS[claim_id].conditions, True)
    rows = [claim_row(claim_id, Estimate(v, v - 0.02, v + 0.02, 480), met, **ABOUT) for v in (-0.9, 0.0, 0.06, 0.9)]
    assert {row["verdict"] for row in rows} <= set(VERDICTS) and len({row["verdict"] for row in rows}) > 1
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["rule"] and rows[0]["paper_value"] and rows[0]["source"]


@pytest.mark.parametrize("low, value, verdict", [(0.1, 0.2, "reproduced"), (-0.1, 0.1, "partly"), (0.0, 0.0, None)])
def test_above(low, value, verdict):
    assert above(0.0)(Estimate(value, low, 0.3, 100)) == (verdict or "not reproduced")


@pytest.mark.parametrize(
    "low, value, verdict",
    [(0.01, 0.03, "reproduced"), (0.01, 0.02, "partly"), (-0.01, 0.03, "partly"), (-0.1, -0.01, "not reproduced")],
)
def test_at_least(low, value, verdict):
    assert at_least(0.025)(Estimate(value, low, 0.2, 100)) == verdict


def test_an_unknown_claim_is_an_error():
    with pytest.raises(KeyError, match="base-concise"):
        claim_row("base-verse", Estimate(0, 0, 0, 1), **ABOUT)


def test_each_condition_that_fails_lowers_the_verdict():
    clear = Estimate(0.2, 0.1, 0.3, 9)
    conditions = CLAIMS["dpo-breaks"].conditions
    assert claim_row("dpo-breaks", clear, dict.fromkeys(conditions, True), **ABOUT)["verdict"] == "reproduced"
    row = claim_row("dpo-breaks", clear, {conditions[0]: True, conditions[1]: False}, **ABOUT)
    assert row["verdict"] == "partly" and f"{conditions[1]}: no" in row["conditions"]
    assert (
        claim_row("dpo-breaks", Estimate(-0.1, -0.2, 0.1, 9), dict.fromkeys(conditions, True), **ABOUT)["verdict"]
        == "not reproduced"
    )
    assert claim_row("dpo-breaks", clear, dict.fromkeys(conditions, False), **ABOUT)["verdict"] == "not reproduced"
    unclear = Estimate(0.05, -0.1, 0.2, 9)
    row = claim_row("dpo-breaks", unclear, {conditions[0]: True, conditions[1]: False}, **ABOUT)
    assert row["verdict"] == "not reproduced"
    with pytest.raises(ValueError, match="has the conditions"):
        claim_row("dpo-breaks", clear, **ABOUT)


def test_a_condition_that_was_not_measured_does_not_count():
    clear, other = Estimate(0.2, 0.1, 0.3, 9), {"next token": True, "multiple choice": True}
    row = claim_row("lifecycle-scale", clear, {**other, "new entities": None}, **ABOUT)
    assert row["verdict"] == "reproduced" and row["conditions"].endswith("new entities: not measured")
    assert claim_row("lifecycle-scale", clear, {**other, "new entities": False}, **ABOUT)["verdict"] == "partly"


def read(folder):
    with (folder / "claims.csv").open(encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def test_rows_replace_their_own_kind_and_leave_the_others(tmp_path):
    record_claims(
        [claim_row(i, Estimate(0.2, 0.1, 0.3, 9), **ABOUT) for i in ("base-concise", "base-sentence")], tmp_path
    )
    record_claims([claim_row("base-concise", Estimate(0.04, 0.0, 0.1, 480), **ABOUT)], tmp_path)
    rows = read(tmp_path)
    assert rows["base-concise"]["verdict"] == "reproduced" and rows["base-sentence"]["verdict"] == "not reproduced"
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "0.0400 [0.0000, 0.1000]" in text and text.count("| **") == 2


def test_below_is_above_mirrored():
    for low, value, high in ((0.1, 0.2, 0.3), (-0.1, 0.2, 0.3), (-0.3, -0.2, 0.1)):
        mirrored = Estimate(-value, -high, -low, 100)
        assert below(0.0)(mirrored) == above(0.0)(Estimate(value, low, high, 100))


def test_the_readme_counts_the_shipped_claims():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (told,) = re.findall(r"of (\d+) claims (\d+) are reproduced, (\d+) partly, (\d+) not", text)
    verdicts = pd.read_csv(ROOT / "figures" / "claims.csv")["verdict"]
    assert list(map(int, told)) == [len(verdicts), *((verdicts == verdict).sum() for verdict in VERDICTS)]

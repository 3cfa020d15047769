"""What a notebook writes and says: names of files, verdicts with their one condition, sentences."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from calib_utils import claims
from calib_utils.studies import CattoStudy, LineageStudy, RepairStudy, WorldStudy
from calib_utils.types import Estimate

MOVED, INFORMED = Estimate(0.01, -0.01, 0.02, 100), Estimate(0.9, 0.8, 0.95, 100)


def test_files_carry_the_number_of_the_notebook(tmp_path):
    run, table = LineageStudy(figures=str(tmp_path)), pd.DataFrame({"a": [1.5]})
    figure, _ = plt.subplots()
    run.save(figure, "lineage", table)
    run.save_table(table, "seeds")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["02_lineage.csv", "02_lineage.png", "02_seeds.csv"]
    assert (tmp_path / "02_seeds.csv").read_text() == "a\n1.5\n"


def test_scores_are_kept_for_every_training_seed_and_without_other_columns(tmp_path):
    table = pd.DataFrame({"question_id": ["q"], "entity": ["e"], "confidence": [0.5], "correct": [1], "more": [0]})
    LineageStudy(figures=str(tmp_path)).save_scores({"base": table, "DPO": [table, table]})
    kept = pd.read_csv(tmp_path / "02_scores.csv")
    assert list(kept["model"]) == ["base", "DPO", "DPO"]
    assert list(kept) == ["model", "question_id", "entity", "confidence", "correct"]


def test_the_one_condition_of_a_claim_needs_no_name():
    run = LineageStudy()
    row = run.claim("sft-keeps", MOVED, INFORMED)
    assert row == claims.claim_row("sft-keeps", MOVED, {claims.INFORMATIVE: INFORMED}, **run.about)
    assert run.claim("sft-keeps", MOVED, {claims.INFORMATIVE: INFORMED}) == row
    assert run.claim("released-aligned", MOVED, model="other", seeds="7")["model"] == "other"


def test_conditions_that_are_missing_or_not_the_claims_are_refused():
    run = LineageStudy()
    with pytest.raises(ValueError, match=r"has the conditions \['.+'\], got \[\]"):
        run.claim("sft-keeps", MOVED)
    with pytest.raises(ValueError, match=r"has the conditions \[\], got \[''\]"):
        run.claim("released-aligned", MOVED, INFORMED)
    with pytest.raises(ValueError, match="has the conditions"):  # of several every one is named
        run.claim("lifecycle-scale", MOVED, MOVED)
    with pytest.raises(KeyError, match="'nothing' is unknown"):
        run.claim("nothing", MOVED, INFORMED)


def test_a_row_says_what_its_run_was_given():
    assert LineageStudy(train_seeds=[1, 2]).about == {
        "profile": "cpu", "model": "gemma-3-270m", "dataset": "facts", "seeds": "1 2"
    }  # fmt: skip
    assert CattoStudy(train_seeds=[1, 2], sft_seeds=[0, 0]).about["seeds"] == "1 2 (SFT 0 0)"
    assert RepairStudy(aligned="mine/own").about["model"] == "mine/own"
    assert WorldStudy(width=32).about["model"] == "width 32"


def test_rows_are_recorded_and_told_with_the_order_of_the_models(tmp_path):
    run = LineageStudy(figures=str(tmp_path))
    rows = [run.claim("released-aligned", INFORMED)]
    shown = run.record(rows)
    assert list(shown.columns) == claims.SHOWN and claims.read_claims(tmp_path) == rows
    estimates = [
        {"model": m, "metric": "smece", "value": v, "low": v, "high": v, "n": 9} for m, v in (("a", 0.2), ("b", 0.1))
    ]
    table = pd.DataFrame(estimates)
    text = run.findings(rows, (table, "model", {"smece": "smECE"})).data
    assert rows[0]["verdict"] in text and "**smECE** (n = 9): lowest for b" in text
    assert run.orders((table, "model", {"smece": "smECE"})).data == text.splitlines()[-1]


def test_what_was_tried_is_saved_whole_and_shown_where_it_was_chosen(tmp_path):
    run = LineageStudy(figures=str(tmp_path))
    every, kept = run.tried(chosen=False), run.tried()
    assert len(pd.read_csv(tmp_path / "02_search.csv")) == len(every) > len(kept) > 0 and kept["chosen"].all()


def test_claims_are_known_by_name():
    assert LineageStudy().has_claim("sft-keeps") and not LineageStudy().has_claim("sft-breaks")

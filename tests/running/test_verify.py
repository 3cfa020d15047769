import pandas as pd
import pytest

from calib_utils.claims import COLUMNS, INFORMATIVE, OF_A_RUN, claim_row, record_claims
from calib_utils.running import verify
from calib_utils.types import Estimate

INFORMED = {INFORMATIVE: Estimate(0.8, 0.7, 0.9, 90)}
ABOUT = {"seeds": "0", "profile": "cpu", "model": "m", "dataset": "d"}
NAME = "01_base_semantic_calibration"


@pytest.fixture
def folders(tmp_path):
    for name in ("committed", "again"):
        folder = tmp_path / name
        record_claims([claim_row("base-concise", Estimate(0.04, 0.01, 0.07, 90), INFORMED, **ABOUT)], folder)
        table = pd.DataFrame(
            {"model": ["a", "b"], "value": [0.25, 0.5], "seconds": [100.0, 200.0], "low": [0.1, None]}
        )
        table.to_csv(folder / "01_overview.csv", index=False)
    return tmp_path / "committed", tmp_path / "again"


def change(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("exact", [True, False])
def test_the_same_numbers_pass(folders, exact):
    table = verify.compare_folders(*folders, NAME, exact)
    assert table["passed"].all() and set(table["file"]) == {"01_overview.csv", "claims.csv"}


def test_a_changed_number_is_found_with_what_was_expected(folders):
    change(folders[1], "01_overview.csv", "0.25", "0.2501")
    found = verify.compare_folders(*folders, NAME, True)
    (row,) = found[~found["passed"]].itertuples()
    assert (row.file, row.what, row.expected, row.obtained) == ("01_overview.csv", "value, row 0", 0.25, 0.2501)
    assert verify.compare_folders(*folders, NAME, False)["passed"].all()  # another device may differ by this much
    change(folders[1], "01_overview.csv", "0.2501", "0.31")
    assert not verify.compare_folders(*folders, NAME, False)["passed"].all()


def test_the_tolerance_of_a_claim_is_its_interval(folders):
    change(folders[1], "claims.csv", "0.0400", "0.0690")  # of 0.04 [0.01, 0.07]
    assert not verify.compare_folders(*folders, NAME, True)["passed"].all()
    assert verify.compare_folders(*folders, NAME, False)["passed"].all()
    change(folders[1], "claims.csv", "0.0690", "0.0710")
    assert not verify.compare_folders(*folders, NAME, False)["passed"].all()
    change(folders[1], "claims.csv", "0.0710", "0.0400")
    change(folders[1], "claims.csv", ",undecided,", ",partly,")
    found = verify.compare_folders(*folders, NAME, False)
    assert found["passed"].all() and list(found[found["tolerance"].isna()]["obtained"]) == ["partly"]
    found = verify.compare_folders(*folders, NAME, True)
    assert "verdict, row 0" in set(found[~found["passed"]]["what"])


def test_missing_files_rows_and_numbers_fail(folders):
    change(folders[1], "01_overview.csv", "0.5,", ",")
    found = verify.compare_folders(*folders, NAME, False)
    assert set(found[~found["passed"]]["what"]) == {"value, row 1"}
    change(folders[1], "01_overview.csv", "a,0.25,100.0,0.1\n", "")
    found = verify.compare_folders(*folders, NAME, False)
    assert set(found[~found["passed"]]["what"]) == {"shape"}
    (folders[1] / "01_overview.csv").unlink()
    found = verify.compare_folders(*folders, NAME, False)
    assert found[~found["passed"]].iloc[0]["obtained"] == "missing"


def test_seeds_are_names_and_every_table_counts(folders):
    several = claim_row("confidence-at-k", Estimate(0.04, 0.01, 0.07, 90), **{**ABOUT, "seeds": "0 1"})
    record_claims([several], folders[0])  # only there: a column of "0" alone would be read as numbers
    assert verify.compare_folders(*folders, NAME, True)["passed"].all()
    for folder, value in zip(folders, (0.1, 0.2), strict=True):
        pd.DataFrame({"id": ["a"], "value": [value], "verdict": ["partly"]}).to_csv(folder / "08_claims.csv")
    found = verify.compare_folders(*folders, "08_claims", True)
    assert list(found[~found["passed"]]["what"]) == ["value, row 0"]


def test_what_was_not_made_again_is_missed(folders):
    verify.prepare(*folders, [NAME])
    found = verify.compare_folders(*folders, NAME, True)
    assert list(found["obtained"]) == ["missing", f"(0, {len(COLUMNS) - len(OF_A_RUN)})"]
    verify.prepare(*folders, ["02_rl_degradation"])
    assert (verify.compare_folders(*folders, NAME, True)["obtained"] == "missing").sum() == 1
    assert verify.compare_folders(*folders, "08_claims", True).empty  # a notebook without claims or tables
    (folders[1] / "01_new.csv").write_text("a\n1\n")
    found = verify.compare_folders(*folders, NAME, True)
    assert list(found[found["file"] == "01_new.csv"]["expected"]) == ["missing"]


def test_the_device_class_decides_what_is_promised():
    about = {"device": "cpu", "models": [{"model": "m", "dtype": "bfloat16"}], "versions": {"torch": "2", "trl": "1"}}
    assert verify.same_class(about, {**about, "versions": {"torch": "2", "trl": "2"}})
    assert not verify.same_class(about, {**about, "device": "NVIDIA"})
    assert not verify.same_class(about, {**about, "models": [{"model": "m", "dtype": "float32"}]})
    assert not verify.same_class(about, {**about, "versions": {"torch": "3"}})
    assert not verify.same_class(about, {**about, "threads": 64})
    more = [{"model": "m", "dtype": "float32"}, {"model": "trained", "dtype": "float32"}]  # while training
    assert verify.same_class({**about, "models": [*more, *about["models"]]}, about)
    assert verify.same_class(about, {**about, "models": [*about["models"], *more]})

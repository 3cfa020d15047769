"""The overview reads what the notebooks wrote, or says that there is nothing."""

import pytest

from calib_utils import claims, plots
from calib_utils.errors import CalibError
from calib_utils.home import ROOT
from calib_utils.studies import ClaimsStudy

RUN = ClaimsStudy(figures="figures")


def test_a_folder_without_claims_is_an_error(tmp_path):
    with pytest.raises(CalibError, match=r"there are no claims in .*claims\.csv; run the other notebooks first"):
        ClaimsStudy(figures=str(tmp_path)).rows()


def test_every_claim_is_counted_listed_and_drawn():
    rows = RUN.rows()
    assert rows == claims.read_claims(ROOT / "figures")
    assert f"{sum(row['kind'] == 'paper' for row in rows)} claims of the papers" in RUN.counts(rows).data
    assert all(f"- {name}: " in RUN.counts(rows).data for name in {row["notebook"] for row in rows})
    assert all(row["claim"] in RUN.tables(rows).data for row in rows)
    table = RUN.intervals(rows)
    assert list(table["id"]) == [row["id"] for row in rows] and set(table["quantity"]) <= {*RUN.quantities, ""}
    shown = [text.get_text() for ax in plots.claims(table, RUN.quantities).axes for text in ax.get_yticklabels()]
    assert len(shown) == len(rows)

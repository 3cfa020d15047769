"""Claims: what a paper says, the rule fixed before the run, and the verdict the numbers give."""

from calib_utils.claims.base import INFORMATIVE, NO_TILT
from calib_utils.claims.catto import BASELINES, CANDIDATES
from calib_utils.claims.chains import UNDERCONFIDENT
from calib_utils.claims.findings import outcome
from calib_utils.claims.lifecycle import TASKS
from calib_utils.claims.repair import BEYOND
from calib_utils.claims.rows import (
    CLAIMS,
    COLUMNS,
    FILES,
    OF_A_RUN,
    SHOWN,
    as_table,
    claim_row,
    legend,
    read_claims,
    record_claims,
    tables,
)
from calib_utils.claims.rules import KINDS, QUANTITIES, VERDICTS, Bound, Claim, Condition, Effect
from calib_utils.claims.tuning import OVERCONFIDENT

__all__ = [
    "BASELINES",
    "BEYOND",
    "Bound",
    "CANDIDATES",
    "CLAIMS",
    "COLUMNS",
    "Claim",
    "Condition",
    "Effect",
    "FILES",
    "INFORMATIVE",
    "KINDS",
    "NO_TILT",
    "OF_A_RUN",
    "OVERCONFIDENT",
    "QUANTITIES",
    "SHOWN",
    "TASKS",
    "UNDERCONFIDENT",
    "VERDICTS",
    "as_table",
    "claim_row",
    "legend",
    "outcome",
    "read_claims",
    "record_claims",
    "tables",
]

"""Claims: verdicts by hand for every kind of rule, what an undecided row says, and the files that hold the rows."""

import ast
import math
import re
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from calib_utils import claims
from calib_utils import metrics as M
from calib_utils.claims import CLAIMS, COLUMNS, KINDS, QUANTITIES, VERDICTS, Bound, Condition, Effect, rows, rules
from calib_utils.home import ROOT
from calib_utils.running import runner
from calib_utils.studies import STUDIES
from calib_utils.types import Estimate

ABOUT = {"seeds": "0", "profile": "cpu", "model": "m", "dataset": "d"}
YES = Estimate(0.9, 0.8, 0.95, 100)  # an AUROC, or a gap, that is clearly there


def row(claim_id, estimate, given=None):
    return claims.claim_row(claim_id, estimate, given, **ABOUT)


def told(claim_id, low, value, high, given=None, n=100):
    return row(claim_id, Estimate(value, low, high, n), given)["verdict"]


OVERCONFIDENT = {claims.OVERCONFIDENT: Estimate(0.1, 0.05, 0.15, 100)}
INFORMATIVE = {claims.INFORMATIVE: YES}


@pytest.mark.parametrize(
    "low, value, high, expected",
    [
        (0.02, 0.06, 0.10, "reproduced"),  # on the claim's side
        (0.01, 0.02, 0.03, "partly"),  # so, but even its upper end is smaller than 0.05
        (-0.02, 0.01, 0.04, "refuted"),  # no gap of 0.05
        (-0.10, -0.06, -0.02, "refuted"),  # the other side
        (-0.02, 0.02, 0.06, "undecided"),  # neither 0 nor 0.05 is excluded
        (0.0, 0.03, 0.06, "undecided"),  # the end is not above 0
        (0.0, 0.02, 0.05, "undecided"),  # nor is the other below 0.05
        (1e-9, 0.03, 0.05, "reproduced"),
        (0.0, 0.0, 0.0, "refuted"),  # the same model twice
        (math.nan, math.nan, math.nan, "undecided"),
    ],
)
def test_a_signed_gap_between_two_models(low, value, high, expected):
    assert told("dpo-breaks", low, value, high, OVERCONFIDENT) == expected
    # "Underconfident" is the mirror image.
    assert told("cot-base", -high, -value, -low) == expected


@pytest.mark.parametrize(
    "low, value, high, expected",
    [
        (0.0, 0.03, 0.049, "reproduced"),
        (0.0, 0.03, 0.05, "undecided"),
        (0.04, 0.06, 0.08, "undecided"),
        (0.05, 0.07, 0.09, "refuted"),
        (0.06, 0.07, 0.09, "refuted"),
    ],
)
def test_calibrated_is_an_error_below_the_tolerance_of_an_informative_confidence(low, value, high, expected):
    assert told("base-concise", low, value, high, INFORMATIVE) == expected
    uninformative = {claims.INFORMATIVE: Estimate(0.5, 0.45, 0.55, 100)}
    open_still = {claims.INFORMATIVE: Estimate(0.6, 0.45, 0.75, 100)}
    lowered = {"reproduced": "partly"}
    assert told("base-concise", low, value, high, uninformative) == lowered.get(expected, expected)
    lowered = {"reproduced": "undecided"}
    assert told("base-concise", low, value, high, open_still) == lowered.get(expected, expected)


def test_a_constant_confidence_is_not_calibrated_whatever_its_error():
    correct = np.tile([1.0, 1.0, 1.0, 0.0], 500)
    constant = np.full(2000, 0.75)
    found = M.evaluate(constant, correct, "smece"), M.evaluate(constant, correct, "auroc")
    assert found[0].high < 0.05
    assert row("base-concise", found[0], {claims.INFORMATIVE: found[1]})["verdict"] == "partly"


@pytest.mark.parametrize(
    "low, value, high, expected",
    [
        (0.05, 0.30, 0.50, "reproduced"),
        (0.09, 0.09, 0.50, "reproduced"),  # as much as the paper's smallest
        (0.01, 0.08, 0.30, "partly"),  # less than that
        (-0.30, -0.10, 0.08, "refuted"),
        (-0.30, 0.05, 0.10, "undecided"),
        (-math.inf, math.nan, 0.5, "undecided"),  # nothing to reduce, perhaps
        (-math.inf, math.nan, -0.1, "refuted"),
    ],
)
def test_a_relative_reduction_against_the_papers_smallest(low, value, high, expected):
    assert told("catto-choices-in", low, value, high) == expected
    if expected != "partly":  # what no paper states has no smallest figure
        assert told("catto-in", low, value, high) == expected


def test_accuracy_is_kept_if_it_falls_by_less_than_a_point():
    assert told("catto-choices-accuracy", -0.009, 0.0, 0.01) == "reproduced"
    assert told("catto-choices-accuracy", -0.03, 0.0, 0.02) == "undecided"
    assert told("catto-choices-accuracy", -0.05, -0.03, -0.01) == "refuted"


@pytest.mark.parametrize(
    "answer, expected",
    [
        (Estimate(0.1, 0.05, 0.15, 9), "reproduced"),
        (Estimate(0.02, 0.01, 0.03, 9), "reproduced"),  # small, and on its side
        (Estimate(0.02, -0.04, 0.08, 9), "undecided"),
        (Estimate(0.0, -0.02, 0.02, 9), "partly"),
        (Estimate(-0.1, -0.2, 0.0, 9), "partly"),
        (None, "reproduced"),  # not measured: does not count
    ],
)
def test_a_condition_that_fails_or_is_open_lowers_what_would_be_reproduced(answer, expected):
    assert told("dpo-breaks", 0.02, 0.06, 0.1, {claims.OVERCONFIDENT: answer}) == expected
    assert told("dpo-breaks", -0.1, -0.06, -0.02, {claims.OVERCONFIDENT: answer}) == "refuted"
    assert told("dpo-breaks", -0.02, 0.06, 0.1, {claims.OVERCONFIDENT: answer}) == "undecided"


def test_a_task_that_is_open_speaks_neither_for_nor_against():
    clear, against = Estimate(0.05, 0.03, 0.07, 240), Estimate(-0.01, -0.03, 0.01, 240)
    unclear = Estimate(0.01, -0.03, 0.05, 240)
    given = dict.fromkeys(claims.TASKS, clear)
    assert row("lifecycle-scale", clear, given)["verdict"] == "reproduced"
    assert row("lifecycle-scale", clear, given | {"next token": unclear})["verdict"] == "reproduced"
    found = row("lifecycle-scale", clear, given | {"next token": against, "multiple choice": None})
    assert found["verdict"] == "partly"
    assert found["conditions"] == "next token: no; facts generation: yes; multiple choice: not measured"
    with pytest.raises(ValueError, match="has the conditions"):
        row("lifecycle-scale", clear, given | {"new entities": clear})


def test_truth_values_are_those_of_python_and_estimates_are_not_truth_values():
    clear = Estimate(0.1, 0.05, 0.15, 9)
    assert row("rcft-against-cft", clear, {claims.BEYOND: True})["verdict"] == "reproduced"
    assert row("rcft-against-cft", clear, {claims.BEYOND: False})["verdict"] == "partly"
    assert row("rcft-against-cft", clear, {claims.BEYOND: None})["conditions"].endswith(": not measured")
    for wrong in (np.bool_(False), 0, 1, "no", clear):
        with pytest.raises(TypeError, match="takes True, False or None"):
            row("rcft-against-cft", clear, {claims.BEYOND: wrong})
    for wrong in (True, np.bool_(True), 0.7):
        with pytest.raises(TypeError, match="is decided from an Estimate"):
            row("dpo-breaks", clear, {claims.OVERCONFIDENT: wrong})


def test_an_unknown_claim_or_condition_is_an_error():
    with pytest.raises(KeyError, match="base-concise"):
        row("base-verse", YES)
    with pytest.raises(ValueError, match="claim 'dpo-breaks' has the conditions"):
        row("dpo-breaks", YES)


def test_the_n_that_decides_is_that_of_eighty_percent_power():
    estimate = Estimate(0.0, -0.0392, 0.0392, 100)  # a standard error of 0.02
    effect = Effect("signed gap", "above", margin=0.02)
    assert rules.n_to_decide(effect, estimate) == math.ceil(
        100 * (1.959964 + 0.841621) ** 2 * (0.0392 / 1.959964 / 0.02) ** 2
    )
    skewed = Estimate(0.01, -0.0592, 0.0192, 100)  # half the width counts
    assert rules.n_to_decide(effect, skewed) == rules.n_to_decide(effect, estimate)
    share = Effect("relative reduction", "above", margin=0.5)
    for found in (Estimate(0.2, -40.0, 0.592, 100), Estimate(0.8, 0.408, 1.0, 100)):  # one side is no measure
        assert rules.n_to_decide(share, found) == math.ceil(100 * (2.801585 * 0.392 / 1.959964 / 0.5) ** 2)
    # An error is cut at 0, which shortens one side.
    assert rules.n_to_decide(Bound("error", "below", 0.05), Estimate(0.01, 0.0, 0.0592, 100)) == math.ceil(
        100 * (2.801585 * 0.0492 / 1.959964 / 0.05) ** 2
    )
    assert rules.n_to_decide(effect, Estimate(0.01, -0.001, 0.021, 100)) == 100  # decided by chance, not by fewer
    assert rules.n_to_decide(effect, Estimate(math.nan, -math.inf, 0.2, 100)) is None


@pytest.mark.parametrize("true, expected", [(0.05, ("reproduced", "partly")), (0.0, ("refuted",))])
def test_at_the_n_that_decides_four_in_five_data_sets_do(true, expected):
    """A paired signed gap with a standard deviation of 0.4 a question, simulated."""
    effect, rng = CLAIMS["released-aligned"].rule, np.random.default_rng(0)
    estimate = M.mean_estimate(0.4 * rng.standard_normal(200))
    n = rules.n_to_decide(effect, estimate)
    assert 400 < n < 620  # 503 for the true standard deviation
    means = true + 0.4 / math.sqrt(n) * rng.standard_normal(4000)
    reach = 1.96 * 0.4 / math.sqrt(n)
    verdicts = [told("released-aligned", mean - reach, mean, mean + reach) for mean in means]
    assert np.isin(verdicts, expected).mean() == pytest.approx(0.8, abs=0.05)


def test_an_undecided_row_says_how_many_questions_would_decide():
    unclear = Estimate(0.02, -0.02, 0.06, 400)
    found = row("dpo-breaks", unclear, {claims.OVERCONFIDENT: YES})
    assert found["verdict"] == "undecided"
    assert int(found["n_decides"]) == rules.n_to_decide(CLAIMS["dpo-breaks"].rule, unclear)
    wide = Estimate(0.05, -0.2, 0.3, 400)  # the condition is open as well, and wants more
    found = row("dpo-breaks", unclear, {claims.OVERCONFIDENT: wide})
    assert int(found["n_decides"]) == rules.n_to_decide(CLAIMS["dpo-breaks"].conditions[0].test, wide)
    assert row("dpo-breaks", Estimate(0.08, 0.02, 0.14, 400), {claims.OVERCONFIDENT: YES})["n_decides"] == ""
    assert row("catto-in", Estimate(math.nan, -math.inf, 0.5, 100))["n_decides"] == ""


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_has_all_its_fields(claim):
    told = (claim.claim, claim.quote, claim.source, claim.paper_value, claim.faithful, claim.measure)
    assert all(len(text) > 10 for text in told[:3]) and all(told)
    assert claim.kind in KINDS and claim.where in rules.PLACES and claim.notebook in STUDIES
    assert claim.rule.quantity in QUANTITIES and claim.rule.side in ("above", "below") and claim.rule.margin > 0
    assert ": " not in claim.measure and claim.rule_in_words().startswith(f"{claim.measure}: reproduced if its 95 %")
    states = claim.quote.startswith(("The paper reports", "The paper proves"))
    assert (claim.kind == "paper") == states or claim.id == "confidence-at-k-dpo"
    assert claim.kind == "extension" or re.search(r"[Kk]ept: .*[Dd]eparts: ", claim.faithful)
    for condition in claim.conditions:
        assert condition.burden in ("shown", "not excluded")
        assert condition.test is None or condition.test.quantity in QUANTITIES
    assert (claim.paper_low is None) == (claim.paper_high is None)
    assert claim.paper_low is None or claim.paper_low <= claim.paper_high


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_rule_can_give_every_verdict(claim):
    given = {condition.name: _held(condition) for condition in claim.conditions}
    limit, size = claim.rule.limit, claim.rule.margin
    points = (-2.0, -0.8, -0.2, 0.2, 0.8, 3.0)
    seen = set()
    for low in points:
        for high in [point for point in points if point > low]:
            estimate = Estimate(limit + size * (low + high) / 2, limit + size * low, limit + size * high, 480)
            found = row(claim.id, estimate, given)
            seen.add(found["verdict"])
            assert (found["verdict"] == "undecided") == bool(found["n_decides"])
            assert tuple(found) == COLUMNS and all(isinstance(value, str) for value in found.values())
    assert {"reproduced", "refuted", "undecided"} <= seen <= set(VERDICTS)
    assert ("partly" in seen) == isinstance(claim.rule, Effect)


def _held(condition):
    if condition.test is None:
        return True
    away = 10 if condition.test.side == "above" else -10
    return Estimate(away, away - 1, away + 1, 9)


def test_every_claim_that_a_model_is_calibrated_asks_for_an_informative_confidence():
    bounds = [claim for claim in CLAIMS.values() if claim.rule.quantity == "error"]
    assert len(bounds) == 4
    for claim in [*bounds, CLAIMS["sft-keeps"]]:
        assert claim.conditions[0].test == Effect("AUROC", "above", margin=0.1, null=0.5)


def test_statements_that_no_paper_makes_are_extensions():
    extensions = {name for name, claim in CLAIMS.items() if claim.kind == "extension"}
    assert {
        "cot-grows",
        "cot-elsewhere",
        "scaling-ece",
        "lifecycle-grpo",
        "lifecycle-memorising",
        "rcft-against-cft",
    } <= extensions
    assert {name for name in CLAIMS if re.fullmatch(r"catto-(baseline-)?(in|out)|catto-accuracy", name)} <= extensions
    assert not {"base-concise", "dpo-breaks", "catto-choices-in", "cft-lowers", "lifecycle-scale"} & extensions


def test_the_markdown_of_conditions_names_what_decides_them():
    assert Condition("beyond").in_words() == "beyond"
    assert CLAIMS["base-concise"].rule_in_words() == (
        "smECE of concise answers to public questions: reproduced if its 95 % interval lies below 0.05, and "
        "confidence is informative (AUROC of confidence: its 95 % interval lies above 0.5); partly if so, but a "
        "condition fails; else refuted if it lies above 0.05; else undecided"
    )
    assert (
        CLAIMS["cot-base"]
        .rule_in_words()
        .endswith(
            "reproduced if its 95 % interval lies below 0; partly if so, but its lower end is above -0.05; else "
            "refuted if its lower end is above -0.05; else undecided"
        )
    )


def test_rows_replace_their_own_kind_and_leave_the_others(tmp_path):
    far = Estimate(0.2, 0.1, 0.3, 9)
    claims.record_claims([row(f"base-{style}", far, INFORMATIVE) for style in ("concise", "sentence")], tmp_path)
    claims.record_claims([row("base-concise", Estimate(0.02, 0.0, 0.04, 480, 0.06, 0.05), INFORMATIVE)], tmp_path)
    found = {one["id"]: one for one in claims.read_claims(tmp_path)}
    assert found["base-concise"]["verdict"] == "reproduced" and found["base-sentence"]["verdict"] == "refuted"
    assert (found["base-concise"]["plug_in"], found["base-concise"]["floor"]) == ("0.0600", "0.0500")
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "0.0200 [0.0000, 0.0400], n = 480; plug-in 0.0600; noise floor 0.0500" in text
    assert claims.legend() in text and text.count("\n| **base") == 0 and text.count("\n| **Base") == 2


def test_claims_of_papers_and_extensions_stand_in_tables_of_their_own(tmp_path):
    gap = Estimate(0.02, -0.02, 0.06, 400)
    found = [
        row("released-aligned", gap),
        row("catto-in", Estimate(0.3, 0.1, 0.5, 9)),
        {**row("cot-base", gap), "kind": ""},
    ]
    papers, extensions, earlier = claims.tables(found).split("\n\n## ")
    assert papers.startswith("## Claims of the papers\n\n1 in all: 1 undecided.\n")
    assert f"about {found[0]['n_decides']} questions would decide" in papers and "catto" not in papers.lower()
    assert extensions.startswith("Extensions of this project\n\n1 in all: 1 reproduced.\n")
    assert earlier.startswith("Of earlier runs")
    claims.record_claims(found, tmp_path)
    assert claims.tables(found[:1]).splitlines()[-1] in (tmp_path / "claims.md").read_text(encoding="utf-8")


def test_a_table_has_numbers_where_there_are_numbers_and_commits_are_text(tmp_path):
    one = {**row("released-aligned", Estimate(0.02, -0.02, 0.06, 400)), "run": "12345e7", "rule_commit": "7654321"}
    claims.record_claims([one, row("catto-in", Estimate(math.nan, -math.inf, 0.5, 100))], tmp_path)
    table = claims.as_table(claims.read_claims(tmp_path))
    assert tuple(table.columns) == COLUMNS and all(
        pd.api.types.is_numeric_dtype(table[name]) for name in rows.NUMBERS
    )
    assert (table["run"][0], table["rule_commit"][0]) == ("12345e7", "7654321")
    assert list(table["ci_low"]) == [-0.02, -math.inf] and math.isnan(table["value"][1])
    old = claims.as_table([{"id": "a", "verdict": "not reproduced", "value": "0.1", "notebook": "01"}])
    assert old["kind"][0] == "" and math.isnan(old["margin"][0]) and old["value"][0] == 0.1


@pytest.fixture
def clone(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    folder = tmp_path / "calib_utils" / "claims"
    folder.mkdir(parents=True)
    for name in ("rules", "base", "catto"):
        (folder / f"{name}.py").write_text("1\n")
    git("init", "-q")
    monkeypatch.setattr(rows.home, "checkout", lambda: tmp_path)
    monkeypatch.setattr(rows, "__file__", str(folder / "rows.py"))
    rows._last_commit.cache_clear()
    yield folder, git
    rows._last_commit.cache_clear()


def test_the_commit_of_a_rule_is_the_last_that_touched_it(clone):
    folder, git = clone
    base, catto = CLAIMS["base-concise"], CLAIMS["catto-in"]
    assert rows.rule_commit(base) == ""  # no history yet
    commits = []
    for name in ("", "catto.py", "rules.py", "notebook.ipynb"):
        if name:
            (folder / name).write_text("2\n")
        git("add", "."), git("commit", "-qm", name or "all")
        commits.append(git("log", "-1", "--format=%h"))
        rows._last_commit.cache_clear()
        told = {"": (0, 0), "catto.py": (0, 1), "rules.py": (2, 2), "notebook.ipynb": (2, 2)}[name]
        assert (rows.rule_commit(base), rows.rule_commit(catto)) == tuple(commits[at] for at in told)
    (folder / "base.py").write_text("not committed\n")
    rows._last_commit.cache_clear()
    assert rows.rule_commit(base) == f"{commits[2]}+" and rows.rule_commit(catto) == commits[2]


def test_a_wheel_has_no_commits_and_no_error(monkeypatch):
    monkeypatch.setattr(rows.home, "checkout", lambda: None)
    monkeypatch.setattr(rows.home, "of_code", lambda: {"commit": None, "dirty": None})
    rows._last_commit.cache_clear()
    found = row("released-aligned", YES)
    rows._last_commit.cache_clear()
    assert (found["rule_commit"], found["run"]) == ("", "")


def test_the_run_is_the_commit_of_the_code(monkeypatch):
    monkeypatch.setattr(rows.home, "of_code", lambda: {"commit": "0123456789abcdef", "dirty": True})
    assert row("released-aligned", YES)["run"] == "0123456+"
    monkeypatch.setattr(rows.home, "of_code", lambda: {"commit": "0123456789abcdef", "dirty": False})
    assert row("released-aligned", YES)["run"] == "0123456"


def test_the_lifecycle_is_decided_on_the_papers_three_tasks():
    for claim in CLAIMS.values():
        if claim.notebook == "06_lifecycle":
            assert tuple(condition.name for condition in claim.conditions) == claims.TASKS


def cells_of_claims():
    for path in runner.find_notebooks():
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and re.search(r"claims\.claim_row\(|run\.claim\(", cell.source):
                yield f"{path.stem}, {cell.id}", cell.source


def test_notebooks_hand_over_estimates_and_hold_no_threshold():
    found = dict(cells_of_claims())
    assert len({where.split(",")[0] for where in found}) == 7
    for where, source in found.items():
        tree = ast.parse(source)
        numbers = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float
        ]
        assert numbers == [], where
        asked = [node.args[0].value for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_row(node)]
        assert all(name in CLAIMS for name in asked), where


def _is_row(node):
    return getattr(node.func, "attr", "") in ("claim_row", "claim") and isinstance(node.args[0], ast.Constant)


def test_claims_load_no_torch():
    program = "import sys; from calib_utils import claims; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

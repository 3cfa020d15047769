"""Sentences of findings come from the rows; notebooks type none."""

import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from calib_utils import claims, plots
from calib_utils.claims import findings
from calib_utils.home import ROOT
from calib_utils.running import cli, runner

NOTEBOOKS = runner.find_notebooks()
TRIED = ("01", "02", "03", "04", "05", "06")
ROW = {
    "claim": "DPO makes the model overconfident",
    "value": "0.0442",
    "ci_low": "0.0110",
    "ci_high": "0.0848",
    "n": "408",
    "seeds": "0 1",
    "profile": "cpu",
    "model": "gemma-3-270m",
    "dataset": "facts",
    "verdict": "reproduced",
    "rule": "smECE minus that of SFT: reproduced if its 95 % interval is above 0; partly if only the value is",
    "conditions": "mean confidence above accuracy: yes; accuracy at most 3 points below SFT: yes",
    "paper_value": "clearly not calibrated",
}
MEASURED = {
    "decimal": r"(?<![\w.])[-+]?\d*\.\d+(?![\d.]*[MB]\b)",  # 0.123, but not the size of a model: 1.4B
    "interval": r"\[-?\d[\d.]*, ",
    "points": r"(?i)\b(\d+|half an?|an?|one|two|three|four|five|six|seven|eight|nine|ten) (percentage )?points?\b",
    "share": r"\b(?!95\b)\d+ ?%",  # intervals and bands are of 95 %
    "verdict": r"\b(not|partly) reproduced\b|\bReproduced\b|\b[Rr]efuted\b",
}
NAMES = (r"arXiv \d{4}\.\d{5}", r"`[^`]*`", r"\]\([^)]*\)")  # papers, code, links


def typed(text):
    """What in a Markdown text looks like a measurement or a verdict."""
    for name in NAMES:
        text = re.sub(name, "", text)
    return [found.group() for pattern in MEASURED.values() for found in re.finditer(pattern, text)]


@pytest.mark.parametrize(
    "text, found",
    [
        ("smECE rises by 0.044", ["0.044"]),
        ("between -0.1 and 0.1.", ["-0.1", "0.1"]),
        ("falls by three points", ["three points"]),
        ("right in 84 % of the cases", ["84 %"]),
        ("Not so: partly reproduced", ["partly reproduced"]),
        ("a 95 % band of Pythia-1.4B (arXiv 2511.04869), `lr=0.1`, notebook 02, 10 bins", []),
    ],
)
def test_what_counts_as_typed(text, found):
    assert typed(text) == found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_text_of_a_notebook_holds_a_measurement_or_a_verdict(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    assert {cell.id: typed(cell.source) for cell in cells if typed(cell.source)} == {}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_shows_what_its_own_rows_say(path):
    sources = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    if path.stem == "00_quickstart":  # shows the rows of others
        assert any("findings():" in source for source in sources)
        return
    if path.stem == "08_claims":
        shown, recorded = r"run\.counts\(rows\)", r"run\.rows\(\)"
    else:
        shown, recorded = (
            r"run\.findings\(rows|display\(Markdown\(summary\(rows\)\)\)",
            r"run\.record\(|record_claims",
        )
    (said,) = [i for i, source in enumerate(sources) if re.search(shown, source)]
    assert max(i for i, source in enumerate(sources) if re.search(recorded, source)) <= said
    assert len(sources[said].splitlines()) <= 8


def test_a_reproduced_claim():
    assert findings.summary([ROW]) == (
        "1 claim: 1 reproduced. Profile cpu, model gemma-3-270m, data facts.\n"
        "\n"
        "- **DPO makes the model overconfident** - reproduced: 0.044 [0.011, 0.085] for smECE minus that of SFT "
        "(n = 408, seeds 0 1). The paper: clearly not calibrated."
    )


def sentence(**changed):
    return findings.summary([ROW | changed]).splitlines()[-1]


def test_conditions_that_do_not_hold_are_named():
    one = sentence(verdict="partly", conditions="overconfident: yes; accuracy at most 3 points below SFT: no")
    assert "overconfident** - partly reproduced: 0.044 [0.011, 0.085] for" in one
    assert '(n = 408, seeds 0 1). The condition "accuracy at most 3 points below SFT" does not hold. The paper' in one
    several = sentence(conditions="next token: no; multiple choice: no; new entities: not measured")
    assert (
        '. The conditions "next token" and "multiple choice" do not hold. The condition "new entities" is not '
        in several
    )
    three = sentence(conditions="a: no; b: no; c: no; d: not measured; e: not measured")
    assert 'The conditions "a", "b" and "c" do not hold. The conditions "d" and "e" are not measured. The' in three
    assert "condition" not in sentence(conditions="next token: yes") + sentence(conditions="")


def test_negative_and_tiny_values():
    assert ": -0.089 [-0.163, -0.013] for" in sentence(value=-0.0891, ci_low=-0.1631, ci_high=-0.0132)
    assert ": 0.000 [0.000, 0.020] for" in sentence(value=-0.0004, ci_low="-0.0001", ci_high="0.0200")


@pytest.mark.parametrize("empty", [None, "", float("nan")])
def test_fields_that_are_empty_or_missing_are_left_out(empty):
    least = {"claim": "C", "verdict": "undecided", "value": 0.25}
    row = least | {name: empty for name in [*set(ROW) - set(least), "quantity", "kind", "n_decides"]}
    for found in (least, row):
        assert findings.summary([found]) == "1 claim: 1 undecided.\n\n- **C** - undecided: 0.250."


def test_columns_that_rows_may_have():
    row = ROW | {
        "verdict": "undecided",
        "quantity": "signed gap, DPO minus SFT",
        "n_decides": 1250.0,
        "kind": "paper",
    }
    assert findings.summary([row]).splitlines()[-1] == (
        "- **DPO makes the model overconfident** - undecided: 0.044 [0.011, 0.085] for smECE minus that of SFT "
        "(n = 408, seeds 0 1). About 1,250 questions would decide it. The paper: clearly not calibrated."
    )
    rows = [row, row | {"verdict": "refuted"}, row | {"verdict": "refuted"}, row | {"kind": "extension"}]
    told = "3 claims of the papers: 2 refuted, 1 undecided; 1 extension: 1 undecided"
    assert findings.counts(rows) == findings.counts(rows[::-1]) == f"{told}."
    assert findings.counts([row]) == "1 claim of the papers: 1 undecided."


def test_the_headline_counts_the_verdicts_of_each_finding_of_the_papers():
    held = ROW | {"kind": "paper", "notebook": "02_rl_degradation"}
    first = held | {"notebook": "01_base_semantic_calibration", "model": "other", "verdict": "undecided"}
    rows = [held, first, held | {"verdict": "partly"}, held | {"claim": "ours", "kind": "extension"}]
    assert findings.headline(rows) == (
        "**The papers' claims, measured on gemma-3-270m and other: base models are calibrated on the meaning "
        "of their answers (1 undecided); preference and RL tuning break that (1 reproduced, 1 partly reproduced); "
        "beside them 1 extension: 1 reproduced.**"
    )
    with pytest.raises(ValueError, match="there are no claim rows"):
        findings.headline([])


def test_every_notebook_with_claims_has_a_finding_of_its_own():
    assert len({module.FINDING for module in findings.MODULES}) == len(findings.MODULES)
    assert {claim.notebook for claim in claims.CLAIMS.values()} == {module.NOTEBOOK for module in findings.MODULES}


def test_an_outcome_names_the_claims_of_each_verdict():
    rows = [ROW | {"kind": "paper", "claim": "A"}, ROW | {"kind": "paper", "claim": "B", "verdict": "partly"}]
    said = findings.outcome([*rows, ROW | {"kind": "paper", "claim": "C"}])
    assert said == (
        "3 claims of the papers: 2 reproduced, 1 partly reproduced. *Reproduced*: A; C. *Partly reproduced*: B."
    )


def test_the_readme_says_what_the_table_does():
    text, rows = (ROOT / "README.md").read_text(encoding="utf-8"), claims.read_claims(ROOT / "figures")
    assert findings.with_headline(text, rows) == text, "run `python -m calib_utils readme`"
    assert findings.headline(rows) in text.split("## What it finds")[0]


def test_the_command_writes_the_headline_between_its_markers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert cli.main(["readme"]) == 2
    assert "claims.csv is missing or empty; run in a clone" in capsys.readouterr().err
    (tmp_path / "figures").mkdir()
    row = ROW | {"kind": "paper", "notebook": "02_rl_degradation"}
    pd.DataFrame([row]).to_csv(tmp_path / "figures" / "claims.csv", index=False)
    (tmp_path / "README.md").write_text("# A\n<!-- headline -->\nbefore\n<!-- /headline -->\nb\n", encoding="utf-8")
    assert cli.main(["readme"]) == 0
    said = "**The papers' claims, measured on gemma-3-270m: preference and RL tuning break that (1 reproduced).**"
    assert capsys.readouterr().out == f"{said}\n"
    written = f"# A\n<!-- headline -->\n{said}\n<!-- /headline -->\nb\n"
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == written
    (tmp_path / "README.md").write_text("# A\n", encoding="utf-8")
    assert cli.main(["readme"]) == 2 and "no place for the headline" in capsys.readouterr().err


def test_an_error_stands_beside_its_plug_in_value_and_noise_floor():
    error = sentence(plug_in="0.0612", floor="0.0523", rule="smECE of DPO: reproduced if it is low")
    assert "reproduced: 0.044 [0.011, 0.085] for smECE of DPO, plug in 0.061, noise floor 0.052 (n = 408" in error
    assert "floor" not in sentence(plug_in="", floor=float("nan"))
    unbounded = sentence(value="", ci_low="-inf", ci_high="0.5000", rule="")
    assert "reproduced: no value [-inf, 0.500] (n = 408" in unbounded


def test_a_rule_that_names_no_quantity_leaves_it_to_the_column():
    assert "[0.011, 0.085] for signed gap (n" in sentence(rule="reproduced if above 0", quantity="signed gap")
    assert "- reproduced: 0.044 [0.011, 0.085] (n = 408" in sentence(rule="reproduced if smECE <= 0.05: always")


def test_another_model_and_profile_are_said():
    first = findings.summary([ROW | {"profile": "gpu", "model": "Qwen/Qwen2.5-7B", "dataset": "triviaqa"}])
    assert first.startswith("1 claim: 1 reproduced. Profile gpu, model Qwen/Qwen2.5-7B, data triviaqa.\n")
    first, _, mine, other = findings.summary([ROW, ROW | {"model": "smollm2", "seeds": "0", "n": 2000}]).splitlines()
    assert first == "2 claims: 2 reproduced. Profile cpu, data facts."
    assert "(n = 408, seeds 0 1, model gemma-3-270m)" in mine and "(n = 2,000, seed 0, model smollm2)" in other


def test_rows_of_a_table_read_as_rows_of_claims():
    table = pd.read_csv(ROOT / "figures" / "claims.csv")
    text = findings.summary(table)
    assert text.count("\n- **") == len(table) and "nan" not in text
    assert sum(map(int, re.findall(r"(\d+) (?:claim|extension)s?", text.splitlines()[0]))) == len(table)
    with pytest.raises(ValueError, match="there are no claim rows; run the cells"):
        findings.summary(table[:0])


def test_the_order_of_a_table():
    table = pd.DataFrame(
        {
            "model": ["SFT", "DPO", "base, no examples", "GRPO"],
            "value": [0.06, 0.1042, -0.2, None],
            "low": [0.04, 0.05, -0.3, None],
            "high": [0.07, 0.15, -0.1, None],
            "n": [408, 408, 102, 408],
        }
    )
    assert findings.ordering(table, "model", "Gap") == (
        "- **Gap** (n = 102 to 408): lowest for base, no examples (-0.200 [-0.300, -0.100]), highest for DPO "
        "(0.104 [0.050, 0.150]); between them SFT 0.060"
    )
    floors = table.assign(floor=[0.05, 0.04, None, None])
    assert findings.ordering(floors[:2], "model", "smECE").endswith(
        "lowest for SFT (0.060 [0.040, 0.070], noise floor 0.050), highest for DPO (0.104 [0.050, 0.150], noise "
        "floor 0.040)"
    )
    assert findings.ordering(table[:2], "model", "Gap") == (
        "- **Gap** (n = 408): lowest for SFT (0.060 [0.040, 0.070]), highest for DPO (0.104 [0.050, 0.150])"
    )
    several = table[:1].assign(style="cot")
    assert (
        findings.ordering(several, ["model", "style"], "Gap")
        == "- **Gap** (n = 408): SFT, cot (0.060 [0.040, 0.070])"
    )
    with pytest.raises(ValueError, match="there is no value of 'Gap'"):
        findings.ordering(table[3:], "model", "Gap")


@pytest.mark.parametrize("notebook", TRIED)
def test_the_history_of_a_search_is_a_table_of_numbers(notebook, tmp_path):
    table = findings.search(notebook)
    assert list(table.columns[:5]) == ["stage", "setting", "split", "n", "seed"]
    assert list(table.columns[-2:]) == ["chosen", "note"] and table["chosen"].dtype == bool
    assert all(pd.api.types.is_numeric_dtype(table[name]) for name in table.columns[3:-2])
    assert table[["stage", "setting", "split"]].notna().all(axis=None)
    assert not table.duplicated(["stage", "setting", "split", "seed"]).any()
    plots.save_numbers(table, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (ROOT / "figures" / f"{notebook}_search.csv").read_bytes()
    (path,) = runner.find_notebooks([notebook])
    source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    assert re.search(
        r"run\.tried\(|" + re.escape(f'plots.save_numbers(tried, run.figures_dir / "{notebook}_'), source
    )


def test_a_search_that_was_not_recorded_is_an_error():
    with pytest.raises(ValueError, match=r"no search is recorded for notebook '08'; there are \['01', '02'"):
        findings.search("08")


def test_findings_load_neither_torch_nor_plotting():
    program = "import sys, calib_utils.claims.findings; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

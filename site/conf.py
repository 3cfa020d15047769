"""The site: Sphinx and MyST-NB over the pages here, the executed notebooks and the table of claims. Nothing runs."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib_utils import claims  # noqa: E402
from calib_utils.claims import findings  # noqa: E402

project = "Calibration companion"
author = "The calibration companion authors"
html_title = project
extensions = ["myst_nb"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # what is shown was measured by the run whose figures are shipped
exclude_patterns = ["made/*.part.md", "notebooks/README.md"]
suppress_warnings = ["myst.xref_missing", "toc.empty_glob"]  # links to files of the project, and no copies yet
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
MADE = ROOT / "site" / "made"


def _claim(row: dict) -> str:
    """One claim: what is said, its verdict, what was measured, and the rule."""
    measured = f"{row['value']} [{row['ci_low']}, {row['ci_high']}], n = {row['n']}"
    more = {
        "The paper": row["paper_value"],
        "Statement": row["quote"],
        "Setting": row["faithful"],
        "Rule": row["rule"],
    }
    more |= {"Conditions": row["conditions"], "Source": row["source"], "Model": f"{row['model']}, {row['dataset']}"}
    told = "\n".join(f"- *{name}*: {text}" for name, text in more.items() if text)
    verdict = row["verdict"]
    return f"### {row['claim']}\n\n`{verdict}`{{.verdict .{verdict.split()[0]}}} {measured}\n\n{told}\n"


def _claims() -> str:
    rows = claims.read_claims(ROOT / "figures")
    parts = ["# Claims", "", findings.counts(rows), "", "![All claims with their intervals](made/08_claims.png)", ""]
    notebooks = sorted({row["notebook"] for row in rows})
    for notebook in notebooks:
        parts.append(f"## Notebook {notebook[:2]}\n")
        parts += [_claim(row) for row in rows if row["notebook"] == notebook]
    return "\n".join(parts)


def _make() -> None:
    """What pages take from elsewhere in the project: claims, the headline, pictures."""
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir()
    rows = claims.read_claims(ROOT / "figures")
    (MADE / "headline.part.md").write_text(findings.headline(rows) + "\n", encoding="utf-8")
    (MADE.parent / "claims.md").write_text(_claims(), encoding="utf-8")
    for picture in (ROOT / "figures").glob("*.png"):
        shutil.copy(picture, MADE)
    for name in ("CITATION.cff", "figures/claims.csv"):
        shutil.copy(ROOT / name, MADE)


_make()

"""Findings: sentences that say what a run measured, made from its claim rows and tables; no number is typed.

The verdicts are those of the rows: this module knows no list of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources

import pandas as pd

from calib_utils.claims import base, catto, chains, lifecycle, repair, tuning, world

MODULES = (base, tuning, chains, catto, repair, lifecycle, world)  # a notebook's claims each
SEARCHES = resources.files("calib_utils.claims") / "search"
_IN_WORDS = {"partly": "partly reproduced"}  # every other verdict is a phrase already
_ABOUT = {"profile": "profile", "model": "model", "dataset": "data"}
_OF_KIND = {"paper": ("claim of the papers", "claims of the papers"), "extension": ("extension", "extensions")}
_OF_ANY = ("claim", "claims")


def summary(rows: pd.DataFrame | Iterable[Mapping]) -> str:
    """How many claims have which verdict, and one sentence per claim row, as Markdown.

    What all rows share (profile, model, data) is said once; what they do not is said in each sentence.

    Parameters
    ----------
    rows : of `claims.claim_row` or `claims.csv`; claim, verdict and value are needed, every other column may be
        missing or empty. Columns that are known here: ci_low, ci_high, plug_in and floor (of errors), n, seeds,
        profile, model, dataset, conditions, rule, quantity (what the value is, if the rule does not say it),
        paper_value, kind (paper, or whose statement it is), n_decides (the number of questions that would decide).

    Raises ValueError if there are no rows.
    """
    rows = _records(rows)
    shared = [name for name in _ABOUT if len({_text(row, name) for row in rows}) == 1 and _text(rows[0], name)]
    about = ", ".join(f"{_ABOUT[name]} {_text(rows[0], name)}" for name in shared)
    own = [name for name in _ABOUT if name not in shared]
    first = counts(rows) + (f" {about[0].upper()}{about[1:]}." if about else "")
    return "\n".join([first, "", *(f"- {_sentence(row, own)}" for row in rows)])


def counts(rows: pd.DataFrame | Iterable[Mapping]) -> str:
    """Such as "4 claims of the papers: 2 refuted, 2 undecided; 1 extension: 1 reproduced.", the most frequent first.

    Raises ValueError if there are no rows.
    """
    rows = _records(rows)
    kinds = dict.fromkeys([*_OF_KIND, *(_text(row, "kind") for row in rows)])
    of_kind = {kind: [row for row in rows if _text(row, "kind") == kind] for kind in kinds}
    told = []
    for kind, found in of_kind.items():
        if found:
            one, several = _OF_KIND.get(kind, _OF_ANY)
            told.append(f"{len(found)} {several if len(found) > 1 else one}: {counted(found)}")
    return "; ".join(told) + "."


def outcome(rows: pd.DataFrame | Iterable[Mapping]) -> str:
    """The `counts`, and after them the claims of each verdict, as Markdown: the short form of `summary`.

    Raises ValueError if there are no rows.
    """
    rows = _records(rows)
    verdicts = dict.fromkeys(map(_verdict, rows))
    of = {verdict: [_text(row, "claim") for row in rows if _verdict(row) == verdict] for verdict in verdicts}
    told = [f"*{verdict.capitalize()}*: {'; '.join(names)}." for verdict, names in of.items()]
    return " ".join([counts(rows), *told])


def counted(rows: Iterable[Mapping]) -> str:
    """Such as "2 reproduced, 1 partly reproduced", the most frequent verdict first; empty for no rows."""
    return ", ".join(f"{n} {verdict}" for verdict, n in Counter(map(_verdict, rows)).most_common())


def headline(rows: pd.DataFrame | Iterable[Mapping]) -> str:
    """One sentence: on which models, and of what the papers find how many claims have which verdict.

    Findings stand in the order of the notebooks; claims that no paper makes are counted together at the end.

    Raises ValueError if there are no rows.
    """
    rows = _records(rows)
    models = list(dict.fromkeys(_text(row, "model") for row in rows if _text(row, "model")))
    told = []
    for module in MODULES:
        own = [row for row in rows if _text(row, "notebook") == module.NOTEBOOK and _text(row, "kind") == "paper"]
        if own:
            told.append(f"{module.FINDING} ({counted(own)})")
    ours = [row for row in rows if _text(row, "kind") == "extension"]
    beside = f"; beside them {counts(ours).removesuffix('.')}" if ours else ""
    where = f", measured on {_listed(models)}" if models else ""
    return f"**The papers' claims{where}: {'; '.join(told)}{beside}.**"


_BEGIN, _END = "<!-- headline -->", "<!-- /headline -->"


def with_headline(text: str, rows: pd.DataFrame | Iterable[Mapping]) -> str:
    """A text with the `headline` of the rows between its two markers, in place of what stands there.

    Raises ValueError for a text without the markers, or no rows.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the text has no place for the headline: it needs the lines {_BEGIN} and {_END}")
    return f"{before}{_BEGIN}\n{headline(rows)}\n{_END}{after}"


def _listed(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def ordering(table: pd.DataFrame, label: str | list[str], quantity: str) -> str:
    """One line of Markdown: for which row of a table a quantity is lowest and highest, and what lies between.

    Parameters
    ----------
    table : rows of one metric, columns `label` (one or several), value, low, high, n, and floor (of errors). A row
        without a value (NaN) is not counted.
    quantity : what the values are, for a reader.

    Raises ValueError if no row has a value.
    """
    rows = table.dropna(subset="value").sort_values("value", kind="stable").reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"there is no value of {quantity!r}; give a table with at least one row that has one")
    names = rows[[label] if isinstance(label, str) else label].astype(str).agg(", ".join, axis=1)
    floors = rows["floor"] if "floor" in rows else [None] * len(rows)
    intervals = [
        _interval(*ends) + _beside(noise_floor=floor)
        for *ends, floor in zip(rows["value"], rows["low"], rows["high"], floors, strict=True)
    ]
    asked = sorted(set(rows["n"].astype(int)))
    line = f"- **{quantity}** (n = {asked[0]:,}" + (f" to {asked[-1]:,})" if len(asked) > 1 else ")")
    if len(rows) == 1:
        return f"{line}: {names[0]} ({intervals[0]})"
    last = len(rows) - 1
    line += f": lowest for {names[0]} ({intervals[0]}), highest for {names[last]} ({intervals[last]})"
    between = [f"{names[at]} {_number(rows['value'][at])}" for at in range(1, last)]
    return line + (f"; between them {'; '.join(between)}" if between else "")


def orderings(table: pd.DataFrame, label: str | list[str], quantities: Mapping[str, str]) -> str:
    """`ordering` of several metrics of a table in long form, a line each: metric -> what its values are."""
    return "\n".join(ordering(table[table["metric"] == metric], label, name) for metric, name in quantities.items())


def search(notebook: str) -> pd.DataFrame:
    """What was tried on the default model before the settings of a notebook (`"02"`) were fixed: one row per setting.

    Side experiments that no run repeats. Columns: stage, setting, split, n, seed, then what was measured (in shares,
    or as the name says), chosen (whether it is the notebook's default) and note.

    Raises ValueError for a notebook without such a table.
    """
    path = SEARCHES / f"{notebook}_search.csv"
    if not path.is_file():
        there = sorted(found.name[:2] for found in SEARCHES.iterdir() if found.name.endswith("_search.csv"))
        raise ValueError(f"no search is recorded for notebook {notebook!r}; there are {there}")
    return pd.read_csv(path)


def _records(rows: pd.DataFrame | Iterable[Mapping]) -> list[Mapping]:
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else list(rows)
    if not rows:
        raise ValueError("there are no claim rows; run the cells that decide the claims first")
    return rows


def _text(row: Mapping, name: str) -> str:
    """The field as text, empty if it is missing, None or NaN."""
    value = row.get(name, "")
    return "" if pd.isna(value) else str(value).strip()


def _verdict(row: Mapping) -> str:
    return _IN_WORDS.get(row["verdict"], row["verdict"])


def _sentence(row: Mapping, own: Iterable[str]) -> str:
    sentence = (
        f"**{row['claim']}** - {_verdict(row)}: {_interval(*(_text(row, c) for c in ('value', 'ci_low', 'ci_high')))}"
    )
    if quantity := _before_the_rule(_text(row, "rule")) or _text(row, "quantity"):
        sentence += f" for {quantity}"
    sentence += _beside(plug_in=row.get("plug_in"), noise_floor=row.get("floor"))
    seeds = _text(row, "seeds")
    about = [f"n = {_whole(row, 'n')}"] if _text(row, "n") else []
    about += [f"seed{'s' if ' ' in seeds else ''} {seeds}"] if seeds else []
    about += [f"{_ABOUT[name]} {_text(row, name)}" for name in own if _text(row, name)]
    parts = [sentence + (f" ({', '.join(about)})" if about else "")]
    parts += _unmet(_text(row, "conditions"))
    if _text(row, "n_decides"):
        parts.append(f"About {_whole(row, 'n_decides')} questions would decide it")
    if _text(row, "paper_value"):
        parts.append(f"The paper: {_text(row, 'paper_value')}")
    return ". ".join(parts) + "."


def _unmet(conditions: str) -> list[str]:
    """A sentence for the conditions that do not hold, and one per other answer than yes, of `a: yes; b: no`."""
    by_answer: dict[str, list[str]] = {}
    for condition in filter(None, conditions.split("; ")):
        name, _, answer = condition.rpartition(": ")
        by_answer.setdefault(answer, []).append(f'"{name}"')
    told = []
    for answer, names in by_answer.items():
        plural = len(names) > 1
        all_of_them = _listed(names)
        if answer == "no":
            verb = "do not hold" if plural else "does not hold"
        else:
            verb = f"{'are' if plural else 'is'} {answer}"
        if answer != "yes":
            told.append(f"The condition{'s' if plural else ''} {all_of_them} {verb}")
    return told


def _before_the_rule(rule: str) -> str:
    """`smECE of DPO` out of `smECE of DPO: reproduced if ...`; empty if the rule has no such beginning."""
    quantity, colon, _ = rule.partition(": ")
    return quantity if colon and " if " not in quantity else ""


def _interval(value, low, high) -> str:
    """`0.044 [0.011, 0.085]`; the value alone where there is no interval."""
    ends = [_number(end) for end in (low, high) if end != "" and not pd.isna(end)]
    at = "no value" if value == "" or pd.isna(value) else _number(value)
    return at + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")


def _beside(**numbers) -> str:
    """`, noise floor 0.031` for what there is."""
    there = {name: number for name, number in numbers.items() if number not in (None, "") and not pd.isna(number)}
    return "".join(f", {name.replace('_', ' ')} {_number(number)}" for name, number in there.items())


def _number(value) -> str:
    """Three decimals, without the sign of a rounded zero."""
    return f"{round(float(value), 3) + 0.0:.3f}"


def _whole(row: Mapping, name: str) -> str:
    return f"{round(float(row[name])):,}"

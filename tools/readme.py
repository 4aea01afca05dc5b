"""Writes the parts of README.md and docs/ that are made from other files: notebooks, results, artefact map.

    .venv/bin/python tools/readme.py

The numbers are those of results/reference/{demo,histology} and params/reference; a test fails where a page
differs from what this writes.
"""

import re

import pandas as pd

from lgffem_core.base.files import read_json
from lgffem_core.base.project import PROJECT
from lgffem_core.report.tables import DECIMALS
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.systems.lgffem.tables import published

PROTOCOLS = ("released", "leave_one_out", "test_to_train")
RUNS = {"histology": "real slides", "demo": "DEMO"}


def notebook_table() -> list[str]:
    """The notebooks by their headings: what each teaches, and what it leaves."""
    lines = ["| notebook | what it teaches | what it leaves |", "|---|---|---|"]
    for name, entry in registry().items():
        path = f"notebooks/{name}.ipynb"
        heading = read_json(PROJECT / path)["cells"][0]["source"][0].strip("# \n")
        lines.append(f"| [{heading}]({path}) | {entry.teaches} | {entry.gives} |")
    return lines


def artefact_map() -> list[str]:
    """The paper's artefacts, and ours beyond it: notebook and file."""
    lines = ["| artefact | notebook | file in `results/<profile>/` | what it shows |", "|---|---|---|---|"]
    for a in artefacts_of(registry().values()):
        kind, more = ("csv", "`.md` `.tex`") if a.file.startswith("tables") else ("png", "`.svg`")
        notebook = f"[{a.notebook}](../notebooks/{a.notebook}.ipynb)"
        lines.append(f"| {a.title} | {notebook} | `{a.file}.{kind}` {more} | {a.caption} |")
    return lines


def reference_table(run: str, table: str) -> pd.DataFrame:
    """A table of a kept run."""
    file = PROJECT / "results" / "reference" / run / "tables" / f"{table}.csv"
    if not file.is_file():
        raise SystemExit(f"error: {file} is missing; keep a run of {run} with tools/keep_reference.py.")
    return pd.read_csv(file, keep_default_na=False)


def eta_p(run: str, table: str, **row) -> str:
    """η_p of a kept run's table in the first row that has these values."""
    rows = reference_table(run, table)
    for column, value in row.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        raise SystemExit(f"error: {table} of the kept run {run} has no row with {row}.")
    return f"{float(rows['eta_p'].iloc[0]):.{DECIMALS}f}"  # all that the file has: rounded again, it can be wrong


def head(first: str) -> list[str]:
    """The heading of a table of results."""
    cells = [first, "paper", *(f"`{p}`: {' / '.join(RUNS.values())}" for p in PROTOCOLS)]
    return ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"]


def result(name: str, paper: str, table: str, **row) -> str:
    """A line of it: the published η_p, then under every protocol ours of every run."""
    cells = [" / ".join(eta_p(run, table, **row, protocol=p) for run in RUNS) for p in PROTOCOLS]
    return "| " + " | ".join([name, paper, *cells]) + " |"


def table1() -> list[str]:
    """Table 1 beside the paper's, with the two highest of the floors that no strategy has trained."""
    names = {"A": "A: ImageNet-1k", "B": "B: + PanNuke", "C": "C: + Kimia"}
    floors = {"colours together": "floor: colours together (joint histogram)", "frozen backbone": "floor: frozen backbone"}
    paper = {s.upper(): f"{row['eta_p']:.2f} (`released`)" for s, row in published("table1")["rows"].items()}
    trained = [result(name, paper[s], "table1", strategy=s) for s, name in names.items()]
    known = {"table": "audit_floors", "condition": "as they are"}
    return head("strategy") + trained + [result(n, "–", **known, descriptor=d) for d, n in floors.items()]


def table2() -> list[str]:
    """Table 2 beside the paper's, each published value with the protocol it was computed under."""
    names, paper = dict.fromkeys(reference_table("demo", "table2")["method"]), {}
    for method, row in published("table2")["rows"].items():
        paper[method] = f"{row['eta_p']:.2f} ({'`' + row['protocol'] + '`' if row['protocol'] else 'not known'})"
    return head("method") + [result(name, paper.get(name, "–"), "table2", method=name) for name in names]


#: Questions of SMSE's comparisons, and measures, that readings.md tells of.
ASKED = {("unseen", "balanced"), ("unseen", "right"), ("seen", "right"), ("similarity", "top1"), ("features", "top1")}


def differences() -> list[str]:
    """What the kept demo's SMSE and FGCR, as its text reads, differ by from what they are held against."""
    smse, fgcr = reference_table("demo", "smse_comparisons"), reference_table("demo", "table_fgcr")
    lines = ["| | points | 95 % interval, over patients or slides |", "|---|---|---|"]
    for row in fgcr[fgcr["method"] == "FGCR, paper"].itertuples():
        lines.append(difference(f"FGCR, {row.task}, {row.level} level", row.gain, row.gain_low, row.gain_high))
    for row in (row for row in smse.itertuples() if (row.question, row.measure) in ASKED):
        what = f"SMSE, {row.a} − {row.b}: {row.measure} on {row.tested_on}"
        lines.append(difference(what, row.difference, row.difference_low, row.difference_high))
    return lines


def difference(what: str, *points: str) -> str:
    """A line of it: the difference and the ends of its interval."""
    middle, low, high = (f"{float(each):+.1f}".replace("-", "−") for each in points)
    return f"| {what} | {middle} | {low} to {high} |"


#: Page -> its blocks, each with the function that makes its lines.
PAGES = {
    "README.md": {"table1": table1, "table2": table2, "notebooks": notebook_table},
    "docs/artefacts.md": {"artefacts": artefact_map},
    "docs/readings.md": {"differences": differences},
}


def with_blocks(page: str, text: str) -> str:
    """``text`` with each of a page's blocks between ``<!-- name -->`` and ``<!-- /name -->`` written anew."""
    for name, make in PAGES[page].items():
        block = "\n".join([f"<!-- {name} -->", *make(), f"<!-- /{name} -->"])
        text, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"error: {page} must hold one block <!-- {name} --> … <!-- /{name} -->.")
    return text


if __name__ == "__main__":
    for page in PAGES:
        text = (PROJECT / page).read_text(encoding="utf-8")
        (PROJECT / page).write_text(with_blocks(page, text), encoding="utf-8")

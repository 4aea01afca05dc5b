"""How a reader sees the columns of the tables: which of them share a cell, and what stands above it.

The names in the files are for programs and stay as they are.
"""

import re
from typing import NamedTuple

import pandas as pd

from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.metrics import Scores

PREFIXES = {"paper": "published", "difference": "ours − published", "standard": "leave_one_out", "chance": "by chance"}
#: Columns -> heading, and the unit of their numbers. A name that is not listed is shown without its underscores.
HEADINGS = {
    ("published_in", "row"): ("published", ""),
    ("seeds",): ("seed", ""),
    ("eta_p",): ("η_p", "%"),
    ("eta_w",): ("η_w", "%"),
    ("eta_tot",): ("η_tot", "%"),
    ("eta_p_low", "eta_p_high"): ("interval of η_p", "%"),
    ("scan_low", "scan_high"): ("interval over scans", "%"),
    ("seed_half_width",): ("± over seeds", "%"),
    ("eta_p_text",): ("η_p, text", "%"),
    ("eta_p_code",): ("η_p, code", "%"),
    ("delta",): ("code − text", "points"),
    ("delta_low", "delta_high"): ("interval of it", "points"),
    ("difference",): ("difference", "points"),
    ("p_patches",): ("p over patches", ""),
    ("p_scans",): ("p over scans", ""),
    ("p_holm",): ("p (Holm)", ""),
    ("macro_f1",): ("macro-F1", "%"),
    ("patient_score",): ("patient score", "%"),
    ("recall_benign", "recall_malignant"): ("recall of benign / malignant", "%"),
    ("answerable",): ("answerable", "%"),
    ("other_reading",): ("other reading", ""),
    ("trained_on",): ("trained on", ""),
    ("tested_on",): ("tested on", ""),
    ("accuracy",): ("accuracy", "%"),
    ("accuracy_low", "accuracy_high"): ("interval of accuracy", "%"),
    ("top1",): ("top-1", "%"),
    ("top1_low", "top1_high"): ("interval of top-1", "%"),
    ("difference_low", "difference_high"): ("interval of it", "points"),
    ("same_magnification",): ("neighbours of the query's magnification", "%"),
    ("by_chance",): ("of it, by chance", "%"),
    ("R@1_low", "R@1_high"): ("interval of R@1", "%"),
    ("gain",): ("gain over the floor", "points"),
    ("gain_low", "gain_high"): ("interval of it", "points"),
    ("change",): ("change of R@1", "points"),
    ("change_low", "change_high"): ("interval of it", "points"),
    ("region_change",): ("change at the region level", "points"),
    ("region_change_low", "region_change_high"): ("its interval", "points"),
} | {
    tuple(f"{prefix}_{score}" for score in Scores._fields): (f"{heading} η_p / η_w / η_tot", "%")
    for prefix, heading in PREFIXES.items()
}
HEADINGS |= {("paper_eta_p",): ("published η_p", "%"), ("standard_eta_p",): ("leave_one_out η_p", "%")}  # alone
#: What the page shows first of a table that has all of these columns.
FIRST = (
    ("published_in", "row", "verdict", "why"),
    ("row", "topic", "protocol", "eta_p_text", "eta_p_code", "delta", "delta_low", "delta_high", "p_holm", "note"),
)


class Cell(NamedTuple):
    """Columns that share a cell, with what stands between their values."""

    columns: tuple[str, ...]
    heading: str
    unit: str = ""

    @property
    def title(self) -> str:
        return f"{self.heading}, {self.unit}" if self.unit else self.heading

    @property
    def sign(self) -> str:
        return " – " if self.columns[0].endswith("_low") else " / "


def in_reading_order(columns: list[str]) -> list[str]:
    """A table's columns as the page shows them: what is looked for first, the rest as in the file.

    >>> in_reading_order(["published_in", "row", "eta_p", "verdict", "why"])
    ['published_in', 'row', 'verdict', 'why', 'eta_p']
    """
    first = next((names for names in FIRST if {*names} <= {*columns}), ())
    return [*first, *(name for name in columns if name not in first)]


def cells(columns: list[str]) -> list[Cell]:
    """The cells of a row, in the order of the columns; each column is in one of them.

    >>> [cell.title for cell in cells(["row", "eta_p", "hit_rate@1", "hit_rate@5"])]
    ['row', 'η_p, %', 'hit rate at 1 / 5, %']
    """
    found: list[Cell] = []
    for name in columns:
        if any(name in cell.columns for cell in found):
            continue
        group = next((g for g in HEADINGS if g[0] == name and {*g} <= {*columns}), None)
        before, at, _ = name.partition("@")
        if group:
            found.append(Cell(group, *HEADINGS[group]))
        elif at:
            depths = tuple(other for other in columns if re.fullmatch(rf"{re.escape(before)}@\d+", other))
            words = f"{before.replace('_', ' ')} at {' / '.join(other.split('@')[1] for other in depths)}"
            found.append(Cell(depths, words, "%"))
        else:
            found.append(Cell((name,), name.replace("_", " ")))
    return found


def gathered(table: pd.DataFrame) -> pd.DataFrame:
    """A table as a reader sees it: columns that belong together share a cell, each cell under its heading.

    In a shared cell numbers are texts of two decimals, and what is missing is left out; other columns stay as they are.

    >>> gathered(pd.DataFrame({"eta_p": [52.0], "eta_p_low": [48.0], "eta_p_high": [54.4]})).to_dict("records")
    [{'η_p, %': 52.0, 'interval of η_p, %': '48.00 – 54.40'}]
    """

    def text(value) -> str:
        return "" if pd.isna(value) else f"{value:.{DECIMALS}f}" if isinstance(value, float) else str(value)

    def column(cell: Cell) -> pd.Series:
        if len(cell.columns) == 1:
            return table[cell.columns[0]]
        rows = table[[*cell.columns]].map(text).itertuples(index=False)
        return pd.Series([cell.sign.join(filter(None, row)) for row in rows], table.index, dtype=object)

    shown = cells([*table.columns])
    if not shown:
        return table
    return pd.concat([column(cell) for cell in shown], axis=1).set_axis([cell.title for cell in shown], axis=1)


def in_words(note: str) -> str:
    """A note on a table with the names of columns as a reader of the page sees them, each sentence with a capital.

    A name that is a word of the language, as seeds, is a column's where a colon follows.

    >>> in_words("eta_p_low, eta_p_high: 95 % interval of eta_p; chance_*: expected; mean over seeds.")
    'Interval of η_p: 95 % interval of η_p; by chance: expected; mean over seeds.'
    """
    names = {", ".join(group): heading for group, (heading, _) in HEADINGS.items()}
    names |= {f"{prefix}_*": heading for prefix, heading in PREFIXES.items()} | {"eta_*": "η", "hit_rate": "hit rate"}
    ends = {name: "(?=:)" if name.isalpha() else r"(?![\w@])" for name in sorted(names, key=len, reverse=True)}
    longest_first = "|".join(re.escape(name) + end for name, end in ends.items())
    named = re.sub(rf"(?<![\w@])({longest_first})", lambda found: names[found[1]], note)
    return re.sub(r"(^|(?<!\.[a-z])\. )([a-z])(?=[a-z])", lambda found: found[1] + found[2].upper(), named)

"""A data frame as files: csv for programs, md for readers, tex for papers."""

from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from lgffem_core.base.files import write_text
from lgffem_core.config.study import Study

NOT_KNOWN = "not known"  # the protocol of a published value
DECIMALS = 2  # of a percent, as the paper prints
LATEX_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "_%&#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "`": "",  # Markdown's, of the notes
    }
)


def readable(table: pd.DataFrame) -> Styler:
    """A table as a notebook shows it: two decimals, a dash where nothing applies, row numbers left out, words left."""
    words = [f".col{place}" for place, kind in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    left = [{"selector": each, "props": [("text-align", "left")]} for each in words]  # headings as well
    styler = table.mask(table == "").style.format(precision=DECIMALS, na_rep="–").set_table_styles(left)
    return styler if any(table.index.names) else styler.hide(axis="index")


def write_table(study: Study, table: pd.DataFrame, name: str, title: str, note: str) -> Path:
    """Write ``tables/<name>.{csv,md,tex}``; md and tex say which data the numbers are from. Returns the csv."""
    folder = study.results / "tables"
    caption = f"{title} ({study.label}; * = synthetic data). {note}"
    shown = table.map(lambda value: f"{value:.{DECIMALS}f}" if isinstance(value, float) else value)
    shown = shown.replace("nan", "")
    write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_text(folder / f"{name}.md", f"{caption}\n\n{markdown(shown)}\n")
    write_text(folder / f"{name}.tex", latex(shown, caption, name))
    return folder / f"{name}.csv"


def markdown(table: pd.DataFrame) -> str:
    """A data frame of strings as a Markdown table, columns aligned for reading in a terminal."""
    rows = [table.columns, *table.itertuples(index=False)]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]  # a bare one would open a new cell
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A data frame of strings as a LaTeX table in booktabs style."""

    def escape(text) -> str:
        return str(text).translate(LATEX_ESCAPES)

    columns = "".join("r" if name.startswith(("eta", "paper")) else "l" for name in table.columns)
    shown = table.map(escape).rename(columns=escape)
    text = shown.to_latex(index=False, column_format=columns, caption=escape(caption), label=f"tab:{label}")
    first, *inside, last = text.splitlines()
    return "\n".join([first, *(f"  {line}" for line in inside), last, ""])

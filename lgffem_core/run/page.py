"""``report.html``: every table and figure of a run on one page that needs no other file."""

import base64
import json
import re
import shlex
from itertools import groupby, pairwise
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from lgffem_core.audit.chance import chance
from lgffem_core.base.files import read_json, write_text
from lgffem_core.config.study import SEARCHED, Study
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.report.columns import cells, gathered, in_reading_order, in_words
from lgffem_core.report.tables import DECIMALS, NOT_KNOWN
from lgffem_core.retrieval.metrics import STANDARD, Scores
from lgffem_core.run.registry import Artefact
from lgffem_core.run.stages import Request, all_stages, artefacts, executed_notebook, measuring

VERDICTS = "tables/verdicts"
LONG = 40  # characters of a cell that is to have some width
NAME = 15  # characters of a name that does not break
WIDE = 7  # columns, of more than which a table is set smaller
TOLD = 60  # characters of a text that stands below its row, in a wide table that has several
MANY = 60  # rows of a table that shows one protocol and folds the others
HUNDREDTHS = re.compile(r"-?\d+\.\d{1,2}")


def run_command(request: Request) -> str:
    """The command that gives the same run, as typed in the project's folder."""
    pairs = [
        f"{key}={json.dumps(value) if not isinstance(value, str) else value}"
        for key, value in request.overrides.items()
    ]
    return shlex.join(["./run_all.sh", request.params, *(["--set", *pairs] if pairs else [])])


def read_cells(path: Path) -> pd.DataFrame:
    """A table as text, with the decimals that the paper prints; other numbers, p-values above all, as they are kept."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.map(lambda cell: f"{float(cell):.{DECIMALS}f}" if HUNDREDTHS.fullmatch(cell) else cell)


def table_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """A table's headings and cells as text; what belongs together shares a cell, empty where there is no value."""
    table = read_cells(path)
    shown = gathered(table[in_reading_order(list(table.columns))])
    return list(shown.columns), shown.to_numpy().tolist()


def spans(rows: list[list[str]]) -> list[list[tuple[str, int]]]:
    """Each cell with the rows that it stands for: a text once for neighbours of the same first cell, then 0.

    So in columns that hold a long text, whole columns for every row of a table to look alike.
    """
    counts = [[1] * len(row) for row in rows]
    wordy = [any(len(text) > LONG for text in column) for column in zip(*rows, strict=True)]
    for i, (above, below) in reversed([*enumerate(pairwise(rows))]):
        for j, text in enumerate(below):
            if wordy[j] and text and text == above[j] and below[0] == above[0]:
                counts[i][j], counts[i + 1][j] = 1 + counts[i + 1][j], 0
    return [list(zip(*pair, strict=True)) for pair in zip(rows, counts, strict=True)]


def told(headings: list[str], rows: list[list[str]]) -> tuple[list[str], list[tuple[list, list]]]:
    """A table as (columns, groups of rows of one first cell), each group with the texts that stand below its rows.

    They are, of a wide table, (heading, text) of those columns of long texts that are the same for all of a group.
    """
    groups = [[*group] for _, group in groupby(rows, key=lambda row: row[0])]
    below = [
        j
        for j, column in enumerate(zip(*rows, strict=True))
        if any(len(text) > TOLD for text in column) and all(len({row[j] for row in group}) == 1 for group in groups)
    ]
    if len(headings) <= WIDE or len(below) < 2:
        below = []
    kept = [j for j in range(len(headings)) if j not in below]
    texts = [[(headings[j], group[0][j]) for j in below if group[0][j]] for group in groups]
    shown = [[[row[j] for j in kept] for row in group] for group in groups]
    return [headings[j] for j in kept], [*zip(shown, texts, strict=True)]


def folded(headings: list[str], rows: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Rows to show and rows to fold: of a long table, those that are not under ``STANDARD``."""
    if len(rows) <= MANY or "protocol" not in headings:
        return rows, []
    at = headings.index("protocol")
    return [row for row in rows if row[at] == STANDARD], [row for row in rows if row[at] != STANDARD]


def what_holds(path: Path) -> list[dict]:
    """The reviewer's first question: a line for each published result in the table of verdicts.

    A result that the paper prints in two tables has one line, our variants stand in it side by side.
    """
    table, lines = read_cells(path), []
    for _, rows in table.groupby([f"paper_{name}" for name in Scores._fields], sort=False):
        runs = rows.drop_duplicates("variant")
        lines.append(
            {
                "result": ", ".join(dict.fromkeys(f"{row.published_in}: {row.row}" for row in rows.itertuples())),
                "protocol": rows["protocol"].iloc[0].replace(NOT_KNOWN, ""),
                "published": rows["paper_eta_p"].iloc[0],
                "runs": runs.to_dict("records"),
                "verdicts": list(dict.fromkeys(runs["verdict"])),
                "why": list(dict.fromkeys(filter(None, runs["why"]))),
            }
        )
    return lines


def typeset(text: str) -> Markup:
    """A caption, note or heading as HTML: η_p with its index, names in backticks as code."""
    marked = re.sub(r"η_(\w+)", r"<i>η</i><sub>\1</sub>", str(escape(text)))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", marked))


def breakable(text: str) -> Markup:
    """A cell as HTML: long names may break behind a dot or underscore, a sign stays with the number before it.

    A name that is all of a cell and short, as those of the protocols are, is in one line.
    """
    if re.fullmatch(rf"\w{{,{NAME}}}", text):
        return escape(text)
    marked = re.sub(r"(?<=[A-Za-z])([._])(?=\w)", r"\1<wbr>", str(escape(text)))
    return Markup(re.sub(r"(?<=\d) (?=[–/] )", "&nbsp;", marked).replace("-&gt;", "→"))


def measure_tables(measures: dict, title: str = "") -> list[dict]:
    """Numbers of any depth as tables with title, headings and rows: one a list of records, one for single values."""
    nested = {key: value for key, value in measures.items() if isinstance(value, dict)}
    lists = {key: value for key, value in measures.items() if isinstance(value, list)}
    single = {key: value for key, value in measures.items() if key not in nested and key not in lists}
    tables = [records(f"{title} {key}", value) for key, value in lists.items()]
    if single:
        tables.insert(0, records(title, [single]))
    if len(nested) > 1 and len({tuple(value) for value in nested.values()}) == 1:
        return [*tables, records(title, [{"": key, **value} for key, value in nested.items()])]
    return tables + [table for key, value in nested.items() for table in measure_tables(value, f"{title} {key}")]


def records(title: str, rows: list[dict]) -> dict:
    """A list of records as one table of texts, empty for what is missing."""

    def text(value) -> str:
        return "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value)

    table = pd.DataFrame(rows).astype(object).map(text)
    words = [cell.title for cell in cells(list(table.columns))]
    return {"title": title.strip().replace("_", " "), "headings": words, "rows": table.to_numpy().tolist()}


def artefact_view(study: Study, request: Request, artefact: Artefact) -> dict:
    """What the page shows of one table or figure."""
    files = artefact.files(study.results)
    view = artefact.model_dump() | {
        "anchor": artefact.file.split("/")[1],
        "files": [path.relative_to(study.results).as_posix() for path in files],
        "page": executed_notebook(study, artefact.notebook).with_suffix(".html").relative_to(study.results).as_posix(),
        "again": f"rm -f {files[0].relative_to(study.root).as_posix()} && {run_command(request)}",
    }
    if artefact.file.startswith("tables/"):
        view["headings"], rows = table_rows(files[0])
        view["rows"], view["folded"] = folded(view["headings"], rows)
        view["note"] = in_words(files[1].read_text(encoding="utf-8").splitlines()[0])
    else:
        view["png"] = base64.b64encode(files[0].read_bytes()).decode()
    return view


def write_report(study: Study, request: Request) -> Path:
    """Write the page from the files of a finished run and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = {stage.name: executed_notebook(study, *stage).with_suffix(".html") for stage in all_stages(study)}
    environment.filters |= {"typeset": typeset, "spans": spans, "told": told, "breakable": breakable}
    judged = any(artefact.file == VERDICTS for artefact in artefacts(study))  # not where LGFFEM is not run
    text = environment.get_template("page.html.j2").render(
        label=study.label,
        demo=study.is_synthetic(SEARCHED),
        profile=study.params.profile,
        long=LONG,
        many_columns=WIDE,
        chance=chance("released", KIMIA_TEST_COUNTS).eta_p,
        command=run_command(request),
        lines=what_holds(study.results / f"{VERDICTS}.csv") if judged else [],
        artefacts=[artefact_view(study, request, artefact) for artefact in artefacts(study)],
        notebooks=[(name, pages[name].relative_to(study.results).as_posix()) for name in sorted(pages)],
        measures={notebook: measure_tables(read_json(study.measures(notebook))) for notebook in measuring(study)},
    )
    return write_text(study.report, text)

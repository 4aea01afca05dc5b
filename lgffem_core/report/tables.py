"""The tables as data frames, and as files: csv for programs, md for readers, tex for papers."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lgffem_core.audit.chance import chance
from lgffem_core.base.files import write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import CURRICULUM, SEARCHED, Study
from lgffem_core.data import patch_table
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.retrieval.statistics import WIDTHLESS, eta_p_interval

SCORED_COLUMNS = [  # of both tables
    "variant",
    "protocol",
    "seeds",
    "eta_p",
    "eta_w",
    "eta_tot",
    "eta_p_low",
    "eta_p_high",
    "paper_eta_p",
    "paper_eta_w",
    "paper_eta_tot",
]
TABLE1_COLUMNS = ["strategy", "pretraining_data", *SCORED_COLUMNS]
TABLE2_COLUMNS = ["method", *SCORED_COLUMNS]
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
INTERVAL_NOTE = (
    "Percent. eta_p_low, eta_p_high: 95 % interval of eta_p by percentile bootstrap over test patches (over scans "
    f"under `released`); those of the audit are BCa, so their ends differ. {WIDTHLESS} paper_*: the published values, "
    "beside the protocol they were computed under; `released` is no Recall@1."
)


def chance_note(study: Study, protocols: tuple[str, ...]) -> str:
    """What random embeddings are expected to score at this run's counts, in closed form: one sentence."""
    patches = patch_table(study, SEARCHED)
    test, train = (np.bincount(patches.loc[patches["split"] == s, "label_id"]) for s in ("test", "train"))
    parts = []
    for protocol in protocols:
        expected = chance(protocol, test, train)
        parts.append(f"`{protocol}` {expected.eta_p:.1f} / {expected.eta_w:.1f} / {expected.eta_tot:.1f}")
    return f"Random embeddings are expected to score (eta_p / eta_w / eta_tot): {', '.join(parts)}."


def published(table: str) -> dict:
    """The published values in ``params/reference``: ``{"protocol": …, "rows": {…}}``."""
    path = PROJECT / "params" / "reference" / f"{table}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def table1(study: Study, outcomes: dict[tuple[str, str, str], list[Outcome]]) -> pd.DataFrame:
    """Table 1: a row for each strategy, variant and protocol.

    Args:
        outcomes: (strategy, variant, protocol) -> one outcome a seed; scores are means over seeds.
    """
    paper = published("table1")
    rows = []
    for (strategy, variant, protocol), runs in outcomes.items():
        known = paper["rows"][strategy] if protocol == paper["protocol"] else {}
        rows.append(
            {
                "strategy": strategy.upper(),
                "pretraining_data": pretraining_data(study, strategy),
                "variant": study.variant_label(variant),
                "protocol": protocol,
                **measured(study, runs),
                **beside(known),
            }
        )
    return pd.DataFrame(rows, columns=TABLE1_COLUMNS).round(DECIMALS)


def table2(
    study: Study,
    baselines: dict[tuple[str, str, str], list[Outcome]],
    outcomes: dict[tuple[str, str, str], list[Outcome]],
) -> pd.DataFrame:
    """Table 2: a row for each method, variant and protocol, LGFFEM after strategy C last.

    A published value stands in the row of the protocol that it was computed under, and nowhere if the profile
    does not run that protocol. Where none is known, it has a row of its own, without scores of ours
    (ledger row 16).

    Args:
        baselines: (method, variant, protocol) -> one outcome a seed, of ``evaluate_baselines``.
        outcomes: (strategy, variant, protocol) -> one outcome a seed, of ``evaluate_all``; only "c" is used.
    """
    paper = published("table2")["rows"]
    lgffem = {
        ("LGFFEM", study.variant_label(variant), protocol): runs
        for (strategy, variant, protocol), runs in outcomes.items()
        if strategy == "c"
    }
    found, rows = baselines | lgffem, []
    for method in dict.fromkeys(key[0] for key in found):
        known = paper.get(method, {"protocol": ""})  # the barcode has no published row
        for (_, variant, protocol), runs in ((key, runs) for key, runs in found.items() if key[0] == method):
            named = {"method": method, "variant": variant, "protocol": protocol}
            rows.append(named | measured(study, runs) | beside(known if known["protocol"] == protocol else {}))
        if known["protocol"] is None:
            rows.append({"method": method, "variant": "as published", "protocol": NOT_KNOWN, "seeds": ""})
            rows[-1] |= beside(known)
    return pd.DataFrame(rows, columns=TABLE2_COLUMNS).round(DECIMALS)


def measured(study: Study, runs: list[Outcome]) -> dict:
    """The cells of a row that come from this study: means over seeds, and the interval of η_p."""
    low, high = eta_p_interval(runs, study.params.retrieval.bootstrap)
    scores = Scores(*np.mean([run.scores for run in runs], axis=0))
    seeds = " ".join(map(str, study.params.seeds))
    return {"seeds": seeds, **scores._asdict(), "eta_p_low": low, "eta_p_high": high}


def beside(known: dict) -> dict:
    """The cells of a row that hold published values, given some or none."""
    return {f"paper_{name}": known[name] for name in Scores._fields if name in known}


def pretraining_data(study: Study, strategy: str) -> str:
    """The data of a strategy as Table 1 names it; synthetic sets carry a star."""
    parts = []
    for name, (dataset, _, label) in CURRICULUM.items():
        if name <= strategy:
            parts.append(label.split(" + ")[-1] + ("*" if study.is_synthetic(dataset) else ""))
    return " + ".join(parts)


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

    def line(row) -> str:
        return "  " + " & ".join(map(escape, row)) + r" \\"

    columns = "".join("r" if name.startswith(("eta", "paper")) else "l" for name in table.columns)
    body = [line(row) for row in table.itertuples(index=False)]
    return "\n".join(
        [
            r"\begin{table}",
            f"  \\caption{{{escape(caption)}}}",
            f"  \\label{{tab:{label}}}",
            f"  \\begin{{tabular}}{{{columns}}}",
            r"  \toprule",
            line(table.columns),
            r"  \midrule",
            *body,
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )

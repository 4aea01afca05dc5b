"""The PatchTable: what every data set becomes, so that everything after it is the same; ``schema`` says what holds.

Columns: ``path`` (relative to the data set's root, POSIX), ``label`` (its name), ``label_id`` (0-based
int64, in the order of the label list), ``split`` ("train" or "test"), ``group`` (slide, patient or
fold), ``sha256`` (of the file's bytes, "" where they are not known); then the data set's own. The row number is
the sample id.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lgffem_core.base.errors import StudyError, one_line
from lgffem_core.data.listing import printable
from lgffem_core.data.sets.base import Row

ROW = ("path", "label", "split", "group")  # what a data set's reader gives
TEXT = (*ROW, "sha256")
COLUMNS = ["path", "label", "label_id", "split", "group", "sha256"]
#: What pandera calls the rules that it knows itself.
RULES = {
    "column_in_dataframe": "is missing",
    "column_in_schema": "is not known",
    "column_ordered": "is not in its place",
    "not_nullable": "is empty",
}


def schema(further: Mapping[str, str]):
    """What holds of every PatchTable, as pandera checks it; ``further`` columns are name -> type."""
    import pandera.pandas as pa  # takes a second to load

    def rule(holds, said: str):
        return pa.Check(holds, error=said, n_failure_cases=1)

    given = rule(lambda column: column != "", "is empty")
    return pa.DataFrameSchema(
        {
            "path": pa.Column(str, [given, rule(lambda paths: ~paths.duplicated(), "occurs twice")]),
            "label": pa.Column(str, given),
            "label_id": pa.Column("int64", rule(lambda ids: ids.between(0, ids.nunique() - 1), "leaves a number out")),
            "split": pa.Column(str, rule(lambda splits: splits.isin(["train", "test"]), "is neither train nor test")),
            "group": pa.Column(str),
            "sha256": pa.Column(str, rule(lambda sums: sums.str.fullmatch("([0-9a-f]{64})?"), "is no SHA-256")),
            **{name: pa.Column(kind) for name, kind in further.items()},
        },
        checks=rule(one_to_one, "does not go with its label_id"),
        strict=True,
        ordered=True,
    )


def one_to_one(table: pd.DataFrame) -> pd.Series:
    """True for each row whose label and label_id are those with which the other first occurred."""
    ids = table.groupby("label")["label_id"].transform("first")
    labels = table.groupby("label_id")["label"].transform("first")
    return (table["label_id"] == ids) & (table["label"] == labels)


def checked(table: pd.DataFrame, further: Mapping[str, str], where: Path, remedy: str) -> pd.DataFrame:
    """``table``, if it is a PatchTable; else ``StudyError`` names ``where``, column, first row, and ``remedy``."""
    import pandera.errors

    try:
        return schema(further).validate(table, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        fault = errors.schema_errors[0]
    rule = getattr(fault.check, "error", None) or RULES.get(str(fault.check)) or f"is not of type {fault.schema.dtype}"
    cases, column = fault.failure_cases, fault.column_name
    if isinstance(cases, pd.DataFrame):  # of whole rows, where no column is at fault by itself
        case = cases.iloc[0] if column else cases[cases["column"] == "label"].iloc[0]
        value = repr(case["failure_case"]) if isinstance(case["failure_case"], str) else case["failure_case"]
        said = f"column {column or 'label'}, row {case['index']}: {value} {rule}"
    else:
        said = f"column {column or cases}: {rule}"
    raise StudyError(f"{printable(where)}: is no PatchTable ({printable(said)}); {remedy}.")


def build_table(
    root: Path, rows: list[Row], labels: list[str], hashes: Mapping[str, str] = {}, further: Mapping[str, str] = {}
) -> pd.DataFrame:
    """Make a PatchTable from rows of (path, label, split, group, further columns); rows keep their order.

    ``hashes`` is a census of the files, which ``quarantine`` has examined; without it their bytes are not known.
    """
    table = pd.DataFrame(rows, columns=[*ROW, *further])
    ids = {label: i for i, label in enumerate(labels)}
    table.insert(2, "label_id", table["label"].map(ids))
    table.insert(len(COLUMNS) - 1, "sha256", [hashes.get(path, "") for path in table["path"]])
    return checked(table, further, root, "mend the reader of this data set, lgffem_core/data/sets")


def read_table(path: Path, further: Mapping[str, str] = {}) -> pd.DataFrame:
    """Read the CSV file of a PatchTable; a table that breaks the ``schema`` is an error."""
    text = [*TEXT, *(name for name, kind in further.items() if kind == "str")]
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False)
    except ValueError as error:  # of the parser, and of bytes that are no UTF-8
        raise StudyError(f"{path}: is no PatchTable ({one_line(error)}); run notebook 01 again.") from None
    return checked(table, further, path, "run notebook 01 again")

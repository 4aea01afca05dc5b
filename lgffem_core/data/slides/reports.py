"""What is known of slides beside their pixels: reports, labels, patients, findings. One CSV file beside the slides."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lgffem_core.base.errors import RequestError, one_line

REPORTS = "reports.csv"
COLUMNS = ("report", "label", "group", "prompts")


class Said(NamedTuple):
    """Of one slide; "" and () where nothing is known."""

    report: str = ""
    label: str = ""
    group: str = ""
    prompts: tuple[str, ...] = ()


def read_reports(folder: Path) -> dict[str, Said]:
    """Slide -> what ``reports.csv`` says of it; nothing where there is no such file.

    Columns: slide, a name without suffix, and any of ``COLUMNS``; prompts are separated by ";". ``RequestError`` where
    it has others, or a slide stands there twice.
    """
    path = folder / REPORTS
    if not path.is_file():
        return {}
    table = read_table(path, ("slide",), COLUMNS)
    said = {}
    for row in table.to_dict("records"):
        slide, prompts = row.pop("slide"), row.pop("prompts", "").split(";")
        said[slide] = Said(**row, prompts=tuple(filter(None, map(str.strip, prompts))))
    return said


def read_table(path: Path, needed: tuple[str, ...], further: tuple[str, ...] = ()) -> pd.DataFrame:
    """A CSV file of texts, its first needed column a key; ``RequestError`` says what is wrong with it."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # of the parser, and of bytes that are no UTF-8
        raise RequestError(f"{path}: cannot be read as CSV in UTF-8 ({one_line(error)}).") from None
    wrong = [f"lacks {name}" for name in needed if name not in table.columns]
    wrong += [f"has {name}" for name in table.columns if name not in (*needed, *further)]
    if wrong:
        may = f", and may have {', '.join(further)}" if further else ""
        raise RequestError(f"{path}: {wrong[0]}; its columns must be {', '.join(needed)}{may}.")
    key = table[needed[0]].str.strip()
    if (key == "").any() or key.duplicated().any():
        row = int(((key == "") | key.duplicated()).to_numpy().argmax())
        fault = f"names {key[row]} again" if key[row] else f"has no {needed[0]}"
        raise RequestError(f"{path}: line {row + 2} {fault}; each slide must stand there once.")
    return table.assign(**{name: table[name].str.strip() for name in table.columns})

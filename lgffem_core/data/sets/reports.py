"""Reports: slides in record form with their diagnosis reports, ``**/<slide>.safetensors`` (see ``data.records``)."""

import hashlib
from pathlib import Path

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.data.sets.base import DataSet, Row

NO_REPORT = "holds no report; write one into the record, or make it again from its slide with one"
LEAST = 2  # slides of a split: one alone has nothing to be told from


class Reports(DataSet):
    """A row a slide. ``group`` is the patient; patients are split, never slides."""

    name = "reports"
    where = (
        "Reports: slides in record form, each with its report and label; make them from your slides (docs/own_data.md) "
        "and set data.reports.root to their folder"
    )
    images, suffixes = ".+", (".safetensors",)
    pictures = False
    may_lose = ("train", "test")

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Rows in natural order. ``RequestError`` where there is no record, or a sound one has no label."""
        from lgffem_core.data.headers import about

        headers = {path: about(root / path) for path in self.image_files(root)}
        labels = sorted({header["label"] for header in headers.values() if header})
        if not labels:
            raise RequestError(f"{root}: holds no record of a slide. {self.where}.")
        if "" in labels:
            first = next(path for path, header in headers.items() if header and not header["label"])
            raise RequestError(f"{root / first}: has no label, so that no answer could be right; make it with one.")
        # A damaged record is a fault, found when it is examined: until then it passes as one of the first label.
        known = {path: header or {"label": labels[0], "group": "", "slide": path} for path, header in headers.items()}
        rows = {path: (header["label"], header["group"] or header["slide"]) for path, header in known.items()}
        tested = held_out(rows.values(), settings.test_fraction)
        split = {group: "test" if group in tested else "train" for _, group in rows.values()}
        first: dict[str, str] = {}
        for path, header in known.items():
            if header["slide"] in first:
                raise RequestError(
                    f"{root / path}: is of slide {header['slide']}, as {first[header['slide']]} is; it would find "
                    "itself: keep one."
                )
            first[header["slide"]] = path
        for side in ("train", "test"):
            if (count := sum(split[group] == side for _, group in rows.values())) < LEAST:
                raise RequestError(
                    f"{root}: of {len(rows)} slides {count} would be split {side}, and each split needs {LEAST}; give "
                    "more patients of a label, or set data.reports.test_fraction to another share."
                )
        return [(path, label, split[group], group) for path, (label, group) in rows.items()], labels

    def unsound(self, path: Path) -> str | None:
        """What is wrong with a record; without a report there is nothing to learn from."""
        from lgffem_core.data.records import read_record

        try:
            return None if read_record(path).report else NO_REPORT
        except StudyError as error:
            return str(error).removeprefix(f"{path}: ")

    def write_synthetic(self, settings, root: Path) -> None:
        """``slide000.safetensors`` and so on."""
        from lgffem_core.data.records import write_record
        from lgffem_core.data.synthetic.reports import slide

        for number in range(settings.reports_slides):
            record = slide(settings, number)
            write_record(root / f"{record.slide}.safetensors", record)


def held_out(rows, fraction: float) -> set[str]:
    """The patients that are held out: of each label's, in the order of their names' hashes, the first ``fraction``.

    So a patient more changes the split of few others. One with slides of two labels counts under the first.
    """
    label_of: dict[str, str] = {}
    for label, group in rows:
        label_of.setdefault(group, label)
    tested = set()
    for label in set(label_of.values()):
        groups = sorted(
            (g for g in label_of if label_of[g] == label), key=lambda g: hashlib.sha256(g.encode()).digest()
        )
        tested |= set(groups[: round(fraction * len(groups))])
    return tested


SET = Reports()

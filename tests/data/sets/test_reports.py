"""Slides in record form as a data set: layout, split by patient, faults by name, the index."""

from dataclasses import replace

import numpy as np
import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Reports as Settings
from lgffem_core.config.study import Study
from lgffem_core.data import data_report, patch_table, prepare, sets
from lgffem_core.data.records import Record, anchors, read_record, write_record
from lgffem_core.data.sets.reports import held_out

SMOKE = PROJECT / "params" / "smoke.yaml"
POSITIONS = np.stack(np.divmod(np.arange(12), 4), axis=1).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of twelve slides of two labels and six patients."""

    def make(change=lambda record: record):
        for number in range(12):
            features = np.random.default_rng(number).standard_normal((12, 3)).astype(np.float16)
            label, patient = "ab"[number % 2], f"p{number % 6}"
            record = Record(f"s{number}", features, POSITIONS, anchors(POSITIONS), report="fat", label=label)
            write_record(tmp_path / "own" / f"s{number}.safetensors", change(replace(record, group=patient)))
        return tmp_path / "own"

    return make


def study_of(root, **overrides):
    wanted = {"systems": ["fgcr"], "data.reports.root": str(root), **overrides}
    return Study.load(SMOKE, wanted, root=root.parent / "out")


def test_rows_are_slides_in_natural_order_with_their_patients(folder):
    rows, labels = sets.get("reports").layout(folder(), Settings(test_fraction=0.34))
    assert labels == ["a", "b"] and [row[0] for row in rows] == [f"s{number}.safetensors" for number in range(12)]
    assert [row[1] for row in rows] == ["a", "b"] * 6 and [row[3] for row in rows] == [f"p{i % 6}" for i in range(12)]
    split = {}
    for _, _, own, patient in rows:
        assert split.setdefault(patient, own) == own
    tested = {patient for patient, own in split.items() if own == "test"}
    assert len(tested) == 2 and {int(patient[1]) % 2 for patient in tested} == {0, 1}  # one of three of each label


def test_a_slide_without_a_patient_is_one_by_itself(folder):
    rows, _ = sets.get("reports").layout(folder(lambda record: replace(record, group="")), Settings())
    assert [row[3] for row in rows] == [f"s{number}" for number in range(12)]


def test_more_patients_leave_most_of_the_split_as_it_was():
    few = [("a", f"p{i}") for i in range(100)]
    before, after = held_out(few, 0.3), held_out([*few, ("a", "new")], 0.3)
    assert len(before) == 30 and len(before ^ after) <= 2
    assert held_out([("a", "p"), ("b", "p")], 0.9) == {"p"}


def test_it_is_prepared_like_any_set_and_its_faults_are_named(folder):
    root = folder()
    (root / "s3.safetensors").write_bytes((root / "s3.safetensors").read_bytes()[:-2])
    write_record(root / "s4.safetensors", replace(read_record(root / "s4.safetensors"), report=""))
    (root / "s5.safetensors").write_bytes(b"")
    with pytest.raises(
        RequestError, match=r"3 faulty files \(1 empty, 2 unsound\); the first is .*s3.safetensors: is dam"
    ):
        prepare(study_of(root), "reports")
    lenient = study_of(root, **{"data.faulty_files": "leave_out"})
    table = prepare(lenient, "reports")
    assert len(table) == 9 and patch_table(lenient, "reports").equals(table)
    report = data_report(lenient, ["reports"]).set_index("file")["reason"]
    assert "s3.safetensors" not in report["s3.safetensors"] and "is damaged" in report["s3.safetensors"]
    assert report["s4.safetensors"].startswith("holds no report; write one into the record")
    assert str(root) not in " ".join(report)


def test_a_folder_without_records_or_with_an_unlabelled_one_is_refused(folder, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(RequestError, match="none: holds no record of a slide. Reports: slides in record form"):
        sets.get("reports").layout(tmp_path / "none", Settings())
    root = folder(lambda record: replace(record, label="" if record.slide == "s2" else record.label))
    with pytest.raises(RequestError, match="s2.safetensors: has no label, so that no answer could be right"):
        sets.get("reports").layout(root, Settings())


def test_a_slide_that_is_there_twice_is_refused(folder):
    """It would find itself, whatever a model has learned."""
    root = folder()
    write_record(root / "copy" / "a.safetensors", read_record(root / "s3.safetensors"))
    with pytest.raises(RequestError, match=r"s3.safetensors: is of slide s3, as copy/a.safetensors is; .*keep one"):
        sets.get("reports").layout(root, Settings())


@pytest.mark.parametrize(("share", "lacks"), [(0.1, "0 would be split test"), (0.9, "0 would be split train")])
def test_slides_of_which_none_is_held_out_or_none_is_left_are_refused(folder, share, lacks):
    with pytest.raises(RequestError, match=rf"of 12 slides {lacks}, and each split needs 2; give more patients"):
        sets.get("reports").layout(folder(), Settings(test_fraction=share))

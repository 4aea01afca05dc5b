"""What SMSE is tested and trained on, and what a start is told of it."""

import subprocess
import sys

import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.run.checklist import checklist
from lgffem_core.systems.smse.runs import Run, runs
from lgffem_core.systems.smse.splits import faults, fold_split, training_rows
from lgffem_core.systems.smse.training import train_all

EVERY = (40, 100, 200, 400)
RUN = Run("triplet", "reinforced_focal", EVERY)


def test_no_patient_is_on_both_sides(smse):
    study = smse()
    for fold in (1, 2):
        table, inside = fold_split(study, fold)
        rows = training_rows(study, RUN, fold)
        assert not {*table["group"][inside]} & {*rows["group"]}
        assert {*table["group"][inside]} | {*rows["group"]} == {*table["group"]}
    both = [set(fold_split(study, fold)[0]["group"][fold_split(study, fold)[1]]) for fold in (1, 2)]
    assert not both[0] & both[1]


def test_a_fold_that_is_none_is_refused(smse):
    with pytest.raises(RequestError, match=r"smse.folds: in fold 7, no benign image is tested; .*there are 1, 2\)"):
        fold_split(smse(), 7)


def test_what_training_would_refuse_is_told_before_a_run_by_the_same_sentence(smse, smse_data, tmp_path):
    assert faults(smse()) == [] == checklist(smse())
    for study in (smse(smse__folds=[7, 1]), smse(smse__image_size=[6, 8], smse__padded=False)):
        with pytest.raises(RequestError) as said:
            train_all(study, runs(study), 0)
        assert checklist(study) == [str(said.value)]
    last = len(training_rows(smse(), RUN, 1)) - 1  # an epoch of two batches, the second of one image
    study = smse(smse__folds=[1], smse__network="resnet18", smse__image_size=[32, 32], smse__batch_size=last)
    with pytest.raises(RequestError, match=f"of {last + 1} images in batches of {last} one is left alone") as said:
        train_all(study, {"plain": runs(study)["plain"]}, 0)
    assert checklist(study) == [str(said.value)]
    (packed := tmp_path / "packed").mkdir()
    (packed / "BreaKHis_v1.tar.gz").write_bytes(b"not unpacked yet")
    (packed / "dsfold2.txt").write_text("")
    asked = {"data__breakhis__root": str(packed)}
    assert faults(smse(**asked, smse__folds=[2])) == []
    (item,) = checklist(smse(**asked, smse__folds=[2, 3]))
    assert item.startswith("smse.folds: in fold 3, no benign image is tested; name folds of data.breakhis")


def test_a_start_with_ones_own_breakhis_loads_no_torch(smse_data):
    ask = (
        "import sys; from lgffem_core.run.checklist import checklist; from lgffem_core.config.study import Study;"
        f"of = {{'systems': ['smse'], 'data.breakhis.root': {str(smse_data)!r}, 'smse.folds': [1]}};"
        "small = {'smse.network': 'six_convolutions', 'smse.image_size': [6, 8], 'smse.padded': False};"
        "fine, refused = (checklist(Study.load('params/smoke.yaml', of | more)) for more in ({}, small));"
        "assert fine == [] and refused[0].startswith('smse.image_size: six') and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", ask], cwd=PROJECT, check=True)

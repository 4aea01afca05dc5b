"""Training by the study's trainer: exact resume, the two schedules, what is kept, runs that differ in one thing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.study import Study
from lgffem_core.data import images_root, prepare
from lgffem_core.data.records import read_record, write_record
from lgffem_core.run.checklist import checklist
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.comparison import ALL, NO_FINE, TERMS, ablation_runs, ledger_runs, run_of
from lgffem_core.systems.fgcr.losses import FINE
from lgffem_core.systems.fgcr.readings import READINGS, read_ledger, toggles
from lgffem_core.systems.fgcr.training import learning_rate, train, trained_model
from lgffem_core.training import loop

SMOKE = PROJECT / "params" / "smoke.yaml"


@pytest.fixture
def archive(study):
    prepare(study, "reports")
    return Archive.load(study)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", READINGS)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(study, archive, monkeypatch, name):
    run = run_of(study, name, 0)
    run = replace(run, settings=run.settings.model_copy(update={"epochs": 4, "batch_size": 4}))  # 3 steps an epoch
    whole = load_tensors(train(study, archive, run).weights)[0]
    for file in run.folder.iterdir():
        file.unlink()
    original = loop.Trainer.train_step

    def at_seven(self, step, *rest):
        if step == 7:
            raise Killed
        return original(self, step, *rest)

    monkeypatch.setattr(loop.Trainer, "train_step", at_seven)
    with pytest.raises(Killed):
        train(study, archive, run)
    assert list(run.folder.glob("step_*")) and not (run.folder / "model.safetensors").exists()
    began = []

    def counted(self, step, *rest):
        began.append(step)
        return original(self, step, *rest)

    monkeypatch.setattr(loop.Trainer, "train_step", counted)
    again = load_tensors(train(study, archive, run).weights)[0]
    assert began[0] == 6 and began[-1] == 11
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_run_without_a_term_also_goes_on(study, archive, monkeypatch):
    """Its heads get no gradient, so that the optimiser knows nothing of them."""
    run = next(run for run in ablation_runs(study) if run.name == NO_FINE)
    run = replace(run, settings=run.settings.model_copy(update={"epochs": 2}))
    whole = load_tensors(train(study, archive, run).weights)[0]
    (run.folder / "model.safetensors").unlink()
    sorted(run.folder.glob("step_*"))[-1].unlink()
    again = load_tensors(train(study, archive, run).weights)[0]
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert trained_model(study, archive, run).training is False


def test_the_schedules_fall_once_or_rise_again(study):
    settings = study.params.fgcr.model_copy(update={"epochs": 150, "lr": 3e-4, "lr_min": 5e-8})
    once = [learning_rate(step, 2, settings, "once") for step in range(300)]
    assert once[0] == 3e-4 and once[-1] == pytest.approx(5e-8) and np.all(np.diff(once) <= 0)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=45, eta_min=5e-8)
    for epoch in range(150):
        ours = learning_rate(2 * epoch + 1, 2, settings, "rising_again")
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-12)
        optimizer.step(), theirs.step()


def test_other_settings_are_another_run_and_what_shows_is_not(study, archive):
    from lgffem_core.systems.fgcr.training import fingerprint

    def of(**overrides):
        other = Study.load(SMOKE, {"data.synthetic.datasets": ["reports"], **overrides}, root=study.root)
        return fingerprint(other, archive, run_of(other, "paper", 0))

    base = of()
    for key, value in {"fgcr.lr": 0.5, "fgcr.loss.cross.used": False, "fgcr.toggles.mask": "after"}.items():
        assert of(**{key: value}) != base, key
    for key, value in {"fgcr.k": 3, "fgcr.compared_epochs": 7, "retrieval.bootstrap": 300}.items():
        assert of(**{key: value}) == base, key


def test_runs_of_ablation_and_ledger_differ_in_one_thing(study):
    base, *others = ablation_runs(study)
    assert base.name == ALL and [run.name for run in others] == [*(f"without {name}" for name in TERMS), NO_FINE]
    for run in others:
        off = {name for name in TERMS if not getattr(run.settings.loss, name).used}
        assert off == (set(FINE) if run.name == NO_FINE else {run.name.removeprefix("without ")})
        assert (run.toggles, run.seed, run.settings.epochs) == (base.toggles, base.seed, base.settings.epochs)
    runs = ledger_runs(study)
    assert runs[0].seed == base.seed + 1 and runs[0].toggles == base.toggles
    changed = [{name for name, value in run.toggles if value != getattr(base.toggles, name)} for run in runs.values()]
    assert changed[1:] == [{row.toggle} for row in read_ledger() if row.toggle]
    assert len({run.folder for run in (base, *others, *runs.values())}) == len(others) + len(runs) + 1


def test_the_ledger_has_a_row_for_each_toggle_with_the_readings_values():
    rows = {row.toggle: row for row in read_ledger() if row.toggle}
    assert set(rows) == set(READINGS["paper"].model_dump())
    for name, row in rows.items():
        assert row.values[0] == getattr(READINGS["paper"], name)
        if row.kind == "disagreement":
            assert row.values[1] == getattr(READINGS["released"], name)
        else:  # both readings do the same, and the row measures the other
            assert getattr(READINGS["released"], name) == row.values[0] != row.values[1]


def test_a_toggle_can_be_set_alone(study):
    other = Study.load(SMOKE, {"fgcr.toggles.mask": "after"}, root=study.root)
    assert toggles(other, "paper") == READINGS["paper"].model_copy(update={"mask": "after"})


# -- what is wrong with an archive ----------------------------------------------------------------------------


def changed_archive(study, change):
    """The archive's folder with each record as ``change`` makes it, given as the user's own."""
    prepare(study, "reports")
    root = images_root(study, "reports")
    target = study.root / "own"
    for path in sorted(root.iterdir()):
        write_record(target / path.name, change(read_record(path)))
    return Study.load(SMOKE, {"systems": ["fgcr"], "data.reports.root": str(target)}, root=study.root)


def test_records_of_two_encoders_do_not_go_together(study):
    own = changed_archive(study, lambda r: replace(r, encoder="another") if r.slide == "slide003" else r)
    with pytest.raises(StudyError, match="slide slide003: has 8 numbers a patch by encoder 'another', slide slide000"):
        Archive.load(own)


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        (lambda r: replace(r, encoder="another") if r.slide == "slide003" else r, {}, "make all records with one enc"),
        (lambda r: replace(r, prompts=(), findings=None), {}, "data.reports: no record has prompts"),
        (lambda r: replace(r, prompts=("two words",), findings=None), {}, "prompt 'two words' is not one word"),
        (lambda r: r, {"fgcr.tokens": 3}, "fgcr.tokens is 3; raise it"),
        (lambda r: replace(r, report=f"{r.slide}."), {"fgcr.unknown_words": "refuse"}, "is in no training report"),
    ],
)
def test_what_an_archive_would_refuse_is_told_before_a_run_by_the_same_sentence(study, change, asked, said):
    own = changed_archive(study, change)
    own = Study.load(SMOKE, {"systems": ["fgcr"], "data.reports.root": str(study.root / "own"), **asked}, own.root)
    with pytest.raises(StudyError) as refused:
        Archive.load(own)
    assert checklist(own) == [str(refused.value)] and said in str(refused.value)


def test_records_that_go_together_and_those_that_notebook_01_is_to_tell_of_pass_the_checklist(study):
    own = changed_archive(study, lambda r: replace(r, report="", encoder="x") if r.slide == "slide003" else r)
    assert checklist(own) == [] == checklist(study)


def test_a_record_without_a_report_is_a_fault_by_name_and_may_be_left_out(study):
    own = changed_archive(study, lambda r: replace(r, report="") if r.slide == "slide003" else r)
    with pytest.raises(RequestError, match="1 faulty file .*slide003.safetensors: holds no report; write one into"):
        Archive.load(own)
    lenient = Study.load(
        SMOKE,
        {"systems": ["fgcr"], "data.reports.root": str(study.root / "own"), "data.faulty_files": "leave_out"},
        root=study.root,
    )
    assert len(Archive.load(lenient).records) == 23


def test_an_archive_without_prompts_is_refused(study):
    own = changed_archive(study, lambda r: replace(r, prompts=(), findings=None))
    with pytest.raises(StudyError, match="no record has prompts.*or set fgcr.prompts to words of the reports"):
        Archive.load(own)


def test_words_of_the_reports_can_stand_for_prompts_where_records_have_none(study):
    own = changed_archive(study, lambda r: r if r.slide == "slide003" else replace(r, prompts=(), findings=None))
    given = {"fgcr.prompts": ["fat", "necrosis"], "fgcr.unknown_words": "one_token"}
    named = Study.load(
        SMOKE, {"systems": ["fgcr"], "data.reports.root": str(study.root / "own"), **given}, root=own.root
    )
    for record in (archive := Archive.load(named)).records:
        said = record.report.lower().replace(".", " ").split()
        if record.slide != "slide003":
            assert record.prompts == tuple(word for word in ("fat", "necrosis") if word in said)
    whole = next(record for record in archive.records if record.slide == "slide003")
    assert "lymphocytes" in whole.prompts
    assert {"fat", "necrosis", *whole.prompts} == set(archive.tokenizer.prompts)

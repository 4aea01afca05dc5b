"""A checkpoint's writing, disturbed at every call to the operating system: no error passes, no state is lost."""

import errno
import os
import resource
import signal
import traceback

import pytest
import torch

from lgffem_core.base import files
from lgffem_core.base import tensors as module
from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import remove_leftovers
from lgffem_core.systems.lgffem.__main__ import main
from lgffem_core.systems.lgffem.strategies import train_strategy
from lgffem_core.training import loop
from lgffem_core.training.checkpoint import (
    Checkpoint,
    checkpoint_files,
    checkpoint_path,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

CALLS = ("mkdir", "open", "write", "open", "fsync", "replace", "open folder", "fsync", "unlink")
MID_WRITE = CALLS.index("write")


def a_checkpoint(step):
    tensors = {f"model/{i}": torch.full((20,), step / (i + 3)) for i in range(3)}
    return Checkpoint(step, "f", [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 5e-3}], tensors)


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints of steps 5 and 10, so that saving step 15 also removes one."""
    for step in (5, 10):
        save_checkpoint(tmp_path, a_checkpoint(step))
    return tmp_path


def check_newest(folder, *steps):
    """The newest checkpoint is a valid one of ``steps``, to the bit."""
    newest = newest_checkpoint(folder, "f")
    assert newest is not None and newest.step in steps
    expected = a_checkpoint(newest.step)
    assert newest.history == expected.history
    assert all(torch.equal(newest.tensors[name], tensor) for name, tensor in expected.tensors.items())


def check_goes_on(folder):
    """The next run tidies up, saves the step again, and has it and the one before."""
    remove_leftovers(folder)
    assert sorted(folder.iterdir()) == sorted(checkpoint_files(folder))
    save_checkpoint(folder, a_checkpoint(15))
    assert [load_checkpoint(path).step for path in checkpoint_files(folder)] == [15, 10]


class Disturb:
    """Counts the calls that saving makes, and does ``act`` before, after or (a write) in the middle of the n-th."""

    def __init__(self, monkeypatch, n=None, when="before", act=None):
        self.n, self.when, self.act, self.names = n, when, act, []
        for name in ("mkdir", "fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self.around(name, getattr(os, name)))
        monkeypatch.setattr(os, "open", self.around("open folder", os.open))
        for owner in (module, files):
            monkeypatch.setattr(owner, "open", self.around("open", self.open_file), raising=False)

    def around(self, name, call):
        def disturbed(*arguments, **options):
            mine, _ = len(self.names) == self.n, self.names.append(name)
            if mine and self.when == "before":
                self.act()
            try:
                return call(*arguments, **options)
            finally:  # mkdir of a folder that is there raises, which is as it should be
                if mine and self.when == "after":
                    self.act()

        return disturbed

    def open_file(self, path, mode):
        file = open(path, mode)
        return DisturbedFile(file, self) if mode == "wb" else file


class DisturbedFile:
    def __init__(self, file, disturb):
        self.file, self.disturb = file, disturb
        self.write = disturb.around("write", self.write_in_halves)

    def write_in_halves(self, contents):
        half = len(contents) // 2
        for part in (contents[:half], contents[half:]):
            self.file.write(part)
            self.file.flush()
            if self.disturb.when == "middle":
                self.disturb.act()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def in_a_fork(body):
    """Run ``body`` in a forked child; returns the child's wait status (0: it came to its end)."""
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return os.waitpid(child, 0)[1]


def refusal(number):
    def act():
        raise OSError(number, os.strerror(number))

    return act


def test_the_calls_are_those_that_are_disturbed_below(folder, monkeypatch):
    """The list is written by hand: a call that saving makes some day and nobody disturbs fails here."""
    disturb = Disturb(monkeypatch)
    save_checkpoint(folder, a_checkpoint(15))
    assert tuple(disturb.names) == CALLS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO], ids=["full", "denied", "input/output"])
@pytest.mark.parametrize("n", range(1, len(CALLS)), ids=[f"{n}-{name}" for n, name in enumerate(CALLS)][1:])
def test_a_refused_call_is_one_sentence_and_loses_nothing(folder, monkeypatch, n, number):
    with monkeypatch.context() as patch, pytest.raises(StudyError) as caught:
        Disturb(patch, n, "before", refusal(number))
        save_checkpoint(folder, a_checkpoint(15))
    sentence = str(caught.value)
    path = checkpoint_path(folder, 5 if CALLS[n] == "unlink" else 15)
    assert sentence.startswith(f"{path}: cannot be ") and f"({os.strerror(number)}); " in sentence
    assert "\n" not in sentence and files.REMEDIES[number] in sentence and caught.value.exit_code == 1
    check_newest(folder, *((15,) if n > CALLS.index("replace") else (10,)))
    assert remove_leftovers(folder) == []
    check_goes_on(folder)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    Disturb(monkeypatch, 0, "before", refusal(errno.EACCES))
    with pytest.raises(StudyError, match=r"15.safetensors: cannot be written \(Permission denied\); make it writable"):
        save_checkpoint(tmp_path / "new", a_checkpoint(15))


@pytest.mark.parametrize("when", ["before", "after", "middle"])
def test_a_kill_at_any_call_loses_nothing(folder, monkeypatch, when):
    for n in [MID_WRITE] if when == "middle" else range(len(CALLS)):

        def save_and_die(n=n):
            Disturb(monkeypatch, n, when, lambda: os.kill(os.getpid(), signal.SIGKILL))
            save_checkpoint(folder, a_checkpoint(15))

        checkpoint_path(folder, 15).unlink(missing_ok=True)
        save_checkpoint(folder, a_checkpoint(5))
        save_checkpoint(folder, a_checkpoint(10))
        assert in_a_fork(save_and_die) == signal.SIGKILL
        renamed = n > CALLS.index("replace") or (n == CALLS.index("replace") and when == "after")
        check_newest(folder, 15 if renamed else 10)
        begun = CALLS.index("write") + (when == "before") <= n <= CALLS.index("replace") - (when == "after")
        if begun or when == "middle":
            assert len([path for path in folder.iterdir() if files.TEMPORARY.fullmatch(path.name)]) == 1
        check_goes_on(folder)


def test_a_file_that_cannot_grow_is_refused_at_every_length(folder):
    """Real partial writes: the system lets the file grow to n bytes and no further (RLIMIT_FSIZE)."""
    size, hard = checkpoint_path(folder, 10).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def save_within(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save_checkpoint(folder, a_checkpoint(15))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def sweep():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in [*range(0, size, 13), size - 1]:
            with pytest.raises(StudyError, match=r"15.safetensors: cannot be written \(File too large\); raise the"):
                save_within(limit)
            check_newest(folder, 10)
            assert sorted(folder.iterdir()) == sorted(checkpoint_files(folder))
        save_within(size)
        check_newest(folder, 15)

    assert in_a_fork(sweep) == 0


def test_a_full_disk_ends_training_in_one_sentence_and_it_goes_on(tiny_study, monkeypatch, capsys):
    study = tiny_study()
    expected = train_strategy(tiny_study("whole"), "a", "paper", 0)
    monkeypatch.setattr("lgffem_core.run.stages.Study.load", lambda *a: study)
    saved, original = [], loop.save_checkpoint

    def fill_the_disk_at_the_second(*arguments):
        with monkeypatch.context() as patch:
            if saved:
                Disturb(patch, MID_WRITE, "middle", refusal(errno.ENOSPC))
            saved.append(original(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", fill_the_disk_at_the_second)
        assert main(["params/smoke.yaml", "--strategy", "a"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "No space left on device); free space, then give the same" in printed.err
    steps, original = [], loop.Trainer.train_step
    monkeypatch.setattr(loop.Trainer, "train_step", lambda self, n, *r: steps.append(n) or original(self, n, *r))
    assert main(["params/smoke.yaml", "--strategy", "a"]) == 0
    assert steps == [3, 4, 5]
    weights = study.checkpoints("a", "paper", 0) / "model.safetensors"
    assert weights.read_bytes() == expected.weights.read_bytes()

"""The hours of the published schedule: from a kept measurement of this kind of device, or from a short one."""

import json

import pytest
import torch

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run import hours
from lgffem_core.run.cli import hours_of

PAPER = PROJECT / "params" / "paper.yaml"
HERE = {"compute.device": "cpu", "compute.threads": 3, "compute.precision": "bf16-mixed"}

PLAIN = {"compute.fast": False, "compute.precision": "auto"}


def paper(**overrides):
    return Study.load(PAPER, {**HERE, **overrides})


@pytest.fixture
def measured(tmp_path):
    """A folder with the measurement of this processor at three threads, and one of another device."""
    for name, device, rate in (("", torch.cpu.get_capabilities()["cpu_name"], 2.5), ("_gpu", "Some GPU", 9e9)):
        (tmp_path / f"speed_training{name}.json").write_text(json.dumps({"device": device, "threads": 3}))
        rows = f'this study,bf16-mixed,{rate}\n"this study, compute.fast=false",32-true,{rate / 2}\n'
        rows += "the authors',32-true,7\nthe authors',32-true,8\n"
        (tmp_path / f"speed_training{name}.csv").write_text(f"code,precision,images_per_s\n{rows}")
    return tmp_path


def test_a_rate_is_that_of_this_kind_of_device_as_the_profile_uses_it(measured):
    assert hours.kept_rate(paper(), measured)[0] == 2.5
    assert hours.kept_rate(paper(**PLAIN), measured)[0] == 1.25
    assert hours.kept_rate(paper(**{"compute.threads": 2}), measured) is None
    (measured / "speed_training.json").unlink()
    assert hours.kept_rate(paper(), measured) is None


def test_a_measurement_without_the_row_that_is_asked_for_is_none(measured):
    """As the one of a GPU, on which float32 was not measured."""
    table = measured / "speed_training.csv"
    table.write_text("".join(line for line in table.open() if "fast=false" not in line))
    assert hours.kept_rate(paper(**PLAIN), measured) is None
    assert hours.kept_rate(paper(), measured)[0] == 2.5


def test_another_processor_of_the_name_may_multiply_in_another_precision(measured):
    """As an "AMD EPYC" of some years ago, which has no bfloat16 and takes twice the time."""
    assert hours.kept_rate(paper(**{"compute.precision": "32-true"}), measured) is None


def test_hours_are_images_times_epochs_by_the_rate():
    table = hours.projection(100.0).set_index("strategy")["hours"]
    images = {
        "a": 1_281_167 * 60,
        "b": (2656 + 2523 + 2722) * 300,
        "c": 22_591 * 300,
    }  # section 4.1
    assert {name: table[name] for name in images} == pytest.approx({n: i / 100 / 3600 for n, i in images.items()})
    assert table["all"] == pytest.approx(sum(images.values()) / 360_000)


def test_they_are_told_with_their_source(monkeypatch):
    monkeypatch.setattr(hours, "kept_rate", lambda study: (100.0, "measured somewhere"))
    (said,) = hours_of(paper(seeds=[0, 1, 2], variants=["paper"]))
    assert "about 239 hours" in said and "3 of them, for variants and seeds, 717" in said and "somewhere" in said
    monkeypatch.setattr(hours, "kept_rate", lambda study: None)
    monkeypatch.setattr(hours, "short_rate", lambda study: 200.0)
    (said,) = hours_of(paper(variants=["paper"]))
    assert "about 119 hours" in said and "just now" in said and "of them" not in said


@pytest.mark.parametrize("other", [{"training.c.epochs": 3}, {"model.image_size": 96}])
def test_another_schedule_or_model_has_none(other):
    assert hours.published_schedule(paper()) and hours_of(paper(**other)) == []
    assert all(hours_of(Study.load(PROJECT / "params" / f"{name}.yaml")) == [] for name in ("demo", "archive"))


def test_a_device_that_is_not_there_is_for_the_checklist_to_say(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hours_of(paper(**{"compute.device": "cuda"})) == []


def test_a_short_measurement_counts_images_of_whole_steps(tiny_study, monkeypatch):
    monkeypatch.setattr(hours, "PATIENCE", 0)
    clock = iter([10.0, 12.0])  # the loop's own clock: one step, two seconds
    monkeypatch.setattr(hours.time, "perf_counter", lambda: next(clock, 12.0))
    assert hours.short_rate(tiny_study()) == 1.0

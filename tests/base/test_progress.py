"""Progress: events pass through a file, a half-written line waits, and a notebook prints little."""

import json

import pytest

from lgffem_core.base import progress
from lgffem_core.base.progress import LINES, VARIABLE, EpochLines, clock, emit, read_events


@pytest.fixture
def events(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_events_are_read_in_order_and_once(events):
    emit("started", stage="one")
    emit("finished", stage="one", seconds=1.5)
    first, position = read_events(events)
    assert [event["event"] for event in first] == ["started", "finished"] and first[1]["seconds"] == 1.5
    emit("started", stage="two")
    second, position = read_events(events, position)
    assert [event["stage"] for event in second] == ["two"]
    assert read_events(events, position) == ([], position)


def test_a_half_written_line_waits_for_its_end(events):
    line = json.dumps({"event": "epoch", "strategy": "µ"}, ensure_ascii=False).encode()
    for cut in range(len(line) + 1):
        events.write_bytes(b'{"event": "started"}\n' + line[:cut])
        seen, position = read_events(events)
        assert [event["event"] for event in seen] == ["started"]
        events.write_bytes(b'{"event": "started"}\n' + line + b"\n")
        assert read_events(events, position)[0] == [json.loads(line)]


def test_nothing_is_written_where_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    emit("started", stage="one")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_no_events_yet(tmp_path):
    assert read_events(tmp_path / "none.jsonl", 0) == ([], 0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (65, "1:05"), (3600, "1:00:00"), (3725, "1:02:05")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 60, 300])
def test_a_training_run_prints_few_lines_and_always_the_last(events, capsys, epochs):
    lines = EpochLines("strategy B", epochs)
    for epoch in range(epochs):
        lines.epoch_done(epoch, 8 * (epoch + 1), 1.0, 1e-3)
    printed = capsys.readouterr().out.splitlines()
    assert 1 <= len(printed) <= LINES + 1 and f"epoch {epochs:>3}/{epochs}" in printed[-1]
    told = [event["epoch"] for event in read_events(events)[0]]
    assert told == list(range(1, epochs + 1))


@pytest.mark.parametrize(("lines", "printed"), [(1, [1, 10]), (2, [1, 6, 10]), (5, [1, 3, 5, 7, 9, 10])])
def test_a_training_of_slides_says_slides_and_may_print_fewer_lines(events, capsys, lines, printed):
    told = EpochLines("FGCR", 10, lines=lines, unit="slides")
    for epoch in range(10):
        told.epoch_done(epoch, 8 * (epoch + 1), 1.0, 1e-3)
    said = capsys.readouterr().out.splitlines()
    assert [int(line.split("epoch")[1].split("/")[0]) for line in said] == printed
    assert all(" slides/s" in line and "images" not in line for line in said)
    assert [event["unit"] for event in read_events(events)[0]] == ["slides"] * 10


def test_speed_and_time_left_follow_the_clock(events, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = EpochLines("strategy A", epochs=10, first=4)  # a run that goes on after epoch 4
    now[0] += 20
    lines.epoch_done(epoch=5, samples=160, loss=1.0, lr=1e-3)  # two epochs in 20 s, four to go
    event = read_events(events)[0][0]
    assert event["per_second"] == pytest.approx(8) and event["seconds_left"] == pytest.approx(40)
    assert (event["epoch"], event["epochs"], event["unit"]) == (6, 10, "images")


def test_a_quiet_process_says_nothing(events, capsys):
    EpochLines("strategy A", 2, quiet=True).epoch_done(0, 8, 1.0, 1e-3)
    assert capsys.readouterr().out == "" and not events.exists()

"""The command ``slides``: faults among good slides, a kill half way, what is done before."""

import errno
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Synthetic
from lgffem_core.data.records import read_record
from lgffem_core.data.sets.patchgastric import GRID
from lgffem_core.data.slides.reading import WholeSlide
from lgffem_core.data.synthetic.biopsies import write_biopsies
from lgffem_core.retrieval.encoder import embed_images
from lgffem_core.run import slides
from lgffem_core.run.cli import main
from lgffem_core.run.slides import encoder_of, make_records, read_list
from lgffem_core.systems.baselines.evaluation import DENSENET
from lgffem_core.systems.lgffem.strategies import train_strategy

BOXES = (0, 0, 64, 128), (128, 64, 192, 192)


@pytest.fixture
def ten(tmp_path, slide_file, dyed):
    """Ten slides of six tiles, and reports of all but the last."""
    root = tmp_path / "slides"
    for number in range(10):
        slide_file(root / f"s{number}.svs", dyed(200, 260, *BOXES, seed=number))
    lines = [f's{number},"Report {number}.",label {number % 2}' for number in range(9)]
    (root / "reports.csv").write_text("\n".join(["slide,report,label", *lines]))
    return root


@pytest.fixture
def study(tiny_study):
    """A study whose frozen backbone has random weights; tiles of 32 pixels."""

    def make(**changes):
        return tiny_study(
            **{"model__backbone__pretrained": False, "slides__pixels": 32, "slides__tissue": 0.9, **changes}
        )

    return make


@pytest.fixture
def made(tmp_path, study):
    """Makes records of a folder; the exit code and what was said."""

    def make(folder, out="records", **changes):
        said = []
        return make_records(study(**changes), folder, tmp_path / out, said.append), said

    return make


def test_each_slide_becomes_a_record_with_its_report(ten, made, study, tmp_path):
    code, said = made(ten)
    out = tmp_path / "records"
    table = pd.read_csv(out / "slides.csv").set_index("slide")
    assert code == 0 and (table["state"] == "done").all() and list(table.index) == [f"s{n}" for n in range(10)]
    assert table["report"].tolist() == ["yes"] * 9 + ["no"] and (table["patches"] == 16).all()
    assert said[0].startswith("10 slides, untrained backbone; records go to ")
    assert said[-1] == f"10 of 10 slides are records, 1 without a report; list: {out / 'slides.csv'}"
    encoder = encoder_of(study())
    for number in range(10):
        record, slide = read_record(out / f"s{number}.safetensors"), WholeSlide(ten / f"s{number}.svs")
        places = [(row, column) for row in range(2) for column in range(4)]
        places += [(row, column) for row in range(4, 6) for column in range(2, 6)]
        assert record.positions.tolist() == [list(map(float, place)) for place in places]
        images = [slide.read(column * 32, row * 32, 32, 32, 0.5) for row, column in places]
        assert np.abs(record.features - embed_images(encoder, images)).max() < 2e-3
        assert record.report == (f"Report {number}." if number < 9 else "") and record.slide == f"s{number}"
        assert Image.open(out / f"s{number}.png").size[0] == slides.PICTURE


def spoil(root, slide_file, dyed):
    """Seven slides with something wrong among the ten: file -> a part of what is to be said of it."""
    data = bytearray((root / "s9.svs").read_bytes())
    data[3000:40000] = bytes(37000)
    (root / "x_damaged.svs").write_bytes(data)
    (root / "x_cut.svs").write_bytes(data[: len(data) // 2])
    (root / "x_text.tif").write_text("no slide")
    (root / "x_format.vsi").write_bytes(b"Olympus")
    slide_file(root / "x_mute.tif", dyed(200, 260, *BOXES), mpp=None)
    slide_file(root / "x_white.tif", np.full((200, 260, 3), 255, np.uint8))
    slide_file(root / "x_coarse.tif", dyed(200, 260, *BOXES), mpp=1.0)
    return {
        "x_damaged": "is damaged",
        "x_cut": "cannot be read as a slide",
        "x_text": "cannot be read as a slide",
        "x_format": "cannot be read as a slide",
        "x_mute": "--set slides.unstated_mpp=",
        "x_white": "has no tissue",
        "x_coarse": "set slides.mpp=1 or more",
    }


def test_slides_that_fail_are_named_and_the_others_go_on(ten, made, tmp_path, slide_file, dyed):
    faults = spoil(ten, slide_file, dyed)
    code, said = made(ten)
    table = pd.read_csv(tmp_path / "records" / "slides.csv", keep_default_na=False).set_index("slide")
    assert code == 1 and (table["state"] == "done").sum() == 10
    assert set(table.index[table["state"] == "failed"]) == set(faults)
    for name, part in faults.items():
        assert part in table.loc[name, "why"] and str(ten / name) in table.loc[name, "why"]
        assert f"  failed: {name}: {table.loc[name, 'why']}" in said[-7:]
    assert len(list((tmp_path / "records").glob("*.safetensors"))) == 10
    assert (tmp_path / "records" / "x_white.png").is_file()  # to be looked at
    code, said = made(ten, slides__unstated_mpp=0.5)
    assert "  x_mute: a record after " in "\n".join(said) and said[-7].startswith("11 of 17 slides") and code == 1


def test_what_is_done_is_not_done_again_unless_something_changed(ten, made, tmp_path, monkeypatch):
    written, write = [], slides.write_slide
    monkeypatch.setattr(
        slides, "write_slide", lambda path, name, *rest: written.append(name) or write(path, name, *rest)
    )
    made(ten)
    assert len(written) == 10
    assert made(ten)[0] == 0 and len(written) == 10
    record = tmp_path / "records" / "s3.safetensors"
    record.write_bytes(record.read_bytes()[:-1] + b"x")
    (tmp_path / "records" / "s4.safetensors").unlink()
    (ten / "s5.svs").write_bytes((ten / "s6.svs").read_bytes())
    reports = (ten / "reports.csv").read_text()
    (ten / "reports.csv").write_text(reports.replace("Report 6", "Another report"))
    assert made(ten)[0] == 0 and written[10:] == ["s3", "s4", "s5", "s6"]
    assert read_record(record.with_name("s6.safetensors")).report == "Another report."
    assert made(ten, slides__tissue=0.5)[0] == 0 and len(written) == 24
    (tmp_path / "records" / "slides.csv").write_text("damaged")
    assert made(ten, slides__tissue=0.5)[0] == 0 and len(written) == 34
    (ten / "s0.svs").unlink()
    _, said = made(ten, slides__tissue=0.5)
    assert f"1 slides of earlier calls are not in {ten}; what they left stays" in said and len(written) == 34


def test_a_killed_run_goes_on_with_the_next(ten, tmp_path, forked):
    """Killed by SIGKILL, its own, while a slide is half way."""
    killed = (
        "import os, signal, sys\n"
        "from lgffem_core.data.slides.tiles import SlideTiles\nfrom lgffem_core.run.cli import main\n"
        "get = SlideTiles.__getitem__\n"
        "def until_half_way(self, number):\n"
        "    if 's4' in str(self.slide.path) and number == 9:\n"
        "        print('\\n', os.getpid(), sep='', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return get(self, number)\n"
        "SlideTiles.__getitem__ = until_half_way\nsys.exit(main(sys.argv[1:]))"
    )
    out, keys = tmp_path / "out", ["slides.pixels=32", "slides.tissue=0.9", "model.image_size=32", "compute.workers=0"]
    words = ["slides", str(ten), str(PROJECT / "params" / "smoke.yaml"), "--out", str(out), "--set", *keys]
    run = forked(PROJECT, "-c", killed, *words)
    assert run.returncode == -signal.SIGKILL, run.stderr
    number = int(run.stdout.splitlines()[-1])  # of the process
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert sorted(before) == [f"s{number}.safetensors" for number in range(4)]
    assert [row["state"] for row in read_list(out).values()] == ["done"] * 4
    (out / f".s4.{number}.tmp.safetensors").write_bytes(b"half a record")  # as a kill while it is written leaves it
    time.sleep(0.01)
    done = forked(PROJECT, "-m", "lgffem_core", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before") == 4 and done.stdout.count("a record after") == 6
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(after) == 10 and all(after[name] == when for name, when in before.items())
    assert not list(out.glob(".*.tmp*"))


def test_weights_that_are_not_there_are_no_slides_fault(ten, made, tmp_path):
    for written, said in ((None, "is not a file"), (b"404", "cannot be read as weights")):
        path = tmp_path / "w.safetensors"
        if written:
            path.write_bytes(written)
        with pytest.raises(RequestError, match=rf"model\.backbone\.weights: .*w\.safetensors {said}"):
            made(ten, model__backbone__weights=str(path))
    assert not (tmp_path / "records").exists()


def test_a_second_command_on_the_same_folder_is_refused(ten, made, tmp_path):
    with slides.sole_writer(tmp_path / "records"), pytest.raises(RequestError, match="another command is writing to"):
        made(ten)


def test_records_do_not_go_among_the_slides(ten, study, tmp_path):
    with pytest.raises(RequestError, match="holds the slides themselves; name another folder"):
        make_records(study(), ten, ten)
    code = make_records(study(), ten, ten / "records", lambda text: None)
    assert code == 0 and make_records(study(), ten, ten / "records", lambda text: None) == 0
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match=r"--out: .*file cannot be written"):
        make_records(study(), ten, tmp_path / "file")


def test_a_folder_in_a_records_place_fails_that_slide_alone(ten, made, tmp_path):
    out = tmp_path / "records"
    for name in ("s3.safetensors", "s5.png"):
        (out / name).mkdir(parents=True)
    (out / "s3.safetensors" / "mine.txt").write_text("x")
    code, said = made(ten)
    for name in ("s3.safetensors", "s5.png"):
        (line,) = (line for line in said[-2:] if f"{out / name}: cannot be " in line)
        assert "(Is a directory); move away what stands in its place" in line
    assert code == 1 and said[-3].startswith("8 of 10 slides are records")
    assert (out / "s3.safetensors" / "mine.txt").read_text() == "x"


def test_a_folder_in_the_lists_place_is_refused_before_anything_is_made(ten, made, tmp_path):
    (out := tmp_path / "records" / "slides.csv").mkdir(parents=True)
    with pytest.raises(RequestError, match=rf"--out: {out} is a folder, where the list of slides belongs; move it"):
        made(ten)
    assert not list(out.parent.glob("*.safetensors"))


def test_patchgastric_becomes_records_and_says_what_it_assumes(made, tmp_path):
    write_biopsies(Synthetic(image_size=32), root := tmp_path / "root", slides=3, patches=5)
    code, said = made(root)
    assert code == 0 and said[1] == GRID
    records = [read_record(path) for path in sorted((tmp_path / "records").glob("*.safetensors"))]
    assert len(records) == 3 and all(len(record) == 5 and record.mpp is None for record in records)
    assert {record.label for record in records} == set(pd.read_csv(root / "captions.csv")["subtype"])
    assert not list((tmp_path / "records").glob("*.png"))


def test_an_encoder_that_is_trained_must_have_been(study):
    for name, folder in (("lgffem_a", "strategy_a"), ("lgffem_c", "strategy_c"), ("ma_ms", "seed0")):
        said = rf"slides\.encoder: {name} is not trained as profile tiny has it, in \S+/{folder}; run that pr"
        with pytest.raises(RequestError, match=said):  # with the data, and without those that it would be trained on
            encoder_of(study(slides__encoder=name, baselines__ma_ms__network="legacy_seresnet18"))
        with pytest.raises(RequestError, match=said):
            encoder_of(study(slides__encoder=name, data__synthetic__datasets=[]))
    train_strategy(study(), "a", "paper", 0)
    assert encoder_of(study(slides__encoder="lgffem_a")).label == "LGFFEM A"
    with pytest.raises(RequestError, match=r"tiny has it, in \S+ \(.* data\.imagenet\.root: .*\); run that profile"):
        encoder_of(study(slides__encoder="lgffem_a", data__imagenet__root="/nowhere"))
    assert encoder_of(study(slides__encoder="densenet121", baselines__densenet121__pretrained=False)).label == DENSENET


def test_a_picture_that_a_full_disk_does_not_take_is_said_to_be(ten, made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, said = made(ten)
    assert code == 1 and "s0.png: cannot be written (No space left on device); free space" in said[-10]


def test_names_are_said_as_they_are(tmp_path, capsys):
    (root := tmp_path / "slides").mkdir()
    (root / "a:heart:[b].svs").write_bytes(b"x")
    assert main(["slides", str(root), str(PROJECT / "params" / "smoke.yaml"), "--out", str(tmp_path / "out")]) == 1
    assert "a:heart:[b]: FAILED: " in capsys.readouterr().out


def test_a_network_is_made_once_for_all_slides(study):
    encoder = encoder_of(study())
    assert encoder.network() is encoder.network()


def test_the_command_says_what_is_wrong_with_its_words(ten, tmp_path, capsys):
    assert main(["slides", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'}: is no folder; name the one")
    assert main(["slides", str(ten), "--out", str(tmp_path / "out"), "--set", "slides.mpp=0"]) == 2
    assert "parameter slides.mpp" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["slides", str(ten)])
    assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["slides", str(ten), "--out", ""])  # which would be the current folder
    assert "--out: names no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

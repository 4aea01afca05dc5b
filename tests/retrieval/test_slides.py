"""A slide's tiles become a record: features as the one loop gives them, in memory that does not grow with the slide."""

import numpy as np
import pytest
import torch
from torch import nn

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Compute
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.records import anchors, read_record
from lgffem_core.data.slides.reports import Said
from lgffem_core.retrieval.encoder import Encoder, embed_images
from lgffem_core.retrieval.slides import told, write_slide

SAID = Said("Sheets of cells.", "solid", "p1", ("sheets", "necrosis"))


class Means(nn.Module):
    """Colours of a quarter of the image each: (N, 3, S, S) -> (N, 12)."""

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Tiles(list):
    """Images with places, two to a row."""

    mpp, pixels = 0.5, 24

    @property
    def positions(self):
        return np.stack([np.arange(len(self)) // 2, np.arange(len(self)) % 2], axis=1).astype(np.float32)


class Broken(Tiles):
    """The seventh cannot be read."""

    def __getitem__(self, number):
        if number == 6:
            raise StudyError("slide.svs: is damaged (bad block); get it again.")
        return super().__getitem__(number)


@pytest.fixture
def encoder():
    return Encoder("means", "0123456789abcdef0123", Means, evaluation_resize(16))


@pytest.fixture
def tiles():
    return Tiles(np.random.default_rng(0).integers(0, 256, (11, 24, 24, 3), np.uint8))


@pytest.fixture
def write(tmp_path, encoder):
    def written(tiles, workers=0, batch=4, tell=print):
        compute = Compute(workers=workers, device="cpu", precision="32-true", threads=1)
        return write_slide(tmp_path / "s.safetensors", "s", SAID, tiles, encoder, batch, compute, tell)

    return written


@pytest.mark.parametrize("workers", [0, 2])
def test_a_record_holds_what_the_one_loop_gives(write, tiles, encoder, tmp_path, workers):
    write(tiles, workers)
    record = read_record(tmp_path / "s.safetensors")
    wanted = embed_images(encoder, list(tiles))
    assert record.features.dtype == np.float16 and np.array_equal(record.features, wanted.astype(np.float16))
    assert np.array_equal(record.positions, tiles.positions)
    assert all(np.array_equal(*pair) for pair in zip(record.anchors, anchors(tiles.positions), strict=True))
    assert (record.slide, record.mpp, record.patch_pixels) == ("s", 0.5, 24)
    assert (record.report, record.label, record.group, record.prompts) == tuple(SAID)
    assert record.encoder == "means 0123456789abcdef"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tile_that_cannot_be_read_fails_the_slide_in_one_sentence_and_leaves_nothing(write, tiles, tmp_path, workers):
    with pytest.raises(StudyError) as raised:
        write(Broken(tiles), workers)
    assert "is damaged (bad block); get it again." in str(raised.value)
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_not_finite_fail_the_slide(write, tiles, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(Means, "forward", lambda self, images: torch.full((len(images), 3), 1e9))
    with pytest.raises(StudyError, match="features or positions hold NaN or infinity"):
        write(tiles)
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_a_killed_process_is_left(write, tiles, tmp_path, monkeypatch):
    def stop(self, images):
        assert list(tmp_path.iterdir()) == []  # the features lie in a file without a name
        raise KeyboardInterrupt

    monkeypatch.setattr(Means, "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tiles)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_now_and_then(monkeypatch):
    clock, lines = iter([0.0, 10.0, 30.0, 40.0]), []
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    batches = [np.zeros((100, 2))] * 3
    assert sum(map(len, told(batches, 300, lines.append))) == 300
    assert lines == ["  200 of 300 tiles, 7 a second, 0:15 left"]


PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from lgffem_core.config.params import Compute
from lgffem_core.data.slides.reports import Said
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.retrieval.slides import write_slide

class Network(nn.Module):
    mean, std = (0.0,) * 3, (1.0,) * 3
    def forward(self, images):
        return images.mean(dim=(2, 3)).repeat(1, 683)[:, :2048]

class Tiles:
    mpp, pixels = 0.5, 8
    positions = np.stack(np.divmod(np.arange(100_000), 400), axis=1).astype(np.float32)
    def __len__(self):
        return 100_000
    def __getitem__(self, number):
        return np.full((8, 8, 3), number % 256, np.uint8)

compute = Compute(workers=0, device="cpu", precision="32-true", threads=1)
encoder = Encoder("", "", Network, lambda image, seed: image)
record = write_slide(Path(sys.argv[1]) / "s.safetensors", "s", Said(), Tiles(), encoder, 256, compute, print)
print(record.features.shape, sum(map(len, record.anchors)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_slide_of_100000_patches_becomes_a_record_within_4_gib(tmp_path, forked):
    """2,048 numbers a patch, as FGCR's have; float32 and a list of batches would take 1.6 GB for the features alone."""
    done = forked(PROJECT, "-c", PROGRAM, str(tmp_path))
    assert done.returncode == 0, done.stderr
    *_, shape, peak = done.stdout.splitlines()
    assert shape == "(100000, 2048) 25" and int(peak) < 4 << 20, f"{int(peak) >> 10} MiB"
    assert (tmp_path / "s.safetensors").stat().st_size > 100_000 * 2048 * 2

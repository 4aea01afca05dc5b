"""Slides in record form: what is sound, what a file gives back, and where anchors lie."""

from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from lgffem_core.base.errors import StudyError
from lgffem_core.base.tensors import load_tensors, save_tensors
from lgffem_core.data import records
from lgffem_core.data.headers import about
from lgffem_core.data.records import (
    LEVELS,
    Record,
    anchor_counts,
    anchors,
    coverage,
    distances,
    read_record,
    validate,
    write_record,
)


def grid(rows, columns):
    """The places of a rectangle of patches, (rows · columns, 2) float32."""
    return np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2).astype("f4")


@pytest.fixture
def record():
    positions = grid(10, 8)
    features = np.random.default_rng(0).standard_normal((80, 5)).astype(np.float16)
    said = dict(report="Glands in the upper left.", prompts=("gland", "upper left"), label="a", group="p1")
    said |= dict(findings=np.where(positions[:, 0] < 5, 0, -1), mpp=0.5, patch_pixels=224, encoder="an encoder")
    return Record("s1", features, positions, anchors(positions), **said)


def test_a_file_gives_back_what_was_written_and_the_same_bytes_each_time(tmp_path, record):
    back = read_record(write_record(tmp_path / "s1.safetensors", record))
    for entry in fields(Record):
        a, b = getattr(record, entry.name), getattr(back, entry.name)
        if entry.name == "anchors":
            assert [level.tolist() for level in a] == [level.tolist() for level in b]
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b)
        else:
            assert a == b and type(a) is type(b)
    write_record(tmp_path / "again.safetensors", back)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "s1.safetensors").read_bytes()
    header = about(tmp_path / "s1.safetensors")
    assert (header["label"], header["group"], header["prompts"]) == ("a", "p1", ["gland", "upper left"])
    assert len(back) == 80 and len(back.report.split()) == 5


def test_a_record_of_one_patch_without_a_report_is_sound(tmp_path):
    one = Record("s", np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), anchors(np.zeros((1, 2))))
    back = read_record(write_record(tmp_path / "s.safetensors", one))
    assert back.report == "" and back.prompts == () and back.mpp is None
    assert [level.tolist() for level in back.anchors] == [[0]] * 6


FAULTS = {
    "no slide": (dict(slide=""), "does not name its slide"),
    "integers": (dict(features=np.ones((80, 5), np.int64)), r"features are int64 \(80, 5\)"),
    "unequal lengths": (dict(features=np.ones((79, 5), np.float16)), r"79 features and \(80, 2\) positions"),
    "infinity": (dict(features=np.full((80, 5), np.inf, np.float16)), "NaN or infinity"),
    "one place twice": (dict(positions=np.zeros((80, 2), np.float32)), "same position"),
    "a level too few": (dict(levels=LEVELS[1:]), "6 levels of anchors for 5"),
    "an empty level": (dict(anchors=(np.zeros(0, np.int64),) * 6), "level of 36 patches an anchor holds no anchor"),
    "an anchor twice": (dict(anchors=(np.array([3, 3]),) * 6), "or one twice"),
    "an anchor out of range": (dict(anchors=(np.array([80]),) * 6), "level of 36 is patch 80 of 80"),
    "a finding of no prompt": (dict(findings=np.full(80, 2)), "finding is 2 or 2, of 2 prompts"),
    "findings of others": (dict(findings=np.zeros(3, int)), r"findings \(3,\) for 80 patches"),
    "no resolution": (dict(mpp=0.0), "0.0 µm a pixel"),
}


@pytest.mark.parametrize("change, said", FAULTS.values(), ids=FAULTS)
def test_an_unsound_record_is_neither_written_nor_let_in(tmp_path, record, change, said):
    with pytest.raises(StudyError, match=f"is no sound record .*{said}.*make it again from its slide"):
        write_record(tmp_path / "s.safetensors", replace(record, **change))
    assert not list(tmp_path.iterdir())
    with pytest.raises(StudyError, match=f"^here: .*{said}"):
        validate(replace(record, **change), "here")


def test_a_damaged_file_and_another_safetensors_file_are_named(tmp_path, record):
    path = write_record(tmp_path / "s.safetensors", record)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StudyError, match="s.safetensors: is damaged .* Make it again from its slide."):
        read_record(path)
    save_tensors(path, {"features": torch.ones(2, 2)}, {})
    assert about(path) == {} == about(tmp_path / "none")
    with pytest.raises(StudyError, match="s.safetensors: holds no 'slide record 1'"):
        read_record(path)


@pytest.mark.parametrize("name", ["slide", "label", "group", "report", "prompts", "levels", "anchors", "encoder"])
@pytest.mark.parametrize("value", ["missing", None, 7, [1.5]])
def test_a_header_without_a_field_or_with_one_of_another_type_is_none(tmp_path, record, name, value):
    path = write_record(tmp_path / "s.safetensors", record)
    tensors, header = load_tensors(path, "")
    header = {key: said for key, said in header.items() if key != name} | ({} if value == "missing" else {name: value})
    save_tensors(path, tensors, header)
    assert about(path) == {}
    with pytest.raises(StudyError, match="s.safetensors: holds no 'slide record 1'"):
        read_record(path)


# -- anchors ---------------------------------------------------------------------------------------------------


def test_anchors_of_a_level_are_one_for_so_many_patches_and_in_all_at_most_25():
    assert anchor_counts(240) == [7, 4, 3, 2, 1, 1]
    assert anchor_counts(1) == [1] * 6
    for patches in range(1, 3000, 7):
        counts, full = anchor_counts(patches), [-(-patches // level) for level in LEVELS]
        assert counts == full if sum(full) <= 25 else sum(counts) == 25 and min(counts) >= 1, patches
    assert anchor_counts(2048) == [8, 6, 4, 3, 2, 2]  # 57, 32, 21, 15, 8, 6 times 25/139: 11, 6, 4, 3, 2, 2, less 3
    assert anchor_counts(10**6, most=6) == [1] * 6
    with pytest.raises(StudyError, match="at most 5 anchors for 6 levels"):
        anchor_counts(10, most=5)


def test_an_anchor_is_its_clusters_patch_nearest_to_the_centre():
    """Two heaps far apart: the clusters are known without k-means."""
    heap = grid(3, 5)
    positions = np.concatenate([heap, heap + 100])
    fine, coarse = anchors(positions, levels=(15, 400))
    assert fine.tolist() == [7, 22] and coarse.tolist() in ([14], [15])  # 7 and 22: the middles of 3 × 5


@pytest.mark.parametrize(("rounds", "ends"), [(20, True), (2, False)])
def test_k_means_is_that_of_all_its_rounds(rounds, ends, monkeypatch):
    """Also where it has not come to its end by then."""
    monkeypatch.setattr(records, "ITERATIONS", rounds)
    ended = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        positions = rng.permutation(np.argwhere(rng.random((9, 9)) < 0.8)).astype(float)
        centres, own = records.k_means(positions, 7, np.random.default_rng(seed))
        all_rounds = partial(kmeans2, positions, 7, minit="++", missing="raise")
        wanted, labels = all_rounds(iter=rounds, rng=np.random.default_rng(seed))
        assert np.array_equal(centres, wanted) and np.array_equal(own, labels)
        ended.append(np.array_equal(wanted, all_rounds(iter=rounds - 1, rng=np.random.default_rng(seed))[0]))
    assert all(ended) if ends else not any(ended)


def test_distances_and_coverage_are_those_of_a_loop():
    positions, chosen = grid(4, 3), np.array([1, 7])
    found = distances(positions, chosen)
    nearest = []
    for j, (row, column) in enumerate(positions):
        each = [((positions[i][0] - row) ** 2 + (positions[i][1] - column) ** 2) ** 0.5 for i in chosen]
        assert found[:, j] == pytest.approx(each, abs=1e-6)
        nearest.append(min(each) ** 2)
    assert coverage(positions, chosen) == pytest.approx(sum(nearest) / len(nearest), abs=1e-6)


def test_anchors_are_a_function_of_the_seed_and_cover_better_than_chance():
    positions = grid(20, 15)
    first, again = anchors(positions, seed=3), anchors(positions, seed=3)
    assert [level.tolist() for level in first] == [level.tolist() for level in again]
    for level in first[:3]:
        drawn = np.random.default_rng(0).choice(300, len(level), replace=False)
        assert coverage(positions, level) < 0.9 * coverage(positions, drawn)


def test_a_real_record_of_the_released_code(shared):
    """Its anchors a level, its distances, and how well its anchors cover the tissue, beside ours."""
    with np.load(shared / "fgcr" / "example_wsi.npz", allow_pickle=False) as real:
        positions, own = real["pos"], np.split(real["k_idx"], np.cumsum(real["knumber"])[:-1])
        assert anchor_counts(len(positions)) == real["knumber"].tolist()
        assert np.abs(distances(positions, np.arange(len(positions))) - real["rd"]).max() < 1e-6
    for theirs, ours in zip(own, anchors(positions), strict=True):
        assert coverage(positions, ours) == pytest.approx(coverage(positions, theirs), rel=0.02)

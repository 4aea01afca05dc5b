"""The vectors of an archive: generated ones have the spectrum and the clusters that they are said to have."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.base.tensors import save_tensors
from lgffem_core.config.study import Study
from lgffem_core.run.checklist import checklist, wanted_networks
from lgffem_core.run.cli import main
from lgffem_core.run.stages import entries
from lgffem_core.systems.archive.vectors import archive_vectors, generated, given, spectrum

SMALL = {"archive.vectors": 400, "archive.dimension": 16, "archive.training_vectors": 400}


def study_of(tmp_path, **overrides):
    wanted = {"archive.indices": [], **SMALL, **{f"archive.{key}": value for key, value in overrides.items()}}
    return Study.load(PROJECT / "params" / "archive.yaml", wanted, root=tmp_path)


def test_generated_vectors_have_the_spectrum_that_was_asked_for(tmp_path):
    vectors, queries = generated(tmp_path, 40_000, 10, 32, classes=4000, between=0.6, decay=1.5)
    law = np.arange(1.0, 33) ** -1.5
    covariance = np.linalg.eigvalsh(np.cov(vectors.T.astype(float)))[::-1]
    np.testing.assert_allclose(covariance / covariance.sum(), law / law.sum(), rtol=0.08)
    np.testing.assert_allclose(spectrum(vectors), law / law.sum(), rtol=0.15)  # of 4,000 of them
    axes = vectors.var(axis=0)
    assert axes.max() < 20 * axes.min()  # turned: no number of a vector stands for a direction (32^1.5 = 181)
    assert vectors.dtype == queries.dtype == np.float32 and queries.shape == (10, 32)


@pytest.mark.parametrize("between", [0.7, 0.9, 1])
def test_what_is_not_between_clusters_is_within_them(tmp_path, between):
    """scikit-learn finds the clusters; the squared distance to a cluster's mean is then the rest of the variance, 1."""
    vectors, _ = generated(tmp_path, 3000, 1, 16, classes=4, between=between, decay=0.1)
    found = KMeans(4, n_init=5, random_state=0).fit(vectors)
    assert found.inertia_ / len(vectors) == pytest.approx(1 - between, abs=0.01)
    assert np.bincount(found.labels_).min() > 600  # of 750


def test_the_same_sizes_give_the_same_vectors_and_leave_no_file(tmp_path):
    like = (8, 5, 0.5, 1.5)
    one, other = generated(tmp_path, 70_000, 3, *like), generated(tmp_path, 70_000, 3, *like)
    for ours, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, again)
    assert not (one[1][:, None] == one[0]).all(axis=2).any()  # a query is none of the archive
    assert list(tmp_path.iterdir()) == []


def kept(path, test, value=1.0):
    embeddings = torch.arange(24, dtype=torch.float32).reshape(6, 4)
    embeddings[2, 1] = value
    save_tensors(path, {"embeddings": embeddings, "test": torch.tensor(test)}, {"ids": []})
    return path


def test_embeddings_of_a_run_are_searched_by_its_test_patches(tmp_path):
    path = kept(tmp_path / "c.safetensors", [False, True, False, False, True, False])
    vectors, queries, what = archive_vectors(study_of(tmp_path, embeddings=str(path), queries=1, k=1))
    np.testing.assert_array_equal(vectors[:, 0], [0, 8, 12, 20])
    np.testing.assert_array_equal(queries[:, 0], [4])
    assert what == "4 embeddings of c.safetensors"


@pytest.mark.parametrize(
    ("test", "value", "says"),
    [([True] * 6, 1, "does not hold"), ([False] * 6, 1, "does not hold"), ([True] * 2 + [False] * 4, np.nan, "NaN")],
)
def test_embeddings_that_cannot_be_searched_are_refused(tmp_path, test, value, says):
    path = kept(tmp_path / "c.safetensors", test, value)
    with pytest.raises(StudyError, match=says):
        given(path)
    (item,) = checklist(study_of(tmp_path, embeddings=str(path)))
    assert item.startswith(f"archive.embeddings: {path}: ")


# -- the profile ---------------------------------------------------------------------------------------------------


def test_the_profile_needs_neither_images_nor_networks(tmp_path):
    study = Study.load(PROJECT / "params" / "archive.yaml", root=tmp_path)
    assert [entry.notebook for entry in entries(study)] == ["14_archive"]
    assert wanted_networks(study) == {} and checklist(study) == []
    assert len(wanted_networks(Study.load(PROJECT / "params" / "demo.yaml", root=tmp_path))) == 3


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("archive.indices=[{factory: IVF64RaBitQ, search: [nprobe=3]}]", "index 'IVF64RaBitQ': FAISS "),
        ("archive.indices=[{factory: 'IVF4096,Flat', search: [nprobe=3]}]", "4096 lists take 159744 training vectors"),
        ("archive.indices=[{factory: 'IVF16,Flat', search: [efSearch=3]}]", "could not set parameter efSearch"),
        ("archive.indices=[{factory: 'IVF0,Flat', search: [nprobe=3]}]", "archive.indices.0.factory: "),
        ("archive.indices=[{factory: 'IVF4,Flat', search: [nprobe=0]}]", "archive.indices.0.search.0: "),
        ("archive.indices=[{factory: 'IVF4,Flat', search: []}]", "archive.indices.0.search: "),
        ("archive.indices=[{factry: 'IVF4,Flat'}]", "unknown parameter archive.indices.0.factry"),
        ("archive.k=2000000", "k is 2000000; an archive of 1000000 has 1 … 1000000 neighbours"),
        ("archive.repeats=4", "archive.repeats: "),
        ("archive.embeddings=none.safetensors", "none.safetensors: is damaged or was not written"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, monkeypatch, capsys, pair, says):
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path))
    monkeypatch.chdir(PROJECT)
    assert main(["params/archive.yaml", "--set", pair]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and list(tmp_path.iterdir()) == []

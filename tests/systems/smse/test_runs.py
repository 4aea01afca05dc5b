"""Which trainings of SMSE there are."""

import pytest

from lgffem_core.systems.smse.runs import runs


def test_runs_differ_in_one_thing_from_the_first(smse):
    found = runs(smse())
    assert list(found) == ["pair", "triplet", "plain", "focal", "cross_entropy", "one", "others"]
    first = found["pair"]
    for name, run in found.items():
        assert sum(a != b for a, b in zip(run, first, strict=True)) == (name != "pair"), name
    assert found["one"].magnifications == (40,) and found["others"].magnifications == (40, 100, 400)
    assert len({run.folder for run in found.values()}) == len(found)


@pytest.mark.parametrize(("zooms", "left"), [([200], set()), ([40, 200], {"one"}), ([40, 100], set())])
def test_without_the_magnifications_that_they_need_trainings_are_left_out(smse, zooms, left):
    found = runs(smse(data__breakhis__magnifications=zooms))
    assert set(found) - {"triplet", "pair", "plain", "focal", "cross_entropy"} == left

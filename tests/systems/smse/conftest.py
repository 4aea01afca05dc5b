"""A study of SMSE alone, small enough to be trained in a test."""

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import prepare

SMALL = {
    "systems": ["smse"],
    "data.synthetic.image_size": 32,
    "data.synthetic.breakhis_patients": 12,
    "data.synthetic.breakhis_fields": 1,
    "smse.image_size": [16, 24],
    "smse.pools": 2,
    "smse.batch_size": 6,
    "compute.checkpoint_steps": 2,
}


@pytest.fixture(scope="session")
def smse_data(tmp_path_factory):
    """The folder of a synthetic BreakHis of twelve patients."""
    study = Study.load(PROJECT / "params" / "smoke.yaml", SMALL, tmp_path_factory.mktemp("smse"))
    prepare(study, "breakhis")
    return study.data_root("breakhis")


@pytest.fixture
def smse(smse_data, tmp_path):
    """Makes a study on it that keeps what it makes in a folder of its own."""

    def make(folder="own", **changes):
        pairs = {key.replace("__", "."): value for key, value in changes.items()}
        given = {**SMALL, "data.breakhis.root": str(smse_data), **pairs}
        return Study.load(PROJECT / "params" / "smoke.yaml", given, tmp_path / folder)

    return make

"""What all data sets share: a section of the parameters each, and no name of theirs outside their files."""

import ast

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import DATASETS, Data, Synthetic
from lgffem_core.data import sets
from lgffem_core.data.sets.base import DataSet


@pytest.mark.parametrize("name", DATASETS)
def test_each_section_of_the_parameters_is_served_by_the_file_of_its_name(name):
    data_set = sets.get(name)
    assert isinstance(data_set, DataSet) and data_set.name == name
    assert getattr(Data(), name).root is None and f"set data.{name}.root to" in data_set.where
    assert (PROJECT / "lgffem_core" / "data" / "sets" / f"{name}.py").is_file()


@pytest.mark.parametrize("folder", ["base", "data", "model", "training", "retrieval", "report"])
def test_nothing_outside_their_files_names_a_data_set(folder):
    root, named = PROJECT / "lgffem_core" / folder, {}
    own = (root / "sets", root / "synthetic")  # of the latter, as seeds
    for path in root.rglob("*.py"):
        if not any(path.is_relative_to(part) for part in own):
            strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            named |= {path.name: found} if (found := strings & set(DATASETS)) else {}
    assert named == {}


def test_a_set_without_a_stand_in_says_so_and_leaves_nothing(tmp_path):
    class Bare(DataSet):
        name = "bare"

    with pytest.raises(StudyError, match="data.bare.root: is not set, and there is no synthetic bare; set it."):
        Bare().make_synthetic(Synthetic(), tmp_path / "bare")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["none", "facts"])
def test_a_set_without_file_or_without_set_is_named_in_one_sentence(name):
    with pytest.raises(StudyError, match=rf"^data\.{name}: lgffem_core/data/sets/{name}\.py is missing, or .* SET = …"):
        sets.get(name)

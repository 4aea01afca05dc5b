"""The paper's readings of the maps, against maps whose hottest points were placed by hand."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from lgffem_core.systems.lgffem.neck import OUTPUTS
from lgffem_core.systems.lgffem.readings import FINDS, NOTHING, PAPER, readings_sentences, readings_table

PATCHES, SIDE = 20, 10
MASKS = np.zeros((PATCHES, SIDE, SIDE), bool)
MASKS[:, :2, :5] = True  # a tenth of each patch


def maps(found):
    """Maps whose hottest point lies on the structure in ``found`` patches and elsewhere in the others."""
    values = np.zeros((PATCHES, SIDE, SIDE), np.float32)
    values[:found, 1, 3] = 1
    values[found:, 8, 8] = 1
    return values


def asked(found):
    """(trained, untrained, masks): ``found`` is (layer, node) -> patches; the untrained model finds four."""
    trained = {key: maps(count) for key, count in found.items()} | {(1, "collapse"): maps(PATCHES)}
    return trained, {key: maps(4) for key in trained}, MASKS


def as_the_paper_says(layers=3):
    return {key: PATCHES if said == FINDS else 2 for key, said in PAPER.items() if key[0] <= layers}


def test_shares_intervals_and_chance_of_each_node():
    counts = {(layer, node): 5 * layer + i for layer in (1, 2, 3) for i, node in enumerate(OUTPUTS)}
    table = readings_table(*asked(counts))
    assert list(zip(table["layer"], table["node"], strict=True)) == sorted(counts)
    raw = {}
    for row in table.itertuples():
        k = counts[row.layer, row.node]
        raw[row.layer, row.node] = binom.sf(k - 1, PATCHES, 0.1)
        assert (row.found, row.share, row.chance, row.untrained) == (k, k / PATCHES, 0.1, 0.2)
        assert row.low == pytest.approx(beta.ppf(0.025, k, PATCHES - k + 1))
        assert row.high == pytest.approx(beta.ppf(0.975, k + 1, PATCHES - k))
    adjusted, largest = {}, 0
    for i, key in enumerate(sorted(raw, key=raw.get)):  # Holm by hand
        largest = max(largest, raw[key] * (len(raw) - i))
        adjusted[key] = min(largest, 1)
    assert [adjusted[row.layer, row.node] for row in table.itertuples()] == pytest.approx(table["p_value"].tolist())
    assert (table["here"] == np.where(table["p_value"] < 0.05, FINDS, NOTHING)).all()


def test_what_one_node_finds_by_luck_does_not_count_among_twelve():
    """Five of twenty have p = 0.043 alone; chance is a tenth."""
    counts = dict.fromkeys(as_the_paper_says(), 1) | {(1, "P1_2"): 5}
    assert binom.sf(4, PATCHES, 0.1) < 0.05
    assert (readings_table(*asked(counts))["here"] == NOTHING).all()


def test_only_where_the_paper_says_that_a_structure_is_found_or_not_can_it_be_contradicted():
    """Section 4.2.2: P3_2 and P4_2 of layer 1 recognise parts of the tissue, three nodes of layer 3 fuse with delay."""
    decided = {(1, "P1_2"), (1, "P2_2"), (2, "P1_2"), (2, "P2_2"), (2, "P3_2"), (3, "P4_2")}
    for found in (1, PATCHES):
        table = readings_table(*asked(dict.fromkeys(PAPER, found)))
        held = table[table["agrees"] != ""]
        assert set(zip(held["layer"], held["node"], strict=True)) == decided
        finds = held.set_index(["layer", "node"])["agrees"].eq("yes" if found == PATCHES else "no")
        assert set(finds[finds].index) == {(2, "P3_2"), (3, "P4_2")}


def test_a_model_that_is_as_the_paper_says():
    table = readings_table(*asked(as_the_paper_says()))
    assert table["agrees"].tolist().count("yes") == 6 and table["agrees"].tolist().count("") == 6
    assert readings_sentences(table) == [
        "On this run the paper's readings hold: of the 2 nodes that find a structure according to the paper, 2 do "
        "here; of the 4 nodes that find nothing according to the paper, 4 find no more here than by chance, as far "
        "as 20 patches tell."
    ]


def test_of_a_model_with_one_layer_the_paper_names_no_node_that_finds_anything():
    first = readings_sentences(readings_table(*asked(as_the_paper_says(1) | {(1, "P2_2"): PATCHES})))[0]
    assert first == (
        "On this run the paper's readings hold in part: of the 2 nodes that find nothing according to the paper, 1 "
        "finds no more here than by chance, as far as 20 patches tell."
    )


def test_nodes_that_differ_are_named_with_their_numbers():
    table = readings_table(*asked(as_the_paper_says() | {(1, "P2_2"): 18, (3, "P4_2"): 2}))
    first, *others = readings_sentences(table)
    assert "hold in part: of the 2 nodes that find a structure according to the paper, 1 does here;" in first
    assert "of the 4 nodes that find nothing according to the paper, 3 find no more here than by chance" in first
    assert [line[:13] for line in others] == ["Layer 1, P2_2", "Layer 3, P4_2"]
    assert "'finds nothing', here 18 of 20 hottest points lie on the structure, 2.0 expected" in others[0]
    nothing = {key: 2 if said == FINDS else PATCHES for key, said in PAPER.items()}
    assert readings_sentences(readings_table(*asked(nothing)))[0].startswith("On this run the paper's readings do not")


@pytest.mark.parametrize(
    ("layers", "words"), [(1, "1 neck layer: what the paper says of layer 2 and 3"), (2, "layer 3")]
)
def test_layers_that_the_model_lacks_cannot_be_checked(layers, words):
    last = readings_sentences(readings_table(*asked(as_the_paper_says(layers))))[-1]
    assert words in last and last.endswith("cannot be checked.")


def test_of_further_layers_the_paper_says_nothing():
    table = readings_table(*asked(as_the_paper_says() | {(4, node): 20 for node in OUTPUTS}))
    assert table.loc[table["layer"] == 4, ["paper", "agrees"]].eq("").all(axis=None)

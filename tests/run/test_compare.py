"""compare: two runs side by side, every difference named, and what may explain it told from what may not."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.run import compare_files
from lgffem_core.run.compare import compare_results, format_comparison

TABLE = "strategy,pretraining_data,protocol,eta_p,paper\nA,IN-1K*,released,32.81,\nB,IN-1K*,released,1.0,72.08\n"
PIXELS = np.full((40, 50, 3), 200, dtype=np.uint8)  # 2000 pixels, of which two may be others


def write_manifest(folder, manifest):
    """With its own hash, computed as its description says, unless it has one."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (folder / "manifest.json").write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()} | manifest))


def write_run(folder, manifest, table=TABLE, pixels=PIXELS):
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    write_manifest(folder, manifest)
    (folder / "tables/table1.csv").write_text(table)
    (folder / "tables/table1.md").write_text("| A | 32.81 |\n")
    Image.fromarray(pixels).save(folder / "figures/figure1.png")
    (folder / "figures/figure1.svg").write_text("<svg/>")
    return folder


@pytest.fixture
def pair(tmp_path, manifest):
    """A function that writes a reference as it is and a rerun with the changes given, and compares them."""
    write_run(tmp_path / "reference", manifest)

    def rerun(change=None, **written):
        if change:
            change(manifest)
        write_run(tmp_path / "rerun", manifest, **written)
        return compare_results(tmp_path / "reference", tmp_path / "rerun")

    return rerun


def other_processor(manifest):
    manifest["machine"]["processor"] = "EPYC"


def changed(*where):
    """The picture with each (row, column, level added) changed."""
    pixels = PIXELS.copy()
    for row, column, added in where:
        pixels[row, column] += np.uint8(added)
    return pixels


def test_equal_runs_are_equal(pair):
    found = pair()
    assert (found.conclusion, found.exit_code, found.compared) == ("equal", 0, 4)
    assert not (found.reasons or found.causes or found.remarks or found.largest)
    assert "equal (4 files compared)" in format_comparison(found)


def test_one_cell_is_named_with_row_column_and_both_values(pair):
    found = pair(table=TABLE.replace("32.81", "32.82"))
    assert found.differences == [
        "tables/table1.csv, row 1 (A, IN-1K*, released), eta_p: '32.81' in the reference, '32.82' in the rerun."
    ]
    assert found.largest == {"tables/table1.csv eta_p": pytest.approx(0.01)}
    assert (found.conclusion, found.exit_code) == ("differs, UNEXPECTED", 1)


@pytest.mark.parametrize("name", ["tables/archive.csv", "tables/archive.md", "figures/archive_recall.png"])
def test_what_is_measured_anew_by_each_run_is_not_compared_but_must_be_there(pair, tmp_path, name):
    found = pair()
    for number, folder in enumerate((found.reference, found.rerun)):
        (folder / name).write_text(f"index,rate\nFlat,{number}\n")
    again = compare_results(found.reference, found.rerun)
    assert (again.conclusion, again.compared) == ("equal", found.compared)
    assert again.remarks == [f"{name} holds times, which no two runs share: it was not compared."]
    (tmp_path / "rerun" / name).unlink()
    assert compare_results(found.reference, found.rerun).structural == [f"{name} is missing from the rerun."]


def test_the_table_for_people_is_compared_by_lines(pair, tmp_path):
    found = pair()
    (tmp_path / "rerun/tables/table1.md").write_text("| A | 32.81 |\n| B | 40.00 |\n")
    found = compare_results(found.reference, found.rerun)
    assert found.differences == ["tables/table1.md: 1 lines differ, the first is line 2."] and found.exit_code == 1


@pytest.mark.parametrize("old, new", [("1.0,72", "1,72"), ("1.0,72", ",72"), ("32.81,\n", "32.81,NaN\n")])
def test_cells_are_compared_as_text(pair, old, new):
    assert len(pair(table=TABLE.replace(old, new)).differences) == 1


def test_quoting_is_not_a_difference(pair):
    assert pair(table=TABLE.replace("B,", '"B",')).conclusion == "equal"


@pytest.mark.parametrize(
    "table, said",
    [
        (TABLE.replace("eta_p", "eta_q"), "other columns"),
        (TABLE + "C,x,released,1,\n", "2 rows in the reference and 3"),
        ("", "other columns"),
        (TABLE.replace("32.81,", "32.81"), "cannot be read"),
        ("\udcff", "cannot be read"),
    ],
)
def test_another_shape_is_explained_by_no_machine(pair, tmp_path, table, said):
    found = pair(other_processor)
    (tmp_path / "rerun/tables/table1.csv").write_bytes(table.encode(errors="surrogateescape"))
    found = compare_results(found.reference, found.rerun)
    assert said in found.structural[0] and found.exit_code == 1


def test_missing_and_extra_files_are_named_and_never_expected(pair, tmp_path):
    found = pair(other_processor)
    (tmp_path / "rerun/figures/figure1.png").unlink()
    (tmp_path / "rerun/tables/table4.csv").write_text("a\n")
    found = compare_results(found.reference, found.rerun)
    assert found.structural == [
        "figures/figure1.png is missing from the rerun.",
        "tables/table4.csv is in the rerun only.",
    ]
    assert found.exit_code == 1


def test_what_a_reference_left_out_is_not_extra(pair, manifest, tmp_path):
    found = pair()
    manifest |= {"left_out": ["results/tiny/figures/figure1.png", "results/tiny/figures/figure1.svg"]}
    write_manifest(tmp_path / "reference", manifest)
    for kind in ("png", "svg"):
        (tmp_path / f"reference/figures/figure1.{kind}").unlink()
    assert compare_results(found.reference, found.rerun).conclusion == "equal"


# One pixel of 2000 is 0.05 %, three are 0.15 %; 20 levels on each of two pixels are 0.02 of 255 on average.
@pytest.mark.parametrize(
    "pixels, equal",
    [
        (changed((0, 0, 50)), True),
        (changed((0, 0, 50), (1, 1, 50), (2, 2, 50)), False),
        (changed(*((row, 0, 16) for row in range(40))), True),  # none off by more than 16; 0.32 on average
        (changed(*((row, column, 1) for row in range(40) for column in range(50))), False),  # 1 on average
    ],
)
def test_pictures_have_a_tolerance(pair, pixels, equal):
    found = pair(pixels=pixels)
    said = found.remarks[0] if equal else found.differences[0]
    levels = pixels.astype(int) - PIXELS
    assert f"mean difference {levels.mean():.3g} of 255" in said and said.startswith("figures/figure1.png")
    assert f"{100 * (levels > 16).all(axis=2).mean():.3g} % of pixels" in said
    assert found.conclusion == ("equal" if equal else "differs, UNEXPECTED")


def test_the_edges_of_the_tolerance_are_within(tmp_path):
    """0.5 on average and 2 of 2000 pixels are the limits themselves: only what is beyond them differs."""
    pixels = PIXELS.astype(int)
    half = pixels.copy()
    half[:20] += 1
    assert compare_files.distance(pixels, half) == (compare_files.MEAN_TOLERANCE, 0.0)
    two = pixels.copy()
    two[0, :2, 1] += 17
    assert compare_files.distance(pixels, two)[1] == compare_files.SHARE_TOLERANCE


def test_another_size_and_a_broken_picture_differ(pair, tmp_path):
    found = pair(pixels=PIXELS[:, :-1])
    assert "50x40 pixels in the reference and 49x40" in found.differences[0]
    (tmp_path / "rerun/figures/figure1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "cannot be read" in compare_results(found.reference, found.rerun).structural[0]


def test_vector_bytes_are_a_remark(pair, tmp_path):
    found = pair()
    (tmp_path / "rerun/figures/figure1.svg").write_text("<svg></svg>")
    found = compare_results(found.reference, found.rerun)
    assert found.conclusion == "equal" and "figure1.svg has other bytes" in found.remarks[0]
    for folder in (found.reference, found.rerun):  # without a picture that tells more, other bytes are a difference
        (folder / "figures/figure1.png").unlink()
    assert "figure1.svg has other bytes" in compare_results(found.reference, found.rerun).differences[0]


def test_measures_are_compared_with_their_numbers(pair):
    found = pair(lambda manifest: manifest["measures"]["09"]["hits"][0].update(found=44))
    assert found.differences == ["measure 09.hits.0.found: 46 in the reference, 44 in the rerun."]
    assert found.largest == {"measure 09.hits.found": 2.0} and found.exit_code == 1


REASONS = {
    "another processor: EPYC instead of Xeon": lambda m: (
        m["machine"].update(processor="EPYC"),
        m["stages"]["07"]["machine"].update(processor="EPYC"),
    ),
    "another processor: EPYC and Xeon instead of Xeon": lambda m: m["stages"]["07"]["machine"].update(processor="EPYC"),
    "another GPU: H200 and none instead of none": lambda m: m["machine"].update(gpu="H200"),
    "other packages: torch 2.12.1 instead of 2.12.0": lambda m: m["packages"].update(torch="2.12.1"),
    "another Python: 3.12.1 instead of 3.11.9": lambda m: m.update(python="3.12.1"),
    "another lock: requirements-gpu.lock instead of requirements.lock": lambda m: m.update(
        lock={"name": "requirements-gpu.lock", "sha256": "2"}
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_machine_and_environment_explain_values(pair, reason):
    found = pair(REASONS[reason], table=TABLE.replace("32.81", "33.59"))
    assert found.reasons == [reason]
    assert (found.conclusion, found.exit_code) == ("differs, as expected", 3)
    text = format_comparison(found)
    assert f"differs, as expected: {reason}" in text and "tables/table1.csv eta_p: 0.78" in text


CAUSES = {
    "parameter training.c.epochs: 18 in the reference, 7 in the rerun": lambda m: m["parameters"]["training"].update(
        c={"epochs": 7}
    ),
    "other data: kimia (100 files in the reference, 100 in the rerun)": lambda m: m["inputs"]["kimia"].update(
        index_sha256="z"
    ),
    "other weights to start from: model.backbone": lambda m: m["weights"]["model.backbone"].update(sha256="z"),
    "other code (commit c0ffee in the reference, c0ffee in the rerun)": lambda m: m.update(code_sha256="z"),
    "a manifest does not tell its weights, as those of older versions": lambda m: m.pop("weights"),
    "other data: pannuke (0 files in the reference, 7 in the rerun)": lambda m: m["inputs"].update(
        pannuke={"synthetic": True, "files": 7, "files_sha256": "f", "index_sha256": "a"}
    ),
    "the manifest of the rerun was edited": lambda m: m.update(sha256="0" * 64),
}


def test_what_explains_nothing_is_neither_reason_nor_cause(pair):
    """A package of no consequence changes the lock, and older versions did not count the files of the same data."""

    def change(manifest):
        manifest["lock"]["sha256"] = manifest["locks"]["requirements.lock"] = "3"
        del manifest["inputs"]["kimia"]["files"]

    found = pair(change, table=TABLE.replace("32.81", "33.59"))
    assert (found.reasons, found.causes, found.exit_code) == ([], [], 1)


@pytest.mark.parametrize("cause", CAUSES)
def test_parameters_data_and_code_are_causes_and_no_excuse(pair, cause):
    def change(manifest):
        other_processor(manifest)
        CAUSES[cause](manifest)

    found = pair(change, table=TABLE.replace("32.81", "33.59"))
    assert found.causes == [cause] and found.reasons and found.exit_code == 1
    text = format_comparison(found)
    assert "differs, UNEXPECTED" in text and cause in text and "another processor" in text


def test_withheld_parameters_are_no_cause(pair):
    def change(manifest):
        manifest["parameters"]["data"]["kimia"]["root"] = "slides"
        manifest["request"]["withheld"] = ["data.kimia.root"]

    assert pair(change).causes == []


def test_many_differences_are_counted_and_the_text_stays_short(pair, tmp_path):
    rows = [f"S{n},x,released,{n},\n" for n in range(300)]
    (tmp_path / "reference/tables/table1.csv").write_text(TABLE + "".join(rows))

    def change(manifest):
        other_processor(manifest)
        manifest["packages"] = {}
        manifest["parameters"] = {f"key{n}": n for n in range(50)}

    found = pair(change, table=TABLE + "".join(row.replace(",x,", ",y,") for row in rows))
    text = format_comparison(found)
    assert len(found.differences) == 300 and "Differences (300):" in text and "… and 290 more" in text
    assert len(text.splitlines()) <= 40


def test_what_is_no_run_is_refused_in_a_sentence(pair, tmp_path):
    pair()
    with pytest.raises(RequestError, match="none: no manifest.json"):
        compare_results(tmp_path / "reference", tmp_path / "none")
    (tmp_path / "rerun/manifest.json").write_text("[]")
    with pytest.raises(StudyError, match="cannot be read"):
        compare_results(tmp_path / "reference", tmp_path / "rerun")


def test_a_manifest_of_an_older_form_is_refused_by_its_field(pair, manifest, tmp_path):
    pair()
    del manifest["code_sha256"]
    write_manifest(tmp_path / "rerun", manifest)
    with pytest.raises(StudyError, match=r"rerun/manifest.json cannot be read \(it has no code_sha256"):
        compare_results(tmp_path / "reference", tmp_path / "rerun")

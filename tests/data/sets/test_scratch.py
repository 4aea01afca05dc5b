"""A new data set, added to a copy of the project as docs/extending.md says: all that the study asks of a set works.

A stage that reads it says so in its own entry, which is no matter of the set.
"""

import json

import pytest
from PIL import Image

PROGRAM = """
import json, sys
from pathlib import Path
from lgffem_core.base.project import PROJECT
from lgffem_core.config.code_version import source_files
from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, check_unchanged, data_report, images_root, patch_table, prepare
from lgffem_core.data.census import data_digest
from lgffem_core.run.checklist import missing_data

overrides = {f"data.{key}": value for key, value in json.loads(sys.argv[1]).items()}
study = Study.load(PROJECT / "params" / "smoke.yaml", overrides)
missing = missing_data(study, ["scratch"])
table = prepare(study, "scratch")
check_unchanged(study, "scratch")
print(json.dumps({
    "code": [source_files(f"from lgffem_core.data import {name}") for name in ("prepare", "patch_table")],
    "missing": missing,
    "missing for others": missing_data(study, ["imagenet", "pannuke", "kimia"]),
    "rows": table.drop(columns="sha256").values.tolist(),
    "same": bool(patch_table(study, "scratch").equals(table)),
    "digest": data_digest(study, "scratch"),
    "report": data_report(study, ["scratch"]).values.tolist(),
    "images": str(images_root(study, "scratch")),
    "order": channel_order(study, "scratch"),
    "label": study.label,
}))
"""
WHOLE = [
    [f"{split}/{label}/{patient}_{zoom}_0.png", label, number, split, patient, zoom]
    for split, patient in (("test", "p2"), ("train", "p1"))
    for number, label in enumerate(("benign", "malignant"))
    for zoom in (40, 100)
]


@pytest.fixture(scope="module")
def project(extended):
    """A copy of the project with the data set."""
    return extended("A data set")


@pytest.fixture(scope="module")
def asked(project, extended):
    """What the study in ``project`` says of it; its error where it refuses."""

    def ask(program=PROGRAM, **overrides):
        overrides = {key.replace("__", "."): value for key, value in overrides.items()}
        done = extended.run(project, "-c", program, json.dumps(overrides))
        return json.loads(done.stdout) if not done.returncode else done.stderr.splitlines()[-1]

    return ask


def test_given_images_are_prepared_counted_and_reported(asked, tmp_path):
    for path, *_ in WHOLE[::-1]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / path)
    (tmp_path / "notes.txt").write_text("x")
    found = asked(scratch__root=str(tmp_path), scratch__magnifications=[40])
    assert found["rows"] == [row for row in WHOLE if row[-1] == 40] and found["same"]
    assert found["missing"] == [] == found["missing for others"] and found["images"] == str(tmp_path)
    assert found["report"] == [
        ["scratch", "examined", "", 4, "", ""],
        ["scratch", "not read", "notice", 1, "notes.txt", ".txt file"],
    ]
    assert found["order"] == "rgb" and found["label"].startswith("profile smoke: DEMO")
    before = found["digest"]
    (tmp_path / WHOLE[0][0]).write_bytes((tmp_path / WHOLE[1][0]).read_bytes())
    assert asked(scratch__root=str(tmp_path))["digest"] != before
    said = asked(scratch__root=str(tmp_path), scratch__magnifications=[40], check_counts=True)
    assert "data.scratch.root: holds {'test': 2, 'train': 2} images, the published set {'train': 4, 'test': 4};" in said


def test_its_stand_in_is_made_where_the_profile_says_so(asked):
    found = asked(synthetic__datasets=["imagenet", "pannuke", "kimia", "scratch"], check_counts=True)
    assert found["rows"] == WHOLE and "/synthetic_" in found["images"] and found["missing"] == []


def test_without_images_it_is_missing_for_those_alone_who_ask_for_it(asked):
    said = asked()
    assert said.endswith("data.scratch.root is not set; this profile does not make synthetic scratch.")
    program = PROGRAM.split("table = ")[0] + "print(json.dumps([missing, missing_data(study, ['kimia']), study.label]))"
    missing, others, label = asked(program)
    assert missing == [
        "data.scratch.root is not set. Scratch: scratch it from the screen and set data.scratch.root to it."
    ]
    assert others == [] and "scratch" not in label


def test_its_code_counts_for_what_makes_the_index_alone(asked):
    making, reading = asked(synthetic__datasets=["scratch"])["code"]
    assert "lgffem_core/data/sets/scratch.py" in making and not any("/sets/scratch" in name for name in reading)


def test_the_page_shows_how_to_try_it(project, extended):
    (program,) = (text for what, _, text in extended.steps("A data set") if what == "run")
    done = extended.run(project, "-c", program)
    assert done.returncode == 0, done.stderr
    head, *rows = (line.split() for line in done.stdout.splitlines())
    assert "magnification" in head and len(rows) == 8
    assert [sum(label in row for row in rows) for label in ("benign", "malignant")] == [4, 4]


@pytest.mark.parametrize("path", ["p1_40.png", "p1_big_0.png", "deeper/p1_40_0.png"])
def test_a_file_of_another_name_is_refused_with_its_path(asked, tmp_path, path):
    for folder in ("train", "test"):
        (tmp_path / folder / "benign" / "deeper").mkdir(parents=True)
    Image.effect_noise((8, 8), 50).convert("RGB").save(wrong := tmp_path / "train" / "benign" / path)
    said = asked(scratch__root=str(tmp_path))
    assert f"RequestError: {wrong}: is not named <patient>_<magnification>_<number>.png; rename it." in said

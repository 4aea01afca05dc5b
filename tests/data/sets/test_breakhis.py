"""BreakHis: names and folders are held against one another, patients stay on one side, archives are unpacked safely."""

import io
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import BreakHis, Synthetic
from lgffem_core.config.study import Study
from lgffem_core.data import images_root, prepare
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.breakhis import ARCHIVE, FOLDER, SET, unpack
from lgffem_core.data.sets.breakhis_folds import case_of, dealt, listed
from lgffem_core.data.sets.breakhis_names import MAGNIFICATIONS, TYPES, Name, parse_name, parse_path

TREE = f"{FOLDER}/histology_slides/breast"


def name(sign="A", patient="14-22549AB", magnification=40, sequence=1):
    return Name(*TYPES[sign], sign, patient, magnification, sequence)


SEVERAL = [
    name(sign, f"14-{100 + 10 * kind + number}", magnification)
    for kind, sign in enumerate(TYPES)
    for number in range(2)
    for magnification in MAGNIFICATIONS
]


def put(root, names, below=TREE):
    """Image files of these names in their places."""
    for number, each in enumerate(names):
        path = root / below / each.folders / each.file
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(image).save(path)
    return root


@pytest.fixture
def tree(tmp_path):
    return put(tmp_path / "given", SEVERAL)


def layout(root, **settings):
    return SET.layout(root, BreakHis(**settings))


def refusal(root, **settings):
    with pytest.raises(RequestError) as caught:
        layout(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- names -------------------------------------------------------------------------------------------------


def test_the_official_example_is_read():
    found = parse_name("SOB_B_A-14-22549AB-40-001.png")
    assert found == ("benign", "adenosis", "A", "14-22549AB", 40, 1)
    assert found.file == "SOB_B_A-14-22549AB-40-001.png"
    path = f"{TREE}/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png"
    assert parse_path(path) == found and path == f"{TREE}/{found.folders}/{found.file}"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("SOB_B_XX-14-22549AB-40-001.png", "names the type XX, which is none of A, F"),
        ("SOB_M_A-14-22549AB-40-001.png", "names the class M and the type A, which is benign"),
        ("SOB_B_DC-14-22549AB-40-001.png", "names the class B and the type DC, which is malignant"),
        ("SOB_B_A-14-22549AB-50-001.png", "names the magnification 50, which is none of"),
        ("SOB_B_A-14-22549AB-040-001.png", "names the magnification 040"),
        ("SOB_B_A-14-22549AB-40-1.png", "is not named SOB_"),
        ("SOB_B_A-14-22549AB-40-001.png\n", "is not named SOB_"),
        ("SOB_B_A-١٤-22549AB-40-001.png", "is not named SOB_"),
        ("scan.png", "is not named SOB_"),
    ],
)
def test_a_name_of_another_kind_is_refused_with_its_fault(file, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_name(file)


def changed(text, rng):
    """``text`` with a few characters replaced, put in, taken out or exchanged."""
    characters = list(text)
    alphabet = "SOBMAFPTDLC_-.0123456789xXpnG /\\\x00é١²\n"
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(characters))) if characters else 0
        kind = rng.integers(4)
        if kind == 0 and characters:
            characters[place] = alphabet[rng.integers(len(alphabet))]
        elif kind == 1:
            characters.insert(place, alphabet[rng.integers(len(alphabet))])
        elif kind == 2 and characters:
            del characters[place]
        elif characters:
            other = int(rng.integers(len(characters)))
            characters[place], characters[other] = characters[other], characters[place]
    return "".join(characters)


def test_of_five_thousand_damaged_names_none_crashes_and_none_is_mislabelled():
    """What is taken says of itself exactly what was written: put together again, it is the same name."""
    rng, taken, refused = np.random.default_rng(0), 0, 0
    for _ in range(5000):
        sign = list(TYPES)[rng.integers(len(TYPES))]
        true = name(sign, f"{rng.integers(10, 20)}-{rng.integers(1, 99999)}{'ABCDE'[: rng.integers(3)]}",
                    int(rng.choice(MAGNIFICATIONS)), int(rng.integers(1, 1000)))  # fmt: skip
        assert parse_name(true.file) == true
        damaged = changed(true.file, rng)
        try:
            found = parse_name(damaged)
        except ValueError as error:
            assert str(error)
            refused += 1
            continue
        taken += 1
        assert found.file.lower() == damaged.lower() and found.file[:-3] == damaged[:-3]
        assert found.label == ("benign" if damaged[4] == "B" else "malignant")
        if damaged != true.file:  # in its old place it does not belong, unless nothing but the number was changed
            same_place = found.folders == true.folders
            path = f"{TREE}/{true.folders}/{damaged}"
            if same_place:
                assert parse_path(path) == found
            else:
                with pytest.raises(ValueError, match="but by its name belongs in"):
                    parse_path(path)
    assert refused > 2500 and taken > 100


# -- the tree ----------------------------------------------------------------------------------------------


def test_rows_have_patient_type_magnification_and_fold(tree):
    rows, labels = layout(tree, folds=2)
    assert labels == ["benign", "malignant"] and len(rows) == len(SEVERAL)
    by_path = {row[0]: row[1:] for row in rows}
    for each in SEVERAL:
        label, split, group, kind, magnification, tested = by_path[f"{TREE}/{each.folders}/{each.file}"]
        assert (label, group, kind, magnification) == (each.label, each.patient, each.type, each.magnification)
        assert tested in ("1", "2") and split == ("test" if tested == "1" else "train")


@pytest.mark.parametrize("below", [TREE, "histology_slides/breast"])
def test_the_root_may_be_the_folder_itself_or_the_one_around_it(tmp_path, below):
    rows, _ = layout(put(tmp_path, SEVERAL, below), folds=2)
    assert len(rows) == len(SEVERAL) and SET.missing(tmp_path, BreakHis()) == []


def test_a_file_in_another_types_folder_is_named(tree):
    each = SEVERAL[0]
    wrong = tree / TREE / each.folders.replace("adenosis", "fibroadenoma") / each.file
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"x")
    said = refusal(tree)
    assert said.startswith(str(wrong)) and "by its name belongs in benign/SOB/adenosis" in said


def test_an_unknown_type_is_named(tree):
    folder = tree / TREE / "benign/SOB/adenosis/SOB_B_ZZ_14-1/40X"
    folder.mkdir(parents=True)
    (folder / "SOB_B_ZZ-14-1-40-001.png").write_bytes(b"x")
    assert "SOB_B_ZZ-14-1-40-001.png: names the type ZZ, which is none of A, F, PT" in refusal(tree)


def test_a_patient_of_two_classes_is_named_and_one_of_two_types_is_not(tree):
    put(tree, [name("DC", "14-13412"), name("LC", "14-13412")])  # as BreakHis itself has one
    layout(tree, folds=2)
    put(tree, [name("A", "14-13412")])
    assert "patient 14-13412 is malignant here and benign in" in refusal(tree)


def test_a_partial_tree_says_which_magnification_it_lacks_and_what_to_set(tmp_path):
    root = put(tmp_path, [each for each in SEVERAL if each.magnification in (100, 200)])
    said = refusal(root)
    assert "is a part of BreakHis, with 100X, 200X and without 40X, 400X" in said
    assert "data.breakhis.magnifications=[100, 200]" in said
    rows, _ = layout(root, magnifications=(100, 200), folds=2)
    assert {row[5] for row in rows} == {100, 200}


def test_magnifications_that_are_not_asked_for_are_left_out(tree):
    rows, _ = layout(tree, magnifications=(400,), folds=2)
    assert {row[5] for row in rows} == {400} and len(rows) == len(SEVERAL) / 4


def test_a_tree_unpacked_into_another_is_refused(tree):
    """Each image would be trained on and tested twice."""
    put(tree, SEVERAL[:1], "histology_slides/breast")
    said = refusal(tree)
    assert said.startswith(str(tree / "histology_slides")) and f"is there twice, also as {TREE}/" in said


def test_a_tree_without_images_says_where_to_get_them(tmp_path):
    (tmp_path / TREE).mkdir(parents=True)
    assert "has no images" in refusal(tmp_path)
    assert SET.missing(tmp_path / "elsewhere", BreakHis()) == [(FOLDER, ARCHIVE)]


def test_too_many_folds_for_the_patients_are_refused(tmp_path):
    said = refusal(put(tmp_path, SEVERAL[:8] + SEVERAL[-8:]), folds=40)
    assert "fold 1 has no" in said and "data.breakhis.folds" in said


def test_published_counts_are_of_the_magnifications(tree):
    rows, _ = layout(tree, folds=2)
    assert sum(SET.published(BreakHis(), rows).values()) == 7909
    assert sum(SET.published(BreakHis(magnifications=(200,)), rows).values()) == 2013


# -- folds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_patient_is_tested_in_one_fold_and_the_classes_are_spread(folds):
    names = [name(sign, f"14-{1000 * k + i}") for k, sign in enumerate(TYPES) for i in range(7 + k)]
    found = dealt(names, folds)
    assert {len(each) for each in found.values()} == {1} and found.keys() == {each.patient for each in names}
    for label in ("benign", "malignant"):
        counts = [
            sum(found[each.patient] == {fold} for each in names if each.label == label) for fold in range(1, folds + 1)
        ]
        assert max(counts) - min(counts) <= 1
    assert found == dealt(names[::-1], folds)  # whatever the order of the files


def test_slides_that_differ_in_letters_alone_share_a_fold():
    names = [name("A", f"14-{number}{letters}") for number in range(30, 50) for letters in ("AB", "CD", "")]
    found = dealt(names, 5)
    assert all(found[each.patient] == found[case_of(each.patient)] for each in names)
    assert case_of("14-22549AB") == "14-22549"


def write_list(path, sides):
    lines = [f"{each.file}|{each.magnification}|1|{side}" for each, side in sides]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_official_lists_are_taken_where_they_are(tree):
    for fold in (1, 2):
        write_list(
            tree / f"dsfold{fold}.txt", [(e, "test" if int(e.patient[-1]) == fold - 1 else "train") for e in SEVERAL]
        )
    rows, _ = layout(tree)
    assert {(row[3][-1], row[6], row[2]) for row in rows} == {("0", "1", "test"), ("1", "2", "train")}
    assert SET.read_below(tree).fullmatch("dsfold1.txt") and SET.read_below(tree).fullmatch("mkfold/dsfold3.txt")


def test_test_sets_of_the_lists_may_overlap(tmp_path):
    paths = {}
    for fold in (1, 2):
        write_list(tmp_path / f"dsfold{fold}.txt", [(each, "test") for each in SEVERAL])
        paths[fold] = tmp_path / f"dsfold{fold}.txt"
    assert set(map(frozenset, listed(paths, SEVERAL).values())) == {frozenset({1, 2})}


def test_a_patient_on_both_sides_of_a_list_is_named(tree):
    write_list(tree / "dsfold1.txt", [(each, "test" if each.magnification == 40 else "train") for each in SEVERAL])
    said = refusal(tree)
    assert "dsfold1.txt: line 2: patient 14-100 is in train and in test" in said


def test_a_patient_that_a_list_lacks_and_a_broken_line_are_named(tree):
    write_list(tree / "dsfold1.txt", [(each, "train") for each in SEVERAL[4:]])
    assert "dsfold1.txt: does not have patient 14-100" in refusal(tree)
    (tree / "dsfold1.txt").write_text("SOB_B_A-14-100-40-001.png;40;1;train\n")
    assert "dsfold1.txt: line 1 is not <file>|<magnification>|<fold>|<train or test>" in refusal(tree)


# -- the archive -------------------------------------------------------------------------------------------


def study_of(root, out, **settings):
    given = {"data.breakhis.root": str(root), "data.breakhis.folds": 2}
    return Study.load(PROJECT / "params" / "smoke.yaml", {**given, **settings}, out)


@pytest.fixture
def archive(tree, tmp_path):
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / ARCHIVE, "w:gz") as tar:
        tar.add(tree / FOLDER, FOLDER)
    return tmp_path / "packed"


def test_an_archive_becomes_the_same_table_as_its_tree_and_its_folder_is_not_written_to(archive, tree, tmp_path):
    write_list(archive / "dsfold1.txt", [(e, "test" if e.patient.endswith("0") else "train") for e in SEVERAL])
    (tree / "dsfold1.txt").write_bytes((archive / "dsfold1.txt").read_bytes())
    before = sorted(archive.rglob("*"))
    packed, plain = study_of(archive, tmp_path / "a"), study_of(tree, tmp_path / "b")
    unpacked, extracted = prepare(packed, "breakhis"), prepare(plain, "breakhis")
    assert unpacked.equals(extracted) and len(unpacked) == len(SEVERAL)
    assert sorted(archive.rglob("*")) == before
    assert images_root(packed, "breakhis").is_relative_to(packed.artifacts)


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "hard link", "device"])
def test_a_hostile_archive_writes_nothing(tmp_path, kind):
    member = tarfile.TarInfo(f"{TREE}/{name().folders}/{name().file}")
    sound = tarfile.TarInfo(f"{TREE}/{name(sequence=2).folders}/{name(sequence=2).file}")
    member.size = sound.size = 4
    if kind == "up":
        member.name = f"../../{member.name}"
    elif kind == "absolute":
        member.name = f"/{tmp_path}/out/{member.name}"
    else:
        member.type = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[kind]
        member.linkname, member.size = "../../../secret", 0
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(b"evil"))
        tar.addfile(sound, io.BytesIO(b"good"))
    target = tmp_path / "in" / "target"
    try:
        SET.convert(tmp_path, target, BreakHis())
    except StudyError as error:
        assert str(error).startswith(str(tmp_path / ARCHIVE)) and str(error).endswith("download it again.")
        assert not target.exists()
    else:  # an absolute name that is taken as a relative one, which harms nobody and is then none of BreakHis'
        assert kind == "absolute" and not (tmp_path / "out").exists()
    outside = [path for path in tmp_path.rglob("*.png") if not path.is_relative_to(target)]
    assert outside == []


def test_a_cut_off_archive_leaves_nothing_and_says_what_to_do(archive, tmp_path):
    data = (archive / ARCHIVE).read_bytes()
    for size in (10, len(data) // 2, len(data) - 9):
        (archive / ARCHIVE).write_bytes(data[:size])
        with pytest.raises(StudyError, match=f"{ARCHIVE}: .*; download it again."):
            SET.convert(archive, tmp_path / "target", BreakHis())
        assert not (tmp_path / "target").exists()


def test_what_is_no_image_stays_in_the_archive(tmp_path):
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as tar:
        for each in (f"{FOLDER}/README.txt", f"{TREE}/benign/count_files.sh"):
            tar.addfile(tarfile.TarInfo(each), io.BytesIO())
    unpack(tmp_path / ARCHIVE, tmp_path / "target", SET.image_pattern())
    assert not (tmp_path / "target").exists()


# -- the synthetic one -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    settings = Synthetic(image_size=96, breakhis_patients=24, breakhis_fields=2)
    return SET.make_synthetic(settings, tmp_path_factory.mktemp("made") / "breakhis")


def test_the_stand_in_is_a_whole_tree_of_all_types_and_magnifications(made):
    rows, _ = layout(made, folds=2)
    assert len(rows) == 24 * 2 * 4 and {row[4] for row in rows} == {kind for _, kind in TYPES.values()}
    patients = {row[3]: row[1] for row in rows}
    assert len(patients) == 24 and sum(label == "benign" for label in patients.values()) == 7
    assert read_rgb(made / rows[0][0]).shape == (48, 72, 3)


def test_the_same_settings_give_the_same_bytes_and_more_patients_leave_the_others(made, tmp_path):
    more = SET.make_synthetic(Synthetic(image_size=96, breakhis_patients=28, breakhis_fields=2), tmp_path / "more")
    for path in made.rglob("*.png"):
        assert (more / path.relative_to(made)).read_bytes() == path.read_bytes()


def by_patient(made):
    rows, _ = layout(made, folds=2)
    images = np.stack([read_rgb(made / row[0]) for row in rows]).astype(float)
    return images, np.array([row[1] == "malignant" for row in rows]), np.array([row[3] for row in rows])


def test_a_view_shows_the_middle_of_the_next_lower_magnification(made):
    rows, _ = layout(made, folds=2)
    paths = {(row[3], row[5]): made / row[0] for row in rows if row[0].endswith("-001.png")}
    patient = rows[0][3]
    for low, high, factor in ((100, 200, 2), (200, 400, 2)):
        wide, near = (read_rgb(paths[patient, zoom]).astype(float) for zoom in (low, high))
        height, width = wide.shape[:2]
        rows_, columns = height // factor, width // factor
        middle = wide[(height - rows_) // 2 :, (width - columns) // 2 :][:rows_, :columns]
        small = near.reshape(rows_, factor, columns, factor, 3).mean(axis=(1, 3))
        assert np.corrcoef(middle.ravel(), small.ravel())[0, 1] > 0.9


def test_the_class_is_not_in_the_mean_colour(made):
    """The nearest other patient by mean colour has the class as often as among shuffled classes."""
    images, malignant, patients = by_patient(made)
    colour = images.mean(axis=(1, 2))
    names = np.unique(patients)
    means = np.stack([colour[patients == each].mean(axis=0) for each in names])
    labels = np.array([malignant[patients == each][0] for each in names])
    apart = np.linalg.norm(means[:, None] - means[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    rng = np.random.default_rng(0)
    shuffled = []
    for _ in range(500):
        mixed = rng.permutation(labels)
        shuffled.append((mixed[nearest] == mixed).mean())
    assert np.quantile(shuffled, 0.01) <= (labels[nearest] == labels).mean() <= np.quantile(shuffled, 0.99)


# -- the real one ------------------------------------------------------------------------------------------


def test_real_patches_of_one_magnification_are_read_as_what_their_names_say(shared, tmp_path):
    """A part of BreakHis, of 17 slides at 200×, cut to squares."""
    root = shared / "breakhis"
    assert "with 200X and without 40X, 100X, 400X" in refusal(root)
    study = study_of(root, tmp_path, **{"data.breakhis.magnifications": [200], "data.breakhis.folds": 5})
    table = prepare(study, "breakhis")
    assert table["group"].nunique() == 17 and table["type"].nunique() == 8 and set(table["magnification"]) == {200}
    tested = table.groupby("group")["tested_in"].nunique()
    assert (tested == 1).all() and set(table["tested_in"]) == {"1", "2", "3", "4", "5"}

"""Parameters: faults are refused in one sentence that names key and remedy, and nothing is ever executed."""

import re

import pytest
import yaml

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import PATH_KEYS, TEXT_KEYS, known_keys, nearest_key
from lgffem_core.config.parameter_files import (
    apply_overrides,
    parse_pairs,
    read_yaml,
    validate,
)
from lgffem_core.config.params import DATASETS, Params

PROFILES = sorted((PROJECT / "params").glob("*.yaml"))


def flat(tree, prefix=""):
    """Nested mapping -> {dotted key: value}; an empty mapping is a value."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def load(overrides, source="mine.yaml"):
    return validate(apply_overrides({"profile": "mine"}, overrides), source)


def refusal(overrides):
    """The sentence with which ``overrides`` are refused."""
    with pytest.raises(RequestError) as caught:
        load(overrides)
    sentence = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in sentence and sentence.endswith((".", "?")) and len(sentence) < 200
    return sentence


# -- unknown keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("training.a.epoch", "training.a.epochs"),
        ("model.backbone.nmae", "model.backbone.name"),
        ("sedes", "seeds"),
        ("varaints", "variants"),
        ("data.kimia.roots", "data.kimia.root"),
        ("model.toggles.head_nrom", "model.toggles.head_norm"),
        ("trainig", "training"),
        ("Seeds", "seeds"),
        ("epochs", "training.a.epochs"),  # the leaf without its sections
        ("compute.threds", "compute.threads"),
    ],
)
def test_a_typo_names_the_file_the_key_and_its_nearest_neighbour(typed, meant):
    assert refusal({typed: 1}) == f"mine.yaml: unknown parameter {typed}; did you mean {meant}?"


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("slides.nothing", "slides has encoder, mpp, pixels, tissue, unstated_mpp, step."),
        ("data.kimia.nothing", "data.kimia has root, scans."),
        ("zzz", "a profile has profile, data, model, "),
        ("zzz.zzz", "a profile has profile, data, model, "),
    ],
)
def test_where_no_key_is_near_those_of_the_section_are_named(typed, instead):
    with pytest.raises(RequestError) as caught:
        load({typed: 1})
    first = typed if typed != "zzz.zzz" else "zzz"
    assert str(caught.value).startswith(f"mine.yaml: unknown parameter {first}; {instead}")


def test_a_typo_in_a_section_is_found_before_its_leaf():
    assert refusal({"trainig.a.epochs": 3}) == "mine.yaml: unknown parameter trainig; did you mean training?"


def test_every_known_key_is_its_own_nearest():
    assert [key for key in known_keys() if nearest_key(key) != key] == []


def test_known_keys_are_exactly_what_the_schema_dumps():
    dumped = set(flat(Params(profile="x").model_dump()))
    leaves = {key for key in known_keys() if not any(k.startswith(f"{key}.") for k in known_keys())}
    assert leaves == dumped


def test_a_typo_is_said_even_where_it_leaves_a_key_missing():
    with pytest.raises(RequestError, match="unknown parameter training.a.epoch; did you mean training.a.epochs"):
        validate({"profile": "mine", "training": {"a": {"epoch": 3}}}, "mine.yaml")


# -- wrong values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.a.epochs", 0),
        ("training.a.epochs", "many"),
        ("training.a.epochs", 1.5),
        ("training.lr", -1),
        ("training.lr", float("nan")),
        ("training.schedule", "linear"),
        ("training.weight_decay", -1e-5),
        ("model.head.dropout", 1.0),
        ("model.toggles.grn", "rows"),
        ("model.image_size", None),
        ("data.kimia", 3),
        ("data.pannuke.split", 4),
        ("data.synthetic.kimia_test_fraction", 1.1),
        ("compute.workers", -1),
        ("compute.device", "gpu"),
        ("retrieval.protocols", ["recall"]),
        ("data.kimia.scans", 1),
        ("explain.planted", 1),
        ("projection.neighbours", 1),
        ("retrieval.bootstrap", 1),
        ("retrieval.bootstrap", 199),
        ("variants", "paper"),
        ("variants", ["published"]),
        ("seeds", [-1]),
        ("profile", "../elsewhere"),
        ("profile", ""),
    ],
)
def test_a_wrong_value_names_the_file_the_key_and_the_value(key, value):
    sentence = refusal({key: value})
    assert sentence.startswith(f"mine.yaml: parameter {key}")
    assert repr(value) in sentence or repr(value)[1:-1] in sentence


@pytest.mark.parametrize("key", ["seeds", "variants", "smse.folds", "data.breakhis.magnifications"])
def test_seeds_and_variants_need_values_and_each_once(key):
    once = {"seeds": 3, "variants": "paper", "smse.folds": 2, "data.breakhis.magnifications": 40}[key]
    rule = f"mine.yaml: {key} must list at least one value, none of them twice."
    assert refusal({key: []}) == refusal({key: [once, once]}) == rule


def test_a_reduction_that_leaves_no_channel_is_refused():
    assert "model.neck.reduction must not be larger" in refusal({"model.neck.channels": 8, "model.neck.reduction": 9})
    assert load({"model.neck.channels": 8, "model.neck.reduction": 8}).model.neck.reduction == 8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fgcr.width": 250}, "fgcr.width must be a multiple of fgcr.heads"),
        ({"fgcr.text_heads": 3}, "fgcr.width must be a multiple of fgcr.text_heads"),
        ({"smse.single": 200}, "smse.single and smse.held_out must be two magnifications"),
        ({"systems": ["smse"], "smse.folds": [1, 6]}, "smse.folds names fold 6 of 5; set data.breakhis.folds to more"),
    ],
)
def test_what_would_fail_in_a_late_notebook_is_refused_at_once(values, said):
    assert refusal(values).startswith(f"mine.yaml: {said}")


@pytest.mark.parametrize(
    ("typed", "blamed"),
    [
        ({"fgcr.heads": 7}, "--set fgcr.heads"),
        ({"fgcr": {"heads": 7}, "seeds": [3]}, "--set fgcr"),
        ({"seeds": [3], "smse.held_out": 40, "smse.single": 40}, "--set smse.held_out, smse.single"),
        ({"systems": ["smse"], "data.breakhis.folds": 3}, "--set systems, data.breakhis.folds"),
        ({"systems": ["smse"]}, "mine.yaml"),
        ({"seeds": [3]}, "mine.yaml"),
    ],
)
def test_a_rule_about_the_whole_tree_names_what_was_typed(typed, blamed):
    """And not what is sound, where the file has the fault by itself."""
    own = {} if blamed.startswith("--set") else {"model.neck.channels": 8, "model.neck.reduction": 9}
    with pytest.raises(RequestError) as caught:
        validate(apply_overrides({"profile": "mine"}, own | typed), "mine.yaml", typed)
    assert str(caught.value).startswith(f"{blamed}: ")


def test_folds_are_not_held_against_a_number_that_lists_may_replace():
    assert load({"systems": ["smse"], "smse.folds": [6], "data.breakhis.root": "x"}).smse.folds == (6,)
    assert load({"smse.folds": [6]}).smse.folds == (6,)


def test_a_profile_without_a_name_is_refused():
    with pytest.raises(RequestError, match=r"^mine.yaml: parameter profile is missing\.$"):
        validate({}, "mine.yaml")


def test_parameters_cannot_be_changed_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load({}).training.batch_size = 1


# -- YAML --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'b"])
def test_broken_yaml_is_one_sentence_that_names_the_file(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as YAML (") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "text"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match="must be a mapping"):
        read_yaml(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("profile: é".encode("latin-1"))
    with pytest.raises(RequestError, match="latin.yaml: cannot be read as YAML"):
        read_yaml(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RequestError, match="none.yaml: no such parameter file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="is a folder"):
        read_yaml(tmp_path)


def test_a_tag_that_would_run_code_is_refused(tmp_path):
    made = tmp_path / "made"
    attack = f"!!python/object/apply:os.mkdir ['{made}']"
    yaml.unsafe_load(attack)
    made.rmdir()  # so the attack works where YAML is read carelessly
    path = tmp_path / "attack.yaml"
    path.write_text(f"profile: {attack}")
    with pytest.raises(RequestError, match="cannot be read as YAML"):
        read_yaml(path)
    with pytest.raises(RequestError, match="not valid YAML"):
        parse_pairs([f"seeds={attack}"])
    with pytest.raises(RequestError, match="parameter profile"):  # a name: taken as typed, and it is none
        validate(parse_pairs([f"profile={attack}"]), "--set")
    assert not made.exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E+4", -2e4), (".5e1", 5.0), ("1.5e-3", 1.5e-3), ("12", 12), ("1e", "1e"), ("s1e3", "s1e3")],
)
def test_numbers_with_an_exponent_are_numbers(tmp_path, text, value):
    path = tmp_path / "number.yaml"
    path.write_text(f"x: {text}")
    read = read_yaml(path)["x"], parse_pairs([f"x={text}"])["x"]
    assert read == (value, value) and type(read[0]) is type(read[1]) is type(value)


# -- --set and overrides -----------------------------------------------------------------------------------


def test_pairs_are_read_as_yaml():
    pairs = ["training.a.epochs=2", "seeds=[0, 1]", "data.kimia.root=/a b", "x=null", "y=a=b", "z=true", " v =1"]
    assert parse_pairs(pairs) == {
        "training.a.epochs": 2, "seeds": [0, 1], "data.kimia.root": "/a b", "x": None, "y": "a=b", "z": True, "v": 1,
    }  # fmt: skip


def test_the_keys_of_paths_are_those_that_the_schema_gives_a_path():
    values = flat(Params(profile="x").model_dump())
    paths = {key for key in values if key.split(".")[-1] in ("root", "weights", "checkpoint", "embeddings")}
    assert paths == PATH_KEYS and len(paths) == len(DATASETS) + 7
    assert TEXT_KEYS - PATH_KEYS == {"profile", "model.backbone.name", "baselines.ma_ms.network"}


AS_TYPED = [
    "pp #1",
    "&x",
    "*x",
    "2024",
    "no",
    "[x]",
    "{x}",
    "a: b",
    "!x",
    "'q'",
    '"q"',
    "- x",
    "NULL",
    "1e3",
    "|",
]


@pytest.mark.parametrize("text", AS_TYPED)
@pytest.mark.parametrize("key", sorted(TEXT_KEYS))
def test_paths_and_names_are_taken_as_typed(key, text):
    assert parse_pairs([f"{key}={text}"]) == {key: text}


@pytest.mark.parametrize("text", ["", " ", "\t", "#5", "~", "&x", "!!null ''"])
@pytest.mark.parametrize("key", ["data.kimia.root", "training.b.lr", "model.backbone"])
def test_null_must_be_written_as_such(key, text):
    if key in TEXT_KEYS and text.strip():
        assert parse_pairs([f"{key}={text}"]) == {key: text}
        return
    with pytest.raises(RequestError, match=f"^--set {key}="):
        parse_pairs([f"{key}={text}"])
    assert parse_pairs([f"{key}=null"]) == {key: None}


@pytest.mark.parametrize("text", ["root:", "root: &x", "root: &x null", "datasets: [a, , b]", "datasets:\n  -\n  - a"])
def test_nothing_behind_a_key_is_no_null(tmp_path, text):
    (path := tmp_path / "p.yaml").write_text(text)
    with pytest.raises(RequestError, match="cannot be read as YAML"):
        read_yaml(path)


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_not_the_current_folder(empty):
    with pytest.raises(RequestError, match=r"data\.kimia\.root: must not be empty"):
        validate({"profile": "x", "data": {"kimia": {"root": empty}}}, "p.yaml")


def test_a_path_that_is_no_text_is_named_by_its_key():
    with pytest.raises(RequestError, match=r"^--set: parameter data\.kimia\.root: holds bytes that are no UTF-8"):
        parse_pairs(["data.kimia.root=/tmp/caf\udce9"])


@pytest.mark.parametrize("value", [2024, False, 1e3])
def test_a_path_that_yaml_read_as_something_else_wants_quotes(value):
    with pytest.raises(RequestError, match=r"data\.kimia\.root: .*string, got .*; put it in quotes\.$"):
        validate({"profile": "x", "data": {"kimia": {"root": value}}}, "p.yaml")


@pytest.mark.parametrize("pair", ["training.a.epochs", "=3", ""])
def test_a_pair_without_key_or_value_says_how_to_write_one(pair):
    with pytest.raises(RequestError, match="write it as key.path=value") as caught:
        parse_pairs(["seeds=[0]", pair])
    assert str(caught.value).startswith(f"--set {pair}: ")


@pytest.mark.parametrize("key", [".".join("a" * 2000), "compute.f\udcfcr"])
def test_a_key_beyond_every_depth_or_alphabet_is_refused_in_a_short_sentence(key):
    with pytest.raises(RequestError, match="write it as key.path=value") as caught:
        parse_pairs([f"{key}=1"])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["training.d.epochs", "traning.a.epochs"])
def test_an_unknown_section_that_was_typed_is_not_laid_on_the_file(key):
    tree = apply_overrides({"profile": "x"}, {key: 1})
    with pytest.raises(RequestError, match="^--set: unknown parameter"):
        validate(tree, "p.yaml", {key: 1})


def test_a_pair_with_broken_yaml_names_itself():
    with pytest.raises(RequestError, match=r"^--set seeds=\[0: the value is not valid YAML\.$"):
        parse_pairs(["seeds=[0"])


def test_overrides_do_not_change_their_argument():
    tree = {"training": {"a": {"epochs": 1}}, "seeds": [0]}
    before = {"training": {"a": {"epochs": 1}}, "seeds": [0]}
    merged = apply_overrides(tree, {"training.a.epochs": 2, "training.b.epochs": 3, "seeds": [1]})
    assert tree == before
    assert merged == {"training": {"a": {"epochs": 2}, "b": {"epochs": 3}}, "seeds": [1]}


def test_an_override_below_a_value_is_refused():
    with pytest.raises(RequestError, match=r"^--set profile\.name: profile is a value, not a section"):
        apply_overrides({"profile": "mine"}, {"profile.name": 1})


# -- the profiles ------------------------------------------------------------------------------------------


def test_the_profiles_of_the_project_are_there():
    assert {path.stem for path in PROFILES} >= {"smoke", "demo", "histology", "paper"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_loads_and_is_named_as_its_file(path):
    assert validate(read_yaml(path), path.name).profile == path.stem


def test_paper_yaml_says_what_the_defaults_say():
    tree = read_yaml(PROJECT / "params" / "paper.yaml")
    paper = flat(validate(tree, "paper.yaml").model_dump())
    defaults = flat(Params(profile="default").model_dump())
    differ = {key for key in paper if paper[key] != defaults[key]}
    assert differ == {"profile", "variants", "data.check_counts", "compute.workers", "compute.checkpoint_steps"}


def test_paper_yaml_lists_every_parameter_but_those_of_synthetic_images():
    listed = set(flat(read_yaml(PROJECT / "params" / "paper.yaml")))
    absent = set(flat(Params(profile="default").model_dump())) - listed
    assert absent and all(key.startswith("data.synthetic.") for key in absent)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_what_a_comment_names_is_there(path):
    """Files, and the class of the section beside which a module of ``config`` is named."""
    section, named = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        key, comment = re.match(r"(?: *(\w+):)?[^#]*(.*)", line).groups()
        depth = (len(line) - len(line.lstrip())) // 2
        section = [*section[:depth], key] if key else section
        for name in re.findall(r"(?<![\w./=])(?:\./)?((?:\w+/)*\w+\.(?:py|md|ya?ml|sh))\b", comment):
            assert (PROJECT / name).is_file(), f"{line.strip()}: there is no {name}"
        for name in re.findall(r"lgffem_core/config/\w+", comment) if key else ():
            model = Params
            for part in section:
                model = model.model_fields[part].annotation
            assert model.__module__ == name.replace("/", "."), f"{line.strip()}: it is in {model.__module__}"
            named += 1
    assert named == (3 if path.stem == "paper" else 0)


def test_paper_yaml_is_the_published_schedule():
    params = validate(read_yaml(PROJECT / "params" / "paper.yaml"), "paper.yaml")
    training, model = params.training, params.model
    assert [training.a.epochs, training.b.epochs, training.c.epochs] == [60, 300, 300]
    assert [training.a.amsgrad, training.b.amsgrad, training.c.amsgrad] == [False, False, True]  # as their scripts
    assert [training.a.drop_last, training.b.drop_last, training.c.drop_last] == [True, False, True]
    assert (training.lr, training.lr_min, training.batch_size, training.schedule) == (5e-3, 8e-5, 64, "cosine")
    assert (training.loss.margin, training.loss.scale, training.loss.sub_centers) == (17.2, 64, 6)
    assert (model.image_size, model.neck.channels, model.neck.layers) == (224, 512, 3)
    assert model.backbone.name == "convnextv2_base.fcmae" and model.head.gem_p == 4.6
    assert params.data.synthetic.datasets == () and params.data.check_counts

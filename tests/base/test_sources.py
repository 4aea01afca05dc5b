"""A module of the study that Python cannot read is told in a sentence with file and line, by every command."""

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.base.sources import fault_of, first_fault, text_of
from lgffem_core.config.code_version import file_hash, syntax_hash

#: What an editor or a cut leaves at a module's end -> what is said of it, and in which of the added lines.
BROKEN = {
    b"\nx = (\n": (2, "'(' was never closed"),
    b"\n\nx = '\xe9'\n": (3, "'utf-8' codec can't decode byte 0xe9"),
    b"\n# -*- coding: latin-1 -*-\nx = '\xe9'\n": (3, "'utf-8' codec can't decode byte 0xe9"),  # too late a line
    b"\nreturn 1\n": (2, "'return' outside function"),
    b"\nx = " + b"(" * 300 + b")" * 300 + b"\n": (2, "too many nested parentheses"),
    b"\nx = 1\0\n": (None, "null bytes"),
    b"\nx = " + b"+".join([b"1"] * 20_000) + b"\n": (None, "recursion"),
    b"\nx = " + b"-" * 20_000 + b"1\n": (None, "nested"),
}
NAMES = ["open", "bytes", "coded", "outside", "parentheses", "zero", "sum", "signs"]


@pytest.mark.parametrize("added", BROKEN, ids=NAMES)
def test_what_python_cannot_read_is_named_with_its_line(tmp_path, added):
    (path := tmp_path / "some.py").write_bytes(b"x = 1\n" + added)
    line, said = BROKEN[added]
    fault = fault_of(path)
    assert fault.startswith(f"{path}, line {line + 1}: is not Python (" if line else f"{path}: is not Python (")
    assert said in fault and fault.endswith("; mend or restore it.")
    (tmp_path / "sound.py").write_text("x = 1\n")
    assert fault_of(tmp_path / "sound.py") is None and first_fault(tmp_path) == fault


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfx = '\xc3\xa9'\n", b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"], ids=["mark", "coded"]
)
def test_what_python_reads_in_another_encoding_is_read_as_it_does(tmp_path, data):
    (path := tmp_path / "some.py").write_bytes(data)
    (tmp_path / ".#some.py").symlink_to("me@host.1:2")  # an editor's lock
    assert first_fault(tmp_path) is None and text_of(path).endswith("x = 'é'\n")
    assert file_hash(path) == syntax_hash("x = 'é'")


def test_nothing_is_wrong_with_the_study_s_own():
    assert first_fault(PROJECT / "lgffem_core") is None


@pytest.fixture(scope="module")
def copy(extended):
    return extended()


@pytest.mark.parametrize("added", list(BROKEN)[:3] + list(BROKEN)[-2:], ids=NAMES[:3] + NAMES[-2:])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("config/keys.py", ["params/smoke.yaml", "--dry-run"]),
        ("run/verify.py", ["verify"]),
        ("base/signals.py", ["verify"]),
    ],  # at once, late, and before all else
)
def test_a_command_that_meets_one_ends_with_that_sentence(extended, copy, module, words, added):
    path = copy / "lgffem_core" / module
    sound = path.read_bytes()
    path.write_bytes(sound + added)
    try:
        done = extended.run(copy, "-m", "lgffem_core", *words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {fault_of(path)}\n")
    finally:
        path.write_bytes(sound)


def test_another_error_of_those_kinds_stays_what_it_is(extended, copy):
    path = copy / "lgffem_core" / "run" / "verify.py"
    sound = path.read_bytes()
    path.write_bytes(sound + b"\nint('x')\n")
    try:
        done = extended.run(copy, "-m", "lgffem_core", "verify")
        assert done.stderr.splitlines()[-1] == "ValueError: invalid literal for int() with base 10: 'x'"
    finally:
        path.write_bytes(sound)

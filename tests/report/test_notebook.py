"""Pages of notebooks: equations as MathML, nothing from elsewhere, whatever the notebook holds."""

import xml.etree.ElementTree as ET

import nbformat
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.report.notebook import mathml, notebook_page

FILES = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def page(tmp_path):
    """The page of a notebook with these cells."""

    def make(*cells, **metadata):
        path = tmp_path / "some.failed.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=metadata), path)
        return notebook_page(path, "some")

    return make


def shape(element):
    """An element of MathML as nested tuples: tag without its namespace, then text or children."""
    tag, children = element.tag.split("}")[-1], [shape(child) for child in element]
    return (tag, *children) if children else (tag, element.text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_equation_of_every_notebook_is_translated_and_nothing_is_loaded(path, self_contained):
    html = notebook_page(path, path.stem)
    if "$" in "".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"):
        self_contained(html)
    else:
        self_contained(html + "<math></math>")


def test_an_equation_says_the_same_in_mathml():
    fraction = ("mfrac", ("mrow", ("msub", ("mi", "c"), ("mi", "s"))), ("mrow", ("mn", "2")))
    root = ET.fromstring(mathml(r"\frac{c_s}{2}", "block"))
    assert root.get("display") == "block" and shape(root) == ("math", ("mrow", fraction))


def test_the_name_of_a_function_stands_off_from_what_it_multiplies():
    (name,) = [mo for mo in ET.fromstring(mathml(r"s\cos\theta", "inline")).iter() if mo.text == "cos"]
    assert float(name.get("lspace").removesuffix("em")) > 0.1 < float(name.get("rspace").removesuffix("em"))


@pytest.mark.parametrize(
    "tex", [r"\notacommand{x} < 1", r"\begin{aligned}a&=b\end{aligned}", r"\left(", r"\frac", "x^"]
)
def test_what_cannot_be_translated_is_shown_as_typed_and_marked(tex, page):
    html = page(nbformat.v4.new_markdown_cell(f"Before $${tex}$$ after."))
    typed = tex.replace("&", "&amp;").replace("<", "&lt;")
    assert f'<code class="untranslated">{typed}</code>' in html and "<math" not in html


def test_the_title_is_the_stages_and_dollars_in_code_stay(page, self_contained):
    html = page(nbformat.v4.new_markdown_cell("Type `$HOME`; $x$ is an equation, \\$5 a price."))
    assert "<title>some</title>" in html and "<code>$HOME</code>" in html and html.count("<math") == 1


def test_outputs_load_nothing_either(page, self_contained):
    """A progress bar asks for a script of widgets, and one more where its state is kept."""
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "bar"}
    kinds = [{"image/png": PNG, "text/plain": "<Figure>"}, {"text/html": "<table></table>"}, {"text/markdown": "$y$"}]
    outputs = [nbformat.v4.new_output("display_data", data) for data in [*kinds, widget]]
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {}}, "version_major": 2, "version_minor": 0}}
    html = page(nbformat.v4.new_code_cell("x", outputs=outputs), widgets=state)
    self_contained(html)
    assert ">bar</pre>" in html and f"base64,{PNG}" in html

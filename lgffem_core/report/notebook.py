"""An executed notebook as a page that needs nothing from outside: equations as MathML, no script, no font to load."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATE = Path(__file__).with_name("notebook.html.j2")
THIN = 'lspace="0.167em" rspace="0.167em"'  # TeX's space around the name of a function


class MathRenderer(IPythonRenderer):
    """Nbconvert's Markdown, with each equation as MathML instead of TeX that a script from elsewhere would typeset."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def mathml(tex: str, display: str) -> str:
    """An equation as MathML; one that cannot be translated stays as it is typed and is marked as such.

    Args:
        display: "inline" or "block".
    """
    try:
        found = convert(tex, display=display)
    except Exception:  # of many kinds, bare IndexErrors among them
        found = "\\"
    if set("\\&") & set(html.unescape(re.sub("<[^>]*>", "", found))):  # what the library does not know, it copies
        return f'<code class="untranslated">{html.escape(tex)}</code>'
    return re.sub("<m[io]>([a-z]{2,})</m[io]>", rf"<mo {THIN}>\1</mo>", found)


def notebook_page(path: Path, title: str) -> str:
    """The page of a notebook that was executed."""

    def markdown(source: str) -> str:
        return MarkdownWithMath(renderer=MathRenderer(escape=False, exclude_anchor_links=True)).render(source)

    exporter = HTMLExporter(template_file=str(TEMPLATE), filters={"markdown2html": markdown})
    with open(path, encoding="utf-8") as file:
        return exporter.from_file(file, {"metadata": {"name": title}})[0]

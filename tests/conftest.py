"""Fixtures that many tests share. Checks on shared material skip, saying so, where it is absent."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

ADDRESS = re.compile(r"""@import[^;]*|url\(\s*["']?(?!data:|#)[^)]*""")  # in a style
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of golden values and real tiles that lies beside the checkout on some machines."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared (golden values, real tiles) is not on this machine")
    return SHARED


class Loads(HTMLParser):
    """Collects what a browser fetches, or would run, when it opens a page: everything that is not in the page."""

    def __init__(self):
        super().__init__()
        self.found, self.prose, self.inside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.inside += [tag] if tag in ("script", "style", "code", "pre") else []
        self.found += ["<script>"] if tag == "script" else []
        for name, value in attributes:
            fetched = name in ("src", "srcset", "data", "poster", "background") or (name == "href" and tag != "a")
            if fetched and not value.startswith(("data:", "#")):
                self.found.append(value)
            if name == "style":
                self.found += ADDRESS.findall(value)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, text):
        if "style" in self.inside:
            self.found += ADDRESS.findall(text)
        elif not self.inside:
            self.prose.append(text)


@pytest.fixture(scope="session")
def self_contained():
    """Asserts that a page loads nothing and runs nothing, and that its text holds no equation left as TeX."""

    def check(html):
        page = Loads()
        page.feed(html)
        assert page.found == []
        prose = "".join(page.prose)
        assert "<math" in html and not re.search(r"\$|\\[a-zA-Z]+", prose), re.findall(r".{30}[$\\].{30}", prose)[:3]
        assert "untranslated" not in html
        # What MathML Core has left out, browsers ignore: letters would come out plain.
        assert set(re.findall(r'mathvariant="([^"]*)"', html)) <= {"normal"}

    return check

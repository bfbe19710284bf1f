"""Links of pages as they lie in the repository: what they name is there, anchors too; external ones are well formed."""

import re
import unicodedata
from urllib.parse import urlsplit

import pytest

from tests.docs.conftest import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ANY = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


def targets(page):
    return ANY.findall(FENCED.sub("", page.read_text(encoding="utf-8")))


def anchors(page):
    """Return the anchors of a page's headings, as both GitHub and the site make them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return {slug(words) for words in re.findall(r"^#+ (.+)$", text, re.M)}


def slug(heading):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    kept = "".join(c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN")
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_links_is_there(page):
    for target in targets(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), target
            continue
        found = page.parent / parts.path if parts.path else page
        assert found.exists(), f"{target} is not there"
        if parts.fragment:
            assert parts.fragment in anchors(found), f"{target}: no such heading, there are {sorted(anchors(found))}"


def test_a_planted_fault_is_caught(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n\n[gone](gone.md) [here](#a-b) [nowhere](#c)\n\n```python\nx = y[0](z)\n```\n")
    assert targets(page) == ["gone.md", "#a-b", "#c"]
    with pytest.raises(AssertionError, match=r"gone\.md is not there"):
        test_what_a_page_links_is_there(page)
    page.write_text("# A b\n\n[here](#a-b) [nowhere](#c)\n")
    with pytest.raises(AssertionError, match="#c: no such heading"):
        test_what_a_page_links_is_there(page)
    page.write_text("[insecure](http://example.org)")
    with pytest.raises(AssertionError):
        test_what_a_page_links_is_there(page)

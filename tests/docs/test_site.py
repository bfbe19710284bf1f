"""The site: complete, whole, and silent towards the network."""

import doctest
import importlib
import inspect
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.docs.conftest import ROOT, build, tool
from tests.house.test_samples import PACKAGES

SHAPE = re.compile(r"\((?:[A-Z0-9*n][^)`]*)\)|scalar")


class Page(HTMLParser):
    """What a page names, loads and links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical" and found.get("href"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_every_link_of_every_page_ends_somewhere(pages: dict[Path, Page]) -> None:
    assert len(pages) > 50
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https", f"{path}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in {*pages[target].ids, "__tabbed"}, f"{path}: {link}"


def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for source in page.loads:
            assert not urlsplit(source).netloc, f"{path}: {source}"
            assert (path.parent / urlsplit(source).path).exists(), f"{path}: {source}"


def test_every_page_of_the_docs_is_in_the_menu() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed - written == {"CONTRIBUTING.md", "CHANGELOG.md"}
    assert written <= listed, f"add to the menu in mkdocs.yml: {sorted(written - listed)}"


def test_the_api_has_a_page_for_every_package_and_a_place_for_every_name(site: Path) -> None:
    found = tool("site_pages").packages()
    assert set(PACKAGES) <= set(found)
    for package in PACKAGES:
        module = importlib.import_module(package)
        assert sorted(found[package]) == sorted(module.__all__)
        page = Page(site / "api" / f"{package}.html")
        for name in module.__all__:
            assert {f"{package}.{name}", name.lower()} & page.ids, f"{package}.{name} has no place on its page"


@pytest.mark.parametrize("package", [*PACKAGES, "msam.shapley"])
def test_what_takes_or_returns_tensors_tells_their_shapes(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        for function in _functions(value):
            tensors = [a for a, kind in function.__annotations__.items() if re.search(r"\bTensor\b", str(kind))]
            told = "\n".join(filter(None, _told(value, function)))
            assert not tensors or SHAPE.search(told), f"{package}.{name}, {function.__name__}: no shape of {tensors}"


def _functions(value: object) -> list:
    if inspect.isfunction(value):
        return [value]
    if not inspect.isclass(value) or not value.__module__.startswith("msam"):
        return []
    made = "__init__" if "Arguments:" in (inspect.getdoc(value) or "") else None  # else its maker is documented
    return [f for key, f in vars(value).items() if inspect.isfunction(f) and (key[0] != "_" or key == made)]


def _told(value: object, function: object) -> list[str | None]:
    """Return the docstrings that speak of a function: its own, its class's, those of what it overrides."""
    owners = inspect.getmro(value) if inspect.isclass(value) else ()
    overridden = [vars(owner).get(function.__name__) for owner in owners if owner.__module__.startswith("msam")]
    return [inspect.getdoc(o) for o in (function, value, *overridden) if o is not None]


@pytest.mark.parametrize("name", ["site_pages", "site_doctests"])
def test_the_doctests_of_the_tools_pass(name: str) -> None:
    found = doctest.testmod(tool(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_configuration_asks_for_strictness_and_no_fonts_from_elsewhere() -> None:
    told = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)
    assert (told["strict"], told["theme"]["font"]) == ("true", "false")


@pytest.mark.parametrize(
    ("text", "says"),
    [("[a](b.md)", "'b.md'"), ("[a](#b)", "'#b'"), ("::: msam.nothing", "nothing")],
    ids=["page", "anchor", "name"],
)
def test_a_build_with_a_planted_fault_fails(tmp_path: Path, text: str, says: str) -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)
    kept = {key: config[key] for key in ("strict", "validation")}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A\n\n{text}\n")
    plain = {"site_name": "a", "plugins": [{"mkdocstrings": {"handlers": {"python": {"paths": [str(ROOT / "src")]}}}}]}
    (tmp_path / "mkdocs.yml").write_text(yaml.dump({**plain, **kept}))
    made = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert made.returncode != 0
    assert says in made.stderr


def test_make_docs_builds_as_the_tests_do() -> None:
    line = re.search(r"mkdocs build (.*)", (ROOT / "Makefile").read_text())
    assert line is not None
    assert "--strict" in line[1]
    assert "--quiet" not in line[1]


WATCHED = ("index.html", "idea.html", "methods.html", "costs.html", "trainers/plain.html", "api/msam.sharpness.html")


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_pages_are_drawn_in_silence_and_fit_the_window(site: Path, browser, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong = _listen(tab)
    for page in WATCHED:
        tab.goto((site / page).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, page
        shown = tab.evaluate("document.body.getAttribute('data-md-color-scheme')")
        assert shown == {"light": "default", "dark": "slate"}[scheme]
    assert wrong == []
    tab.close()


@pytest.mark.chromium
def test_the_search_finds_without_a_server(site: Path, browser) -> None:
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    wrong = _listen(tab)
    tab.goto((site / "index.html").as_uri())
    tab.locator("input.md-search__input").click()
    tab.locator("input.md-search__input").press_sequentially("GradScaler")
    tab.locator(".md-search-result__item a").first.wait_for(timeout=60_000)
    assert "GradScaler" in tab.locator(".md-search-result__list").inner_text()
    assert wrong == []
    tab.close()


def _listen(tab) -> list[str]:
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    local = ("file:", "data:", "blob:", "about:")
    tab.on("request", lambda asked: None if asked.url.startswith(local) else wrong.append(f"request: {asked.url}"))
    return wrong

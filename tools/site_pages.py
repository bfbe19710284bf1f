"""Pages of the site that lie outside docs/ or are made from the code: a hook of mkdocs.

Links in docs/ are those of the repository, so that they work wherever Markdown is shown. What they reach outside of docs/
comes along: Markdown as a page, code as a page with its text, pictures as they are. The API has a page for every package.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "msam"
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")
PICTURES = (".png", ".svg")
BARE = ("members", "show_root_heading", "show_root_toc_entry")
LINK = re.compile(r"^(?P<fence>```|~~~).*?^(?P=fence)|(?<=\]\()(?![a-z]+:|#)(?P<link>[^)#\s]+)", re.M | re.S)
"""A fenced block, or where a relative link or picture outside of one points, without its anchor."""


def links(text: str) -> list[str]:
    """Return where the relative links and pictures of a page point, without anchors.

    >>> links("[a](b.md#c) ![d](../e.png) [f](https://g) [h](#i)")
    ['b.md', '../e.png']
    """
    return [found["link"] for found in LINK.finditer(text) if found["link"]]


def place(page: str, link: str) -> str:
    """Return what a link on a page names, both as paths from the root of the repository.

    >>> place("docs/data/ave.md", "../../results/a.md")
    'results/a.md'
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def uri(path: str) -> str:
    """Return the address on the site of a file of the repository, in terms of Markdown files.

    >>> uri("docs/data/ave.md"), uri("results/a.md"), uri("examples/b.py")
    ('data/ave.md', 'results/a.md', 'examples/b.py.md')
    """
    inside = path.removeprefix("docs/")
    return inside if path.startswith("docs/") or path.endswith((".md", *PICTURES)) else f"{inside}.md"


def moved(text: str, page: str) -> str:
    """Return a page with links as they are on the site.

    >>> moved("[a](../examples/b.py) [c](usage.md#d)", "docs/x.md")
    '[a](examples/b.py.md) [c](usage.md#d)'
    """
    here = posixpath.dirname(uri(page))

    def new(found: re.Match[str]) -> str:
        return posixpath.relpath(uri(place(page, found["link"])), here or ".") if found["link"] else found[0]

    return LINK.sub(new, text)


def packages() -> dict[str, list[str]]:
    """Return the packages of msam that have public names, and these, as their files say."""
    paths = {".".join(("msam", *p.parent.relative_to(SOURCE).parts)): p for p in sorted(SOURCE.rglob("__init__.py"))}
    found = {package: _literal(path, "__all__") for package, path in paths.items()}
    return {package: list(names) for package, names in found.items() if names}


def api_page(package: str, names: list[str]) -> str:
    """Return the page of a package: its docstring, then every public name, or where its own page is."""
    late = _literal(SOURCE.joinpath(*package.split(".")[1:], "__init__.py"), "_LATE") or {}
    elsewhere = {name: f"{package}.{name}" for name in names if f"{package}.{name}" in packages()} | late
    bare = "".join(f"      {option}: false\n" for option in BARE)
    parts = [f"# {package}\n", f"::: {package}\n    options:\n{bare}"]
    for name in names:
        there = elsewhere.get(name)
        parts.append(f"## {name}\n\nIn [`{there}`]({there}.md).\n" if there else f"::: {package}.{name}\n")
    return "\n".join(parts)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the packages below the page of the API."""
    for entry in config.nav or []:
        if entry.get("API") == "api.md":
            pages = [{name: f"api/{name}.md"} for name in packages()]
            entry["API"] = [{"All names": "api.md"}, *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked from docs/, what that links, and the API."""
    for package, names in packages().items():
        files.append(File.generated(config, f"api/{package}.md", content=api_page(package, names)))
    seen: set[str] = set()
    waiting = [*ALWAYS]
    for file in files.documentation_pages():
        if file.abs_src_path:
            page = f"docs/{file.src_uri}"
            waiting += [place(page, link) for link in links(file.content_string)]
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith("docs/") or not (ROOT / path).is_file():
            continue
        seen.add(path)
        files.append(_brought(config, path))
        if path.endswith(".md"):
            waiting += [place(path, link) for link in links((ROOT / path).read_text(encoding="utf-8"))]
    return files


def _brought(config: MkDocsConfig, path: str) -> File:
    if path.endswith(PICTURES):
        return File.generated(config, uri(path), abs_src_path=str(ROOT / path))
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return File.generated(config, uri(path), content=moved(text, path))
    language = {".py": "python", ".toml": "toml", ".json": "json"}.get(Path(path).suffix, "text")
    return File.generated(config, uri(path), content=f"# {Path(path).name}\n\n`{path}`\n\n~~~{language}\n{text}\n~~~\n")


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page of docs/ with links as they are on the site."""
    return moved(markdown, f"docs/{page.file.src_uri}") if page.file.abs_src_path else markdown


def _literal(path: Path, name: str) -> Any:
    """Return what a file assigns to a name of its own, None if nothing."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return None

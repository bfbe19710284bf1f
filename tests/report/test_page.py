import html
import re
import shlex
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from msam import record, selection
from msam.report import Report, report, runs
from msam.report import page as page_of
from msam.report.commands import command, toml
from msam.report.sections import sections
from tests.report._records import config, write
from tests.report.test_ranks import block


class Links(HTMLParser):
    """Whatever a browser would load, and all style text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.styles = ""
        self._in = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.loaded += [f"{tag} {name}={value}" for name, value in attributes if name in ("src", "srcset", "data")]
        self.loaded += [str(v) for n, v in attributes if n == "href" and not str(v).startswith("#")]
        self.styles += " ".join(str(v) for n, v in attributes if n == "style")

    def handle_data(self, data: str) -> None:
        self.styles += data if self._in == "style" else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


@pytest.fixture(scope="module")
def page(written: tuple[Report, Path]) -> Path:
    return written[1] / "page.html"


def test_page_is_one_file_that_loads_nothing(page: Path) -> None:
    links = Links()
    links.feed(page.read_text())
    assert links.loaded == []
    assert "{" in links.styles
    assert not re.search(r"@import|url\(", links.styles)


def test_page_is_small_enough_to_send(page: Path) -> None:
    assert page.stat().st_size < 8e6


def test_page_holds_every_number_of_the_tables(written: tuple[Report, Path], page: Path) -> None:
    cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", page.read_text()))
    for section in written[0].sections:
        for table in [*section.tables, section.by_kind]:
            for row in table.rows:
                assert {cell.replace("<", "&lt;") for cell in row[1:]} <= cells


def test_page_says_what_was_left_out_and_how_to_make_runs_again(written: tuple[Report, Path], page: Path) -> None:
    text = html.unescape(page.read_text())
    assert all(note in text for note in written[0].notes)
    assert "--sharpness msam --sharpness.rho 0.3 --sharpness.scope all" in re.sub("<[^>]*>", "", text)


def test_names_from_records_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    write(tmp_path / "a.jsonl", config(), modalities=("audio", evil), **curves)
    report([tmp_path], tmp_path / "out")
    links = Links()
    links.feed((tmp_path / "out" / "page.html").read_text())
    assert links.loaded == []


def test_command_by_hand() -> None:
    settings = config("joint", {"name": "msam", "rho": 0.3, "every": None, "monitor": True}, seed=4)
    del settings["schedule"], settings["record_every"], settings["threads"]
    assert command(settings) == (
        "msam train --data avdigits --data.seed 0 --data.keep 0.4 --fusion late --method joint --sharpness msam "
        "--sharpness.rho 0.3 --sharpness.monitor true --optimizer sgd --optimizer.lr 0.05 --optimizer.momentum 0.9 "
        "--optimizer.weight_decay 0.0001 --seed 4 --epochs 3 --batch_size 64"
    )


def test_a_configuration_as_a_file_is_the_configuration_without_nulls() -> None:
    settings = config("joint", None, encoders={"audio": "my lab.net"}, probes=["curvature"], seed=4)
    settings["data"] |= {"path": 'a "b" \\ c', "keep": 1e-9, "signal": [4.0, 3.0], "left": None, "ü": True}
    expected = {key: value for key, value in settings.items() if value is not None}
    expected["data"] = {key: value for key, value in settings["data"].items() if value is not None}
    assert tomllib.loads(toml(settings)) == expected


def test_two_hundred_runs_fit_a_mail(tmp_path: Path) -> None:
    epochs = 30
    curves: dict[str, Any] = {"train": [0.9] * epochs, "valid": [0.8] * epochs, "test": [0.7] * epochs}
    rules = [None, *({"name": "sam", "rho": rho / 10} for rho in range(1, 10))]
    for row, rule in enumerate(rules):
        path = write(tmp_path / f"{row}.jsonl", config("joint", rule), **curves)
        for seed in range(1, 20):
            text = path.read_text().replace('"seed":0,"epochs"', f'"seed":{seed},"epochs"')
            (tmp_path / f"{row}-{seed}.jsonl").write_text(text)
    choice = selection.load("best_validation")
    found = sections(runs.finished(record.find(tmp_path), choice)[0], choice)
    assert len(found[0].block.runs) == 200
    assert len(page_of.render(found, None, [], choice).encode()) < 8e6


def test_command_can_be_pasted_into_a_shell() -> None:
    found = command({"data": {"name": "folder", "path": "my data; rm -rf $HOME", "modes": [4, 1.5]}})
    assert shlex.split(found) == [
        *("msam", "train", "--data", "folder", "--data.path", "my data; rm -rf $HOME", "--data.modes", "4,1.5"),
    ]


@pytest.fixture(params=[(390, "light"), (1400, "light"), (1400, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def opened(request: pytest.FixtureRequest, browser: Any, page: Path) -> Iterator[tuple[Any, list[str], int]]:
    """The page in a window, what went wrong while it was drawn, and the window's width."""
    width, scheme = request.param
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    local = ("file:", "data:", "blob:")
    tab.on("request", lambda asked: None if asked.url.startswith(local) else wrong.append(f"request: {asked.url}"))
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=120_000)
    yield tab, wrong, width
    tab.close()


@pytest.mark.chromium
def test_page_is_drawn_in_silence_and_fits_the_window(opened: tuple[Any, list[str], int]) -> None:
    tab, wrong, width = opened
    assert wrong == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    visible = tab.locator(".plot:visible")
    assert visible.count() > 20
    for plot in visible.all():
        assert plot.locator("svg path").count() > 0
        box = plot.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.chromium
def test_tabs_and_legends_work(opened: tuple[Any, list[str], int]) -> None:
    tab, wrong, _ = opened
    tab.get_by_role("tab", name="each alone, others absent").first.click()
    panel = tab.locator('[role="tabpanel"]:visible').first
    panel.locator(".plot svg path").first.wait_for(state="attached")
    entry = panel.get_by_role("button", name="Joint", exact=True)
    trace = "p => p.data.filter(t => t.legendgroup === 'Joint').every(t => t.visible === %s)"
    plot = panel.locator(".plot").first
    assert plot.evaluate(trace % "true")
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    tab.wait_for_function(f"p => ({trace % 'false'})(p)", arg=plot.element_handle())
    assert wrong == []


@pytest.mark.chromium
def test_the_diagram_of_ranks_is_drawn_in_silence_and_scrolls_where_it_is_wide(browser: Any, tmp_path: Path) -> None:
    for name in ("w", "x", "y"):
        block(tmp_path / "runs", name, {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
    report([tmp_path / "runs"], tmp_path / "out")
    tab = browser.new_page(viewport={"width": 390, "height": 900})
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto((tmp_path / "out" / "page.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=120_000)
    assert wrong == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("#ranks svg path").count() > 10
    assert tab.get_by_text("critical difference 1.91").is_visible()
    tab.close()

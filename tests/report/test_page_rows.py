"""The page's choice of rows, its tabs, colours and copies, and surfaces that turn: in a browser."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msam.report import report
from tests.report._probes import curvature, gradients, landscape, with_probes
from tests.report._records import config, write

pytestmark = pytest.mark.chromium

BOWL = [[2.0, 1.0, 2.0], [1.0, 0.5, 1.0], [2.0, 1.0, 4.0]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows of two seeds on one dataset, all probed."""
    folder = tmp_path_factory.mktemp("probed")
    for position, rule in enumerate((None, "sam", {"name": "msam", "rho": 0.3})):
        for seed in (0, 1):
            curves: dict[str, Any] = {"train": [0.5, 0.9], "valid": [0.5, 0.8], "test": [0.5, 0.7 + 0.1 * position]}
            path = write(folder / "runs" / f"{position}-{seed}.jsonl", config("joint", rule, seed=seed), **curves)
            norms = [gradients(epoch, {"audio": 1.0, "image": 2.0}, 0.1) for epoch in (0, 1, 2)]
            with_probes(path, *norms, curvature([2.0], 0.1, audio=0.1, image=0.2), landscape(BOWL, seed))
    report([folder / "runs"], folder / "out", formats=("csv",))
    return folder / "out" / "page.html"


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Any]:
    """The page in a window; errors and requests fail the test."""
    window = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light")
    wrong: list[str] = []
    window.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    window.on("pageerror", lambda error: wrong.append(str(error)))
    local = ("file:", "data:", "blob:")
    window.on("request", lambda asked: None if asked.url.startswith(local) else wrong.append(asked.url))
    window.goto(page.as_uri())
    window.wait_for_selector("html[data-ready]", timeout=120_000)
    yield window
    window.close()
    assert wrong == []


def drawn(tab: Any, row: str) -> list[bool]:
    """Whether the traces of a row show, in all plots that are drawn."""
    return tab.evaluate(
        "row => [...document.querySelectorAll('.plot[data-drawn]')].flatMap(p => p.data).filter(t => t.legendgroup === row)"
        ".map(t => t.visible !== false)",
        row,
    )


def test_a_row_that_is_not_chosen_is_gone_from_tables_charts_and_runs_together(tab: Any) -> None:
    rows = tab.locator("tr[data-row='SAM']:visible")
    before = rows.count()
    assert before >= 3
    assert drawn(tab, "SAM")
    assert all(drawn(tab, "SAM"))
    tab.locator("#filter summary").click()
    tab.get_by_role("checkbox", name="SAM", exact=True).uncheck()
    tab.wait_for_function("document.querySelector('#filter output').textContent === '2 of 3 shown'")
    assert rows.count() == 0
    assert tab.locator("tr[data-against='SAM']:visible").count() == 0
    assert tab.locator(".panel[data-row='SAM']:visible, #runs details[data-row='SAM']:visible").count() == 0
    assert not any(drawn(tab, "SAM"))
    assert all(drawn(tab, "Joint"))
    tab.get_by_role("button", name="All", exact=True).click()
    assert rows.count() == before
    assert all(drawn(tab, "SAM"))


def test_dots_close_ranks(tab: Any) -> None:
    lanes = "document.querySelector('[id^=s0-overview]').querySelector('.plot').layout.yaxis.ticktext"
    assert tab.evaluate(lanes) == ["Joint", "SAM", "M-SAM"]
    tab.locator("#filter summary").click()
    tab.get_by_role("checkbox", name="SAM", exact=True).uncheck()
    tab.wait_for_function(f"{lanes}.length === 2")
    assert tab.evaluate(lanes) == ["Joint", "M-SAM"]


def test_words_find_rows(tab: Any) -> None:
    tab.locator("#filter summary").click()
    tab.get_by_role("searchbox", name="Find rows").fill("m-sam")
    assert tab.locator("#overview tr[data-row]:visible").all_inner_texts()[0].startswith("M-SAM")
    assert tab.locator("#overview tr[data-row]:visible").count() == 1
    tab.get_by_role("searchbox", name="Find rows").fill("")
    assert tab.locator("#overview tr[data-row]:visible").count() == 3


def test_tabs_go_by_arrow_keys(tab: Any) -> None:
    tab.get_by_role("tab", name="where modalities meet").focus()
    tab.keyboard.press("ArrowRight")
    chosen = tab.get_by_role("tab", name="on the encoders")
    assert chosen.get_attribute("aria-selected") == "true"
    assert chosen.evaluate("tab => tab === document.activeElement")
    tab.locator("#s0-gradients-1 .plot svg path").first.wait_for(state="attached")


def test_light_and_dark_can_be_chosen(tab: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.get_by_role("button", name="Light or dark").click()
    assert tab.evaluate(ground) != light
    ink = tab.evaluate("document.querySelector('.plot[data-drawn]').layout.font.color")
    assert ink == tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--soft').trim()")


def test_a_command_is_copied_as_it_can_be_run(tab: Any) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    details = tab.locator("#runs details[data-row='M-SAM']")
    details.locator("summary").first.click()
    details.get_by_role("button", name="Copy").first.click()
    details.get_by_role("button", name="Copied").wait_for()
    words = shlex.split(tab.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["msam", "train"]
    assert words[words.index("--sharpness.rho") + 1] == "0.3"


def test_paper_has_no_buttons_and_light_colours(tab: Any) -> None:
    tab.emulate_media(media="print")
    assert tab.locator("#filter, nav, .views, [role=tablist], .copied button").locator("visible=true").count() == 0
    assert tab.locator("#overview table").is_visible()


def test_on_paper_surfaces_that_were_never_in_sight_are_still_pictures(tab: Any) -> None:
    still = tab.locator("#s0-landscape img.still")
    assert not still.is_visible()
    assert tab.locator(".plot.surface[data-drawn]").count() == 0
    tab.emulate_media(media="print")
    assert still.is_visible()
    assert still.evaluate("i => i.decode().then(() => i.naturalWidth)") > 1000
    assert tab.locator(".plot.surface:visible, .views:visible").count() == 0


def test_on_paper_plots_are_as_wide_as_their_column_and_light_and_after_it_as_before(tab: Any) -> None:
    widths = "[...document.querySelectorAll('.plot[data-drawn]')].map(p => p._fullLayout.width)"
    before, ink = tab.evaluate(widths), "document.querySelector('.plot[data-drawn]').layout.font.color"
    tab.get_by_role("button", name="Light or dark").click()
    dark = tab.evaluate(ink)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert max(tab.evaluate(widths)) <= 688  # A4 without its margins, in CSS's pixels
    assert tab.evaluate(ink) != dark
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(widths) == before
    assert tab.evaluate(ink) == dark


def test_without_webgl_there_is_the_still_picture(browser: Any, page: Path) -> None:
    window = browser.new_page()
    window.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext ="
        " function (kind, ...more) { return kind.includes('webgl') ? null : get.call(this, kind, ...more); }"
    )
    window.goto(page.as_uri())
    window.wait_for_selector("html[data-ready]", timeout=120_000)
    assert window.locator("img.still").is_visible()
    assert window.locator(".plot.surface:visible, .views:visible").count() == 0
    window.close()


def test_surfaces_are_drawn_in_three_dimensions_and_turn_together(tab: Any) -> None:
    surfaces = tab.locator(".plot.surface")
    assert surfaces.count() == 3
    surfaces.first.scroll_into_view_if_needed()
    for surface in surfaces.all():
        surface.locator("canvas").first.wait_for(state="attached", timeout=60_000)
    assert surfaces.first.evaluate("p => p.data[0].type") == "surface"
    ranges = surfaces.evaluate_all("ps => ps.map(p => p.layout.scene.zaxis.range.join())")
    assert set(ranges) == {"0.5,4"}
    eyes = "ps => ps.map(p => JSON.stringify(p.layout.scene.camera.eye))"
    before = set(surfaces.evaluate_all(eyes))
    tab.get_by_role("button", name="From the side").click()
    tab.wait_for_function(
        "eye => [...document.querySelectorAll('.surface')].every(p => JSON.stringify(p.layout.scene.camera.eye) !== eye)",
        arg=before.pop(),
    )
    assert not before
    assert len(set(surfaces.evaluate_all(eyes))) == 1

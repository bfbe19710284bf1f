"""A diagnosis on the console and as a page: all of its numbers, nothing that is loaded, nothing that breaks out."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import msam
from msam.diagnosis import Advice
from msam.report import diagnosis, findings
from tests.report.test_page import Links

EVIL = "</script><img src=x onerror=alert(1)>"


def made(names: tuple[str, ...], classes: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Return a diagnosis as its file has it, of an untrained model."""
    torch.manual_seed(0)
    safe = [f"m{k}" for k in range(len(names))]
    encoders = {name: torch.nn.Linear(3, 4) for name in safe}
    model = msam.MultimodalModel(encoders, msam.SumFusion(dict.fromkeys(safe, 4), len(classes)))
    batches = [
        msam.Batch({name: torch.randn(40, 3) for name in safe}, torch.arange(40) % len(classes)) for _ in range(2)
    ]
    found = msam.diagnose(model, batches, classes=classes, resamples=100, progress=False, **options).to_dict()
    text = json.dumps(found)
    for name, shown in zip(safe, names, strict=True):
        text = text.replace(json.dumps(name), json.dumps(shown))
    read: dict[str, Any] = json.loads(text)
    return read


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    whole = made(("audio", "image", "text"), ("cat", "dog", "cow"))
    whole["advice"] = [Advice("unused", "audio", "It is so.", "Do this.").__dict__]
    return whole


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return diagnosis.page(found, "my model")


def test_the_page_holds_every_number_and_loads_nothing(found: dict[str, Any], page: str) -> None:
    links = Links()
    links.feed(page)
    assert links.loaded == []
    assert len(page) < 8e6
    cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", page))
    for table in [*findings.tables(found), findings.by_class(found)]:
        for row in table.rows:
            assert set(row[1:]) <= cells


def test_the_page_says_what_to_try_and_what_could_not_be_measured(found: dict[str, Any], page: str) -> None:
    assert "It is so. <b>Do this.</b>" in page
    text = html.unescape(page)
    assert all(note in text for note in found["notes"])
    assert "Diagnosis of my model" in text


def test_the_console_says_the_same(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=220)
    console.print(diagnosis.console(found))
    told = capsys.readouterr().out
    for table in findings.tables(found):
        assert table.title in told
        for row in table.rows:
            assert all(cell in told for cell in row)
    assert "It is so. Do this." in told


def test_columns_without_room_are_named_so_that_they_can_be_told_apart(found: dict[str, Any]) -> None:
    for table in [*findings.tables(found), findings.by_class(found)]:
        titles = [column.full_title for column in table.columns]
        assert len(set(titles)) == len(titles)
        assert not any("," in title for title in titles)


def test_one_sample_has_no_interval() -> None:
    torch.manual_seed(0)
    model = msam.MultimodalModel({"a": torch.nn.Linear(3, 4)}, msam.SumFusion({"a": 4}, 2))
    one = msam.Batch({"a": torch.randn(1, 3)}, torch.zeros(1, dtype=torch.long))
    told = msam.diagnose(model, [one], resamples=100, progress=False).to_dict()
    assert re.search(r'<p class="lead">Accuracy [\d.]+ % on 1 samples', diagnosis.page(told))


def test_where_there_is_nothing_to_advise_it_says_so() -> None:
    told = made(("audio", "image"), ("cat", "dog"), sharp=False)
    told["advice"] = []
    assert diagnosis.SILENT in diagnosis.page(told)


def test_one_modality_and_many_classes_have_a_page() -> None:
    told = made(("audio",), tuple(f"class {k}" for k in range(30)), sharp=False)
    names = [chart.name for chart in findings.charts(told)]
    assert "pairs" not in names
    assert "classes" not in names
    assert "class 29" in diagnosis.page(told)


def test_names_cannot_break_out_of_the_page() -> None:
    told = made(("audio", EVIL), (EVIL, "dog"), sharp=False)
    links = Links()
    links.feed(diagnosis.page(told, EVIL))
    assert links.loaded == []


@pytest.mark.chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_drawn_in_silence_and_modalities_can_be_left_out(
    page: str, browser: Any, width: int, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(page)
    tab = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=120_000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    plots = tab.locator(".plot:visible")
    count = plots.count()
    assert count == 3 + 3 + 2 + 2 + 3 + 1
    assert all(plot.locator("svg path").count() > 0 for plot in plots.all())
    tab.locator("#filter summary").click()
    tab.locator('#filter input[value="image"]').uncheck()
    assert tab.locator(".plot:visible").count() == count - 2
    assert not tab.locator('tr[data-row="image"]').first.is_visible()
    assert wrong == []
    tab.close()


def of_task(target: torch.Tensor, names: tuple[str, ...] = ()) -> dict[str, Any]:
    torch.manual_seed(0)
    encoders = {name: torch.nn.Linear(3, 4) for name in ("audio", "image")}
    model = msam.MultimodalModel(encoders, msam.SumFusion({"audio": 4, "image": 4}, target.shape[1]))
    batch = msam.Batch({name: torch.randn(len(target), 3) for name in encoders}, target)
    train = [batch]
    found = msam.diagnose(model, [batch], train=train, unimodal=1, classes=names, resamples=100, progress=False)
    read: dict[str, Any] = json.loads(json.dumps(found.to_dict()))
    return read


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return of_task(torch.randn(60, 2))


@pytest.fixture(scope="module")
def labels() -> dict[str, Any]:
    return of_task(torch.randn(60, 3) > 0.5, ("rain", "wind", "snow"))


def words(found: dict[str, Any]) -> str:
    """Return what the page says before its scripts, charts included."""
    page = diagnosis.page(found)
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    figures = page[page.index('<script type="application/json"') : page.index("</script>", page.index(body))]
    return html.unescape(body + json.dumps(json.loads(figures[figures.index(">") + 1 :]), ensure_ascii=False))


def test_r2_is_never_called_accuracy_and_there_are_no_classes(numbers: dict[str, Any]) -> None:
    text = words(numbers)
    assert re.search(r'<p class="lead">R² -?[\d.]+ % \[.*nothing there, 0.0 % by the mean of the targets\.', text)
    for word in ("ccuracy", "class of", "right class", "each class", 'href="#classes"', 'id="classes"'):
        assert word not in text, word
    assert "regression, measured by R²" in text
    assert "ridge regression" in text
    assert "share of R² (%)" in text
    assert "rise of the squared error" in text
    assert findings.by_class(numbers) is None
    assert "classes" not in [chart.name for chart in findings.charts(numbers)]


def test_labels_have_names_and_a_table_of_their_own(labels: dict[str, Any]) -> None:
    text = words(labels)
    assert re.search(r'<p class="lead">Label accuracy [\d.]+ % \[.* by the more frequent answer to each label\.', text)
    assert "Within each label" in text
    assert "Who carries each label" in text
    assert "a logistic regression for each label" in text
    assert "each class" not in text
    table = findings.by_class(labels)
    assert table is not None
    assert [row[0] for row in table.rows] == ["rain", "wind", "snow"]
    assert [row[1] for row in table.rows] == [str(count) for count in labels["counts"]]


def test_interactions_are_read_without_what_is_off_on_average(numbers: dict[str, Any]) -> None:
    told = json.loads(json.dumps(numbers))
    told["pairs"][0] |= {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "offset": 0.45}
    [row] = findings.tables(told)[-1].rows
    assert row[-2:] == ("+45.0", "none shown")
    told["pairs"][0]["offset"] = 0.3
    [row] = findings.tables(told)[-1].rows
    assert row[-1] == "synergy"


def test_offsets_stand_only_where_there_are_any(numbers: dict[str, Any], labels: dict[str, Any]) -> None:
    titles = [[column.title for column in findings.tables(one)[-1].columns] for one in (numbers, labels)]
    assert ["offset (points)" in of for of in titles] == [True, False]


def test_the_console_says_it_too(numbers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=220)
    console.print(diagnosis.console(numbers))
    told = capsys.readouterr().out
    assert "What each modality can do, R² (%)" in told
    assert "ccuracy" not in told

"""The diagnosis of a model for people: on the console, and as one self-contained page."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from plotly.offline import get_plotlyjs
from rich.console import Group
from rich.text import Text

from msam.report import findings, interactive
from msam.report.charts import modality_colours
from msam.report.console import ConsoleTable
from msam.report.measures import capital
from msam.report.page import group, template

SILENT = "No rule has ground to advise anything."


def console(found: Mapping[str, Any]) -> Group:
    """Return a diagnosis for a rich console: tables, what to try, notes.

    Arguments:
        found: `Diagnosis.to_dict()`, or what its JSON file holds.
    """
    shown: list[Any] = [Text(_lead(found), style="bold"), *map(ConsoleTable, findings.tables(found))]
    shown.append(Text("What to try", style="bold"))
    shown += [Text(f"- {one['finding']} {one['remedy']}") for one in found["advice"]] or [Text(SILENT)]
    return Group(*shown, *(Text(note, style="yellow") for note in found["notes"]))


def page(found: Mapping[str, Any], title: str = "") -> str:
    """Return a diagnosis as HTML with everything in it; no request ever leaves it.

    Arguments:
        found: `Diagnosis.to_dict()`, or what its JSON file holds.
        title: of which model.
    """
    figures: dict[str, Any] = {}
    groups = [group(f"d-{chart.name}", [chart], figures) for chart in findings.charts(found)]
    colours = modality_colours(list(found["modalities"]))
    return template("diagnosis.html").render(
        title=title,
        lead=_lead(found),
        advice=found["advice"],
        silent=SILENT,
        notes=found["notes"],
        facts=list(_facts(found)),
        tables=findings.tables(found),
        by_class=findings.by_class(found),
        measure=found["measure"],
        words=findings.WORDS[found["task"]],
        groups=groups,
        labels=colours,
        colours=colours,
        viewpoints=interactive.VIEWPOINTS,
        figures=figures,
        plotly=get_plotlyjs(),
    )


def _lead(found: Mapping[str, Any]) -> str:
    value, low, high = (100 * number for number in findings.estimate(found["accuracy"]))
    within = f" [{low:.1f}, {high:.1f}]" if math.isfinite(low) and math.isfinite(high) else ""
    nothing, chance = 100 * found["nothing"]["value"], 100 * found["chance"]
    return (
        f"{capital(found['measure'])} {value:.1f} %{within} on {found['samples']} samples, {nothing:.1f} % with nothing "
        f"there, {chance:.1f} % {findings.WORDS[found['task']].guess}."
    )


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = found["settings"]
    yield "modalities", ", ".join(found["modalities"])
    yield "task", f"{found['task']}, measured by {found['measure']}"
    if found["classes"]:
        yield findings.WORDS[found["task"]].many, str(len(found["classes"]))
    yield (
        "an absent modality is",
        f"zeros of its {settings['absent']}" if settings["absent"] == "feature" else "at the input",
    )
    yield "coalitions", f"{settings['coalitions']}" + ("" if settings["exact"] else ", drawn")
    yield "resamples", str(settings["resamples"])
    yield "sharpness on", f"samples of {settings['sharpness_on']}"
    yield "cost", found["cost"]

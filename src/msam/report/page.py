"""The page: one HTML file with everything in it, plotly included. No request ever leaves it."""

import base64
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from plotly.offline import get_plotlyjs

from msam.report import (
    commands,
    critical,
    curves,
    gains,
    interactive,
    marks,
    measures,
    overview,
    pairs,
    provenance,
    tables,
)
from msam.report.charts import Area, Chart
from msam.report.measures import Task
from msam.report.ranks import Ranks
from msam.report.rows import Row
from msam.report.runs import Run
from msam.report.sections import Section
from msam.report.table import Table
from msam.selection import Selection


def render(
    sections: Sequence[Section],
    ranks: Ranks | None,
    notes: Sequence[str],
    selection: Selection,
    papers: Sequence[Table] = (),
) -> str:
    """Return the page as HTML.

    Arguments:
        sections: what to show.
        ranks: over the sections, where there are any.
        notes: what was left out, and why.
        selection: how the reported epochs were chosen.
        papers: the paper's tables, where they are wanted.
    """
    figures: dict[str, Any] = {}
    tasks = measures.each(section.block.task for section in sections)
    shown = [_section(section, f"s{position}", figures) for position, section in enumerate(sections)]
    gained = gains.chart(sections)
    labels = {row.label: section.style.colours[row.label] for section in sections for row in section.block.rows}
    return template("page.html").render(
        sections=shown,
        overview=overview.table(sections),
        gain=group("gain", [gained], figures) if gained.panels else None,
        papers=papers,
        labels=labels,
        colours={**_by_name(sections), **labels},
        viewpoints=interactive.VIEWPOINTS,
        notes=notes,
        ranks=tables.ranks(ranks) if ranks else None,
        diagram=critical.svg(ranks) if ranks else "",
        selection=selection.name,
        rule=measures.rule(selection, tasks),
        words=_words(tasks),
        runs=sum(len(section.block.runs) for section in sections),
        figures=figures,
        plotly=get_plotlyjs(),
    )


def template(name: str) -> Template:
    """Return a template of a page; its pieces are in `pieces.html`."""
    environment = Environment(
        loader=PackageLoader("msam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _section(section: Section, id_: str, figures: dict[str, Any]) -> dict[str, Any]:
    """What the template needs of a section; its plotly figures go to `figures`, by id."""
    block = section.block
    return {
        "id": id_,
        "title": block.title,
        "measured": block.task.measured,
        "facts": list(_facts(block.runs[-1])),
        "results": section.results,
        "paired": section.paired,
        "by_kind": section.by_kind,
        "sharpness": section.sharpness,
        "groups": [
            group(f"{id_}-{name}", list(charts), figures)
            for name, charts in groupby(section.charts, key=lambda chart: chart.name)
        ],
        "rows": [_row(row) for row in block.rows],
    }


def _words(tasks: Sequence[Task]) -> dict[str, str]:
    """What the page says of all sections together, in the words of their tasks."""
    return {
        "measured": measures.measured(tasks),
        "many": measures.either(task.many for task in tasks),
        "rated": measures.measured(task for task in tasks if task.rated),
        "shapley": measures.either(task.shapley for task in tasks),
        "own": measures.either(task.own for task in tasks),
    }


def _by_name(sections: Sequence[Section]) -> dict[str, str]:
    """The colours of the names that rows compete under."""
    found = [(section.style.colours, pairs.named(section.block)) for section in sections]
    return {name: colours[rows[0].label] for colours, named in found for name, rows in named.items()}


def group(id_: str, charts: Sequence[Chart], figures: dict[str, Any]) -> dict[str, Any]:
    """Return charts of one name as the template wants them, shown one at a time by their tabs; fill `figures` by id."""
    tabs = []
    for position, chart in enumerate(charts):
        ids = [f"{id_}-{position}-{number}" for number in range(len(chart.panels))]
        figures |= dict(zip(ids, interactive.figures(chart), strict=True))
        tabs.append(
            {
                "name": chart.tab,
                "caption": chart.caption,
                "columns": min(chart.columns, len(chart.panels), 4),
                "still": base64.b64encode(curves.still(chart)).decode() if chart.surfaces else "",
                "legend": [
                    {"label": m.label, "colour": m.colour, "dash": "area" if isinstance(m, Area) else m.dash}
                    for m in chart.legend
                ],
                "panels": [
                    {"id": i, "title": panel.title, "y_label": panel.y_label, "row": panel.row}
                    for i, panel in zip(ids, chart.panels, strict=True)
                ],
            }
        )
    return {"id": id_, "title": charts[0].title, "tabs": tabs}


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "seeds": provenance.seeds(row.runs),
        "config": commands.toml(row.config),
        "runs": [
            {
                "seed": marks.seed_name(run),
                "epoch": run.epoch["epoch"],
                "epochs": len(run.record.epochs),
                "score": _percent(run.measures["score"]),
                "seconds": f"{(run.record.end or {}).get('seconds', math.nan):.1f}",
                "path": str(run.record.path),
                "command": commands.command(run.config),
            }
            for run in row.runs
        ],
    }


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is known of the data, as pairs of name and value."""
    header = run.record.header
    data = header["data"]
    yield "modalities", ", ".join(run.modalities)
    if run.task is not measures.CLASSES:
        yield "task", run.task.name
    classes = ", ".join(map(str, header.get("classes") or []))
    yield run.task.outputs, f"{header.get('num_classes')}" + (f" ({classes})" if 0 < len(classes) <= 80 else "")
    yield "samples", " / ".join(f"{size} {name}" for name, size in data.get("sizes", {}).items())
    yield "parameters", f"{header['parameters']:,}" if header.get("parameters") else "unknown"
    yield "fingerprint", str(data.get("fingerprint"))[:12]
    for name, value in data.get("facts", {}).items():
        yield name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(score: float) -> str:
    return f"{100 * score:.1f}" if math.isfinite(score) else "–"

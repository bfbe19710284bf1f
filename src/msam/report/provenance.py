"""Where numbers come from, in words: selection, seeds, data, machine, versions, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msam.record import Record
from msam.report import labels, measures
from msam.report.rows import Block
from msam.report.runs import Run, diverged
from msam.selection import Selection


def caption(block: Block, selection: Selection) -> str:
    """Return the line under a block's table."""
    sentences = [
        f"Selection {selection.name}: {measures.rule(selection, [block.task])}; test is read once, at that epoch",
        seeds(block.runs),
        "± is one standard deviation over seeds (n − 1)",
        f"Data {fingerprints(block.runs)}",
        _listed("Machine", (_machine(run) for run in block.runs)),
        _listed("Versions", (_versions(run) for run in block.runs)),
    ]
    commits = [commit[:10] for run in block.runs if (commit := run.record.header.get("commit"))]
    sentences += [_listed("Commit", commits)] if commits else []
    return ". ".join(sentences) + "."


def about(runs: Sequence[Run], selection: Selection) -> str:
    """Return what a table that stands alone must say: how the epoch was chosen, and of which seeds it is."""
    return f"Selection {selection.name}: {measures.rule(selection, (run.task for run in runs))}. {seeds(runs)}."


def seeds(runs: Sequence[Run]) -> str:
    """Return which seeds the runs cover, as ranges.

    The seeds of worlds are named too where the data are drawn from one.
    """
    words = f"Seeds {ranges(run.seed[0] for run in runs)}"
    worlds = [run.seed[1] for run in runs if run.world]
    return f"{words}, worlds {ranges(worlds)}" if worlds else words


def fingerprints(runs: Sequence[Run]) -> str:
    """Return name and short fingerprint of the runs' data; how many worlds where there are many."""
    name = runs[0].config["data"]["name"]
    found = list(dict.fromkeys(str(run.record.header["data"].get("fingerprint"))[:12] for run in runs))
    return f"{name} {', '.join(found)}" if len(found) <= 3 else f"{name}, {len(found)} worlds, the first {found[0]}"


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers as ranges.

    >>> ranges([0, 1, 2, 5])
    '0–2, 5'
    """
    parts: list[list[int]] = []
    for n in sorted(set(numbers)):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def unfinished(record: Record) -> str:
    """Return a note on a run that did not finish and so stands in no table."""
    done, wanted = len(record.epochs), record.config.get("epochs")
    status = record.end.get("status", "finished") if record.end else None
    if _stopped(record):
        why = "its loss is not finite (diverged)"
    elif status not in (None, "finished"):
        why = f"it ended as {status!r}"
    else:
        why = "it is not finished"
    of = f" of {wanted}" if wanted else ""
    name = f"{labels.of_run(record.config)}, seed {record.config.get('seed', 0)}"
    return f"Left out: {name} ({record.path}): {why}, {done}{of} epochs recorded."


def survivors(runs: Sequence[Run], left: Sequence[Record]) -> list[str]:
    """Return a note on every row that lost runs to divergence: what is left of it is no fair sample."""
    lost = Counter(_row(record.config) for record in left if _stopped(record))
    lived = Counter(_row(run.config) for run in runs)
    return [
        f"{row}: {count} of {count + lived[row]} runs diverged. "
        + ("Its numbers are of those that did not, and flatter it." if lived[row] else "It has no row.")
        for row, count in lost.items()
    ]


def not_finite(run: Run) -> str:
    """Return a note on a finished run with losses that are not finite."""
    name = f"{labels.of_run(run.config)}, seed {run.config.get('seed', 0)}"
    at = f"its selected epoch {run.epoch['epoch']}"
    return f"{name} ({run.record.path}) has losses that are not finite; it counts, at {at}."


def _stopped(record: Record) -> bool:
    """Tell whether a run ended because it diverged; its last line may still be finite."""
    return diverged(record) or (record.end or {}).get("status") == "diverged"


def _row(config: Mapping[str, Any]) -> str:
    fusion = (config.get("fusion") or {}).get("name")
    return f"{config['data']['name']}{f', {fusion} fusion' if fusion else ''}: {labels.of_run(config)}"


def _listed(what: str, items: Iterable[str]) -> str:
    found = list(dict.fromkeys(items))
    return f"{what}{'s' * (len(found) > 1 and not what.endswith('s'))} {'; '.join(found)}"


def _machine(run: Run) -> str:
    host = run.record.header.get("host", {})
    words = [str(host.get("machine", "unknown"))]
    words += [f"{host['cpus']} CPUs"] if host.get("cpus") else []
    used = run.config.get("accelerator", "cpu") != "cpu"
    return ", ".join([*words, str(host["accelerator"])] if used and host.get("accelerator") else words)


def _versions(run: Run) -> str:
    versions = run.record.header.get("versions", {})
    return ", ".join(f"{name} {versions[name]}" for name in sorted(versions))

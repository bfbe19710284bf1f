"""The table of a speed record, in Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any


def written(found: Mapping[str, Any]) -> str:
    """Return the tables of a record."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    host = found["host"]
    where = f"torch {found['torch']}, {host['machine']}, {found['threads']} thread of {host['cpus']} cores"
    yield f"{where}. Medians over rounds of ratios within a round (wall clock; in brackets the"
    yield "quartiles); memory in copies of the parameters beyond SGD's peak. Written by `python benchmarks/speed`."
    for one in found["measured"]:
        yield ""
        yield (
            f"**{one['model']}**, {one['parameters'] / 1e6:.2f} M parameters, {one['place']}, {one['flags']} base: "
            f"a step of SGD takes {one['sgd_ms']:.3g} ms; to climb, return and blend takes "
            f"{100 * one['climb_and_return']:.1f} % of it."
        )
        yield ""
        yield "| Model | Base | Contender | Time / SGD | Time / pytorch_optimizer SAM | CPU time / SGD | Extra memory |"
        yield "| :--- | :--- | :--- | ---: | ---: | ---: | ---: |"
        for who, told in one["contenders"].items():
            quartiles = told.get("wall_over_sgd_quartiles", [])
            spread = f" [{quartiles[0]:.2f}, {quartiles[1]:.2f}]" if quartiles else ""
            row = (
                one["model"] if one["place"] == "cpu" else f"{one['model']}, {one['place']}",
                one["flags"],
                who,
                f"{told['wall_over_sgd']:.2f}{spread}",
                f"{told['wall_over_peer']:.2f}",
                f"{told['cpu_over_sgd']:.2f}",
                f"{told['copies']:.2f}",
            )
            yield f"| {' | '.join(row)} |"
    if "shapley" in found:
        share = found["shapley"]
        yield ""
        yield (
            f"Contributions of {share['modalities']} modalities ({share['coalitions']} coalitions, late fusion) take "
            f"{100 * share['share_of_step']:.1f} % of a training step of their model."
        )

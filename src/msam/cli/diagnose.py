"""`msam diagnose`: the diagnosis of a run, on the console, as a file of numbers and as a page."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text


def diagnose(
    run: Path,
    *,
    split: Literal["train", "valid", "test"] = "valid",
    out: Path | None = None,
    unimodal: int = 0,
    absent: Literal["feature", "input"] | None = None,
    noise: float = 1.0,
    sharpness: Annotated[bool, Parameter(negative="--no-sharpness")] = True,
    rho: float = 0.05,
    permutations: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Say which modality carries a run's predictions, which one sleeps, and what to try.

    Prints it, and writes diagnosis.json and the page diagnosis.html.

    Parameters
    ----------
    run
        folder of a run of `msam train`, or its checkpoint.
    split
        on which data; who looks at test while choosing has chosen by it.
    out
        where the files go; by default the run's folder.
    unimodal
        epochs of training every encoder by itself, to see how far it could come; 0: not done.
    absent
        what is set to zero for an absent modality; by default as in the run.
    noise
        disturbance of an input, in its own standard deviations.
    sharpness
        whether to measure sharpness.
    rho
        radius of the sharpness.
    permutations
        orders drawn where there are more than 6 modalities.
    resamples
        of the bootstrap.
    seed
        of everything that is drawn.
    device
        where to compute, as torch names it.
    """
    from msam._files import write_whole
    from msam.diagnosis.run import of_run
    from msam.report import diagnosis as shown

    found = of_run(
        run,
        split=split,
        device=device,
        unimodal=unimodal,
        absent=absent,
        noise=noise,
        sharp=sharpness,
        rho=rho,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
    )
    folder = out or (run if run.is_dir() else run.parent)
    title = f"{(run if run.is_dir() else run.parent).resolve().name} on {split}"
    numbers = found.to_json(folder / "diagnosis.json")
    write_whole(folder / "diagnosis.html", shown.page(found.to_dict(), title).encode())
    console = Console()
    console.print(shown.console(found.to_dict()))
    console.print(Text(f"Page: {folder / 'diagnosis.html'}   Numbers: {numbers}"), soft_wrap=True)

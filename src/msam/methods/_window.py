"""The epochs in which a method modulates."""

from msam.methods._base import Run


def within(run: Run, first: int, last: int | None) -> bool:
    """Tell whether the current epoch lies in `first .. last`, both ends included; `last` None is the end of the run.

    Outside, a method is the plain one: nothing of the window's coefficients stays behind.
    """
    return first <= run.epoch and (last is None or run.epoch <= last)

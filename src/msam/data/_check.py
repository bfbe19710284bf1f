"""What `msam data check NAME` says of a dataset's files.

A dataset module takes part by defining `check(root: str, *, ...) -> Check`: it looks at the files and says what it
found, without raising for what the user can mend. Its keyword-only parameters become flags, as those of `prepare` do.

    def check(root: str) -> Check:
        found = Check("mine")
        found.ok("train_data.npy: (55000, 784) float32")         # or .note, .missing, .broken
        found.split("train", labels, CLASSES)                     # sizes of classes
        found.fingerprint, found.batch, found.classes = dataset.fingerprint, dataset.train[range(8)], CLASSES
        return found
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msam.types import Batch


class Finding(NamedTuple):
    """One thing that was looked at: `kind`, and what is to say of it."""

    kind: Literal["ok", "note", "missing", "broken"]
    text: str


@dataclass
class Check:
    """What was found; filled as a `check` goes on.

    Attributes:
        name: of the dataset.
        findings: what was looked at.
        splits: split -> class -> number of samples.
        fingerprint: of the content, if it could be read.
        batch: samples to draw a picture of, if they could be read.
        classes: names of the classes.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    fingerprint: str = ""
    batch: Batch | None = None
    classes: Sequence[str] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is missing or broken."""
        return all(finding.kind in ("ok", "note") for finding in self.findings)

    def ok(self, text: str) -> None:
        """Note something that is as it should be."""
        self.findings.append(Finding("ok", text))

    def note(self, text: str) -> None:
        """Note something that is worth to know and no fault."""
        self.findings.append(Finding("note", text))

    def missing(self, text: str) -> None:
        """Note something that is not there."""
        self.findings.append(Finding("missing", text))

    def broken(self, text: str) -> None:
        """Note something that is there and is not as it should be."""
        self.findings.append(Finding("broken", text))

    def split(self, name: str, labels: Iterable[int], classes: Sequence[str]) -> None:
        """Note a split by the class numbers of its samples."""
        counts = Counter(int(label) for label in labels)
        self.splits[name] = {words: counts.get(number, 0) for number, words in enumerate(classes)}

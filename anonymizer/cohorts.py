"""Cohorts: the parts of one bucket that services of their own release, told apart by the value of one tag.

Points with two values of one tag are different points, so two cohorts never release the same row. That holds only while all of them cut the
bucket by one tag: parts that are cut by another tag, or not at all, overlap. A label tells how a data set is cut: `<base>` without cohorts,
otherwise `<base>.<digest of the tag>.<digest of the value>`. The digests are no secret: summaries of windows carry tag and value
(decision 031).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

#: Hexadecimal digits of each digest, as many as the base has.
_DIGITS = 12

#: `asked`: wants to release, and looks whether it may; `held`: may release; `withdrawn`: will not, or not any more.
ClaimState = Literal["asked", "held", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The series with one value of a tag, or those without the tag.

    Args:
        tag: COHORT_TAG.
        value: COHORT; empty: the series that lack the tag.
    """

    tag: str
    value: str

    def __str__(self) -> str:
        return f"{self.tag}={self.value}" if self.value else f"rows without the tag {self.tag}"

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        """The tags of its summaries: those of rows without the tag have none."""
        return ((self.tag, self.value),) if self.value else ()

    def label(self, base: str) -> str:
        """Return the label of this part of a data set whose label is `base`."""
        return f"{base}.{_digest(self.tag)}.{_digest(self.value)}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a service says in an output before its first release: this data set, cut in this way, is mine.

    Args:
        service: Which service says it: a digest of a name that only its journal knows.
        state: Whether it asks, holds or has withdrawn it.
        time_ns: When it was said, in nanoseconds since the epoch; later than all it said before.
        labels: What it calls the data set in batch ids, and has called it.
    """

    service: str
    state: ClaimState
    time_ns: int
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it as one line."""
        return " ".join((self.state, str(self.time_ns), self.service, *self.labels))

    @property
    def is_live(self) -> bool:
        """Whether it has not been withdrawn."""
        return self.state != "withdrawn"


def claim_in(text: str) -> Claim:
    """Return the claim that a text is.

    Raises:
        ValueError: It is none that this version knows.
    """
    state, time_text, service, *labels = text.split(" ")
    known: dict[str, ClaimState] = {name: name for name in get_args(ClaimState)}
    if state not in known or not labels or not time_text.isdecimal():
        raise ValueError("not a claim")
    return Claim(service, known[state], int(time_text), tuple(labels))


def label_of(base: str, cohort: Cohort | None) -> str:
    """Return a data set's label: the base alone without cohorts."""
    return base if cohort is None else cohort.label(base)


def base_of(label: str) -> str:
    """Return the part of a label that all cohorts of a data set have in common."""
    return label.partition(".")[0]


def cut_of(label: str) -> str:
    """Return the digest of the tag that a label's data set is cut by; empty: it is not cut."""
    return label.partition(".")[2].partition(".")[0]


def is_cut_otherwise(label: str, ours: Collection[str]) -> bool:
    """Return whether a label is that of the same data set as ours, cut by another tag, or not at all, or where ours is not."""
    return any(base_of(label) == base_of(own) and cut_of(label) != cut_of(own) for own in ours)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

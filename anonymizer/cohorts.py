"""Cohorts: parts of one bucket, each released by its own service and identified by the value of one tag.

Points with different values of a tag are different points, so two cohorts never release the same row. That holds only while all of them cut
the bucket by the same tag: cohorts by another tag, or an undivided release, would overlap. A label states how a data set is cut: `<base>`
without cohorts, otherwise `<base>.<digest of the tag>.<digest of the value>`. The digests are not secret: window summaries contain tag and
value (decision 031).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

#: Hexadecimal digits of each digest, the same number as in the base.
_DIGITS = 12

#: `asked`: wants to release and is checking for conflicts; `held`: may release; `withdrawn`: will not release, or no longer.
ClaimState = Literal["asked", "held", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The series with one value of a tag, or those without the tag.

    Args:
        tag: COHORT_TAG.
        value: COHORT; empty for the series without the tag.
    """

    tag: str
    value: str

    def __str__(self) -> str:
        return f"{self.tag}={self.value}" if self.value else f"rows without the tag {self.tag}"

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        """The tags of its summaries; empty for rows without the tag."""
        return ((self.tag, self.value),) if self.value else ()

    def label(self, base: str) -> str:
        """Return the label of this part of a data set whose label is `base`."""
        return f"{base}.{_digest(self.tag)}.{_digest(self.value)}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A service's record in an output, made before its first release, that it owns this data set, cut in this way.

    Args:
        service: The service: a digest of a name that only its journal knows.
        state: Whether the service asks for, holds or has withdrawn the claim.
        time_ns: When it was recorded, in nanoseconds since the epoch; later than all earlier records of the service.
        labels: The data set's label in batch ids, and earlier labels.
    """

    service: str
    state: ClaimState
    time_ns: int
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The claim as one line of text."""
        return " ".join((self.state, str(self.time_ns), self.service, *self.labels))

    @property
    def is_live(self) -> bool:
        """Whether it has not been withdrawn."""
        return self.state != "withdrawn"


def claim_in(text: str) -> Claim:
    """Parse a claim.

    Raises:
        ValueError: The text is not a claim that this version knows.
    """
    state, time_text, service, *labels = text.split(" ")
    known: dict[str, ClaimState] = {name: name for name in get_args(ClaimState)}
    if state not in known or not labels or not time_text.isdecimal():
        raise ValueError("not a claim")
    return Claim(service, known[state], int(time_text), tuple(labels))


def label_of(base: str, cohort: Cohort | None) -> str:
    """Return a data set's label: the base alone without cohorts."""
    return base if cohort is None else cohort.label(base)


def label_at(place: str, journal: str) -> str:
    """Return the label of an input file whose place has one digest, as the journal with another digest releases it."""
    return f"{place}_{journal}"


def place_of(label: str) -> str:
    """Return the part of a label that is the same for every journal that releases from the place; the whole if there is none."""
    return label.partition("_")[0]


def is_among(label: str, labels: Collection[str]) -> bool:
    """Return whether a label is one of those, or of the place that one of them is."""
    return label in labels or place_of(label) in labels


def base_of(label: str) -> str:
    """Return the part of a label that all cohorts of a data set share."""
    return label.partition(".")[0]


def cut_of(label: str) -> str:
    """Return the digest of the tag by which a label's data set is cut; empty if it is not cut."""
    return label.partition(".")[2].partition(".")[0]


def is_cut_otherwise(label: str, ours: Collection[str]) -> bool:
    """Return whether a label names the same data set as ours, but cut by a different tag, or only one of the two is cut."""
    return any(base_of(label) == base_of(own) and cut_of(label) != cut_of(own) for own in ours)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

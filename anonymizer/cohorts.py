"""Cohorts: the parts of one bucket that services of their own release, told apart by the value of one tag.

Points with two values of one tag are different points, so two cohorts never release the same row. That holds only if the bucket is cut by
one tag: what is cut by another, or not at all, overlaps. A label tells how a data set is cut: `<base>` without cohorts, otherwise
`<base>.<digest of the tag>.<digest of the value>`. The digests are not secret: the summaries of windows carry tag and value as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

#: Hexadecimal digits of each digest, as many as the base has.
_DIGITS = 12


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
    def tag_digest(self) -> str:
        """The digest of the tag, the same for all cohorts of one cut."""
        return _digest(self.tag)

    def label(self, base: str) -> str:
        """Return the label of this part of a data set whose label is `base`."""
        return f"{base}.{self.tag_digest}.{_digest(self.value)}"


def label_of(base: str, cohort: Cohort | None) -> str:
    """Return a data set's label: the base alone without cohorts."""
    return base if cohort is None else cohort.label(base)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

"""Checks for other cuts of the same bucket: before the first release, and every hour."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from anonymizer.cohorts import Claim
from anonymizer.errors import OutputDenied, OutputUnavailable, SourceDenied, SourceUnavailable
from anonymizer.windows import Window
from service.clock import Clock
from service.log_event import LogEvent
from service.pipeline.claims import Claimant, ClaimStore, blind_claim, hold_claim, refuse_rival_labels
from service.pipeline.released_elsewhere import merged_by_day
from service.retry import Retry
from service.state.intervals import missing
from service.state.journal import Journal

_CUTS_NOT_SEEN = LogEvent(
    "cuts_not_seen",
    "⚠️ Whether another service releases the same data set cut in another way cannot be seen in %s: %s. Make sure that none does",
    "place reason",
    logging.WARNING,
)
_CLAIM_NOT_WRITTEN = LogEvent(
    "claim_not_written", "⚠️ The claim of this service is not in %s, so others cannot see it: %s", "place reason", logging.WARNING
)

#: How often outputs are checked again, and how soon after a failed check.
_LOOK_EVERY_S = 3600.0
_LOOK_AGAIN_AFTER_S = 300.0


class LabelReader(Protocol):
    """Finds the data sets with summaries in an output: by label, where the last window ends."""

    def labels(self, span: Window) -> dict[str, int]:
        """Return those with a summary in the span."""

    def newest_labels(self) -> dict[str, int]:
        """Return those that a cheap query finds, at least the most recently written where possible."""

    def is_missing(self) -> bool:
        """Return whether the place certainly does not exist."""


OpenCuts = Callable[[], AbstractContextManager[tuple[LabelReader, ClaimStore]]]


class CutGuard:
    """Refuses to run beside a service that cuts the same bucket in another way, as far as outputs show it.

    Args:
        outputs: Opens each output that can be read back.
        claimant: This service.
        journal: Has this service's releases, and those of others that an operator has accepted.
        clock: The service's clock.
        settle_s: How long a new service waits for others that start at the same moment.
    """

    def __init__(
        self, outputs: Sequence[OpenCuts], claimant: Claimant, journal: Journal, clock: Clock, *, settle_s: float = 0.0
    ) -> None:
        self._settle_s = settle_s
        self._outputs = outputs
        self._claimant = claimant
        self._journal = journal
        self._clock = clock
        self._due_s = -math.inf
        self._seen: list[Claim] = []

    def start(self, span: Window, retry: Retry) -> None:
        """Claim the data set in each output, and refuse to run if it is cut in another way.

        If the journal has releases, the run does not wait for an output that cannot be read now; with a new journal it does.

        Args:
            span: What will be released.
            retry: How to retry.

        Raises:
            CutOtherwise: An output is used by a service that cuts the same bucket in another way.
            RetriesExhausted: An output did not answer.
            SourceDenied: An output stays unreachable, and retries have a time limit.
            Stopped: The service was asked to stop meanwhile.
        """
        self._due_s = self._clock.monotonic_s() + _LOOK_EVERY_S
        for open_cuts in self._outputs:
            if self._journal.released_intervals():
                self._look(open_cuts, span)
            else:
                retry.until_done(partial(self._claim, open_cuts, span))

    def is_claimed(self, label: str) -> bool:
        """Return whether, as of the last look, a service held a claim on the data set with a label."""
        return any(claim.state == "held" and label in claim.labels for claim in self._seen)

    def look_if_due(self) -> None:
        """Check all outputs again if that is due.

        Raises:
            CutOtherwise: As `start` does.
        """
        if self._clock.monotonic_s() < self._due_s:
            return
        self._due_s = self._clock.monotonic_s() + _LOOK_EVERY_S
        for open_cuts in self._outputs:
            self._look(open_cuts, None)

    def _look(self, open_cuts: OpenCuts, span: Window | None) -> None:
        """Check once; an output that cannot be read now is checked again soon."""
        try:
            self._claim(open_cuts, span)
        except (SourceUnavailable, OutputUnavailable) as error:
            self._due_s = min(self._due_s, self._clock.monotonic_s() + _LOOK_AGAIN_AFTER_S)
            with open_cuts() as (_, store):
                _CUTS_NOT_SEEN.log(store.place, error)

    def _claim(self, open_cuts: OpenCuts, span: Window | None) -> None:
        with open_cuts() as (labels, store):
            try:
                refuse_rival_labels(
                    self._labels(labels, span), self._claimant, self._journal.facts.accepted_labels(), store.place
                )
                self._seen = hold_claim(store, self._claimant, self._clock, settle_s=self._settle_s)
            except OutputDenied as error:
                _CLAIM_NOT_WRITTEN.log(store.place, error)
            except SourceDenied as error:
                if not error.was_reached:
                    raise
                self._claim_unseen(labels, store, error)

    def _labels(self, labels: LabelReader, span: Window | None) -> dict[str, int]:
        found = labels.newest_labels()
        known = self._journal.released_intervals()
        for part in merged_by_day(missing([span], known)) if span is not None else ():
            for label, end_ns in labels.labels(part).items():
                found[label] = max(end_ns, found.get(label, end_ns))
        return found

    def _claim_unseen(self, labels: LabelReader, store: ClaimStore, error: SourceDenied) -> None:
        """Write our claim to an output that we may not read. Warns only for a cohort, which has others beside it."""
        if labels.is_missing():
            return
        if self._claimant.cohort:
            _CUTS_NOT_SEEN.log(store.place, error)
        try:
            store.put(blind_claim(self._claimant, self._clock))
        except OutputDenied as denied:
            _CLAIM_NOT_WRITTEN.log(store.place, denied)

"""Claims: how services that would release the same rows of one bucket, cut in different ways, detect each other before they release.

Every service writes a claim into its outputs before its first release, and then reads all claims. One that finds a claim on the same data
set cut by another tag, or not cut, refuses to run. When several start at the same moment, each first *asks*: of two that ask, at least the
later one sees the other, so never both *hold*. The weaker one withdraws, and the other waits until it has. A cut bucket is
stronger than an undivided one; of two cuts, the one with more services is stronger.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from anonymizer.cohorts import Claim, ClaimState, cut_of, is_cut_otherwise
from anonymizer.errors import ConfigurationError, OutputDenied, OutputUnavailable, SourceUnavailable
from anonymizer.windows import NANOSECONDS
from service.clock import Clock, Stopped

#: How long to wait once another service asks, so that all that start together are seen.
_FIRST_WAIT_S = 1.0

#: How often, and how long at most, claims are read again.
_BETWEEN_LOOKS_S = 0.5
_LONGEST_WAIT_S = 30.0

#: A service that has asked for so long, and neither holds nor has withdrawn, was killed. If it goes on, it checks once more after it holds.
_ABANDONED_AFTER_NS = 600 * NANOSECONDS


class ClaimStore(Protocol):
    """An output that keeps claims. Both methods raise Source… or Output… errors of `anonymizer/errors.py`."""

    #: Its name in messages.
    place: str

    def claims(self) -> list[Claim]:
        """Return the last claim of each service."""

    def put(self, claim: Claim) -> None:
        """Write a claim; returns once every reader sees it."""


class CutOtherwise(ConfigurationError):
    """An output is used by a service that cuts the same bucket in another way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claimant:
    """The service that claims, and what it claims.

    Args:
        service: Digest of a name that only this service's journal knows.
        labels: Its labels of the data set in batch ids, the present one first.
        cohort: Its cohort, for messages; empty: the whole bucket.
    """

    service: str
    labels: tuple[str, ...]
    cohort: str

    def is_rival(self, label: str) -> bool:
        """Return whether a label names our data set, cut in another way."""
        return is_cut_otherwise(label, self.labels)

    def refusal(self, place: str, label: str) -> CutOtherwise:
        """Return why this service may not release beside one that uses this label."""
        theirs = "cut into cohorts" if cut_of(label) else "whole, without COHORT_TAG"
        if cut_of(label) and cut_of(self.labels[0]):
            theirs = "cut into cohorts by another tag"
        ours = f"the cohort {self.cohort}" if self.cohort else "all of it, without COHORT_TAG"
        return CutOtherwise(
            f"{place} is used by a service that releases this data set {theirs}, and this one releases {ours}: the same rows would be "
            "released twice. Run either that one or this one. To go on with this one, stop that one for good, then run "
            "scripts/state.py accept-gap with the settings of each service that goes on, which takes what that one released as released"
        )


def hold_claim(store: ClaimStore, claimant: Claimant, clock: Clock, *, settle_s: float = 0.0) -> list[Claim]:
    """Return the claims in an output once this service holds its own.

    Args:
        store: The output.
        claimant: This service.
        clock: To wait on.
        settle_s: How long to wait for others that start at the same moment, after the first claim of a new service.

    Raises:
        CutOtherwise: A service that cuts the same bucket in another way has a claim.
        SourceError, OutputError: The output cannot be read or written; a claim may have been made.
        Stopped: The service was asked to stop meanwhile.
    """
    return _Contest(store, claimant, clock, settle_s).run()


class _Contest:
    def __init__(self, store: ClaimStore, claimant: Claimant, clock: Clock, settle_s: float) -> None:
        self._store = store
        self._claimant = claimant
        self._clock = clock
        self._settle_s = settle_s

    def run(self) -> list[Claim]:
        claims = self._store.claims()
        self._refuse_holders(claims)
        mine = next((claim for claim in claims if claim.service == self._claimant.service), None)
        if mine is not None and mine.state == "held" and mine.labels == self._claimant.labels:
            return claims
        asked = self._put("asked", claims)
        try:
            settled = self._settled(asked)
            self._put("held", settled)
            # A service that asked too long ago was ignored. If it went on after all, at least one of us sees the other here.
            claims = self._store.claims()
            self._refuse_holders(claims)
        except (CutOtherwise, Stopped):
            with suppress(OutputDenied, OutputUnavailable, SourceUnavailable):
                self._put("withdrawn", self._store.claims())
            raise
        return claims

    def _settled(self, asked: Claim) -> list[Claim]:
        """Return the claims once no rival is asking."""
        self._wait(self._settle_s)
        claims, began_s, wait_s = self._after(asked), self._clock.monotonic_s(), _FIRST_WAIT_S
        while rivals := self._rivals(claims):
            is_seen_again = wait_s != _FIRST_WAIT_S
            is_late = self._clock.monotonic_s() - began_s > _LONGEST_WAIT_S
            if is_late or (is_seen_again and self._is_weaker(claims)) or any(rival.state == "held" for rival in rivals):
                raise self._refusal(rivals)
            self._wait(wait_s)
            claims, wait_s = self._after(asked), _BETWEEN_LOOKS_S
        return claims

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._clock.wait(seconds)
        if self._clock.is_stopping():
            raise Stopped

    def _after(self, asked: Claim) -> list[Claim]:
        """Return the claims; ours must be among them, or reading does not show what was written before."""
        claims = self._store.claims()
        if asked not in claims:
            raise SourceUnavailable(f"{self._store.place} does not show the claim that was written to it a moment ago")
        return claims

    def _rivals(self, claims: Sequence[Claim]) -> list[Claim]:
        old_ns = self._clock.now_ns() - _ABANDONED_AFTER_NS
        return [
            claim
            for claim in claims
            if claim.is_live
            and any(map(self._claimant.is_rival, claim.labels))
            and (claim.state == "held" or claim.time_ns > old_ns)
        ]

    def _refuse_holders(self, claims: Sequence[Claim]) -> None:
        holders = [claim for claim in self._rivals(claims) if claim.state == "held"]
        if holders:
            raise self._refusal(holders)

    def _is_weaker(self, claims: Sequence[Claim]) -> bool:
        """Return whether a rival that asks is stronger. Services that see the same claims agree."""
        ours = cut_of(self._claimant.labels[0])
        services = Counter({ours: 0})
        for claim in claims:
            if claim.is_live and (claim.service == self._claimant.service or not self._is_foreign(claim)):
                services[cut_of(claim.labels[0])] += 1
        return max(services, key=lambda cut: (bool(cut), services[cut], cut)) != ours

    def _is_foreign(self, claim: Claim) -> bool:
        """Return whether a claim is on another data set."""
        bases = {label.partition(".")[0] for label in self._claimant.labels}
        return not any(label.partition(".")[0] in bases for label in claim.labels)

    def _refusal(self, rivals: Sequence[Claim]) -> CutOtherwise:
        return self._claimant.refusal(self._store.place, next(filter(self._claimant.is_rival, rivals[0].labels)))

    def _put(self, state: ClaimState, claims: Sequence[Claim]) -> Claim:
        """Write our claim with a later time than our last one, even if the clock was set back."""
        last_ns = max((claim.time_ns for claim in claims if claim.service == self._claimant.service), default=0)
        claim = Claim(self._claimant.service, state, max(self._clock.now_ns(), last_ns + 1), self._claimant.labels)
        self._store.put(claim)
        return claim


def blind_claim(claimant: Claimant, clock: Clock) -> Claim:
    """Return the claim of a service that cannot see the others'."""
    return Claim(claimant.service, "held", clock.now_ns(), claimant.labels)


def refuse_rival_claims(store: ClaimStore, claimant: Claimant) -> None:
    """Refuse to run if a service that cuts the same bucket in another way holds a claim. Makes no claim.

    Raises:
        CutOtherwise: One does.
        SourceError: The output cannot be read.
    """
    for claim in store.claims():
        if claim.state == "held" and (rivals := list(filter(claimant.is_rival, claim.labels))):
            raise claimant.refusal(store.place, rivals[0])


def end_rival_claims(store: ClaimStore, claimant: Claimant) -> int:
    """Withdraw the claims of all services that cut the same bucket in another way; return how many. An operator has stopped them."""
    rivals = [claim for claim in store.claims() if claim.is_live and any(map(claimant.is_rival, claim.labels))]
    for claim in rivals:
        store.put(dataclasses.replace(claim, state="withdrawn", time_ns=claim.time_ns + 1))
    return len(rivals)


def refuse_rival_labels(ends_ns: dict[str, int], claimant: Claimant, accepted_ns: dict[str, int], place: str) -> None:
    """Refuse to run if summaries show releases of the same bucket cut in another way that no operator has accepted.

    Args:
        ends_ns: By label, where its last window ends.
        claimant: This service.
        accepted_ns: By label, up to where an operator has accepted its windows as released.
        place: Where the summaries are.

    Raises:
        CutOtherwise: There is one.
    """
    for label, end_ns in sorted(ends_ns.items()):
        if claimant.is_rival(label) and end_ns > accepted_ns.get(label, end_ns - 1):
            raise claimant.refusal(place, label)


def rival_labels(ends_ns: dict[str, int], claimant: Claimant) -> dict[str, int]:
    """Return the labels of the same bucket cut in another way."""
    return {label: end_ns for label, end_ns in ends_ns.items() if claimant.is_rival(label)}

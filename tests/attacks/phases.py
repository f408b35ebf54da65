"""Linking by time: every released row keeps its time to the nanosecond, and every device ticks at moments of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anonymizer.pseudonyms import Pseudonymizer
from anonymizer.windows import NANOSECONDS
from testbed.wearers import Wearers
from tests.documentation.sample import Ints

HERTZ = 128

#: A rate whose period is no whole number of nanoseconds: phases are compared within a second, where the ticks come round.
WEARERS = Wearers(12, hertz=HERTZ)

KEYS = (b"the key of the first year, 32 ...", b"the key of the second year, 32 ..")


def released_times(key: bytes, *, from_s: int, coarser_than_ns: int = 1) -> dict[str, Ints]:
    """Return the times of five seconds of each wearer under his pseudonym, cut down to whole multiples of `coarser_than_ns`."""
    start_ns = (1762180200 + from_s) * NANOSECONDS
    measured = WEARERS.samples_between(start_ns, start_ns + 5 * NANOSECONDS)
    times_ns = measured.times_ns // coarser_than_ns * coarser_than_ns
    names = Pseudonymizer(key).released_ids(WEARERS.source_ids)
    return {name: times_ns[measured.wearer == number] for number, name in enumerate(names)}


def linked_by_phase(before: Mapping[str, Ints], after: Mapping[str, Ints]) -> dict[str, str]:
    """Attack: link each pseudonym of the new key with the one of the old key whose device ticks at the same moments of a second."""
    ticks = {name: set((times_ns % NANOSECONDS).tolist()) for name, times_ns in before.items()}
    linked = {}
    for name, times_ns in after.items():
        mine = set((times_ns % NANOSECONDS).tolist())
        shared = {old: len(mine & theirs) for old, theirs in ticks.items()}
        best = max(shared.values())
        nearest = [old for old, count in shared.items() if count == best]
        if best and len(nearest) == 1:
            linked[name] = nearest[0]
    return linked


def rightly_linked(*, coarser_than_ns: int = 1) -> tuple[int, int]:
    """Return how many of the wearers are linked rightly across a change of key, and of how many."""
    before = released_times(KEYS[0], from_s=0, coarser_than_ns=coarser_than_ns)
    after = released_times(KEYS[1], from_s=86_400, coarser_than_ns=coarser_than_ns)
    linked = linked_by_phase(before, after)
    new, old = (Pseudonymizer(key).released_ids(WEARERS.source_ids) for key in (KEYS[1], KEYS[0]))
    truth = dict(zip(new, old, strict=True))
    return int(np.sum([truth[name] == one for name, one in linked.items()])), WEARERS.count

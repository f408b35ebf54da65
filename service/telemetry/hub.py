"""Tells everybody who listens what happens: the sums first, then the log, then whoever else asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.telemetry.events import SOURCE, STATE, Events, Unit
from service.telemetry.log_lines import LogLines
from service.telemetry.totals import Sums, Totals

__all__ = ["SOURCE", "STATE", "Telemetry", "Unit"]


class Telemetry(Events):
    """Hands every event on to its listeners, in order. What each event means: `service/telemetry/events.py`.

    Args:
        k: For the log lines.
        verbose: Whether details and the statistics of each window are logged too.
        listeners: Who else wants to know.
    """

    def __init__(self, *, k: int, verbose: bool, listeners: Sequence[Events] = ()) -> None:
        sums = Sums()
        self.totals: Totals = sums.totals
        self._listeners: tuple[Events, ...] = (sums, LogLines(k=k, verbose=verbose, totals=sums.totals), *listeners)


def _handing_on(name: str) -> Callable[..., None]:
    def hand_on(self: Telemetry, *values: Any, **named: Any) -> None:
        for listener in self._listeners:
            getattr(listener, name)(*values, **named)

    hand_on.__name__, hand_on.__doc__ = name, getattr(Events, name).__doc__
    return hand_on


# Written out, a new event could be forgotten here, and then nobody would ever hear of it.
for _name in [name for name in vars(Events) if not name.startswith("_")]:
    setattr(Telemetry, _name, _handing_on(_name))

"""Passes every event of a run to its listeners: the totals first, then the log, then the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.telemetry.events import SOURCE, STATE, Events, Unit
from service.telemetry.log_lines import LogLines
from service.telemetry.totals import Sums, Totals

__all__ = ["SOURCE", "STATE", "Telemetry", "Unit"]


class Telemetry(Events):
    """Passes every event to its listeners, in order. `service/telemetry/events.py` describes the events.

    Args:
        k: For the log lines.
        verbose: Whether to log details and the statistics of each window too.
        listeners: Further listeners.
        sums: The totals of the run, if a listener also reads them.
    """

    def __init__(self, *, k: int | None, verbose: bool, listeners: Sequence[Events] = (), sums: Sums | None = None) -> None:
        self._sums = sums or Sums()
        self._listeners: tuple[Events, ...] = (self._sums, LogLines(k=k, verbose=verbose, sums=self._sums), *listeners)

    @property
    def totals(self) -> Totals:
        """The totals so far."""
        return self._sums.totals


def _forwarder(name: str) -> Callable[..., None]:
    def forward(self: Telemetry, *values: Any, **named: Any) -> None:
        for listener in self._listeners:
            getattr(listener, name)(*values, **named)

    forward.__name__, forward.__doc__ = name, getattr(Events, name).__doc__
    return forward


# Generated, because a new event that is forgotten in a hand-written list would reach no listener.
for _name in [name for name in vars(Events) if not name.startswith("_")]:
    setattr(Telemetry, _name, _forwarder(_name))

"""The observers of a run besides the log: status page, systemd, report. Each is imported only if it is enabled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from anonymizer.batch import Promise
from anonymizer.ports import Output
from service.clock import Clock
from service.log_event import LogEvent
from service.settings.declared import Settings
from service.state.journal import Journal
from service.state.trail import ENDED, Trail
from service.telemetry.data_warnings import DataWarnings
from service.telemetry.events import Events
from service.telemetry.hub import Telemetry
from service.telemetry.totals import Sums

if TYPE_CHECKING:
    from service.report.figures import Attacked
    from service.report.run_recorder import RunRecorder
    from service.status.board import Board
    from service.status.systemd import Notifier
    from service.status.web import StatusServer


_HEAD = LogEvent("audit_log_head", "🧾 Audit log %s: head %s (keep it elsewhere)", "path head")


class Observation:
    """Makes a run observable while its `with` block lasts; the run reports to `telemetry`.

    Args:
        settings: Says which observers are enabled.
        clock: The service's clock.
        environment: The process's variables, in which systemd names its socket.
    """

    def __init__(self, settings: Settings, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = environment
        sums = Sums()
        self._board = self._make_board(clock, sums)
        self._server: StatusServer | None = None
        self._notifier: Notifier | None = None
        self._promise: Promise | None = None
        self.trail: Trail | None = None
        self._recorder = None if settings.streaming_mode else _make_recorder(settings, clock, sums)
        listeners: list[Events] = [one for one in (self._board, self._recorder) if one is not None]
        listeners.append(DataWarnings(clock, counts_rows=settings.k_unit == "record" and settings.method != "rhythm"))
        if settings.utility_metrics:
            from service.telemetry.fidelity_steps import FidelityReport, RhythmReport

            listeners.append(RhythmReport() if settings.method == "rhythm" else FidelityReport())
        self.telemetry = Telemetry(
            k=None if settings.method == "rhythm" else settings.k_value,
            verbose=settings.verbose_logging,
            listeners=listeners,
            sums=sums,
        )

    def __enter__(self) -> Self:
        """Start the status server and the systemd notifier.

        Raises:
            ConfigurationError: The service cannot listen on STATUS_ADDRESS.
        """
        if self._board is None:
            return self
        if self._settings.status_address:
            from service.settings.types import parse_address
            from service.status.web import StatusServer

            address = parse_address(self._settings.status_address)
            self._server = StatusServer(address, self._board.look, self._settings, self._settings.status_token)
        if self._environment.get("NOTIFY_SOCKET"):
            from service.status.systemd import Notifier

            self._notifier = Notifier(self._board.look, self._environment)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._notifier is not None:
            self._notifier.close()
        if self._server is not None:
            self._server.close()

    def end_trail(self, journal: Journal) -> None:
        """Tell the end of the run in the audit log, and log the head of its chain, to be kept elsewhere."""
        if self.trail is None:
            return
        self.trail.follow(journal.released_intervals(), at_once=True)
        self.trail.add(ENDED, {})
        _HEAD.log(self.trail.path, self.trail.head)
        if self._recorder is not None:
            self._recorder.head = self.trail.head

    def expect(self, outputs: Sequence[Output]) -> None:
        """Give observers the enabled outputs."""
        if self._board is not None:
            self._board.expect(outputs)

    def plan(self, windows_in_all: int | None) -> None:
        """Give observers the number of windows of the run; None: no end."""
        if self._board is not None:
            self._board.plan(windows_in_all)

    def watch(self, journal: Journal, promise: Promise) -> None:
        """Give observers the journal, in which every output is now registered, and the promise."""
        self._promise = promise
        if self._board is not None:
            self._board.watch(journal.outputs)

    @property
    def wants_recognition(self) -> bool:
        """Whether the report is to say how often attackers name the right wearer."""
        return self._settings.utility_metrics and self._recorder is not None

    def attacked(self, found: Attacked) -> None:
        """Give it to the report."""
        if self._recorder is not None:
            self._recorder.attacked(found)

    def unwatch(self, journal: Journal) -> None:
        """Let observers read the journal once more before it is closed; write the report of a one-shot run, also if it failed."""
        if self._board is not None:
            self._board.unwatch()
        if self._recorder is not None and self._promise is not None:
            from service.report.write_report import write_report

            figures = self._recorder.figures(journal.outputs.positions(), self._promise)
            write_report(figures, Path(self._settings.state_dir), file_mode=self._settings.output_file_mode)

    def _make_board(self, clock: Clock, sums: Sums) -> Board | None:
        if not (self._settings.status_address or self._environment.get("NOTIFY_SOCKET")):
            return None
        from service.status.board import Board

        return Board(self._settings, clock, sums)


def _make_recorder(settings: Settings, clock: Clock, sums: Sums) -> RunRecorder:
    from service.report.run_recorder import RunRecorder

    return RunRecorder(settings, clock, sums)

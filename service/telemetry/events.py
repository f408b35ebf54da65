"""What can happen in a run, one method each. The log, the totals, the status page and the report listen.

No event holds a row, a value or an id of a source, except batches on their way out: a listener must not keep those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import WindowResult
from anonymizer.batch import Batch, WindowCounts
from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.ports import Output
from anonymizer.units import UnitDoubts
from anonymizer.windows import WindowRange
from service.state.journal import Released

#: `connecting`: nothing was read yet; `working`: the loop runs; `finishing`: all is read, outputs still take; `stopping`: asked to stop.
Phase = Literal["connecting", "working", "finishing", "stopping"]

#: What a run can wait for besides an output, which goes by its name.
SOURCE, STATE, WORKERS = "source", "state", "workers"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What is reported together: one window in a stream, a chunk of windows in a one-shot run."""

    windows: WindowRange
    results: tuple[WindowResult, ...]

    @property
    def batches(self) -> list[Batch]:
        """The batches that may leave, and are here: those that workers spooled are not."""
        return [result.batch for result in self.results if result.batch is not None]

    @property
    def counts(self) -> WindowCounts:
        """Rows by outcome, over the windows."""
        return sum((result.counts for result in self.results), WindowCounts())

    @property
    def rows_at_level(self) -> npt.NDArray[np.int64]:
        """Rows by level 0 … 9, over the windows."""
        levels = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        for result in self.results:
            levels += result.statistics.rows_at_level
        return levels


class Events:
    """Ignores every event; a listener overrides those it needs.

    Events of outputs come from their workers' threads, all others from the work loop. A listener may neither raise nor block.
    """

    # The run

    def phase(self, phase: Phase) -> None:
        """The run enters a phase."""

    def reached(self, up_to_ns: int) -> None:
        """The work loop is alive, and done with every window that ends by then. Comes when there is nothing to do as well."""

    def waits(self, who: str, reason: Exception, seconds: float) -> None:
        """Something cannot be used now; the service retries after a pause.

        Args:
            who: `SOURCE`, `STATE` (our own disk), `WORKERS` or the name of an output.
            reason: Why, without data.
            seconds: Until the retry.
        """

    def goes_on(self, who: str) -> None:
        """It can be used again."""

    def workers(self, count: int) -> None:
        """So many worker processes share the work now."""

    def finished(self, seconds: float) -> None:
        """The run ended, after so many seconds."""

    # Windows

    def nothing_in(self, windows: WindowRange) -> None:
        """The source holds nothing for these windows."""

    def expired(self, windows: WindowRange) -> None:
        """These windows are empty because the source no longer keeps rows so old: what they held is unknown."""

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Windows were released before and are skipped; `released` has what was promised of them."""

    def anonymized(self, unit: Unit) -> None:
        """A unit was read, anonymized and verified."""

    def chunk_failed_verification(self, violations: int) -> None:
        """Batches of a chunk failed verification and were withheld."""

    def rows_outside(self, rows: int) -> None:
        """Rows lie in no window that was asked for."""

    def rows_beside(self, *, without_time: int, not_asked_for: int) -> None:
        """Rows of the source lie in no window of this run.

        Args:
            without_time: Rows without a usable time: they were read, and are invalid.
            not_asked_for: Rows of other times or sources; they count as not read.
        """

    def rows_without_source(self, rows: int) -> None:
        """Invalid rows of a chunk that name no source; its other invalid rows have no number."""

    def contradicted(self, *, rows: int, windows: int, sources: int, advice: Callable[[], str]) -> None:
        """Rows of a chunk are withheld because their sources hold two different values for one time.

        Args:
            rows: How many.
            windows: In how many windows.
            sources: How many sources contradict themselves in one of them, at most.
            advice: Returns the usual cause and the remedy; queries the source.
        """

    def units_look_wrong(self, doubts: UnitDoubts) -> None:
        """Sources of a chunk look as if their values were in another unit."""

    def ids_are_formulas(self, sources: int) -> None:
        """Released ids that a spreadsheet would take for formulas."""

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """How long a chunk took to anonymize, verify and release; reading is not included."""

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Rows came after their windows were released.

        Args:
            rows: How many, since these windows were last counted.
            windows: Of how many windows.
            of_rows: How many rows all windows that were counted held when they were read.
            sufficient_lateness_s: The ALLOWED_LATENESS_SECONDS with which they would have been released.
        """

    def parts_changed(self, *, added: int, changed: int, gone: int) -> None:
        """So many files of a data set were added, have changed or are gone since the last start."""

    def added_too_late(self, rows: int) -> None:
        """Rows that a file gained for windows that were released before; they stay out."""

    # Releases and outputs

    def releasing(self, rows: int) -> None:
        """Rows are about to be released."""

    def released(self, rows: int) -> None:
        """They are released: outputs may be offered them."""

    def reading_pauses(self, waiting_bytes: int, most_bytes: int) -> None:
        """The spool is full: the service reads nothing until outputs have taken some of it."""

    def reading_goes_on(self) -> None:
        """There is room in the spool again."""

    def pending_at_start(self, output: str, rows: int) -> None:
        """Rows that an earlier run released still wait for an output."""

    def writing(self, output: Output, batches: Sequence[Batch]) -> None:
        """Batches are about to be written."""

    def wrote(self, output: Output, rows: int) -> None:
        """An output took rows."""

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """An output will never take some rows of a batch, or any."""

    def gave_up(self, output: Output, reason: Exception) -> None:
        """The service writes to an output no more in this run."""

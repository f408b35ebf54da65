"""What can happen in a run, one method each. Whoever wants to know listens: the log, the sums, the status page, the report.

Nothing here holds a row, a value or an id of a source, but for batches on their way out: a listener must not keep those.
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

#: Who can be waited for besides an output, which is called by its name.
SOURCE, STATE = "source", "state"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What is reported together: one window while streaming, a chunk of them otherwise."""

    windows: WindowRange
    results: tuple[WindowResult, ...]

    @property
    def batches(self) -> list[Batch]:
        """The batches that may leave."""
        return [result.batch for result in self.results if result.batch is not None]

    @property
    def counts(self) -> WindowCounts:
        """The sums over the windows."""
        return sum((result.counts for result in self.results), WindowCounts())

    @property
    def rows_at_level(self) -> npt.NDArray[np.int64]:
        """Rows by level 0 … 9, over the windows."""
        levels = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        for result in self.results:
            levels += result.statistics.rows_at_level
        return levels


class Events:
    """Listens to everything and does nothing. A listener overrides what it wants to know of.

    Events of outputs come from their workers' threads, all others from the loop's. A listener may neither raise nor take long.
    """

    # The run

    def phase(self, phase: Phase) -> None:
        """The run is now here."""

    def reached(self, up_to_ns: int) -> None:
        """The loop came by: it is done with every window that ends by then, also when it has nothing to do."""

    def waits(self, who: str, reason: Exception, seconds: float) -> None:
        """Somebody cannot be used now and is asked again in so many seconds.

        Args:
            who: `SOURCE`, `STATE` (our own disk) or the name of an output.
            reason: Why, without data.
            seconds: Until the next try.
        """

    def goes_on(self, who: str) -> None:
        """Whoever was waited for answers again."""

    def finished(self, seconds: float) -> None:
        """The run came to its end after so many seconds."""

    # Windows

    def nothing_in(self, windows: WindowRange) -> None:
        """The source holds nothing for these windows."""

    def expired(self, windows: WindowRange) -> None:
        """These windows are empty because the source no longer keeps rows so old: nobody knows what they held."""

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """So many of the windows were released before and are not released again; `released` says what was promised of them."""

    def anonymized(self, unit: Unit) -> None:
        """A unit was read, anonymized and verified."""

    def chunk_failed_verification(self, violations: int) -> None:
        """So many batches of a chunk were withheld because the second opinion disagreed."""

    def rows_outside(self, rows: int) -> None:
        """So many rows had times that lie in no window that was asked for."""

    def rows_beside(self, *, without_time: int, not_asked_for: int) -> None:
        """Rows of the source lie in no window of this run.

        Args:
            without_time: Rows without a usable time: they were read, and are invalid.
            not_asked_for: Rows of other times or sources; they count as not read.
        """

    def rows_without_source(self, rows: int) -> None:
        """So many of the invalid rows of a chunk name no source; its other invalid rows have no number."""

    def contradicted(self, *, rows: int, windows: int, sources: int, advice: Callable[[], str]) -> None:
        """Rows of a chunk are withheld because their sources hold two different values for one time.

        Args:
            rows: How many.
            windows: In how many windows.
            sources: How many sources contradict themselves in one of them, at most.
            advice: Returns what usually makes sources do so, and what helps; asks the source.
        """

    def units_look_wrong(self, doubts: UnitDoubts) -> None:
        """Sources of a chunk look as if their values were in another unit."""

    def ids_are_formulas(self, sources: int) -> None:
        """So many released ids begin with what a spreadsheet takes for a formula."""

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """A chunk of so many windows and rows was anonymized, verified and released in so many seconds; reading is not in them."""

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
        """So many rows were added to a file for windows that were released before; they stay out."""

    # Releases and outputs

    def releasing(self, rows: int) -> None:
        """So many rows are about to be fixed for ever."""

    def released(self, rows: int) -> None:
        """They are: outputs may be offered them."""

    def reading_pauses(self, waiting_bytes: int, most_bytes: int) -> None:
        """The spool is full: nothing is read until outputs have taken something."""

    def reading_goes_on(self) -> None:
        """There is room in the spool again."""

    def pending_at_start(self, output: str, rows: int) -> None:
        """So many rows that an earlier run released are still to be brought to an output."""

    def writing(self, output: Output, batches: Sequence[Batch]) -> None:
        """Batches are about to be written."""

    def wrote(self, output: Output, rows: int) -> None:
        """So many rows were taken."""

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """An output will never take some rows of a batch, or any."""

    def gave_up(self, output: Output, reason: Exception) -> None:
        """An output is not written to any more in this run."""

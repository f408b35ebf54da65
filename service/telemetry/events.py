"""What can happen in a run, one method each. The log, the totals, the status page and the report listen.

No event holds a row, a value or an id of a source, except batches on their way out: a listener must not keep those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

#: `connecting`: nothing was read yet; `working`: the loop runs; `finishing`: outputs take the last rows; `stopping`: asked to stop.
Phase = Literal["connecting", "working", "finishing", "stopping"]

#: What a run can wait for besides an output, which is named by its own name.
SOURCE, STATE, WORKERS = "source", "state", "workers"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Windows that are reported together: one in a stream, a chunk in a one-shot run."""

    windows: WindowRange
    results: tuple[WindowResult, ...]

    @property
    def batches(self) -> list[Batch]:
        """The released batches in this process; without those that Dask workers spooled."""
        return [result.batch for result in self.results if result.batch is not None]

    @property
    def counts(self) -> WindowCounts:
        """Rows by outcome, over the windows."""
        return WindowCounts(*map(sum, zip(*(result.counts.numbers() for result in self.results), strict=True)))

    @property
    def rows_at_level(self) -> npt.NDArray[np.int64]:
        """Rows by level 0 … 9, over the windows."""
        levels = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        for result in self.results:
            levels += result.statistics.rows_at_level
        return levels


#: What RETENTION_DAYS removes, in words.
REMOVABLE = ("CSV files", "Parquet files", "set-aside batches", "reports")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep of RETENTION_DAYS did, or several.

    Args:
        at_ns: When the last one ended; 0: there was none.
        files: How many files were removed, by what they are: `CSV files`.
        rows: Released rows in them.
        kept: Files that are old enough and could not, or must not, be removed.
        others: Old files beside them that are not the service's to remove.
    """

    at_ns: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    kept: int = 0
    others: int = 0

    def followed_by(self, later: Sweep) -> Sweep:
        """Return what this sweep and a later one removed; what is kept is what the later one says."""
        files = {what: self.files.get(what, 0) + count for what, count in later.files.items()}
        return Sweep(later.at_ns, {**self.files, **files}, self.rows + later.rows, later.kept, later.others)


class Events:
    """Ignores every event; a listener overrides those it needs.

    Events of outputs come from the threads of their workers, all others from the release loop. A listener must neither raise nor block.
    """

    # The run

    def phase(self, phase: Phase) -> None:
        """The run enters a phase."""

    def reached(self, up_to_ns: int) -> None:
        """The release loop is alive, and has finished every window that ends by then. Also sent while nothing is due."""

    def waits(self, who: str, reason: Exception, seconds: float) -> None:
        """Something is unavailable; the service retries after a pause.

        Args:
            who: `SOURCE`, `STATE` (the service's own disk), `WORKERS` or the name of an output.
            reason: Why, without data.
            seconds: The time until the retry.
        """

    def recovered(self, who: str) -> None:
        """It is available again."""

    def workers(self, count: int) -> None:
        """The number of worker processes changed."""

    def finished(self, seconds: float) -> None:
        """The run ended, after this time."""

    # Windows

    def nothing_in(self, windows: WindowRange) -> None:
        """The source has no rows in these windows."""

    def expired(self, windows: WindowRange) -> None:
        """These windows are empty because they are older than the source's retention: what they held is unknown."""

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Windows were released before and are skipped; `released` has their promises."""

    def anonymized(self, unit: Unit) -> None:
        """A unit was read, anonymized and verified."""

    def chunk_failed_verification(self, violations: int) -> None:
        """Batches of a chunk failed verification and were withheld."""

    def rows_outside(self, rows: int) -> None:
        """Rows of a chunk are outside the requested windows."""

    def rows_beside(self, *, without_time: int, not_requested: int) -> None:
        """Rows of the source are outside all windows of the run.

        Args:
            without_time: Rows without a usable time: they were read, and are invalid.
            not_requested: Rows of other times or sources; they do not count as read.
        """

    def rows_without_source(self, rows: int) -> None:
        """Invalid rows of a chunk name no source; its other invalid rows have no number."""

    def contradicted(self, *, rows: int, windows: int, sources: int, advice: Callable[[], str]) -> None:
        """Rows of a chunk are withheld because their sources hold two different values for one time.

        Args:
            rows: The number of rows.
            windows: The number of windows.
            sources: The highest number of contradictory sources in one window.
            advice: Returns the usual cause and the remedy; queries the source.
        """

    def units_look_wrong(self, doubts: UnitDoubts) -> None:
        """Values of sources in a chunk seem to be in another unit."""

    def ids_are_formulas(self, sources: int) -> None:
        """A spreadsheet would execute released ids as formulas."""

    def ids_are_alike(self, sources: int) -> None:
        """Ids that count as different people differ only in spelling."""

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """How long a chunk took to anonymize, verify and release; reading is not included."""

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Rows arrived after their windows were released.

        Args:
            rows: The number of rows since the last count of these windows.
            windows: The number of their windows.
            of_rows: The rows read in all counted windows.
            sufficient_lateness_s: The ALLOWED_LATENESS_SECONDS that would have waited for them.
        """

    def parts_changed(self, *, added: int, changed: int, gone: int) -> None:
        """Files of a data set were added, changed or removed since the last start."""

    def added_too_late(self, rows: int) -> None:
        """Rows were added to a file for windows that are already released; these rows are not released."""

    # Releases and outputs

    def releasing(self, rows: int) -> None:
        """Rows are about to be released."""

    def released(self, rows: int) -> None:
        """They are released; outputs may be offered them."""

    def reading_pauses(self, waiting_bytes: int, most_bytes: int) -> None:
        """The spool is full: the service reads nothing until outputs have taken some of it."""

    def reading_resumes(self) -> None:
        """The spool has room again."""

    def pending_at_start(self, output: str, rows: int) -> None:
        """Rows released by an earlier run still wait for an output."""

    def writing(self, output: Output, batches: Sequence[Batch]) -> None:
        """Batches are about to be written."""

    def wrote(self, output: Output, rows: int) -> None:
        """An output took rows."""

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """An output refused some or all rows of a batch for good."""

    def swept(self, sweep: Sweep) -> None:
        """RETENTION_DAYS was applied to files, reports and set-aside rows."""

    def gave_up(self, output: Output, reason: Exception) -> None:
        """The service stopped writing to an output for the rest of this run."""

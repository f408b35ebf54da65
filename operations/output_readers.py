"""Reads back the content of outputs, to compare it with the journal. An HTTP API cannot be read back; its answers are trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.cohorts import Cohort
from anonymizer.samples import SampleSource
from anonymizer.windows import Window, WindowRange
from inputs.window_summaries import WindowSummaries
from outputs.csv_held import HeldCsv
from outputs.parquet_held import HeldParquet
from service.settings.declared import Settings, cohort_of
from service.wiring.outputs import held_csv, held_parquet, make_outputs
from service.wiring.servers import output_address, reading_token


class OutputReader(Protocol):
    """Reads the content of an output."""

    #: The output's name in the journal.
    name: str

    #: Whether it may count rows twice in a long range (decision 016).
    may_count_twice: bool

    def rows_in(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many released rows the output holds for each window, shape (len(windows),).

        Raises:
            SourceUnavailable: It cannot be read.
        """

    def summarized(self, span: Window) -> Collection[int] | None:
        """Return the starts of windows that have a summary; None for an output without summaries."""


class CsvReader:
    """Counts rows in CSV files.

    Args:
        held: The files.
    """

    may_count_twice = False

    def __init__(self, held: HeldCsv) -> None:
        self.name = held.name
        self.rows_in = held.rows_in

    def summarized(self, span: Window) -> None:
        """Return None: CSV files have no summaries."""
        return


class BucketReader:
    """Counts rows and summaries in the output bucket.

    Args:
        rows: The anonymized measurement, as a source that counts.
        windows: Returns the windows of ours that have a summary; other data sets and cohorts may have some that start with them.
    """

    may_count_twice = True

    def __init__(self, name: str, rows: SampleSource, windows: Callable[[Window], list[Window]]) -> None:
        self.name = name
        self._rows = rows
        self._windows = windows

    def rows_in(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows the database counts in each window."""
        return self._rows.count(windows)

    def summarized(self, span: Window) -> Collection[int]:
        """Return where our windows start that have a summary."""
        return {window.start_ns for window in self._windows(span)}


class CohortReader:
    """Counts the rows and summaries of one cohort in a bucket that others share: their summaries tell which rows are not ours.

    Args:
        name: The output's name.
        rows: The anonymized measurement, as a source that counts.
        stated: The summaries' measurement, as a source of how many rows each states, named by the cohort.
        cohort: Which of them is ours.
        windows: Returns the windows of ours that have a summary.
    """

    may_count_twice = True

    def __init__(
        self, name: str, rows: SampleSource, stated: SampleSource, cohort: Cohort, windows: Callable[[Window], list[Window]]
    ) -> None:
        self.name = name
        self._rows = rows
        self._stated = stated
        self._cohort = cohort
        self._windows = windows

    def rows_in(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows of each window are ours; those of others that have no summary yet are left out where ours has one."""
        ours, others = self._stated_rows(windows)
        left = self._rows.count(windows) - others
        return np.where(ours > 0, np.minimum(left, ours), left)

    def summarized(self, span: Window) -> Collection[int]:
        """Return where our windows start that have a summary."""
        return {window.start_ns for window in self._windows(span)}

    def _stated_rows(self, windows: WindowRange) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return how many rows our summaries state for each window, and how many the others', each shape (len(windows),)."""
        stated = self._stated.read(windows)
        is_ours = np.array([name == self._cohort.value for name in (*stated.source_ids, "")], dtype=bool)[stated.source_codes]
        index = windows.index_of(stated.times_ns)
        sums = [
            np.bincount(index[which], weights=stated.values_uv[which], minlength=len(windows)).astype(np.int64)
            for which in (is_ours, ~is_ours)
        ]
        return sums[0], sums[1]


class ParquetReader:
    """Counts rows and summaries in Parquet files.

    Args:
        name: The output's name.
        held: The files.
    """

    may_count_twice = False

    def __init__(self, held: HeldParquet) -> None:
        self.name = held.name
        self.rows_in = held.rows_in
        self.summarized = held.rows_released


def make_output_readers(settings: Settings, summaries: WindowSummaries, labels: Collection[str]) -> list[OutputReader]:
    """Return readers of the outputs that can be read back; the bucket is read with INFLUX_VERIFY_TOKEN or else the write token.

    Args:
        settings: The settings.
        summaries: The summaries of the output bucket.
        labels: Present and past labels of the data set in batch ids.
    """
    from inputs.influx_dialect import OUTPUT_REMEDY, InfluxSeries
    from inputs.influx_source import InfluxSource
    from transport.influx_connection import InfluxConnection

    readers: list[OutputReader] = []
    for output in make_outputs(settings):
        if output.kind == "csv":
            readers.append(CsvReader(held_csv(settings)))
        elif output.kind == "influxdb":
            series = InfluxSeries(
                bucket=settings.influx_output_bucket,
                measurement=f"{settings.influx_measurement}_anonymized",
                field=settings.influx_field,
                source_tag=settings.source_tag,
                remedy=OUTPUT_REMEDY,
            )
            token = reading_token(settings)
            connection = InfluxConnection(output_address(settings, token), token.current)
            rows, cohort = InfluxSource(connection, series), cohort_of(settings)
            windows = partial(summaries.released, labels)
            if cohort is None:
                readers.append(BucketReader(output.name, rows, windows))
                continue
            of_windows = dataclasses.replace(
                series, measurement=f"{series.measurement}_windows", field="rows_released", source_tag=cohort.tag
            )
            readers.append(CohortReader(output.name, rows, InfluxSource(connection, of_windows), cohort, windows))
        elif output.kind == "parquet":
            readers.append(ParquetReader(held_parquet(settings, labels)))
    return readers

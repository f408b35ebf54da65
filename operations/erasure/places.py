"""Makes the places of an erasure from settings."""

from __future__ import annotations

from anonymizer.samples import SampleSource
from operations.erasure.bucket import BucketRows
from service.settings.declared import Settings, cohort_of
from service.state.journal import Journal
from service.wiring import data_set_labels, influx_target, output_address, parquet_label, reading_token


def make_bucket_rows(settings: Settings, journal: Journal) -> BucketRows:
    """Return the rows of the output bucket: read with INFLUX_VERIFY_TOKEN or else the write token, deleted with the write token."""
    from transport.influx_connection import InfluxConnection

    reading, writing = reading_token(settings), settings.influx_output_token or settings.influx_token
    return BucketRows(
        InfluxConnection(output_address(settings, reading), reading.current),
        InfluxConnection(output_address(settings, writing), writing.current),
        influx_target(settings),
        journal,
        owns_all=cohort_of(settings) is None,
    )


def parquet_labels(settings: Settings, source: SampleSource, journal: Journal) -> tuple[str, ...]:
    """Return what the data set is called in names of Parquet files; the source must be open."""
    own = parquet_label(settings)
    return (own,) if own else data_set_labels(settings, source, journal)

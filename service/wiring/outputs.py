"""The outputs that the settings enable, where each keeps its rows, and what reads them back. Creates no folder and contacts no server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anonymizer.ports import Output
from service.settings.declared import Settings, cohort_of
from service.settings.types import Secret
from service.wiring.data_set import parquet_label, parquet_labels
from service.wiring.servers import connection_to, in_bucket, output_address, proxy_of, reading_token

if TYPE_CHECKING:
    from inputs.window_summaries import WindowSummaries
    from outputs.csv_held import HeldCsv
    from outputs.influxdb import InfluxTarget
    from outputs.parquet_held import HeldParquet
    from outputs.parquet_places import Place
    from service.state.shared_spool import SharedSpool


def _make_csv(settings: Settings) -> Output:
    from outputs.csv_files import CsvFiles

    folder, pattern = Path(settings.csv_output_dir), settings.csv_filename_pattern
    return CsvFiles(folder, pattern, file_mode=settings.output_file_mode, is_alone=True)


def _make_influxdb(settings: Settings) -> Output:
    from outputs.influxdb import InfluxOutput
    from transport.influx_connection import InfluxConnection

    token: Secret = settings.influx_output_token or settings.influx_token
    return InfluxOutput(InfluxConnection(output_address(settings, token), token.current), influx_target(settings))


def influx_target(settings: Settings) -> InfluxTarget:
    """Return where rows and summaries go in the output bucket."""
    from outputs.influxdb import InfluxTarget

    cohort = cohort_of(settings)
    return InfluxTarget(
        bucket=settings.influx_output_bucket,
        measurement=settings.influx_measurement,
        field=settings.influx_field,
        source_tag=settings.source_tag,
        lines_per_write=settings.influx_write_batch_size,
        summary_tags=cohort.tags if cohort else (),
    )


def _make_parquet(settings: Settings) -> Output:
    from outputs.parquet_files import ParquetFiles

    return ParquetFiles(parquet_place(settings), settings.parquet_partition, label=parquet_label(settings))


def parquet_place(settings: Settings) -> Place:
    """Return where Parquet files are kept."""
    from outputs.parquet_places import Bucket, Folder

    address = settings.parquet_url.removeprefix("s3://")
    if address == settings.parquet_url:
        return Folder(Path(address), file_mode=settings.output_file_mode)

    return in_bucket(Bucket, settings, address)


def _make_api(settings: Settings) -> Output:
    from outputs.http_api import ApiTarget, HttpApi

    target = ApiTarget(
        endpoint=settings.api_endpoint,
        ca_file=settings.api_ca_file,
        timeout_s=settings.api_timeout_seconds,
        proxy=proxy_of(settings.api_endpoint),
    )
    return HttpApi(target, settings.api_token.current)


#: Every output: the setting that enables it, and the function that makes it. Add a new output here (outputs/README.md).
OUTPUTS: tuple[tuple[str, Callable[[Settings], Output]], ...] = (
    ("output_to_csv", _make_csv),
    ("output_to_influx", _make_influxdb),
    ("output_to_parquet", _make_parquet),
    ("output_to_api", _make_api),
)


def make_outputs(settings: Settings) -> list[Output]:
    """Return the enabled outputs, not yet open."""
    return [make(settings) for setting, make in OUTPUTS if getattr(settings, setting)]


def held_csv(settings: Settings) -> HeldCsv:
    """Return a reader of the CSV files."""
    from outputs.csv_held import HeldCsv

    return HeldCsv(Path(settings.csv_output_dir), settings.csv_filename_pattern)


def held_parquet(settings: Settings, labels: Collection[str]) -> HeldParquet:
    """Return a reader of the data set's earlier releases in Parquet files.

    Args:
        settings: The settings.
        labels: Present and past labels of the data set in batch ids.
    """
    from outputs.parquet_held import HeldParquet

    return HeldParquet(parquet_place(settings), parquet_labels(settings, labels))


@contextmanager
def open_summaries(settings: Settings) -> Iterator[WindowSummaries]:
    """Yield the output bucket's window summaries, read with INFLUX_VERIFY_TOKEN or else with the write token."""
    from inputs.window_summaries import WindowSummaries

    token = reading_token(settings)
    with connection_to(output_address(settings, token), token) as connection:
        yield WindowSummaries(connection, bucket=settings.influx_output_bucket, measurement=settings.influx_measurement)


def make_shared_spool(settings: Settings) -> SharedSpool:
    """Return the spool that Dask workers share, in SPOOL_URL or else in STATE_DIR. Creates no folder."""
    from service.state.shared_spool import SharedSpool, SpoolBucket, SpoolFolder

    address = settings.spool_url.removeprefix("s3://")
    if address == settings.spool_url:
        return SharedSpool(SpoolFolder(Path(settings.spool_url or Path(settings.state_dir) / "chunks")))

    return SharedSpool(in_bucket(SpoolBucket, settings, address))

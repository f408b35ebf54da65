"""The source of samples that the settings name. Contacts no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from anonymizer.errors import ConfigurationError
from anonymizer.samples import SampleSource
from service.settings.declared import Settings, cohort_of
from service.settings.types import Secret
from service.wiring.servers import input_address, store_access

if TYPE_CHECKING:
    from inputs.data_set_address import DataSetAddress
    from inputs.recordings.folder import Recordings

_MICROVOLTS = {"uV": 1.0, "mV": 1000.0}


def make_source(
    settings: Settings, token: Secret | None = None, *, index_file: Path | None = None, is_worker: bool = False
) -> SampleSource:
    """Return the source that the settings name, not yet open.

    Args:
        settings: The settings.
        token: Replaces INFLUX_TOKEN.
        index_file: The file that caches the index of a data set; None: no cache.
        is_worker: Whether it is read by one Dask worker of many, after the coordinator has surveyed it.
    """
    # Imported only if used: importing the database client takes half a second.
    if not settings.input_file:
        return _make_influx_source(settings, token)
    address = address_of_input(settings)
    return _make_file_source(settings) if address is None else _make_data_set(settings, address, index_file, is_worker=is_worker)


def address_of_input(settings: Settings) -> DataSetAddress | None:
    """Return the address of the data set that INPUT_FILE names; None if it names a file or recordings.

    Raises:
        ConfigurationError: It is an address of an unsupported kind.
    """
    from inputs.data_set_address import data_set_address

    try:
        address = data_set_address(settings.input_file) if settings.input_file else None
    except ValueError as error:
        raise ConfigurationError(f"INPUT_FILE {error}") from None
    return None if address is not None and not address.bucket and recordings_of(settings) else address


def _make_file_source(settings: Settings) -> SampleSource:
    from inputs.file_source import FileSource

    return FileSource(
        Path(settings.input_file),
        sources=settings.device_filter,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
        start_ns=settings.query_start_time,
        end_ns=settings.query_end_time,
        recordings=recordings_of(settings),
    )


def _make_data_set(settings: Settings, address: DataSetAddress, index_file: Path | None, *, is_worker: bool) -> SampleSource:
    from inputs.data_set import DataSetSource, Use
    from inputs.data_set_parts import Folder, PartStore

    store: PartStore = Folder(Path(address.root), address.is_requested(), address.pattern)
    if address.bucket:
        from inputs.data_set_bucket import BucketFolder
        from transport.object_store import ObjectStore

        store = BucketFolder(
            lambda: ObjectStore(address.bucket, store_access(settings), timeout_s=settings.parquet_timeout_seconds),
            address.root,
            address.is_requested(),
            address.pattern,
        )
    return DataSetSource(
        store,
        sources=settings.device_filter,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
        start_ns=settings.query_start_time,
        end_ns=settings.query_end_time,
        index_file=index_file,
        use=Use.PARTS if is_worker else Use.PLAN if settings.dask_scheduler else Use.WHOLE,
    )


def _make_influx_source(settings: Settings, token: Secret | None) -> SampleSource:
    from inputs.influx_dialect import InfluxSeries
    from inputs.influx_source import InfluxSource
    from transport.influx_connection import InfluxConnection

    used = token or settings.influx_token
    cohort = cohort_of(settings)
    series = InfluxSeries(
        bucket=settings.influx_input_bucket,
        measurement=settings.influx_measurement,
        field=settings.influx_field,
        source_tag=settings.source_tag,
        sources=settings.device_filter,
        tags=(*settings.influx_tag_filter, *([(cohort.tag, cohort.value)] if cohort else [])),
        cohort=cohort,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
    )
    return InfluxSource(InfluxConnection(input_address(settings, used), used.current), series)


def recordings_of(settings: Settings) -> Callable[[], Recordings] | None:
    """Return a function that opens the recordings that INPUT_FILE names; None if it names none."""
    from inputs.recordings.paths import recordings_at

    if not (settings.input_file and recordings_at(settings.input_file)):
        return None
    from inputs.recordings.folder import RecordingSettings, opener_of

    wanted = RecordingSettings(
        channel=settings.input_channel,
        source_ids=settings.input_source_id,
        start_ns=settings.input_start_time,
        given_unit="" if settings.value_unit == "uV" else settings.value_unit,
    )
    return opener_of(settings.input_file, wanted)

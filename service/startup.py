"""Opening everything before the first window: what cannot be reached yet, and what never will be until somebody mends a setting."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anonymizer.errors import (
    ConfigurationError,
    OutputUnavailable,
    SourceDenied,
    SourceError,
    SourceUnavailable,
)
from anonymizer.ports import Output
from anonymizer.samples import SampleSource
from disk.durable_file import sync_folder
from service.patience import Patience
from service.settings import Settings
from service.wiring import make_outputs, make_source, name_of_output_bucket

_LOG = logging.getLogger("ecg_anonymizer")


def open_source(settings: Settings, source: SampleSource, patience: Patience) -> None:
    """Open the source, waiting for one that is unavailable.

    Raises:
        ConfigurationError: It refuses us, and patience has an end: waiting does not mend a wrong token.
        OutOfPatience: It could not be reached.
        Stopped: We were asked to stop meanwhile.
    """
    try:
        patience.until_done(_saying_so(settings, source, patience))
    except SourceDenied as error:
        raise ConfigurationError(f"Failed to connect to InfluxDB: {error}") from None
    for remark in source.remarks:
        _LOG.warning("⚠️ %s", remark)
    if not settings.input_file:
        _LOG.info("✅ Connected to InfluxDB at %s", settings.influx_url)


def with_bucket_name(settings: Settings) -> Settings:
    """Return the settings with the output bucket by its name; raises as `name_of_output_bucket`."""
    name = name_of_output_bucket(settings)
    if name != settings.influx_output_bucket:
        _LOG.info("%s=%s is bucket %r", "INFLUX_OUTPUT_BUCKET", settings.influx_output_bucket, name)
    return dataclasses.replace(settings, influx_output_bucket=name)


def connection_problems(settings: Settings) -> list[str]:
    """Open everything once; return what went wrong, a sentence each.

    Not CSV files: to open them makes their folder, and whoever only asks leaves nothing behind (`service.wiring.folder_problems`).
    """
    problems = []
    try:
        settings = with_bucket_name(settings)
    except (ConfigurationError, SourceError) as error:
        problems.append(str(error))
        settings = dataclasses.replace(settings, output_to_influx=False)
    source, outputs = make_source(settings), make_outputs(settings)
    for opening in (source.open, *(_opening(output) for output in outputs if output.kind != "csv")):
        try:
            opening()
        except (SourceError, OutputUnavailable) as error:
            problems.append(str(error))
    for remark in source.remarks:
        _LOG.warning("⚠️ %s", remark)
    return problems


def say_what_the_disks_cannot(settings: Settings) -> None:
    """Warn of each folder on a disk that cannot sync folders, whether it is made already or not.

    A disk that fails is met, and waited for, where it is used.
    """
    folders = {"STATE_DIR": settings.state_dir} | ({"CSV_OUTPUT_DIR": settings.csv_output_dir} if settings.output_to_csv else {})
    for name, folder in folders.items():
        with suppress(OSError):
            nearest = next(one for one in (Path(folder), *Path(folder).absolute().parents) if one.is_dir())
            if not sync_folder(nearest):
                _LOG.warning(
                    "⚠️ %s %s: its disk cannot make names of new files durable (it does not sync folders), so a power cut may take a "
                    "file that was just written. Put it on a local disk; a crash of the service alone loses nothing",
                    name,
                    folder,
                )


def _opening(output: Output) -> Callable[[], None]:
    return lambda: output.open({})


def _saying_so(settings: Settings, source: SampleSource, patience: Patience) -> Callable[[], None]:
    """Return the opening of the source, with advice at the first failure that is waited for."""
    has_failed = False

    def opening() -> None:
        nonlocal has_failed
        try:
            source.open()
        except SourceUnavailable as error:
            is_refusal = isinstance(error, SourceDenied)
            if not (has_failed or settings.input_file or (is_refusal and not patience.is_endless)):
                _LOG.error("❌ Failed to connect to InfluxDB: %s", error)
                if not is_refusal:
                    _LOG.error("   Is it running, and is INFLUX_URL right? Try: curl %s/health", settings.influx_url)
            has_failed = True
            raise

    return opening

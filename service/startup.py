"""The start of a run: the configuration summary, and opening a source that may be unavailable."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator

from anonymizer.errors import ConfigurationError, SourceDenied, SourceUnavailable
from anonymizer.samples import SampleSource
from service.log_event import WARNING, LogEvent
from service.retry import Retry
from service.settings.declared import Settings, cohort_of
from service.settings.load import Configuration
from service.version import VERSION_IN_WORDS
from service.wiring.servers import connection_to, output_address, proxies_in_use
from transport.addresses import shown_address
from transport.proxies import are_proxies_named

_RULE = LogEvent("", "============================================================")
_STARTED = LogEvent("started", "🚀 Central ECG Anonymization Service")
_CONFIGURATION_FOLLOWS = LogEvent("configuration_follows", "Configuration Summary:")
_CONFIGURATION = LogEvent("configuration", "  %-14s %s", "title value")
_CONNECTED = LogEvent("connected", "✅ Connected to InfluxDB at %s", "url")
SERVER = LogEvent("server", "The server is %s", "server")
_BUCKET_NAMED = LogEvent("bucket_named", "%s=%s is bucket %r", "setting given bucket")
_CONNECTION_FAILED = LogEvent("connection_failed", "❌ Failed to connect to InfluxDB: %s", "reason", logging.ERROR)
_CONNECTION_ADVICE = LogEvent(
    "connection_advice", "   Is it running, and is INFLUX_URL right? Try: curl %s/ping", "url", logging.ERROR
)


_AS_THEY_ARE = "as they are: what is released is identified personal data"

#: The description of INFLUX_QUERY_LANGUAGE before the server's version is known.
_LANGUAGES = {"auto": "the language of its version", "flux": "Flux", "influxql": "InfluxQL"}


def log_configuration(configuration: Configuration) -> None:
    """Log the banner, the configuration and its warnings."""
    _STARTED.log()
    _RULE.log()
    _CONFIGURATION_FOLLOWS.log()
    for title, value in _lines(configuration.settings):
        _CONFIGURATION.log(f"{title}:", value)
    for warning in configuration.warnings:
        WARNING.log(warning)


def _lines(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "Version", VERSION_IN_WORDS
    yield "Mode", "streaming" if settings.streaming_mode else "one-shot"
    if settings.input_file:
        yield "Input", f"the {_kind_of_input(settings)} named by INPUT_FILE"
    else:
        where = f"bucket {settings.influx_input_bucket}, measurement {settings.influx_measurement}, field {settings.influx_field}"
        yield (
            "Input",
            f"InfluxDB {shown_address(settings.influx_url)}, {where}, asked in {_LANGUAGES[settings.influx_query_language]}",
        )
    yield from _cohort(settings)
    if settings.device_filter:
        yield "Sources", f"{len(settings.device_filter)} named by DEVICE_FILTER"
    yield "Windows", f"{settings.batch_size_seconds} s, due {settings.allowed_lateness_seconds} s after their end"
    yield "Anonymization", _method(settings)
    yield "Source ids", "pseudonyms (HMAC-SHA256)" if settings.pseudonymize_source_id else _AS_THEY_ARE
    if settings.output_to_csv:
        yield "Output", f"CSV {settings.csv_output_dir}/{settings.csv_filename_pattern}"
    if settings.output_to_influx:
        address = shown_address(settings.influx_output_url or settings.influx_url)
        yield "Output", f"InfluxDB {address}, bucket {settings.influx_output_bucket}"
    if settings.output_to_parquet:
        yield "Output", f"Parquet {settings.parquet_url}, a folder for each {settings.parquet_partition}"
    if settings.output_to_api:
        yield "Output", f"API {shown_address(settings.api_endpoint)}"
    if are_proxies_named(os.environ):
        for name, proxy in proxies_in_use(settings):
            yield "Proxy", f"{name} through {shown_address(proxy)}" if proxy else f"none for {name}"


def _kind_of_input(settings: Settings) -> str:
    if settings.input_file.lower().startswith("s3://"):
        return "objects"
    # Unlike that of Path, this does not raise what the disk says.
    return "file" if os.path.isfile(settings.input_file) else "folder or files"  # noqa: PTH113


def _cohort(settings: Settings) -> Iterator[tuple[str, str]]:
    cohort, names = cohort_of(settings), {"CSV files": settings.output_to_csv, "the API": settings.output_to_api}
    if cohort is not None:
        yield "Cohort", str(cohort)
        if unseen := " and ".join(name for name, is_used in names.items() if is_used):
            yield "Cohort", f"{unseen} cannot be read back: a service that cuts the bucket in another way is not seen there"


def _method(settings: Settings) -> str:
    if settings.method == "rhythm":
        return "rhythm: the public beat at each source's beat times"
    k = f"K={settings.k_value} ({settings.k_unit})"
    if settings.method == "optimal":
        return f"{k}, optimal groups"
    return f"{k}, hierarchy to level {settings.max_level}, then {settings.residual}, {settings.imputation} of each group"


def open_source(settings: Settings, source: SampleSource, retry: Retry) -> None:
    """Open the source, waiting for one that is unavailable.

    Raises:
        ConfigurationError: It refused access, and retries have a time limit: waiting does not fix a wrong token.
        RetriesExhausted: It could not be reached.
        Stopped: The service was asked to stop.
    """
    try:
        retry.until_done(_opening_with_advice(settings, source, retry))
    except SourceDenied as error:
        raise ConfigurationError(str(error) if settings.input_file else f"Failed to connect to InfluxDB: {error}") from None
    for remark in source.remarks:
        WARNING.log(remark)
    if not settings.input_file:
        _CONNECTED.log(settings.influx_url)
        SERVER.log(source.server)


def with_bucket_name(settings: Settings) -> Settings:
    """Return the settings with the output bucket by its name.

    Raises:
        ConfigurationError: INFLUX_OUTPUT_BUCKET is an id, and no configured token may look it up.
        SourceUnavailable: The server does not answer.
    """
    name = _name_of_output_bucket(settings)
    if name != settings.influx_output_bucket:
        _BUCKET_NAMED.log("INFLUX_OUTPUT_BUCKET", settings.influx_output_bucket, name)
    return dataclasses.replace(settings, influx_output_bucket=name)


def _opening_with_advice(settings: Settings, source: SampleSource, retry: Retry) -> Callable[[], None]:
    """Return a function that opens the source, and logs advice at the first failure that is retried."""
    has_failed = False

    def opening() -> None:
        nonlocal has_failed
        try:
            source.open()
        except SourceUnavailable as error:
            is_refusal = isinstance(error, SourceDenied)
            if not (has_failed or settings.input_file or (is_refusal and not retry.is_endless)):
                _CONNECTION_FAILED.log(error)
                if not is_refusal:
                    _CONNECTION_ADVICE.log(settings.influx_url)
            has_failed = True
            raise

    return opening


def _name_of_output_bucket(settings: Settings) -> str:
    """Return the output bucket's name, also if INFLUX_OUTPUT_BUCKET is its id. Queries and output names need the name. Raises as above."""
    given = settings.influx_output_bucket
    if not settings.output_to_influx:
        return given
    from transport.influx_connection import InfluxFault, looks_like_id  # 0.2 s that other outputs do not need

    if not looks_like_id(given):
        return given
    tokens = (settings.influx_verify_token, settings.influx_output_token, settings.influx_token)
    url = settings.influx_output_url or settings.influx_url
    for token in filter(None, tokens):
        try:
            with connection_to(output_address(settings, token), token) as connection:
                name = connection.name_of_bucket(given)
        except InfluxFault as fault:
            if fault.needs_setting:
                raise ConfigurationError(f"InfluxDB at {url} cannot be written to: {fault}") from None
            if fault.is_unreachable_for_good or not fault.is_denial:
                raise SourceUnavailable(f"InfluxDB at {url} cannot resolve bucket id {given}: {fault}") from None
            continue
        if name is not None:
            return name
    raise ConfigurationError(
        f"INFLUX_OUTPUT_BUCKET={given} looks like the id of a bucket, and no configured token may look up that bucket in InfluxDB at "
        f"{url}: set INFLUX_OUTPUT_BUCKET to the bucket's name, or INFLUX_VERIFY_TOKEN to a token that may read the bucket"
    )

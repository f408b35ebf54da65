"""What the service says of itself at the start: which data goes where, under what promise. No secrets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from service.configuration import Configuration
from service.settings import Settings
from service.wiring import ways_to_servers
from transport.addresses import shown_address
from transport.proxies import are_proxies_named

_LOG = logging.getLogger("ecg_anonymizer")


def log_configuration(configuration: Configuration) -> None:
    """Log the banner, the configuration, and what a person should know of it."""
    _LOG.info("🚀 Central ECG Anonymization Service")
    _LOG.info("=" * 60)
    _LOG.info("Configuration Summary:")
    for title, value in _lines(configuration.settings):
        _LOG.info("  %-14s %s", f"{title}:", value)
    for warning in configuration.warnings:
        _LOG.warning("⚠️ %s", warning)


def _lines(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "Mode", "streaming" if settings.streaming_mode else "one-shot"
    if settings.input_file:
        yield "Input", "the file INPUT_FILE names"
    else:
        where = f"bucket {settings.influx_input_bucket}, measurement {settings.influx_measurement}, field {settings.influx_field}"
        yield "Input", f"InfluxDB {shown_address(settings.influx_url)}, {where}"
    if settings.device_filter:
        yield "Sources", f"{len(settings.device_filter)} named by DEVICE_FILTER"
    yield "Windows", f"{settings.batch_size_seconds} s, due {settings.allowed_lateness_seconds} s after their end"
    yield "Anonymization", f"K={settings.k_value} ({settings.k_unit}), {_method(settings)}"
    yield "Source ids", "pseudonyms (HMAC-SHA256)" if settings.pseudonymize_source_id else "as they are"
    if settings.output_to_csv:
        yield "Output", f"CSV {settings.csv_output_dir}/{settings.csv_filename_pattern}"
    if settings.output_to_influx:
        address = shown_address(settings.influx_output_url or settings.influx_url)
        yield "Output", f"InfluxDB {address}, bucket {settings.influx_output_bucket}"
    if settings.output_to_api:
        yield "Output", f"API {shown_address(settings.api_endpoint)}"
    if are_proxies_named(os.environ):
        for name, proxy in ways_to_servers(settings):
            yield "Proxy", f"{name} through {shown_address(proxy)}" if proxy else f"none for {name}"


def _method(settings: Settings) -> str:
    if settings.method == "optimal":
        return "optimal groups"
    return f"hierarchy to level {settings.max_level}, then {settings.residual}, {settings.imputation} of each group"

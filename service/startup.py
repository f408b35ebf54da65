"""Opening everything before the first window: what cannot be reached yet, and what never will be until somebody mends a setting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from anonymizer.errors import (
    ConfigurationError,
    OutputDenied,
    OutputUnavailable,
    SourceDenied,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)
from anonymizer.ports import Output
from anonymizer.samples import SampleSource
from service.patience import Patience
from service.settings import Settings

_LOG = logging.getLogger("ecg_anonymizer")


def open_all(settings: Settings, source: SampleSource, outputs: Sequence[Output], patience: Patience) -> None:
    """Open the source and every output, waiting for those that are unavailable.

    Raises:
        ConfigurationError: With everything that refuses us, when patience has an end. Waiting does not mend a wrong token.
        OutOfPatience: Something could not be reached.
        Stopped: We were asked to stop meanwhile.
    """
    refusals: list[str] = []
    for opening in (_saying_so(settings, source, patience), *(_opening(output) for output in outputs)):
        try:
            patience.until_done(opening)
        except SourceDenied as error:
            refusals.append(f"Failed to connect to InfluxDB: {error}")
        except (SourceRefused, OutputDenied) as error:
            refusals.append(str(error))
    if refusals:
        raise ConfigurationError(refusals)
    for url in _servers(settings):
        _LOG.info("✅ Connected to InfluxDB at %s", url)


def connection_problems(source: SampleSource, outputs: Sequence[Output]) -> list[str]:
    """Open everything once; return what went wrong, a sentence each."""
    problems = []
    for opening in (source.open, *(_opening(output) for output in outputs)):
        try:
            opening()
        except (SourceError, OutputUnavailable) as error:
            problems.append(str(error))
    return problems


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


def _servers(settings: Settings) -> list[str]:
    """Return the addresses of the InfluxDB servers in use, each once."""
    read_from = [] if settings.input_file else [settings.influx_url]
    written_to = [settings.influx_output_url or settings.influx_url] if settings.output_to_influx else []
    return list(dict.fromkeys([*read_from, *written_to]))

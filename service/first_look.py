"""A first look at a site, the end of `--check --connect`: what is ready, what is weak, and what to set. Reads a little; leaves no trace.

What cannot be seen is said to be unknown; it never counts as ready.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from anonymizer.errors import ConfigurationError, SourceDenied, SourceError
from anonymizer.samples import NO_SOURCE, SampleSource
from anonymizer.windows import HOUR_NS, NANOSECONDS, WindowRange, whole_windows
from service.log_event import LogEvent
from service.settings.declared import Settings, cohort_of
from service.settings.load import unencrypted
from service.settings.types import Secret
from service.startup import with_bucket_name
from service.wiring import make_source, open_summaries

_READY = LogEvent("ready", "✅ Ready: %s", "what")
_WEAK = LogEvent("weak", "⚠️ Weak: %s. Set %s", "what remedy")
_UNKNOWN = LogEvent("unknown", "❔ Not known: %s", "what")

#: So many windows are read to see how many wearers share one, spread over the span.
_WINDOWS_LOOKED_AT = 12

_NO_SUCH_TOKEN = "InfluxDB 3 Core has none (documentation/PRIVACY.md)"  # noqa: S105


@dataclass(frozen=True)
class Finding:
    """One line of the list.

    Args:
        event: What kind it is.
        what: The finding.
        remedy: What to set, of a weakness.
    """

    event: LogEvent
    what: str
    remedy: str = ""

    def log(self) -> None:
        """Log it."""
        self.event.log(*filter(None, (self.what, self.remedy)))


def log_first_look(settings: Settings) -> None:
    """Log what is ready, then what is unknown, then what is weak, at a site where everything can be reached."""
    found = list(_findings(settings))
    for event in (_READY, _UNKNOWN, _WEAK):
        for finding in found:
            if finding.event is event:
                finding.log()


def _findings(settings: Settings) -> Iterator[Finding]:
    yield from _ids(settings)
    yield from _encryption(settings)
    if settings.input_file:
        yield Finding(_UNKNOWN, "how many wearers share a window, which is not looked for in files: scripts/advise.py tells")
    else:
        yield from _wearers(settings)
        yield from _raw_bucket(settings)
    if settings.output_to_influx:
        yield from _output_bucket(settings)
    if settings.streaming_mode and not settings.status_address:
        yield Finding(_WEAK, "nothing can ask a running service whether data flow", "STATUS_ADDRESS=127.0.0.1:9464")


def _ids(settings: Settings) -> Iterator[Finding]:
    if settings.pseudonymize_source_id:
        yield Finding(_READY, "source ids are replaced by pseudonyms")
    else:
        yield Finding(_WEAK, "source ids leave as they are", "PSEUDONYMIZE_SOURCE_ID=true and PSEUDONYM_SALT_FILE")


def _encryption(settings: Settings) -> Iterator[Finding]:
    in_clear = [sentence.split(" is not encrypted")[0] for sentence in unencrypted(settings)]
    for address in in_clear:
        yield Finding(_WEAK, f"{address} goes over a network unencrypted", f"{address.partition('=')[0]} to an https address")
    if not in_clear:
        yield Finding(_READY, "nothing goes unencrypted to another machine")


def _wearers(settings: Settings) -> Iterator[Finding]:
    if settings.method == "rhythm":
        return
    source = make_source(settings)
    try:
        source.open()
        wearers = _wearers_of_windows(settings, source)
    except SourceError as error:
        yield Finding(_UNKNOWN, f"how many wearers share a window: {error}")
        return
    finally:
        source.close()
    yield from _judged(settings, wearers)


def _judged(settings: Settings, wearers: list[int]) -> Iterator[Finding]:
    """Yield what the numbers of wearers in windows mean for the promise."""
    of = f"of {len(wearers)} windows looked at"
    k, alone = settings.k_value, wearers.count(1)
    few = sum(one < k for one in wearers)
    if not wearers:
        yield Finding(_UNKNOWN, "how many wearers share a window: the span that was looked at has no rows")
    elif settings.k_unit == "source" and few:
        remedy = "a longer BATCH_SIZE_SECONDS or a smaller K_VALUE, if more wearers do not join"
        yield Finding(_WEAK, f"{few} {of} have fewer than {k} wearers and would be withheld whole (K_UNIT=source)", remedy)
    elif settings.k_unit == "record" and alone:
        what = f"{alone} {of} hold rows of one wearer only, so all rows that share a value are one person's (K_UNIT=record)"
        yield Finding(_WEAK, what, "K_UNIT=source, which releases no such window")
    else:
        yield Finding(_READY, f"each {of} has rows of {min(wearers)} wearers or more")


def _wearers_of_windows(settings: Settings, source: SampleSource) -> list[int]:
    windows = _span(settings, source)
    with_rows = np.flatnonzero(source.count(windows)) if len(windows) else np.empty(0, dtype=np.int64)
    chosen = with_rows[np.linspace(0, len(with_rows) - 1, min(len(with_rows), _WINDOWS_LOOKED_AT)).astype(int)]
    codes = [source.read(windows.part(int(index), int(index) + 1)).source_codes for index in chosen]
    return [len(np.unique(one[one != NO_SOURCE])) for one in codes]


def _span(settings: Settings, source: SampleSource) -> WindowRange:
    """Return the windows of the last hour that a run would release, those of a stream of the hour that has passed."""
    now_ns = source.now_ns() or time.time_ns()
    end_ns = now_ns if settings.query_end_time is None else min(now_ns, settings.query_end_time)
    hours = 1 if settings.streaming_mode else settings.default_query_hours
    asked_ns = None if settings.streaming_mode else settings.query_start_time
    start_ns = end_ns - int(hours * HOUR_NS) if asked_ns is None else asked_ns
    return whole_windows(max(start_ns, end_ns - HOUR_NS), end_ns, settings.batch_size_seconds * NANOSECONDS)


def _raw_bucket(settings: Settings) -> Iterator[Finding]:
    """Yield whether the token that writes may read raw ECG."""
    if not settings.output_to_influx:
        return
    remedy = f"INFLUX_OUTPUT_TOKEN to a token that can write {settings.influx_output_bucket} and nothing else; {_NO_SUCH_TOKEN}"
    if not settings.influx_output_token or settings.influx_output_token.reveal() == settings.influx_token.reveal():
        yield Finding(_WEAK, "one token, or user, reads raw ECG and writes the output", remedy)
    elif settings.influx_output_url not in ("", settings.influx_url):
        # It would be shown to a server that it is not for.
        yield Finding(_READY, "the token that writes is another server's")
    else:
        yield from _read_with(settings, settings.influx_output_token, remedy)


def _read_with(settings: Settings, token: Secret, remedy: str) -> Iterator[Finding]:
    source = make_source(settings, token)
    try:
        source.open()
    except SourceDenied:
        yield Finding(_READY, "INFLUX_OUTPUT_TOKEN cannot read raw ECG")
    except SourceError as error:
        yield Finding(_UNKNOWN, f"whether INFLUX_OUTPUT_TOKEN can read raw ECG: {error}")
    else:
        yield Finding(_WEAK, "INFLUX_OUTPUT_TOKEN can read raw ECG", remedy)
    finally:
        source.close()


def _output_bucket(settings: Settings) -> Iterator[Finding]:
    """Yield whether releases of another STATE_DIR would be seen, and by which token."""
    with_write_token = dataclasses.replace(settings, influx_verify_token=Secret(""))
    try:
        can_write_token_read = _can_read_output(with_write_token)
        is_seen = can_write_token_read or (bool(settings.influx_verify_token) and _can_read_output(settings))
    except (SourceError, ConfigurationError) as error:
        yield Finding(_UNKNOWN, f"whether a token can read the output bucket: {error}")
        return
    if not is_seen:
        what = "no token can read the output bucket, so windows that another STATE_DIR released would be released again"
        yield Finding(_WEAK, what, "INFLUX_VERIFY_TOKEN to a token that can read it")
    else:
        yield Finding(_READY, "windows that another STATE_DIR released are seen in the output bucket")
    if can_write_token_read and cohort_of(settings) is None and settings.influx_output_token:
        what = "INFLUX_OUTPUT_TOKEN can read the output bucket too"
        yield Finding(
            _WEAK, what, f"it to a token that can only write, and INFLUX_VERIFY_TOKEN to one that can only read; {_NO_SUCH_TOKEN}"
        )


def _can_read_output(settings: Settings) -> bool:
    with open_summaries(with_bucket_name(settings)) as summaries:
        try:
            summaries.newest_labels()
        except SourceDenied:
            return False
        return True

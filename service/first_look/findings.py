"""A first look at a site, the end of `--check --connect`: what is ready, what is weak, and what to set. Reads a little; leaves no trace.

What cannot be seen is said to be unknown; it never counts as ready.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from anonymizer.errors import ConfigurationError, SourceError
from anonymizer.pseudonyms import MAKE_A_KEY
from anonymizer.samples import NO_SOURCE, SampleSource
from anonymizer.weak_keys import why_refused
from anonymizer.windows import HOUR_NS, NANOSECONDS, WindowRange, covering_windows, whole_windows
from service.first_look.questions import (
    can_read_output,
    can_read_raw,
    can_write_with_input_token,
    retention_of_input_s,
    retention_of_output_s,
)
from service.log_event import LogEvent
from service.settings.declared import Settings, cohort_of
from service.settings.load import unencrypted
from service.settings.types import Secret, parse_address
from service.wiring.sources import make_source

_READY = LogEvent("ready", "✅ Ready: %s", "what")
_WEAK = LogEvent("weak", "⚠️ Weak: %s. Set %s", "what remedy", logging.WARNING)
_UNKNOWN = LogEvent("unknown", "❔ Not known: %s", "what")

#: So many windows are read to see how many wearers share one, spread over the span.
_WINDOWS_LOOKED_AT = 12

#: Of files, they are spread over so much time.
_LONGEST_OF_FILES_NS = 31 * 24 * HOUR_NS

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
    found = list(findings(settings))
    for event in (_READY, _UNKNOWN, _WEAK):
        for finding in found:
            if finding.event is event:
                finding.log()


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is found, the most important first."""
    yield from _ids(settings)
    yield from _encryption(settings)
    yield from _answered("how many wearers share a window", lambda: _wearers(settings))
    if not settings.input_file:
        yield from _raw_bucket(settings)
    if settings.output_to_influx:
        yield from _output_bucket(settings)
    yield from _age_of_files(settings)
    yield from _custody(settings)


def _ids(settings: Settings) -> Iterator[Finding]:
    if not settings.pseudonymize_source_id:
        what = "source ids leave as they are, so what is released is identified personal data (PSEUDONYMIZE_SOURCE_ID=false)"
        remedy = f"PSEUDONYMIZE_SOURCE_ID=true and PSEUDONYM_SALT_FILE to a file with a key; make one with: {MAKE_A_KEY}"
        yield Finding(_WEAK, what, remedy)
    elif reason := why_refused(settings.pseudonym_salt.key()):
        what = f"the key of the pseudonyms can be guessed ({reason})"
        yield Finding(_WEAK, what, f"another one and, for one start, ACCEPT_NEW_PSEUDONYM_KEY=true; make it with: {MAKE_A_KEY}")
    else:
        yield Finding(_READY, "source ids are replaced by pseudonyms")


def _encryption(settings: Settings) -> Iterator[Finding]:
    in_clear = [sentence.split(" is not encrypted")[0] for sentence in unencrypted(settings)]
    for address in in_clear:
        yield Finding(_WEAK, f"{address} goes over a network unencrypted", f"{address.partition('=')[0]} to an https address")
    if settings.status_address and not parse_address(settings.status_address).is_loopback:
        in_clear.append(settings.status_address)
        what = f"STATUS_ADDRESS={settings.status_address} answers other machines unencrypted"
        yield Finding(_WEAK, what, "it to an address of loopback, behind a proxy that speaks https")
    if not in_clear:
        yield Finding(_READY, "nothing goes unencrypted to another machine")


def _answered(about: str, ask: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a question finds, or that it is not known, where a server gives no answer."""
    try:
        yield from list(ask())
    except (SourceError, ConfigurationError) as error:
        yield Finding(_UNKNOWN, f"{about}: {error}")


def _wearers(settings: Settings) -> list[Finding]:
    """Return how many wearers share a window, if k counts them."""
    if settings.method == "rhythm":
        return []
    source = make_source(settings)
    try:
        source.open()
        return list(_judged(settings, _wearers_of_windows(settings, source)))
    finally:
        source.close()


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
    """Return the windows of the last hour that a run would release, those of a stream of the hour that has passed.

    Of files it is the last month that they hold.
    """
    length_ns = settings.batch_size_seconds * NANOSECONDS
    if settings.input_file:
        held = covering_windows(*(source.extent() or (0, 0)), length_ns)
        first_ns, last_ns = settings.query_start_time or held.start_ns, settings.query_end_time or held.end_ns
        end_ns = min(last_ns, held.end_ns)
        return whole_windows(max(first_ns, held.start_ns, end_ns - _LONGEST_OF_FILES_NS), end_ns, length_ns)
    now_ns = source.now_ns() or time.time_ns()
    end_ns = now_ns if settings.query_end_time is None else min(now_ns, settings.query_end_time)
    hours = 1 if settings.streaming_mode else settings.default_query_hours
    asked_ns = None if settings.streaming_mode else settings.query_start_time
    start_ns = end_ns - int(hours * HOUR_NS) if asked_ns is None else asked_ns
    return whole_windows(max(start_ns, end_ns - HOUR_NS), end_ns, length_ns)


def _raw_bucket(settings: Settings) -> Iterator[Finding]:
    """Yield for how long raw ECG is kept, and who may read or change it."""
    yield from _kept(settings.influx_input_bucket, "raw ECG", lambda: retention_of_input_s(settings))
    yield from _answered("who may read raw ECG", lambda: _readers(settings))


def _readers(settings: Settings) -> Iterator[Finding]:
    anonymous = dataclasses.replace(settings, influx_username="", influx_token=Secret(""))
    if can_read_raw(anonymous, Secret("")):
        what = "INFLUX_URL answers without credentials: whoever reaches that server reads raw ECG"
        yield Finding(_WEAK, what, "authentication on at the server, and a user or token of it here")
        return
    if settings.output_to_influx:
        yield from _answered("whether INFLUX_OUTPUT_TOKEN can read raw ECG", lambda: _reading_of_writers(settings))
    if not (settings.output_to_influx and _reads_and_writes(settings)):
        yield from _answered("whether INFLUX_TOKEN can write", lambda: _writing_of_readers(settings))


def _reads_and_writes(settings: Settings) -> bool:
    """Return whether the token that reads is the one that writes; a line of its own says so."""
    return _is_one_token(settings) and _is_one_server(settings)


def _is_one_token(settings: Settings) -> bool:
    return settings.influx_output_token.reveal() in ("", settings.influx_token.reveal())


def _is_one_server(settings: Settings) -> bool:
    return settings.influx_output_url in ("", settings.influx_url)


def _reading_of_writers(settings: Settings) -> Iterator[Finding]:
    """Yield whether the token that writes may read raw ECG."""
    remedy = f"INFLUX_OUTPUT_TOKEN to a token that can write {settings.influx_output_bucket} and nothing else; {_NO_SUCH_TOKEN}"
    if _is_one_token(settings):
        yield Finding(_WEAK, "one token, or user, reads raw ECG and writes the output", remedy)
    elif not _is_one_server(settings):
        # It would be shown to a server that it is not for.
        yield Finding(_READY, "the token that writes is another server's")
    elif can_read_raw(settings, settings.influx_output_token):
        yield Finding(_WEAK, "INFLUX_OUTPUT_TOKEN can read raw ECG", remedy)
    else:
        yield Finding(_READY, "INFLUX_OUTPUT_TOKEN cannot read raw ECG")


def _writing_of_readers(settings: Settings) -> Iterator[Finding]:
    """Yield which buckets the token that reads may write."""
    raw, released = settings.influx_input_bucket, settings.influx_output_bucket
    buckets = {raw, *([released] if settings.output_to_influx and _is_one_server(settings) else [])}
    writable = sorted(bucket for bucket in buckets if can_write_with_input_token(settings, bucket))
    name = "INFLUX_USERNAME" if settings.influx_username else "INFLUX_TOKEN"
    if writable:
        remedy = f"it to one that can read {raw} and nothing else; {_NO_SUCH_TOKEN}"
        yield Finding(_WEAK, f"{name} can write {' and '.join(writable)}", remedy)
    else:
        yield Finding(_READY, f"{name} cannot write")


def _kept(bucket: str, what: str, ask: Callable[[], int | None]) -> Iterator[Finding]:
    """Yield for how long a bucket keeps its rows."""

    def found() -> Iterator[Finding]:
        kept_s = ask()
        if kept_s is None:
            yield Finding(
                _UNKNOWN, f"how long bucket {bucket} keeps {what}: the server does not tell it to the tokens that are set"
            )
        elif kept_s:
            yield Finding(_READY, f"bucket {bucket} keeps {what} for {_in_words(kept_s)}")
        else:
            yield Finding(_WEAK, f"bucket {bucket} keeps {what} for ever", "a retention on that bucket, at the server")

    yield from _answered(f"how long bucket {bucket} keeps {what}", found)


def _in_words(seconds: int) -> str:
    days, hours = divmod(seconds // 3600, 24)
    return f"{days} days" if days and not hours else f"{seconds / 3600:g} hours"


def _output_bucket(settings: Settings) -> Iterator[Finding]:
    """Yield for how long released rows are kept, whether releases of another STATE_DIR would be seen, and by which token."""
    bucket = settings.influx_output_bucket
    if not settings.input_file and _is_one_server(settings) and bucket == settings.influx_input_bucket:
        what = f"raw and released rows are in one bucket, {bucket}: who may read the one reads the other"
        yield Finding(_WEAK, what, "INFLUX_OUTPUT_BUCKET to a bucket of its own")
        return
    yield from _kept(bucket, "released rows", lambda: retention_of_output_s(settings))
    yield from _answered("whether a token can read the output bucket", lambda: _seeing(settings))


def _seeing(settings: Settings) -> Iterator[Finding]:
    can_write_token_read = can_read_output(dataclasses.replace(settings, influx_verify_token=Secret("")))
    if can_write_token_read or (settings.influx_verify_token and can_read_output(settings)):
        yield Finding(_READY, "windows that another STATE_DIR released are seen in the output bucket")
    else:
        what = "no token can read the output bucket, so windows that another STATE_DIR released would be released again"
        yield Finding(_WEAK, what, "INFLUX_VERIFY_TOKEN to a token that can read it")
    is_told = not settings.input_file and _reads_and_writes(settings)
    if can_write_token_read and cohort_of(settings) is None and not is_told:
        name = "INFLUX_OUTPUT_TOKEN" if settings.influx_output_token else "INFLUX_TOKEN"
        remedy = "INFLUX_OUTPUT_TOKEN to a token that can only write, and INFLUX_VERIFY_TOKEN to one that can only read"
        yield Finding(_WEAK, f"{name} can read the output bucket, and writes it", f"{remedy}; {_NO_SUCH_TOKEN}")


def _age_of_files(settings: Settings) -> Iterator[Finding]:
    """Yield for how long files of released rows are kept. What buckets keep has lines of its own."""
    kinds = {"CSV": settings.output_to_csv, "Parquet": settings.output_to_parquet}
    files = " and ".join(kind for kind, is_written in kinds.items() if is_written)
    if settings.retention_days is not None:
        removed = f"{files} files, reports and rows set aside" if files else "reports and rows set aside"
        beyond = "; not what InfluxDB or the API took, nor copies of files"
        yield Finding(_READY, f"{removed} are removed {settings.retention_days} days after their release{beyond}")
    elif files:
        yield Finding(
            _WEAK, f"{files} files keep released rows for ever", "RETENTION_DAYS to the days after which they are removed"
        )


def _custody(settings: Settings) -> Iterator[Finding]:
    """Yield what a person who answers for the data would miss later."""
    if settings.audit_log:
        yield Finding(_READY, "starts, changed settings and commands are kept in AUDIT_LOG")
    else:
        what = "nothing records starts, changed settings and operators' commands"
        yield Finding(_WEAK, what, "AUDIT_LOG=/var/log/ecg-anonymizer/audit.jsonl, or another file")
    if settings.streaming_mode and not settings.status_address:
        yield Finding(_WEAK, "nothing can ask a running service whether data flow", "STATUS_ADDRESS=127.0.0.1:9464")

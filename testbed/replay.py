"""Plays the sample ECG into the raw bucket as if wearers were measuring it right now: `python -m testbed.replay`.

Every sample has the time at which it was measured, and is stored within half a second of it while the server keeps up. There are no gaps:
the replay waits for an unreachable server, and then sends everything it missed. Ends at Ctrl+C or SIGTERM.

Where to: INFLUX_URL, INFLUX_ORG, INFLUX_INPUT_BUCKET, INFLUX_MEASUREMENT, INFLUX_FIELD, SOURCE_TAG and INFLUX_CA_FILE, as the service
has them. The token is INFLUX_REPLAY_TOKEN, or else INFLUX_TOKEN: the service's own should not be able to write here; of InfluxDB 1 it is
user:password. What: WEARERS,
HERTZ, SPEED, MINUTES. An argument beats the environment, which beats the file named by --env-file.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import requests
from dotenv import dotenv_values

from testbed.influxdb1_api import Influx1Api
from testbed.influxdb_api import ApiError, InfluxApi
from testbed.line_protocol import SeriesNames
from testbed.sample_ecg import SAMPLE_HERTZ, read_sample_ecg
from testbed.wearers import SECOND_NS, Wearers, lines_between

__all__ = ["Replay", "Wearers", "lines_between", "load", "load_sample_ecg", "main"]

Number = TypeVar("Number", int, float)

#: Samples are collected for this long before they are sent, in nanoseconds.
FLUSH_NS = SECOND_NS // 4

#: Lines per request. Fewer cost the server more; many more gain nothing.
LINES_PER_REQUEST = 50_000

#: Connections of a bulk load. The server takes twice as much from two as from one.
LOAD_CONNECTIONS = 2

#: Wait before a retry, in seconds.
RETRY_S = 1.0

#: How long one answer may take before the request counts as lost, in seconds. Short, because Ctrl+C waits for it.
ANSWER_TIMEOUT_S = 10.0

#: How often a line of status is printed, in seconds.
STATUS_S = 5.0


def load(
    api: BucketWriter,
    bucket: str,
    wearers: Wearers,
    *,
    start_ns: int,
    end_ns: int,
    names: SeriesNames = SeriesNames(),  # noqa: B008  frozen
) -> None:
    """Store what the wearers measured in `[start_ns, end_ns)`, as fast as the server takes it.

    Raises:
        ApiError: The server refused some of it; other parts may be stored.
    """

    def store(span: tuple[int, int]) -> None:
        api.write_lines(bucket, lines_between(wearers, *span, names=names))

    with ThreadPoolExecutor(LOAD_CONNECTIONS) as connections:
        for _ in connections.map(store, _spans(start_ns, end_ns, longest_ns=_longest_span_ns(wearers))):
            pass


def load_sample_ecg(api: InfluxApi, bucket: str, *, names: SeriesNames = SeriesNames()) -> None:  # noqa: B008  frozen
    """Store the six records as they are in the file, at their own times in 2025."""
    for lines in read_sample_ecg().lines(names, per_request=LINES_PER_REQUEST):
        api.write_lines(bucket, lines)


class BucketWriter(Protocol):
    """What is needed of a server here."""

    url: str
    org: str
    token: str

    def write_lines(self, bucket: str, lines: bytes) -> None:
        """Store line protocol whose times are nanoseconds."""


class Replay:
    """Stores what wearers measure, in real time.

    Args:
        wearers: The wearers.
        api: The server, with a token that may write to the bucket.
        bucket: The bucket.
        names: Names of measurement, field and tag.
        stop: Ends the replay when set from another thread.
        start_ns: Time of the first samples to send; by default now.
        clock_ns: Returns the time.
        say: Called with messages for the user.
    """

    def __init__(
        self,
        wearers: Wearers,
        api: BucketWriter,
        bucket: str,
        *,
        names: SeriesNames = SeriesNames(),  # noqa: B008  frozen
        stop: threading.Event,
        start_ns: int | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._wearers = wearers
        self._api = api
        self._bucket = bucket
        self._names = names
        self._stop = stop
        self._clock_ns = clock_ns
        self._say = say
        self.start_ns = clock_ns() if start_ns is None else start_ns
        #: All samples from the start to this time are stored, and no later ones, unless the replay was stopped while the server did not
        #: answer: then it may have stored one span more.
        self.stored_until_ns = self.start_ns
        self.rows = 0
        self.retries = 0

    def run(self, end_ns: int | None = None) -> None:
        """Run until everything before `end_ns` is stored, or until stopped.

        Raises:
            ApiError: The server refuses the data for good: a token, a name or a type is wrong.
        """
        longest_ns = _longest_span_ns(self._wearers)
        enough_ns = min(FLUSH_NS, longest_ns)
        while not self._stop.is_set() and self.stored_until_ns != end_ns:
            until_ns = min(self._clock_ns(), self.stored_until_ns + longest_ns)
            if end_ns is not None:
                until_ns = min(until_ns, end_ns)
            gathered_ns = until_ns - self.stored_until_ns
            # If the clock was set back, this is negative: wait for it, so that no sample is sent twice or left out.
            if gathered_ns < enough_ns and until_ns != end_ns:
                self._stop.wait((enough_ns - gathered_ns) / SECOND_NS)
            else:
                self._store_until(until_ns)

    @property
    def behind_s(self) -> float:
        """Age of the oldest sample that is not stored, in seconds."""
        return max(0, self._clock_ns() - self.stored_until_ns) / SECOND_NS

    def _store_until(self, until_ns: int) -> None:
        lines = lines_between(self._wearers, self.stored_until_ns, until_ns, names=self._names)
        if not lines or self._offer_until_taken(lines):
            self.rows += lines.count(b"\n")
            self.stored_until_ns = until_ns

    def _offer_until_taken(self, lines: bytes) -> bool:
        # The same bytes each time: the server may have stored them without answering, and identical points overwrite themselves.
        retries_before = self.retries
        while not self._is_taken(lines):
            self.retries += 1
            if self._stop.wait(RETRY_S):
                return False
        if self.retries > retries_before:
            self._say(f"It took them at last, after {self.retries - retries_before} retries.")
        return True

    def _is_taken(self, lines: bytes) -> bool:
        try:
            self._api.write_lines(self._bucket, lines)
        except requests.RequestException as error:
            self._say(f"No answer ({type(error).__name__}); the same samples again in {RETRY_S:g} s.")
            return False
        except ApiError as error:
            if error.status < 500 and error.status != requests.codes.too_many_requests:
                raise
            self._say(f"{error}; the same samples again in {RETRY_S:g} s.")
            return False
        return True


@dataclass(frozen=True)
class ReplaySettings:
    """Settings from the command line, the environment and a file."""

    wearers: Wearers
    api: BucketWriter
    bucket: str
    names: SeriesNames
    minutes: float


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> ReplaySettings:
    """Return the settings, or exit with a message about what is wrong with them."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.env_file and not given.env_file.is_file():
        parser.error(f"--env-file {given.env_file} is not a file")
    # Not interpolated: a token may hold a dollar sign.
    of_file = dotenv_values(given.env_file, interpolate=False) if given.env_file else {}
    of_arguments = {"WEARERS": given.wearers, "HERTZ": given.hertz, "SPEED": given.speed, "MINUTES": given.minutes}
    known: dict[str, str] = {}
    for weaker_first in (of_file, environment, of_arguments):
        known.update({name: value for name, value in weaker_first.items() if value})
    try:
        return _settings(known)
    except ValueError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay until the time is up, Ctrl+C or SIGTERM; return the exit code."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    stop = threading.Event()
    _stop_on_signals(stop)
    replay = Replay(settings.wearers, settings.api, settings.bucket, names=settings.names, stop=stop, say=_say)
    end_ns = None if math.isinf(settings.minutes) else replay.start_ns + round(settings.minutes * 60 * SECOND_NS)
    wearers = settings.wearers
    _say(f"{wearers.count:,} wearers, {wearers.rows_per_s:,} rows/s, to bucket {settings.bucket} at {settings.api.url}")
    began_s = time.monotonic()
    threading.Thread(target=_print_status, args=(replay, stop), daemon=True).start()
    try:
        replay.run(end_ns)
    except ApiError as error:
        _say(f"The server will not take it: {error}")
        return 1
    finally:
        stop.set()
        _say_totals(replay, elapsed_s=time.monotonic() - began_s)
    return 0


def _spans(start_ns: int, end_ns: int, *, longest_ns: int) -> Iterator[tuple[int, int]]:
    for first_ns in range(start_ns, end_ns, longest_ns):
        yield first_ns, min(first_ns + longest_ns, end_ns)


def _longest_span_ns(wearers: Wearers) -> int:
    return max(1, LINES_PER_REQUEST * SECOND_NS // wearers.rows_per_s)


def _settings(known: Mapping[str, str]) -> ReplaySettings:
    minutes = _number(known, "MINUTES", float, default=math.inf)
    if not minutes > 0:
        raise ValueError(f"MINUTES must be positive, got {minutes:g}")
    return ReplaySettings(
        wearers=Wearers(
            _number(known, "WEARERS", int, default=12),
            hertz=_number(known, "HERTZ", int, default=SAMPLE_HERTZ),
            speed=_number(known, "SPEED", float, default=1.0),
        ),
        api=_api(known),
        bucket=known.get("INFLUX_INPUT_BUCKET", "raw_data"),
        names=_series_names(known),
        minutes=minutes,
    )


def _api(known: Mapping[str, str]) -> BucketWriter:
    url, ca_file = known.get("INFLUX_URL", "http://localhost:8086"), known.get("INFLUX_CA_FILE")
    token, org = known.get("INFLUX_REPLAY_TOKEN") or known.get("INFLUX_TOKEN"), known.get("INFLUX_ORG", "")
    if token and ":" in token and not org:
        return Influx1Api(url, token=token, ca_file=ca_file, timeout_s=ANSWER_TIMEOUT_S)
    if not token or "INFLUX_ORG" not in known:
        raise ValueError("INFLUX_ORG and INFLUX_REPLAY_TOKEN are needed, in the environment or the file named by --env-file")
    return InfluxApi(url, org=org, token=token, ca_file=ca_file, timeout_s=ANSWER_TIMEOUT_S)


def _number(known: Mapping[str, str], name: str, kind: type[Number], *, default: Number) -> Number:
    text = known.get(name)
    if text is None:
        return default
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number, got {text!r}") from None


def _series_names(known: Mapping[str, str]) -> SeriesNames:
    default = SeriesNames()
    return SeriesNames(
        measurement=known.get("INFLUX_MEASUREMENT", default.measurement),
        field=known.get("INFLUX_FIELD", default.field),
        source_tag=known.get("SOURCE_TAG", default.source_tag),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.replay", description="Play the sample ECG into the raw bucket, live."
    )
    parser.add_argument("--env-file", type=Path, help="where settings are that the environment does not have")
    parser.add_argument("--wearers", help="how many (12)")
    parser.add_argument("--hertz", help=f"samples per second of each ({SAMPLE_HERTZ})")
    parser.add_argument("--speed", help="how many times faster than life to play, and so as many times the rows (1)")
    parser.add_argument("--minutes", help="how long (until Ctrl+C)")
    return parser


def _stop_on_signals(stop: threading.Event) -> None:
    def on_signal(number: int, _frame: object) -> None:
        stop.set()
        # A second signal does not wait for the current request.
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _print_status(replay: Replay, stop: threading.Event) -> None:
    rows_before = 0
    while not stop.wait(STATUS_S):
        rows_per_s = (replay.rows - rows_before) / STATUS_S
        rows_before = replay.rows
        _say(f"{replay.rows:,} rows stored, {rows_per_s:,.0f} rows/s, {replay.behind_s:.1f} s behind, {replay.retries} retries")


def _say_totals(replay: Replay, *, elapsed_s: float) -> None:
    start, end = (datetime.fromtimestamp(t / SECOND_NS, UTC) for t in (replay.start_ns, replay.stored_until_ns))
    _say(
        f"Stored {replay.rows:,} rows measured from {start:%Y-%m-%d %H:%M:%S.%f} to {end:%H:%M:%S.%f} UTC, {replay.retries} retries."
    )
    _say(f"It took {elapsed_s:.1f} s, and {time.process_time() / max(elapsed_s, 1e-9):.0%} of one core.")


def _say(sentence: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S}  {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

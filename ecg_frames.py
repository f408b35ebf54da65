"""Anonymized ECG as pandas frames, for notebooks: `from ecg_frames import anonymize_frame, verify_frame, read_released`.

The only module that imports pandas: the service runs without it (documentation/decisions/005-no-pandas.md). Values come out as the service
releases them for the same rows and settings, because both use the same parsers, the same core and the same second opinion. Nothing is
written or remembered here.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import zoneinfo
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

import anonymizer.batch
from anonymizer.anonymize import ChunkResult, Recipe, anonymize_chunk
from anonymizer.batch import Batch, KUnit, Promise, WindowCounts
from anonymizer.errors import ConfigurationError, PrivacyViolation, SourceError, SourceRefused
from anonymizer.hierarchy import Hierarchy, parse_hierarchy
from anonymizer.pseudonyms import ShortKey, check_key
from anonymizer.public_beat import TEMPLATE_DIGEST
from anonymizer.release_order import ReleaseOrder
from anonymizer.samples import NO_SOURCE, Samples, SampleSource, make_samples, picked
from anonymizer.units import UnitDoubts
from anonymizer.verify import verify
from anonymizer.weak_keys import MAKE_ANOTHER, doubts_about, why_refused
from anonymizer.windows import MOST_WINDOWS, NANOSECONDS, Window, WindowRange, covering_windows
from inputs.cell_parser import within_microvolts
from inputs.file_columns import ValueKind, Values, source_ids, values
from inputs.file_source import is_spoiled, spoiled_seconds
from inputs.file_survey import Cells, Survey
from inputs.file_times import UNIT_NS, TimeKind, Times, calendar_times, counted_times, times
from inputs.released_rows import ANY_TIME, joined, of_data_set, of_path, only_released
from service.log_event import LogEvent
from service.pipeline.chunks import Chunk, alike_ids, formula_ids, plan_chunks, read_completely
from service.pipeline.contradictions import Judgement, advice_for
from service.settings.declared import SHIPPED_HIERARCHY, Settings
from service.settings.load import load
from service.settings.types import Secret, moment
from service.telemetry.data_warnings import (
    CONTRADICTORY,
    IDS_ARE_ALIKE,
    IDS_ARE_FORMULAS,
    ONE_SOURCE_ALONE,
    UNITS_DIFFER,
    VALUES_HARDLY_MOVE,
)
from service.telemetry.log_lines import CODED_LIMIT, MUCH_CLIPPED, MUCH_WITHHELD, SUPPRESSION_LIMIT
from service.wiring.recipe import load_hierarchy, make_recipe

_LOG = logging.getLogger("ecg_anonymizer")

#: Rows that are anonymized together, about; results do not depend on it.
_ROWS_AT_ONCE = 1 << 23

#: A file that does not exist: settings are arguments here, never an `.env`.
_NO_ENV_FILE = Path(__file__).with_name("no.env")

#: Prefix of the service's warning that source ids are released unchanged.
_IDS_ARE_KEPT = "PSEUDONYMIZE_SOURCE_ID=false"

#: Prefixes of warnings that are remarks of the certificate and not logged: said once per run by the service, but a notebook has many runs.
_NOT_LOGGED = (_IDS_ARE_KEPT, ONE_SOURCE_ALONE.text.removeprefix("⚠️ "))

_MICROVOLTS = {"uV": 1.0, "mV": 1000.0}

#: Rows that are asked of a database at once, about.
_ROWS_READ = 1 << 18

#: The database counts rows by the minute when released rows are read back.
_ASKED_NS = 60 * NANOSECONDS

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Rows = npt.NDArray[np.intp]
_Marks = npt.NDArray[np.bool_]
_Moment = str | date | np.datetime64


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What is promised of a released frame, and what was counted.

    Args:
        promise: k, what it counts, the method, digests of settings and key.
        windows: A row per window that held rows, by its start (UTC): what became of its rows (`rows_read = rows_released + rows_withheld +
            rows_invalid + rows_duplicate`), and what the second opinion counted behind the released values (missing where nothing was
            released). Its columns are called as in the service's window summaries.
        rows_without_time: Rows without a readable time. They are invalid and in no window.
        remarks: What the service would have warned of, a sentence each.
    """

    promise: Promise
    windows: pd.DataFrame
    rows_without_time: int
    remarks: tuple[str, ...]

    @property
    def counts(self) -> WindowCounts:
        """What became of all rows of the frame."""
        by_name = {name: int(self.windows[f"rows_{name}"].sum()) for name in WindowCounts.__slots__}
        return WindowCounts(**by_name) + WindowCounts(read=self.rows_without_time, invalid=self.rows_without_time)


class Anonymized(NamedTuple):
    """A released frame and its certificate."""

    frame: pd.DataFrame
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The output bucket of an InfluxDB, for `read_released`; of InfluxDB 1 and 3, the database.

    Args:
        url: The server's address.
        org: Its organization; InfluxDB 1 and 3 have none.
        token: One that may read the bucket; never shown. Of InfluxDB 1 it is `user:password`.
        bucket, measurement, field, source_tag: As the service is set (INFLUX_OUTPUT_BUCKET, INFLUX_MEASUREMENT, INFLUX_FIELD, SOURCE_TAG).
        ca_file: Certificate authority file for https; empty: the system's.
        timeout_s: Seconds until a query is given up.
        query_language: INFLUX_QUERY_LANGUAGE: `auto`, `flux` or `influxql`.
    """

    url: str
    org: str
    token: str = field(repr=False)
    bucket: str = "anonymized-data"
    measurement: str = "ecg"
    field: str = "ecg"
    source_tag: str = "source_id"
    ca_file: str = ""
    timeout_s: float = 30.0
    query_language: Literal["auto", "flux", "influxql"] = "auto"


@dataclass(frozen=True, slots=True)
class _Names:
    """How a frame calls its columns, and how its times are to be read."""

    timestamp: Hashable
    source_id: Hashable
    ecg: Hashable
    zone: tzinfo | None
    epoch: str | None

    @classmethod
    def of(cls, timestamp: Hashable, source_id: Hashable, ecg: Hashable, zone: str | tzinfo | None, epoch: str | None) -> _Names:
        problems = []
        if len({timestamp, source_id, ecg}) < 3:
            problems.append("timestamp, source_id and ecg must name three different columns")
        if epoch is not None and epoch not in UNIT_NS:
            problems.append(f"epoch must be one of {', '.join(UNIT_NS)}, got {epoch!r}")
        try:
            zone = zoneinfo.ZoneInfo(zone) if isinstance(zone, str) else zone
        except (ValueError, OSError, KeyError):
            problems.append(f'zone must be a time zone such as "UTC" or "Europe/Vienna", got {zone!r}')
        if problems:
            raise ConfigurationError(problems)
        return cls(timestamp, source_id, ecg, zone, epoch)  # type: ignore[arg-type]  # no text is left


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The rows of a frame, in its order.

    Args:
        samples: All of them; the time of a row without one is 0.
        has_time: Which rows have a time, shape (n,).
        remarks: What the service would warn of, a sentence each.
    """

    samples: Samples
    has_time: _Marks
    remarks: tuple[str, ...]


# Anonymizing


def anonymize_frame(
    frame: pd.DataFrame,
    *,
    k: int = 5,
    window: str | int | timedelta | np.timedelta64 | None = None,
    k_unit: Literal["record", "source"] = "record",
    method: Literal["hierarchy", "optimal", "rhythm"] = "hierarchy",
    max_level: int = 3,
    residual: Literal["regroup", "impute", "drop"] = "regroup",
    imputation: Literal["mean", "midpoint"] = "mean",
    hierarchy: str | Path | None = None,
    pseudonym_key: str | bytes | None = None,
    accept_weak_key: bool = False,
    value_unit: Literal["uV", "mV"] = "uV",
    withheld: Literal["nan", "drop"] = "nan",
    timestamp: Hashable = "timestamp",
    source_id: Hashable = "source_id",
    ecg: Hashable = "ecg",
    zone: str | tzinfo | None = None,
    epoch: Literal["s", "ms", "us", "ns"] | None = None,
) -> Anonymized:
    """Return the frame with released values, and the certificate beside it.

    It does not know of earlier releases. If a window is anonymized twice, with one more row or other settings, a reader of both results
    can subtract them. The service remembers its releases and refuses that; here, that is up to you.

    The result has the same rows in the same order under the same index, with only the columns for time, source and value. Values are
    microvolts. A row that is not released (withheld, invalid, or a duplicate) has NaN as its value, but keeps its time and source,
    which the service would not release: pass a frame on with `withheld="drop"` only. Of duplicates (same time, source and value) the
    first is released. Warnings are logged and are part of the certificate. The index is not changed: reset one that contains more than
    the time.

    Args:
        frame: One row per sample. The time is a column, a level of the index, or the datetime index itself.
        k: How many rows (or sources) of a window share each released value, at least 2 (K_VALUE).
        window: Length of a window in whole seconds, such as `"5s"` (BATCH_SIZE_SECONDS). Aligned to the UTC epoch; None: the default.
        k_unit: What k counts (K_UNIT).
        method: How groups are formed (METHOD).
        max_level: The widest level a group may be made at, 1 to 7 (MAX_LEVEL).
        residual: What happens to rows that no level could place (RESIDUAL).
        imputation: A group's value (IMPUTATION).
        hierarchy: A hierarchy file of your own (HIERARCHY_CSV_PATH).
        pseudonym_key: Made by chance (PSEUDONYM_SALT), such as `secrets.token_hex(32)`; source ids are replaced by their HMAC-SHA256
            under it. None: kept as they are.
        accept_weak_key: Whether to go on with a key of earlier releases that a person thought up, with a warning.
        value_unit: What the values are in (VALUE_UNIT).
        withheld: `"nan"` keeps unreleased rows without a value, `"drop"` removes them.
        timestamp: The column (or level of the index) with times.
        source_id: The column (or level of the index) with sources.
        ecg: The column with values.
        zone: The zone of times that have none, such as `"UTC"` or `"Europe/Vienna"`; without it they are refused.
        epoch: The unit of numeric times; None: inferred from their size, as the service does, for the years 1990 to 2099.

    Raises:
        ConfigurationError: Arguments that the service would refuse as settings, with its messages.
        SourceRefused: Rows that the service would refuse in a file, with its messages.
        PrivacyViolation: Verification failed; nothing is returned.
    """
    if withheld not in ("nan", "drop"):
        raise ConfigurationError(f"withheld must be nan or drop, got {withheld!r}")
    names = _Names.of(timestamp, source_id, ecg, zone, epoch)
    settings, doubts = _settings(
        {
            "K_VALUE": k,
            "K_UNIT": k_unit,
            **_window_setting(window),
            "METHOD": method,
            "MAX_LEVEL": max_level,
            "RESIDUAL": residual,
            "IMPUTATION": imputation,
            "HIERARCHY_CSV_PATH": hierarchy or "",
            "VALUE_UNIT": value_unit,
        },
        pseudonym_key,
        accept_weak_key=accept_weak_key,
    )
    recipe = make_recipe(settings, _hierarchy_of(settings), "frame")
    read = _read(frame, names, microvolts_per_unit=_MICROVOLTS[settings.value_unit])
    released = _anonymize(read, recipe, settings.batch_size_seconds * NANOSECONDS)
    remarks = (*doubts, *read.remarks, *released.doubts)
    for remark in remarks:
        # The service logs these once per run; a notebook has many.
        if not remark.startswith(_NOT_LOGGED):
            _LOG.warning("⚠️ %s", remark)
    certificate = Certificate(recipe.promise, released.windows, int(np.count_nonzero(~read.has_time)), remarks)
    pseudonyms = recipe.names.released_ids(read.samples.source_ids) if settings.pseudonymize_source_id else None
    kept = slice(None) if withheld == "nan" else np.flatnonzero(~np.isnan(released.values_uv))
    return Anonymized(_released_frame(frame, names, read, released.values_uv, pseudonyms, kept), certificate)


def verify_frame(
    frame: pd.DataFrame,
    *,
    k: int = 5,
    window: str | int | timedelta | np.timedelta64 | None = None,
    k_unit: Literal["record", "source"] = "record",
    imputed: bool = False,
    method: Literal["hierarchy", "optimal", "rhythm"] = "hierarchy",
    timestamp: Hashable = "timestamp",
    source_id: Hashable = "source_id",
    ecg: Hashable = "ecg",
    zone: str | tzinfo | None = None,
    epoch: Literal["s", "ms", "us", "ns"] | None = None,
) -> pd.DataFrame:
    """Return what `verify` counts in each window of a released frame, from this program or another.

    Rows without a value were not released, and are skipped.

    Args:
        frame: Released rows, values in microvolts.
        k: The least number that share each value.
        window: Length of a window.
        k_unit: What k counts.
        imputed: Whether a value that fewer than k share may be the mean of all other rows of its window (RESIDUAL=impute).
        method: How the values were made; for `rhythm`, every row is compared with the public beat and k is ignored.
        timestamp: The column with times; this and what follows as in `anonymize_frame`.
        source_id: The column with sources.
        ecg: The column with values.
        zone: The zone of times that name none.
        epoch: The unit of numeric times.

    Raises:
        ConfigurationError: An argument cannot be used.
        SourceRefused: The frame cannot be read.
        PrivacyViolation: A window breaks the promise; the message names its start, no value and no id.
    """
    names = _Names.of(timestamp, source_id, ecg, zone, epoch)
    settings, _ = _settings(
        {"K_VALUE": k, "K_UNIT": k_unit, "METHOD": method, **_window_setting(window)},
        None,
    )
    read = _read(frame, names, microvolts_per_unit=1.0)
    has_value = np.isfinite(read.samples.values_uv)
    for lacking, what in ((~read.has_time, "time"), (read.samples.source_codes == NO_SOURCE, "source id")):
        if lost := int(np.count_nonzero(has_value & lacking)):
            raise PrivacyViolation(
                f"{lost} rows with a value have no {what}, such as {_place(int(np.argmax(has_value & lacking)))}"
            )
    promise = Promise(settings.k_value, k_unit, "unknown")
    if method == "rhythm":
        promise = Promise(method="rhythm", template_digest=TEMPLATE_DIGEST)
    released = ReleaseOrder.of(read.samples, np.flatnonzero(has_value), read.samples.source_ids)
    length_ns, rows = settings.batch_size_seconds * NANOSECONDS, []
    for chunk, bounds in _chunks(released.samples.times_ns, length_ns):
        for one, first, stop in zip(chunk.windows, bounds[:-1], bounds[1:], strict=True):
            if stop > first:
                batch = _as_batch(picked(released.samples, slice(first, stop)), one, promise, accepts_imputed=imputed)
                rows.append((one.start_ns, batch.counts, verify(batch)))
    return _table(rows)


def read_released(
    where: str | Path | ds.Dataset | Bucket, start: _Moment | None = None, end: _Moment | None = None
) -> pd.DataFrame:
    """Return released rows of a span, in order of time, then id: columns `timestamp` (UTC), `source_id` (a category) and `ecg` (µV).

    Args:
        where: A CSV or Parquet file, a folder of them (that of a Parquet output holds `rows/`), a pattern such as `output/*.csv`, or
            `s3://bucket/prefix` with keys in the usual variables; a pyarrow data set; or a `Bucket` of InfluxDB.
        start: The first time, as ISO 8601, a date or a datetime, in UTC where no zone is given; None: no bound. A bucket needs both.
        end: The end, not included.

    Raises:
        ConfigurationError: There is nothing to read, or the span cannot be used.
        SourceRefused: It is not a release of this project: other columns, rows without time, id or value, or a repeated row.
        SourceUnavailable: The bucket's server does not answer.
    """
    span = _span(start, end)
    if isinstance(where, Bucket):
        samples = _of_bucket(where, span)
    elif isinstance(where, ds.Dataset):
        samples = of_data_set(where, span)
    else:
        samples = of_path(where, span, os.environ)
    inside = np.flatnonzero((samples.times_ns >= span.start_ns) & (samples.times_ns < span.end_ns))
    ordered = ReleaseOrder.of(samples, inside, samples.source_ids).samples
    _refuse_repeated(ordered)
    return _frame_of(ordered)


def advise_frame(
    frame: pd.DataFrame,
    *,
    k: Sequence[int] = (5, 10, 20),
    windows_s: Sequence[int] = (2, 5, 10, 30),
    k_unit: Literal["record", "source"] = "record",
    method: Literal["hierarchy", "optimal"] = "hierarchy",
    value_unit: Literal["uV", "mV"] = "uV",
    timestamp: Hashable = "timestamp",
    source_id: Hashable = "source_id",
    ecg: Hashable = "ecg",
    zone: str | tzinfo | None = None,
    epoch: Literal["s", "ms", "us", "ns"] | None = None,
) -> pd.DataFrame:
    """Return what each combination of k and window costs the signal, one row each, as `scripts/advise.py` does. Confidential like raw data.

    Args:
        frame: Raw rows.
        k: Each k to try.
        windows_s: Each length of a window to try, in seconds.
        k_unit: What k counts; this and what follows as in `anonymize_frame`.
        method: How groups are formed.
        value_unit: What the values are in.
        timestamp: The column with times.
        source_id: The column with sources.
        ecg: The column with values.
        zone: The zone of times that name none.
        epoch: The unit of numeric times.

    Raises:
        ConfigurationError, SourceRefused: As `anonymize_frame` does.
    """
    from utility.advice import try_out  # beats are found with libraries of requirements-utility.txt, if they are there
    from utility.choices import Choice

    names = _Names.of(timestamp, source_id, ecg, zone, epoch)
    choice = Choice("frame", {"K_UNIT": k_unit, "METHOD": method})
    _settings({**choice.settings, "VALUE_UNIT": value_unit}, None)
    read = _read(frame, names, microvolts_per_unit=_MICROVOLTS[value_unit])
    samples = picked(read.samples, np.flatnonzero(read.has_time))
    if not np.isfinite(samples.values_uv).any():
        raise SourceRefused("The frame has no row with a time and a number")
    trials = [try_out(samples, choice, k=one_k, window_s=window_s) for one_k in k for window_s in windows_s]
    return pd.DataFrame([dataclasses.asdict(trial) for trial in trials])


# From arguments to settings


def _window_setting(window: str | int | timedelta | np.timedelta64 | None) -> dict[str, object]:
    """Return BATCH_SIZE_SECONDS, or nothing, so that the method's default applies."""
    return {} if window is None else {"BATCH_SIZE_SECONDS": _seconds(window)}


def _seconds(window: str | int | timedelta | np.timedelta64) -> str:
    """Return a window's length as setting text; anything but whole seconds as given, so that the error quotes it."""
    if isinstance(window, timedelta | np.timedelta64) or (isinstance(window, str) and not window.strip().isdecimal()):
        try:
            length = pd.Timedelta(window)
        except ValueError:
            return str(window)
        if length % pd.Timedelta(1, "s") == pd.Timedelta(0):
            return str(length // pd.Timedelta(1, "s"))
    return str(window)


def _settings(
    given: Mapping[str, object], key: str | bytes | None, *, accept_weak_key: bool = False
) -> tuple[Settings, list[str]]:
    """Return the service's settings for these arguments, and its warnings.

    Raises:
        ConfigurationError: With every problem.
    """
    # The file is never read: the settings only need an input.
    elsewhere = {"INPUT_FILE": str(SHIPPED_HIERARCHY), "OUTPUT_TO_INFLUX": "false"}
    problems = list[str]()
    try:
        configuration = load(
            _NO_ENV_FILE, elsewhere | {name: str(value) for name, value in given.items()}, checks=(_hierarchy_problems,)
        )
    except ConfigurationError as error:
        problems += error.problems
    # Not as a setting, which is parsed like a line of `.env`: every byte of a key counts.
    secret = Secret(key.decode(errors="surrogateescape") if isinstance(key, bytes) else key or "")
    try:
        if key is not None:
            check_key(secret.key())
            if not accept_weak_key and (reason := why_refused(secret.key())):
                problems.append(
                    f"PSEUDONYM_SALT is refused: {reason}; {MAKE_ANOTHER}. accept_weak_key=True goes on with an old one"
                )
    except ShortKey as error:
        problems.append(f"PSEUDONYM_SALT {error}")
    if problems:
        raise ConfigurationError(problems)
    if key is None:
        return configuration.settings, list(configuration.warnings)
    settings = dataclasses.replace(configuration.settings, pseudonymize_source_id=True, pseudonym_salt=secret)
    doubts = [f"PSEUDONYM_SALT {doubt}" for doubt in doubts_about(secret.key())]
    return settings, [*(one for one in configuration.warnings if not one.startswith(_IDS_ARE_KEPT)), *doubts]


def _hierarchy_problems(settings: Settings) -> Sequence[str]:
    try:
        _hierarchy_of(settings)
    except ConfigurationError as error:
        return error.problems
    return ()


def _hierarchy_of(settings: Settings) -> Hierarchy | None:
    """Return the hierarchy, if the method uses one; the shipped one is parsed once, since parsing takes as long as half a million rows."""
    is_shipped = settings.method != "rhythm" and not settings.hierarchy_csv_path
    return _shipped_hierarchy() if is_shipped else load_hierarchy(settings)


@cache
def _shipped_hierarchy() -> Hierarchy:
    return parse_hierarchy(SHIPPED_HIERARCHY.read_text(encoding="utf-8"))


# From a frame to samples


def _read(frame: pd.DataFrame, names: _Names, *, microvolts_per_unit: float) -> _Read:
    """Return the rows of a frame.

    Raises:
        ConfigurationError: Times have no zone, and none was given.
        SourceRefused: It lacks a column, or holds what the service would refuse in a file.
    """
    times_of, ids_of, values_of = _columns(frame, names)
    try:
        found = _times(times_of, names)
        codes, ids = source_ids(_encoded(ids_of))
        measured = within_microvolts(_values(values_of), microvolts_per_unit)
        values_uv = measured.values if microvolts_per_unit == 1.0 else measured.values * microvolts_per_unit
        samples = make_samples(found.times_ns, codes, ids, values_uv)
        has_time, remarks = _survey(Cells(samples, found.kinds, measured.kinds, np.ones(len(samples), np.bool_)))
    except SourceRefused as error:
        raise SourceRefused(_about_frame(names, str(error))) from None
    return _Read(samples, has_time, tuple(_about_frame(names, remark) for remark in remarks))


def _about_frame(names: _Names, sentence: str) -> str:
    """Return a message about a file, worded for the frame."""
    sentence = sentence.replace("INPUT_FILE", "The frame")
    for column in ("timestamp", "source_id", "ecg"):
        sentence = sentence.replace(f"column {column} ", f"column {getattr(names, column)} ")
    return sentence


def _survey(cells: Cells) -> tuple[_Marks, list[str]]:
    """Return which rows have a time, and the warnings; refuse ambiguous cells."""
    is_plain = (
        (cells.time_kinds == TimeKind.CALENDAR).all()
        and (cells.value_kinds == ValueKind.NUMBER).all()
        and (cells.samples.source_codes != NO_SOURCE).all()
    )
    if is_plain:
        return np.ones(len(cells.samples), np.bool_), []
    survey = Survey()
    survey.add(cells, _place)
    conclusion = survey.conclude()
    has_time, remarks = conclusion.has_time(cells.time_kinds), conclusion.remarks()
    if survey.has_leap_seconds:
        lost = is_spoiled(cells, spoiled_seconds(lambda: iter([cells])))
        if rows := int(np.count_nonzero(has_time & lost)):
            remarks.append(survey.leap_second_warning(rows))
        has_time &= ~lost
    return has_time, remarks


def _place(row: int) -> str:
    return f".iloc[{row}]"


def _columns(frame: pd.DataFrame, names: _Names) -> list[pd.Series]:
    """Return times, sources and values. Errors do not name other columns."""
    if not isinstance(frame, pd.DataFrame):
        raise ConfigurationError(f"a pandas DataFrame is needed, got {type(frame).__name__}")
    wanted = (names.timestamp, names.source_id, names.ecg)
    found = [_column(frame, name) for name in wanted]
    if found[0] is None and names.timestamp in (None, "timestamp") and isinstance(frame.index, pd.DatetimeIndex):
        found[0] = frame.index.to_series()
    wrong = [
        f"{name} {'missing' if column is None else 'more than once'}"
        for name, column in zip(wanted, found, strict=True)
        if not isinstance(column, pd.Series)
    ]
    if wrong:
        raise SourceRefused(
            f"The frame needs the columns {', '.join(map(str, wanted))}; {', '.join(wrong)} among its {len(frame.columns)} columns"
        )
    # With a new index: pandas would align rows by one with duplicates.
    return [column.reset_index(drop=True) for column in found if column is not None]


def _column(frame: pd.DataFrame, name: Hashable) -> pd.Series | pd.DataFrame | None:
    if name in frame.columns:
        return frame[name]
    if name is not None and name in frame.index.names:
        return frame.index.get_level_values(name).to_series()
    return None


def _times(column: pd.Series, names: _Names) -> Times:
    is_calendar = pd.api.types.is_datetime64_any_dtype(column.dtype) and not isinstance(column.dtype, pd.ArrowDtype)
    if names.epoch is not None:
        if is_calendar:
            raise ConfigurationError(f'epoch="{names.epoch}" is stated, but column {names.timestamp} holds no numbers')
        return counted_times(_arrow(column), names.epoch)
    if is_calendar:
        return _calendar_times(_localized(column, names) if column.dt.tz is None else column)
    arrow = _arrow(_dates_as_text(column))
    found = times(arrow)
    is_naive = found.kinds == TimeKind.WITHOUT_ZONE
    if _names_no_zone(arrow.type):
        is_naive |= found.kinds == TimeKind.CALENDAR
    rows = np.flatnonzero(is_naive)
    if len(rows):
        local = pd.Series(found.times_ns[rows].view("datetime64[ns]"))
        found.times_ns[rows] = _calendar_times(_localized(local, names, rows)).times_ns
        found.kinds[rows] = TimeKind.CALENDAR
    if names.zone is not None and str(names.zone) != "UTC":
        # Such a text no longer shows whether it had a zone.
        found.kinds[found.kinds == TimeKind.LEAP_SECOND] = TimeKind.UNREADABLE
    return found


def _calendar_times(column: pd.Series) -> Times:
    counts = column.dt.tz_convert(None).to_numpy()
    return calendar_times(counts.view(np.int64), np.isnat(counts), UNIT_NS[column.dt.unit])


def _localized(local: pd.Series, names: _Names, rows: _Rows | None = None) -> pd.Series:
    """Return times in the given zone; `rows` are their positions in the frame."""
    if names.zone is None:
        raise ConfigurationError(
            f'column {names.timestamp} holds times that name no zone: state it, such as zone="UTC" or zone="Europe/Vienna"'
        )
    found = local.dt.tz_localize(names.zone, ambiguous="NaT", nonexistent="NaT")
    lost = np.flatnonzero(found.isna() & local.notna())
    if len(lost):
        raise SourceRefused(
            f"The frame: {len(lost)} times of column {names.timestamp} come twice or never in {names.zone}, where clocks are changed, such "
            f"as {_place(int(lost[0] if rows is None else rows[lost[0]]))}; write them with their zone, or in UTC"
        )
    return found


def _names_no_zone(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)


def _dates_as_text(column: pd.Series) -> pd.Series:
    """Return a column of Python dates as text, which shows whether each has a zone; other columns unchanged."""
    if column.dtype != object or not any(isinstance(cell, date | np.datetime64) for cell in column):
        return column
    return column.map(_date_text)


def _date_text(cell: object) -> object:
    if isinstance(cell, datetime) and cell.tzinfo is not None and not pd.isna(cell):
        return cell.astimezone(UTC).isoformat()
    return cell.isoformat() if isinstance(cell, date) else str(cell) if isinstance(cell, np.datetime64) else cell


def _values(column: pd.Series) -> Values:
    if not (isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf"):
        return values(_arrow(column))
    numbers = column.to_numpy(np.float64)
    is_finite = np.isfinite(numbers)
    if is_finite.all():
        return Values(numbers, np.full(len(numbers), ValueKind.NUMBER, np.int8))
    kinds = np.where(is_finite, ValueKind.NUMBER, ValueKind.MISSING).astype(np.int8)
    return Values(np.where(is_finite, numbers, np.nan), kinds)


def _encoded(column: pd.Series) -> pa.ChunkedArray:
    """Return a column of ids; Python objects by their distinct values, which is faster."""
    if column.dtype != object:
        return _arrow(column)
    codes, different = pd.factorize(column)
    ids = _arrow(pd.Series(different, dtype=object)).combine_chunks()
    if pa.types.is_dictionary(ids.type):
        return _arrow(column)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), ids)])


def _arrow(column: pd.Series) -> pa.ChunkedArray:
    """Return a column as Arrow data; a column of mixed types as text, parsed cell by cell."""
    try:
        found = pa.array(column, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        found = pa.array([_cell_text(cell) for cell in column], pa.string())
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def _cell_text(cell: Any) -> str | None:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a missing number turns the others into floats: 7 becomes 7.0
    text = "" if cell is None or cell is pd.NA or cell is pd.NaT else str(cell)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text or None


# From samples to released values


@dataclass(frozen=True, slots=True, eq=False)
class _Released:
    """The result for a frame.

    Args:
        values_uv: The released value of each row, NaN where none is, shape (n,).
        windows: As in `Certificate`.
        doubts: The warnings.
    """

    values_uv: _Floats
    windows: pd.DataFrame
    doubts: tuple[str, ...]


def _anonymize(read: _Read, recipe: Recipe, length_ns: int) -> _Released:
    """Anonymize all rows that have a time, each window by itself.

    Raises:
        SourceRefused: Most sources contradict themselves.
        PrivacyViolation: A batch breaks its promise.
    """
    chosen = None if read.has_time.all() else np.flatnonzero(read.has_time)
    ordered = ReleaseOrder.of(read.samples, chosen, recipe.names.released_ids(read.samples.source_ids))
    values_uv, windows, judgement, doubts = np.full(len(ordered.samples), np.nan), [], Judgement(), _Doubts(recipe.promise.k_unit)
    doubts.alike = alike_ids(read.samples.source_ids) if recipe.promise.k_unit == "source" else 0
    for chunk, bounds in _chunks(ordered.samples.times_ns, length_ns):
        found = anonymize_chunk(picked(ordered.samples, slice(bounds[0], bounds[-1])), chunk.windows, recipe)
        judgement.add(found.contradictions, int(np.count_nonzero(chunk.counted)))
        doubts.add(found)
        for result, first, stop in zip(found.results, bounds[:-1], bounds[1:], strict=True):
            certificate = None
            if result.batch is not None:
                certificate = verify(result.batch)
                doubts.is_alone |= certificate.distinct_sources == 1
                values_uv[ordered.positions(first, stop, result.batch)] = result.batch.values_uv
            if stop > first:
                windows.append((result.window.start_ns, result.counts, certificate))
    judgement.refuse(doubts)
    in_frame = values_uv
    if not isinstance(ordered.rows, slice):
        in_frame = np.full(len(read.samples), np.nan)
        in_frame[ordered.rows] = values_uv
    return _Released(in_frame, _table(windows), tuple(doubts.sentences()))


class _Doubts:
    """Collects the service's warnings over the whole frame."""

    def __init__(self, k_unit: KUnit | None) -> None:
        self._counts = WindowCounts()
        self._k_unit = k_unit
        #: How many ids differ only in spelling, and whether a window holds released rows of one source alone.
        self.alike, self.is_alone = 0, False
        self._contradictory = self._windows = self._sources = self._coded = self._formulas = 0
        self._units: dict[str, UnitDoubts] = {}

    def add(self, found: ChunkResult) -> None:
        """Add a chunk's counts."""
        self._counts += sum((result.counts for result in found.results), WindowCounts())
        self._coded += sum(result.statistics.coded for result in found.results)
        self._contradictory += int(found.contradictions.rows.sum())
        self._windows += int(np.count_nonzero(found.contradictions.rows))
        self._sources = max(self._sources, int(found.contradictions.contradicting.max(initial=0)))
        for kind in ("still", "apart"):
            if getattr(found.units, kind):
                self._units.setdefault(kind, found.units)
        self._formulas = max(self._formulas, formula_ids([one.batch for one in found.results if one.batch is not None]))

    def hint_on_contradictions(self) -> str:
        """Return nothing: a frame has no further columns to hint at."""
        return ""

    def sentences(self) -> Iterator[str]:
        """Yield the warnings, in the service's words."""
        if self._contradictory:
            rows = self._contradictory
            yield _message_of(CONTRADICTORY, rows, self._windows, self._sources, rows, advice_for(self))
        if still := self._units.get("still"):
            yield _message_of(VALUES_HARDLY_MOVE, still.still, still.sources)
        if apart := self._units.get("apart"):
            yield _message_of(UNITS_DIFFER, apart.apart, apart.sources)
        if self._formulas:
            yield _message_of(IDS_ARE_FORMULAS, self._formulas)
        if self.alike:
            yield _message_of(IDS_ARE_ALIKE, self.alike)
        if self.is_alone and self._k_unit == "record":
            yield _message_of(ONE_SOURCE_ALONE)
        usable = self._counts.released + self._counts.withheld - self._contradictory
        kept_back = self._counts.suppressed + self._counts.withheld - self._contradictory
        if usable and kept_back / usable >= SUPPRESSION_LIMIT:
            yield _message_of(MUCH_WITHHELD, 100 * kept_back / usable)
        if usable and self._coded / usable > CODED_LIMIT:
            yield _message_of(MUCH_CLIPPED, 100 * self._coded / usable)


def _message_of(event: LogEvent, *values: object) -> str:
    """Return the log message of an event."""
    return (event.text % values).removeprefix("⚠️ ")


def _chunks(times_ns: _Ints, length_ns: int) -> Iterator[tuple[Chunk, list[int]]]:
    """Yield chunks of windows that contain rows, with the position where each window's rows begin and the last one's end.

    Args:
        times_ns: In order.
        length_ns: Length of a window.
    """
    at = 0
    while at < len(times_ns):
        part = covering_windows(int(times_ns[at]), int(times_ns[-1]) + 1, length_ns)
        part = part.part(0, min(len(part), MOST_WINDOWS))
        starts_ns = part.start_ns + length_ns * np.arange(len(part))
        stop = int(np.searchsorted(times_ns, min(part.end_ns, ANY_TIME.end_ns)))
        bounds = np.append(np.searchsorted(times_ns, starts_ns), stop)
        for chunk in plan_chunks(part, np.diff(bounds), most_rows=_ROWS_AT_ONCE):
            first = (chunk.windows.start_ns - part.start_ns) // length_ns
            if not chunk.is_empty:
                yield chunk, bounds[first : first + len(chunk.windows) + 1].tolist()
        at = stop


def _table(windows: Iterable[tuple[int, WindowCounts, anonymizer.batch.Certificate | None]]) -> pd.DataFrame:
    """Return one row per window, with the column names of window summaries."""
    rows = list(windows)
    counted = [field.name for field in dataclasses.fields(anonymizer.batch.Certificate)]
    columns = {f"rows_{name}": [getattr(counts, name) for _, counts, _ in rows] for name in WindowCounts.__slots__}
    columns |= {name: [getattr(one, name) if one else None for _, _, one in rows] for name in counted}
    starts = pd.DatetimeIndex(np.array([start_ns for start_ns, _, _ in rows], "datetime64[ns]"), name="window").tz_localize("UTC")
    return pd.DataFrame(columns, index=starts, dtype="Int64")


def _as_batch(samples: Samples, window: Window, promise: Promise, *, accepts_imputed: bool) -> Batch:
    """Return the released rows of a window as a batch, for `verify`."""
    imputed, value_uv = None, None
    different, which, rows = np.unique(samples.values_uv, return_inverse=True, return_counts=True)
    rare = np.flatnonzero(rows < (promise.k or 0))
    if accepts_imputed and len(rare) == 1:
        imputed, value_uv = which == rare[0], float(different[rare[0]])
    suppressed = 0 if imputed is None else int(imputed.sum())
    return Batch(
        batch_id=f"of {pd.Timestamp(window.start_ns, tz='UTC').isoformat()}",
        window=window,
        times_ns=samples.times_ns,
        source_index=samples.source_codes,
        source_ids=samples.source_ids,
        values_uv=samples.values_uv,
        promise=promise,
        counts=WindowCounts(read=len(samples), released=len(samples), suppressed=suppressed),
        imputed_rows=imputed,
        imputed_value_uv=value_uv,
    )


# From released values to a frame


def _released_frame(
    frame: pd.DataFrame, names: _Names, read: _Read, values_uv: _Floats, pseudonyms: Sequence[str] | None, kept: _Rows | slice
) -> pd.DataFrame:
    """Return the kept rows with their released values: an allow-list of columns, with the original index."""
    ids = None if pseudonyms is None else np.array([*pseudonyms, None], dtype=np.object_)[read.samples.source_codes]
    index = _index(frame.index, names, read, ids)[kept]
    columns: dict[Hashable, Any] = {}
    for name in frame.columns:
        if name == names.timestamp:
            columns[name] = _without_texts(frame[name], read.has_time)[kept]
        elif name == names.source_id:
            columns[name] = _ids_column(frame[name], ids)[kept]
        elif name == names.ecg:
            columns[name] = values_uv[kept]
    # As series: pandas would infer another type from objects.
    released = pd.DataFrame(
        {name: pd.Series(column, index=index, dtype=column.dtype) for name, column in columns.items()}, index=index, copy=False
    )
    released.columns.names = frame.columns.names
    return _without_unused(released)


def _without_texts(column: pd.Series, has_time: _Marks) -> Any:
    """Return times, without text that is not a time: it may contain anything."""
    may_be_text = not (isinstance(column.dtype, np.dtype) and column.dtype != object) and column.dtype.kind not in "Miuf"
    return (column.reset_index(drop=True).where(pd.Series(has_time)) if may_be_text and not has_time.all() else column).array


def _ids_column(column: pd.Series, pseudonyms: npt.NDArray[np.object_] | None) -> Any:
    is_category = isinstance(column.dtype, pd.CategoricalDtype)
    if pseudonyms is not None:
        return pd.Categorical(pseudonyms) if is_category else pd.array(pseudonyms, dtype="str")
    if isinstance(column.dtype, pd.ArrowDtype) and pa.types.is_dictionary(column.dtype.pyarrow_dtype):
        # Its dictionary may contain ids without a row here.
        return pd.Categorical(column.astype(object))
    return column.array


def _index(index: pd.Index, names: _Names, read: _Read, pseudonyms: npt.NDArray[np.object_] | None) -> pd.Index:
    """Return the frame's index, with pseudonyms in place of sources.

    Raises:
        SourceRefused: It contains source ids elsewhere, which would identify the pseudonyms.
    """
    if pseudonyms is None:
        return index
    levels = [index.get_level_values(number) for number in range(index.nlevels)]
    replaced = [pd.Index(pseudonyms, name=level.name) if level.name == names.source_id else level for level in levels]
    for level, now in zip(levels, replaced, strict=True):
        if now is level and _holds_ids(level, read.samples):
            raise SourceRefused(
                "The frame: its index holds source ids, which would stand beside their pseudonyms; reset the index"
            )
    if all(now is level for level, now in zip(levels, replaced, strict=True)):
        return index
    return pd.MultiIndex.from_arrays(replaced, names=index.names) if index.nlevels > 1 else replaced[0]


def _holds_ids(level: pd.Index, samples: Samples) -> bool:
    """Return whether a level of the index reveals rows' sources."""
    if isinstance(level, pd.RangeIndex) or level.dtype.kind == "M":
        return False
    if level.dtype.kind not in "iuf":
        return not set(samples.source_ids).isdisjoint(map(str, level.unique()))
    ids = pd.to_numeric(pd.Series([*samples.source_ids, None], dtype=object), errors="coerce").to_numpy(np.float64)
    alike = int(np.count_nonzero(level.to_numpy(np.float64, na_value=np.nan) == ids[samples.source_codes]))
    # Row numbers match each numeric id once, by chance.
    return alike > len(samples.source_ids) or 0 < alike == len(samples)


def _without_unused(released: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without unused categories and levels: they may be ids of others."""
    for name in released.columns:
        column = released[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            # pandas would sort all rows to find the used ones. The last mark is for rows without a source.
            is_used = np.zeros(len(column.cat.categories) + 1, np.bool_)
            is_used[column.array.codes] = True
            if not is_used[:-1].all():
                released[name] = column.cat.remove_unused_categories()
    if isinstance(released.index, pd.CategoricalIndex):
        released.index = released.index.remove_unused_categories()
    elif isinstance(released.index, pd.MultiIndex):
        released.index = released.index.remove_unused_levels()
    return released


# Released rows, read back


def _span(start: _Moment | None, end: _Moment | None) -> Window:
    bounds, problems = [], []
    for name, given, default in (("start", start, ANY_TIME.start_ns), ("end", end, ANY_TIME.end_ns)):
        try:
            bounds.append(default if given is None else _moment_ns(given))
        except (ValueError, TypeError):
            problems.append(f"{name} must be a time such as 2025-11-03T14:30:00Z (UTC when no zone is given), got {given!r}")
    if not problems and bounds[0] >= bounds[1]:
        problems.append("start must be before end")
    if problems:
        raise ConfigurationError(problems)
    return Window(*bounds)


def _moment_ns(given: _Moment) -> int:
    if not isinstance(given, date | np.datetime64):
        return moment(given)
    time = pd.Timestamp(given)
    if time is pd.NaT:
        raise ValueError
    in_ns = (time.tz_localize("UTC") if time.tzinfo is None else time).as_unit("ns")
    return int(in_ns.value)


def _of_bucket(bucket: Bucket, span: Window) -> Samples:
    """Return the rows of an output bucket that lie in the span, as many as the server counts."""
    if ANY_TIME.start_ns == span.start_ns or ANY_TIME.end_ns == span.end_ns:
        raise ConfigurationError("a bucket has no bounds of its own: state start and end")
    from inputs.influx_dialect import InfluxSeries
    from inputs.influx_source import InfluxSource  # the database's client takes half a second to load
    from transport.influx_connection import Address, InfluxConnection

    series = InfluxSeries(
        bucket=bucket.bucket,
        measurement=f"{bucket.measurement}_anonymized",
        field=bucket.field,
        source_tag=bucket.source_tag,
        remedy="check INFLUX_INPUT_BUCKET, or give a token that can read it",
    )
    address = Address(
        url=bucket.url,
        org=bucket.org,
        ca_file=bucket.ca_file,
        timeout_s=bucket.timeout_s,
        language=bucket.query_language,
    )
    source = InfluxSource(InfluxConnection(address, lambda: bucket.token), series)
    try:
        source.open()
        return joined(list(_parts_of_bucket(source, covering_windows(span.start_ns, span.end_ns, _ASKED_NS))))
    except SourceError as error:
        error.args = (_SETTING.sub(lambda found: _FIELD_OF_SETTING[found[0]], str(error)), *error.args[1:])
        raise
    finally:
        source.close()


#: Errors name the service's settings for its raw bucket: here each is a field of `Bucket`.
_FIELD_OF_SETTING = {
    "INFLUX_INPUT_BUCKET": "Bucket.bucket",
    "INFLUX_MEASUREMENT": "Bucket.measurement",
    "INFLUX_FIELD": "Bucket.field",
    "SOURCE_TAG": "Bucket.source_tag",
    "INFLUX_URL": "Bucket.url",
    "INFLUX_ORG": "Bucket.org",
    "INFLUX_TOKEN": "Bucket.token",
    "INFLUX_CA_FILE": "Bucket.ca_file",
    "INFLUX_QUERY_LANGUAGE": "Bucket.query_language",
}

_SETTING = re.compile(rf"\b({'|'.join(_FIELD_OF_SETTING)})\b")


def _parts_of_bucket(source: SampleSource, windows: WindowRange) -> Iterator[Samples]:
    at_ns = windows.start_ns
    while (row_ns := source.next_row_ns(at_ns, windows.end_ns)) is not None:
        part = covering_windows(row_ns, windows.end_ns, windows.length_ns)
        part = part.part(0, min(len(part), MOST_WINDOWS))
        for chunk in plan_chunks(part, source.count(part), most_rows=_ROWS_READ):
            if not chunk.is_empty:
                yield only_released(read_completely(source, chunk), 0, source.name)
        at_ns = part.end_ns


def _refuse_repeated(samples: Samples) -> None:
    again = (samples.times_ns[1:] == samples.times_ns[:-1]) & (samples.source_codes[1:] == samples.source_codes[:-1])
    if again.any():
        first = pd.Timestamp(int(samples.times_ns[1:][again][0]), tz="UTC").isoformat()
        raise SourceRefused(f"{int(again.sum())} rows stand there twice, the first at {first}: is a file there under two names?")


def _frame_of(samples: Samples) -> pd.DataFrame:
    times_of = pd.DatetimeIndex(samples.times_ns.view("datetime64[ns]")).tz_localize("UTC")
    ids = pd.Categorical.from_codes(samples.source_codes, list(samples.source_ids)).remove_unused_categories()
    return pd.DataFrame({"timestamp": times_of, "source_id": ids, "ecg": samples.values_uv})

"""EDF, EDF+ and BDF: the header is checked here, field by field; `edfio` decodes the samples, a few records at a time.

Specifications: https://www.edfplus.info/specs/edf.html, https://www.edfplus.info/specs/edfplus.html, https://www.biosemi.com/faq/file_format.htm
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from anonymizer.windows import NANOSECONDS
from inputs.recordings.channels import chosen
from inputs.recordings.recording import (
    Calibration,
    RecordedFile,
    Recording,
    Run,
    Start,
    Unreadable,
    Wanted,
    microvolts_of,
    number_of,
    period_of,
    read_from,
    utc_ns,
    whole_number_of,
)

#: Approximate bytes of records per read.
_BYTES_READ_TOGETHER = 1 << 24

#: Larger records are refused, because a whole record is held in memory. EDF+ recommends at most 61,440 bytes.
_MOST_RECORD_BYTES = 1 << 28

#: The first bytes of a file, and its bytes per sample.
_VERSIONS = {b"0       ": 2, b"\xffBIOSEMI": 3}

_VERSION_BYTES = 8

_FIXED = (_VERSION_BYTES, 80, 80, 8, 8, 8, 44, 8, 8, 4)
_PER_SIGNAL = {
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "physical_min": 8,
    "physical_max": 8,
    "digital_min": 8,
    "digital_max": 8,
    "filter": 80,
    "samples": 8,
    "reserved": 32,
}
_BLOCK_BYTES = 256

_DATE = re.compile(r"(\d\d)[.:/' -](\d\d)[.:/' -](\d\d)", re.ASCII)
_PLUS_DATE = re.compile(r"Startdate (\d\d-[A-Z]{3}-\d{4})( |$)", re.ASCII)
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]

#: The first annotation of a record is its start, in seconds after the header's start.
_TIME_OF_RECORD = re.compile(rb"([+-]\d{1,18}(?:\.\d{0,18})?)\x14\x14")

#: Placeholder for an unknown date: the format dates from 1992.
_NO_DATE = (1985, 1, 1)


@dataclass(frozen=True, slots=True)
class _Signal:
    label: str
    fields: dict[str, str]
    samples: int

    @property
    def is_annotations(self) -> bool:
        return self.label in ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True, slots=True)
class _Header:
    """The header fields that are used.

    Args:
        raw: The whole header, unchanged.
        sample_bytes: 2 in EDF, 3 in BDF.
        start: Start of the recording, without the offsets of records.
        is_plus: Whether it is EDF+ or BDF+, in which records state their time.
        is_contiguous: Whether the header says that there are no gaps.
        records: Number of records.
        duration_s: Duration of a record.
        signals: All signals, including annotations.
    """

    raw: bytes
    sample_bytes: int
    start: Start
    is_plus: bool
    is_contiguous: bool
    records: int
    duration_s: Fraction
    signals: tuple[_Signal, ...]
    record_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "record_bytes", self.sample_bytes * sum(signal.samples for signal in self.signals))

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the range of each block of records that is read together: first and stop."""
        step = max(1, _BYTES_READ_TOGETHER // self.record_bytes)
        for first in range(0, self.records, step):
            yield first, min(first + step, self.records)

    def read(self, file: BinaryIO, first: int, stop: int) -> bytes:
        """Return the bytes of some records."""
        return read_from(file, len(self.raw) + first * self.record_bytes, (stop - first) * self.record_bytes)


def open_edf(files: Sequence[RecordedFile], wanted: Wanted) -> Recording:
    """Return the wanted channel of an EDF or BDF file."""
    (file,) = files
    _edfio()
    with file.opened() as opened:
        header = _header(opened, file.size)
        ordinary = [signal for signal in header.signals if not signal.is_annotations]
        position = chosen([signal.label for signal in ordinary], wanted.channel)
        signal = ordinary[position]
        if not signal.samples:
            raise Unreadable("has no samples of the chosen channel")
        period_ns = period_of(Fraction(signal.samples) / header.duration_s)
        calibration = _calibration(signal, header.sample_bytes)
        times_s = _times_of_records(header, opened)
    start_ns = wanted.start_of(header.start)
    if header.start.start_ns is None:
        # INPUT_START_TIME is the time of the first sample, whatever offset the first record has.
        times_s = [time_s - times_s[0] for time_s in times_s]
    return Recording(
        runs=tuple(_runs(header, times_s, start_ns, signal.samples)),
        rows=header.records * signal.samples,
        period_ns=period_ns,
        read=lambda first, stop: calibration.microvolts(_digits(file, header, position, signal.samples, first, stop)),
        has_start=header.start.start_ns is not None,
    )


def _edfio() -> Any:
    """Return the library, imported only when needed."""
    import edfio

    return edfio


# Header


def _header(file: BinaryIO, size: int) -> _Header:
    if file.read(_VERSION_BYTES) not in _VERSIONS:
        raise Unreadable("is no EDF or BDF file: it does not begin as one")
    fixed = read_from(file, 0, _BLOCK_BYTES)
    _, _, recording, date, time, header_bytes, kind, records, duration, signals = _split(fixed, _FIXED)
    count = whole_number_of(signals, "the number of signals", least=1)
    if whole_number_of(header_bytes, "the length of the header") != _BLOCK_BYTES * (count + 1):
        raise Unreadable("is damaged: the length of its header does not fit its number of signals")
    rest = read_from(file, _BLOCK_BYTES, _BLOCK_BYTES * count)
    plain = kind.strip(" \0")
    header = _Header(
        raw=fixed + rest,
        sample_bytes=_VERSIONS[fixed[:_VERSION_BYTES]],
        start=Start(_start_ns(date, time, recording if plain[1:4] == "DF+" else "")),
        is_plus=plain[1:4] == "DF+",
        is_contiguous=plain[1:5] != "DF+D",
        records=_records_of(records),
        duration_s=number_of(duration, "the length of a record"),
        signals=tuple(_signals(rest, count)),
    )
    _check_size(header, size)
    return header


def _records_of(text: str) -> int:
    if number_of(text, "the number of records") == -1:
        raise Unreadable("was not closed by the program that recorded it: its header does not say how many records it has")
    return whole_number_of(text, "the number of records", least=1)


def _check_size(header: _Header, size: int) -> None:
    if header.duration_s <= 0:
        raise Unreadable("is damaged: its header says that a record lasts 0 seconds or less")
    if not 0 < header.record_bytes <= _MOST_RECORD_BYTES:
        raise Unreadable(f"is damaged, or has records of no bytes or of more than {_MOST_RECORD_BYTES:,}, which are not read")
    expected = len(header.raw) + header.records * header.record_bytes
    if size != expected:
        is_short = size < expected
        raise Unreadable(
            f"{'is cut off' if is_short else 'is damaged'}: by its header it has {expected:,} bytes, and it has {size:,}. Copy it again"
        )


def _split(raw: bytes, widths: Sequence[int]) -> list[str]:
    texts, begin = [], 0
    for width in widths:
        texts.append(raw[begin : begin + width].decode("latin-1"))
        begin += width
    return texts


def _signals(raw: bytes, count: int) -> Iterator[_Signal]:
    texts = _split(raw, [width for width in _PER_SIGNAL.values() for _ in range(count)])
    for index in range(count):
        fields = {name: texts[position * count + index] for position, name in enumerate(_PER_SIGNAL)}
        yield _Signal(
            fields["label"].strip(" \0"), fields, whole_number_of(fields["samples"], "the number of samples in a record")
        )


def _start_ns(date: str, time: str, recording: str) -> int | None:
    """Return the start in UTC; None if it is missing or contradictory.

    Args:
        date: The header's date field.
        time: The header's time field.
        recording: The recording field of EDF+, which begins with the date; empty for EDF.
    """
    clock = _DATE.fullmatch(time.strip())
    day = _day(date)
    told = _PLUS_DATE.match(recording)
    if recording.startswith("Startdate"):
        plus = (int(told[1][7:]), _MONTHS.index(told[1][3:6]) + 1, int(told[1][:2])) if told and told[1][3:6] in _MONTHS else None
        # Two-digit years cover 1985 to 2084 only.
        if plus is None or (day is not None and day != plus and 1985 <= plus[0] <= 2084):
            return None
        day = plus
    if clock is None or day is None:
        return None
    return utc_ns(day, [int(part) for part in clock.groups()])


def _day(text: str) -> tuple[int, int, int] | None:
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    day, month, year = (int(part) for part in found.groups())
    date = (year + (1900 if year >= 85 else 2000), month, day)
    return None if date == _NO_DATE else date


def _calibration(signal: _Signal, sample_bytes: int) -> Calibration:
    fields = signal.fields
    low, high = (number_of(fields[name], "the digital range of the chosen channel") for name in ("digital_min", "digital_max"))
    physical_low, physical_high = (
        number_of(fields[name], "the physical range of the chosen channel") for name in ("physical_min", "physical_max")
    )
    most = 1 << (8 * sample_bytes - 1)
    if not -most <= low < high < most or low.denominator != 1 or high.denominator != 1:
        raise Unreadable(
            "is damaged: the digital range of the chosen channel is empty, reversed or larger than its samples can be"
        )
    if physical_low == physical_high:
        raise Unreadable("is damaged: the physical range of the chosen channel is empty")
    # A reversed physical range is allowed and means a negative gain.
    # The micro sign may be one byte or, in UTF-8, two.
    microvolts = microvolts_of(fields["unit"].replace("\xc2\xb5", "\xb5"))
    gain = (physical_high - physical_low) / (high - low) * microvolts
    return Calibration(gain, physical_low * microvolts - low * gain)


# Times


def _times_of_records(header: _Header, file: BinaryIO) -> list[Fraction]:
    """Return the start of each record, in seconds after the header's start; for plain EDF only that of the first."""
    place = next((signal for signal in header.signals if signal.is_annotations), None)
    if not header.is_plus or place is None:
        if not header.is_contiguous:
            raise Unreadable("is damaged: its header says that it has gaps, and no annotations tell where")
        return [Fraction(0)]
    begin = header.sample_bytes * sum(signal.samples for signal in header.signals[: header.signals.index(place)])
    times_s: list[Fraction] = []
    for first, stop in header.blocks():
        block = header.read(file, first, stop)
        for record in range(stop - first):
            at = record * header.record_bytes + begin
            times_s.append(_time_of_record(block[at : at + place.samples * header.sample_bytes], first + record))
    return times_s


def _time_of_record(annotations: bytes, record: int) -> Fraction:
    found = _TIME_OF_RECORD.match(annotations)
    if found is None:
        raise Unreadable(f"is damaged: record {record + 1} does not say when it begins, as the records of EDF+ and BDF+ do")
    return Fraction(found[1].decode("ascii"))


def _runs(header: _Header, times_s: list[Fraction], start_ns: int, samples: int) -> Iterator[Run]:
    """Yield runs of records without a gap: each begins within half a sample of its expected time.

    Written times are rounded, so times within a run are computed from its first record.
    """
    tolerance_s = header.duration_s / samples / 2
    begin, begin_s = 0, times_s[0]
    yield Run(0, start_ns + int(begin_s * NANOSECONDS // 1))
    for record, time_s in enumerate(times_s):
        if abs(time_s - begin_s - (record - begin) * header.duration_s) >= tolerance_s:
            if header.is_contiguous:
                raise Unreadable(
                    f"is damaged: its header says that it has no gaps, and record {record + 1} does not begin where the one before ends"
                )
            begin, begin_s = record, time_s
            yield Run(record * samples, start_ns + int(time_s * NANOSECONDS // 1))


# Samples


def _digits(file: RecordedFile, header: _Header, position: int, samples: int, first: int, stop: int) -> npt.NDArray[np.integer]:
    """Return the digital values of the chosen channel for samples `first` … `stop - 1`."""
    begin, end = first // samples, -(-stop // samples)
    step = max(1, _BYTES_READ_TOGETHER // header.record_bytes)
    with file.opened() as opened:
        found = [_decoded(header, header.read(opened, at, min(at + step, end)), position) for at in range(begin, end, step)]
    return np.concatenate(found)[first - begin * samples : stop - begin * samples]


def _decoded(header: _Header, records: bytes, position: int) -> npt.NDArray[np.integer]:
    """Return the digital values of a channel in some records, as `edfio` decodes them."""
    count = len(records) // header.record_bytes
    # Decoded as a file of these records alone, so that no others are in memory.
    raw = header.raw[:236] + b"%-8d" % count + header.raw[244:] + records
    library = _edfio()
    try:
        with warnings.catch_warnings():
            # The library's warnings quote the header.
            warnings.simplefilter("ignore")
            file = library.read_edf(raw) if header.sample_bytes == 2 else library.read_bdf(raw)
            digits: npt.NDArray[np.integer] = file.signals[position].digital
    except Exception as error:  # noqa: BLE001  (every failure to parse a file means that it is damaged)
        raise Unreadable(f"is damaged: it cannot be parsed as EDF ({type(error).__name__})") from None
    return digits

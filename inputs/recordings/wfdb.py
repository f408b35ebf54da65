"""WFDB records: a text header (`.hea`) and files of samples (`.dat`), as PhysioNet distributes them.

Formats: https://physionet.org/physiotools/wag/header-5.htm, https://physionet.org/physiotools/wag/signal-5.htm. Fixed-width formats are
supported; multi-segment records, FLAC and difference formats are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
    utc_ns,
    whole_number_of,
)

#: Longer headers are refused.
_MOST_HEADER_BYTES = 1 << 20

#: Longer frames, which hold one or more samples of each signal, are refused.
_MOST_FRAME_SAMPLES = 1 << 16

#: Samples decoded together when checksums are verified.
_SAMPLES_CHECKED_TOGETHER = 1 << 20

_Digits = npt.NDArray[np.int64]


def _of_212(raw: bytes) -> _Digits:
    """Decode two 12-bit samples from every three bytes."""
    raw += bytes(-len(raw) % 3)
    first, middle, last = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int64).T
    pairs: _Digits = np.stack((first | (middle & 0x0F) << 8, last | (middle & 0xF0) << 4), axis=1).ravel()
    return pairs - ((pairs & 0x800) << 1)


def _of_24(raw: bytes) -> _Digits:
    low, middle, high = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int64).T
    found: _Digits = low | middle << 8 | high << 16
    return found - ((found & 0x800000) << 1)


def _of_type(kind: str, offset: int = 0) -> Callable[[bytes], _Digits]:
    def decode(raw: bytes) -> _Digits:
        digits: _Digits = np.frombuffer(raw, kind).astype(np.int64) - offset
        return digits

    return decode


@dataclass(frozen=True, slots=True)
class _Format:
    """A sample format: bits per sample, the decoder, and the value that marks a missing sample."""

    bits: int
    decode: Callable[[bytes], _Digits]
    invalid: int


_FORMATS = {
    "16": _Format(16, _of_type("<i2"), -(1 << 15)),
    "24": _Format(24, _of_24, -(1 << 23)),
    "32": _Format(32, _of_type("<i4"), -(1 << 31)),
    "61": _Format(16, _of_type(">i2"), -(1 << 15)),
    "80": _Format(8, _of_type("u1", 1 << 7), -(1 << 7)),
    "160": _Format(16, _of_type("<u2", 1 << 15), -(1 << 15)),
    "212": _Format(12, _of_212, -(1 << 11)),
}

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", re.ASCII)
_GAIN = re.compile(r"([^(/]+)(?:\(([^)]*)\))?(?:/(\S+))?", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?", re.ASCII)
_DAY = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Signal:
    """A signal line of the header.

    Args:
        file_name: Its sample file, in the folder of the header.
        kind: Name of the format.
        samples_per_frame: Usually 1.
        skew_frames: Delay of its samples in the file, in frames: those of the record's start are in this frame.
        byte_offset: Offset of the first sample in the file.
        gain, zero, unit: Digital steps per unit, the digital value of 0, and the unit; None if the header does not state it.
        checksum: Sum of all digital values, modulo 2^16; None if the header does not state it.
        label: The description at the end of the line.
    """

    file_name: str
    kind: str
    samples_per_frame: int
    skew_frames: int
    byte_offset: int
    gain: Fraction | None
    zero: int
    unit: str
    checksum: int | None
    label: str

    @property
    def calibration(self) -> Calibration:
        """The conversion of its digital values to microvolts."""
        if not self.gain:
            raise Unreadable(
                "does not say the gain of the chosen channel (it is not calibrated), so its values cannot be converted to µV"
            )
        if self.gain < 0:
            raise Unreadable("is damaged: the gain of the chosen channel is below 0")
        gain_uv = microvolts_of(self.unit) / self.gain
        return Calibration(gain_uv, -self.zero * gain_uv)


@dataclass(frozen=True, slots=True)
class _Header:
    """A header: sampling frequency, number of frames (None: as many as the files hold), start and signals."""

    hertz: Fraction
    frames: int | None
    start: Start
    signals: tuple[_Signal, ...]


def files_of(header_path: Path) -> tuple[Path, ...]:
    """Return a record's files: its header and its sample files, which must be in the same folder."""
    signals = _header(_text(header_path)).signals
    of_samples = [header_path.parent / name for name in dict.fromkeys(signal.file_name for signal in signals)]
    # A link, like a path in the header, could point outside the folder.
    folder = header_path.resolve().parent
    missing = sum(not path.is_file() or path.resolve().parent != folder for path in of_samples)
    if missing:
        raise Unreadable(f"lacks samples: {missing} of the {len(of_samples)} files that its header names do not lie beside it")
    return header_path, *of_samples


def open_wfdb(files: Sequence[RecordedFile], wanted: Wanted) -> Recording:
    """Return the wanted channel of a record; `files` are those of `files_of`."""
    header = _header(_decoded(files[0].read(0, files[0].size)))
    position = chosen([signal.label for signal in header.signals], wanted.channel)
    signal = header.signals[position]
    names = list(dict.fromkeys(one.file_name for one in header.signals))
    if names != [file.name for file in files[1:]]:
        raise Unreadable("was written to while it was read")
    frames = _Frames.of(header, signal.file_name, files[1 + names.index(signal.file_name)])
    calibration, invalid = signal.calibration, _FORMATS[signal.kind].invalid
    frames.check_sums()
    begin = frames.position_of(signal)

    def read(first: int, stop: int) -> npt.NDArray[np.float64]:
        digits = frames.samples_of(begin, signal.samples_per_frame, first, stop)
        return np.where(digits == invalid, np.nan, calibration.microvolts(digits))

    rows, period_ns = frames.count * signal.samples_per_frame, period_of(header.hertz * signal.samples_per_frame)
    return Recording(
        runs=_runs(wanted.start_of(header.start), signal, rows, period_ns),
        rows=rows,
        period_ns=period_ns,
        read=read,
        has_start=header.start.start_ns is not None,
    )


def _runs(start_ns: int, signal: _Signal, rows: int, period_ns: Fraction) -> tuple[Run, ...]:
    """Return the runs: with a skew, the first samples of the file precede the record's start."""
    early = signal.skew_frames * signal.samples_per_frame
    if early >= rows:
        raise Unreadable("is damaged: the chosen channel has a skew as long as the record")
    return (*([Run(0, start_ns + int(-early * period_ns // 1))] if early else []), Run(early, start_ns))


# Header


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return _decoded(file.read(_MOST_HEADER_BYTES + 1))


def _decoded(raw: bytes) -> str:
    if len(raw) > _MOST_HEADER_BYTES or b"\0" in raw:
        raise Unreadable("is no WFDB header: it is no text, or too long for one")
    return raw.decode("latin-1")


def _header(text: str) -> _Header:
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise Unreadable("is no WFDB header: it is empty")
    name, *words = lines[0].split()
    if "/" in name:
        raise Unreadable("is a record of several segments, which is not read: name the header of one segment")
    if not words:
        raise Unreadable("is no WFDB header: its first line does not say how many signals there are")
    count = whole_number_of(words[0], "the number of signals", least=1)
    if count != len(lines) - 1:
        raise Unreadable(f"is damaged: its header has {len(lines) - 1} lines of signals, and says that it has {count}")
    if len(words) < 2:
        raise Unreadable("does not say its sampling frequency")
    signals = tuple(_signal(line) for line in lines[1:])
    frames = whole_number_of(words[2], "the number of samples") if len(words) > 2 else 0
    hertz = number_of(re.split("[/(]", words[1])[0], "the sampling frequency")
    period_of(hertz)
    return _Header(hertz, frames or None, Start(_start_ns(words[3:])), signals)


def _start_ns(words: Sequence[str]) -> int | None:
    """Return the start in UTC; None unless the header has both time of day and date."""
    if len(words) < 2:
        return None
    clock, day = _CLOCK.fullmatch(words[0]), _DAY.fullmatch(words[1])
    if not clock or not day:
        raise Unreadable("is damaged: its header does not say its start as hh:mm:ss dd/mm/yyyy")
    start_ns = utc_ns([int(part) for part in day.groups()[::-1]], [int(part) for part in clock.groups()[:3]])
    if start_ns is None:
        raise Unreadable("is damaged: its header says a start that is no date or time of day")
    return start_ns + int((clock[4] or "").ljust(9, "0"))


def _signal(line: str) -> _Signal:
    words = line.split(None, 8)
    if len(words) < 2:
        raise Unreadable("is damaged: a line of its header does not say the format of its signal")
    if not _FILE_NAME.fullmatch(words[0]):
        raise Unreadable(
            "names a file of samples that does not lie beside it, or by a name with other characters than A-Z a-z 0-9 _ . + -"
        )
    kind = _FORMAT.fullmatch(words[1])
    if kind is None or kind[1] not in _FORMATS:
        raise Unreadable(f"has samples in a format that is not read; read are {', '.join(_FORMATS)}")
    gain, zero, unit = _gain(words[2]) if len(words) > 2 else (None, None, "mV")
    if zero is None:
        zero = whole_number_of(words[4], "the zero of a channel", least=-(1 << 31)) if len(words) > 4 else 0
    return _Signal(
        file_name=words[0],
        kind=kind[1],
        samples_per_frame=whole_number_of(kind[2] or "1", "the number of samples in a frame", least=1),
        skew_frames=int(kind[3] or 0),
        byte_offset=int(kind[4] or 0),
        gain=gain,
        zero=zero,
        unit=unit,
        checksum=whole_number_of(words[6], "a checksum", least=-(1 << 31)) if len(words) > 6 else None,
        label=words[8].strip() if len(words) > 8 else "",
    )


def _gain(text: str) -> tuple[Fraction, int | None, str]:
    """Return digital steps per unit, the digital value of 0 if stated, and the unit, by default millivolts."""
    found = _GAIN.fullmatch(text)
    if found is None:
        raise Unreadable("is damaged: its header has no number where the gain of a channel belongs")
    zero = None if found[2] is None else whole_number_of(found[2], "the baseline of a channel", least=-(1 << 31))
    return number_of(found[1], "the gain of a channel"), zero, found[3] or "mV"


# Samples


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames of one sample file; each holds one or more samples of each of its signals.

    Args:
        file: The file.
        signals: The signals in the file, in their order within a frame.
        byte_offset: Offset of the first frame.
        count: Number of frames.
    """

    file: RecordedFile
    signals: tuple[_Signal, ...]
    byte_offset: int
    count: int

    @classmethod
    def of(cls, header: _Header, file_name: str, file: RecordedFile) -> _Frames:
        """Return the frames of a file after checking its length against the header."""
        signals = tuple(signal for signal in header.signals if signal.file_name == file_name)
        offset = signals[0].byte_offset
        if len({(signal.kind, signal.byte_offset) for signal in signals}) > 1:
            raise Unreadable("is damaged: its header gives samples of one file two formats")
        size = sum(signal.samples_per_frame for signal in signals)
        if size > _MOST_FRAME_SAMPLES:
            raise Unreadable(f"is damaged: its header says that a frame has more than {_MOST_FRAME_SAMPLES:,} samples")
        bits = _FORMATS[signals[0].kind].bits
        held = max(0, file.size - offset)
        count = header.frames if header.frames is not None else held * 8 // bits // size
        expected = -(-count * size * bits // 8)
        # In format 212 the last pair may be padded to three bytes.
        if held not in (expected, -(-expected // 3) * 3 if bits == 12 else expected):
            raise Unreadable(
                f"{'is cut off' if held < expected else 'is damaged'}: by its header its file of samples has "
                f"{offset + expected:,} bytes, and it has {file.size:,}. Copy it again"
            )
        return cls(file, signals, offset, count)

    def position_of(self, wanted: _Signal) -> int:
        """Return the position of a signal's samples in a frame."""
        at = next(index for index, signal in enumerate(self.signals) if signal is wanted)
        return sum(signal.samples_per_frame for signal in self.signals[:at])

    def check_sums(self) -> None:
        """Raise Unreadable unless the checksum of each signal is correct."""
        size = sum(signal.samples_per_frame for signal in self.signals)
        step = max(2, _SAMPLES_CHECKED_TOGETHER // size)
        sums = np.zeros(size, np.int64)
        for first in range(0, self.count, step):
            sums += self._read(first, min(first + step, self.count)).sum(axis=0)
        begin = 0
        for signal in self.signals:
            end = begin + signal.samples_per_frame
            if signal.checksum is not None and (int(sums[begin:end].sum()) - signal.checksum) % (1 << 16):
                raise Unreadable("is damaged: its samples do not add up to the checksum in its header. Copy it again")
            begin = end

    def samples_of(self, begin: int, samples_per_frame: int, first: int, stop: int) -> _Digits:
        """Return the digital values of one signal for samples `first` … `stop - 1`."""
        first_frame, stop_frame = first // samples_per_frame, -(-stop // samples_per_frame)
        found = self._read(first_frame, stop_frame)[:, begin : begin + samples_per_frame].ravel()
        return found[first - first_frame * samples_per_frame : stop - first_frame * samples_per_frame]

    def _read(self, first: int, stop: int) -> _Digits:
        """Return frames `first` … `stop - 1`, one per row."""
        size = sum(signal.samples_per_frame for signal in self.signals)
        kind = _FORMATS[self.signals[0].kind]
        # Two samples of 12 bits share three bytes, so an odd one is read with the one before it.
        odd = first * size % 2 if kind.bits == 12 else 0
        begin, end = (first * size - odd) * kind.bits // 8, -(-stop * size * kind.bits // 8)
        digits = kind.decode(self.file.read(self.byte_offset + begin, end - begin))
        return digits[odd : odd + (stop - first) * size].reshape(-1, size)

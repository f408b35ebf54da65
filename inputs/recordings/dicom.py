"""DICOM waveforms, such as a 12-lead ECG: `pydicom` parses the file and decodes the samples of one multiplex group.

The standard: https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.10.9.html. Patient data is not parsed.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymizer.windows import NANOSECONDS
from inputs.file_format import format_of
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

#: Larger files are refused, because a file is parsed in memory.
_MOST_BYTES = 1 << 29

#: Longer channels are kept in memory; for shorter ones the file is parsed again for each part.
_MOST_SAMPLES_PARSED_AGAIN = 1 << 18

#: Supported transfer syntaxes: little endian, implicit or explicit.
_TRANSFER_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")

#: Explicit, little endian, with everything after group 2 deflated.
_DEFLATED = "1.2.840.10008.1.2.1.99"

#: Elements with these value representations have a four-byte length.
_LONG_FORMS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

_TAGS = ["SpecificCharacterSet", "TimezoneOffsetFromUTC", "AcquisitionDateTime", "WaveformSequence"]

#: A start time needs at least seconds.
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,6}))?([+-]\d{4})?", re.ASCII)
_ZONE = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Channel:
    """A channel of a multiplex group: the positions and the header elements of the group and of the channel."""

    group_index: int
    index: int
    group: Any
    definition: Any

    @property
    def label(self) -> str:
        """Its own label, or the name of its source."""
        own = _text(self.definition, "ChannelLabel")
        return own or _text(_first_of(self.definition, "ChannelSourceSequence"), "CodeMeaning")


def open_dicom(files: Sequence[RecordedFile], wanted: Wanted) -> Recording:
    """Return the wanted channel of a DICOM file."""
    (file,) = files
    data_set = _parsed(file)
    channels = list(_channels(data_set))
    channel = channels[chosen([one.label for one in channels], wanted.channel)]
    rows = _count(channel.group, "NumberOfWaveformSamples", "the number of samples")
    calibration = _calibration(channel.definition)
    period_ns = period_of(_number(channel.group, "SamplingFrequency", "the sampling frequency"))
    padding = _padding(channel.group)
    start = _start(data_set)
    late_ns = 0 if start.start_ns is None else _late_ns(channel, period_ns)
    kept = _digits(data_set, channel) if rows > _MOST_SAMPLES_PARSED_AGAIN else None
    if kept is None:
        # Files that cannot be decoded are refused before anything is released.
        _digits(data_set, channel)

    def read(first: int, stop: int) -> npt.NDArray[np.float64]:
        digits = (_digits(_parsed(file), channel) if kept is None else kept)[first:stop]
        values_uv = calibration.microvolts(digits)
        return values_uv if padding is None else np.where(digits == padding, np.nan, values_uv)

    return Recording(
        runs=(Run(0, wanted.start_of(start) + late_ns),),
        rows=rows,
        period_ns=period_ns,
        read=read,
        has_start=start.start_ns is not None,
        has_zone=start.has_zone,
    )


def _pydicom() -> Any:
    """Return the library, imported only when needed. Its log is turned off, because it quotes the file."""
    import pydicom
    import pydicom.waveforms

    logger = logging.getLogger("pydicom")
    logger.setLevel(logging.CRITICAL + 1)
    return pydicom


def _parsed(file: RecordedFile) -> Any:
    library = _pydicom()
    if file.size > _MOST_BYTES:
        raise Unreadable(f"is larger than {_MOST_BYTES:,} bytes, which of DICOM are parsed in memory; write it as EDF")
    content = file.read(0, file.size)
    if format_of(content) != "DICOM":
        raise Unreadable("is no DICOM file: it does not begin as one")
    content = _inflated(content)
    with _translated():
        data_set = library.dcmread(io.BytesIO(content), specific_tags=_TAGS)
        for _ in data_set.iterall():
            # Parses every element now, so that errors are reported as errors of the file.
            pass
        return data_set


def _inflated(content: bytes) -> bytes:
    """Return the file in one of `_TRANSFER_SYNTAXES`, inflated if necessary; refuse any other syntax before the library reads it."""
    syntax, at, end = _transfer_syntax(content)
    if syntax in _TRANSFER_SYNTAXES:
        return content
    if syntax != _DEFLATED:
        raise Unreadable("has a transfer syntax that is not read; read are implicit and explicit VR, little endian")
    # The library would inflate without a size limit.
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(content[end:], _MOST_BYTES)
    except zlib.error:
        raise Unreadable("is damaged: it cannot be unpacked (deflate). Copy it again") from None
    if unpacker.unconsumed_tail:
        raise Unreadable(f"unpacks to more than {_MOST_BYTES:,} bytes, which of DICOM are parsed in memory; write it as EDF")
    # A file padded to an even length may have an extra byte at its end.
    if not unpacker.eof or unpacker.unused_data.strip(b"\0"):
        raise Unreadable("is cut off or damaged: it cannot be unpacked whole (deflate). Copy it again")
    plain = _TRANSFER_SYNTAXES[1].encode().ljust(len(_DEFLATED), b"\0")
    return content[:at] + plain + content[at + len(plain) : end] + unpacked


def _transfer_syntax(content: bytes) -> tuple[str, int, int]:
    """Return element (0002,0010), the offset of its text, and the end of group 2, which comes first, explicit and never deflated."""
    at, found, begun = 132, "", 0
    while content[at : at + 2] == b"\x02\x00":
        is_long = content[at + 4 : at + 6] in _LONG_FORMS
        length = int.from_bytes(content[at + 8 : at + 12] if is_long else content[at + 6 : at + 8], "little")
        begin = at + (12 if is_long else 8)
        if content[at + 2 : at + 4] == b"\x10\x00":
            found, begun = content[begin : begin + length].decode("latin-1").strip(" \0"), begin
        at = begin + length
    return found, begun, at


@contextmanager
def _translated() -> Iterator[None]:
    """Turn any exception of the library on a damaged file into a message without file content, and suppress its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001  (every failure to parse a file means that it is damaged)
        raise Unreadable(f"is cut off or damaged: it cannot be parsed as DICOM ({type(error).__name__}). Copy it again") from None


def _channels(data_set: Any) -> Iterator[_Channel]:
    groups = list(enumerate(_items(data_set, "WaveformSequence")))
    if not groups:
        raise Unreadable("is a DICOM file without waveforms")
    recorded = [(index, group) for index, group in groups if _text(group, "WaveformOriginality") != "DERIVED"]
    if not recorded:
        raise Unreadable("holds derived waveforms only, such as a median beat, and no recording")
    for group_index, group in recorded:
        definitions = _items(group, "ChannelDefinitionSequence")
        if len(definitions) != _count(group, "NumberOfWaveformChannels", "the number of channels"):
            raise Unreadable("is damaged: it does not define as many channels as it says that it has")
        for index, definition in enumerate(definitions):
            yield _Channel(group_index, index, group, definition)


def _calibration(definition: Any) -> Calibration:
    if definition.get("ChannelSensitivity") is None:
        raise Unreadable("does not say the sensitivity of the chosen channel, so its values cannot be converted to microvolts")
    unit = microvolts_of(_text(_first_of(definition, "ChannelSensitivityUnitsSequence"), "CodeValue"))
    sensitivity = _number(definition, "ChannelSensitivity", "the sensitivity of the chosen channel")
    correction = _number(definition, "ChannelSensitivityCorrectionFactor", "the correction of the sensitivity", default="1")
    if sensitivity <= 0 or correction <= 0:
        raise Unreadable("is damaged: the sensitivity of the chosen channel is not above 0")
    baseline = _number(definition, "ChannelBaseline", "the baseline of the chosen channel", default="0")
    return Calibration(sensitivity * correction * unit, baseline * unit)


def _padding(group: Any) -> int | None:
    """Return the padding value, which marks missing samples; None if there is none."""
    padding = group.get("WaveformPaddingValue")
    if padding is None:
        return None
    kind = _kind(group)
    raw = bytes(padding) if isinstance(padding, bytes) else b""
    if len(raw) < kind.itemsize:
        raise Unreadable("is damaged: the value that stands where it has no sample is not one of its samples' type")
    return int(np.frombuffer(raw[: kind.itemsize], kind)[0])


def _kind(group: Any) -> np.dtype[Any]:
    key = (_count(group, "WaveformBitsAllocated", "the number of bits in a sample"), _text(group, "WaveformSampleInterpretation"))
    kinds = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "<i2", (16, "US"): "<u2", (32, "SL"): "<i4", (32, "UL"): "<u4"}
    if key not in kinds:
        raise Unreadable("has samples of a type that is not read; read are whole numbers of 8, 16 and 32 bits")
    return np.dtype(kinds[key])


def _digits(data_set: Any, channel: _Channel) -> npt.NDArray[np.integer]:
    """Return all digital values of the channel, as `pydicom` decodes them."""
    group = channel.group
    rows, channels = (
        _count(group, name, "the number of samples or channels")
        for name in ("NumberOfWaveformSamples", "NumberOfWaveformChannels")
    )
    expected = rows * channels * _kind(group).itemsize
    held = group.get("WaveformData")
    # Data is padded to an even length.
    if not isinstance(held, bytes) or len(held) not in (expected, expected + expected % 2):
        raise Unreadable("is cut off or damaged: it does not hold as many samples as it says. Copy it again")
    with _translated():
        array = _pydicom().waveforms.multiplex_array(data_set, channel.group_index, as_raw=True)
        digits: npt.NDArray[np.integer] = array[:, channel.index].copy()
        return digits


# Times


def _start(data_set: Any) -> Start:
    """Return the start of the acquisition; unknown if its time has no seconds."""
    found = _MOMENT.fullmatch(_text(data_set, "AcquisitionDateTime"))
    if found is None:
        return Start()
    zone = _ZONE.fullmatch(found[8] or _text(data_set, "TimezoneOffsetFromUTC"))
    numbers = [int(part) for part in found.groups()[:6]]
    start_ns = utc_ns(numbers[:3], numbers[3:])
    if start_ns is None:
        return Start()
    if zone:
        ahead_ns = (int(zone[2]) * 60 + int(zone[3])) * 60 * NANOSECONDS
        start_ns += -ahead_ns if zone[1] == "+" else ahead_ns
    return Start(start_ns + int((found[7] or "").ljust(9, "0")), has_zone=bool(zone))


def _late_ns(channel: _Channel, period_ns: Fraction) -> int:
    """Return how long after the start the first sample was taken."""
    group_ms = _number(channel.group, "MultiplexGroupTimeOffset", "the time offset of a group", default="0")
    skew_s = _number(channel.definition, "ChannelTimeSkew", "the skew of the chosen channel", default="0")
    skew_samples = _number(channel.definition, "ChannelSampleSkew", "the skew of the chosen channel", default="0")
    return int((group_ms * 1_000_000 + skew_s * NANOSECONDS + skew_samples * period_ns) // 1)


# Elements


def _items(data_set: Any, name: str) -> list[Any]:
    found = data_set.get(name)
    return list(found) if found and not isinstance(found, str | bytes) else []


def _first_of(data_set: Any, name: str) -> Any:
    items = _items(data_set, name)
    return items[0] if items else {}


def _text(data_set: Any, name: str) -> str:
    found = data_set.get(name)
    return "" if found is None else str(found).strip()


def _number(data_set: Any, name: str, what: str, *, default: str | None = None) -> Fraction:
    text = _text(data_set, name)
    return number_of(default if default is not None and not text else text, what)


def _count(data_set: Any, name: str, what: str) -> int:
    return whole_number_of(_text(data_set, name), what, least=1)

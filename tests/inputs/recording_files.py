"""Writes files of the field, byte by byte as their specifications say, with names of patients wherever a header can hold one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

Digits = npt.NDArray[np.integer]

#: What stands in headers, and must stand nowhere else.
SECRETS = ("Zaphodea", "Quintessa", "19710123", "23-JAN-1971", "MRN-5551234", "Borborygm", "71x23")


@dataclass(frozen=True)
class EdfSignal:
    digits: Digits
    per_record: int
    label: str = "ECG I"
    unit: str = "uV"
    physical: tuple[str, str] = ("-3276.8", "3276.7")
    digital: tuple[str, str] = ("-32768", "32767")


@dataclass(frozen=True)
class Edf:
    """An EDF file; each field is what stands in the header."""

    signals: Sequence[EdfSignal]
    times_s: Sequence[str] | None = None  # of records; they make it EDF+
    kind: str | None = None
    date: str = "03.11.25"
    time: str = "14.30.00"
    patient: str = "MRN-5551234 F 23-JAN-1971 Zaphodea_Quintessa"
    recording: str = "Startdate 03-NOV-2025 MRN-5551234 Borborygm X"
    duration: str = "1"
    records: str | None = None
    bdf: bool = False
    changes: Mapping[int, bytes] = field(default_factory=dict)

    def data(self) -> bytes:
        signals = list(self.signals)
        count = len(signals[0].digits) // signals[0].per_record if signals else 0
        size = 3 if self.bdf else 2
        name = "BDF" if self.bdf else "EDF"
        annotations = [b"" for _ in range(count)]
        if self.times_s is not None:
            width = 30 * size
            annotations = [
                f"{text}\x14\x14\0{text}\x14Zaphodea fainted\x14\0".encode()[: width - 1].ljust(width, b"\0")
                for text in self.times_s
            ]
        fields = [
            (s.label, "Quintessa's electrode", s.unit, *s.physical, *s.digital, "HP:Borborygm", str(s.per_record), "")
            for s in signals
        ]
        if self.times_s is not None:
            most = 1 << (8 * size - 1)
            fields.append((f"{name} Annotations", "", "", "-1", "1", str(-most), str(most - 1), "", "30", ""))
        widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
        kind = self.kind if self.kind is not None else (f"{name}+C" if self.times_s is not None else "")
        head = b"\xffBIOSEMI" if self.bdf else b"0".ljust(8)
        head += b"".join(
            text.encode("latin-1").ljust(width)[:width]
            for text, width in (
                (self.patient, 80),
                (self.recording, 80),
                (self.date, 8),
                (self.time, 8),
                (str(256 * (len(fields) + 1)), 8),
                (kind, 44),
                (str(count) if self.records is None else self.records, 8),
                (self.duration, 8),
                (str(len(fields)), 4),
            )
        )
        for position, width in enumerate(widths):
            head += b"".join(one[position].encode("latin-1").ljust(width)[:width] for one in fields)
        body = io.BytesIO()
        for record in range(count):
            for signal in signals:
                part = signal.digits[record * signal.per_record : (record + 1) * signal.per_record]
                body.write(b"".join(int(digit).to_bytes(size, "little", signed=True) for digit in part))
            body.write(annotations[record])
        raw = bytearray(head + body.getvalue())
        for at, text in self.changes.items():
            raw[at : at + len(text)] = text
        return bytes(raw)

    def microvolts(self, position: int = 0) -> npt.NDArray[np.float64]:
        """Return what the specification says the values of a signal in µV are."""
        signal = self.signals[position]
        low, high = (Fraction(text) for text in signal.digital)
        bottom, top = (Fraction(text) for text in signal.physical)
        factor: Fraction = {"uV": Fraction(1), "mV": Fraction(1000), "V": Fraction(10**6), "nV": Fraction(1, 1000)}[signal.unit]
        return np.array([float((bottom + (int(d) - low) * (top - bottom) / (high - low)) * factor) for d in signal.digits])


def edf(**changes: Any) -> Edf:
    """Return three seconds of two channels at 100 Hz, and one at 10 Hz."""
    digits = wave(300)
    return replace(
        Edf(
            (
                EdfSignal(digits, 100),
                EdfSignal(-digits, 100, label="ECG II", unit="mV", physical=("-5", "5"), digital=("-2048", "2047")),
                EdfSignal(digits[:30], 10, label="SpO2", unit="%", physical=("0", "100"), digital=("0", "100")),
            )
        ),
        **changes,
    )


def wave(rows: int) -> Digits:
    """Return something like an ECG in whole numbers within ±1000."""
    n = np.arange(rows)
    digits: Digits = (300 * np.sin(n / 9) + 600 * (n % 83 == 0)).astype(np.int64)
    return digits


def wfdb_digits(kind: str, digits: Iterable[int]) -> bytes:
    """Return digits in a format, one after the other as the specification describes it."""
    numbers = [int(digit) for digit in digits]
    if kind == "212":
        raw = bytearray()
        for first, second in zip(numbers[::2], [*numbers[1::2], *([0] * (len(numbers) % 2))], strict=True):
            raw += bytes((first & 0xFF, (first >> 8) & 0x0F | (second >> 4) & 0xF0, second & 0xFF))
        return bytes(raw[: len(raw) - len(numbers) % 2])
    size, order, offset, signed = {
        "16": (2, "little", 0, True),
        "24": (3, "little", 0, True),
        "32": (4, "little", 0, True),
        "61": (2, "big", 0, True),
        "80": (1, "little", 128, False),
        "160": (2, "little", 32768, False),
    }[kind]
    return b"".join((number + offset).to_bytes(size, order, signed=signed) for number in numbers)  # type: ignore[arg-type]


def checksum(digits: Iterable[int]) -> int:
    total = sum(int(digit) for digit in digits) % (1 << 16)
    return total - (1 << 16) if total >= 1 << 15 else total


def write_wfdb(folder: Path, kind: str = "212", *, header: str | None = None, start: str = "", name: str = "rec") -> Path:
    """Write a record of two channels at 128 Hz, and return its header's path.

    Args:
        folder: Where.
        kind: The format.
        header: Instead of a good one; may use {first} and {second} for good lines of signals.
        start: Behind the number of samples.
        name: Of the record.
    """
    digits = wave(501) // (8 if kind == "80" else 1)
    both = np.stack((digits, -digits // 2), axis=1)
    lines = [
        f"{name}.dat {kind} 200({zero})/mV 12 {zero} {column[0]} {checksum(column)} 0 {label}"
        for zero, column, label in ((0, both[:, 0], "MLII"), (10, both[:, 1], "V5"))
    ]
    text = header if header is not None else "{name} 2 128 501{start}\n{first}\n{second}\n"
    path = folder / f"{name}.hea"
    filled = text.format(name=name, first=lines[0], second=lines[1], start=start and f" {start}")
    path.write_bytes((filled + "# 69 F 19710123 Zaphodea Quintessa\n# MRN-5551234 Borborygm\n").encode("latin-1"))
    (folder / f"{name}.dat").write_bytes(wfdb_digits(kind, both.ravel()))
    return path


def real_dicom() -> Path:
    """Return the 12-lead ECG that comes with pydicom."""
    return Path(str(get_testdata_file("waveform_ecg.dcm")))


def dicom(*groups: Dataset, moment: str = "20251103143000.25", **more: Any) -> Dataset:
    """Return a file of waveforms, to be changed and saved."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.9.1.1")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    data_set = Dataset()
    data_set.file_meta = meta
    data_set.PatientName = "Quintessa^Zaphodea"
    data_set.PatientBirthDate = "19710123"
    data_set.PatientID = "MRN-5551234"
    data_set.StudyDescription = "Borborygm"
    if moment:
        data_set.AcquisitionDateTime = moment
    for name, value in more.items():
        setattr(data_set, name, value)
    data_set.WaveformSequence = list(groups or (dicom_group(),))
    return data_set


def dicom_group(
    labels: Sequence[str] = ("Lead I", "Lead II"), hertz: str = "500", *, digits: Digits | None = None, **more: Any
) -> Dataset:
    """Return a multiplex group of 16-bit samples."""
    columns = digits if digits is not None else np.stack([wave(700) + 7 * column for column in range(len(labels))], axis=1)
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels = len(labels)
    group.NumberOfWaveformSamples = len(columns)
    group.SamplingFrequency = hertz
    group.MultiplexGroupLabel = "Borborygm"
    group.MultiplexGroupTimeOffset = "0"
    group.ChannelDefinitionSequence = [_channel(label) for label in labels]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = columns.astype("<i2").tobytes()
    for name, value in more.items():
        if value is None:
            delattr(group, name)
        else:
            setattr(group, name, value)
    return group


def _channel(label: str) -> Dataset:
    source, unit, channel = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "5.6.3-9-1", "SCPECG", label
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = "2.5"
    channel.ChannelSensitivityUnitsSequence = [unit]
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = "0"
    channel.WaveformBitsStored = 16
    return channel


def save_dicom(data_set: Dataset, path: Path) -> Path:
    """Write it, also where it breaks the standard."""
    pydicom.dcmwrite(path, data_set, enforce_file_format=True)
    return path


def by_wfdb(record: str, **options: Any) -> Any:
    """Return a record as the `wfdb` package reads it, which warns of how it uses pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb

        return wfdb.rdrecord(record, **options)


def write_by_wfdb(record: str, **options: Any) -> None:
    """Write a record with the `wfdb` package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb

        wfdb.wrsamp(record, **options)

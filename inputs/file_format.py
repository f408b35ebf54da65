"""Detects binary formats by their first bytes: a DICOM file usually has no suffix, and a suffix may be wrong."""

from __future__ import annotations

from pathlib import Path

#: DICOM begins with 128 arbitrary bytes.
_DICOM_PREAMBLE_BYTES = 128

_BEGINNING_BYTES = _DICOM_PREAMBLE_BYTES + 4

#: Usual suffix of each format.
SUFFIXES = {"EDF": ".edf", "BDF": ".bdf", "DICOM": ".dcm", "Parquet": ".parquet"}


def format_of(beginning: bytes) -> str:
    """Return the format, a key of SUFFIXES, of a file with these first bytes; empty if none matches."""
    if beginning[_DICOM_PREAMBLE_BYTES:_BEGINNING_BYTES] == b"DICM":
        return "DICOM"
    for name, mark in (("EDF", b"0       "), ("BDF", b"\xffBIOSEMI"), ("Parquet", b"PAR1")):
        if beginning.startswith(mark):
            return name
    return ""


def format_of_file(path: Path) -> str:
    """Return `format_of` for a file; empty if it cannot be read, which is reported when it is opened."""
    try:
        with path.open("rb") as file:
            return format_of(file.read(_BEGINNING_BYTES))
    except OSError:
        return ""

"""Formats of binary files, told by their first bytes: a DICOM file usually has no suffix, and a name may be wrong."""

from __future__ import annotations

from pathlib import Path

#: DICOM begins with 128 bytes of anything.
_DICOM_PREAMBLE_BYTES = 128

_BEGINNING_BYTES = _DICOM_PREAMBLE_BYTES + 4

#: How the name of a file of each format usually ends.
SUFFIXES = {"EDF": ".edf", "BDF": ".bdf", "DICOM": ".dcm", "Parquet": ".parquet"}


def format_of(beginning: bytes) -> str:
    """Return which of the formats in SUFFIXES a file has that begins so; empty: none of them."""
    if beginning[_DICOM_PREAMBLE_BYTES:_BEGINNING_BYTES] == b"DICM":
        return "DICOM"
    for name, mark in (("EDF", b"0       "), ("BDF", b"\xffBIOSEMI"), ("Parquet", b"PAR1")):
        if beginning.startswith(mark):
            return name
    return ""


def format_of_file(path: Path) -> str:
    """Return the same of a file; empty where it cannot be read, which is said where it is opened."""
    try:
        with path.open("rb") as file:
            return format_of(file.read(_BEGINNING_BYTES))
    except OSError:
        return ""

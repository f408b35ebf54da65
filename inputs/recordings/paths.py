"""Finds the recordings that a path, folder or glob names, without loading what reads them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from inputs.file_format import SUFFIXES, format_of_file

Kind = Literal["EDF", "WFDB", "DICOM"]

#: The kind of recording by suffix: the file's own, or the usual one of its format.
_KINDS: dict[str, Kind] = {".edf": "EDF", ".bdf": "EDF", ".hea": "WFDB", ".dcm": "DICOM", ".dicom": "DICOM"}

#: Suffixes of table files, which cannot be mixed with recordings.
TABLES = (".csv", ".gz", ".parquet", ".pq")

#: The index of a DICOM folder: itself DICOM, without samples.
_DICOM_DIRECTORY = "DICOMDIR"


def recordings_at(given: str) -> tuple[Path, ...]:
    """Return the recordings that a path, folder or glob names, in name order; empty if it names something else.

    A WFDB record may be named by its header or by its file of samples, if the header is in the same folder.
    """
    found = files_of_folder(given)
    headers = (one.with_suffix(".hea") if one.suffix.lower() == ".dat" else one for one in found)
    return tuple(dict.fromkeys(one for one in headers if one.is_file() and kind_of(one)))


def kind_of(path: Path) -> Kind | None:
    """Return the kind of a recording, by suffix or else by first bytes; None for any other file."""
    suffix = path.suffix.lower()
    if suffix in TABLES or path.name == _DICOM_DIRECTORY:
        return None
    return _KINDS.get(suffix) or _KINDS.get(SUFFIXES.get(format_of_file(path), ""))


def files_of_folder(given: str) -> Sequence[Path]:
    """Return all files that a path, folder or glob names, in name order, without hidden ones.

    Empty if it cannot be read: the check of the path reports that.
    """
    try:
        return _reached_files(given)
    except OSError:
        return []


def _reached_files(given: str) -> Sequence[Path]:
    path = Path(given)
    if path.is_dir():
        found = [one for one in path.rglob("*") if _is_shown(one.relative_to(path))]
    elif glob.has_magic(given) and not path.exists():
        found = [Path(one) for one in glob.glob(given, recursive=True)]  # noqa: PTH207  (a pathlib glob needs a base folder)
    else:
        found = [path]
    return sorted(one for one in found if one.is_file())


def _is_shown(path: Path) -> bool:
    """Return whether neither the file nor any folder above it is hidden."""
    return not any(part.startswith(".") for part in path.parts)

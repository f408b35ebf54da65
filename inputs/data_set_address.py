"""Where a data set is: a folder, a glob, or an object store's address. One file is no data set."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)

#: What a bucket may be called.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

_ADDRESSES = "a file, a folder, a glob such as FOLDER/**/*.parquet, or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class DataSetAddress:
    """Where a data set is.

    Args:
        root: The folder; of a bucket, the keys' common beginning up to a slash, without it.
        pattern: Which files below it are meant, as a glob; empty: all.
        bucket: The bucket's name; empty for a folder of this machine.
    """

    root: str
    pattern: str = ""
    bucket: str = ""

    def is_asked(self) -> Callable[[str], bool]:
        """Return what tells whether a path below the root is meant."""
        if not self.pattern:
            return lambda _: True
        matches = re.compile(_regular(self.pattern), re.DOTALL).fullmatch
        return lambda path: matches(path) is not None


def data_set_address(text: str) -> DataSetAddress | None:
    """Return where the data set is that INPUT_FILE names; None if it names one file, or nothing.

    Raises:
        ValueError: It is an address that is not read; with what is wrong, as the end of a sentence.
    """
    if scheme := _SCHEME.fullmatch(text):
        if scheme[1].lower() != "s3":
            raise ValueError(f"is an address of a kind that is not read; read are {_ADDRESSES}")
        return _of_bucket(scheme[2])
    # Unlike those of Path, these do not raise what the disk says.
    if os.path.isdir(text):  # noqa: PTH112
        return DataSetAddress(text)
    if not glob.has_magic(text) or os.path.exists(text):  # noqa: PTH110
        return None
    root, pattern = _split(Path(text).as_posix())
    return DataSetAddress(root or ".", pattern)


def _of_bucket(rest: str) -> DataSetAddress:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "must name a bucket and a prefix, such as s3://bucket/prefix; keys and endpoint stand in variables of their own"
        )
    names = [name for name in prefix.split("/") if name]
    root, pattern = _split("/".join(names))
    return DataSetAddress(root, pattern, bucket)


def _split(path: str) -> tuple[str, str]:
    """Return the folder before the first name with a wildcard, and the rest."""
    names = path.split("/")
    first = next((index for index, name in enumerate(names) if glob.has_magic(name)), len(names))
    root = "/".join(names[:first])
    return ("/" if first == 1 and names[0] == "" and len(names) > 1 else root), "/".join(names[first:])


def _regular(pattern: str) -> str:
    """Return a glob as a regular expression. `**` stands for any number of folders, and at the end for everything."""
    made, names = "", pattern.split("/")
    for index, name in enumerate(names):
        is_last = index == len(names) - 1
        if name == "**":
            made += ".*" if is_last else "(?:[^/]+/)*"
        else:
            made += _regular_name(name) + ("" if is_last else "/")
    return made


def _regular_name(name: str) -> str:
    made, at = "", 0
    while at < len(name):
        character = name[at]
        at += 1
        end = name.find("]", at + (name[at : at + 1] == "!") + 1) if character == "[" else -1
        if end > 0:
            inside = name[at:end].replace("\\", "\\\\").replace("[", "\\[")
            made += f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside.replace('^', chr(92) + '^')}]"
            at = end + 1
        else:
            made += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
    return made

"""Parses a data set's address: a folder, a glob, or an object store's URL. A single file is not a data set."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)

#: A valid bucket name.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

_ADDRESSES = "a file, a folder, a glob such as FOLDER/**/*.parquet, or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class DataSetAddress:
    """Where a data set is.

    Args:
        root: The folder; of a bucket, the keys' common prefix without a trailing slash.
        pattern: Glob of the files below it; empty: all.
        bucket: The bucket's name; empty for a local folder.
    """

    root: str
    pattern: str = ""
    bucket: str = ""

    def is_requested(self) -> Callable[[str], bool]:
        """Return a function that tells whether a path below the root matches the pattern."""
        if not self.pattern:
            return lambda _: True
        matches = re.compile(_regular(self.pattern), re.DOTALL).fullmatch
        return lambda path: matches(path) is not None


def data_set_address(text: str) -> DataSetAddress | None:
    """Return the address of the data set that INPUT_FILE names; None if it names a single file, or nothing.

    Raises:
        ValueError: The address is invalid. The message is the end of a sentence that begins with the address.
    """
    if scheme := _SCHEME.fullmatch(text):
        if scheme[1].lower() != "s3":
            raise ValueError(f"is an address of a kind that is not read; read are {_ADDRESSES}")
        return _of_bucket(scheme[2])
    # Unlike Path's methods, these do not raise the disk's errors.
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
    """Split a path before its first name with a wildcard."""
    names = path.split("/")
    first = next((index for index, name in enumerate(names) if glob.has_magic(name)), len(names))
    root = "/".join(names[:first])
    return ("/" if first == 1 and names[0] == "" and len(names) > 1 else root), "/".join(names[first:])


def _regular(pattern: str) -> str:
    """Return a glob as a regular expression. `**` matches any number of folders; at the end it matches everything."""
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

"""Reads the JSON that InfluxDB 1, 2 and 3 answer an InfluxQL query with: whole, or in pieces that say whether more follow.

An answer with status 200 can contain an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transport.influx_faults import InfluxFault

#: What is between quotes in a message may be a query or a row, which may name people.
_QUOTED = re.compile(r"(?<!\w)'.*('|$)|(?<!\w)\".*(\"|$)", re.DOTALL)

#: What errors in an answer mean, as the statuses that say so.
_STATUSES = {
    "database not found|retention policy not found|bucket not found|database name required": 404,
    "not authorized|authorization|unauthorized": 403,
    "parsing query|parse query|planning|syntax|not supported|unsupported": 400,
}


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer, or the part of it that a piece holds.

    Args:
        tags: What it was grouped by.
        columns: The columns' names.
        values: Its rows.
    """

    tags: dict[str, str]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]

    def column(self, number: int) -> list[Any]:
        """Return one column, by its number."""
        return [row[number] for row in self.values]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows by the columns' names."""
        yield from (dict(zip(self.columns, row, strict=True)) for row in self.values)


def read_series(answer: bytes) -> list[Series]:
    """Return all series of an answer, none of which is cut.

    Raises:
        InfluxFault: It reports an error, is not whole, or is not such an answer.
    """
    found: list[Series] = []
    is_partial = True
    for piece in _pieces(answer):
        if not isinstance(piece, dict) or not isinstance(results := piece.get("results"), list) or "error" in piece:
            raise fault_of(
                str(piece.get("error", "an answer of another form")) if isinstance(piece, dict) else "an answer of another form"
            )
        is_partial = False
        for result in results:
            if "error" in result:
                raise fault_of(str(result["error"]))
            try:
                found += [_series(one) for one in result.get("series", ())]
            except (KeyError, TypeError, AttributeError):
                raise InfluxFault("the answer is of another form than InfluxQL's") from None
            is_partial = bool(result.get("partial") or any(one.get("partial") for one in result.get("series", ())))
    if is_partial:
        raise InfluxFault("the answer was cut")
    return found


def fault_of(message: str) -> InfluxFault:
    """Return the fault that a message in an answer reports."""
    status = next((status for pattern, status in _STATUSES.items() if re.search(pattern, message)), None)
    shown = without_quoted(message)
    return InfluxFault(shown if status is None else f"{status} {shown}", status=status)


def without_quoted(message: str) -> str:
    """Return a server's message without the query or row that it quotes."""
    return " ".join(_QUOTED.sub("'…'", message).split())[:300]


def _pieces(answer: bytes) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    try:
        text = answer.decode("utf-8").rstrip()
        while at < len(text):
            piece, end = decoder.raw_decode(text, at)
            yield piece
            at = end + len(text[end : end + 4]) - len(text[end : end + 4].lstrip())
    except ValueError:
        raise InfluxFault("the answer was cut, or is not InfluxQL's") from None


def _series(one: dict[str, Any]) -> Series:
    columns = [str(name) for name in one["columns"]]
    values = one.get("values", [])
    if any(len(row) != len(columns) for row in values):
        raise InfluxFault("the answer is of another form than InfluxQL's")
    return Series(dict(one.get("tags") or {}), columns, values)

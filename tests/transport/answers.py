"""Answers as tests compare them: whole."""

from __future__ import annotations

from transport.influx_connection import InfluxConnection


def whole_answer(connection: InfluxConnection, flux: str = "buckets()") -> bytes:
    """Return the whole answer to a query."""
    with connection.answer_to(flux) as blocks:
        return b"".join(blocks)

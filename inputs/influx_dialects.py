"""Chooses the dialect for a server."""

from __future__ import annotations

from inputs.flux_dialect import FluxDialect
from inputs.influx_dialect import Dialect
from inputs.influxql_dialect import InfluxQlDialect
from transport.influx_connection import InfluxConnection


def dialect_of(connection: InfluxConnection) -> Dialect:
    """Return the dialect that INFLUX_QUERY_LANGUAGE names; under `auto` the one that the server's version speaks.

    Raises:
        InfluxFault: The server does not answer, or does not say which version it is.
    """
    version, language = connection.version, connection.address.language
    is_flux = (version.language if language == "auto" else language) == "flux"
    return FluxDialect(connection) if is_flux else InfluxQlDialect(connection)

"""What a first look asks of servers: who may read or write which bucket, and how long it keeps rows. Stores nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from anonymizer.errors import SourceDenied, SourceRefused, SourceUnavailable
from service.settings.declared import Settings
from service.settings.types import Secret
from service.startup import with_bucket_name
from service.wiring.outputs import open_summaries
from service.wiring.servers import connection_to, input_address, output_address
from service.wiring.sources import make_source

if TYPE_CHECKING:
    from transport.influx_connection import InfluxConnection
    from transport.influx_versions import Address


def can_read_raw(settings: Settings, token: Secret) -> bool:
    """Return whether a token, or none, may read the input bucket."""
    source = make_source(settings, token)
    try:
        source.open()
    except (SourceDenied, SourceRefused):
        # Refused as configured: with INFLUX_TOKEN it was not, so what is wrong is the token, such as none for a version 2.
        return False
    finally:
        source.close()
    return True


def can_read_output(settings: Settings) -> bool:
    """Return whether the token that reads the output server may read the output bucket."""
    with open_summaries(with_bucket_name(settings)) as summaries:
        try:
            summaries.newest_labels()
        except SourceDenied:
            return False
        return True


def can_write_with_input_token(settings: Settings, bucket: str) -> bool:
    """Return whether the credentials that read could write a bucket of the same server.

    Raises:
        SourceUnavailable: The server does not tell.
    """
    with _asked(input_address(settings, settings.influx_token), settings.influx_token) as connection:
        if not connection.version.tells_writers:
            raise SourceUnavailable(
                f"{connection.version.title} tells only by storing something; each token of its edition Core can"
            )
        with suppress(SourceDenied), _asking(connection):
            connection.try_to_write(bucket)
            return True
    return False


def retention_of_input_s(settings: Settings) -> int | None:
    """Return how long the input bucket keeps rows, 0: for ever; None if the server does not tell. Raises as above."""
    with _asked(input_address(settings, settings.influx_token), settings.influx_token) as connection:
        return _retention_s(connection, settings.influx_input_bucket)


def retention_of_output_s(settings: Settings) -> int | None:
    """Return how long the output bucket keeps rows, 0: for ever; None if the server does not tell any of the tokens. Raises as above."""
    tokens = (settings.influx_verify_token, settings.influx_output_token, settings.influx_token)
    for token in (one for one in tokens if one or (one is settings.influx_token and settings.influx_username)):
        with suppress(SourceDenied), _asked(output_address(settings, token), token) as connection:
            found = _retention_s(connection, settings.influx_output_bucket)
            if found is not None:
                return found
    return None


@contextmanager
def _asked(address: Address, token: Secret) -> Iterator[InfluxConnection]:
    with connection_to(address, token) as connection, _asking(connection):
        yield connection


@contextmanager
def _asking(connection: InfluxConnection) -> Iterator[None]:
    """Translate what goes wrong while a server is asked."""
    from transport.influx_connection import InfluxFault

    try:
        yield
    except InfluxFault as fault:
        kind = SourceDenied if fault.is_denial else SourceUnavailable
        raise kind(f"InfluxDB at {connection.address.url}: {fault}") from None


def _retention_s(connection: InfluxConnection, bucket: str) -> int | None:
    facts = connection.bucket(bucket)
    # Whoever tells the retention tells the length of shard groups too; a version that tells neither says 0 of both.
    return facts.retention_s if facts is not None and facts.shard_group_s else None

"""Claims in an output bucket: `<measurement>_anonymized_claims` holds the last word of each service that releases into it.

Each word is a point of its own, later than the one before: InfluxDB up to 2.7.12 answers with overwritten values for some minutes.
"""

from __future__ import annotations

from collections.abc import Callable

from anonymizer.cohorts import Claim, claim_in
from anonymizer.errors import OutputDenied, OutputUnavailable, SourceRefused
from outputs.influx_lines import InfluxTarget, escaped_measurement
from transport.influx_connection import InfluxConnection, InfluxFault


class InfluxClaims:
    """Reads and writes them.

    Args:
        connection: With a token that may write the bucket.
        target: The bucket, and after which measurement the claims' is named.
        read: Returns the last claim of each service, as text.
    """

    def __init__(self, connection: InfluxConnection, target: InfluxTarget, read: Callable[[], list[str]]) -> None:
        self._connection = connection
        self._target = target
        self._read = read
        self.place = f"bucket {target.bucket!r}"

    def claims(self) -> list[Claim]:
        """Return the last claim of each service. Raises what `read` does, and SourceRefused where one cannot be understood."""
        try:
            return [claim_in(text) for text in self._read()]
        except ValueError:
            raise SourceRefused(
                f"{self.place} holds a claim in measurement {self._target.claims_measurement!r} that this version cannot read, so it "
                "is unclear how the data set is cut there: run the version of the service that wrote it, or delete what is no claim"
            ) from None

    def put(self, claim: Claim) -> None:
        """Write a claim. Raises OutputDenied or OutputUnavailable."""
        measurement = escaped_measurement(self._target.claims_measurement)
        line = f'{measurement},service={claim.service} claim="{claim.text}" {claim.time_ns}\n'
        try:
            self._connection.check_language()
            self._connection.write(self._target.bucket, line.encode())
        except InfluxFault as fault:
            kind = OutputDenied if fault.is_denial or fault.status in (400, 422) else OutputUnavailable
            raise kind(f"InfluxDB at {self._connection.address.url} does not take a claim for {self.place}: {fault}") from None

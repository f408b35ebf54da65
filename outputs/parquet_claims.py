"""Claims among Parquet files: an empty file for each, under `claims/`, whose name says all of it. None is ever replaced or removed."""

from __future__ import annotations

from anonymizer.cohorts import Claim, claim_in
from anonymizer.errors import OutputDenied, OutputUnavailable, SourceDenied, SourceRefused, SourceUnavailable
from outputs.parquet_encoding import ROWS
from outputs.parquet_places import Place

_FOLDER = "claims"

#: Separates the words of a claim, none of which contains it.
_BETWEEN = "-"


class ParquetClaims:
    """Reads and writes them.

    Args:
        place: Where the files are.
        must_hold: Whether released rows were written there: a place without any is then a disk that is not mounted.
    """

    place = "PARQUET_URL"

    def __init__(self, place: Place, *, must_hold: bool) -> None:
        self._files = place
        self._must_hold = ROWS if must_hold else ""

    def claims(self) -> list[Claim]:
        """Return the last claim of each service. Raises SourceDenied, SourceUnavailable, or SourceRefused where one is not understood."""
        try:
            names = [path.rpartition("/")[2] for path in self._files.paths(_FOLDER)]
        except OutputDenied as error:
            raise SourceDenied(str(error)) from None
        except OutputUnavailable as error:
            raise SourceUnavailable(str(error)) from None
        try:
            found = [claim_in(name.replace(_BETWEEN, " ")) for name in names if not name.startswith(".")]
        except ValueError:
            raise SourceRefused(
                f"PARQUET_URL holds a file in {_FOLDER}/ that this version cannot read, so it is unclear how the data set is cut there: "
                "run the version of the service that wrote it, or move away what is no claim"
            ) from None
        return list({claim.service: claim for claim in sorted(found, key=lambda one: one.time_ns)}.values())

    def put(self, claim: Claim) -> None:
        """Write a claim. Raises OutputDenied or OutputUnavailable."""
        self._files.open(must_hold=self._must_hold)
        self._files.put_new(f"{_FOLDER}/{claim.text.replace(' ', _BETWEEN)}", b"")

"""Makes the places of an erasure from settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import Names
from anonymizer.pseudonyms import KeptIds, Pseudonymizer
from anonymizer.samples import Samples, SampleSource
from anonymizer.windows import WindowRange
from operations.erasure.bucket import BucketRows
from operations.erasure.rows import Rows
from service.settings.declared import Settings, cohort_of
from service.state.journal import Journal
from service.wiring.outputs import influx_target
from service.wiring.recipe import pseudonym_key
from service.wiring.servers import output_address, reading_token
from service.wiring.sources import make_source


def make_bucket_rows(settings: Settings, output: str, journal: Journal) -> BucketRows:
    """Return the rows of the output bucket: read with INFLUX_VERIFY_TOKEN or else the write token, deleted with the write token."""
    from transport.influx_connection import InfluxConnection

    reading, writing = reading_token(settings), settings.influx_output_token or settings.influx_token
    return BucketRows(
        InfluxConnection(output_address(settings, reading), reading.current),
        InfluxConnection(output_address(settings, writing), writing.current),
        influx_target(settings),
        output,
        journal,
        cohort_rows=None if cohort_of(settings) is None else RawCohorts(settings),
    )


class RawCohorts:
    """Tells cohorts' released rows apart by the raw bucket, whose rows have the cohorts' tag.

    Args:
        settings: Of one cohort's service.
    """

    def __init__(self, settings: Settings) -> None:
        self._all = _opened(replace(settings, cohort_tag="", cohort=""))
        self._own = _opened(settings)
        self._names: Names = Pseudonymizer(pseudonym_key(settings)) if settings.pseudonymize_source_id else KeptIds()

    def of(self, rows: Rows, windows: WindowRange) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which rows are this cohort's, and which are known to be others', each of shape (n,)."""
        own, known = (self._among(rows, source.read(windows)) for source in (self._own, self._all))
        return own, known & ~own

    def _among(self, rows: Rows, samples: Samples) -> npt.NDArray[np.bool_]:
        """Return which released rows have the time and the source of a sample, shape (n,)."""
        found = np.zeros(len(rows.times_ns), dtype=np.bool_)
        raw_code_of = {name: code for code, name in enumerate(self._names.released_ids(samples.source_ids))}
        for code, name in enumerate(rows.ids):
            if name in raw_code_of:
                index = np.flatnonzero(rows.codes == code)
                times_ns = samples.times_ns[samples.source_codes == raw_code_of[name]]
                found[index] = np.isin(rows.times_ns[index], times_ns)
        return found


def _opened(settings: Settings) -> SampleSource:
    source = make_source(settings)
    source.open()
    return source

"""What sees, in outputs, services that cut the bucket in another way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anonymizer.cohorts import Cohort, base_of
from anonymizer.pseudonyms import keyed_digest
from anonymizer.samples import SampleSource
from service.clock import Clock
from service.pipeline.claims import Claimant
from service.pipeline.cut_guard import CutGuard, OpenCuts
from service.settings.declared import Settings, cohort_of
from service.settings.types import Secret
from service.state.journal import Journal
from service.wiring.data_set import data_set_labels
from service.wiring.outputs import held_parquet, influx_target, open_summaries, parquet_place
from service.wiring.servers import connection_to, output_address

if TYPE_CHECKING:
    from inputs.window_summaries import WindowSummaries
    from outputs.influx_claims import InfluxClaims
    from outputs.parquet_claims import ParquetClaims
    from outputs.parquet_held import HeldParquet

#: Services that are started together have all asked within this time.
_SETTLE_S = 2.0


def make_cut_guard(settings: Settings, source: SampleSource, journal: Journal, clock: Clock) -> CutGuard:
    """Return what looks for services that cut the bucket otherwise; the source must be open. A file is never cut."""
    outputs: list[OpenCuts] = []
    if not settings.input_file:
        outputs = openers_of_cuts(settings, journal)
    claimant = claimant_of(settings, data_set_labels(settings, source, journal), journal)
    # A stream's first window is not due before: the wait delays nothing, and cohorts that start with it are seen and go first.
    settle_s = min(_SETTLE_S, settings.allowed_lateness_seconds) if settings.streaming_mode else 0.0
    return CutGuard(outputs, claimant, journal, clock, settle_s=settle_s)


def claimant_of(settings: Settings, labels: tuple[str, ...], journal: Journal | None = None) -> Claimant:
    """Return who claims the data set that these labels name; without a journal, one that claims nothing itself."""
    cohort = cohort_of(settings)
    service = "" if journal is None else keyed_digest(journal.facts.name.encode(), b"\0claims of this service")[:12]
    return Claimant(service, labels, "" if cohort is None else str(cohort))


def openers_of_cuts(settings: Settings, journal: Journal | None = None) -> list[OpenCuts]:
    """Return what opens each output that tells of other cuts; without a journal to read there, not to write."""
    openers: list[OpenCuts] = []
    if settings.output_to_influx:
        openers.append(lambda: open_influx_cuts(settings))
    if settings.output_to_parquet:
        name = f"parquet:{parquet_place(settings).name}"
        openers.append(
            lambda: open_parquet_cuts(settings, must_hold=journal is not None and bool(journal.outputs.receipts(name)))
        )
    return openers


@contextmanager
def open_influx_cuts(settings: Settings) -> Iterator[tuple[WindowSummaries, InfluxClaims]]:
    """Yield what the output bucket tells of other cuts: read with INFLUX_VERIFY_TOKEN or else with the write token."""
    from outputs.influx_claims import InfluxClaims

    token: Secret = settings.influx_output_token or settings.influx_token
    with connection_to(output_address(settings, token), token) as connection, open_summaries(settings) as summaries:
        yield summaries, InfluxClaims(connection, influx_target(settings), summaries.claims)


@contextmanager
def open_parquet_cuts(settings: Settings, *, must_hold: bool) -> Iterator[tuple[HeldParquet, ParquetClaims]]:
    """Yield what Parquet files tell of other cuts.

    Args:
        settings: What was asked for.
        must_hold: Whether files were written there: a folder without any is then a disk that is not mounted.
    """
    from outputs.parquet_claims import ParquetClaims

    yield held_parquet(settings, ()), ParquetClaims(parquet_place(settings), must_hold=must_hold)


def serves_rows_without_cohort(settings: Settings, source: SampleSource, guard: CutGuard) -> bool:
    """Return whether the rows without COHORT_TAG are released: by this service, or by one that has a claim on them."""
    rest = Cohort(settings.cohort_tag, "")
    return not settings.cohort or any(
        guard.is_claimed(rest.label(base_of(label))) for label in (source.data_set, source.data_set_address)
    )

"""The workers of one run: opened before the first chunk, closed after the last; unreleased spool files are removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anonymizer.anonymize import Recipe
from anonymizer.errors import ConfigurationError, StateUnavailable
from anonymizer.exclusion import Exclusion
from anonymizer.ports import Output
from anonymizer.pseudonyms import keyed_digest
from anonymizer.samples import SampleSource
from service.clock import Clock
from service.delivery.remote_output_worker import Courier
from service.log_event import WARNING
from service.pipeline.release_loop import Workforce as ChunkWorkforce
from service.retry import Retry
from service.scale.cluster import Cluster
from service.scale.coordinator import Chunks, OutputCourier, make_run
from service.scale.tasks import WRITTEN_BY_WORKERS
from service.settings.declared import Settings
from service.state.journal import Journal
from service.state.shared_spool import MixedSpool
from service.telemetry.events import Events


@dataclass(frozen=True, slots=True)
class Workforce:
    """The work that workers do in a run.

    Args:
        chunks: Anonymizes chunks.
        couriers: Write to outputs, by the outputs' names.
    """

    chunks: ChunkWorkforce
    couriers: Mapping[str, Courier]


@contextmanager
def open_workforce(
    settings: Settings,
    source: SampleSource,
    recipe: Recipe,
    outputs: Sequence[Output],
    journal: Journal,
    spool: MixedSpool,
    *,
    exclusion: Callable[[], Exclusion],
    env_file: Path,
    clock: Clock,
    retry: Retry,
    telemetry: Events,
) -> Iterator[Workforce]:
    """Yield the workers that DASK_SCHEDULER names.

    Args:
        settings: The settings.
        source: Open.
        recipe: How windows are anonymized.
        outputs: All of the run.
        journal: Knows what was released.
        spool: Where workers put chunks.
        exclusion: Returns whose rows are not released now.
        env_file: What workers of this machine load.
        clock: Tells when to stop.
        retry: How to retry the scheduler.
        telemetry: Told how many workers there are.

    Raises:
        ConfigurationError: A service with another journal uses SPOOL_URL for the same data set.
        RetriesExhausted: The scheduler could not be reached.
        Stopped: The service was asked to stop meanwhile.
    """
    retry.until_done(lambda: _claim(spool, journal, recipe.data_set))
    retry.until_done(lambda: _remove_unrecorded(spool, journal, recipe.data_set))
    cluster = Cluster(settings, env_file.absolute(), clock, telemetry)
    try:
        retry.until_done(cluster.open)
        run = retry.until_done(lambda: make_run(settings, source, recipe, outputs, spool.shared))
        written = [output.name for output in outputs if output.kind in WRITTEN_BY_WORKERS]
        yield Workforce(Chunks(cluster, run, exclusion), {name: OutputCourier(cluster, run, name) for name in written})
    finally:
        cluster.close()
        try:
            _remove_unrecorded(spool, journal, recipe.data_set, is_over=True)
        except StateUnavailable as error:
            WARNING.log(f"Unreleased spool files of workers could not be removed: {error}. The next run removes it")


def _claim(spool: MixedSpool, journal: Journal, label: str) -> None:
    """Refuse to share the data set's files with another journal: each would remove what the other has released."""
    if not spool.shared.claim(label, keyed_digest(journal.facts.name.encode(), b"\0spool").encode()):
        raise ConfigurationError(
            f"SPOOL_URL {spool.shared.address} holds {label}/, which a service with another STATE_DIR uses for the same data set: give "
            "each a SPOOL_URL of its own. If that STATE_DIR is lost, or delivers nothing more, move that folder away"
        )
    journal.facts.remember_spool_label(label)


def _remove_unrecorded(spool: MixedSpool, journal: Journal, label: str, *, is_over: bool = False) -> None:
    """Remove second anonymizations of windows: one of them beside the released one could be subtracted from it.

    If the run is over and no file is left, another journal may use the place.
    """
    kept = spool.shared.remove_all_but(spool.names(), label, is_kept=journal.is_accepted)
    if kept:
        WARNING.log(
            f"SPOOL_URL {spool.shared.address} holds {len(kept)} files of windows that accept-gap marked as released; they may be all "
            "that is left of them, and no output waits for them. Move them away"
        )
    elif is_over and not spool.names():
        spool.shared.give_back(label)

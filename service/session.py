"""One run of the service, step by step: lock, source, journal, outputs, release loop, end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anonymizer.anonymize import Recipe
from anonymizer.errors import ConfigurationError, JournalDamaged, OutputDenied, SourceDenied, SourceRefused, StateUnavailable
from anonymizer.exclusion import Exclusion, without_excluded
from anonymizer.ports import Output
from anonymizer.pseudonyms import keyed_digest
from anonymizer.samples import Samples, SampleSource
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service import exit_codes
from service.clock import Stopped, SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Store
from service.log_event import ERROR, WARNING, LogEvent
from service.observation import Observation
from service.pipeline.added_rows import account_for_added_rows, account_for_parts
from service.pipeline.contradictions import refuse_contradictory
from service.pipeline.cut_guard import CutGuard
from service.pipeline.exclusion_list import ExclusionList
from service.pipeline.release_loop import Parts, run
from service.pipeline.released_elsewhere import ANY_TIME, refuse_releases_elsewhere
from service.pipeline.rows_without_cohort import RowsWithoutCohort, warn_of_rows_without_cohort
from service.pipeline.schedule import Schedule
from service.process import give_back_freed_memory
from service.retry import RetriesExhausted, Retry
from service.settings.declared import Settings
from service.settings.shown import shown_settings
from service.startup import open_source, with_bucket_name
from service.state.epochs import Epoch
from service.state.instance_lock import AnotherInstance, InstanceLock
from service.state.journal import Journal
from service.state.output_names import forget_removed_outputs, match_outputs
from service.state.set_aside import SetAside
from service.state.settings_changes import continue_or_begin_epoch
from service.state.shared_spool import MixedSpool
from service.state.spool import SpoolDamaged
from service.state.trail import open_trail
from service.telemetry.hub import Telemetry
from service.telemetry.progress import progress_of
from service.version import VERSION
from service.wiring.cuts import make_cut_guard, serves_rows_without_cohort
from service.wiring.data_set import data_set_label, data_set_labels, filters_in
from service.wiring.loop import make_retention, make_schedule, make_upkeep, plans_by_hour
from service.wiring.outputs import held_parquet, make_outputs, make_shared_spool, open_summaries
from service.wiring.recipe import load_hierarchy, make_recipe
from service.wiring.sources import make_source

if TYPE_CHECKING:
    from service.retention.sweep import Retention
    from service.scale.workforce import Workforce

#: Python's thread switch interval. Its default of 5 ms would make a request a tenth slower, while another thread computes.
_SWITCH_INTERVAL_S = 0.0005

_GAVE_UP = LogEvent("gave_up", "❌ Gave up after RETRY_BUDGET_SECONDS=%d: %s", "budget_seconds reason", logging.ERROR)
_END_STEP_FAILED = LogEvent("end_step_failed", "⚠️ %s failed at the end of the run: %s", "step reason", logging.WARNING)

#: Chunks in memory besides those being read: one is anonymized, two are in the outbox.
_OTHER_CHUNKS_IN_HAND = 3

#: Shells add this to the number of the signal that ended a process.
_SIGNAL_BASE = 128

#: How long outputs may continue to write after a stop request.
GRACE_S = 5.0


def serve(settings: Settings, clock: SystemClock, *, env_file: Path = Path(".env")) -> int:
    """Run until the end or a stop request; return the exit code. Expected failures are logged as a sentence.

    Args:
        settings: The settings.
        clock: Stopped by signals.
        env_file: The file of the settings, which worker processes on this machine load too.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    clock.code_when_stuck = exit_codes.DONE if settings.streaming_mode else None
    # A process that hangs after this, in its last log lines, still exits with this code.
    clock.code_when_stuck = code = _run_and_log_failures(settings, clock, env_file)
    return code


def _run_and_log_failures(settings: Settings, clock: SystemClock, env_file: Path) -> int:
    try:
        return _serve(settings, clock, env_file)
    except AnotherInstance as error:
        ERROR.log(error)
        return exit_codes.ANOTHER_INSTANCE
    except (ConfigurationError, JournalDamaged, SpoolDamaged, SourceDenied, SourceRefused, OutputDenied) as error:
        for problem in getattr(error, "problems", (error,)):
            ERROR.log(problem)
        return exit_codes.CONFIGURATION
    except StateUnavailable as error:
        ERROR.log(error)
        return exit_codes.UNREACHABLE
    except RetriesExhausted as error:
        _GAVE_UP.log(settings.retry_budget_seconds, error)
        return exit_codes.UNREACHABLE
    except Stopped:
        # Stopped before any work: empty totals.
        return _exit_code(settings, Telemetry(k=0, verbose=False), clock)


def _serve(settings: Settings, clock: SystemClock, env_file: Path) -> int:
    lock = _retry(settings, clock).until_done(lambda: InstanceLock(Path(settings.state_dir)))
    try:
        with Observation(settings, clock) as observation:
            return _open_and_work(settings, clock, observation, env_file)
    finally:
        lock.release()


def _retry(settings: Settings, clock: SystemClock, telemetry: Telemetry | None = None) -> Retry:
    budget_s = None if settings.streaming_mode else settings.retry_budget_seconds
    return Retry(clock, budget_s=budget_s, telemetry=telemetry)


#: The file in STATE_DIR that caches the Parquet footers of a data set. It is rebuilt if it is deleted.
_INDEX_FILE = "data_set_index"


@dataclass(frozen=True, slots=True)
class _Session:
    """Everything that is open during a run."""

    settings: Settings
    clock: SystemClock
    source: SampleSource
    outputs: list[Output]
    journal: Journal
    retry: Retry
    observation: Observation
    env_file: Path
    guard: CutGuard

    @property
    def state_dir(self) -> Path:
        return Path(self.settings.state_dir)

    @property
    def reports_each_window(self) -> bool:
        return self.settings.streaming_mode and self.settings.verbose_logging


def _open_and_work(given: Settings, clock: SystemClock, observation: Observation, env_file: Path) -> int:
    retry = _retry(given, clock, observation.telemetry)
    settings = retry.until_done(lambda: with_bucket_name(given))
    source, outputs = make_source(settings, index_file=Path(settings.state_dir) / _INDEX_FILE), make_outputs(settings)
    observation.expect(outputs)
    try:
        open_source(settings, source, retry)
        journal = retry.until_done(lambda: _open_journal(settings, source))
        try:
            guard = retry.until_done(lambda: make_cut_guard(settings, source, journal, clock))
            return _work(_Session(settings, clock, source, outputs, journal, retry, observation, env_file, guard))
        finally:
            _finish("Ending the audit log", lambda: observation.end_trail(journal))
            _finish("Reading the last figures", lambda: observation.unwatch(journal))
            _finish("Closing the journal", journal.close)
    finally:
        _finish("Closing the source", source.close)


def _open_journal(settings: Settings, source: SampleSource) -> Journal:
    return Journal(
        Path(settings.state_dir),
        data_set=source.data_set,
        address=source.data_set_address,
        earlier_version=source.earlier_version,
    )


def _work(session: _Session) -> int:
    """Release every window of the run and deliver it; return the exit code."""
    recipe, set_aside = _begin_epoch(session), _match_outputs(session)
    schedule = _plan(session)
    spool = _open_spool(session)
    retention = session.retry.until_done(lambda: _make_retention(session))
    exclusion = session.retry.until_done(lambda: _exclusion_list(session)).snapshot
    with _workforce(session, recipe, spool, exclusion) as workforce:
        delivery = _make_delivery(session, Store(session.journal, spool, set_aside), workforce)
        asked_for = _windows_of(session.settings, schedule)
        with _removing_old_files(session, retention):
            _release_all(session, recipe, schedule, delivery, workforce, exclusion)
        _raise_failures(delivery.failures())
    if session.observation.wants_recognition:
        _finish("Measuring recognition", lambda: _measure_recognition(session, asked_for, recipe, exclusion))
    _warn_if_nothing_was_read(session)
    return _exit_code(session.settings, session.observation.telemetry, session.clock)


def _make_retention(session: _Session) -> Retention | None:
    """Return what removes old files, after it has finished what a crash interrupted; None if there is nothing to do."""
    if session.settings.retention_days is None and not session.journal.removals.begun():
        return None
    observation = session.observation
    retention = make_retention(
        session.settings,
        session.source,
        session.journal,
        observation.telemetry,
        session.clock,
        trail=lambda: observation.trail,
    )
    retention.settle()
    return retention


@contextmanager
def _removing_old_files(session: _Session, retention: Retention | None) -> Iterator[None]:
    """Remove old files during a stream; of a one-shot run at its end, when nothing is written any more."""
    if retention is None:
        yield
        return
    if session.settings.streaming_mode:
        retention.start()
    try:
        yield
    finally:
        _finish("Removing old files", retention.end if session.settings.streaming_mode else retention.sweep)


def _release_all(
    session: _Session,
    recipe: Recipe,
    schedule: Schedule,
    delivery: Delivery,
    workforce: Workforce | None,
    exclusion: Callable[[], Exclusion],
) -> None:
    retry, telemetry = session.retry, session.observation.telemetry
    started_s = session.clock.monotonic_s()
    retry.until_done(delivery.start)
    retry.until_done(lambda: session.observation.watch(session.journal, recipe.promise))
    try:
        _check_before_first_release(session, schedule, delivery)
        with progress_of(schedule.windows_in_all) as advance:
            run(schedule, _parts(session, recipe, delivery, advance, workforce, exclusion))
            telemetry.phase("finishing")
            delivery.drain()
    finally:
        _finish("Stopping the outputs", lambda: delivery.stop(GRACE_S))
    if not delivery.failures():
        telemetry.finished(session.clock.monotonic_s() - started_s)


def _measure_recognition(session: _Session, asked_for: WindowRange, recipe: Recipe, exclusion: Callable[[], Exclusion]) -> None:
    # Imported only if asked for: no other run needs the attackers.
    from service.recognition import attacked

    totals, is_stopping, excluded = session.observation.telemetry.totals, session.clock.is_stopping, exclusion()

    def leave_out(samples: Samples, windows: WindowRange) -> Samples:
        return without_excluded(samples, recipe.names.released_ids(samples.source_ids), windows, excluded)[0]

    found = attacked(
        session.settings, session.source, session.journal, asked_for, totals, leave_out=leave_out, is_stopping=is_stopping
    )
    session.observation.attacked(found)


def _windows_of(settings: Settings, schedule: Schedule) -> WindowRange:
    length_ns = settings.batch_size_seconds * NANOSECONDS
    return WindowRange(schedule.start_ns, schedule.start_ns + (schedule.windows_in_all or 0) * length_ns, length_ns)


def _open_spool(session: _Session) -> MixedSpool:
    """Return the spool of this run.

    Raises:
        ConfigurationError: Released chunks wait in another SPOOL_URL.
    """
    journal, retry = session.journal, session.retry
    shared = make_shared_spool(session.settings)
    address = shared.address if session.settings.spool_url else ""
    spool = retry.until_done(lambda: MixedSpool(session.state_dir / "spool", shared, journal.outputs))
    known = retry.until_done(lambda: journal.facts.spool_address)
    if spool.names() and address != known:
        raise ConfigurationError(
            f"SPOOL_URL changed while {len(spool.names())} released chunks wait in {known or 'STATE_DIR'} for outputs: set it back "
            f"({f'SPOOL_URL={known}' if known else 'leave it empty'}) until a run has ended"
        )
    if session.settings.dask_scheduler:
        retry.until_done(lambda: journal.facts.remember_spool(address))
    return spool


@contextmanager
def _workforce(
    session: _Session, recipe: Recipe, spool: MixedSpool, exclusion: Callable[[], Exclusion]
) -> Iterator[Workforce | None]:
    """Yield the workers that DASK_SCHEDULER names, None without it; what they left in the spool unrecorded is removed before and after."""
    if not session.settings.dask_scheduler:
        yield None
        return
    # Imported only if used: Dask takes half a second.
    from service.scale.workforce import open_workforce

    with open_workforce(
        session.settings,
        session.source,
        recipe,
        session.outputs,
        session.journal,
        spool,
        exclusion=exclusion,
        env_file=session.env_file,
        clock=session.clock,
        retry=session.retry,
        telemetry=session.observation.telemetry,
    ) as workforce:
        yield workforce


def _exclusion_list(session: _Session) -> ExclusionList:
    file = session.settings.excluded_sources_file
    return ExclusionList(Path(file) if file else None, session.journal, session.clock)


def _begin_epoch(session: _Session) -> Recipe:
    """Return the recipe for the current settings; record, or refuse, a change of settings."""
    settings, journal = session.settings, session.journal
    label = session.retry.until_done(lambda: data_set_label(settings, session.source, journal))
    recipe = make_recipe(settings, load_hierarchy(settings), label)
    if session.source.data_set_tells_samples:
        session.retry.until_done(lambda: journal.facts.remember_label(recipe.promise.key_id, label))
    filters = session.retry.until_done(lambda: filters_in(journal, settings))
    epoch = Epoch(recipe.promise, settings.batch_size_seconds * NANOSECONDS, filters)
    accept, now_ns = settings.accept_new_pseudonym_key, session.clock.now_ns
    session.retry.until_done(lambda: continue_or_begin_epoch(journal, epoch, accept_new_key=accept, now_ns=now_ns()))
    session.retry.until_done(lambda: _begin_trail(session, epoch))
    return recipe


def _begin_trail(session: _Session, epoch: Epoch) -> None:
    """Begin or continue the audit log: tell this start, and releases that a crash kept from being told."""
    settings, journal = session.settings, session.journal
    if not settings.audit_log:
        return
    trail = open_trail(Path(settings.audit_log), Path(settings.state_dir), journal, session.clock.now_ns)
    trail.started(
        version=VERSION,
        key_id=epoch.promise.key_id,
        selection=keyed_digest(journal.facts.digests.key, epoch.selection.encode())[:16],
        settings=dict(shown_settings(settings)),
    )
    trail.follow(journal.released_intervals(), at_once=True)
    journal.after_fence = lambda: trail.follow(journal.released_intervals())
    session.observation.trail = trail


def _match_outputs(session: _Session) -> SetAside:
    """Match the enabled outputs with those in the journal; return the store of their refused rows."""
    journal, names = session.journal, [output.name for output in session.outputs]
    set_aside = SetAside(session.state_dir / "set_aside")
    session.retry.until_done(lambda: match_outputs(journal, set_aside, names, state_dir=session.state_dir))
    session.retry.until_done(lambda: forget_removed_outputs(journal, names))
    return set_aside


def _plan(session: _Session) -> Schedule:
    """Return the schedule; refuse the run if any of its windows may have been released elsewhere."""
    settings, source, journal, retry = session.settings, session.source, session.journal, session.retry
    telemetry = session.observation.telemetry
    stream_position_ns = retry.until_done(journal.stream_position_ns)
    retry.until_done(lambda: account_for_added_rows(settings, source, journal, telemetry))
    retry.until_done(lambda: account_for_parts(source, journal, telemetry))
    schedule = make_schedule(settings, source, session.clock, stream_position_ns=stream_position_ns)
    session.observation.plan(schedule.windows_in_all)
    _refuse_releases_elsewhere(session, schedule)
    retry.until_done(lambda: _count_rows_outside(session, schedule))
    return schedule


def _make_delivery(session: _Session, store: Store, workforce: Workforce | None) -> Delivery:
    return Delivery(
        session.outputs,
        store,
        retry=session.retry,
        telemetry=session.observation.telemetry,
        clock=session.clock,
        spool_max_bytes=session.settings.spool_max_bytes,
        batch_by_batch=session.reports_each_window,
        couriers=workforce.couriers if workforce else None,
    )


def _check_before_first_release(session: _Session, schedule: Schedule, delivery: Delivery) -> None:
    """Refuse a one-shot run whose output denies access, and a file in which most sources contradict themselves."""
    settings = session.settings
    if not settings.streaming_mode:
        delivery.wait_until_tried()
        _raise_failures(delivery.failures())
    if session.source.is_surveyed:
        windows = WindowRange(schedule.start_ns, schedule.due_end_ns, settings.batch_size_seconds * NANOSECONDS)
        session.retry.until_done(lambda: refuse_contradictory(session.source, windows, most_rows=_chunk_rows(session)))


def _chunk_rows(session: _Session) -> int:
    return -(-session.settings.max_records_per_query // (session.source.concurrent_reads + _OTHER_CHUNKS_IN_HAND))


def _parts(
    session: _Session,
    recipe: Recipe,
    delivery: Delivery,
    advance: Callable[[int, int], None],
    workforce: Workforce | None,
    exclusion: Callable[[], Exclusion],
) -> Parts:
    settings, source, journal, clock = session.settings, session.source, session.journal, session.clock
    telemetry = session.observation.telemetry
    return Parts(
        source=source,
        recipe=recipe,
        journal=journal,
        delivery=delivery,
        telemetry=telemetry,
        retry=session.retry,
        clock=clock,
        most_rows=_chunk_rows(session),
        is_stream=settings.streaming_mode,
        judges_first_chunk=not session.source.is_surveyed,
        unit_is_window=session.reports_each_window,
        plans_by_hour=plans_by_hour(settings),
        workforce=workforce.chunks if workforce else None,
        advance=advance,
        exclusion=exclusion,
        upkeep=make_upkeep(settings, source, journal, telemetry, clock, looks=_looks(session)),
        give_back_memory=give_back_freed_memory,
    )


def _looks(session: _Session) -> list[Callable[[], None]]:
    """Return what looks, now and then, for other cuts of the bucket, and for rows of no cohort."""
    settings, source, guard = session.settings, session.source, session.guard
    looks = [guard.look_if_due]
    if settings.streaming_mode and settings.cohort_tag:
        are_served = partial(serves_rows_without_cohort, settings, source, guard)
        telemetry, tag = session.observation.telemetry, settings.cohort_tag
        counting = RowsWithoutCohort(source, session.journal, telemetry, session.clock, tag=tag, are_served=are_served)
        looks.append(counting.look_if_due)
    return looks


def _warn_if_nothing_was_read(session: _Session) -> None:
    totals = session.observation.telemetry.totals
    if not (session.settings.streaming_mode or totals.counts.read or totals.skipped_windows or session.clock.is_stopping()):
        WARNING.log(session.source.advice_when_empty())


def _count_rows_outside(session: _Session, schedule: Schedule) -> None:
    """Count the rows outside the run's windows: once per run, even if its windows were released before."""
    settings = session.settings
    if schedule.windows_in_all is None:
        return
    end_ns = schedule.start_ns + schedule.windows_in_all * settings.batch_size_seconds * NANOSECONDS
    beside = session.source.rows_beside(schedule.start_ns, end_ns)
    if beside.without_time or beside.not_requested:
        session.observation.telemetry.rows_beside(without_time=beside.without_time, not_requested=beside.not_requested)
    if settings.cohort_tag:
        are_served = serves_rows_without_cohort(settings, session.source, session.guard)
        warn_of_rows_without_cohort(beside.not_requested, settings.cohort_tag, are_served=are_served)


def _finish(step: str, action: Callable[[], None]) -> None:
    """Run one step of the shutdown. A failure is only logged: raised, it would hide an earlier error and skip later steps."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  (as above)
        _END_STEP_FAILED.log(step, error)


def _refuse_releases_elsewhere(session: _Session, schedule: Schedule) -> None:
    settings, journal, windows = session.settings, session.journal, schedule.windows_in_all
    length_ns = settings.batch_size_seconds * NANOSECONDS
    end_ns = ANY_TIME.end_ns if windows is None else schedule.start_ns + windows * length_ns
    if end_ns <= schedule.start_ns:
        return
    labels = session.retry.until_done(lambda: data_set_labels(settings, session.source, journal))
    span, bucket = Window(schedule.start_ns, end_ns), settings.influx_output_bucket
    if settings.output_to_influx:
        with open_summaries(settings) as summaries:
            refuse_releases_elsewhere(
                summaries,
                journal,
                labels,
                span,
                bucket=bucket,
                retry=session.retry,
                may_be_a_namesakes=session.source.may_have_a_namesake,
            )
    if settings.output_to_parquet:
        refuse_releases_elsewhere(held_parquet(settings, labels), journal, labels, span, bucket=None, retry=session.retry)
    session.guard.start(span, session.retry)


def _raise_failures(failures: list[Exception]) -> None:
    """Raise the outputs' failures: all that an operator must fix together, else the first."""
    refusals = [str(failure) for failure in failures if isinstance(failure, OutputDenied)]
    if refusals:
        raise ConfigurationError(refusals)
    if failures:
        raise failures[0]


def _exit_code(settings: Settings, telemetry: Telemetry, clock: SystemClock) -> int:
    if settings.streaming_mode:
        return exit_codes.DONE
    if clock.stopped_by is not None:
        return _SIGNAL_BASE + clock.stopped_by
    if telemetry.totals.violations:
        return exit_codes.VERIFICATION_FAILED
    return exit_codes.SET_ASIDE if telemetry.totals.set_aside else exit_codes.DONE

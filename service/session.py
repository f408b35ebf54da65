"""One run of the service from its parts, in their order: lock, source, journal, outputs, loop, end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from anonymizer.errors import ConfigurationError, JournalDamaged, OutputDenied, SourceDenied, SourceRefused, StateUnavailable
from anonymizer.ports import Output
from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service import exit_codes
from service.clock import Stopped, SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Store
from service.log_event import ERROR, WARNING, LogEvent
from service.observation import Observation
from service.pipeline.added_rows import account_for_added_rows
from service.pipeline.contradictions import refuse_contradictory
from service.pipeline.release import Parts, run
from service.pipeline.released_elsewhere import ANY_TIME, refuse_releases_elsewhere
from service.pipeline.schedule import Schedule
from service.retry import RetriesExhausted, Retry
from service.settings.declared import Settings
from service.startup import open_source, with_bucket_name
from service.state.instance_lock import AnotherInstance, InstanceLock
from service.state.journal import Epoch, Journal
from service.state.set_aside import SetAside
from service.state.settings_changes import continue_or_begin_epoch, forget_removed_outputs, recognise_outputs
from service.state.spool import Spool, SpoolDamaged
from service.telemetry.hub import Telemetry
from service.telemetry.progress import progress_of
from service.wiring import (
    data_set_label,
    data_set_labels,
    load_hierarchy,
    make_outputs,
    make_recipe,
    make_schedule,
    make_source,
    make_upkeep,
    open_summaries,
    selection_digest,
)

#: A thread whose answer has come waits no longer for one that computes; Python's own 5 ms are a tenth of a request.
_TURN_S = 0.0005

_GAVE_UP = LogEvent("gave_up", "❌ Gave up after RETRY_BUDGET_SECONDS=%d: %s", "budget_seconds reason", logging.ERROR)
_END_STEP_FAILED = LogEvent("end_step_failed", "⚠️ %s failed at the end of the run: %s", "step reason", logging.WARNING)

#: Beside the chunks that are being read, one is anonymized and two are kept for outputs.
_OTHER_CHUNKS_IN_HAND = 3

#: What a shell adds to the number of the signal that ended a process.
_SIGNAL_BASE = 128

#: How long outputs may still write after we were asked to stop.
GRACE_S = 5.0


def serve(settings: Settings, clock: SystemClock) -> int:
    """Do what the settings say until the end, or until asked to stop; return the exit code. Every failure is logged as a sentence."""
    sys.setswitchinterval(_TURN_S)
    clock.code_when_stuck = exit_codes.DONE if settings.streaming_mode else None
    # A process that is stuck after this, in its last log lines, still ends with this code.
    clock.code_when_stuck = code = _code_of(settings, clock)
    return code


def _code_of(settings: Settings, clock: SystemClock) -> int:
    try:
        return _serve(settings, clock)
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
        return _exit_code(settings, Telemetry(k=0, verbose=False), clock)


def _serve(settings: Settings, clock: SystemClock) -> int:
    lock = _retry(settings, clock).until_done(lambda: InstanceLock(Path(settings.state_dir)))
    try:
        with Observation(settings, clock) as observation:
            return _open_and_work(settings, clock, observation)
    finally:
        lock.release()


def _retry(settings: Settings, clock: SystemClock, telemetry: Telemetry | None = None) -> Retry:
    budget_s = None if settings.streaming_mode else settings.retry_budget_seconds
    return Retry(clock, budget_s=budget_s, telemetry=telemetry)


def _open_and_work(given: Settings, clock: SystemClock, observation: Observation) -> int:
    retry = _retry(given, clock, observation.telemetry)
    settings = retry.until_done(lambda: with_bucket_name(given))
    source, outputs = make_source(settings), make_outputs(settings)
    observation.expect(outputs)
    folder = Path(settings.state_dir)
    try:
        open_source(settings, source, retry)
        journal = retry.until_done(
            lambda: Journal(
                folder,
                data_set=source.data_set,
                address=source.data_set_address,
                has_grown_from=lambda known: source.added_since(known) is not None,
            )
        )
        try:
            return _work(settings, clock, source, outputs, journal, retry, observation)
        finally:
            _finish("Reading the last figures", lambda: observation.unwatch(journal))
            _finish("Closing the journal", journal.close)
    finally:
        _finish("Closing the source", source.close)


def _work(
    settings: Settings,
    clock: SystemClock,
    source: SampleSource,
    outputs: list[Output],
    journal: Journal,
    retry: Retry,
    observation: Observation,
) -> int:
    telemetry = observation.telemetry
    label = retry.until_done(lambda: data_set_label(settings, source, journal))
    recipe = make_recipe(settings, load_hierarchy(settings), label)
    epoch = Epoch(recipe.promise, settings.batch_size_seconds * NANOSECONDS, selection_digest(settings))
    retry.until_done(
        lambda: continue_or_begin_epoch(journal, epoch, accept_new_key=settings.accept_new_pseudonym_key, now_ns=clock.now_ns())
    )
    state, names = Path(settings.state_dir), [output.name for output in outputs]
    set_aside = SetAside(state / "set_aside")
    retry.until_done(lambda: recognise_outputs(journal, set_aside, names, state_dir=state))
    retry.until_done(lambda: forget_removed_outputs(journal, names))
    stream_position_ns = retry.until_done(journal.stream_position_ns)
    retry.until_done(lambda: account_for_added_rows(settings, source, journal, telemetry))
    schedule = make_schedule(settings, source, clock, stream_position_ns=stream_position_ns)
    observation.plan(schedule.windows_in_all)
    _tell_rows_beside(source, schedule, settings, telemetry)
    labels = retry.until_done(lambda: data_set_labels(settings, source, journal))
    _refuse_releases_elsewhere(settings, journal, schedule, labels, retry)
    batch_by_batch = settings.streaming_mode and settings.verbose_logging
    delivery = Delivery(
        outputs,
        Store(journal, retry.until_done(lambda: Spool(state / "spool", waiting=journal.outputs.spooled_chunks)), set_aside),
        retry=retry,
        telemetry=telemetry,
        clock=clock,
        spool_max_bytes=settings.spool_max_bytes,
        batch_by_batch=batch_by_batch,
    )
    started_s = clock.monotonic_s()
    retry.until_done(delivery.start)
    retry.until_done(lambda: observation.watch(journal, recipe.promise))
    try:
        if not settings.streaming_mode:
            delivery.wait_until_tried()
            _raise_first(delivery.failures())
        if settings.input_file:
            windows = WindowRange(schedule.start_ns, schedule.due_end_ns, epoch.window_ns)
            retry.until_done(lambda: refuse_contradictory(source, windows, most_rows=settings.max_records_per_query))
        with progress_of(schedule.windows_in_all) as advance:
            parts = Parts(
                source=source,
                recipe=recipe,
                journal=journal,
                delivery=delivery,
                telemetry=telemetry,
                retry=retry,
                clock=clock,
                most_rows=-(-settings.max_records_per_query // (source.reads_at_a_time + _OTHER_CHUNKS_IN_HAND)),
                is_stream=settings.streaming_mode,
                judges_first_chunk=not settings.input_file,
                unit_is_window=batch_by_batch,
                advance=advance,
                upkeep=make_upkeep(settings, source, journal, telemetry, clock),
            )
            run(schedule, parts)
            telemetry.phase("finishing")
            delivery.drain()
    finally:
        _finish("Stopping the outputs", lambda: delivery.stop(GRACE_S))
    _raise_first(delivery.failures())
    if not (settings.streaming_mode or telemetry.totals.counts.read or telemetry.totals.skipped_windows or clock.is_stopping()):
        WARNING.log(source.advice_when_empty())
    telemetry.finished(clock.monotonic_s() - started_s)
    return _exit_code(settings, telemetry, clock)


def _tell_rows_beside(source: SampleSource, schedule: Schedule, settings: Settings, telemetry: Telemetry) -> None:
    """Count what of the source lies in no window of the run: once a run, whatever of its windows was released before."""
    if schedule.windows_in_all is None:
        return
    end_ns = schedule.start_ns + schedule.windows_in_all * settings.batch_size_seconds * NANOSECONDS
    beside = source.rows_beside(schedule.start_ns, end_ns)
    if beside.without_time or beside.not_asked_for:
        telemetry.rows_beside(without_time=beside.without_time, not_asked_for=beside.not_asked_for)


def _finish(step: str, action: Callable[[], None]) -> None:
    """Do one step of the end. A failure is logged: raised, it would hide an earlier error and skip the steps that follow."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  (as above)
        _END_STEP_FAILED.log(step, error)


def _refuse_releases_elsewhere(
    settings: Settings, journal: Journal, schedule: Schedule, labels: Collection[str], retry: Retry
) -> None:
    windows_in_all = schedule.windows_in_all
    length_ns = settings.batch_size_seconds * NANOSECONDS
    end_ns = ANY_TIME.end_ns if windows_in_all is None else schedule.start_ns + windows_in_all * length_ns
    if settings.output_to_influx and end_ns > schedule.start_ns:
        with open_summaries(settings) as summaries:
            refuse_releases_elsewhere(
                summaries,
                journal,
                labels,
                Window(schedule.start_ns, end_ns),
                bucket=settings.influx_output_bucket,
                retry=retry,
            )


def _raise_first(failures: list[Exception]) -> None:
    """Raise what outputs gave up for: everything that an operator must fix at once, else the first."""
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

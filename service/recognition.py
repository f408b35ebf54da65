"""How often attackers would name the right wearer in what a run released, and in what other settings would release: for its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from anonymizer.errors import ConfigurationError, SourceError
from anonymizer.samples import SampleSource
from anonymizer.windows import WindowRange, whole_windows
from recognition.trial import Way
from service.pipeline.recognition_trial import SAMPLE_S, SHOWN_ATTACKS, LeaveOut, recognition_on
from service.report.figures import Attacked
from service.settings.declared import Settings
from service.settings.load import RHYTHM_WINDOW_S
from service.state.journal import Journal
from service.telemetry.totals import FEWEST_WINDOWS, Totals
from service.wiring.recipe import load_hierarchy, make_detector, make_recipe

#: How an error begins that a library is missing.
_NEEDED_BY = "METHOD=rhythm needs "


def attacked(
    settings: Settings,
    source: SampleSource,
    journal: Journal,
    windows: WindowRange,
    totals: Totals,
    *,
    leave_out: LeaveOut = lambda samples, _: samples,
    is_stopping: Callable[[], bool],
) -> Attacked:
    """Return the figures, or why there are none.

    Args:
        settings: Those of the run.
        source: Open; its first released minutes are read once more.
        journal: Knows which windows are released.
        windows: All windows of the run.
        totals: The run's.
        leave_out: Takes the rows of excluded sources out.
        is_stopping: Ends the trial, which may take a minute.
    """
    if totals.released_windows < FEWEST_WINDOWS:
        return Attacked(why_not=f"of fewer than {FEWEST_WINDOWS} released windows it would tell too much")
    intervals = [one.interval for one in journal.released_within(windows)]
    cut = [(max(one.start_ns, windows.start_ns), min(one.end_ns, windows.end_ns)) for one in intervals]
    released = [whole_windows(start_ns, end_ns, windows.length_ns) for start_ns, end_ns in cut]
    try:
        found = recognition_on(
            source,
            released,
            _ways(settings),
            make_detector(),
            most_rows=settings.max_records_per_query,
            leave_out=leave_out,
            is_stopping=is_stopping,
        )
    except ConfigurationError as error:
        return Attacked(why_not=str(error).replace(_NEEDED_BY, "it needs "))
    except SourceError:
        return Attacked(why_not="the source did not give the rows a second time")
    if is_stopping():
        return Attacked(why_not="the run was asked to stop")
    if not found:
        return Attacked(why_not="there are not two wearers with heartbeats to tell apart")
    return Attacked(
        people=len(found[0][1][0].right),
        seconds=min(SAMPLE_S, sum(one.end_ns - one.start_ns for one in released) // 10**9),
        attackers=tuple(attack.name for attack in SHOWN_ATTACKS),
        ways=tuple((name, tuple((sum(one.right), sum(one.spans)) for one in of_way)) for name, of_way in found),
    )


def _ways(settings: Settings) -> list[Way]:
    """Return what recognition is compared for: these settings, k of rows and of sources with windows of the same length, and rhythm.

    Raises:
        ConfigurationError: The detector is not installed, or the hierarchy cannot be read.
    """
    plain = dataclasses.replace(settings, pseudonymize_source_id=False, utility_metrics=False)
    by_rows = dataclasses.replace(plain, k_unit="record", method="hierarchy" if settings.method == "rhythm" else settings.method)
    by_sources = dataclasses.replace(by_rows, k_value=5, k_unit="source", residual="regroup")
    rhythm = (
        plain if settings.method == "rhythm" else dataclasses.replace(plain, method="rhythm", batch_size_seconds=RHYTHM_WINDOW_S)
    )
    named = {
        "this run": plain,
        "k = 5 rows": dataclasses.replace(by_rows, k_value=5),
        "k = 20 rows": dataclasses.replace(by_rows, k_value=20),
        "k = 5 sources": by_sources,
        "METHOD=rhythm": rhythm,
    }
    ways = [
        Way(name, make_recipe(one, load_hierarchy(one), "recognition"), one.batch_size_seconds) for name, one in named.items()
    ]
    (own, *others) = ways
    return [own, *(way for way in others if way.recipe.promise != own.recipe.promise)]

"""The status page's data: a snapshot and its judgement as JSON. Counts, times and names of outputs only."""

from __future__ import annotations

from typing import Any

from anonymizer.windows import NANOSECONDS
from service.status.judgement import Finding, Judgement, judge
from service.status.snapshot import Moment, OutputState, Snapshot, Trouble
from service.telemetry.totals import FEWEST_WINDOWS
from service.time_texts import as_datetime
from service.version import VERSION


def readiness(judgement: Judgement) -> dict[str, Any]:
    """Return the answer of `/readyz`."""
    return {"ready": judgement.is_ready, "reasons": [_finding(one) for one in judgement.reasons]}


def liveness(now: Snapshot, judgement: Judgement) -> dict[str, Any]:
    """Return the answer of `/livez`."""
    return {"live": judgement.is_live, "idle_seconds": round(now.pace.idle_s, 1), "limit_seconds": now.pace.idle_limit_s}


def page_data(now: Snapshot) -> dict[str, Any]:
    """Return the answer of `/status.json`."""
    judgement = judge(now)
    run, totals = now.run, now.totals
    return {
        **readiness(judgement),
        "live": judgement.is_live,
        "state": judgement.state,
        "headline": judgement.headline,
        "sentence": judgement.sentence,
        "notices": [_finding(one) for one in judgement.notices],
        "now": _time(now.now_ns),
        "started": _time(run.started_ns),
        "version": VERSION,
        "cohort": None if run.cohort is None else str(run.cohort),
        "phase": run.phase,
        "streaming": run.is_stream,
        "windows_in_all": run.windows_in_all,
        "up_to": None if run.up_to_ns is None else _time(run.up_to_ns),
        "lag_seconds": round(now.pace.lag_s, 1),
        "lag_limit_seconds": now.pace.lag_limit_s,
        "windows": totals.windows_by_outcome,
        "rows": {
            **totals.rows_by_outcome,
            "late": totals.late,
            "invalid_by_reason": totals.invalid_by_reason,
            "outside": totals.outside,
            "contradictory": totals.contradictory,
            "noisy": totals.noisy,
            "unaccounted": totals.unaccounted,
        },
        "verification_failures": totals.violations,
        **(_groups(now) if run.has_groups else {"levels": None, "groups": None}),
        "outputs": [_output(one) for one in now.outputs],
        "source": {"trouble": _trouble(now.source.trouble), "retries": now.source.retries},
        "spool": {"bytes": now.spool.size_bytes, "limit_bytes": now.spool.limit_bytes},
        "workers": now.workers,
        "moments": _columns(now.moments),
    }


def _groups(now: Snapshot) -> dict[str, Any]:
    totals = now.totals
    return {
        "levels": {"rows": now.levels.rows, "windows": now.levels.windows, "fewest_windows": FEWEST_WINDOWS},
        "groups": {
            "number": totals.groups,
            "smallest": totals.smallest_group,
            "mean_rows": round(totals.counts.released / totals.groups, 1) if totals.groups else 0,
        },
    }


def _output(one: OutputState) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "position": one.position,
        "taken": one.taken,
        "set_aside": one.set_aside,
        "pending": one.pending,
        "unaccounted": one.unaccounted,
        "retries": one.retries,
        "trouble": _trouble(one.trouble),
        "last_error": _trouble(one.last_error),
        "has_ended": one.has_ended,
    }


def _trouble(trouble: Trouble | None) -> dict[str, str] | None:
    return None if trouble is None else {"since": _time(trouble.since_ns), "reason": trouble.reason}


def _finding(one: Finding) -> dict[str, str]:
    found = {"code": one.code, "text": one.text}
    return {**found, "output": one.output} if one.output else found


def _columns(moments: tuple[Moment, ...]) -> dict[str, list[float]]:
    return {
        "start": [one.start_ns // NANOSECONDS for one in moments],
        "released": [one.windows_released for one in moments],
        "withheld": [one.windows_withheld for one in moments],
        "empty": [one.windows_empty for one in moments],
        "rows_late": [one.rows_late for one in moments],
        "lag_seconds": [round(one.lag_s, 1) for one in moments],
    }


def _time(time_ns: int) -> str:
    return as_datetime(time_ns).strftime("%Y-%m-%dT%H:%M:%SZ")

"""What the status page polls: a snapshot and its judgement as JSON. Counts, times, and the names of outputs; nothing else."""

from __future__ import annotations

from typing import Any

from anonymizer.windows import NANOSECONDS
from service.status.judgement import Finding, Judgement, judge
from service.status.snapshot import Moment, OutputState, Snapshot, Trouble
from service.telemetry.totals import FEWEST_WINDOWS
from service.time_texts import as_datetime
from service.version import VERSION


def readiness(judgement: Judgement) -> dict[str, Any]:
    """Return what `/readyz` answers."""
    return {"ready": judgement.is_ready, "reasons": [_finding(one) for one in judgement.reasons]}


def liveness(now: Snapshot, judgement: Judgement) -> dict[str, Any]:
    """Return what `/livez` answers."""
    return {"live": judgement.is_live, "idle_seconds": round(now.idle_s, 1), "limit_seconds": now.idle_limit_s}


def page_data(now: Snapshot) -> dict[str, Any]:
    """Return what `/status.json` answers."""
    judgement = judge(now)
    counts = now.counts
    return {
        **readiness(judgement),
        "live": judgement.is_live,
        "state": judgement.state,
        "headline": judgement.headline,
        "sentence": judgement.sentence,
        "notices": [_finding(one) for one in judgement.notices],
        "now": _time(now.now_ns),
        "started": _time(now.started_ns),
        "version": VERSION,
        "phase": now.phase,
        "streaming": now.is_stream,
        "windows_in_all": now.windows_in_all,
        "up_to": None if now.up_to_ns is None else _time(now.up_to_ns),
        "lag_seconds": round(now.lag_s, 1),
        "lag_limit_seconds": now.lag_limit_s,
        "windows": now.windows,
        "rows": {
            "read": counts.read,
            "released": counts.released,
            "withheld": counts.withheld,
            "invalid": counts.invalid,
            "duplicate": counts.duplicate,
            "late": now.rows_late,
            "invalid_by_reason": now.invalid_by_reason,
            "outside": now.rows_outside,
            "contradictory": now.rows_contradictory,
            "unaccounted": now.unaccounted,
        },
        "verification_failures": now.violations,
        "levels": {"rows": now.rows_at_level, "windows": now.windows_in_levels, "fewest_windows": FEWEST_WINDOWS},
        "groups": {
            "number": now.groups,
            "smallest": now.smallest_group,
            "mean_rows": round(counts.released / now.groups, 1) if now.groups else 0,
        },
        "outputs": [_output(one) for one in now.outputs],
        "source": {"trouble": _trouble(now.source_trouble), "retries": now.source_retries},
        "spool": {"bytes": now.spool_bytes, "limit_bytes": now.spool_limit_bytes},
        "moments": _columns(now.moments),
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

"""Judges a snapshot: whether the release loop is alive, whether the service is ready, and why, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.status.snapshot import OutputState, Snapshot, Trouble
from service.time_texts import as_datetime, date_and_time, length_text, many_text

#: Above these shares of the last hour's rows, withheld and late rows need an operator's attention.
_WITHHELD_LIMIT = 0.15
_LATE_LIMIT = 0.001

State = Literal["ok", "attention", "trouble"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem: a stable code for programs, a sentence for people, and the output it concerns, if any."""

    code: str
    text: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The meaning of a snapshot.

    Args:
        is_live: Whether the release loop advances, or waits as announced.
        reasons: Why the service is not ready; empty if it is.
        notices: Findings that need an operator's attention although data flows.
        headline: The state in a few words.
        sentence: The state in one sentence.
    """

    is_live: bool
    reasons: tuple[Finding, ...]
    notices: tuple[Finding, ...]
    headline: str
    sentence: str

    @property
    def is_ready(self) -> bool:
        """Whether data flows."""
        return not self.reasons

    @property
    def state(self) -> State:
        """The worst finding."""
        if self.reasons:
            return "trouble"
        return "attention" if self.notices else "ok"


def judge(now: Snapshot) -> Judgement:
    """Return the meaning of a snapshot."""
    is_live = now.pace.idle_s <= now.pace.idle_limit_s
    reasons = tuple(_reasons(now, is_live=is_live))
    notices = tuple(_notices(now))
    if reasons:
        headline, sentence = _HEADLINES[reasons[0].code], " ".join(one.text for one in reasons)
    else:
        headline = "Needs attention" if notices else _ALL_WELL[now.run.phase]
        sentence = " ".join([_progress(now), *(one.text for one in notices)])
    return Judgement(is_live, reasons, notices, headline, sentence)


_HEADLINES = {
    "hangs": "The work loop hangs",
    "source_unreachable": "The source does not answer",
    "state_unavailable": "Our own disk cannot be used",
    "workers_unavailable": "No worker can be reached",
    "output_unreachable": "An output does not take data",
    "output_ended": "An output is not written to any more",
    "reading_paused": "Reading pauses",
    "behind": "Behind",
    "stopping": "Stopping",
    "connecting": "Starting",
}

_ALL_WELL = {"connecting": "Starting", "working": "All is well", "finishing": "Finishing", "stopping": "Stopping"}


def _reasons(now: Snapshot, *, is_live: bool) -> Iterator[Finding]:
    """Yield why data does not flow, the most important first."""
    if now.run.phase == "stopping":
        yield Finding("stopping", "The service was asked to stop and brings what is in hand to its end.")
    if not is_live:
        yield Finding("hangs", f"The work loop has not advanced for {length_text(now.pace.idle_s)}.")
    if now.source.trouble:
        yield Finding("source_unreachable", f"The source has not answered since {_since(now.source.trouble)}.")
    elif now.run.phase == "connecting":
        yield Finding("connecting", "The service is starting and has not read anything yet.")
    if now.state.trouble:
        yield Finding("state_unavailable", f"STATE_DIR cannot be used since {_since(now.state.trouble)}.")
    if now.workforce.trouble:
        yield Finding("workers_unavailable", f"No worker can be given work since {_since(now.workforce.trouble)}.")
    for output in now.outputs:
        yield from _trouble_of(output)
    if now.spool.is_full:
        yield Finding("reading_paused", "The spool is full: nothing is read until outputs have taken something.")
    if now.pace.lag_s > now.pace.lag_limit_s:
        yield Finding("behind", f"The next window has been due for {length_text(now.pace.lag_s)}.")


def _trouble_of(output: OutputState) -> Iterator[Finding]:
    if output.trouble is None:
        return
    if output.has_ended:
        yield Finding("output_ended", f"{output.name} is not written to any more: {output.trouble.reason}.", output.name)
    else:
        waits = f"{output.pending:,} rows wait for it."
        yield Finding(
            "output_unreachable", f"{output.name} has taken nothing since {_since(output.trouble)}; {waits}", output.name
        )


def _notices(now: Snapshot) -> Iterator[Finding]:
    if now.totals.unaccounted or any(output.unaccounted for output in now.outputs):
        yield Finding("not_conserved", "Rows are unaccounted for: this is a bug, please report it.")
    if now.totals.violations:
        yield Finding(
            "verification_failed", f"{many_text(now.totals.violations, 'window')} failed verification and stayed withheld."
        )
    for output in now.outputs:
        if output.set_aside:
            yield Finding(
                "set_aside", f"{output.name} refused {many_text(output.set_aside, 'row')}, which were set aside.", output.name
            )
    if now.removed.kept:
        yield Finding(
            "retention_kept",
            f"{many_text(now.removed.kept, 'file')} older than RETENTION_DAYS could not, or must not, be removed.",
        )
    read, withheld, late, contradictory, noisy = (
        sum(getattr(one, f"rows_{rows}") for one in now.moments)
        for rows in ("read", "withheld", "late", "contradictory", "noisy")
    )
    if read and withheld / read >= _WITHHELD_LIMIT:
        as_noise = f" ({100 * noisy / read:.0f} % as noise)" if noisy else ""
        yield Finding("withheld", f"{100 * withheld / read:.0f} % of the last hour's rows were withheld{as_noise}.")
    if contradictory:
        rows = many_text(contradictory, "row")
        yield Finding(
            "contradictory", f"{rows} of the last hour were withheld: their sources hold two different values for one time."
        )
    if read and late / read > _LATE_LIMIT:
        yield Finding("late", f"{many_text(late, 'row')} of the last hour came too late for their window.")


def _progress(now: Snapshot) -> str:
    done = sum(now.totals.windows_by_outcome.values())
    if not now.run.is_stream and now.run.windows_in_all is not None:
        return f"{done:,} of {many_text(now.run.windows_in_all, 'window')} done."
    if now.run.up_to_ns is None:
        return "Nothing was read yet."
    waiting = sum(output.pending for output in now.outputs)
    behind = f", {length_text(now.pace.lag_s)} behind" if now.pace.lag_s >= 1 else ""
    return (
        f"Up to {date_and_time(now.run.up_to_ns)} UTC everything is done{behind}; {many_text(waiting, 'row')} wait for outputs."
    )


def _since(trouble: Trouble) -> str:
    return f"{as_datetime(trouble.since_ns).strftime('%H:%M:%S')} UTC ({trouble.reason})"

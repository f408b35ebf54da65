"""Names for programs: what each log line is called with LOG_FORMAT=json, and what its values are. Wording may change, these may not.

A line's text, before its values are filled in, tells which it is. A test sees that no line is missing here, and that
`documentation/LOG_EVENTS.md` says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class LogEvent(NamedTuple):
    """The name of an event and the names of the values in its text, in their order."""

    name: str
    fields: tuple[str, ...] = ()


def _event(name: str, fields: str = "") -> LogEvent:
    return LogEvent(name, tuple(fields.split()))


#: What any other line is called, such as one that a library logs.
OTHER = LogEvent("other")

#: Lines that are only for the eye, and are left out.
DECORATION = frozenset({"=" * 60})

LOG_EVENTS: Mapping[str, LogEvent] = {
    # The start
    "🚀 Central ECG Anonymization Service": _event("started"),
    "Configuration Summary:": _event("configuration_follows"),
    "  %-14s %s": _event("configuration", "title value"),
    "⚠️ %s": _event("warning", "warning"),
    "❌ %s": _event("error", "error"),
    "✅ The configuration is good%s": _event("configuration_good", "also"),
    "💥 %s=%s: this process will kill itself there. For tests only": _event("crash_point_armed", "variable point"),
    "⚠️ %s %s: its disk cannot make names of new files durable (it does not sync folders), so a power cut may take a "
    "file that was just written. Put it on a local disk; a crash of the service alone loses nothing": _event(
        "folders_not_synced", "setting folder"
    ),
    "📟 Status page at http://%s/%s": _event("status_page", "address note"),
    "✅ Connected to InfluxDB at %s": _event("connected", "url"),
    "❌ Failed to connect to InfluxDB: %s": _event("connection_failed", "reason"),
    "   Is it running, and is INFLUX_URL right? Try: curl %s/health": _event("connection_advice", "url"),
    "⚠️ Settings changed since the last release: they hold for windows that are not yet released": _event("settings_changed"),
    "⚠️ What bucket %r already holds is not compared with STATE_DIR: %s": _event("bucket_not_compared", "bucket reason"),
    "What bucket %r already holds cannot be read with this token, so it is not compared with STATE_DIR": _event(
        "bucket_not_readable", "bucket"
    ),
    "Bucket %r does not exist, so it holds nothing that STATE_DIR does not know of": _event("bucket_missing", "bucket"),
    "⚠️ STATE_DIR knows of no release, and what bucket %r already holds cannot be read with this token: windows that were released "
    "with another STATE_DIR would be released again. Set INFLUX_VERIFY_TOKEN to a token that may read the bucket": _event(
        "bucket_not_readable_at_first", "bucket"
    ),
    "%s=%s is bucket %r": _event("bucket_named", "setting given bucket"),
    "Output %s is called %s from now on": _event("output_renamed", "output new_name"),
    "QUERY_END_TIME is later than the last window that is due; clipped to that window's end": _event("end_clipped"),
    "Only whole windows of %d s are read; the span was cut to their edges": _event("span_cut", "window_seconds"),
    "↩️ %d released rows still wait for %s": _event("pending_at_start", "rows output"),
    # Windows
    "📅 %s (UTC)": _event("day", "day"),
    "📦 Processing batch: %s": _event("processing", "windows"),
    "  Fetched %d records from batch": _event("fetched", "rows"),
    "🔒 Anonymizing batch: %d records (K=%d)": _event("anonymizing", "rows k"),
    "  %s": _event("satisfied", "summary"),
    "  Anonymization complete: %d records": _event("anonymized", "rows"),
    "📈 Level distribution: %s": _event("levels", "rows_at_level"),
    "📊 Window %s: levels %s, %d groups, smallest %s, mean level %s": _event(
        "window_statistics", "window rows_at_level groups smallest_group mean_level"
    ),
    "🩺 Fidelity over %d windows, %d rows: r %.4f, PRDN %.2f %%": _event("fidelity", "windows rows correlation prdn_percent"),
    "No data in this batch, skipping...": _event("no_data"),
    "⌛ %d windows expired: %s is older than what the source keeps": _event("windows_expired", "count windows"),
    "⏭️ %d windows of %s were released before (%s) and are skipped": _event("windows_skipped", "count windows promises"),
    "⏰ %d rows came after their windows were released (%d windows) and stay out; ALLOWED_LATENESS_SECONDS=%d would have "
    "waited for them": _event("rows_late", "rows windows sufficient_lateness_seconds"),
    "⏰ %d rows that were added to INPUT_FILE lie in windows that were released before and stay out": _event(
        "added_too_late", "rows"
    ),
    "Late rows are counted another time: %s": _event("recount_postponed", "reason"),
    "Upkeep is done another time: %s": _event("upkeep_postponed", "reason"),
    "%d of %d windows hold fewer rows than were counted; reading them again": _event("read_again", "windows of_windows"),
    "%d rows had times outside what was asked for; they are not released": _event("rows_outside", "rows"),
    "❌ Withheld, because it failed verification: %s": _event("verification_failed", "violation"),
    "⚠️ %d records took %.1f s, more than a second per %d": _event("slow", "rows seconds rows_per_second_limit"),
    "⚠️ %.0f %% of records suppressed, dropped or withheld; raise BATCH_SIZE_SECONDS, lower K_VALUE or add sources": _event(
        "much_withheld", "percent"
    ),
    "⚠️ Mean level %.1f: values are blurred widely; raise BATCH_SIZE_SECONDS or lower K_VALUE": _event(
        "wide_levels", "mean_level"
    ),
    "⚠️ %.1f %% of records lie beyond the hierarchy's ends and were clipped; check VALUE_UNIT": _event("much_clipped", "percent"),
    "⚠️ %d rows of %d windows are withheld: up to %d sources per window hold two different values for one time "
    "(%d rows in this run). %s": _event("contradictory", "rows windows sources rows_in_run advice"),
    "⚠️ The values of %d of %d sources hardly move: all within ±3 µV for a second or more, and no flat line. Are they "
    "millivolts? Check VALUE_UNIT, which holds for all sources": _event("values_hardly_move", "sources of_sources"),
    "⚠️ The values of %d of %d sources move a hundred times more, or less, than those of the others: are they in another "
    "unit? VALUE_UNIT holds for all sources; convert the others where they are written": _event(
        "units_differ", "sources of_sources"
    ),
    "⚠️ %d source ids that are released as they are begin with =, +, -, @, a tab or a line end: a spreadsheet that opens "
    "the CSV may run them as formulas. Set PSEUDONYMIZE_SOURCE_ID=true, or import that column as text": _event(
        "ids_are_formulas", "sources"
    ),
    # Outputs
    "💾 Saving %s records to CSV: %s": _event("writing", "rows target"),
    "📤 Pushing %s records to InfluxDB: %s": _event("writing", "rows target"),
    "🌐 Sending %s records to API: %s": _event("writing", "rows target"),
    "📤 Writing %s records to %s": _event("writing", "rows target"),
    "  ✅ CSV saved": _event("wrote"),
    "  ✅ Successfully pushed %s points": _event("wrote", "rows"),
    "  ✅ API accepted %s records": _event("wrote", "rows"),
    "  ✅ Wrote %s records": _event("wrote", "rows"),
    "❌ %d of %d rows of batch %s were refused by %s and set aside: %s": _event(
        "set_aside", "rows of_rows batch_id output reason"
    ),
    "⏳ %s; trying again in %.1f s": _event("waiting", "reason retry_in_seconds"),
    "⚠️ The spool is more than half full: %d of %d bytes wait for outputs": _event("spool_half_full", "bytes limit_bytes"),
    "⚠️ Spool file %d may hold released rows that no output waits for; it was moved to %s": _event(
        "spool_file_moved_aside", "number path"
    ),
    "⚠️ %s held rows that STATE_DIR does not know of; they were moved to %s. If the service wrote them, STATE_DIR is new or an old "
    "copy, and windows may be released again: stop it and put the right STATE_DIR back": _event(
        "csv_rows_moved_aside", "file kept_as"
    ),
    "⏸️ Reading pauses: %d bytes wait for outputs (SPOOL_MAX_BYTES=%d)": _event("reading_paused", "bytes limit_bytes"),
    "▶️ Reading goes on": _event("reading_resumed"),
    "⚠️ Released up to %s; %s keeps rows for %s, so what is not released within %s is lost": _event(
        "retention_near", "position source kept left"
    ),
    # The end
    "🏁 Done: %d windows (%d empty, %d expired, %d withheld, %d skipped) in %.1f s; "
    "%d rows read = %d released + %d withheld + %d invalid + %d duplicate%s": _event(
        "done",
        "windows empty_windows expired_windows withheld_windows skipped_windows seconds rows_read rows_released rows_withheld "
        "rows_invalid rows_duplicate rows_beside",
    ),
    "📈 Level distribution: %s; %.0f %% of released rows keep their value": _event(
        "levels_in_all", "rows_at_level percent_unchanged"
    ),
    "❌ Gave up after RETRY_BUDGET_SECONDS=%d: %s": _event("gave_up", "budget_seconds reason"),
    "Asked to stop %.0f s ago, and still waiting for an answer: it is asked for again at the next start": _event(
        "stop_overdue", "seconds"
    ),
    "⚠️ %s failed at the end of the run: %s": _event("end_step_failed", "step reason"),
    "⚠️ %d log lines are missing here: standard output did not take them": _event("lines_missing", "count"),
    "SIGHUP does not stop this process; SIGTERM does": _event("hang_up_ignored"),
    "📄 Report: %s": _event("report_written", "path"),
    "⚠️ The report could not be written to %s: %r": _event("report_failed", "path reason"),
}

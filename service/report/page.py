"""A report as one HTML file that needs nothing else: for a privacy officer to read, print and sign."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
from collections.abc import Iterator, Mapping

from service.report.figures import Delivered, Detail, Figures, Promised
from service.report.markup import day, section, spans_text, table, wide_table
from service.report.outside_check import outside_check
from service.report.plots import bars, bars_over_time
from service.report.style import STYLE
from service.sums import FEWEST_WINDOWS
from service.time_texts import date_and_time, length_text, many_text, span_text

_LEVELS = ("1 (finest)", "2", "3", "4", "5", "6", "7 (widest)", "8 (past the last)", "9 (suppressed)")


def page(figures: Figures) -> str:
    """Return the report."""
    # So that no name in it can end the element that it stands in.
    data = json.dumps(dataclasses.asdict(figures), sort_keys=True).replace("<", "\\u003c")
    parts = [
        _head(figures),
        section("What was promised", _promised(figures)),
        section("For which times", _times(figures)),
        section("Was it kept, and who checked", _kept(figures)),
        section("What was withheld", _withheld(figures)),
        section("Where it went", _delivered(figures)),
        section("What remains risky", _risks(figures)),
        section("Levels, groups and throughput", _details(figures)),
        section("Settings", _settings(figures)),
        _signature(data, is_in_order=was_kept(figures)),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Report of {html.escape(figures.of)}, {day(figures.made_ns)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{"".join(parts)}
</main>
<script type="application/json" id="figures">{data}</script>
</body>
</html>
"""


def was_kept(figures: Figures) -> bool:
    """Return whether nothing speaks against the promise: everything is accounted for, and nothing failed verification."""
    detail = figures.detail
    smallest_is_enough = detail is None or not detail.smallest_group or all(_is_enough(detail, one) for one in figures.promised)
    return figures.counts.are_conserved() and smallest_is_enough and not (detail and detail.violations)


def _is_enough(detail: Detail, promised: Promised) -> bool:
    return promised.promise is None or detail.smallest_group >= promised.promise.k


def _head(figures: Figures) -> str:
    counts, detail = figures.counts, figures.detail
    if not was_kept(figures):
        verdict, kind = "Something is wrong: see “Was it kept”.", "bad"
    elif not counts.released:
        verdict, kind = "Nothing was released.", "plain"
    else:
        verdict, kind = "The promise was kept for everything that was released.", "good"
    unfinished = "" if detail is None or detail.is_complete else "<p><strong>The run did not come to its end.</strong></p>"
    return f"""<header>
<h1>Report of {html.escape(figures.of)}</h1>
<p>Made {date_and_time(figures.made_ns)} UTC by ECG anonymizer {html.escape(figures.version)}, of its own work.
Counts only: no row, no value and no id of a source is in this file.</p>
<p class="verdict {kind}">{verdict}</p>
{unfinished}
<p>{many_text(counts.read, "row")} read = {counts.released:,} released + {counts.withheld:,} withheld + {counts.invalid:,} invalid
+ {counts.duplicate:,} duplicate.
{many_text(figures.windows_released, "window")} of {figures.windows_in_all:,} released.</p>
</header>
"""


def _promised(figures: Figures) -> Iterator[str]:
    for one in figures.promised:
        if one.promise is None:
            yield f"<p>Of {spans_text(one.spans)} nothing is known: it was accepted as released, and is never released again.</p>"
            continue
        promise = one.promise
        shared = "rows" if promise.k_unit == "record" else "different sources"
        by = f"<strong>{promise.k} {shared}</strong> of the same window of {one.window_s} s"
        yield f"<p>Each released value is shared by at least {by}. Each window is anonymized by itself.</p>"
        yield table(
            [
                ("k", str(promise.k)),
                ("k counts", f"{shared} (K_UNIT={promise.k_unit})"),
                ("Method", promise.method),
                ("Window", f"{one.window_s} s"),
                ("Settings digest", promise.settings_digest),
                ("Pseudonym key id", promise.key_id or "none: source ids are released as they are"),
            ]
        )
        if len(figures.promised) > 1:
            yield f"<p>That was promised for {spans_text(one.spans)}.</p>"
    if imputed := figures.counts.starred + figures.counts.suppressed:
        yield (
            f"<p>Except for {many_text(imputed, 'row')} with the mean of all others of their window (RESIDUAL=impute): fewer may share "
            "that number, but it is computed without them and tells nothing of them.</p>"
        )
    yield (
        "<p><small>The settings digest changes with any setting that shapes values, the key id with the key of the pseudonyms; in the "
        "output bucket, both stand in the summary of every window.</small></p>"
    )


def _times(figures: Figures) -> Iterator[str]:
    detail = figures.detail
    if figures.asked is None:
        yield "<p>No window was looked at.</p>"
        return
    yield f"<p>Asked for was {span_text(figures.asked)} UTC, of {_data_set(dict(figures.settings))}.</p>"
    yield f"<p>Released was:<br>{spans_text([span for one in figures.promised if one.promise for span in one.spans])}</p>"
    if detail and detail.windows_skipped:
        yield f"<p>{many_text(detail.windows_skipped, 'window')} had been released before and were not released again.</p>"


def _data_set(settings: Mapping[str, str]) -> str:
    if settings.get("INPUT_FILE"):
        return "a file; its name is not shown, as it may be called after somebody"
    names = (settings.get(f"INFLUX_{name}", "") for name in ("FIELD", "MEASUREMENT", "INPUT_BUCKET"))
    field, measurement, bucket = map(html.escape, names)
    chosen = ", of chosen sources or series only" if settings.get("DEVICE_FILTER") or settings.get("INFLUX_TAG_FILTER") else ""
    return f"field {field} of measurement {measurement} in bucket {bucket}{chosen}"


def _kept(figures: Figures) -> Iterator[str]:
    detail = figures.detail
    yield (
        "<p>Every batch (what is to be released of a window) was recounted before it was released, by a second opinion "
        "(<code>anonymizer/verify.py</code>) that shares no code with what formed the groups: "
        "how many share each value, that values are finite, that times lie in the window, one row for each source and time.</p>"
    )
    if detail is None:
        yield "<p>The journal remembers only what passed. Batches that failed verification were withheld and stand in the log.</p>"
    else:
        yield table(
            [
                ("Batches that passed", f"{figures.windows_released:,}"),
                ("Batches that failed, and stayed here", f"{detail.violations:,}"),
                ("Smallest group of the run", many_text(detail.smallest_group, "row") if detail.smallest_group else "–"),
            ],
            kind="counts",
        )
        yield from _alarms(figures, detail)
    conserved = "adds up" if figures.counts.are_conserved() else "<strong>does not add up: please report this</strong>"
    yield f"<p>Rows read = released + withheld + invalid + duplicate {conserved}.</p>"
    yield from outside_check(figures)


def _alarms(figures: Figures, detail: Detail) -> Iterator[str]:
    if detail.violations:
        yield (
            "<p><strong>What failed was not released: nothing of its windows left.</strong> It must not happen, and is a bug of the "
            "program: keep the log and STATE_DIR, and report it.</p>"
        )
    if not all(_is_enough(detail, one) for one in figures.promised) and detail.smallest_group:
        yield (
            "<p><strong>A group was smaller than promised, and was released.</strong> It must not happen: stop the service, keep "
            "everything, and report it.</p>"
        )


def _withheld(figures: Figures) -> Iterator[str]:
    counts, detail = figures.counts, figures.detail
    contradictory = detail.rows_contradictory if detail else 0
    rows = [
        ("Rows withheld: too few others were like them", counts.withheld - contradictory),
        ("Rows without a readable time, a source or a finite number", counts.invalid),
    ]
    if detail:
        rows += [(f"– of these, without a {what}", number) for what, number in detail.invalid_by_reason.items() if number]
    if contradictory:
        rows += [("Rows withheld: their source held two different values for one time", contradictory)]
    rows += [
        ("Further rows alike in source, time and value", counts.duplicate),
        ("Rows that came after their window was released", figures.rows_late),
    ]
    if detail:
        rows += [("Rows of times or sources that were not asked for (not among those read)", detail.rows_outside)]
    if counts.starred or counts.suppressed:
        rows += [("Rows released with the window's mean instead of their value", counts.starred + counts.suppressed)]
    yield table([(label, f"{number:,}") for label, number in rows], kind="counts")
    if detail:
        yield (
            f"<p>Withheld whole: {many_text(detail.windows_withheld, 'window')}. Empty: {detail.windows_empty:,}. "
            f"Older than what the source keeps: {detail.windows_expired:,}.</p>"
        )
    else:
        yield from _missing(figures.windows_in_all - figures.windows_released)
    plot = figures.over_time
    values = dict(plot.series)
    width = length_text(plot.width_ns / 1e9)
    yield f"<h3>Windows, by the time they were measured (a bar: {width})</h3>"
    fates = [(name, name, values[name]) for name in ("released", "withheld", "empty") if name in values]
    yield bars_over_time(plot.starts_ns, fates, title="Windows released, withheld and empty over time")
    yield f"<h3>Rows withheld and late (a bar: {width})</h3>"
    kept_back = [("withheld", "withheld", values["rows_withheld"]), ("late", "late", values["rows_late"])]
    if any(map(sum, (kept for _, _, kept in kept_back))):
        yield bars_over_time(plot.starts_ns, kept_back, title="Rows withheld and late over time")
    else:
        yield '<p class="none">None.</p>'


def _missing(windows: int) -> Iterator[str]:
    if not windows:
        yield "<p>Between the first and the last of them no window is missing.</p>"
        return
    yield f"<p>Between the first and the last of them {many_text(windows, 'window')} {'was' if windows == 1 else 'were'} not released: "
    yield "empty, or withheld whole. The journal does not tell which.</p>"


def _delivered(figures: Figures) -> Iterator[str]:
    yield f"<p>Rows, {figures.outputs_since}.</p>"
    yield wide_table(("Output", "Taken", "Refused, set aside", "Still waiting"), [_output_row(one) for one in figures.outputs])


def _output_row(one: Delivered) -> tuple[str, ...]:
    return one.name, f"{one.taken:,}", f"{one.set_aside:,}", f"{one.pending:,}"


def _risks(figures: Figures) -> Iterator[str]:
    detail, counts = figures.detail, figures.counts
    items = [
        "The released curve is still that person's ECG: its rhythm and its times are kept, and an ECG recognises people. "
        "Treat it as pseudonymous personal data.",
        "Whoever may read the raw data can find every row by its time. Limit who may, and delete raw data that is no longer needed.",
    ]
    if not figures.pseudonyms:
        items.insert(0, "<strong>Source ids were released as they are</strong> (PSEUDONYMIZE_SOURCE_ID=false).")
    if any(one.promise and one.promise.k_unit == "record" for one in figures.promised):
        items.append("k counts rows, and all k may be one person's (K_UNIT=record).")
    if detail and detail.unchanged is not None and counts.released:
        items.append(
            f"{100 * detail.unchanged / counts.released:.0f} % of released rows keep the value that was measured, shared by k or more."
        )
    if figures.rows_late:
        items.append("Late rows stay out for ever: a second release of their window could be subtracted from the first.")
    items.append(
        "All of this hangs on STATE_DIR: with another one, the same windows would be released again. Keep it and back it up."
    )
    yield f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul><p>In full: documentation/PRIVACY.md.</p>"


def _details(figures: Figures) -> Iterator[str]:
    detail = figures.detail
    if detail is None:
        yield "<p>The journal keeps neither levels nor group sizes; the log and the metrics have them.</p>"
        return
    yield "<h3>Released rows by level</h3>"
    if detail.rows_at_level is None:
        yield f'<p class="none">Not shown: of fewer than {FEWEST_WINDOWS} windows they would tell too much.</p>'
    else:
        yield bars(list(zip(_LEVELS, detail.rows_at_level, strict=True)), "released", title="Released rows by level")
    yield "<h3>Windows by the size of their smallest group, in rows</h3>"
    yield bars(detail.smallest_groups, "released", title="Windows by the size of their smallest group")
    if detail.groups:
        yield f"<p>{detail.groups:,} groups, {figures.counts.released / detail.groups:.1f} rows each on average.</p>"
    yield "<h3>Throughput: rows a second, by the run's own time</h3>"
    rows = [("rows a second", "released", dict(detail.throughput.series)["rows"])]
    yield bars_over_time(detail.throughput.starts_ns, rows, title="Rows read a second", from_zero=True)
    yield f"<p>{many_text(figures.counts.read, 'row')} in {length_text(detail.took_s)}.</p>"


def _settings(figures: Figures) -> Iterator[str]:
    yield "<details><summary>All settings; secrets and what may name people are left out</summary>"
    yield table([(name, value or "–") for name, value in figures.settings])
    yield "</details>"


def _signature(data: str, *, is_in_order: bool) -> str:
    digest = hashlib.sha256(data.encode()).hexdigest()
    lines = "".join(f"<div><span></span><small>{what}</small></div>" for what in ("Name", "Role", "Date", "Signature"))
    return f"""<section class="signature">
<h2>{"Read and found in order" if is_in_order else "Read, and found that something is wrong"}</h2>
<div class="lines">{lines}</div>
<p><small>SHA-256 of this report's figures (the JSON at the end of the file): <code>{digest}</code></small></p>
</section>
"""

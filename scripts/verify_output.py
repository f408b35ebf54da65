"""Checks anonymized ECG independently of the service: is every released value shared by at least k rows (or sources) of its window?

With --method rhythm: does every row match the public beat at the beat times?

It needs no trust in the program that released the data: one file that uses Python's standard library and nothing of the project, to be
copied wherever it is needed. It reads CSV files, gzipped ones too; a folder of Parquet files (the one that holds rows/ and windows/), or
s3://bucket/prefix with keys in the usual AWS_ variables, for both of which it needs pyarrow; or the output bucket of an InfluxDB 1, 2 or
3 with the window summaries in it (of 1 and 3, the database).

For each window it checks that each value is shared as promised, that values are finite, that no source has two rows for one time, and
that no window occurs twice; for files, that rows are in order of time and id; for a bucket and for Parquet files, that each window has a
summary, and that rows released, k, smallest group, distinct values and distinct sources are what the summary says. A window whose
summary says `partial` lacks rows that the server refused: what can follow from that is "incomplete", not "violated".

The bucket's token comes from INFLUX_VERIFY_TOKEN or INFLUX_VERIFY_TOKEN_FILE, in the environment or the --env-file; for InfluxDB 1 it is
user:password, and if it is not set, INFLUX_USERNAME and INFLUX_PASSWORD (or _FILE) are used. Rows are held for
one window of a file, one chunk of Parquet files, or for up to an hour of a bucket, never all of them.
Exit codes: 0 no window breaks its promise, 1 at least one does, 64 the arguments, files or bucket cannot be used, 69 no server answers.
"""

from __future__ import annotations

import argparse
import base64
import bisect
import contextlib
import csv
import gzip
import hashlib
import http.client
import io
import itertools
import json
import math
import os
import re
import ssl
import sys
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

HEADER = ["timestamp", "source_id", "ecg"]

PARQUET_SUFFIX = ".parquet"

#: The prefix of object store addresses.
STORE_SCHEME = "s3://"

NEEDS_PYARROW = "to read Parquet files this script needs pyarrow: pip install pyarrow"

#: First bytes of gzipped files, and of UTF-16 text.
GZIP_MAGIC, UTF_16_MARKS = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")

EXIT_VIOLATION, EXIT_USAGE, EXIT_NO_SERVER, EXIT_INTERRUPTED = 1, 64, 69, 130

#: The summaries this script can read.
SCHEMA = "1"

#: The same for METHOD=rhythm, which promises no k: each row matches the public beat at the beat times.
RHYTHM_SCHEMA = "2"

#: Rounding may change a mean of thousands of numbers by this much.
MEAN_TOLERANCE = 1e-6

SECOND_NS = 1_000_000_000

HOUR_NS = 3600 * SECOND_NS

#: Rows per request, unless one window has more. Each takes some 200 bytes of memory.
MOST_ROWS = 250_000

#: Rows of a bucket younger than this may still be arriving, followed by their summary.
SETTLED_AFTER_NS = 60 * SECOND_NS

#: The first whole day that InfluxDB can store, 1677-09-22, in nanoseconds.
FIRST_TIME_NS = -106_751 * 86_400 * SECOND_NS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Ways to divide a window's rows among cohorts that are checked, and steps of a search for them.
MOST_DIVISIONS = 8
MOST_STEPS = 5_000

#: How often rows are read again when the server returns another number than it counted.
READS = 3

#: One released row: nanoseconds since the epoch, released id, value.
Row = tuple[int, str, float]

Summary = Mapping[str, str]


class Unusable(Exception):
    """Files, bucket or settings cannot be checked."""


class NoServer(Exception):
    """The server cannot be reached now."""


class TooLong(Unusable):
    """The span is too long for one query of this server."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How many rows, or different sources, share each value."""

    k: int
    by_source: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What every window is checked for.

    Args:
        promise: What was promised; None: what each window's summary says.
        rhythm: Whether the promise is METHOD=rhythm's.
        window_ns: The length of windows without a summary.
        imputed: Whether rows may carry the mean of all others.
        erased_ns: Starts of windows from which rows were erased, as certificates say.
    """

    promise: Promise | None
    window_ns: int
    imputed: bool
    rhythm: bool = False
    erased_ns: frozenset[int] = frozenset()


@dataclass(slots=True)
class Held:
    """The rows of one window."""

    start_ns: int
    end_ns: int
    summary: Summary | None = None
    rows: list[Row] = field(default_factory=list)
    #: If cohorts share a bucket: the summaries of all windows whose rows are mixed here, with their ends. No row names its cohort.
    cohorts: list[tuple[Summary, int]] = field(default_factory=list)
    is_released_twice: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a window contains, what is wrong with it, and what may merely be missing."""

    start_ns: int
    rows: int
    sources: int
    distinct_values: int
    smallest_group: int
    imputed_rows: int
    problems: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    is_erased: bool = False
    is_removed: bool = False
    is_mixed: bool = False


# One window


def examine(held: Held, question: Question, *, in_a_file: bool) -> Finding:
    """Count how many share each value of a window, or rebuild its public beats, and return what breaks the promise."""
    if _rows_were_removed(held):
        sources = len({source for _, source, _ in held.rows})
        return Finding(
            held.start_ns,
            len(held.rows),
            sources,
            0,
            0,
            0,
            tuple(_problems_of_rows(held.rows, in_order=in_a_file)),
            is_removed=True,
        )
    if len({one["schema"] for one, _ in held.cohorts}) > 1:
        return _without_counts(held, "its cohorts were made by different methods, and cannot be checked together")
    mixed = held
    if held.cohorts:
        held = replace(held, summary=_in_all([one for one, _ in held.cohorts]))
    states_beats = held.summary is not None and held.summary["schema"] == RHYTHM_SCHEMA
    if question.rhythm and held.summary is not None and not states_beats:
        return _without_counts(held, f"its summary promises k = {held.summary['k']}: check it with --k {held.summary['k']}")
    if question.rhythm or (question.promise is None and states_beats):
        return _examine_beats(held, in_a_file=in_a_file)
    if states_beats:
        return _without_counts(held, "its summary promises no k: METHOD=rhythm made it (check it with --method rhythm)")
    return _examine_cohorts(mixed, held, question) if held.cohorts else _examine_groups(held, question, in_a_file=in_a_file)


def _examine_cohorts(held: Held, together: Held, question: Question) -> Finding:
    """Check each cohort's rows alone where numbers of rows and sources tell whose they are; otherwise all of them together."""
    divisions = _divisions(held)
    if not divisions:
        return replace(_examine_groups(together, question, in_a_file=False), is_mixed=True)
    findings = [_as_one([_examine_groups(part, question, in_a_file=False) for part in parts]) for parts in divisions]
    return replace(min(findings, key=lambda one: len(one.problems)), is_mixed=len(divisions) > 1)


def _divisions(held: Held) -> list[list[Held]]:
    """Return every way to divide the rows by source such that each cohort has as many rows and sources as it states.

    None if there are more than MOST_DIVISIONS, or if rows are missing, windows differ, or a source is in two cohorts.
    """
    summaries = [one for one, _ in held.cohorts]
    rows_of: dict[str, list[Row]] = defaultdict(list)
    for row in held.rows:
        rows_of[row[1]].append(row)
    stated = [(int(one["rows_released"]), int(one["distinct_sources"])) for one in summaries]
    are_alike = len({(one["window_seconds"], end_ns) for one, end_ns in held.cohorts}) == 1
    are_whole = not any(one["partial"] == "true" for one in summaries)
    if not (are_alike and are_whole) or [sum(one) for one in zip(*stated, strict=True)] != [len(held.rows), len(rows_of)]:
        return []
    sources = sorted(rows_of, key=lambda source: -len(rows_of[source]))
    found = list(itertools.islice(_assignments([len(rows_of[source]) for source in sources], stated), MOST_DIVISIONS + 1))
    if len(found) > MOST_DIVISIONS or None in found:
        return []
    return [
        [
            replace(held, summary=summary, cohorts=[], rows=[row for source, to in of for row in rows_of[source] if to == at])
            for at, summary in enumerate(summaries)
        ]
        for of in ([*zip(sources, one, strict=True)] for one in found if one is not None)
    ]


def _assignments(rows_of: Sequence[int], stated: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ...] | None]:
    """Yield for each way the cohort of every source; None once the search has taken too long."""
    waiting: list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = [((), tuple(stated))]
    for _ in range(MOST_STEPS):
        if not waiting:
            return
        chosen, left = waiting.pop()
        if len(chosen) == len(rows_of):
            yield chosen
            continue
        rows = rows_of[len(chosen)]
        for at, (rows_left, sources_left) in enumerate(left):
            if rows <= rows_left and sources_left:
                waiting.append(((*chosen, at), (*left[:at], (rows_left - rows, sources_left - 1), *left[at + 1 :])))
    yield None


def _as_one(parts: Sequence[Finding]) -> Finding:
    return Finding(
        start_ns=parts[0].start_ns,
        rows=sum(one.rows for one in parts),
        sources=sum(one.sources for one in parts),
        distinct_values=sum(one.distinct_values for one in parts),
        smallest_group=min((one.smallest_group for one in parts if one.distinct_values), default=0),
        imputed_rows=sum(one.imputed_rows for one in parts),
        problems=tuple(dict.fromkeys(problem for one in parts for problem in one.problems)),
        is_erased=any(one.is_erased for one in parts),
    )


def _examine_groups(held: Held, question: Question, *, in_a_file: bool) -> Finding:
    promise = _strictest(question.promise, held.summary)
    rows_behind = Counter(value for _, _, value in held.rows)
    imputed = _imputed_values(rows_behind, held, promise)
    for value, imputed_rows in imputed.items():
        rows_behind[value] -= imputed_rows
        if not rows_behind[value]:
            del rows_behind[value]
    sharers = _sources_behind(held.rows) if promise.by_source else rows_behind
    counted = Finding(
        start_ns=held.start_ns,
        rows=len(held.rows),
        sources=len({source for _, source, _ in held.rows}),
        distinct_values=len(sharers),
        smallest_group=min(sharers.values(), default=0),
        imputed_rows=sum(imputed.values()),
        problems=(),
    )
    problems = [*_problems_of_rows(held.rows, in_order=in_a_file)]
    if (imputed or any(map(_carriers, _summaries_of_cohorts(held)))) and not question.imputed:
        problems.append("rows carry the mean of all others (RESIDUAL=impute); accept these with --imputed")
    shortfalls = []
    is_erased = _is_erased(held, question)
    # Values that fewer than k share by now were shared by k when they were released.
    if sharers and counted.smallest_group < promise.k and not is_erased:
        shortfalls.append(f"values that fewer than {promise.k} {'sources' if promise.by_source else 'rows'} share")
    if not in_a_file:
        disagreements, missing = _against_summary(counted, held, question.promise)
        problems += disagreements
        shortfalls += missing
    if held.cohorts and int(_summary_of(held)["rows_released"]) > counted.rows and _summary_of(held)["partial"] != "true":
        reason = "it holds fewer rows than its cohorts released: did two of them hold the same source and time?"
        return replace(counted, problems=tuple(problems), incomplete=(reason,))
    is_partial = held.summary is not None and held.summary["partial"] == "true"
    return replace(_with(counted, problems, shortfalls, is_partial=is_partial), is_erased=is_erased)


def _rows_were_removed(held: Held) -> bool:
    """Return whether rows of a window are gone because of their age, as its summary says (RETENTION_DAYS)."""
    summary = held.summary
    return summary is not None and summary.get("removed") == "true" and len(held.rows) < int(summary["rows_released"])


def _is_erased(held: Held, question: Question) -> bool:
    return held.start_ns in question.erased_ns or (held.summary is not None and held.summary.get("erased") == "true")


def _in_all(cohorts: Sequence[Summary]) -> Summary:
    """Return one summary for several cohorts' rows together; their summaries have the same schema."""
    schema = cohorts[0]["schema"]
    sums = {name: str(sum(int(one[name]) for one in cohorts)) for name in _numbers_of(schema)}
    flags = {name: str(any(one.get(name) == "true" for one in cohorts)).lower() for name in ("partial", "erased")}
    summary = {**cohorts[0], **sums, **flags}
    if schema == RHYTHM_SCHEMA:
        return summary
    return summary | {
        "k": str(min(int(one["k"]) for one in cohorts)),
        "k_unit": "source" if all(one["k_unit"] == "source" for one in cohorts) else "record",
        "smallest_group": str(min(int(one["smallest_group"]) for one in cohorts)),
    }


def _without_counts(held: Held, problem: str) -> Finding:
    return Finding(held.start_ns, len(held.rows), len({source for _, source, _ in held.rows}), 0, 0, 0, (problem,))


def _examine_beats(held: Held, *, in_a_file: bool) -> Finding:
    """Rebuild each source's rows from its beats, the rows at 1000 µV, and compare every row exactly."""
    of_source: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for time_ns, source, value in sorted(held.rows):
        of_source[source].append((time_ns, value))
    problems = [*_problems_of_rows(held.rows, in_order=in_a_file)]
    if not all(LEAST_UV <= value <= 1000 and value == int(value) for _, _, value in held.rows):
        problems.append("values that the public beat does not have")
    shortfalls = [problem for rows in of_source.values() for problem in _problems_of_beats(rows)]
    if not in_a_file:
        disagreements, missing = _against_rhythm_summary(held, len(of_source))
        problems += disagreements
        shortfalls += missing
    counted = Finding(held.start_ns, len(held.rows), len(of_source), 0, 0, 0, ())
    is_partial = held.summary is not None and held.summary["partial"] == "true"
    return _with(counted, problems, list(dict.fromkeys(shortfalls)), is_partial=is_partial)


def _against_rhythm_summary(held: Held, sources: int) -> tuple[list[str], list[str]]:
    """Return where rows and summary disagree: violations, and what missing rows would explain."""
    summary = held.summary
    if summary is None:
        return ["rows without a window summary"], []
    wrong, short = [], []
    if summary["template_digest"] != TEMPLATE_DIGEST:
        wrong.append("its summary names another template than the public beat")
    if int(summary["rows_read"]) != sum(
        int(summary[f"rows_{what}"]) for what in ("released", "withheld", "invalid", "duplicate")
    ):
        wrong.append("its summary does not account for all rows read")
    for name, count in (("rows_released", len(held.rows)), ("distinct_sources", sources)):
        stated = int(summary[name])
        if count > stated:
            wrong.append(f"more {name.replace('_', ' ')} than its summary says")
        elif count < stated:
            short.append(f"fewer {name.replace('_', ' ')} than its summary says")
    return wrong, short


# The public beat (documentation/ALGORITHM.md, METHOD=rhythm)

MS = 1_000_000

#: The public beat in nanovolts at each millisecond from -250 to 450 around its R peak.
_BEAT_TEXT = """
95610 98994 102432 105923 109464 113052 116683 120356 124065 127808 131580 135379 139199 143037 146887 150747 154609
158471 162326 166171 169999 173805 177584 181331 185040 188706 192322 195885 199387 202824 206189 209479 212686 215806
218833 221763 224591 227310 229918 232408 234777 237020 239134 241114 242957 244660 246219 247631 248894 250006 250964
251767 252413 252900 253229 253398 253407 253255 252945 252475 251846 251061 250120 249025 247779 246383 244840 243153
241326 239361 237262 235032 232677 230200 227606 224898 222083 219164 216147 213037 209839 206559 203201 199772 196277
192721 189110 185449 181745 178002 174226 170423 166597 162754 158900 155038 151176 147316 143464 139625 135802 132001
128226 124479 120766 117089 113453 109860 106314 102818 99373 95984 92651 89378 86165 83016 79932 76913 73962 71079
68265 65521 62848 60246 57715 55255 52867 50550 48304 46129 44024 41988 40021 38121 36289 34523 32821 31183 29607 28093
26637 25240 23898 22611 21376 20192 19056 17966 16920 15913 14945 14011 13107 12230 11375 10538 9713 8894 8075 7247 6404
5537 4635 3689 2687 1618 466 -780 -2136 -3617 -5238 -7017 -8970 -11113 -13462 -16033 -18840 -21897 -25215 -28804 -32671
-36818 -41247 -45953 -50929 -56162 -61633 -67319 -73192 -79215 -85348 -91543 -97749 -103907 -109951 -115814 -121421
-126693 -131549 -135903 -139667 -142751 -145063 -146510 -147002 -146445 -144748 -141822 -137579 -131934 -124807 -116118
-105795 -93769 -79976 -64361 -46874 -27476 -6135 17168 42441 69677 98855 129936 162861 197555 233917 271827 311137
351679 393258 435655 478625 521905 565206 608224 650637 692113 732309 770880 807482 841774 873429 902137 927605 949571
967801 982097 992301 998293 1000000 997392 990484 979338 964059 944792 921722 895071 865091 832062 796285 758079 717776
675715 632236 587680 542378 496653 450815 405156 359951 315453 271896 229491 188426 148867 110960 74828 40575 8286
-21972 -50148 -76207 -100129 -121905 -141542 -159056 -174473 -187833 -199182 -208577 -216083 -221774 -225731 -228041
-228799 -228107 -226069 -222796 -218399 -212996 -206702 -199635 -191911 -183644 -174944 -165921 -156675 -147302 -137894
-128532 -119291 -110239 -101433 -92925 -84756 -76960 -69563 -62584 -56036 -49922 -44244 -38996 -34168 -29746 -25715
-22054 -18743 -15759 -13080 -10681 -8539 -6630 -4933 -3425 -2086 -896 163 1108 1953 2714 3403 4032 4611 5148 5653 6133
6593 7039 7476 7908 8339 8772 9209 9653 10106 10569 11045 11534 12037 12557 13093 13647 14219 14810 15422 16053 16707
17382 18079 18800 19544 20313 21106 21925 22770 23642 24542 25469 26424 27409 28423 29468 30543 31650 32789 33961 35166
36404 37677 38984 40328 41707 43122 44575 46065 47593 49160 50766 52412 54097 55823 57590 59397 61247 63139 65073 67049
69069 71132 73238 75389 77583 79821 82104 84431 86803 89219 91680 94186 96736 99331 101970 104654 107381 110153 112968
115827 118728 121673 124659 127687 130757 133867 137018 140208 143437 146704 150009 153350 156727 160138 163584 167062
170573 174114 177685 181284 184911 188563 192241 195942 199664 203407 207170 210950 214745 218555 222378 226212 230056
233906 237763 241624 245486 249349 253210 257068 260920 264764 268599 272422 276231 280024 283800 287555 291288 294997
298680 302333 305956 309546 313101 316619 320097 323533 326926 330273 333571 336820 340016 343158 346243 349270 352237
355141 357981 360754 363459 366094 368658 371147 373562 375899 378157 380335 382432 384445 386373 388215 389970 391636
393212 394697 396090 397390 398596 399707 400721 401640 402461 403184 403809 404336 404763 405090 405318 405446 405473
405401 405229 404957 404585 404114 403544 402875 402108 401244 400282 399225 398072 396824 395483 394049 392523 390907
389201 387407 385527 383561 381510 379377 377163 374870 372498 370050 367527 364932 362265 359530 356727 353858 350926
347932 344879 341768 338602 335382 332111 328791 325424 322011 318556 315060 311526 307955 304350 300713 297046 293352
289632 285889 282124 278340 274540 270724 266896 263057 259209 255354 251495 247632 243769 239907 236048 232194 228346
224507 220678 216860 213056 209268 205495 201741 198007 194294 190603 186937 183296 179681 176094 172536 169009 165512
162048 158618 155221 151860 148535 145247 141997 138785 135613 132480 129388 126336 123327 120359 117433 114551 111712
108916 106164 103456 100792 98172 95597 93067 90581 88140 85743 83392 81084 78821 76602 74428 72297 70210 68166 66166
64208 62293 60420 58589 56799 55051 53343 51675 50048 48459 46909 45398 43925 42489 41089 39726 38399 37107 35849 34626
33436 32279 31154 30062 29000 27969 26968 25996 25053 24139 23252 22392 21558 20751 19969 19211 18478 17768 17082 16418
15775 15155 14555 13975 13415 12874 12352 11849 11363 10894 10442
"""

BEAT_NV = tuple(map(int, _BEAT_TEXT.split()))

#: Rows are whole numbers from here to 1000 whatever the beats: missing rows explain no other value.
LEAST_UV = (min(BEAT_NV) + 500) // 1000

TEMPLATE_DIGEST = hashlib.sha256(",".join(map(str, BEAT_NV)).encode()).hexdigest()[:16]


def _problems_of_beats(rows: Sequence[tuple[int, float]]) -> Iterator[str]:
    """Yield where the rows of one source and window, in order of time, break the rule."""
    cuts = [0, *(at for at in range(1, len(rows)) if rows[at][0] - rows[at - 1][0] > 200 * MS), len(rows)]
    for first, stop in itertools.pairwise(cuts):
        segment = rows[first:stop]
        beats = [time_ns for time_ns, value in segment if value == 1000]
        if len(beats) < 2:
            yield "rows of a source without two beats, which are 1000 µV"
        elif any(after - before < 200 * MS for before, after in itertools.pairwise(beats)):
            yield "two beats of a source within 200 ms"
        elif any(value != 1000 and value != _public_uv(time_ns, beats) for time_ns, value in segment):
            yield "rows that are not of the public beat at the beat times"


def _public_uv(time_ns: int, beats: Sequence[int]) -> int:
    """Return the public beat between two beats, in whole microvolts."""
    upcoming = bisect.bisect(beats, time_ns)
    at = min(max(upcoming, 1), len(beats) - 1)
    interval = beats[at] - beats[at - 1]
    scale = math.isqrt(min(max(interval, 300 * MS), 2000 * MS) * 10**9)
    end, lead = min(450 * MS * scale // 10**9, 58 * interval // 100), min(250 * MS, 38 * interval // 100)
    since = time_ns - beats[upcoming - 1] if upcoming else 0
    until = beats[upcoming] - time_ns if upcoming < len(beats) else 0
    if not upcoming:
        nanovolts = _beat_nv(-min(until, lead))
    elif upcoming == len(beats):
        nanovolts = _beat_nv(min(since, end) * 10**9 // scale)
    elif since <= end:
        nanovolts = _beat_nv(since * 10**9 // scale)
    elif until <= lead:
        nanovolts = _beat_nv(-until)
    else:
        begin, stop = _beat_nv(end * 10**9 // scale), _beat_nv(-lead)
        nanovolts = begin + (stop - begin) * (since - end) // (interval - lead - end)
    return min(999, (nanovolts + 500) // 1000)


def _beat_nv(offset_ns: int) -> int:
    whole, part = divmod(offset_ns + 250 * MS, MS)
    return BEAT_NV[whole] + ((BEAT_NV[whole + 1] - BEAT_NV[whole]) * part // MS if part else 0)


def _strictest(asked: Promise | None, summary: Summary | None) -> Promise:
    """Return the stricter of the requested promise and the summary's; either may be missing."""
    if summary is None:
        return asked or Promise(2, by_source=False)
    k, by_source = int(summary["k"]), summary["k_unit"] == "source"
    return Promise(max(k, asked.k), by_source or asked.by_source) if asked else Promise(k, by_source)


def _with(counted: Finding, problems: list[str], shortfalls: list[str], *, is_partial: bool) -> Finding:
    """Return the finding with its problems; in a partial window, missing rows explain shortfalls."""
    if is_partial:
        return replace(counted, problems=tuple(problems), incomplete=("the server refused rows of it",))
    return replace(counted, problems=(*problems, *shortfalls))


def _sources_behind(rows: Iterable[Row]) -> dict[float, int]:
    sources: dict[float, set[str]] = defaultdict(set)
    for _, source, value in rows:
        sources[value].add(source)
    return {value: len(names) for value, names in sources.items()}


def _problems_of_rows(rows: Sequence[Row], *, in_order: bool) -> Iterator[str]:
    if any(not math.isfinite(value) for _, _, value in rows):
        yield "values that are not finite"
    if len({(time_ns, source) for time_ns, source, _ in rows}) < len(rows):
        yield "a source has two rows for one time"
    if in_order and any(a[:2] > b[:2] for a, b in itertools.pairwise(rows)):
        yield "rows are not in order of time and id"


def _carriers(summary: Summary) -> int:
    """Return how many rows carry the mean of all others, as a summary says."""
    return int(summary["rows_starred"]) + int(summary["rows_suppressed"])


def _summaries_of_cohorts(held: Held) -> list[Summary]:
    return [one for one, _ in held.cohorts]


def _imputed_values(rows_behind: Mapping[float, int], held: Held, promise: Promise) -> dict[float, int]:
    """Return the values that are the mean of all other rows', and how many rows carry each: they reveal nothing about those rows.

    A summary says how many there are. Without one, it can only be the single value that too few rows share. Of several cohorts, whose
    rows cannot be told apart, it is what too few rows share, if that can be their means.
    """
    if not held.cohorts:
        found = _imputed_value(rows_behind, held, promise)
        return {found[0]: found[1]} if found else {}
    summaries = _summaries_of_cohorts(held)
    enough = max(promise.k, min(int(one["smallest_group"]) for one in summaries))
    few = {value: rows for value, rows in rows_behind.items() if rows < enough}
    return few if _can_be_means(list(few.items()), summaries, held) else {}


def _can_be_means(few: Sequence[tuple[float, int]], summaries: Sequence[Summary], held: Held) -> bool:
    """Return whether each value can be the mean of one cohort, or of two, that state as many imputed rows as carry it.

    All rows of such a cohort add up to its mean times their number. What is left must be a sum that the other cohorts' rows can have.
    """
    values = [value for _, _, value in held.rows]
    rows_of = [int(one["rows_released"]) for one in summaries]
    if any(one["partial"] == "true" for one in summaries) or sum(rows_of) != len(values):
        return len(few) <= sum(map(bool, map(_carriers, summaries)))  # rows are missing: neither sums nor numbers can be compared
    total, tolerance = math.fsum(values), MEAN_TOLERANCE * len(values)
    tried = itertools.islice(_choices([rows for _, rows in few], list(map(_carriers, summaries))), MOST_STEPS)
    for number, choice in enumerate(tried, start=1):
        chosen = [(value, sum(rows_of[at] for at in cohorts)) for (value, _), cohorts in zip(few, choice, strict=True)]
        rest = total - math.fsum(value * rows for value, rows in chosen)
        rows_left = len(values) - sum(rows for _, rows in chosen)
        if rows_left * min(values) - tolerance <= rest <= rows_left * max(values) + tolerance or number == MOST_STEPS:
            return True
    return False


def _choices(
    rows: Sequence[int], carriers: Sequence[int], taken: frozenset[int] = frozenset()
) -> Iterator[list[tuple[int, ...]]]:
    """Yield, for values that so many rows carry, every choice of different cohorts that state as many imputed rows."""
    if not rows:
        yield []
        return
    free = [at for at, one in enumerate(carriers) if one and at not in taken]
    for cohorts in itertools.chain(itertools.combinations(free, 1), itertools.combinations(free, 2)):
        if sum(carriers[at] for at in cohorts) == rows[0]:
            yield from ([cohorts, *others] for others in _choices(rows[1:], carriers, taken.union(cohorts)))


def _imputed_value(rows_behind: Mapping[float, int], held: Held, promise: Promise) -> tuple[float, int] | None:
    """Return the value that is the mean of all other rows', and how many rows carry it."""
    if held.summary is not None:
        carriers = _carriers(held.summary)
        candidates = [(value, carriers) for value, rows in rows_behind.items() if rows >= carriers > 0]
    else:
        candidates = [(value, rows) for value, rows in rows_behind.items() if rows < promise.k]
        candidates = candidates if len(candidates) == 1 else []
    total = math.fsum(value for _, _, value in held.rows)
    for value, carriers in candidates:
        others = len(held.rows) - carriers
        if others and abs((total - carriers * value) / others - value) <= MEAN_TOLERANCE:
            return value, carriers
    return None


def _against_summary(counted: Finding, held: Held, asked: Promise | None) -> tuple[list[str], list[str]]:
    """Return where rows and summary disagree: violations, and what missing rows would explain."""
    summary = held.summary
    if summary is None:
        return ["rows without a window summary"], []
    if held.cohorts:
        return _against_cohorts(counted, held, asked)
    wrong = list(_problems_of_summary(summary, asked))
    short = []
    for name, count in (
        ("rows_released", counted.rows),
        ("distinct_values", counted.distinct_values),
        ("distinct_sources", counted.sources),
    ):
        stated = int(summary[name])
        if count > stated:
            wrong.append(f"more {name.replace('_', ' ')} than its summary says")
        elif count < stated:
            short.append(f"fewer {name.replace('_', ' ')} than its summary says")
    as_stated = (summary["k_unit"] == "source") == (_strictest(asked, summary).by_source)
    if as_stated and counted.smallest_group != int(summary["smallest_group"]):
        short.append("another smallest group than its summary says")
    if counted.imputed_rows != int(summary["rows_starred"]) + int(summary["rows_suppressed"]):
        short.append("another number of imputed rows than its summary says")
    return wrong, short


def _against_cohorts(counted: Finding, held: Held, asked: Promise | None) -> tuple[list[str], list[str]]:
    """Return the same for rows of several cohorts: a value or a source of two of them is counted once here, and by each of them."""
    wrong, short = [problem for one, _ in held.cohorts for problem in _problems_of_summary(one, asked)], []
    for name, count in (
        ("rows_released", counted.rows),
        ("distinct_values", counted.distinct_values),
        ("distinct_sources", counted.sources),
    ):
        stated = [int(one[name]) for one, _ in held.cohorts]
        # Distinct values are stated without the mean that imputed rows carry, which as many rows may share as any other value.
        means = sum(_carriers(one) > 0 for one, _ in held.cohorts) if name == "distinct_values" else 0
        if count > sum(stated) + means:
            wrong.append(f"more {name.replace('_', ' ')} than its summaries say")
        elif count < (sum(stated) if name == "rows_released" else max(stated)):
            short.append(f"fewer {name.replace('_', ' ')} than its summaries say")
    if counted.smallest_group < min(int(one["smallest_group"]) for one, _ in held.cohorts):
        short.append("a smaller smallest group than its summaries say")
    return wrong, short


def _problems_of_summary(summary: Summary, asked: Promise | None) -> Iterator[str]:
    """Yield what is wrong with a summary in itself."""
    if summary["schema"] != SCHEMA:
        yield f"a summary of schema {summary['schema']}, where this script knows {SCHEMA}"
    if asked and int(summary["k"]) < asked.k:
        yield f"its summary promises k={summary['k']}, asked was {asked.k}"
    if asked and asked.by_source and summary["k_unit"] != "source":
        yield "its summary promises to count rows, asked was for sources"
    is_small = int(summary["smallest_group"]) < int(summary["k"]) and summary.get("erased") != "true"
    if int(summary["k"]) < 2 or is_small:
        yield "its summary states a smallest group below k, or a k below 2"
    parts = sum(int(summary[f"rows_{what}"]) for what in ("released", "withheld", "invalid", "duplicate"))
    if int(summary["rows_read"]) != parts:
        yield "its summary does not account for all rows read"


class SeenWindows:
    """Remembers which windows came, as spans: years of windows without a gap are one entry."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start_ns: int, end_ns: int) -> bool:
        """Remember a window; return whether any of it was there before."""
        at = bisect.bisect_right(self._starts, start_ns)
        overlaps = (at > 0 and self._ends[at - 1] > start_ns) or (at < len(self._starts) and self._starts[at] < end_ns)
        if overlaps:
            return True
        if at > 0 and self._ends[at - 1] == start_ns:
            self._ends[at - 1] = end_ns
        else:
            self._starts.insert(at, start_ns)
            self._ends.insert(at, end_ns)
        return False


# CSV files


def findings_in_files(paths: Iterable[Path], question: Question) -> Iterator[Finding]:
    """Yield a finding for each window as it passes; windows may go on from one file to the next.

    Raises:
        Unusable: A file cannot be read or is of another form.
    """
    seen = SeenWindows()
    rows = itertools.chain.from_iterable(read_rows(path) for path in paths)
    for number, of_window in itertools.groupby(rows, lambda row: row[0] // question.window_ns):
        held = Held(number * question.window_ns, (number + 1) * question.window_ns, None, list(of_window))
        finding = examine(held, question, in_a_file=True)
        if seen.add(held.start_ns, held.end_ns):
            again = "its rows stand in two places: released twice, or not in order of time"
            finding = replace(finding, problems=(*finding.problems, again))
        yield finding


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file, or of a Parquet file.

    Raises:
        Unusable: It cannot be read or is of another form; with the line.
    """
    if path.suffix == PARQUET_SUFFIX:
        yield from _parquet_rows(path)
        return
    seconds: dict[str, int] = {}
    line = 1
    try:
        with _opened(path) as file:
            lines = csv.reader(file)
            header = next(lines, None)
            if header != HEADER:
                raise Unusable(f"{path}, line 1: expected the header {','.join(HEADER)}{_what_differs(header)}")
            for cells in lines:
                line = lines.line_num
                try:
                    moment, source, value = cells
                    yield _nanoseconds(moment, seconds), source, _number(value)
                except (ValueError, OverflowError):
                    raise Unusable(f"{path}, line {line}: expected a time, an id and a number") from None
    except (OSError, EOFError, zlib.error) as error:
        raise Unusable(f"{path} cannot be read behind line {line} ({error})") from None
    except UnicodeDecodeError:
        raise Unusable(f"{path} is not UTF-8 text behind line {line}") from None
    except csv.Error as error:
        raise Unusable(f"{path}, line {line}: not CSV ({error})") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    """Yield the text of a file, gzipped or not, whatever its name; a byte order mark is left out."""
    with contextlib.ExitStack() as files:
        packed = files.enter_context(path.open("rb"))
        is_gzip = packed.peek(2)[:2] == GZIP_MAGIC
        plain = files.enter_context(gzip.open(packed)) if is_gzip else packed
        beginning = plain.peek(4)[:4]
        if beginning[:2] in UTF_16_MARKS or b"\0" in beginning:
            raise Unusable(f"{path}, line 1: the text is UTF-16, expected UTF-8; save it as CSV UTF-8")
        yield files.enter_context(io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""))


def _what_differs(header: Sequence[str] | None) -> str:
    """Return what may have happened to a header that is not ours, without showing what may be a row."""
    if not header:
        return "; the file is empty" if header is None else "; the line is empty"
    text = ",".join(header)
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if [cell.strip() for cell in text.split(sign)] == HEADER:
            return f"; the columns are separated by {name}, expected commas: was it saved by a spreadsheet?"
    if text.lower().startswith("sep="):
        return "; it is a `sep=` line of a spreadsheet"
    if [cell.strip().lower() for cell in header] == HEADER:
        return "; its capitals or spaces differ"
    return "; is it a file of this project?"


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError(text)  # Python's own way to write thousands
    return float(text)


def _nanoseconds(text: str, seconds: dict[str, int]) -> int:
    """Return `2025-11-03T14:30:00.123456789Z` in nanoseconds since the epoch; `seconds` remembers the last second parsed."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if fraction and not (fraction.isdecimal() and fraction.isascii() and len(fraction) <= 9):
        raise ValueError(fraction)
    if whole not in seconds:
        seconds.clear()
        seconds[whole] = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds[whole] * SECOND_NS + int(fraction.ljust(9, "0") or "0")


# Parquet files


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A Parquet file of an object store; it is shown by its address."""

    store: Any
    key: str
    modified_ns: int

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Its name without what it ends in."""
        return self.name.removesuffix(PARQUET_SUFFIX)

    def __str__(self) -> str:
        return f"{STORE_SCHEME}{self.key}"


class ObjectStore:
    """An address of an object store, read with pyarrow, which is given keys: without any it would look for them on the network.

    Args:
        address: `bucket/prefix`.
        given: What the usual variables, or the settings of the same names, say.
    """

    def __init__(self, address: str, given: Mapping[str, str]) -> None:
        self._address = address.strip("/")
        keys = _secret(given, "AWS_ACCESS_KEY_ID"), _secret(given, "AWS_SECRET_ACCESS_KEY")
        if not all(keys):
            raise Unusable("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment or the --env-file")
        try:
            from pyarrow import fs
        except ImportError:
            raise Unusable(NEEDS_PYARROW) from None
        endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or ""
        scheme, _, host = endpoint.rpartition("://")
        self._store = fs.S3FileSystem(
            access_key=keys[0],
            secret_key=keys[1],
            session_token=_secret(given, "AWS_SESSION_TOKEN") or None,
            region=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "us-east-1",
            endpoint_override=host.rstrip("/") or None,
            scheme=scheme or "https",
            connect_timeout=5,
            request_timeout=60,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
        )
        self._selector = fs.FileSelector

    def __str__(self) -> str:
        return f"{STORE_SCHEME}{self._address}"

    def files(self, table: str) -> list[StoredFile]:
        """Return the Parquet files of a folder."""
        selector = self._selector(f"{self._address}/{table}", recursive=True, allow_not_found=True)
        with self.answering():
            found = self._store.get_file_info(selector)
        return [
            StoredFile(self, one.path, one.mtime_ns or 0)
            for one in sorted(found, key=lambda one: one.path)
            if one.is_file and one.path.endswith(PARQUET_SUFFIX)
        ]

    def opened(self, key: str) -> Any:
        """Return a file, open."""
        with self.answering():
            return self._store.open_input_file(key)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Say what a refusal means; its own text quotes addresses and keys."""
        try:
            yield
        except OSError as error:
            if "NETWORK_CONNECTION" in str(error):
                raise NoServer(f"no object store answers for {self}: check AWS_ENDPOINT_URL") from None
            code = re.search(r"AWS Error ([A-Z_]+)", str(error))
            raise Unusable(
                f"{self} cannot be read ({code[1] if code else type(error).__name__}): check the bucket, the AWS_ keys and AWS_REGION"
            ) from None


def _secret(given: Mapping[str, str], name: str) -> str:
    path = given.get(f"{name}_FILE", "")
    if not path:
        return given.get(name, "")
    try:
        return _path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError, argparse.ArgumentTypeError) as error:
        raise Unusable(f"{name}_FILE {path} cannot be read ({error})") from None


def _parquet_files(folder: Path | ObjectStore, table: str) -> list[Path] | list[StoredFile]:
    return sorted((folder / table).glob(f"**/*{PARQUET_SUFFIX}")) if isinstance(folder, Path) else folder.files(table)


def _modified_ns(file: Path | StoredFile) -> int:
    return file.stat().st_mtime_ns if isinstance(file, Path) else file.modified_ns


def findings_in_folder(folder: Path | ObjectStore, question: Question) -> Iterator[Finding]:
    """Yield a finding for each window of a folder of Parquet files, chunk by chunk: the files of a chunk have one name.

    Raises:
        Unusable: A file cannot be read or is of another form, or there are none.
    """
    chunks: dict[tuple[str, int, str], dict[str, list[Path | StoredFile]]] = defaultdict(lambda: {"rows": [], "windows": []})
    for table in ("rows", "windows"):
        for path in _parquet_files(folder, table):
            if not path.name.startswith("."):
                chunks[_key_of(path)][table].append(path)
    if not chunks:
        raise Unusable(f"{folder} is no folder of Parquet files of this project: name the one that holds rows/ and windows/")
    seen: dict[str, SeenWindows] = defaultdict(SeenWindows)
    for (label, _, _), paths in sorted(chunks.items()):
        if not paths["windows"] and any(time.time_ns() - _modified_ns(path) < SETTLED_AFTER_NS for path in paths["rows"]):
            continue  # its summaries may still arrive
        told = [
            Held(start_ns, end_ns, summary) for path in paths["windows"] for start_ns, end_ns, summary in _parquet_summaries(path)
        ]
        rows = [row for path in paths["rows"] for row in _parquet_rows(path)]
        for held in _sorted_into(told, rows, question):
            yield _examined(held, question, seen[label], in_order=True)


def _key_of(path: Path | StoredFile) -> tuple[str, int, str]:
    """Return what a file name states: the data set, and start and end of its chunk."""
    label, *span = path.stem.rsplit("-", 2)
    if len(span) != 2 or not all(text.isdecimal() for text in span):
        raise Unusable(f"{path} has no name that this project gives: <data set>-<start>-<end>{PARQUET_SUFFIX}")
    return label, int(span[0]), span[1]


def _parquet_rows(path: Path | StoredFile) -> Iterator[Row]:
    times_ns, ids, values = _parquet_columns(path, ["timestamp"], lambda _: ["source_id", "ecg"]).values()
    if any(None in column for column in (times_ns, ids, values)):
        raise Unusable(f"{path} holds rows without a time, an id or a number")
    yield from zip(times_ns, ids, values, strict=True)


def _parquet_summaries(path: Path | StoredFile) -> Iterator[tuple[int, int, Summary]]:
    columns = _parquet_columns(path, ["window_start", "window_end"], _fields_of_file)
    fields = list(columns)[2:]
    for start_ns, end_ns, *cells in zip(*columns.values(), strict=True):
        texts = (str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in cells)
        summary = dict(zip(fields, texts, strict=True))
        _check_form(summary, str(path))
        yield start_ns, end_ns, summary


def _fields_of_file(names: Collection[str]) -> list[str]:
    fields = _fields_of(RHYTHM_SCHEMA if "template_digest" in names else SCHEMA)
    return [*fields, *(name for name in ("erased", "removed") if name in names)]


def _parquet_columns(
    path: Path | StoredFile, times: list[str], others_of: Callable[[Collection[str]], list[str]]
) -> dict[str, list[Any]]:
    """Return columns of a file by name, times first, as nanoseconds since the epoch; the schema decides which others."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Unusable(NEEDS_PYARROW) from None
    try:
        file = path if isinstance(path, Path) else path.store.opened(path.key)
        parquet = pyarrow.parquet.ParquetFile(file)
        others = others_of(parquet.schema_arrow.names)
        table = parquet.read([*times, *others])
        moments = {name: table.column(name).cast("timestamp[ns]").cast("int64") for name in times}
        columns = moments | {name: table.column(name) for name in others}
        return {name: column.to_pylist() for name, column in columns.items()}
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise Unusable(f"{path} cannot be read as Parquet of this project ({type(error).__name__})") from None


# An InfluxDB bucket


@dataclass(frozen=True, slots=True)
class Place:
    """Where released rows are, and their names there."""

    url: str
    org: str
    bucket: str
    measurement: str
    field: str
    source_tag: str
    ca_file: str
    start_ns: int
    stop_ns: int


class Bucket:
    """Queries one bucket of an InfluxDB 2 in Flux; the token is never shown.

    Args:
        place: The bucket.
        token: With the right to read it.
        timeout_s: Longest silence of the server.
    """

    def __init__(self, place: Place, token: str, timeout_s: float = 60.0) -> None:
        self.place = place
        self._token = token
        self._timeout_s = timeout_s
        self._authorization = f"Token {token}"
        context = ssl.create_default_context(cafile=place.ca_file or None)
        # No proxy from the environment and no redirect: either would receive the token.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

    def first_from(self, start_ns: int) -> int | None:
        """Return the time of the first row or summary at or after `start_ns`; None when there is none."""
        times = []
        for measurement, name in self._series():
            flux = f"{self._from(start_ns, self.place.stop_ns, measurement, name)} |> first() |> {_kept('_time')}"
            times += [_nanoseconds(row["_time"], {}) for row in self._ask(flux)]
        return min(times, default=None)

    def count(self, start_ns: int, end_ns: int) -> int:
        """Return how many rows the server counts in a span."""
        flux = f"{self._rows_in(start_ns, end_ns)} |> count() |> group() |> sum()"
        return sum(int(row["_value"]) for row in self._ask(flux))

    def rows(self, start_ns: int, end_ns: int) -> list[Row]:
        """Return the rows of a span, as many as the server counts, without rows it sends twice."""
        tag = self.place.source_tag
        flux = f"{self._rows_in(start_ns, end_ns)} |> {_dropped('_start', '_stop', '_measurement', '_field')} |> group()"
        for _ in range(READS):
            seconds: dict[str, int] = {}
            try:
                answered, points = 0, {}
                for point in self._ask(flux):
                    answered += 1
                    # The same time under the same tags is one point, which InfluxDB up to 2.7.12 may return twice (its issue 26711).
                    points[tuple(point.values())] = _nanoseconds(point["_time"], seconds), point[tag], float(point["_value"])
            except KeyError:
                raise self._without_tag() from None
            except ValueError:
                raise self._without_numbers() from None
            if answered == self.count(start_ns, end_ns):
                return list(points.values())
        raise self._other_rows_than_counted(start_ns, end_ns)

    def _without_tag(self) -> Unusable:
        place = self.place
        return Unusable(f"rows in bucket {place.bucket!r} have no tag {place.source_tag!r}; name it with --source-tag")

    def _without_numbers(self) -> Unusable:
        return Unusable(f"field {self.place.field!r} in bucket {self.place.bucket!r} holds no numbers")

    def _other_rows_than_counted(self, start_ns: int, end_ns: int) -> NoServer:
        return NoServer(
            f"the server sends other rows than it counts between {_text(start_ns)} and {_text(end_ns)}; try again later"
        )

    def summaries(self, start_ns: int, end_ns: int) -> list[tuple[int, Summary]]:
        """Return the window summaries that begin in a span, in order of time."""
        flux = (
            f"{self._from(start_ns, end_ns, f'{self.place.measurement}_anonymized_windows', None)} "
            '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        )
        seconds: dict[str, int] = {}
        return sorted(((_nanoseconds(row["_time"], seconds), row) for row in self._ask(flux)), key=lambda one: one[0])

    def _series(self) -> tuple[tuple[str, str], ...]:
        return (
            (f"{self.place.measurement}_anonymized", self.place.field),
            (f"{self.place.measurement}_anonymized_windows", "rows_released"),
        )

    def _rows_in(self, start_ns: int, end_ns: int) -> str:
        return self._from(start_ns, end_ns, f"{self.place.measurement}_anonymized", self.place.field)

    def _from(self, start_ns: int, stop_ns: int, measurement: str, name: str | None) -> str:
        of_field = f" and r._field == {_quoted(name)}" if name is not None else ""
        return (
            f"from(bucket: {_quoted(self.place.bucket)}) |> range(start: {_text(start_ns)}, stop: {_text(stop_ns)}) "
            f"|> filter(fn: (r) => r._measurement == {_quoted(measurement)}{of_field})"
        )

    def _ask(self, flux: str) -> Iterator[dict[str, str]]:
        """Yield the rows of an answer, as text by column."""
        body = json.dumps({"query": flux, "dialect": {"annotations": [], "header": True}}).encode()
        path = f"/api/v2/query?org={urllib.parse.quote(self.place.org, safe='')}"
        headers = {"Content-Type": "application/json", "Accept": "application/csv"}
        with self._answer(path, body, headers) as answer:
            yield from _tables(io.TextIOWrapper(answer, encoding="utf-8", newline=""))
            if answer.length:
                raise NoServer(f"the answer of InfluxDB at {self.place.url} ended too early; try again")

    @contextlib.contextmanager
    def _answer(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Iterator[Any]:
        """Open the answer to a request for reading."""
        sent = {**headers, **({"Authorization": self._authorization} if self._authorization else {})}
        request = urllib.request.Request(f"{self.place.url}{path}", data=body, headers=sent)  # noqa: S310  (http or https: see _place)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NoServer(f"InfluxDB at {self.place.url} cannot be asked ({reason}); check --url and the network") from None

    def version(self) -> str:
        """Return the server's version header; empty if it sends none."""
        with self._answer("/ping", None, {}) as answer:
            return str(answer.headers.get("X-Influxdb-Version") or "")

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            said = error.read(2000).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, AttributeError):
            told = json.loads(said)
            said = str(told.get("message") or told.get("error") or "")
        said = " ".join((said.replace(self._token, "…") if self._token else said).split())[:300]
        if "file limit" in said:
            return TooLong(f"InfluxDB at {self.place.url} does not read so long a span at once: {said}")
        if error.code in (429, 500, 502, 503, 504):
            return NoServer(f"InfluxDB at {self.place.url} cannot answer now: {error.code} {said}")
        return Unusable(
            f"InfluxDB at {self.place.url} refuses: {error.code} {said}. "
            "Check INFLUX_VERIFY_TOKEN (it must be able to read the bucket), --org and --bucket"
        )


class Database(Bucket):
    """Queries one database of an InfluxDB 1 or 3 in InfluxQL.

    Args:
        place: The database as a bucket; for InfluxDB 1 also `database/policy`.
        token: For InfluxDB 1, `user:password`; empty: none.
        is_version_1: Whether it is one.
    """

    def __init__(self, place: Place, token: str, *, is_version_1: bool) -> None:
        super().__init__(place, token)
        self._is_chunked = is_version_1
        name, slash, policy = place.bucket.rpartition("/") if is_version_1 else ("", "", "")
        self._name, self._policy = (name, policy) if slash and name and policy else (place.bucket, "")
        self._authorization = _basic(token) if is_version_1 and token else f"Bearer {token}" if token else ""

    def first_from(self, start_ns: int) -> int | None:
        """Return the time of the first row or summary at or after `start_ns`; None when there is none."""
        times = []
        for measurement, name in self._series():
            found = self._first_of(f"SELECT FIRST({_identifier(name)}::field)", measurement, start_ns)
            times += [] if found is None else [found]
        return min(times, default=None)

    def _first_of(self, selected: str, measurement: str, at_ns: int) -> int | None:
        """Return the first time found, searching in spans as long as the server reads at once."""
        length_ns = self.place.stop_ns - at_ns
        while at_ns < self.place.stop_ns:
            to_ns = min(at_ns + length_ns, self.place.stop_ns)
            try:
                answer = self._ask_influxql(f"{selected} {self._of(measurement, at_ns, to_ns)}")
                times = [int(point["time"]) for _, points in answer for point in points]
            except TooLong:
                if length_ns <= HOUR_NS:
                    raise
                length_ns //= 2
                continue
            if times:
                return min(times)
            at_ns, length_ns = to_ns, 2 * length_ns
        return None

    def count(self, start_ns: int, end_ns: int) -> int:
        """Return how many rows the server counts in a span."""
        query = f"SELECT COUNT({_identifier(self.place.field)}::field) {self._of(self._rows_measurement, start_ns, end_ns)}"
        return sum(int(point["count"]) for _, points in self._ask_influxql(query) for point in points)

    def rows(self, start_ns: int, end_ns: int) -> list[Row]:
        """Return the rows of a span, as many as the server counts."""
        field, tag = self.place.field, self.place.source_tag
        query = f"SELECT {_identifier(field)}::field AS value {self._of(self._rows_measurement, start_ns, end_ns)} GROUP BY *"
        for _ in range(READS):
            try:
                rows = [
                    (int(point["time"]), str(tags[tag]), float(point["value"]))
                    for tags, points in self._ask_influxql(query)
                    for point in points
                ]
            except KeyError:
                raise self._without_tag() from None
            except (ValueError, TypeError):
                raise self._without_numbers() from None
            if len(rows) == self.count(start_ns, end_ns):
                return rows
        raise self._other_rows_than_counted(start_ns, end_ns)

    def summaries(self, start_ns: int, end_ns: int) -> list[tuple[int, Summary]]:
        """Return the window summaries that begin in a span, in order of time."""
        measurement = f"{self.place.measurement}_anonymized_windows"
        answer = self._ask_influxql(f"SELECT * {self._of(measurement, start_ns, end_ns)} GROUP BY *")
        found = [
            (int(point["time"]), {name: _as_text(value) for name, value in point.items() if value is not None})
            for _, points in answer
            for point in points
        ]
        return sorted(found, key=lambda one: one[0])

    @property
    def _rows_measurement(self) -> str:
        return f"{self.place.measurement}_anonymized"

    def _of(self, measurement: str, start_ns: int, end_ns: int) -> str:
        policy = f"{_identifier(self._policy)}." if self._policy else ""
        return f"FROM {policy}{_identifier(measurement)} WHERE time >= {start_ns} AND time < {end_ns}"

    def _ask_influxql(self, query: str) -> Iterator[tuple[dict[str, str], list[dict[str, Any]]]]:
        """Yield tags and points of each series of an answer."""
        place = {"db": self._name, "epoch": "ns", **({"rp": self._policy} if self._policy else {})}
        if self._is_chunked:
            # A server's max-row-limit cuts answers that are not chunked; version 3 has no such limit.
            place["chunked"] = "true"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        body = urllib.parse.urlencode({"q": query}).encode()
        with self._answer(f"/query?{urllib.parse.urlencode(place)}", body, headers) as answer:
            content = answer.read().decode("utf-8", "replace")
        for result in self._results(content):
            if "timeout" in str(result.get("error", "")):
                raise NoServer(f"InfluxDB at {self.place.url} cannot answer in time; try again later")
            if "error" in result:
                raise Unusable(f"InfluxDB at {self.place.url} refuses: {str(result['error'])[:300]}. Check --bucket")
            for series in result.get("series", ()):
                yield series.get("tags") or {}, [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]

    def _results(self, content: str) -> Iterator[dict[str, Any]]:
        decoder, at, is_partial = json.JSONDecoder(), 0, True
        try:
            while content[at:].strip():
                piece, at = decoder.raw_decode(content, at + len(content[at:]) - len(content[at:].lstrip()))
                for result in piece["results"]:
                    is_partial = bool(result.get("partial") or any(one.get("partial") for one in result.get("series", ())))
                    yield result
        except (ValueError, LookupError, TypeError, AttributeError):
            is_partial = True
        if is_partial:
            raise NoServer(f"the answer of InfluxDB at {self.place.url} ended too early, or is not InfluxDB's; try again")


def _basic(token: str) -> str:
    return f"Basic {base64.b64encode(token.encode()).decode()}"


def _identifier(name: str) -> str:
    """Return an InfluxQL identifier."""
    if "\r" in name or "\0" in name:
        raise Unusable("a name with a carriage return or a zero byte cannot be asked for in InfluxQL")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _as_text(value: Any) -> str:
    """Return a value of an answer in Flux's notation."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _tables(text: io.TextIOWrapper) -> Iterator[dict[str, str]]:
    """Yield the rows of all tables of a Flux answer. An error can be the last table of an answer that began well."""
    names: list[str] = []
    for cells in csv.reader(text):
        if not cells:
            names = []
        elif not names:
            names = cells
        elif "error" in names:
            raise NoServer(f"the server broke off its answer: {cells[names.index('error')][:300]}")
        else:
            yield {name: cell for name, cell in zip(names, cells, strict=True) if name}


def _quoted(text: str) -> str:
    """Return a Flux string."""
    return json.dumps(text, ensure_ascii=False).replace("${", "\\${")


def _kept(*columns: str) -> str:
    return f"keep(columns: [{', '.join(map(_quoted, columns))}])"


def _dropped(*columns: str) -> str:
    return f"drop(columns: [{', '.join(map(_quoted, columns))}])"


def _text(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{(EPOCH + timedelta(seconds=seconds)).isoformat()[:19]}.{rest:09}Z"


def findings_in_bucket(bucket: Bucket, question: Question) -> Iterator[Finding]:
    """Yield a finding for each window, in order of time, reading no more than an hour ahead.

    Raises:
        Unusable: The bucket cannot be read, or there is nothing to check.
        NoServer: The server does not answer completely.
    """
    place = bucket.place
    first_ns = bucket.first_from(place.start_ns)
    if first_ns is None:
        raise Unusable(
            f"bucket {place.bucket!r} holds neither rows of {place.measurement}_anonymized, field {place.field!r}, nor their "
            "summaries at these times; check --bucket, --measurement, --field, --start and --stop"
        )
    seen = SeenWindows()
    waiting: list[Held] = []
    for start_ns, end_ns in _spans(bucket, first_ns):
        waiting = _with_rows_of(waiting, bucket, start_ns, end_ns, question)
        done = [held for held in waiting if held.end_ns <= end_ns]
        waiting = [held for held in waiting if held.end_ns > end_ns]
        yield from (_examined(held, question, seen) for held in done if held.start_ns >= place.start_ns)
    # A window cut by --stop cannot be checked.
    yield from (_examined(held, question, seen) for held in waiting if held.end_ns <= place.stop_ns)


def _examined(held: Held, question: Question, seen: SeenWindows, *, in_order: bool = False) -> Finding:
    finding = examine(held, question, in_a_file=False)
    if in_order and (problems := [one for one in _problems_of_rows(held.rows, in_order=True) if one not in finding.problems]):
        finding = replace(finding, problems=(*finding.problems, *problems))
    if held.summary is not None and (seen.add(held.start_ns, held.end_ns) or held.is_released_twice):
        finding = replace(finding, problems=(*finding.problems, "it overlaps another window: released twice"))
    return finding


def _spans(bucket: Bucket, first_ns: int) -> Iterator[tuple[int, int]]:
    """Yield spans that cover all rows, at most an hour and about MOST_ROWS rows each, none across a whole hour.

    A query across two shards would lose rows if the field's type differs between them.
    """
    position_ns: int | None = first_ns
    while position_ns is not None:
        end_ns = min((position_ns // HOUR_NS + 1) * HOUR_NS, bucket.place.stop_ns)
        rows = bucket.count(position_ns, end_ns)
        step_ns = max((end_ns - position_ns) // -(-max(rows, 1) // MOST_ROWS), SECOND_NS)
        for part_ns in range(position_ns, end_ns, step_ns):
            yield part_ns, min(part_ns + step_ns, end_ns)
        # Empty hours and years are skipped at once.
        position_ns = bucket.first_from(end_ns) if end_ns < bucket.place.stop_ns else None


def _with_rows_of(waiting: list[Held], bucket: Bucket, start_ns: int, end_ns: int, question: Question) -> list[Held]:
    """Return the open windows with the summaries and rows of one span added, in order of time."""
    for window_ns, summary in bucket.summaries(start_ns, end_ns):
        _check_form(summary, f"bucket {bucket.place.bucket!r}")
        waiting.append(Held(window_ns, window_ns + int(summary["window_seconds"]) * SECOND_NS, summary))
    return _sorted_into(_with_cohorts_together(waiting), bucket.rows(start_ns, end_ns), question)


def _with_cohorts_together(windows: Iterable[Held]) -> list[Held]:
    """Return windows, with overlapping ones of several cohorts merged: their rows cannot be told apart."""
    together: list[Held] = []
    for held in sorted(windows, key=lambda one: one.start_ns):
        last = next((one for one in reversed(together) if one.summary is not None), None)
        if last is None or held.summary is None or held.start_ns >= last.end_ns or not _is_beside(last, held):
            together.append(held)
            continue
        last.cohorts = last.cohorts or [(_summary_of(last), last.end_ns)]
        added = held.cohorts or [(held.summary, held.end_ns)]
        last.is_released_twice |= any(
            _label(one) == _label(other) and held.start_ns < end_ns for one, end_ns in last.cohorts for other, _ in added
        )
        last.cohorts += added
        last.rows += held.rows
        last.end_ns = max(last.end_ns, held.end_ns)
    return together


def _summary_of(held: Held) -> Summary:
    assert held.summary is not None, "called only for windows with a summary"
    return held.summary


def _label(summary: Summary) -> str:
    return summary.get("batch_id", "").rpartition("-")[0].rpartition("-")[0]


def _is_beside(one: Held, other: Held) -> bool:
    """Return whether two windows are cohorts of one data set by one tag: `<data set>.<digest of the tag>.<of its value>`."""
    parts = [_label(_summary_of(held)).split(".") for held in (one, other)]
    return all(len(part) == 3 for part in parts) and parts[0][:2] == parts[1][:2]


def _sorted_into(waiting: Iterable[Held], rows: Iterable[Row], question: Question) -> list[Held]:
    """Return windows with rows added, and new windows for rows outside all of them, in order of time."""
    waiting = list(waiting)
    told = sorted((held for held in waiting if held.summary is not None), key=lambda held: held.start_ns)
    untold = {held.start_ns: held for held in waiting if held.summary is None}
    starts = [held.start_ns for held in told]
    for row in rows:
        at = bisect.bisect_right(starts, row[0]) - 1
        if at >= 0 and row[0] < told[at].end_ns:
            told[at].rows.append(row)
            continue
        window_ns = row[0] // question.window_ns * question.window_ns
        untold.setdefault(window_ns, Held(window_ns, window_ns + question.window_ns)).rows.append(row)
    return sorted([*told, *untold.values()], key=lambda held: held.start_ns)


#: Integer fields of every summary, and of the methods that form groups.
_NUMBERS = (
    *("window_seconds", "rows_read", "rows_released", "rows_withheld", "rows_invalid", "rows_duplicate", "distinct_sources"),
)
_NUMBERS_OF_GROUPS = ("rows_starred", "rows_suppressed", "k", "distinct_values", "smallest_group")


def _numbers_of(schema: str) -> tuple[str, ...]:
    return _NUMBERS if schema == RHYTHM_SCHEMA else (*_NUMBERS, *_NUMBERS_OF_GROUPS)


def _fields_of(schema: str) -> list[str]:
    """Return the fields of a summary that are checked."""
    return [*_numbers_of(schema), "schema", "partial", "template_digest" if schema == RHYTHM_SCHEMA else "k_unit"]


def _check_form(summary: Summary, where: str) -> None:
    schema = summary.get("schema", "")
    missing = [name for name in _fields_of(schema) if not summary.get(name)]
    wrong = [name for name in _numbers_of(schema) if not summary.get(name, "").isdecimal()]
    if missing or wrong or int(summary["window_seconds"]) < 1:
        fields = ", ".join(dict.fromkeys([*missing, *wrong])) or "window_seconds"
        raise Unusable(f"a window summary in {where} lacks a usable {fields}: is it one of this project?")


# Command line and messages


class Report:
    """Prints findings as they arrive, then the verdict."""

    def __init__(self, *, unit: str, table: bool) -> None:
        self._unit = unit
        self._table = table
        self._windows = self._rows = self._broken = self._partial = self._erased = self._removed = self._mixed = 0
        self._smallest: int | None = None
        self._problems: Counter[str] = Counter()
        self._first: dict[str, int] = {}

    def add(self, finding: Finding) -> None:
        """Count a finding; with --table, print it."""
        if self._table:
            if not self._windows:
                _tell(f"{'window':<20} {'rows':>8} {'sources':>8} {'values':>8} {'smallest':>8} {'imputed':>8}  problems")
            _tell(_line(finding))
        self._windows += 1
        self._rows += finding.rows
        self._broken += bool(finding.problems)
        self._partial += bool(finding.incomplete)
        self._erased += finding.is_erased
        self._removed += finding.is_removed
        self._mixed += finding.is_mixed
        if finding.distinct_values and not finding.is_erased:
            self._smallest = min(finding.smallest_group, self._smallest or finding.smallest_group)
        for problem in finding.problems:
            self._problems[problem] += 1
            self._first.setdefault(problem, finding.start_ns)

    def verdict(self, question: Question) -> int:
        """Print the verdict; return the exit code."""
        if not self._windows:
            _tell("No rows: nothing was released.")
            return 0
        if self._removed == self._windows:
            return self._end("OK: no row is left to be checked.")
        if self._checks_beats(question):
            _tell(f"{self._windows} window{'s' if self._windows > 1 else ''}, {self._rows} rows.")
            return self._end("OK: every row is one of the public beat at the beat times.")
        promised = f"promised: {question.promise.k}" if question.promise else "promised: what each summary says"
        _tell(
            f"{self._windows} window{'s' if self._windows > 1 else ''}, {self._rows} rows. "
            f"Smallest group: {self._smallest or 0} {self._unit} ({promised})."
        )
        return self._end("OK: every released value is shared as promised.")

    def _checks_beats(self, question: Question) -> bool:
        return question.rhythm or (question.promise is None and self._smallest is None and not self._erased)

    def _end(self, verdict: str) -> int:
        if self._partial:
            _tell(f"INCOMPLETE: of {self._partial} windows the server refused rows (partial); what is there was checked.")
        if self._erased:
            _tell(f"ERASED: rows of {self._erased} windows were taken back after their release; k was held at the release.")
        if self._removed:
            _tell(
                f"REMOVED: rows of {self._removed} windows were removed because of their age (RETENTION_DAYS), as their summaries say."
            )
        if self._mixed:
            _tell(
                f"MIXED: the rows of {self._mixed} windows are of several cohorts, and which row is whose cannot be told: values that "
                "fewer than k share were accepted where they can be a cohort's mean (RESIDUAL=impute)."
            )
        for problem, windows in self._problems.most_common():
            _tell(f"VIOLATION in {windows} windows, the first {_shown(self._first[problem])}: {problem}")
        if self._broken:
            return EXIT_VIOLATION
        _tell(verdict)
        return 0


def _tell(line: str) -> None:
    """Print a line. A reader that leaves early, such as `head`, changes neither the check nor its verdict."""
    try:
        print(line, flush=True)
    except (BrokenPipeError, ConnectionResetError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(finding: Finding) -> str:
    counts = (finding.rows, finding.sources, finding.distinct_values, finding.smallest_group, finding.imputed_rows)
    remarks = [f"incomplete: {one}" for one in finding.incomplete] + (["rows were erased"] if finding.is_erased else [])
    remarks += ["rows were removed"] if finding.is_removed else []
    remarks += ["cohorts cannot be told apart"] if finding.is_mixed else []
    said = "; ".join((*finding.problems, *remarks)) or "-"
    return f"{_shown(finding.start_ns):<20} " + " ".join(f"{count:>8}" for count in counts) + f"  {said}"


def _shown(start_ns: int) -> str:
    return f"{_text(start_ns)[:19]}Z"


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the check; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = read_env_file(options.env_file) if options.env_file else {}
        folder = _folder(options.files, {**settings, **environment})
        question = _question(options, settings)
        if folder:
            findings = findings_in_folder(folder, question)
        elif options.files:
            findings = findings_in_files(options.files, question)
        else:
            findings = findings_in_bucket(_bucket(options, settings, environment), question)
        by_source = question.promise is not None and question.promise.by_source
        report = Report(unit="sources" if by_source else "rows", table=options.table)
        for finding in findings:
            report.add(finding)
    except Unusable as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    except NoServer as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_SERVER
    return report.verdict(question)


def _is_stored(path: Path) -> bool:
    # pathlib turns the two slashes of an address into one.
    return str(path).startswith("s3:/")


def _folder(files: Sequence[Path], given: Mapping[str, str]) -> Path | ObjectStore | None:
    """Return the folder of Parquet files to check, if the arguments name one."""
    if len(files) == 1 and _is_stored(files[0]):
        return ObjectStore(str(files[0]).removeprefix("s3:/"), given)
    if not any(path.is_dir() or _is_stored(path) for path in files):
        return None
    if len(files) > 1:
        raise Unusable("one folder of Parquet files is checked at a time, and no files beside it")
    return files[0]


def read_env_file(path: Path) -> dict[str, str]:
    """Return the settings of an `.env`: one NAME=value per line; quotes around a value are removed.

    Raises:
        Unusable: The file, or a line of it, cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unusable(f"--env-file {path} cannot be read ({error.strerror})") from None
    settings: dict[str, str] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            name, value = _setting(line.removesuffix(b"\r"))
        except ValueError as problem:
            raise Unusable(f"--env-file {path}, line {number}: {problem}") from None
        if settings.get(name, value) != value:
            raise Unusable(f"--env-file {path}, line {number}: a name is set again, to another value: keep one of them")
        settings[name] = value
    settings.pop("", None)
    return settings


def _setting(line: bytes) -> tuple[str, str]:
    """Return the name and value that a line sets; two empty strings if it sets none.

    Raises:
        ValueError: The line cannot be read; the message does not quote it.
    """
    try:
        text = line.decode().strip(" \t")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text if character != "\t"):
        raise ValueError("it holds a control character")
    if not text or text.startswith("#"):
        return "", ""
    name, equals, value = re.sub(r"^export[ \t]+", "", text).partition("=")
    if not (equals and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*[ \t]*", name)):
        raise ValueError("it is not a setting: write NAME=value, or begin a comment with #")
    return name.strip(" \t"), _bare(value.strip(" \t"))


def _bare(value: str) -> str:
    if value[:1] not in ("'", '"'):
        return re.split(r"(?:^|[ \t])#" if value.startswith("# ") else r"[ \t]#", value, maxsplit=1)[0].rstrip(" \t")
    quoted = re.fullmatch(r"""(['"])((?:\\.|(?!\1|\\).)*)\1(?:[ \t]+#.*)?""", value)
    if quoted is None:
        raise ValueError("its quote is not closed, or something follows the closing quote")
    return re.sub(r"\\([\\'\"])", r"\1", quoted[2])


def _question(options: argparse.Namespace, settings: Mapping[str, str]) -> Question:
    if (options.method or settings.get("METHOD", "")).lower() == "rhythm":
        return _question_on_rhythm(options, settings)
    k = options.k or _whole_number(settings, "K_VALUE", 5 if settings else None)
    seconds = options.batch_seconds or _whole_number(settings, "BATCH_SIZE_SECONDS", 5 if settings else None)
    unit = options.k_unit or settings.get("K_UNIT") or "record"
    if any(not (path.is_dir() or _is_stored(path)) for path in options.files) and not (k and seconds):
        raise Unusable("files do not say what was promised: give --k and --batch-seconds, or --env-file")
    if (k is not None and k < 2) or (seconds is not None and seconds < 1):
        raise Unusable("--k must be at least 2 and --batch-seconds at least 1")
    promise = Promise(k, unit.lower() == "source") if k else None
    imputed = options.imputed or settings.get("RESIDUAL", "").lower() == "impute"
    return Question(promise, (seconds or 5) * SECOND_NS, imputed, erased_ns=_erased_in(options.erasure))


def _erased_in(certificates: Sequence[Path]) -> frozenset[int]:
    """Return the starts of all windows that certificates of erasures list."""
    starts = set()
    for path in certificates:
        try:
            starts |= {_moment_ns(str(start)) for start, _ in json.loads(path.read_bytes())["windows"]}
        except OSError as error:
            raise Unusable(f"--erasure {path} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError):
            raise Unusable(f"--erasure {path} is no certificate that scripts/state.py erase wrote") from None
    return frozenset(starts)


def _question_on_rhythm(options: argparse.Namespace, settings: Mapping[str, str]) -> Question:
    if options.k or options.k_unit or options.imputed:
        raise Unusable("METHOD=rhythm promises no k: leave --k, --k-unit and --imputed out")
    seconds = options.batch_seconds or _whole_number(settings, "BATCH_SIZE_SECONDS", 10)
    return Question(None, (seconds or 10) * SECOND_NS, imputed=False, rhythm=True)


def _whole_number(settings: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = settings.get(name) or ""
    if text and re.fullmatch("[0-9]{1,9}", text) is None:
        raise Unusable(f"{name} in the --env-file must be a whole number")
    return int(text) if text else default


def _bucket(options: argparse.Namespace, settings: Mapping[str, str], environment: Mapping[str, str]) -> Bucket:
    """Return the bucket (InfluxDB 2) or database (1 and 3) to query, by the version that the server states."""
    place = _place(options, settings)
    token = _secret(environment, "INFLUX_VERIFY_TOKEN") or _secret(settings, "INFLUX_VERIFY_TOKEN")
    user, password = _user(settings, environment)
    used = token or (f"{user}:{password}" if user else "")
    if token and not (token.isascii() and token.isprintable() and token == token.strip()):
        raise Unusable("INFLUX_VERIFY_TOKEN holds characters that no token has, such as a line end")
    try:
        asked = Bucket(place, token)
        if user and not token:
            asked = Database(place, used, is_version_1=True)
        major = _major(asked, options.query_language or settings.get("INFLUX_QUERY_LANGUAGE", ""))
        if major != "2":
            return Database(place, used, is_version_1=major == "1")
    except NoServer:
        # These problems can be reported without the server.
        if used and place.org:
            raise
    except OSError as error:
        raise Unusable(f"INFLUX_CA_FILE {place.ca_file} cannot be used ({error})") from None
    if not place.org:
        raise Unusable("name the organization with --org, or an --env-file with INFLUX_ORG")
    if not token:
        raise Unusable(
            "set INFLUX_VERIFY_TOKEN or INFLUX_VERIFY_TOKEN_FILE, in the environment or the --env-file, "
            "to a token that may read the bucket"
        )
    return Bucket(place, token)


def _user(settings: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, str]:
    name = environment.get("INFLUX_USERNAME") or settings.get("INFLUX_USERNAME") or ""
    return name, _secret(environment, "INFLUX_PASSWORD") or _secret(settings, "INFLUX_PASSWORD")


def _major(bucket: Bucket, language: str) -> str:
    """Return whether a server is an InfluxDB 1, 2 or 3. An InfluxDB 2 is queried in Flux, which all of its releases support."""
    if language.lower() == "flux":
        return "2"
    said = bucket.version()
    major = "2" if said == "dev" else said.removeprefix("v").partition(".")[0]
    if major not in ("1", "2", "3"):
        raise Unusable(
            f"InfluxDB at {bucket.place.url} does not say which version it is (header X-Influxdb-Version of /ping): if it is an "
            "InfluxDB 2, say so with --query-language flux"
        )
    return major


def _place(options: argparse.Namespace, settings: Mapping[str, str]) -> Place:
    def first(*names: str, default: str = "") -> str:
        return next((settings[name] for name in names if settings.get(name)), default)

    place = Place(
        url=(options.url or first("INFLUX_OUTPUT_URL", "INFLUX_URL", default="http://localhost:8086")).rstrip("/"),
        org=options.org or first("INFLUX_OUTPUT_ORG", "INFLUX_ORG"),
        bucket=options.bucket or first("INFLUX_OUTPUT_BUCKET", default="anonymized-data"),
        measurement=options.measurement or first("INFLUX_MEASUREMENT", default="ecg"),
        field=options.field or first("INFLUX_FIELD", default="ecg"),
        source_tag=options.source_tag or first("SOURCE_TAG", default="source_id"),
        ca_file=str(options.ca_file or first("INFLUX_CA_FILE")),
        start_ns=_moment_ns(options.start) if options.start else FIRST_TIME_NS,
        stop_ns=_moment_ns(options.stop) if options.stop else time.time_ns() - SETTLED_AFTER_NS,
    )
    if not place.url.startswith(("http://", "https://")) or re.search("[?#@]", place.url):
        raise Unusable("--url must be an address such as http://localhost:8086, without password, ? and #")
    if place.stop_ns <= place.start_ns:
        raise Unusable("--stop must be after --start, which are times in UTC")
    return place


def _moment_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Unusable(f"expected a time such as 2025-11-03T14:30:00Z, got {text!r}") from None
    if not 1700 <= moment.year < 2240:
        raise Unusable(f"expected a time in the years 1700 to 2239, got {text!r}")
    since = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment) - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1000


def _whole(text: str) -> int:
    if re.fullmatch("[0-9]{1,9}", text) is None:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}")
    return int(text)


def _path(text: str) -> Path:
    """Return a path; refuse `~` and variables, which a shell does not expand in `--env-file=~/x`."""
    if re.match(r"~|.*\$[A-Za-z_{]", text):
        raise argparse.ArgumentTypeError(f"expected a path without ~, $NAME or %NAME%, which are not replaced here, got {text!r}")
    return Path(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="CSV files, in order of time, or a folder of Parquet files, or s3://bucket/prefix; none: a bucket is read",
    )
    parser.add_argument("--k", type=_whole, help="how many must share each value; of a bucket, by default what each summary says")
    parser.add_argument("--batch-seconds", type=_whole, help="length of a window, BATCH_SIZE_SECONDS; a summary says its own")
    parser.add_argument("--k-unit", choices=("record", "source"), help="what k counts: rows (default) or sources")
    parser.add_argument(
        "--method", choices=("rhythm",), help="check that rows are of the public beat (METHOD=rhythm), not that k share"
    )
    parser.add_argument("--imputed", action="store_true", help="accept rows with the mean of all others (RESIDUAL=impute)")
    parser.add_argument(
        "--erasure",
        type=_path,
        action="append",
        default=[],
        metavar="PATH",
        help="certificate of an erasure: in its windows k was held at the release; summaries say so by themselves",
    )
    parser.add_argument("--table", action="store_true", help="print a line for each window")
    bucket = parser.add_argument_group("a bucket")
    bucket.add_argument("--env-file", type=_path, metavar="PATH", help="the service's .env, for whatever is not an argument")
    bucket.add_argument("--url", help="the server; default http://localhost:8086")
    bucket.add_argument("--org", help="the organization")
    bucket.add_argument("--bucket", help="the bucket; default anonymized-data")
    bucket.add_argument(
        "--query-language",
        choices=("auto", "flux", "influxql"),
        help="INFLUX_QUERY_LANGUAGE; flux: an InfluxDB 2 that does not say so",
    )
    bucket.add_argument("--measurement", help="INFLUX_MEASUREMENT, without _anonymized; default ecg")
    bucket.add_argument("--field", help="INFLUX_FIELD; default ecg")
    bucket.add_argument("--source-tag", help="SOURCE_TAG; default source_id")
    bucket.add_argument("--ca-file", type=_path, metavar="PATH", help="certificate authority file for https")
    bucket.add_argument("--start", metavar="TIME", help="first window; default: the first there is")
    bucket.add_argument("--stop", metavar="TIME", help="end of the last window; default: a minute ago")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

"""Counts the kinds of all cells of a file before the first release, decides which kinds are read, and warns of or refuses the rest.

Each row is counted once, by the first that applies: unrequested source, no time, outside the requested span, no source, no number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from anonymizer.errors import SourceRefused
from anonymizer.samples import NO_SOURCE, Samples
from inputs.file_columns import ValueKind
from inputs.file_times import CALENDAR_KINDS, EPOCH_KINDS, NUMBER_KINDS, TimeKind

#: Above this share of the requested rows, invalid rows cause a warning.
_WARNING_SHARE = 0.01

#: From this share of unreadable cells on (of a column's non-empty cells), the file is refused.
_REFUSAL_SHARE = 0.5

_FORMS_OF_TIMES = (
    "read are ISO 8601 (such as 2025-11-03T14:30:00.25Z or 2025-11-03 14:30:00+01) and, where all cells are of one unit, epoch seconds, "
    "milliseconds, microseconds or nanoseconds of the years 1990 to 2099"
)
_FORMS_OF_VALUES = "read are numbers such as -12, 0.5 or 1e3, and 0,5 where all decimals have a comma"

_MAYBE_TIMES = frozenset({*CALENDAR_KINDS, *EPOCH_KINDS})

#: Returns the place of a row, such as `line 83`.
Place = Callable[[int], str]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Parsed rows, in the file's order.

    Args:
        samples: Times, sources and values (in the file's unit) of all rows, also of invalid ones.
        time_kinds: `TimeKind` of each row, shape (n,), int8.
        value_kinds: `ValueKind` of each row, shape (n,), int8.
        is_wanted: Whether the row's source was requested, shape (n,), bool.
    """

    samples: Samples
    time_kinds: npt.NDArray[np.int8]
    value_kinds: npt.NDArray[np.int8]
    is_wanted: npt.NDArray[np.bool_]


#: Axes: wanted, time kind, in the requested span, has a source, value kind.
_SHAPE = (2, len(TimeKind), 2, 2, len(ValueKind))


@dataclass(slots=True)
class Survey:
    """Counts rows by kind, and keeps the place of the first of each kind.

    Args:
        start_ns, end_ns: The requested span; None: no bound.
    """

    start_ns: int | None = None
    end_ns: int | None = None
    _rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_SHAPE, np.int64))
    _places: dict[tuple[str, int], str] = field(default_factory=dict)
    #: Whether the delimiter is a comma, so that a point in a number is a decimal point.
    has_commas_between: bool = False

    def add(self, cells: Cells, place: Place) -> None:
        """Count rows; `place` returns the position of one of them."""
        times_ns = cells.samples.times_ns
        in_span = self.is_in_span(times_ns)
        has_source = cells.samples.source_codes != NO_SOURCE
        index = np.zeros(len(times_ns), np.int16)
        for kinds, size in zip((cells.is_wanted, cells.time_kinds, in_span, has_source, cells.value_kinds), _SHAPE, strict=True):
            index = index * size + kinds
        rows = np.bincount(index, minlength=self._rows.size).reshape(_SHAPE)
        self._rows += rows
        requested, is_requested = rows[1, :, 1], cells.is_wanted & in_span
        self._keep_places("time", _by_kind(rows[1], 0), cells.time_kinds, cells.is_wanted, place)
        leaps = np.where(np.arange(len(TimeKind)) == TimeKind.LEAP_SECOND, _by_kind(requested, 0), 0)
        self._keep_places("leap second", leaps, cells.time_kinds, is_requested, place)
        self._keep_places("source", _by_kind(requested, 1), has_source, is_requested, place, usual=1)
        self._keep_places("value", _by_kind(requested, 2), cells.value_kinds, is_requested, place, usual=ValueKind.NUMBER)

    def _keep_places(
        self,
        what: str,
        rows: npt.NDArray[np.int64],
        kinds: npt.NDArray[np.int8 | np.bool_],
        among: npt.NDArray[np.bool_],
        place: Place,
        *,
        usual: int | None = None,
    ) -> None:
        """Keep the place of the first row of each kind but the usual one; `rows` counts the rows of each kind."""
        for kind in np.flatnonzero(rows).tolist():
            if kind != usual and (what, kind) not in self._places:
                self._places[what, kind] = place(int(np.flatnonzero(among & (kinds == kind))[0]))

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return int(self._rows.sum())

    @property
    def unwanted(self) -> int:
        """How many rows are of unrequested sources."""
        return int(self._rows[0].sum())

    @property
    def has_leap_seconds(self) -> bool:
        """Whether requested sources have rows at 23:59:60."""
        return bool(self._rows[1, TimeKind.LEAP_SECOND].any())

    def is_in_span(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which times lie in the requested span, shape (n,), bool."""
        found = np.ones(len(times_ns), np.bool_)
        for bound, is_within in ((self.start_ns, np.greater_equal), (self.end_ns, np.less)):
            if bound is not None:
                found &= is_within(times_ns, bound)
        return found

    def leap_second_warning(self, rows: int) -> str:
        """Return the warning that so many rows of a leap second are invalid, with the place of the first one."""
        return (
            f"INPUT_FILE: {rows} rows of a leap second (23:59:60), {self._place('leap second', TimeKind.LEAP_SECOND)}, are invalid: "
            "their sources have rows in the second after it as well, and both cannot be the same second"
        )

    def conclude(self) -> Conclusion:
        """Decide which kinds of cells count as times.

        Raises:
            SourceRefused: The unit of times or the decimal mark is ambiguous, or at least half of a column cannot be read.
        """
        by_time = self._rows.sum(axis=(0, 2, 3, 4))
        numbers, calendar = by_time[list(NUMBER_KINDS)].sum(), by_time[[*CALENDAR_KINDS, TimeKind.BEYOND]].sum()
        time_kinds: Sequence[TimeKind] = CALENDAR_KINDS
        if numbers > calendar:
            time_kinds = [kind for kind in EPOCH_KINDS if by_time[kind]]
            self._check_units([kind for kind in NUMBER_KINDS if by_time[kind]])
        conclusion = Conclusion(self, frozenset(time_kinds))
        self._check_share("timestamp", "time", _by_kind(self._rows[1], 0), _read_or_missing(conclusion), _FORMS_OF_TIMES)
        self._check_commas()
        readable = frozenset(ValueKind) - {ValueKind.UNREADABLE}
        self._check_share("ecg", "value", _by_kind(self._rows[1], 3), readable, _FORMS_OF_VALUES)
        return conclusion

    def _asked(self, conclusion: Conclusion) -> npt.NDArray[np.int64]:
        """Return counts of the wanted rows, without rows that have a time outside the requested span."""
        asked: npt.NDArray[np.int64] = self._rows[1].copy()
        asked[sorted(conclusion.time_kinds), 0] = 0
        return asked

    def _check_units(self, kinds: Sequence[TimeKind]) -> None:
        if len(kinds) == 1 and kinds[0] in EPOCH_KINDS:
            return
        found = ", ".join(f"{_UNITS[kind]} ({self._place('time', kind)})" for kind in kinds)
        raise SourceRefused(
            f"INPUT_FILE: column timestamp holds numbers that are no epoch times of one unit: {found}; {_FORMS_OF_TIMES}"
        )

    def _check_commas(self) -> None:
        by_value = self._rows.sum(axis=(0, 1, 2, 3))
        commas, maybe = by_value[ValueKind.DECIMAL_COMMA], by_value[ValueKind.ONE_COMMA]
        points, maybe_points = by_value[ValueKind.DECIMAL_POINT], by_value[ValueKind.ONE_POINT]
        if commas or maybe:
            kind = ValueKind.DECIMAL_COMMA if commas else ValueKind.ONE_COMMA
            if points or maybe_points:
                raise self._doubtful("a comma", kind, "others have a decimal point")
            if not commas:
                raise self._doubtful("a comma", kind, "all of them could be commas between thousands")
        elif maybe_points and by_value[ValueKind.NUMBER] and not points and not self.has_commas_between:
            raise self._doubtful(
                "a point", ValueKind.ONE_POINT, "all of them could be points between thousands, as others have none"
            )

    def _doubtful(self, mark: str, kind: ValueKind, doubt: str) -> SourceRefused:
        return SourceRefused(
            f"INPUT_FILE: column ecg holds numbers with {mark} ({self._place('value', kind)}), and {doubt}; write decimal points, "
            "and nothing between thousands"
        )

    def _check_share(self, column: str, what: str, by_kind: npt.NDArray[np.int64], readable: frozenset[int], forms: str) -> None:
        held = int(by_kind[1:].sum())
        bad_kinds = [kind for kind in range(len(by_kind)) if kind not in readable and by_kind[kind]]
        bad = int(sum(by_kind[kind] for kind in bad_kinds))
        if bad and bad >= _REFUSAL_SHARE * held:
            raise SourceRefused(
                f"INPUT_FILE: {bad} of the {held} cells of column {column} that hold something are no {what} "
                f"({self._place(what, bad_kinds[0])}); {forms}"
            )

    def _place(self, what: str, kind: int) -> str:
        return f"such as {self._places[what, kind]}" if (what, kind) in self._places else "of sources or times not asked for"


_UNITS = {
    TimeKind.SECONDS: "seconds",
    TimeKind.MILLISECONDS: "milliseconds",
    TimeKind.MICROSECONDS: "microseconds",
    TimeKind.NANOSECONDS: "nanoseconds",
    TimeKind.OTHER_NUMBER: "of no unit",
}


def _by_kind(rows: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = rows.sum(axis=tuple(other for other in range(rows.ndim) if other != axis))
    return found


def _read_or_missing(conclusion: Conclusion) -> frozenset[int]:
    # A time out of range was parsed; it invalidates its row and says nothing about the column.
    return frozenset({TimeKind.MISSING, TimeKind.BEYOND, *conclusion.time_kinds})


def may_be_times(time_kinds: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Return which cells may count as times once the whole file is surveyed, shape (n,), bool."""
    return _are_among(_MAYBE_TIMES, time_kinds)


def _are_among(known: frozenset[TimeKind], kinds: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    is_known = np.isin(np.arange(len(TimeKind)), list(known))
    # Usually all are of one kind.
    if len(kinds) and kinds.min() == kinds.max():
        return np.full(len(kinds), is_known[kinds[0]])
    found: npt.NDArray[np.bool_] = is_known[kinds]
    return found


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome of a survey.

    Args:
        survey: The counts.
        time_kinds: Kinds of cells that count as times in this file.
    """

    survey: Survey
    time_kinds: frozenset[TimeKind]

    def has_time(self, time_kinds: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
        """Return which cells count as times, shape (n,), bool."""
        return _are_among(self.time_kinds, time_kinds)

    @property
    def drops_times(self) -> bool:
        """Whether requested rows have no time only because the file's times are of other kinds."""
        by_time = _by_kind(self.survey._rows[1], 0)
        return bool(by_time[sorted(_MAYBE_TIMES - self.time_kinds)].any())

    @property
    def without_time(self) -> int:
        """How many requested rows have no time."""
        by_time = _by_kind(self.survey._asked(self), 0)
        return int(by_time.sum() - by_time[sorted(self.time_kinds)].sum())

    def _mixed_zones(self) -> list[str]:
        """Return a warning if only some times name a zone: the others may be local times, hours off from UTC."""
        by_time = _by_kind(self.survey._asked(self), 0)
        zoned, zoneless = int(by_time[TimeKind.CALENDAR]), int(by_time[TimeKind.WITHOUT_ZONE])
        if TimeKind.CALENDAR not in self.time_kinds or not (zoned and zoneless):
            return []
        few = TimeKind.WITHOUT_ZONE if zoneless <= zoned else TimeKind.CALENDAR
        return [
            f"INPUT_FILE: {zoneless} of the {zoned + zoneless} times name no zone and are taken as UTC, the others name one, "
            f"{self.survey._place('time', few)}; if they are local, they are hours wrong: write all times with their zone"
        ]

    def remarks(self) -> list[str]:
        """Return a warning for each reason that makes more than 1 % of the rows invalid."""
        survey = self.survey
        asked = survey._asked(self)
        in_all = int(asked.sum())
        with_time = asked[sorted(self.time_kinds)]
        with_source = with_time[:, :, 1]
        reasons = (
            (self.without_time, "no readable time", "time", [*sorted(set(TimeKind) - self.time_kinds - {TimeKind.MISSING}), 0]),
            (int(with_time[:, :, 0].sum()), "no source", "source", [0]),
            (
                int(with_source[..., [ValueKind.MISSING, ValueKind.UNREADABLE]].sum()),
                "no number",
                "value",
                [ValueKind.UNREADABLE, ValueKind.MISSING],
            ),
        )
        return self._mixed_zones() + [
            f"INPUT_FILE: {rows} of {in_all} rows ({100 * rows / in_all:.1f} %) are invalid: they have {reason}, "
            f"{next((survey._place(what, kind) for kind in kinds if (what, kind) in survey._places), '')}"
            for rows, reason, what, kinds in reasons
            if rows > _WARNING_SHARE * in_all
        ]

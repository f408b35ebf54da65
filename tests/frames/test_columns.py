"""The same rows come out the same, whatever types, zones and places hold them; what is ambiguous is refused with its place."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from anonymizer.errors import ConfigurationError, SourceRefused
from anonymizer.pseudonyms import Pseudonymizer
from ecg_frames import anonymize_frame

ROWS = 40
TIMES = pd.date_range("2025-11-03T14:30", periods=ROWS, freq="10ms", tz="UTC", unit="ns")
BASE = pd.DataFrame({"timestamp": TIMES, "source_id": ["a", "b"] * (ROWS // 2), "ecg": np.arange(ROWS) * 1.0})
RELEASED = anonymize_frame(BASE).frame["ecg"].to_numpy()

KEY = "8f41c09be7d2a6530f9e8b7c6d5a4e3107b6d92ce5a1f8436c0e97d2b4185fa3"

VIENNA = "Europe/Vienna"


def objects(cells: Any) -> pd.Series:
    """Return a column of Python objects."""
    return pd.Series(list(cells), dtype=object)


def local(zone: str = VIENNA) -> pd.DatetimeIndex:
    """Return the times as clocks in a zone show them."""
    return TIMES.tz_convert(zone).tz_localize(None)


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "milliseconds": ({"timestamp": TIMES.as_unit("ms")}, {}),
    "another zone": ({"timestamp": TIMES.tz_convert("Asia/Kathmandu")}, {}),
    "no zone, UTC stated": ({"timestamp": TIMES.tz_localize(None)}, {"zone": "UTC"}),
    "no zone, Vienna stated": ({"timestamp": local().as_unit("us")}, {"zone": VIENNA}),
    "epoch, seconds as floats": ({"timestamp": TIMES.asi8 / 1e9}, {"epoch": "s"}),
    "epoch, milliseconds": ({"timestamp": TIMES.asi8 // 10**6}, {"epoch": "ms"}),
    "epoch, nanoseconds, unsigned": ({"timestamp": TIMES.asi8.astype("uint64")}, {"epoch": "ns"}),
    "epoch, nullable microseconds": ({"timestamp": pd.array(TIMES.asi8 // 1000, dtype="Int64")}, {"epoch": "us"}),
    "epoch, told by its size": ({"timestamp": TIMES.asi8 // 10**6}, {}),
    "text": ({"timestamp": [time.isoformat() for time in TIMES]}, {}),
    "text without a zone": ({"timestamp": [time.isoformat() for time in local()]}, {"zone": VIENNA}),
    "datetimes": ({"timestamp": objects(TIMES.to_pydatetime())}, {}),
    "datetimes without a zone": ({"timestamp": objects(local().to_pydatetime())}, {"zone": VIENNA}),
    "datetimes of two zones": ({"timestamp": objects(TIMES[:20]).tolist() + objects(TIMES[20:].tz_convert(VIENNA)).tolist()}, {}),
    "numpy's datetimes": ({"timestamp": objects(TIMES.tz_localize(None).to_numpy())}, {"zone": "UTC"}),
    "categories of times": ({"timestamp": TIMES.astype("category")}, {}),
    "Arrow's times": ({"timestamp": BASE["timestamp"].astype(pd.ArrowDtype(pa.timestamp("ns", "UTC")))}, {}),
    "Arrow's times without a zone": (
        {"timestamp": pd.Series(local()).astype(pd.ArrowDtype(pa.timestamp("us")))},
        {"zone": VIENNA},
    ),
    "whole numbers": ({"ecg": BASE["ecg"].astype("int16")}, {}),
    "short floats": ({"ecg": BASE["ecg"].astype("float32")}, {}),
    "nullable numbers": ({"ecg": BASE["ecg"].astype("Float64")}, {}),
    "decimals": ({"ecg": objects(map(Decimal, range(ROWS)))}, {}),
    "numbers as text": ({"ecg": BASE["ecg"].astype("str")}, {}),
    "categories of numbers": ({"ecg": BASE["ecg"].astype("category")}, {}),
    "millivolts": ({"ecg": BASE["ecg"] / 1000}, {"value_unit": "mV"}),
    "categories of ids": ({"source_id": BASE["source_id"].astype("category")}, {}),
    "ids as objects": ({"source_id": BASE["source_id"].astype(object)}, {}),
    "ids as numbers": ({"source_id": [7, 8] * (ROWS // 2)}, {}),
    "ids as numbers and text": ({"source_id": objects([7, "b"] * (ROWS // 2))}, {}),
    "ids of Arrow's dictionary": (
        {"source_id": BASE["source_id"].astype(pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))},
        {},
    ),
    "pyarrow throughout": (dict(BASE.convert_dtypes(dtype_backend="pyarrow")), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_come_out_the_same_in_whatever_types_they_come(form: str) -> None:
    columns, arguments = FORMS[form]

    released, certificate = anonymize_frame(BASE.assign(**columns), **arguments)

    np.testing.assert_array_equal(released["ecg"].to_numpy(), RELEASED)
    assert certificate.windows.index[0] == pd.Timestamp("2025-11-03T14:30", tz="UTC")
    assert certificate.counts.released == ROWS


SHAPES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any]]] = {
    "a datetime index": (lambda frame: frame.set_index("timestamp"), {}),
    "a datetime index without a name": (lambda frame: frame.drop(columns="timestamp").set_index(TIMES), {}),
    "a datetime index, asked for": (lambda frame: frame.set_index("timestamp"), {"timestamp": None}),
    "two levels": (lambda frame: frame.set_index(["source_id", "timestamp"]), {}),
    "an index that repeats itself": (lambda frame: frame.set_axis([5] * ROWS), {}),
    "an index in no order": (lambda frame: frame.set_axis(list(range(ROWS, 0, -1))), {}),
    "other names": (
        lambda frame: frame.set_axis(["when", "who", 3], axis=1),
        {"timestamp": "when", "source_id": "who", "ecg": 3},
    ),
    "names of two levels": (
        lambda frame: frame.set_axis(pd.MultiIndex.from_tuples([("a", "t"), ("a", "s"), ("b", "e")]), axis=1),
        {"timestamp": ("a", "t"), "source_id": ("a", "s"), "ecg": ("b", "e")},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_order_index_and_names_come_out_as_they_went_in(shape: str) -> None:
    reshape, arguments = SHAPES[shape]
    frame = reshape(BASE)
    before = frame.copy(deep=True)

    released, _ = anonymize_frame(frame, **arguments)

    assert released.index.equals(frame.index)
    assert released.index.names == frame.index.names
    assert released.columns.equals(frame.columns)
    np.testing.assert_array_equal(released[arguments.get("ecg", "ecg")].to_numpy(), RELEASED)
    released.iloc[:, -1] = 0.0
    pd.testing.assert_frame_equal(frame, before)


def test_no_other_column_and_no_attribute_comes_out() -> None:
    frame = BASE.assign(patient="Ada", ward=3)
    frame.attrs["name"] = "Ada"

    released, certificate = anonymize_frame(frame)

    assert list(released.columns) == ["timestamp", "source_id", "ecg"]
    assert released.attrs == {}
    assert "Ada" not in repr(certificate)


def test_what_is_not_released_is_nan_or_left_out() -> None:
    lone = pd.DataFrame({"timestamp": [TIMES[0] + pd.Timedelta(1, "h")] * 2, "source_id": ["c", "d"], "ecg": [7.0, 7.0]})
    frame = pd.concat([BASE, BASE.iloc[[3]], lone], ignore_index=True).astype({"source_id": "category"})

    kept, certificate = anonymize_frame(frame)
    dropped, _ = anonymize_frame(frame, withheld="drop")

    assert np.flatnonzero(kept["ecg"].isna()).tolist() == [ROWS, ROWS + 1, ROWS + 2]
    assert kept["source_id"].tolist() == frame["source_id"].tolist()
    pd.testing.assert_frame_equal(dropped, kept.iloc[:ROWS].assign(source_id=pd.Categorical(BASE["source_id"])))
    assert list(dropped["source_id"].cat.categories) == ["a", "b"], "no id stands where no row has it"
    assert certificate.counts.numbers()[:5] == (ROWS + 3, ROWS, 2, 0, 1)
    assert certificate.windows["smallest_group"].isna().tolist() == [False, True]


def test_an_id_without_rows_is_in_no_category_level_or_dictionary() -> None:
    ids = pd.Categorical(["a", "b"] * (ROWS // 2), categories=["a", "b", "somebody else"])
    more = pd.concat([BASE, BASE.assign(source_id="somebody else")]).set_index(["source_id", "timestamp"]).iloc[:ROWS]

    by_column = anonymize_frame(BASE.assign(source_id=ids)).frame
    by_level = anonymize_frame(more).frame

    assert list(by_column["source_id"].cat.categories) == ["a", "b"]
    assert "somebody else" not in by_level.index.levels[0]


@pytest.mark.parametrize("kind", ["str", "object", "category"])
def test_pseudonyms_are_the_hmac_of_the_ids_and_no_id_is_left(kind: str) -> None:
    frame = BASE.astype({"source_id": kind})
    pseudonyms = Pseudonymizer(KEY.encode())

    released, certificate = anonymize_frame(frame, pseudonym_key=KEY)
    by_level, _ = anonymize_frame(frame.set_index(["source_id", "timestamp"]), pseudonym_key=KEY.encode())

    assert released["source_id"].tolist() == [pseudonyms.released_id(source_id) for source_id in BASE["source_id"]]
    assert by_level.index.get_level_values(0).tolist() == released["source_id"].tolist()
    assert set(by_level.index.levels[0]) == set(released["source_id"])
    assert certificate.promise.key_id == pseudonyms.key_id


def test_ids_in_the_index_beside_their_pseudonyms_are_refused() -> None:
    frame = BASE.set_axis(BASE["source_id"].rename("who"))

    numbered = BASE.assign(source_id=BASE["source_id"].map({name: 1000 + n for n, name in enumerate(BASE["source_id"].unique())}))
    for index in (
        numbered["source_id"],
        numbered["source_id"].astype(float),
        numbered["source_id"].astype("Int64"),
        pd.MultiIndex.from_arrays([BASE.index, numbered["source_id"]], names=["row", "mrn"]),
    ):
        by_number = numbered.set_axis(index)
        by_number.index.names = ["mrn"] if by_number.index.nlevels == 1 else by_number.index.names
        with pytest.raises(SourceRefused, match="its index holds source ids"):
            anonymize_frame(by_number, pseudonym_key=KEY)
    with pytest.raises(
        SourceRefused, match="its index holds source ids, which would stand beside their pseudonyms; reset the index"
    ):
        anonymize_frame(frame, pseudonym_key=KEY)


def test_numbers_of_rows_are_no_ids_even_where_ids_are_small_numbers() -> None:
    frame = BASE.assign(source_id=np.arange(len(BASE)) % 4)

    shuffled = frame.sample(frac=1, random_state=1)

    assert anonymize_frame(shuffled, pseudonym_key=KEY).frame.index.tolist() == shuffled.index.tolist()


def test_rows_of_one_time_get_their_own_values_whatever_the_order_of_their_ids() -> None:
    values = np.repeat([10.0, 2000.0, -900.0, 400.0], ROWS // 4).reshape(4, -1).T.ravel()
    frame = BASE.assign(timestamp=TIMES[: ROWS // 4].repeat(4), source_id=[*"dbca"] * (ROWS // 4), ecg=values)

    released = anonymize_frame(frame).frame

    assert released["ecg"].tolist() == values.tolist()


def test_a_text_that_is_no_time_and_one_that_is_no_id_do_not_come_out() -> None:
    frame = BASE.assign(timestamp=[time.isoformat() for time in TIMES], source_id=BASE["source_id"].astype(object))
    frame.loc[2, "timestamp"] = "ask Ada"

    released, certificate = anonymize_frame(frame)

    assert released["timestamp"].isna().tolist() == [number == 2 for number in range(ROWS)]
    assert certificate.rows_without_time == 1
    assert certificate.counts.numbers()[:4] == (ROWS, ROWS - 1, 0, 1)
    assert certificate.remarks[-1] == "The frame: 1 of 40 rows (2.5 %) are invalid: they have no readable time, such as .iloc[2]"


MISSING: dict[str, dict[str, Any]] = {
    "no time": {"timestamp": BASE["timestamp"].where(BASE.index != 4)},
    "a time beyond all": {
        "timestamp": [*TIMES[:4].to_list(), pd.Timestamp("9999-01-01", tz="UTC").as_unit("s"), *TIMES[5:].to_list()]
    },
    "no source": {"source_id": objects([None if number == 4 else "a" for number in range(ROWS)])},
    "a blank source": {"source_id": [" " if number == 4 else "a" for number in range(ROWS)]},
    "a source that is no text": {"source_id": objects(["\ud800" if number == 4 else "a" for number in range(ROWS)])},
    "no value": {"ecg": BASE["ecg"].where(BASE.index != 4)},
    "an infinite value": {"ecg": BASE["ecg"].where(BASE.index != 4, -np.inf)},
    "pandas' missing value": {"ecg": pd.array([pd.NA if number == 4 else number for number in range(ROWS)], dtype="Int64")},
    "a word for a value": {"ecg": objects(["off" if number == 4 else number for number in range(ROWS)])},
}


@pytest.mark.parametrize("lack", MISSING)
def test_a_row_that_lacks_something_is_invalid_and_said_with_its_place(lack: str, caplog: pytest.LogCaptureFixture) -> None:
    released, certificate = anonymize_frame(BASE.assign(**MISSING[lack]))

    assert np.flatnonzero(released["ecg"].isna()).tolist() == [4]
    assert certificate.counts.numbers()[:5] == (ROWS, ROWS - 1, 0, 1, 0)
    # Some windows of these twenty seconds hold one wearer alone.
    remarks = [one for one in certificate.remarks if "single source" not in one]
    assert "such as .iloc[4]" in remarks[-1]
    logged = [record.getMessage() for record in caplog.records]
    assert [one for one in logged if "single source" not in one] == [f"⚠️ {remarks[-1]}"]


def test_an_empty_frame_comes_out_empty() -> None:
    released, certificate = anonymize_frame(BASE.iloc[:0], pseudonym_key=KEY)

    assert list(released.columns) == ["timestamp", "source_id", "ecg"]
    assert (len(released), len(certificate.windows)) == (0, 0)
    assert certificate.counts.read == 0


SUMMER = pd.date_range("2025-10-26T01:59:40", periods=ROWS, freq="1s")
SPRING = pd.date_range("2025-03-30T01:59:40", periods=ROWS, freq="1s")

REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "times without a zone": (
        BASE.assign(timestamp=local()),
        {},
        'column timestamp holds times that name no zone: state it, such as zone="UTC" or zone="Europe/Vienna"',
    ),
    "text times without a zone": (BASE.assign(timestamp=[str(time) for time in local()]), {}, "times that name no zone"),
    "dates": (BASE.assign(timestamp=objects(time.date() for time in TIMES)), {}, "times that name no zone"),
    "an hour that comes twice": (
        BASE.assign(timestamp=SUMMER),
        {"zone": VIENNA},
        "20 times of column timestamp come twice or never in Europe/Vienna, where clocks are changed, such as .iloc\\[20\\]",
    ),
    "an hour that never comes": (
        BASE.assign(timestamp=SPRING),
        {"zone": VIENNA},
        "20 times of column timestamp come twice or never",
    ),
    "text in an hour that comes twice": (
        BASE.assign(timestamp=[str(time) for time in SUMMER]),
        {"zone": VIENNA},
        r"such as .iloc\[20\]",
    ),
    "a zone that is none": (BASE, {"zone": "Mars"}, 'zone must be a time zone such as "UTC" or "Europe/Vienna", got'),
    "a unit that is none": (BASE, {"epoch": "min"}, "epoch must be one of s, ms, us, ns, got 'min'"),
    "a unit for calendar times": (BASE, {"epoch": "ms"}, 'epoch="ms" is stated, but column timestamp holds no numbers'),
    "a unit for text": (BASE.assign(timestamp="x"), {"epoch": "ms"}, 'column timestamp must hold numbers for epoch="ms"'),
    "numbers of no unit": (BASE.assign(timestamp=range(ROWS)), {}, "numbers that are no epoch times of one unit: of no unit"),
    "durations": (BASE.assign(timestamp=TIMES - TIMES[0]), {}, "The frame: column timestamp must hold times, got duration"),
    "truths as values": (BASE.assign(ecg=True), {}, "The frame: column ecg must hold numbers, got bool"),
    "truths as ids": (BASE.assign(source_id=True), {}, "The frame: column source_id must hold text or numbers, got bool"),
    "lists as values": (BASE.assign(ecg=[[1]] * ROWS), {}, "The frame: column ecg must hold numbers, got list"),
    "a column under another name": (
        BASE.rename(columns={"ecg": "Ada"}),
        {},
        "The frame needs the columns timestamp, source_id, ecg; ecg missing among its 3 columns",
    ),
    "a column twice": (pd.concat([BASE, BASE[["ecg"]]], axis=1), {}, "ecg more than once among its 4 columns"),
    "one name for two": (BASE, {"ecg": "timestamp"}, "timestamp, source_id and ecg must name three different columns"),
    "words for half of the values": (
        BASE.assign(ecg=objects(["off"] * 20 + list(range(20)))),
        {},
        r"20 of the 40 cells of column ecg that hold something are no value \(such as .iloc\[0\]\)",
    ),
    "a series": (BASE["ecg"], {}, "a pandas DataFrame is needed, got Series"),
    "what to do with withheld rows": (BASE, {"withheld": "keep"}, "withheld must be nan or drop, got 'keep'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ambiguous_cells_and_arguments_are_refused_with_a_sentence(case: str) -> None:
    frame, arguments, sentence = REFUSED[case]

    with pytest.raises((ConfigurationError, SourceRefused), match=sentence) as refusal:
        anonymize_frame(frame, **arguments)

    assert "INPUT_FILE" not in str(refusal.value)
    assert "Ada" not in str(refusal.value)


def test_a_renamed_column_is_named_as_the_frame_calls_it() -> None:
    with pytest.raises(SourceRefused, match="The frame: column mv must hold numbers, got bool"):
        anonymize_frame(BASE.rename(columns={"ecg": "mv"}).assign(mv=True), ecg="mv")


def test_times_before_1970_and_centuries_apart_are_in_their_windows() -> None:
    frame = BASE.assign(
        timestamp=[pd.Timestamp("1680-01-01", tz="UTC") + pd.Timedelta(number, "ms") for number in range(20)]
        + [pd.Timestamp("2261-01-01", tz="UTC") + pd.Timedelta(number, "ms") for number in range(20)]
    )

    released, certificate = anonymize_frame(frame.iloc[::-1])

    assert [start.year for start in certificate.windows.index] == [1680, 2261]
    assert released["ecg"].notna().all()
    for half in (slice(0, 20), slice(20, 40)):
        np.testing.assert_array_equal(released["ecg"].iloc[::-1][half], anonymize_frame(BASE[half]).frame["ecg"])


def test_a_row_without_a_value_takes_nothing_from_one_of_its_time_and_source() -> None:
    lacking = BASE.iloc[[2, 9]].assign(ecg=np.nan)
    frame = pd.concat([lacking, BASE, lacking], ignore_index=True)

    released, certificate = anonymize_frame(frame)

    np.testing.assert_array_equal(released["ecg"].to_numpy(), [np.nan, np.nan, *RELEASED, np.nan, np.nan])
    assert certificate.counts.numbers()[:5] == (ROWS + 4, ROWS, 0, 4, 0)


def test_a_leap_second_is_the_second_after_it_unless_that_has_rows_of_its_source_as_well() -> None:
    leap = [f"2016-12-31T23:59:60.{number:03d}Z" for number in range(20)]
    after = [f"2017-01-01T00:00:00.{number:03d}Z" for number in range(20)]
    frame = BASE.assign(timestamp=leap + after, source_id=["a"] * 20 + ["b"] * 20)

    apart, certificate = anonymize_frame(frame)
    same, refused = anonymize_frame(frame.assign(source_id="a"))

    assert apart["ecg"].notna().all()
    assert certificate.windows.index.tolist() == [pd.Timestamp("2017-01-01", tz="UTC")]
    assert np.flatnonzero(same["ecg"].isna()).tolist() == list(range(20))
    assert refused.rows_without_time == 20
    assert any(
        one.startswith("The frame: 20 rows of a leap second (23:59:60), such as .iloc[0], are invalid: their sources")
        for one in refused.remarks
    )


@pytest.mark.parametrize("kind", ["str", pd.ArrowDtype(pa.string()), "category"])
def test_ids_come_out_in_memory_of_their_own(kind: Any) -> None:
    ids = pd.Series([*"ab" * 5, *"cb" * 5, *"da" * 10], dtype=kind)
    frame = BASE.assign(source_id=ids.where(ids.index != 7))

    before, (released, _) = frame.copy(), anonymize_frame(frame)
    released.loc[:, ["timestamp", "source_id"]] = released.loc[::-1, ["timestamp", "source_id"]].to_numpy()

    assert released["source_id"].tolist()[:2] == ["a", "d"]
    pd.testing.assert_frame_equal(frame, before)

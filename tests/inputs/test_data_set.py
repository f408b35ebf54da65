"""A data set of Parquet files: the rows of all of them, each once, or a sentence; and nothing of a file that has changed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS, WindowRange
from inputs import data_set_index
from inputs.data_set import DataSetSource, Use
from inputs.data_set_address import data_set_address
from inputs.data_set_bucket import BucketFolder
from inputs.data_set_parts import Folder
from testbed.s3_server import S3Server
from transport.object_store import ObjectStore, StoreAccess

TIME_NS = 1_762_180_200 * NANOSECONDS

NAME = "anna-schmidt"

#: Time in milliseconds after `TIME_NS`, source, value; None where there is none.
Row = tuple[int | None, str | None, float | None]

COUNTED = "parts are counted in the order of their paths, from 1"


UTC_TIMES, TEXT = pa.timestamp("ns", "UTC"), pa.string()


def table_of(rows: list[Row], kind: pa.DataType = UTC_TIMES, ids: pa.DataType = TEXT) -> pa.Table:
    unit_ns = {"ms": 1_000_000, "us": 1_000, "ns": 1}[kind.unit]
    times = [None if at is None else (TIME_NS + at * 1_000_000) // unit_ns for at, _, _ in rows]
    sources = pa.array([source for _, source, _ in rows], pa.string()).cast(ids)
    values = pa.array([value for _, _, value in rows], pa.float64())
    return pa.table({"timestamp": pa.array(times, pa.int64()).cast(kind), "source_id": sources, "ecg": values})


def write(path: Path, rows: list[Row] | pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pa_parquet.write_table(table_of(rows) if isinstance(rows, list) else rows, path, **options)
    return path


def opened(folder: Path, is_requested: Callable[[str], bool] = lambda _: True, **options: Any) -> DataSetSource:
    source = DataSetSource(Folder(folder, is_requested), **options)
    source.open()
    return source


def windows_of(source: SampleSource, length_ns: int = NANOSECONDS) -> WindowRange:
    extent = source.extent()
    assert extent is not None
    return WindowRange(extent[0] // length_ns * length_ns, -(-extent[1] // length_ns) * length_ns, length_ns)


def rows_of(source: SampleSource) -> list[tuple[int, str | None, float]]:
    """Return all rows, read window by window as they were counted."""
    found = []
    if source.extent() is None:
        return []
    windows = windows_of(source)
    counted = source.count(windows)
    for index in range(len(windows)):
        samples = source.read(windows.part(index, index + 1))
        assert len(samples) == counted[index]
        ids = [*samples.source_ids, None]
        columns = ((samples.times_ns - TIME_NS).tolist(), samples.source_codes.tolist(), samples.values_uv.tolist())
        found += [(at, ids[code], value) for at, code, value in zip(*columns, strict=True)]
    return found


def sorted_rows(rows: list[Row]) -> list[tuple[int, str, str]]:
    """Return rows that have a time, so that they can be compared."""
    return sorted(
        (at * 1_000_000, str(source or None), str(float("nan") if value is None else value))
        for at, source, value in rows
        if at is not None
    )


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder, **options)
    assert NAME not in str(caught.value), caught.value
    return str(caught.value)


# --- counting and reading -------------------------------------------------------------------------------------------------------

ROWS = st.tuples(
    st.one_of(st.none(), st.integers(0, 9_000)),
    st.sampled_from([None, "", "a", "b", "c"]),
    st.one_of(st.none(), st.integers(-9, 9).map(float)),
)
PARTS = st.lists(
    st.tuples(
        st.lists(ROWS, max_size=30),
        st.sampled_from([pa.timestamp("ms"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ns", "UTC")]),
        st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
        st.integers(1, 12),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=PARTS,
    length_s=st.integers(1, 4),
    wanted=st.sampled_from([(), ("b",), ("a", "c")]),
    rows_at_a_time=st.sampled_from([3, 10, 1000]),
    span=st.sampled_from([(None, None), (2_000, 5_000)]),
    use=st.sampled_from(Use),
)
def test_rows_are_counted_and_read_as_brute_force_does(
    parts: Any,
    length_s: int,
    wanted: tuple[str, ...],
    rows_at_a_time: int,
    span: Any,
    use: Use,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("set")
    for number, (rows, kind, ids, group_rows, is_sorted) in enumerate(parts):
        by_time = sorted(rows, key=lambda row: row[0] or 0) if is_sorted else rows
        write(folder / f"{number}" / "part.parquet", table_of(by_time, kind, ids), row_group_size=group_rows)
    all_rows = [row for rows, *_ in parts for row in rows]
    expected = [row for row in all_rows if not wanted or row[1] in wanted]
    start_ns, end_ns = (None if at is None else TIME_NS + at * 1_000_000 for at in span)

    source = opened(folder, sources=wanted, start_ns=start_ns, end_ns=end_ns, rows_at_a_time=rows_at_a_time, use=use)

    timed = [row[0] for row in all_rows if row[0] is not None]
    assert source.extent() == ((TIME_NS + min(timed) * 1_000_000, TIME_NS + max(timed) * 1_000_000 + 1) if timed else None)
    assert sorted_rows([(at // 1_000_000, source_id, value) for at, source_id, value in rows_of(source)]) == sorted_rows(expected)
    length_ns = length_s * NANOSECONDS
    windows = WindowRange(TIME_NS // length_ns * length_ns, TIME_NS // length_ns * length_ns + 12 * length_ns, length_ns)
    by_window = [
        sum(row[0] is not None and one.start_ns <= TIME_NS + row[0] * 1_000_000 < one.end_ns for row in expected)
        for one in windows
    ]
    assert source.count(windows).tolist() == by_window
    for first in (0, 4, 1):
        part = windows.part(first, first + 3)
        samples = source.read(part)
        assert len(samples) == sum(by_window[first : first + 3])
        assert (np.diff(samples.times_ns) >= 0).all()
    beside = source.rows_beside(TIME_NS + 2 * NANOSECONDS, TIME_NS + 5 * NANOSECONDS)
    if not wanted:
        inside = sum(row[0] is not None and 2_000 <= row[0] < 5_000 for row in expected)
        without = sum(row[0] is None for row in all_rows)
        assert (beside.without_time, beside.not_requested) == (without, len(all_rows) - without - inside)
    elif source.is_surveyed:
        inside = sum(row[0] is not None and 2_000 <= row[0] < 5_000 for row in expected)
        without = sum(row[0] is None for row in expected)
        assert (beside.without_time, beside.not_requested) == (without, len(all_rows) - without - inside)
    next_ns = source.next_row_ns(TIME_NS + 1_500_000_000, TIME_NS + 8_000_000_000)
    after = [at for at in timed if 1_500 <= at < 8_000]
    assert next_ns == (TIME_NS + min(after) * 1_000_000 if after else None)


def test_memory_does_not_grow_where_rows_lie_closer_than_footers_tell(tmp_path: Path) -> None:
    rows: list[Row] = [*((at, "a", 1.0) for at in range(1000)), (900_000_000, "a", 2.0)]
    write(tmp_path / "part.parquet", rows)
    source = opened(tmp_path, rows_at_a_time=100)

    first = source.read(WindowRange(TIME_NS, TIME_NS + NANOSECONDS // 10, NANOSECONDS // 10))

    assert len(first) == 100
    assert source._interval is not None
    assert len(source._interval.samples) <= 200
    assert len(rows_of_span(source, 0, 1_000)) == 1000


def rows_of_span(source: DataSetSource, first_ms: int, end_ms: int) -> list[int]:
    length_ns = 100_000_000
    windows = WindowRange(TIME_NS + first_ms * 1_000_000, TIME_NS + end_ms * 1_000_000, length_ns)
    return [at for index in range(len(windows)) for at in source.read(windows.part(index, index + 1)).times_ns.tolist()]


def test_only_row_groups_that_overlap_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [(at, "a", 1.0) for at in range(0, 100_000, 100)]
    write(tmp_path / "part.parquet", rows, row_group_size=10)
    source = opened(tmp_path, rows_at_a_time=20)
    groups: list[int] = []
    really = DataSetSource._batches

    def batches(self: DataSetSource, file: Any, position: int, names: Any) -> Any:
        groups.append(position)
        return really(self, file, position, names)

    monkeypatch.setattr(DataSetSource, "_batches", batches)

    source.read(WindowRange(TIME_NS + 50 * NANOSECONDS, TIME_NS + 52 * NANOSECONDS, NANOSECONDS))

    assert set(groups) <= {49, 50, 51, 52}
    groups.clear()
    whole = WindowRange(TIME_NS, TIME_NS + 100 * NANOSECONDS, NANOSECONDS)
    assert source.count(whole).tolist() == [10] * 100
    assert groups == [], "footers alone tell how many rows lie in windows that hold whole row groups"
    # One of many readers decodes its windows alone, and who only counts decodes nothing.
    part = opened(tmp_path, rows_at_a_time=600, use=Use.PARTS)
    assert groups == []
    part.read(WindowRange(TIME_NS + 50 * NANOSECONDS, TIME_NS + 52 * NANOSECONDS, NANOSECONDS))
    assert groups == [50, 51]
    plan = opened(tmp_path, rows_at_a_time=600, use=Use.PLAN)
    assert set(groups) == set(range(60)), "the first rows are surveyed"
    groups.clear()
    assert plan.count(WindowRange(TIME_NS + 70 * NANOSECONDS, TIME_NS + 90 * NANOSECONDS, NANOSECONDS)).tolist() == [10] * 20
    assert groups == []


# --- the index ------------------------------------------------------------------------------------------------------------------


def test_the_index_is_written_once_and_only_new_and_changed_footers_are_read_again(tmp_path: Path) -> None:
    folder, kept = tmp_path / "set", tmp_path / "index"
    for number in range(10):
        write(folder / f"{number}.parquet", [(number * 1000, "a", 1.0), (None, "a", 1.0)])

    def footers_read() -> int:
        source = opened(folder, index_file=kept)
        assert [at for at, *_ in rows_of(source)] == [number * NANOSECONDS for number in range(len(source.inventory.states()))]
        return source.footers_read

    assert footers_read() == 10
    assert kept.stat().st_mode & 0o077 == 0
    assert footers_read() == 0
    write(folder / "90.parquet", [(10_000, "a", 1.0)])
    assert footers_read() == 1
    write(folder / "3.parquet", [(3_000, "b", 1.0)])
    assert footers_read() == 1
    (folder / "90.parquet").unlink()
    assert (footers_read(), footers_read()) == (0, 0)
    whole = kept.read_bytes()
    for at in (0, 40, len(whole) // 2, len(whole) - 1):
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert footers_read() == 10, "a damaged index is built anew"
        assert (footers_read(), len(kept.read_bytes())) == (0, len(whole))
    kept.unlink()
    kept.mkdir()
    assert footers_read() == 10, "one that cannot be kept is no harm"


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pa.array([TIME_NS], pa.int64()), "must be of a Parquet type of times.*got int64"),
        (pa.array(["2025-11-03T14:30:00Z"]), "must be of a Parquet type of times.*got string"),
        (pa.array([20_000], pa.date32()), "must be of a Parquet type of times.*got date"),
        (pa.array([1.0]), "must be of a Parquet type of times.*got double"),
    ],
)
def test_a_time_must_be_of_a_type_of_times(column: pa.Array, what: str, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.parquet", table_of([(0, "a", 1.0)]).set_column(0, "timestamp", column))

    assert re.search(rf"{what} \(part 1 of 1; {COUNTED}\)", refusal(tmp_path))


def test_times_need_statistics_but_row_groups_without_any_time_do_not(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(0, "a", 1.0)])
    write(tmp_path / "b.parquet", [(None, "a", 1.0)] * 3 + [(5, "a", 1.0)], row_group_size=3)
    assert opened(tmp_path).rows_beside(0, 2**62).without_time == 3

    write(tmp_path / f"{NAME}.parquet", [(0, "a", 1.0)], write_statistics=["ecg"])
    assert "column timestamp has no statistics" in refusal(tmp_path)
    write(tmp_path / f"{NAME}.parquet", [(0, "a", 1.0)], use_deprecated_int96_timestamps=True)
    assert "the old type INT96" in refusal(tmp_path)


def test_times_beyond_what_can_be_held_are_rows_without_a_time(tmp_path: Path) -> None:
    beyond = pa.array([TIME_NS // 1_000_000, 253_402_300_799_000], pa.timestamp("ms"))
    write(tmp_path / "a.parquet", pa.table({"timestamp": beyond, "source_id": ["a", "a"], "ecg": [1.0, 2.0]}))

    source = opened(tmp_path)

    assert source.extent() == (TIME_NS, TIME_NS + 1)
    assert source.rows_beside(0, 2**62).without_time == 1
    assert any("1 of 2 rows (50.0 %) are invalid: they have no readable time" in one for one in source.remarks)


def test_how_many_rows_must_be_read_is_computed_first(tmp_path: Path) -> None:
    """Each of so many files holds a wearer's rows of the whole time: for each stretch all of them must be decoded."""
    for files, verdict in ((2, ""), (10, "warned of"), (40, "refused")):
        folder = tmp_path / str(files)
        for number in range(files):
            write(folder / f"{number}.parquet", [(at, f"w{number}", 1.0) for at in range(0, 100_000, 100)])
        if verdict == "refused":
            said = refusal(folder, rows_at_a_time=1000)
            assert "40 rows must be read for each of the data set, more than 20. Sort it once: duckdb -c" in said
        else:
            remarks = opened(folder, rows_at_a_time=1000).remarks
            assert ("10 rows must be read for each" in " ".join(remarks)) == (verdict == "warned of"), remarks


def test_the_command_that_sorts_is_one_that_works(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows: list[list[Row]] = [[(at, f"w{number}", float(number)) for at in range(0, 100_000, 100)] for number in range(40)]
    for number, some in enumerate(rows):
        write(folder / f"{number}.parquet", some)
    command = refusal(folder, rows_at_a_time=1000).partition('duckdb -c "')[2].rstrip('"')
    (tmp_path / "sorted").mkdir()

    duckdb.sql(
        command.replace("FOLDER", str(folder))
        .replace("SORTED.parquet", str(tmp_path / "sorted" / "all.parquet"))
        .replace("122880", "2048")
    )

    source = opened(tmp_path / "sorted", rows_at_a_time=4000)
    assert not any("must be read for each" in remark for remark in source.remarks)
    assert len(rows_of(source)) == 40_000


# --- what a folder may hold -----------------------------------------------------------------------------------------------------


def test_hidden_and_unfinished_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "day=1" / "part.parquet", [(0, "a", 1.0)])
    for hidden in (
        ".part.parquet.tmp",
        "_part.parquet",
        "_temporary/0/part.parquet",
        "day=1/.staging/x.parquet",
        ".x/part.parquet",
    ):
        write(tmp_path / hidden, [(1, "b", 1.0)])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "day=1" / ".part.parquet.crc").touch()

    source = opened(tmp_path)

    assert rows_of(source) == [(0, "a", 1.0)]
    assert any("beside 1 Parquet files, 5 hidden or unfinished files or folders" in remark for remark in source.remarks), (
        source.remarks
    )


def test_foreign_files_are_counted_and_from_a_share_on_refused(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.parquet", [(number, "a", 1.0)])
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.parquet")

    assert any("2 other files are not read" in remark for remark in opened(tmp_path).remarks)

    (tmp_path / f"{NAME}.csv").write_text("x", encoding="utf-8")
    assert "holds 3 Parquet files and 3 other files are not read: name just the Parquet files" in refusal(tmp_path)
    address = data_set_address(str(tmp_path / "?.parquet"))
    assert address is not None
    assert opened(tmp_path, address.is_requested()).remarks == ()


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere" / f"{NAME}.parquet", [(1, "b", 1.0)])
    folder = tmp_path / "set"
    for number in range(3):
        write(folder / f"{number}.parquet", [(number, "a", 1.0)])
    (folder / "file.parquet").symlink_to(outside)
    (folder / "folder").symlink_to(outside.parent)

    source = opened(folder)

    assert {source_id for _, source_id, _ in rows_of(source)} == {"a"}
    assert any("2 links are not followed" in remark for remark in source.remarks)
    (tmp_path / "alias").symlink_to(folder)
    assert opened(tmp_path / "alias").data_set == source.data_set, "the folder itself may be reached by a link, and is the same"


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ([], "holds no Parquet files"),
        (["notes.txt", "_x.parquet"], "holds no Parquet files.*1 other files are not read, 1 hidden or unfinished"),
        (["part.parquet", "_delta_log/0.json"], "is a Delta table"),
        (["data/part.parquet", "metadata/v1.metadata.json"], "is a Iceberg table"),
        (["part.parquet", "day/.hoodie/x"], "is a Hudi table"),
    ],
)
def test_a_folder_that_is_no_plain_data_set_is_refused(made: list[str], what: str, tmp_path: Path) -> None:
    for name in made:
        write(tmp_path / name, [(0, "a", 1.0)])

    assert re.search(what, refusal(tmp_path))


def test_a_folder_that_is_not_there_or_may_not_be_read_is_denied(tmp_path: Path) -> None:
    with pytest.raises(SourceDenied):
        opened(tmp_path / "none")
    if os.geteuid():
        write(tmp_path / "set" / "a.parquet", [(0, "a", 1.0)])
        write(tmp_path / "set" / "closed" / "b.parquet", [(0, "a", 1.0)])
        (tmp_path / "set" / "closed").chmod(0)
        with pytest.raises(SourceDenied):
            opened(tmp_path / "set")


@pytest.mark.parametrize("damage", ["cut", "no Parquet", "empty", "page"])
def test_a_part_that_cannot_be_read_refuses_the_data_set(damage: str, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(0, "a", 1.0)])
    path = write(
        tmp_path / f"{NAME}.parquet", [(at, "a", float(at)) for at in range(1000)], compression="none", write_page_checksum=True
    )
    whole = path.read_bytes()
    content = {"cut": whole[:-100], "no Parquet": b"timestamp,source_id,ecg\n", "empty": b""}
    middle = len(whole) // 3
    path.write_bytes(content.get(damage, whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]))

    said = refusal(tmp_path)

    assert "INPUT_FILE holds a file that is not readable Parquet" in said
    assert f"(part 2 of 2; {COUNTED})" in said


def test_a_part_without_the_columns_or_with_others_is_named_by_its_number(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(0, "a", 1.0)])
    write(tmp_path / "b.parquet", table_of([(0, "a", 1.0)]).drop(["ecg"]).append_column(NAME, pa.array([1.0])))

    assert f"ecg missing among its 3 columns (part 2 of 2; {COUNTED})" in refusal(tmp_path)

    write(tmp_path / "b.parquet", table_of([(0, "a", 1.0)]).set_column(2, "ecg", pa.array([[1.0]])))
    assert re.search(r"column ecg must hold numbers, got list \(part 2 of 2", refusal(tmp_path))


def test_times_with_and_without_a_zone_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table_of([(0, "a", 1.0)], pa.timestamp("us", "Europe/Berlin")))
    write(tmp_path / "b.parquet", table_of([(1, "a", 1.0)], pa.timestamp("ms")))

    source = opened(tmp_path)

    assert [at for at, *_ in rows_of(source)] == [0, 1_000_000]
    assert any("the times of 1 of 2 parts name no zone and are taken as UTC" in remark for remark in source.remarks)


def test_cells_in_doubt_are_refused_also_where_they_come_late(tmp_path: Path) -> None:
    plain = table_of([(at, "a", None) for at in range(0, 2000, 100)])
    write(tmp_path / "a.parquet", plain.set_column(2, "ecg", pa.array(["0.5"] * 20)))
    late = table_of([(at, "a", None) for at in range(50_000, 52_000, 100)])
    write(tmp_path / "b.parquet", late.set_column(2, "ecg", pa.array(["0,5"] * 20)))

    assert "others have a decimal point" in refusal(tmp_path)

    source = opened(tmp_path, rows_at_a_time=10)
    assert any("a data set of 40 rows: only" in remark for remark in source.remarks), source.remarks
    with pytest.raises(SourceRefused, match=r"row 1 of part 2 \(row group 1"):
        source.read(WindowRange(TIME_NS + 50 * NANOSECONDS, TIME_NS + 52 * NANOSECONDS, NANOSECONDS))


# --- what folders are called ----------------------------------------------------------------------------------------------------


def without_source(rows: list[Row]) -> pa.Table:
    return table_of(rows).drop(["source_id"])


def test_a_source_may_be_named_by_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "source_id=a%2Fb" / "date=2025-11-03" / "part.parquet", without_source([(0, None, 1.0)]))
    write(tmp_path / "source_id=7" / "date=2025-11-04" / "part.parquet", without_source([(1, None, 2.0)]))
    write(
        tmp_path / "source_id=__HIVE_DEFAULT_PARTITION__" / "date=2025-11-04" / "part.parquet", without_source([(2, None, 3.0)])
    )
    write(tmp_path / "source_id=8" / "date=2025-11-04" / "part.parquet", [(3, "8", 4.0)])

    source = opened(tmp_path)

    assert rows_of(source) == [(0, "a/b", 1.0), (1_000_000, "7", 2.0), (2_000_000, None, 3.0), (3_000_000, "8", 4.0)]
    assert [one[1] for one in rows_of(opened(tmp_path, sources=("7",)))] == ["7"]
    assert rows_of(opened(tmp_path / "source_id=7")) == [(1_000_000, "7", 2.0)], "also by the folder that is named"


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"source_id=a/p.parquet": [(0, "b", 1.0)]}, "rows name another source than their folder"),
        ({"source_id=a/source_id=b/p.parquet": [(0, "b", 1.0)]}, "the folders of part 1 give two values to one column"),
        ({"ecg=1/p.parquet": [(0, "b", 1.0)]}, "the folders of part 1 name a time or a value"),
        ({"lead=I/p.parquet": [(0, "b", 1.0)], "lead=II/p.parquet": [(0, "b", 2.0)]}, "part 1 and part 2 may be of different"),
        ({"lead=I/p.parquet": [(0, "b", 1.0)], "p.parquet": [(0, "b", 2.0)]}, "part 1 and part 2 may be of different"),
        ({"source_id=%FF/p.parquet": [(0, "b", 1.0)]}, "a folder of part 1 has a name that is not UTF-8"),
        (
            {"a/p.parquet": without_source([(0, None, 1.0)]), f"source_id={NAME}/p.parquet": [(0, NAME, 1.0)]},
            "source_id missing.*part 1 of 2",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_not_understood_are_refused(parts: Mapping[str, Any], what: str, tmp_path: Path) -> None:
    for name, rows in parts.items():
        write(tmp_path / name, rows)

    assert re.search(what, refusal(tmp_path))


def test_a_column_of_folders_with_one_value_tells_nothing_apart(tmp_path: Path) -> None:
    write(tmp_path / "lead=I" / "hour=1" / "p.parquet", [(0, "b", 1.0)])
    write(tmp_path / "lead=I" / "hour=2" / "p.parquet", [(1, "b", 1.0)])

    assert len(rows_of(opened(tmp_path))) == 2


# --- parts that change ----------------------------------------------------------------------------------------------------------


def rewritten(path: Path) -> None:
    before = path.stat()
    write(path, [(20_000 + at, "a", 2.0) for at in range(50)])
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write(path, [(0, "a", 99.0)]),
        rewritten,
        Path.unlink,
        lambda path: path.rename(path.with_suffix(".old")),
        lambda path: path.write_bytes(path.read_bytes()),
        lambda path: (path.unlink(), path.symlink_to("a.parquet")),
    ],
    ids=["written again", "written again with its old time", "removed", "renamed", "written in place", "a link in its place"],
)
def test_nothing_is_read_of_a_part_that_changed_after_it_was_listed(change: Callable[[Path], Any], tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.parquet", [(number * 10_000 + at, "a", 1.0) for at in range(50)])
    source = opened(tmp_path, rows_at_a_time=50)
    assert len(source.read(WindowRange(TIME_NS, TIME_NS + NANOSECONDS, NANOSECONDS))) == 50

    change(tmp_path / "c.parquet")

    with pytest.raises(SourceRefused, match=r"was written to, moved or removed while the data set was read") as caught:
        source.read(WindowRange(TIME_NS + 20 * NANOSECONDS, TIME_NS + 21 * NANOSECONDS, NANOSECONDS))
    assert "c.parquet" not in str(caught.value)


def test_a_part_that_changes_between_two_of_its_pages_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [(at, "a", 1.0) for at in range(1000)])
    source = opened(tmp_path, rows_at_a_time=100)
    really = DataSetSource._batches

    def batches(*arguments: Any) -> Any:
        yield from really(*arguments)
        with path.open("ab") as file:
            file.write(b"x")

    monkeypatch.setattr(DataSetSource, "_batches", batches)

    with pytest.raises(SourceRefused, match="was written to"):
        source.read(WindowRange(TIME_NS, TIME_NS + NANOSECONDS, NANOSECONDS))


def test_a_folder_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "a.parquet", [(0, "a", 1.0)])
    write(folder / "b.parquet", [(60_000, "a", 1.0)])
    source = opened(folder, rows_at_a_time=1)
    second = WindowRange(TIME_NS + 60 * NANOSECONDS, TIME_NS + 61 * NANOSECONDS, NANOSECONDS)

    folder.rename(tmp_path / "away")
    with pytest.raises(SourceUnavailable, match="the folder is gone"):
        source.read(second)
    (tmp_path / "away").rename(folder)

    assert len(source.read(second)) == 1


def test_statistics_that_are_wrong_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", [(at, "a", 1.0) for at in range(100)])
    really = data_set_index._from_statistics

    def five_milliseconds_late(*arguments: Any, **options: Any) -> Any:
        found = really(*arguments, **options)
        assert found is not None
        return found[0] + 5_000_000, *found[1:]

    monkeypatch.setattr(data_set_index, "_from_statistics", five_milliseconds_late)

    assert "the statistics of column timestamp are wrong" in refusal(tmp_path)


# --- what it is called ----------------------------------------------------------------------------------------------------------


def test_a_data_set_is_known_by_its_address_and_not_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "a.parquet", [(0, "a", 1.0)])
    before = opened(tmp_path / "one")
    assert before.data_set != opened(tmp_path / "two").data_set
    write(tmp_path / "one" / "b.parquet", [(1, "a", 1.0)])

    after = opened(tmp_path / "one")

    assert (after.data_set, after.data_set_tells_samples) == (before.data_set, False)
    assert set(after.inventory.states()) - set(before.inventory.states()) == {"b.parquet"}
    (window,) = after.inventory.times_of(["b.parquet"])
    assert (window.start_ns, window.end_ns) == (TIME_NS + 1_000_000, TIME_NS + 1_000_001)


@pytest.mark.parametrize(
    ("pattern", "asked", "other"),
    [
        ("*.parquet", ["a.parquet"], ["d/a.parquet", "a.csv"]),
        ("**/*.parquet", ["a.parquet", "d/a.parquet", "d/e/a.parquet"], ["d/a.csv"]),
        ("2025-1[12]/**", ["2025-11/a", "2025-12/x/y"], ["2025-10/a"]),
        ("d/**/x?.pq", ["d/x1.pq", "d/e/f/x2.pq"], ["x.pq", "xyz.pq"]),
        ("[!a]*", ["b.parquet"], ["a.parquet"]),
        ("x[.parquet", ["x[.parquet"], ["x"]),
    ],
)
def test_a_glob_names_files_below_its_folder(pattern: str, asked: list[str], other: list[str], tmp_path: Path) -> None:
    address = data_set_address(str(tmp_path / pattern))

    assert address is not None or "[." in pattern
    if address is not None:
        assert Path(address.root) in (tmp_path, tmp_path / "d")
        inside = [path.removeprefix("d/") if address.root.endswith("/d") else path for path in asked]
        assert all(map(address.is_requested(), inside))
        assert not any(map(address.is_requested(), other))


def test_what_input_file_may_name(tmp_path: Path) -> None:
    file = write(tmp_path / "a[1].parquet", [(0, "a", 1.0)])

    assert data_set_address(str(file)) is None, "a file whose name holds what a glob holds is a file"
    assert data_set_address(str(tmp_path / "none.parquet")) is None
    assert data_set_address(str(tmp_path)) is not None
    address = data_set_address("s3://my-bucket//ecg/2025/*.parquet")
    assert address is not None
    assert (address.bucket, address.root, address.pattern) == ("my-bucket", "ecg/2025", "*.parquet")
    for wrong in ("gs://bucket/x", "http://host/x.parquet", "file:///x", "s3://", "s3:///x", f"s3://{NAME}:secret@host/x"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  (its text is looked at)
            data_set_address(wrong)
        assert NAME not in str(caught.value)


def test_thousands_of_parts_open_in_a_moment_once_they_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    content = write(folder / "0" / "0.parquet", [(0, "a", 1.0)]).read_bytes()
    for number in range(1, 2_000):
        path = folder / str(number // 1000) / f"{number % 1000}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    first = opened(folder, index_file=tmp_path / "index")
    again = opened(folder, index_file=tmp_path / "index")

    assert (first.footers_read, again.footers_read) == (2_000, 0)
    assert again.count(windows_of(again)).tolist() == [2_000]


# --- a bucket -------------------------------------------------------------------------------------------------------------------


def in_bucket(server: S3Server, bucket: str, root: str = "set", **options: Any) -> DataSetSource:
    store = ObjectStore(bucket, StoreAccess.of(server.variables()), timeout_s=2)
    source = DataSetSource(BucketFolder(lambda: store, root), **options)
    source.open()
    return source


def put(server: S3Server, bucket: str, key: str, rows: list[Row] | pa.Table, tmp_path: Path, **options: Any) -> None:
    server.put(bucket, key, write(tmp_path / "made.parquet", rows, **options).read_bytes())


def test_a_bucket_is_read_like_a_folder(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    rows: list[Row] = [(at, "a", float(at)) for at in range(30_000)]
    put(s3_server, s3_bucket, "set/day=1/a.parquet", rows[:20_000], tmp_path, row_group_size=5000)
    put(s3_server, s3_bucket, "set/source_id=a/b%2F.parquet", without_source(rows[20_000:]), tmp_path)
    put(s3_server, s3_bucket, "set/_temporary/c.parquet", [(0, "hidden", 1.0)], tmp_path)
    put(s3_server, s3_bucket, "settled/c.parquet", [(0, "other", 1.0)], tmp_path)

    source = in_bucket(s3_server, s3_bucket, rows_at_a_time=7000)

    assert rows_of(source) == [(at * 1_000_000, "a", float(at)) for at in range(30_000)]
    assert source.data_set == in_bucket(s3_server, s3_bucket).data_set
    one = in_bucket(s3_server, s3_bucket, "set/day=1/a.parquet")
    assert (len(rows_of(one)), len(one.inventory.states())) == (20_000, 1)


def test_an_object_that_changed_or_went_is_never_read(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    put(s3_server, s3_bucket, "set/a.parquet", [(0, "a", 1.0)], tmp_path)
    put(s3_server, s3_bucket, "set/b.parquet", [(60_000, "a", 1.0)], tmp_path)
    source = in_bucket(s3_server, s3_bucket, rows_at_a_time=1)
    second = WindowRange(TIME_NS + 60 * NANOSECONDS, TIME_NS + 61 * NANOSECONDS, NANOSECONDS)
    put(s3_server, s3_bucket, "set/b.parquet", [(60_000, "a", 9.0)], tmp_path)

    with pytest.raises(SourceRefused, match="was written to, moved or removed"):
        source.read(second)

    again = in_bucket(s3_server, s3_bucket, rows_at_a_time=1)
    assert again.read(second).values_uv.tolist() == [9.0]
    (s3_server.folder_of(s3_bucket) / "set" / "b.parquet").unlink()
    with pytest.raises(SourceRefused, match="was written to, moved or removed"):
        again.read(WindowRange(TIME_NS + 60 * NANOSECONDS, TIME_NS + 62 * NANOSECONDS, NANOSECONDS))


def test_a_store_that_vanishes_is_waited_for(s3_bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    put(s3_server, s3_bucket, "set/a.parquet", [(0, "a", 1.0)], tmp_path)
    put(s3_server, s3_bucket, "set/b.parquet", [(60_000, "a", 1.0)], tmp_path)
    source = in_bucket(s3_server, s3_bucket, rows_at_a_time=1)
    second = WindowRange(TIME_NS + 60 * NANOSECONDS, TIME_NS + 61 * NANOSECONDS, NANOSECONDS)

    s3_server.kill()
    try:
        with pytest.raises(SourceUnavailable, match="cannot be reached") as caught:
            source.read(second)
        assert not isinstance(caught.value, SourceDenied)
    finally:
        s3_server.restart()

    assert len(source.read(second)) == 1


def test_wrong_keys_and_a_missing_bucket_are_denied(s3_server: S3Server, s3_bucket: str) -> None:
    wrong = StoreAccess(s3_server.url, "us-east-1", {"access_key_id": "AKIAX", "secret_access_key": "nobody-sees-me"})
    for store in (ObjectStore(s3_bucket, wrong), ObjectStore("no-such-bucket", StoreAccess.of(s3_server.variables()))):
        with pytest.raises(SourceDenied) as caught:
            DataSetSource(BucketFolder(lambda store=store: store, "set")).open()  # type: ignore[misc]
        assert "nobody-sees-me" not in str(caught.value)
    with pytest.raises(SourceRefused, match="holds no Parquet files"):
        in_bucket(s3_server, s3_bucket)

"""Parquet files: what lies where, under which names, and that nothing is lost, doubled or given away, whatever a crash leaves behind."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from anonymizer.batch import Batch
from anonymizer.errors import OutputDenied, OutputUnavailable
from anonymizer.windows import NANOSECONDS, Window
from outputs.encoding import summary_of
from outputs.parquet_encoding import Partition, files_of, rows_digest_of
from outputs.parquet_files import ParquetFiles
from outputs.parquet_places import Folder
from tests.outputs.batches import START_S, make_batch, rows_of, usual_batch
from tests.outputs.destinations import parquet_rows

HOUR_S = 3600


def output_to(folder: Path, partition: Partition = "hour", *, file_mode: int = 0o600) -> ParquetFiles:
    output = ParquetFiles(Folder(folder, file_mode=file_mode), partition)
    output.open({})
    return output


def content_of(folder: Path) -> dict[str, bytes]:
    """Return every file that readers see, by its path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    by_path = {path.relative_to(folder): path.read_bytes() for path in found}
    return {path.as_posix(): content for path, content in by_path.items() if not any(part.startswith(".") for part in path.parts)}


def over_an_hour() -> list[Batch]:
    """Return three windows of 5 s, the second of which lies in two hours."""
    start_s = START_S // HOUR_S * HOUR_S + HOUR_S - 7
    moved = [usual_batch(window=number, rows=40) for number in range(3)]
    shift_ns = (start_s - START_S) * NANOSECONDS
    return [_shifted(batch, shift_ns) for batch in moved]


def _shifted(batch: Batch, shift_ns: int) -> Batch:
    start_ns, end_ns = batch.window.start_ns + shift_ns, batch.window.end_ns + shift_ns
    # The rows of a window, spread over all of it.
    times_ns = start_ns + np.arange(len(batch)) * 5 * NANOSECONDS // len(batch)
    label = batch.batch_id.rsplit("-", 2)[0]
    return dataclasses.replace(
        batch, batch_id=f"{label}-{start_ns}-{end_ns}", window=Window(start_ns, end_ns), times_ns=times_ns.astype(np.int64)
    )


def test_a_row_lies_in_the_folder_of_its_own_time_and_names_tell_the_chunk(tmp_path: Path) -> None:
    batches = over_an_hour()
    start_ns, end_ns = batches[0].window.start_ns, batches[-1].window.end_ns
    name = f"0123456789ab-{start_ns}-{end_ns}.parquet"

    output_to(tmp_path / "hour").write_chunk(batches)
    output_to(tmp_path / "day", "day").write_chunk(batches)

    first, second = "date=2025-11-03/hour=14", "date=2025-11-03/hour=15"
    assert list(content_of(tmp_path / "hour")) == [
        *(f"rows/{first}/{name}", f"rows/{second}/{name}", f"windows/{first}/{name}", f"windows/{second}/{name}")
    ]
    assert list(content_of(tmp_path / "day")) == [f"rows/date=2025-11-03/{name}", f"windows/date=2025-11-03/{name}"]
    earlier, later = (parquet_rows(tmp_path / "hour" / "rows" / folder / name) for folder in (first, second))
    border_ns = (START_S // HOUR_S + 1) * HOUR_S * NANOSECONDS
    assert (max(earlier).time_ns < border_ns, min(later).time_ns >= border_ns) == (True, True)
    assert earlier + later == rows_of(*batches)


def test_the_files_of_a_chunk_are_put_in_place_with_summaries_last(tmp_path: Path) -> None:
    put: list[str] = []

    class Watched(Folder):
        def put_new(self, path: str, content: bytes) -> bool:
            put.append(path.partition("/")[0])
            return super().put_new(path, content)

    output = ParquetFiles(Watched(tmp_path), "hour")
    output.open({})
    output.write_chunk(over_an_hour())

    assert put == ["rows", "rows", "windows", "windows"]


def test_summaries_say_of_each_window_what_every_output_says_of_it(tmp_path: Path) -> None:
    batches = [usual_batch(window=number) for number in range(3)]
    output_to(tmp_path).write_chunk(batches)

    (path,) = tmp_path.glob("windows/**/*.parquet")
    rows = pq.read_table(path, partitioning=None).to_pylist()

    assert [{name: row[name] for name in summary_of(batches[0])} for row in rows] == [summary_of(batch) for batch in batches]
    stamps = [(row["window_start"].value, row["window_end"].value) for row in rows]
    assert stamps == [(batch.window.start_ns, batch.window.end_ns) for batch in batches]


def test_rows_are_in_order_of_time_then_id_and_stored_small(tmp_path: Path) -> None:
    # Ids in an order that is not theirs, and a table of ids for each window.
    batches = [make_batch([(i // 3, "cab"[i % 3], float(i % 5)) for i in range(3000)], window=window) for window in (0, 1)]
    output_to(tmp_path).write_chunk(batches)

    (path,) = tmp_path.glob("rows/**/*.parquet")
    stored = pq.read_table(path, partitioning=None)
    columns = [pq.read_metadata(path).row_group(0).column(number) for number in range(3)]

    keys = list(zip(stored["timestamp"].cast("int64").to_pylist(), stored["source_id"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert [str(field.type) for field in stored.schema] == ["timestamp[ns, tz=UTC]", "string", "double"]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in columns[0].encodings
    assert path.stat().st_size < 2 * len(stored)


@pytest.mark.parametrize("partition", ["hour", "day"])
def test_no_file_holds_an_id_that_has_no_row_in_it(tmp_path: Path, partition: Partition) -> None:
    withheld, first_only = "withheld-wearer-000000", "wearer-of-the-first-hour"
    batches = over_an_hour()
    ids = (withheld, first_only, *batches[0].source_ids)
    batches = [dataclasses.replace(batch, source_ids=ids, source_index=batch.source_index + 2) for batch in batches]
    batches[0] = dataclasses.replace(batches[0], source_index=np.ones(len(batches[0]), dtype=np.int32))

    output_to(tmp_path, partition).write_chunk(batches)

    for path, content in content_of(tmp_path).items():
        assert withheld.encode() not in content, path
        if path.startswith("rows/"):
            # What is stored beside the rows, as it is after decompression, and what footers say of it.
            stored = pq.read_table(tmp_path / path, partitioning=None, read_dictionary=["source_id"])["source_id"]
            listed = [name for chunk in stored.chunks for name in chunk.dictionary.to_pylist()]
            assert listed == sorted({row.source_id for row in parquet_rows(tmp_path / path)}), path
            footer = str(pq.read_metadata(tmp_path / path).to_dict())
            assert {name for name in ids if name in footer} <= set(listed)
        else:
            assert not any(name.encode() in content for name in ids), path


def test_a_file_says_how_its_rows_were_made(tmp_path: Path) -> None:
    output_to(tmp_path).write_chunk([usual_batch()])

    for path in tmp_path.glob("*/**/*.parquet"):
        said = {name.decode(): text.decode() for name, text in pq.read_metadata(path).metadata.items()}
        assert said["ecg_anonymizer.settings_digest"] == "00112233aabbccdd"
        assert '"k": 2' in said["ecg_anonymizer.promise"]
        assert len(said["ecg_anonymizer.rows_digest"]) == 64


def test_the_same_chunk_gives_the_same_bytes_however_its_ids_are_numbered(tmp_path: Path) -> None:
    batches = over_an_hour()
    turned = [
        dataclasses.replace(
            batch, source_ids=("x", *batch.source_ids[::-1]), source_index=2 - batch.source_index.astype(np.int32)
        )
        for batch in batches
    ]

    output_to(tmp_path / "one").write_chunk(batches)
    output_to(tmp_path / "two").write_chunk(turned)

    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_crash_after_any_file_leaves_what_the_next_attempt_completes_to_the_same_bytes(tmp_path: Path) -> None:
    batches = over_an_hour()
    output_to(tmp_path / "undisturbed").write_chunk(batches)
    expected = content_of(tmp_path / "undisturbed")

    class Dies(Folder):
        left = 0

        def put_new(self, path: str, content: bytes) -> bool:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().put_new(path, content)

    for files in range(len(expected) + 1):
        folder = tmp_path / f"after-{files}"
        place = Dies(folder)
        place.left = files
        dying = ParquetFiles(place, "hour")
        dying.open({})
        if files < len(expected):
            with pytest.raises(KeyboardInterrupt):
                dying.write_chunk(batches)
        else:
            dying.write_chunk(batches)

        # A reader takes only windows with a summary for complete.
        assert (len(list(folder.glob("windows/**/*.parquet"))) == 2) == (files == len(expected))
        assert output_to(folder).write_chunk(batches) == {"key": "", "written": True}
        assert content_of(folder) == expected, files


def test_a_name_with_the_same_rows_is_taken_even_if_another_version_wrote_it(tmp_path: Path) -> None:
    batch = usual_batch()
    output_to(tmp_path).write_chunk([batch])
    (path,) = tmp_path.glob("rows/**/*.parquet")
    table, metadata = pq.read_table(path, partitioning=None), pq.read_metadata(path).metadata
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="none")
    other = content_of(tmp_path)

    output_to(tmp_path).write_chunk([batch])

    assert content_of(tmp_path) == other


@pytest.mark.parametrize("damage", ["other rows", "half a file", "no file of ours", "nothing"])
def test_a_name_with_anything_else_is_never_replaced(tmp_path: Path, damage: str) -> None:
    batch = usual_batch()
    output_to(tmp_path).write_chunk([batch])
    (path,) = tmp_path.glob("rows/**/*.parquet")
    whole = path.read_bytes()
    changed = dataclasses.replace(batch, values_uv=batch.values_uv + 1)
    (other,) = [file.content for file in files_of([changed], "hour") if file.path.startswith("rows/")]
    path.write_bytes(
        {"other rows": other, "half a file": whole[: len(whole) // 2], "no file of ours": b"hello", "nothing": b""}[damage]
    )
    before = content_of(tmp_path)

    with pytest.raises(OutputDenied, match=r"holds rows/date=.*never replaced") as refused:
        output_to(tmp_path).write_chunk([batch])

    assert content_of(tmp_path) == before
    assert not any(source_id in str(refused.value) for source_id in batch.source_ids)


def test_a_planted_link_is_neither_followed_nor_replaced(tmp_path: Path) -> None:
    batch = usual_batch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (name,) = [file.path for file in files_of([batch], "hour") if file.path.startswith("rows/")]
    planted = tmp_path / "out" / name
    planted.parent.mkdir(parents=True)
    planted.symlink_to(elsewhere)

    with pytest.raises(OutputUnavailable):
        output_to(tmp_path / "out").write_chunk([batch])

    assert elsewhere.read_bytes() == b"mine"
    assert planted.is_symlink()


def test_what_is_not_yet_whole_has_a_name_that_readers_pass_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    kept = os.fsync

    def look(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        kept(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    output = output_to(tmp_path)
    for _ in range(2):
        output.write_chunk([usual_batch(window=len(seen))])

    assert len({Path(path).name for path in seen}) == 4, "each attempt has a name of its own"
    assert all(Path(path).name.startswith(".") and Path(path).parent == tmp_path / ".unfinished" for path in seen)
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_files_have_the_permissions_that_were_asked_for_and_folders_those_to_reach_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        output_to(tmp_path / "shared", file_mode=0o640).write_chunk([usual_batch()])
        output_to(tmp_path / "private").write_chunk([usual_batch()])
    finally:
        os.umask(before)

    def modes(folder: Path) -> set[str]:
        return {
            oct(stat.S_IMODE(path.stat().st_mode)) for path in (folder, *folder.rglob("*")) if ".unfinished" not in path.parts
        }

    assert modes(tmp_path / "shared") == {"0o750", "0o640"}
    assert modes(tmp_path / "private") == {"0o700", "0o600"}


def test_an_empty_folder_where_files_were_written_is_taken_for_a_missing_disk(tmp_path: Path) -> None:
    folder, kept = tmp_path / "mounted", tmp_path / "unmounted"
    output = output_to(folder)
    receipt = output.write_chunk([usual_batch(window=0)])
    folder.rename(kept)
    folder.mkdir()

    with pytest.raises(OutputUnavailable, match="is its disk missing"):
        output.write_chunk([usual_batch(window=1)])
    with pytest.raises(OutputUnavailable, match="is its disk missing"):
        ParquetFiles(Folder(folder), "hour").open({"": receipt})
    assert list(folder.iterdir()) == []

    folder.rmdir()
    kept.rename(folder)
    output.write_chunk([usual_batch(window=1)])
    assert len(list(folder.glob("windows/**/*.parquet"))) == 2


def test_what_a_crash_left_unfinished_is_removed_after_a_day_and_not_before(tmp_path: Path) -> None:
    output_to(tmp_path)
    for age_s in (3600, 100_000):
        left = tmp_path / ".unfinished" / f".{age_s}"
        left.touch()
        os.utime(left, (left.stat().st_mtime - age_s,) * 2)

    output_to(tmp_path)

    assert [path.name for path in (tmp_path / ".unfinished").iterdir()] == [".3600"]


def test_one_folder_has_one_name_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    assert ParquetFiles(Folder(tmp_path / "link" / "a"), "hour").name == ParquetFiles(Folder(tmp_path / "a"), "day").name


@pytest.mark.parametrize("partition", ["hour", "day"])
def test_readers_find_every_row_and_no_summary_among_them(tmp_path: Path, partition: Partition) -> None:
    chunks: Sequence[list[Batch]] = [over_an_hour(), [usual_batch(window=20_000 + number) for number in range(3)]]
    output = output_to(tmp_path, partition)
    for chunk in chunks:
        output.write_chunk(chunk)
    expected = rows_of(*chunks[0], *chunks[1])

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(tmp_path / "rows")
    by_pandas = sorted(zip(frame["timestamp"].astype("int64"), frame["source_id"], frame["ecg"], strict=True))
    table = ds.dataset(tmp_path / "rows", partitioning="hive").to_table().sort_by([("timestamp", "ascending")])
    query = f"SELECT epoch_ns(timestamp), source_id, ecg FROM '{tmp_path}/rows/**/*.parquet' ORDER BY ALL"

    assert by_pandas == [tuple(row) for row in expected]
    assert len(table) == len(expected)
    assert duckdb.execute(query).fetchall() == [tuple(row) for row in expected]
    assert frame["date"].astype(str).unique().tolist() == ["2025-11-03", "2025-11-04"]


def test_a_file_that_is_not_parquet_has_no_digest() -> None:
    assert rows_digest_of(b"PAR1 and so on PAR1") is None
    assert rows_digest_of(b"") is None

"""What is spooled comes back to the byte, or is known to be damaged."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import Batch, WindowCounts
from anonymizer.errors import BatchRejected, StateUnavailable
from service.state.fence import Fence
from service.state.set_aside import SetAside
from service.state.spool import Spool, SpoolDamaged, decode, encode
from tests.service.batches import make_batch

#: A header's text with a place for the number of rows.
ONE_BATCH = '{"ids": [["a"]], "batches": [{"batch_id": "b", "window": [0, 1], "id_table": 0, "rows": %s}]}'


def same(a: Batch, b: Batch) -> bool:
    arrays: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
        (a.times_ns, b.times_ns),
        (a.source_index, b.source_index),
        (a.values_uv, b.values_uv),
    ]
    if a.imputed_rows is not None and b.imputed_rows is not None:
        arrays.append((a.imputed_rows, b.imputed_rows))
    scalars = ("batch_id", "window", "source_ids", "promise", "counts", "imputed_value_uv", "certificate")
    return (
        all(x.tobytes() == y.tobytes() and x.dtype == y.dtype for x, y in arrays)
        and all(getattr(a, name) == getattr(b, name) for name in scalars)
        and (a.imputed_rows is None) == (b.imputed_rows is None)
    )


@given(
    rows=st.lists(st.integers(2, 40), min_size=1, max_size=5),
    ids=st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1), min_size=2, max_size=2, unique=True),
)
def test_batches_come_back_as_they_were(rows: list[int], ids: list[str]) -> None:
    made = [make_batch(index, rows=count) for index, count in enumerate(rows)]
    batches = [replace(one, source_ids=tuple(ids), values_uv=one.values_uv + 0.1) for one in made]

    read = decode(encode(batches), name="test")

    assert all(same(a, b) for a, b in zip(batches, read, strict=True))


def test_imputed_rows_come_back() -> None:
    counts = WindowCounts(read=3, released=3, suppressed=1)
    batch = replace(make_batch(1, rows=3), counts=counts, imputed_rows=np.array([False, False, True]), imputed_value_uv=1.0)

    assert same(decode(encode([batch]), name="test")[0], batch)


def test_a_spool_file_is_whole_or_not_there_and_a_copy_of_another_chunk_is_no_good_copy(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    size = spool.write(7, [make_batch(1), make_batch(2)])

    assert spool.numbers() == {7}
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) == size
    assert [batch.batch_id for batch in spool.read(7)] == [make_batch(1).batch_id, make_batch(2).batch_id]
    with pytest.raises(SpoolDamaged, match="is missing"):
        spool.read(8)
    spool.write(8, [make_batch(3)])
    kept, copy = sorted((tmp_path / "spool").iterdir())
    copy.write_bytes(kept.read_bytes())
    with pytest.raises(SpoolDamaged):
        spool.read(8)


@given(data=st.data())
def test_no_single_byte_can_be_lost_or_changed_unseen(data: st.DataObject) -> None:
    content = bytearray(encode([make_batch(1)]))
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]

    with pytest.raises(SpoolDamaged):
        decode(bytes(content), name="test")


NO_HEADERS = ["[" * 100_000, "7", "null", "{}", '{"ids": [], "batches": [7]}', '{"ids": 7, "batches": []}']
NO_HEADERS += ['{"ids": [], "batches": [{"rows": 1e999}]}']
NO_HEADERS += [ONE_BATCH % change for change in ("1" + "0" * 30, "-5", "NaN", '"1"', "[]")]


@pytest.mark.parametrize("header", NO_HEADERS)
def test_an_invalid_header_is_damage_even_with_a_valid_digest(header: str) -> None:
    body = b"ecg-anonymizer spool 1\n" + len(header).to_bytes(8, "little") + header.encode()

    with pytest.raises(SpoolDamaged, match="is damaged"):
        decode(body + hashlib.sha256(body).digest(), name="test")


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE, errno.ENOMEM])
def test_a_read_that_fails_says_nothing_about_the_file(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write(3, [make_batch(1)])

    def fail(path: Path) -> bytes:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("service.state.spool.read_ours", fail)
        with pytest.raises(StateUnavailable, match=r"cannot be read now \("):
            spool.read(3)
    assert len(spool.read(3)) == 1


def test_a_spool_folder_that_is_gone_is_a_disk_that_may_come_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write(3, [make_batch(1)])
    (tmp_path / "spool").rename(tmp_path / "away")

    with pytest.raises(StateUnavailable, match="is gone"):
        spool.read(3)


@pytest.mark.parametrize(
    "left", ["nothing", "an empty mount point", "a file", "a link to a disk that is not mounted", "foreign files"]
)
def test_a_spool_folder_that_is_gone_at_the_start_is_waited_for_and_not_made_anew(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder)
    for number in (3, 4):
        spool.write(number, [make_batch(number)])
    folder.rename(tmp_path / "away")
    if left == "a file":
        folder.write_bytes(b"")
    elif left.startswith("a link"):
        folder.symlink_to(tmp_path / "unmounted" / "spool")
    elif left != "nothing":
        folder.mkdir()
    if left == "foreign files":
        (folder / "000000000099.spool").write_bytes(b"of another journal")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(StateUnavailable, match=r"spool folder .* is gone, .* wait for 2 of its files") as raised:
        Spool(folder, waiting=lambda: [3, 4])

    assert "give" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made"


def test_a_spool_folder_that_becomes_empty_under_way_is_gone_too(tmp_path: Path) -> None:
    waiting: list[int] = []
    spool = Spool(tmp_path / "spool", waiting=lambda: waiting)
    waiting += [3, 4]

    with pytest.raises(StateUnavailable, match="is gone"):
        spool.read(3)
    spool.write(4, [make_batch(4)])
    with pytest.raises(SpoolDamaged, match="is missing"):
        spool.read(3)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_plain_file_is_said_to_be_none_and_never_waited_on(kind: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for name, read in (("spool/000000000003.spool", lambda: spool.read(3)), ("fence", Fence(tmp_path / "fence").read)):
        plant(kind, tmp_path / name)

        with pytest.raises(StateUnavailable, match=r"cannot be read now \(it is (not a regular file|a link)"):
            read()


def plant(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(__file__)


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool" / "000000000001.spool.unfinished").write_bytes(b"half")

    spool.remove_unfinished()

    assert list((tmp_path / "spool").iterdir()) == []


def test_what_is_set_aside_is_kept_with_its_reason_until_it_is_taken_after_all(tmp_path: Path) -> None:
    kept = SetAside(tmp_path / "set_aside")

    kept.keep(make_batch(1), output="api:x", rejection=BatchRejected("422"))
    kept.keep(make_batch(1), output="api:x", rejection=BatchRejected("422 again", rows=[0, 2]))
    kept.keep(make_batch(1), output="csv:y", rejection=BatchRejected("no"))

    found = sorted((one.output, one.reason, one.batch_id, one.count, one.rows) for one in kept.all())
    batch_id = make_batch(1).batch_id
    assert found == [("api:x", "422 again", batch_id, 2, (0, 2)), ("csv:y", "no", batch_id, 4, None)]
    assert {one.batch().batch_id for one in kept.all()} == {batch_id}
    files = len(list((tmp_path / "set_aside").iterdir()))
    kept.remove(next(one for one in kept.all() if one.output == "api:x"))
    assert [one.output for one in kept.all()] == ["csv:y"]
    assert len(list((tmp_path / "set_aside").iterdir())) == files // 2

"""The outside check of METHOD=rhythm finds what is not of the public beat, wherever it stands, at any sampling rate, in any file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from scipy.signal import resample_poly

from anonymizer.anonymize import anonymize_chunk
from anonymizer.samples import make_samples
from anonymizer.windows import NANOSECONDS, covering_windows
from scripts.verify_output import Finding, Held, Question, examine
from tests.integration.service_process import run_on_file
from tests.scripts.verifying import run_check
from utility.choices import RHYTHM, recipe_of
from utility.outcome import Floats, Ints
from utility.records import records

WINDOW_S = 10

#: Sampling rates, and what resamples 360 Hz to each.
RATES = {50: (5, 36), 128: (16, 45), 360: (1, 1), 1000: (25, 9)}


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """One window of one source: its times, what was released and what was measured, and which rows are beats."""

    times_ns: Ints
    values_uv: Floats
    raw_uv: Floats

    @property
    def beats(self) -> Ints:
        return np.flatnonzero(self.values_uv == 1000)


@cache
def released(hertz: int) -> Released:
    """Return the first window of record 100 at another sampling rate."""
    record = records(360)[0]
    raw = np.rint(resample_poly(record.values_uv[: WINDOW_S * 360], *RATES[hertz]))
    times_ns = int(record.times_ns[0]) + np.arange(len(raw)) * NANOSECONDS // hertz
    windows = covering_windows(int(times_ns[0]), int(times_ns[-1]) + 1, WINDOW_S * NANOSECONDS)
    samples = make_samples(times_ns, np.zeros(len(raw), dtype=np.int32), ["a"], raw)
    (batch,) = (one.batch for one in anonymize_chunk(samples, windows, recipe_of(RHYTHM, k=5, window_s=WINDOW_S)).results)
    assert batch is not None
    return Released(times_ns, batch.values_uv.copy(), raw)


def finding(one: Released, values_uv: Floats) -> Finding:
    rows = list(zip(one.times_ns.tolist(), ["a"] * len(values_uv), values_uv.tolist(), strict=True))
    return examine(
        Held(rows[0][0], rows[-1][0] + 1, rows=rows),
        Question(None, WINDOW_S * NANOSECONDS, imputed=False, rhythm=True),
        in_a_file=True,
    )


def tampered(one: Released) -> Iterator[tuple[str, Floats]]:
    """Yield forms of tampering by name, each at the first beat, at one in the middle and at the last."""
    good, rows = one.values_uv, np.arange(len(one.values_uv))
    others = np.setdiff1d(rows, one.beats)
    for where, beat in zip(("first", "middle", "last"), one.beats[[0, len(one.beats) // 2, -1]].tolist(), strict=True):
        about = others[np.argsort(np.abs(others - beat))[:8]]
        near = rows[(rows > beat - 8) & (rows < beat + 8)]
        for by in (1.0, -1.0, 0.5):
            yield f"a row near the {where} beat changed by {by} µV", good + by * (rows == about[3])
        yield f"the rows of the {where} beat shifted by a sample", np.where(np.isin(rows, near[1:]), np.roll(good, 1), good)
        yield f"two rows near the {where} beat swapped", swapped(good, int(about[0]), beat)
        yield f"the {where} beat one microvolt lower", np.where(rows == beat, 999.0, good)
        yield f"a second beat beside the {where} one", np.where(rows == about[5], 1000.0, good)
    for where, row in (("first", others[0]), ("last", others[-1])):
        yield f"the {where} row of all changed by 1 µV", good + (rows == row)
    yield "another template", np.where(good == 1000, good, np.rint(0.9 * good))
    yield "the template upside down", np.where(good == 1000, good, -good)
    yield "a raw window", one.raw_uv
    yield "a raw window with its highest values at the beats", np.where(good == 1000, good, one.raw_uv)
    yield "a source that is flat at its beats' height", np.full(len(rows), 1000.0)
    yield "a flat source", np.zeros(len(rows))
    yield "a flat source with the beats left", np.where(good == 1000, good, 0.0)
    yield "not a number", np.where(rows == others[3], np.nan, good)


def swapped(values: Floats, row: int, other: int) -> Floats:
    again = values.copy()
    again[[row, other]] = again[[other, row]]
    return again


@pytest.mark.parametrize("hertz", RATES)
def test_each_form_of_tampering_is_found_wherever_it_stands(hertz: int) -> None:
    one = released(hertz)
    not_found = [name for name, values in tampered(one) if not finding(one, values).problems]

    assert finding(one, one.values_uv).problems == ()
    assert len(one.beats) > 8
    assert not_found == []


def test_what_cannot_be_found_is_a_window_rebuilt_wholly_at_other_times() -> None:
    """Were this to fail, the pages would say less of the check than is true."""
    one = released(360)
    later = Released(one.times_ns + 123_456_789, one.values_uv, one.raw_uv)

    assert finding(later, later.values_uv).problems == ()


CHANGES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "one row changed by 1 µV": lambda values, _: values + (np.arange(len(values)) == int(np.argmin(values))),
    # All of them would be a window at other beat times.
    "one beat's rows shifted by a sample": lambda values, _: np.concatenate((values[:300], values[299:420], values[421:])),
    "a raw window": lambda _, raw: raw,
}


def test_files_of_both_kinds_are_read_row_by_row(tmp_path: Path) -> None:
    """A CSV and a Parquet file of three sources at 128 Hz; one source's rows of the last window are not as they were released."""
    length = 2 * WINDOW_S * 128
    chosen = [record for record in records(128) if record.source_id in ("mitbih-100", "mitbih-102", "mitbih-106")]
    times = np.concatenate([record.times_ns[:length] for record in chosen])
    raw = np.concatenate([record.values_uv[:length] for record in chosen])
    names = np.repeat([record.source_id for record in chosen], length)
    stamps = pa.array(times, type=pa.timestamp("ns", tz="UTC"))
    pa_parquet.write_table(pa.table({"timestamp": stamps, "source_id": names, "ecg": raw}), tmp_path / "in.parquet")
    settings = {
        "METHOD": "rhythm",
        "BATCH_SIZE_SECONDS": WINDOW_S,
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
    }
    assert run_on_file(tmp_path, tmp_path / "in.parquet", **settings, CSV_FILENAME_PATTERN="all.csv")[0] == 0
    (rows_file,) = (tmp_path / "parquet" / "rows").rglob("*.parquet")
    table = pa_parquet.ParquetFile(rows_file).read()
    lines = (tmp_path / "csv" / "all.csv").read_text(encoding="utf-8").splitlines()
    values = table["ecg"].to_numpy()
    stamps_ns = table["timestamp"].cast(pa.int64()).to_numpy()
    mine = np.array([name == "mitbih-102" for name in table["source_id"].to_pylist()]) & (
        stamps_ns >= times.min() + 10 * NANOSECONDS
    )
    wanted = np.searchsorted(times[names == "mitbih-102"], stamps_ns[mine])
    measured = raw[names == "mitbih-102"][wanted]

    assert [float(line.rsplit(",", 1)[1]) for line in lines[1:]] == values.tolist(), "both files hold the same rows in one order"
    assert run_check("--method", "rhythm", str(tmp_path / "csv" / "all.csv"))[0] == 0
    assert run_check(str(tmp_path / "parquet"), packages=True)[0] == 0
    for change in CHANGES.values():
        changed = values.copy()
        changed[mine] = change(values[mine], measured)
        text = [f"{line.rsplit(',', 1)[0]},{value}" for line, value in zip(lines[1:], changed.tolist(), strict=True)]
        (tmp_path / "changed.csv").write_text("\n".join([lines[0], *text]) + "\n", encoding="utf-8")
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        shutil.copytree(tmp_path / "parquet", tmp_path / "again")
        at = table.schema.get_field_index("ecg")
        again = tmp_path / "again" / rows_file.relative_to(tmp_path / "parquet")
        pa_parquet.write_table(table.set_column(at, table.schema.field(at), pa.array(changed)), again)
        for arguments in (("--method", "rhythm", str(tmp_path / "changed.csv")), (str(tmp_path / "again"),)):
            code, said = run_check(*arguments, packages=True)
            assert code == 1, said
            assert "VIOLATION in 1 windows, the first 2025-11-03T14:30:10Z: " in said

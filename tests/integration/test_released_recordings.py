"""Recordings through the real program: what is released is what an independent reader reads, and no header leaves."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from anonymizer.windows import NANOSECONDS
from testbed.influxdb_server import InfluxServer
from tests.inputs.recording_files import (
    SECRETS,
    Digits,
    Edf,
    EdfSignal,
    by_wfdb,
    checksum,
    dicom,
    dicom_group,
    edf,
    real_dicom,
    save_dicom,
    wave,
    wfdb_digits,
    write_wfdb,
)
from tests.integration.clinic import START_NS, Clinic, Key, csv_rows
from tests.integration.service_process import run_service

MIT_BIH = Path(__file__).resolve().parent.parent / "inputs" / "recordings" / "mitbih_100.hea"

FOLDER = "Quintessa Zaphodea 19710123"

#: Settings under which values that occur twice in a window stay what they are.
EXACT = {"METHOD": "optimal", "K_VALUE": 2, "PSEUDONYMIZE_SOURCE_ID": "false", "OUTPUT_TO_INFLUX": "false"}


def twice(rows: int) -> Digits:
    """Return digits of which each occurs twice in a row, of some hundred microvolts."""
    return np.repeat(wave(rows // 2) // 4, 2)


def rows_of(source_id: str, start_ns: int, hertz: Fraction | int, values_uv: npt.ArrayLike) -> dict[Key, float]:
    rows = {}
    for n, value in enumerate(np.asarray(values_uv, np.float64).tolist()):
        second, fraction_ns = divmod(
            start_ns + n * NANOSECONDS * Fraction(hertz).denominator // Fraction(hertz).numerator, NANOSECONDS
        )
        rows[f"{np.datetime64(second, 's')}.{fraction_ns:09d}Z", source_id] = value
    return rows


def with_a_gap() -> Edf:
    signal = EdfSignal(twice(300), 100, physical=("-32768", "32767"))
    return edf(times_s=["+0", "+1", "+7"], kind="EDF+D", signals=(signal,))


def one_of_each(folder: Path) -> dict[Key, float]:
    """Write a recording of each format; return what independent readers say that they hold, by the ids a … d."""
    folder.mkdir()
    gap, bdf = (
        with_a_gap(),
        edf(bdf=True, signals=(EdfSignal(twice(1000), 500, physical=("-8388608", "8388607"), digital=("-8388608", "8388607")),)),
    )
    (folder / "a Zaphodea.edf").write_bytes(gap.data())
    (folder / "b.bdf").write_bytes(bdf.data())
    save_dicom(dicom(dicom_group(["Lead I"], digits=2 * twice(6000)[:, None]), moment="20251103143000"), folder / "c.dcm")
    digits = twice(1280)
    (folder / "d.dat").write_bytes(wfdb_digits("212", digits))
    (folder / "d.hea").write_text(f"d 1 128 1280 14:30:00 03/11/2025\nd.dat 212 200 12 0 0 {checksum(digits)} 0 I\n# Zaphodea\n")
    in_gap = gap.microvolts()
    return {
        **rows_of("a", START_NS, 100, in_gap[:200]),
        **rows_of("a", START_NS + 7 * NANOSECONDS, 100, in_gap[200:]),
        **rows_of("b", START_NS, 500, bdf.microvolts()),
        **rows_of("c", START_NS, 500, pydicom.dcmread(folder / "c.dcm").waveform_array(0)[:, 0]),
        **rows_of("d", START_NS, 128, by_wfdb(str(folder / "d")).p_signal[:, 0] * 1000),
    }


def everything_written(folder: Path) -> bytes:
    """Return all bytes of files below a folder, and their names."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".env", "service.log")]
    return b"\n".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)


@pytest.mark.influxdb
def test_a_folder_of_every_format_comes_out_as_independent_readers_read_it_and_says_nothing_of_its_headers(
    influxdb: InfluxServer, tmp_path: Path
) -> None:
    expected = one_of_each(tmp_path / FOLDER)
    run, clinic = tmp_path / "run", Clinic(influxdb)
    run.mkdir()
    settings = {**clinic.settings, **EXACT, "INPUT_FILE": tmp_path / FOLDER, "INPUT_SOURCE_ID": "a,b,c,d", "LOG_LEVEL": "DEBUG"}

    code, log = run_service(run, {**settings, "OUTPUT_TO_INFLUX": "true", "STATUS_ADDRESS": "127.0.0.1:0"})

    assert code == 0, log
    stored = clinic.stored()
    assert stored.keys() == expected.keys()
    assert all(abs(stored[key] - value) < 1e-6 for key, value in expected.items())
    assert stored == csv_rows(run / "csv")
    said = log.encode() + everything_written(run)
    assert [secret for secret in (*SECRETS, FOLDER) if secret.encode() in said] == []


def test_real_recordings_come_out_at_their_times_with_hardly_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    for path in (real_dicom(), MIT_BIH, MIT_BIH.with_suffix(".dat")):
        shutil.copy(path, folder)
    text = pydicom.dcmread(real_dicom())
    # The six digits of the real id are also in a fraction or a digest, once in some hundred runs.
    text.PatientID = f"{text.PatientID}815042"
    text.save_as(folder / real_dicom().name)
    settings = {**EXACT, "INPUT_FILE": folder, "INPUT_CHANNEL": "1", "INPUT_START_TIME": "2025-11-03T14:30:00Z"}

    code, log = run_service(tmp_path, settings)

    assert code == 0, log
    expected = {
        **rows_of("recording-1", START_NS, 360, by_wfdb(str(MIT_BIH.with_suffix(""))).p_signal[:, 0] * 1000),
        **rows_of("recording-2", 1_359_111_559 * NANOSECONDS, 1000, pydicom.dcmread(real_dicom()).waveform_array(0)[:, 0]),
    }
    released = csv_rows(tmp_path / "csv")
    assert released.keys() == expected.keys()
    errors = np.array([released[key] - value for key, value in expected.items()])
    assert np.sqrt(np.mean(errors**2)) < 2
    said = log.encode() + everything_written(tmp_path / "csv") + everything_written(tmp_path / "state")
    for secret in (text.PatientID, text.PatientBirthDate, text.AccessionNumber, text.InstitutionName, text.AdmissionID):
        assert str(secret).encode() not in said


def test_a_window_is_released_once_whatever_channel_or_start_is_asked_for(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, name="Zaphodea")
    settings: dict[str, Any] = {**EXACT, "INPUT_FILE": path, "INPUT_START_TIME": "2025-11-03T14:30:00Z", "INPUT_CHANNEL": "1"}

    assert run_service(tmp_path, settings)[0] == 0
    before = csv_rows(tmp_path / "csv")
    code, log = run_service(tmp_path, {**settings, "INPUT_CHANNEL": "V5", "INPUT_SOURCE_ID": "another"})
    assert (code, csv_rows(tmp_path / "csv")) == (0, before), log
    code, log = run_service(tmp_path, {**settings, "INPUT_START_TIME": "2025-11-03T14:30:02Z"})

    assert (code, "belongs to another data set" in log) == (78, True), log
    assert csv_rows(tmp_path / "csv") == before


@pytest.mark.parametrize("ending", ["edf", "bdf", "hea", "dcm"])
def test_a_damaged_file_ends_the_program_with_a_sentence_and_nothing_of_its_header(ending: str, tmp_path: Path) -> None:
    path = {
        "edf": lambda: tmp_path / "Zaphodea.edf",
        "bdf": lambda: tmp_path / "Zaphodea.bdf",
        "hea": lambda: write_wfdb(tmp_path, name="Zaphodea", header="{name} 2 128 Quintessa\n{first}\n{second}\n"),
        "dcm": lambda: save_dicom(dicom(dicom_group(hertz="0")), tmp_path / "Zaphodea.dcm"),
    }[ending]()
    if ending in ("edf", "bdf"):
        path.write_bytes(edf(bdf=ending == "bdf", duration="Borborygm").data())

    code, log = run_service(tmp_path, {**EXACT, "INPUT_FILE": path, "INPUT_CHANNEL": "1", "LOG_LEVEL": "DEBUG"})

    assert code == 78
    assert "❌ INPUT_FILE " in log
    assert "Traceback" not in log
    assert [secret for secret in SECRETS if secret in log.replace(str(tmp_path), "")] == []
    assert not (tmp_path / "csv").exists()


@pytest.mark.influxdb
def test_recordings_in_a_bucket_whose_state_folder_is_lost_are_released_by_no_other(
    influxdb: InfluxServer, tmp_path: Path
) -> None:
    """Also with the same rows in a CSV file instead: without pseudonyms, when no key makes the label."""
    folder, clinic = tmp_path / "files", Clinic(influxdb)
    folder.mkdir()
    (folder / "one.edf").write_bytes(with_a_gap().data())
    (tmp_path / "rows.csv").write_text(
        "timestamp,source_id,ecg\n" + "".join(f"2025-11-03T15:00:0{n % 8}.{n:03}Z,w,{n % 9}\n" for n in range(100))
    )
    given = {
        **clinic.settings,
        "PSEUDONYMIZE_SOURCE_ID": "false",
        "INFLUX_VERIFY_TOKEN": influxdb.make_token(read=[clinic.raw, clinic.released]),
        "OUTPUT_TO_CSV": "false",
        "K_VALUE": 2,
    }
    for name, source in (("recordings", folder), ("rows", tmp_path / "rows.csv")):
        run = tmp_path / name / "run"
        run.mkdir(parents=True)
        code, log = run_service(run, {**given, "INPUT_FILE": source})
        assert (code, " 0 released" in log) == (0, False), log
        before = clinic.stored()
        shutil.rmtree(run / "state")

        code, log = run_service(run, {**given, "INPUT_FILE": source, "K_VALUE": 3})

        assert (code, "holds summaries of windows of this data set" in log, clinic.stored() == before) == (78, True, True), log

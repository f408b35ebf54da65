"""Recordings in files of the field: each sample as an independent reader reads it, at its exact time; the rest refused with a sentence."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, time
from fractions import Fraction
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.errors import SourceDenied, SourceRefused
from anonymizer.samples import Samples
from anonymizer.windows import NANOSECONDS, WindowRange
from inputs import file_source as files
from inputs.file_source import FileSource
from inputs.recordings import dicom as dicom_reader
from inputs.recordings import edf as edf_reader
from inputs.recordings import folder as folder_reader
from inputs.recordings.channels import chosen
from inputs.recordings.folder import RecordingSettings, opener_of
from inputs.recordings.recording import Unreadable, times_of_samples
from testbed.sample_ecg import read_sample_ecg
from tests.inputs.recording_files import (
    SECRETS,
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
    write_by_wfdb,
    write_wfdb,
)

CASES = Path(__file__).parent / "recordings"
ROOT = Path(__file__).resolve().parents[2]

START_NS = 1_762_180_200 * NANOSECONDS  # 2025-11-03T14:30:00Z


def opened(given: Path | str, *, sources: tuple[str, ...] = (), **options: Any) -> FileSource:
    opener = opener_of(str(given), RecordingSettings(**options))
    assert opener is not None
    source = FileSource(Path(given), sources=sources, microvolts_per_unit=1000.0, recordings=opener)
    source.open()
    return source


def samples_of(source: FileSource) -> Samples:
    extent = source.extent()
    assert extent is not None
    return source.read(
        WindowRange(extent[0] // NANOSECONDS * NANOSECONDS, -(-extent[1] // NANOSECONDS) * NANOSECONDS, NANOSECONDS)
    )


def times_by_definition(start_ns: int, hertz: Fraction | int, rows: int) -> list[int]:
    return [start_ns + n * NANOSECONDS * Fraction(hertz).denominator // Fraction(hertz).numerator for n in range(rows)]


def written(folder: Path, data: bytes, name: str = "rec.edf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(given: Path | str, **options: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SourceRefused) as caught:
            opened(given, **{"start_ns": START_NS, **options})
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None
    return str(caught.value)


# --- times ----------------------------------------------------------------------------------------------------------------------


@given(
    st.integers(-(2**60), 2**60),
    st.fractions(Fraction(1, 100), 1_000_000, max_denominator=10**8),
    st.integers(0, 10**7),
    st.integers(1, 50),
)
def test_each_sample_has_the_time_start_plus_n_over_the_frequency_rounded_down(
    start_ns: int, hertz: Fraction, first: int, rows: int
) -> None:
    found = times_of_samples(start_ns, NANOSECONDS / hertz, first, first + rows)

    assert found.tolist() == [
        start_ns + (n * NANOSECONDS) * hertz.denominator // hertz.numerator for n in range(first, first + rows)
    ]


def test_a_frequency_of_many_digits_is_exact_where_its_products_exceed_64_bits() -> None:
    hertz, first = Fraction("128.12345678901234567"), 10**8

    assert times_of_samples(0, NANOSECONDS / hertz, first, first + 1).tolist() == [
        first * NANOSECONDS * hertz.denominator // hertz.numerator
    ]


def test_after_a_day_of_360_hertz_no_error_has_added_up() -> None:
    day = 86_400 * 360

    assert times_of_samples(0, Fraction(NANOSECONDS, 360), day, day + 1).tolist() == [86_400 * NANOSECONDS]


# --- other programs' files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Edf", "Bdf"])
def test_what_edfio_writes_is_read(kind: str, tmp_path: Path) -> None:
    values_uv = wave(500).astype(float)
    signal = getattr(edfio, f"{kind}Signal")(
        values_uv, 250, label="ECG II", physical_dimension="uV", physical_range=(-1000, 1000)
    )
    recording = edfio.Recording(startdate=date(2025, 11, 3), equipment_code="Borborygm")
    patient = edfio.Patient(code="MRN-5551234", birthdate=date(1971, 1, 23), name="Zaphodea_Quintessa")
    path = tmp_path / f"rec.{kind.lower()}"
    made = getattr(edfio, kind)(
        [signal], patient=patient, recording=recording, starttime=time(14, 30, 0, 250_000), annotations=[]
    )
    made.write(path)

    found = samples_of(opened(path))

    np.testing.assert_allclose(found.values_uv, values_uv, atol=0.05)
    assert found.times_ns.tolist() == times_by_definition(START_NS + NANOSECONDS // 4, 250, 500)


def test_what_wfdb_writes_is_read(tmp_path: Path) -> None:
    values_mv = np.stack((wave(777), -wave(777)), axis=1) / 1000
    start = datetime(2025, 11, 3, 14, 30, 0, 500_000)  # noqa: DTZ001  (WFDB knows no zones)
    signals: dict[str, Any] = {"units": ["mV", "mV"], "sig_name": ["I", "II"], "fmt": ["16", "16"], "p_signal": values_mv}
    write_by_wfdb("rec", fs=125.5, **signals, base_datetime=start, comments=["Zaphodea"], write_dir=str(tmp_path))

    found = samples_of(opened(tmp_path / "rec.hea", channel="II"))

    np.testing.assert_allclose(found.values_uv, values_mv[:, 1] * 1000, atol=0.05)
    assert found.times_ns.tolist() == times_by_definition(START_NS + NANOSECONDS // 2, Fraction(251, 2), 777)


def test_no_library_is_loaded_before_a_file_needs_it() -> None:
    program = (
        "import sys, inputs.file_source; print([name for name in ('edfio', 'pydicom', 'wfdb', 'pandas') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout == "[]\n"


# --- channels -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "wanted", "position"),
    [
        (["MLII"], "", 0),
        (["MLII", "V5"], "V5", 1),
        (["MLII", "V5"], "2", 1),
        (["ECG I", "ECG II"], "ecg ii", 1),
        (["Lead I (Einthoven)", "Lead II"], "I", 0),
        (["ECG Lead II", "ECG Lead I"], "II", 0),
        (["1", "2"], "2", 1),
        (["2", "1"], "#1", 0),
        (["I", "I"], "#2", 1),
        (["I", "i"], "i", 1),
    ],
)
def test_a_channel_is_chosen_by_label_or_number(labels: list[str], wanted: str, position: int) -> None:
    assert chosen(labels, wanted) == position


@pytest.mark.parametrize(
    ("labels", "wanted", "sentence"),
    [
        (["MLII", "V5"], "", "has 2 channels (1 MLII, 2 V5): set INPUT_CHANNEL to one of them"),
        (["MLII", "V5"], "aVF", "has 2 channels (1 MLII, 2 V5); INPUT_CHANNEL names none of them"),
        (["MLII", "V5"], "0", "names none"),
        (["MLII", "V5"], "3", "names none"),
        (["I", "I"], "I", "fits 2 of them"),
        (["2", "1"], "1", "fits 2 of them"),
        ([], "", "has no channel"),
        (["", "V5"], "", "(1, 2 V5)"),
        (["ECG LA-RA", "Lead aVR (Goldberger)", "EXG1"], "", "(1 ECG LA-RA, 2 Lead aVR (Goldberger), 3 EXG1)"),
    ],
)
def test_a_channel_that_cannot_be_told_is_refused_with_the_channels_there_are(
    labels: list[str], wanted: str, sentence: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        chosen(labels, wanted)

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "label",
    [
        "Zaphodea Q.",
        "Marie ECG",
        "II " * 9,
        "ECG 19710123",
        "ECG 23 01 71",
        "5551234",
        "ECG\N{CIRCLED LATIN CAPITAL LETTER I}",
        "II\nX",
    ],
)
def test_a_label_that_is_not_a_leads_is_not_shown(label: str) -> None:
    with pytest.raises(Unreadable) as caught:
        chosen([label, "aVR"], "")

    assert "(1 (label not shown), 2 aVR)" in str(caught.value)


# --- WFDB -----------------------------------------------------------------------------------------------------------------------


def test_a_record_of_mit_bih_is_read_as_the_wfdb_package_reads_it_and_as_it_was_published() -> None:
    found = samples_of(opened(CASES / "mitbih_100.hea", start_ns=START_NS))
    record = by_wfdb(str(CASES / "mitbih_100"))
    ecg = read_sample_ecg()

    np.testing.assert_allclose(found.values_uv, record.p_signal[:, 0] * 1000, atol=1e-9)
    assert found.values_uv.tolist() == ecg.values_uv[0][: len(found)].tolist()
    assert found.times_ns.tolist() == times_by_definition(START_NS, record.fs, record.sig_len)
    assert found.source_ids == ("recording",)


@pytest.mark.parametrize("kind", ["212", "16", "24", "32", "61", "80", "160"])
@pytest.mark.parametrize("position", [0, 1])
def test_each_format_is_read_as_the_wfdb_package_reads_it(kind: str, position: int, tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, kind, start="14:30:00.5 03/11/2025")

    found = samples_of(opened(path, channel=str(position + 1)))
    record = by_wfdb(str(path.with_suffix("")))

    np.testing.assert_allclose(found.values_uv, record.p_signal[:, position] * 1000, atol=1e-9)
    assert found.times_ns.tolist() == times_by_definition(START_NS + NANOSECONDS // 2, 128, 501)


def test_samples_of_several_frames_files_and_offsets_are_read_as_the_wfdb_package_reads_them(tmp_path: Path) -> None:
    # Three samples a frame of which one signal has two, in format 212, so that frames begin in the middle of a byte; and a second file.
    frames = wave(303).reshape(101, 3)
    (tmp_path / "a.dat").write_bytes(b"x" * 5 + wfdb_digits("212", frames.ravel()))
    (tmp_path / "b.dat").write_bytes(wfdb_digits("61", frames[:, 0] * 3))
    header = (
        f"m 3 62.5/62.5(0) 101 14:30:00 03/11/2025\na.dat 212+5 100/uV 12 0 0 {checksum(frames[:, 0])} 0 I\n"
        f"a.dat 212x2+5 2.5e2(-7)/mV 12 0 0 {checksum(frames[:, 1:].ravel())} 0 II\nb.dat 61 1/mV 16 2\n"
    )
    path = written(tmp_path, header.encode(), "m.hea")
    record = by_wfdb(str(tmp_path / "m"), smooth_frames=False)

    for position, factor in ((0, 1), (1, 1000), (2, 1000)):
        found = samples_of(opened(path, channel=str(position + 1)))
        np.testing.assert_allclose(found.values_uv, record.e_p_signal[position] * factor, atol=1e-9)
        assert found.times_ns.tolist() == times_by_definition(
            START_NS, Fraction(125, 2) * (2 if position == 1 else 1), len(found)
        )


@pytest.mark.parametrize(("kind", "invalid"), [("212", -2048), ("16", -32768), ("80", -128)])
def test_what_wfdb_marks_as_no_sample_is_an_invalid_row_and_counted(kind: str, invalid: int, tmp_path: Path) -> None:
    digits = wave(400) // 8
    digits[[3, 4, 399]] = invalid
    (tmp_path / "r.dat").write_bytes(wfdb_digits(kind, digits))
    path = written(tmp_path, f"r 1 100 400 14:30:00 03/11/2025\nr.dat {kind} 200\n".encode(), "r.hea")

    source = opened(path)
    found = samples_of(source)

    assert np.flatnonzero(np.isnan(found.values_uv)).tolist() == [3, 4, 399]
    assert np.isnan(by_wfdb(str(tmp_path / "r")).p_signal[:, 0]).nonzero()[0].tolist() == [3, 4, 399]
    assert len(found) == 400


def test_more_than_one_sample_in_a_hundred_without_a_value_is_warned_of_with_its_number(tmp_path: Path) -> None:
    digits = wave(400)
    digits[20:30] = -32768
    (tmp_path / "r.dat").write_bytes(wfdb_digits("16", digits))
    path = written(tmp_path, b"r 1 100 400 14:30:00 03/11/2025\nr.dat 16 200\n", "r.hea")

    (remark,) = opened(path).remarks

    assert remark == "INPUT_FILE: 10 of 400 rows (2.5 %) are invalid: they have no number, such as sample 21"


def test_a_channel_with_a_skew_is_read_as_the_wfdb_package_reads_it_and_its_first_samples_come_before_the_start(
    tmp_path: Path,
) -> None:
    digits = wave(400)
    frames = np.stack((digits[::2], digits[1::2], -digits[::2]), axis=1)
    (tmp_path / "r.dat").write_bytes(wfdb_digits("16", frames.ravel()))
    path = written(tmp_path, b"r 2 128 200 14:30:00 03/11/2025\nr.dat 16x2:3 200 12 0\nr.dat 16 200 12 0\n", "r.hea")

    found = samples_of(opened(path, channel="1"))

    expected = by_wfdb(str(tmp_path / "r"), smooth_frames=False).e_p_signal[0][:-6] * 1000
    np.testing.assert_allclose(found.values_uv[6:], expected, atol=1e-9)
    np.testing.assert_allclose(found.values_uv[:6], digits[:6] * 5, atol=1e-9)
    assert found.times_ns.tolist() == times_by_definition(START_NS - 3 * NANOSECONDS // 128, 256, 6) + times_by_definition(
        START_NS, 256, 394
    )


def test_a_record_may_be_named_by_its_file_of_samples(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path)

    assert opened(path.with_suffix(".dat"), channel="V5", start_ns=0).data_set == opened(path, channel="V5", start_ns=0).data_set
    path.unlink()
    assert opener_of(str(path.with_suffix(".dat")), RecordingSettings()) is None


def test_a_header_without_a_number_of_samples_has_as_many_as_its_file(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, header="{name} 2 128\n{first}\n{second}\n")

    assert len(samples_of(opened(path, channel="1", start_ns=0))) == 501


# --- EDF and BDF ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bdf", [False, True])
@pytest.mark.parametrize("position", [0, 1])
def test_edf_and_bdf_are_read_as_their_specification_says(bdf: bool, position: int, tmp_path: Path) -> None:
    made = edf(bdf=bdf)

    found = samples_of(opened(written(tmp_path, made.data()), channel=str(position + 1)))

    np.testing.assert_allclose(found.values_uv, made.microvolts(position), rtol=1e-12, atol=1e-9)
    assert found.times_ns.tolist() == times_by_definition(START_NS, 100, 300)


def test_a_sampling_frequency_that_is_no_whole_number_is_exact(tmp_path: Path) -> None:
    made = edf(duration="0.7", signals=(EdfSignal(wave(300), 100),))

    found = samples_of(opened(written(tmp_path, made.data())))

    assert found.times_ns.tolist() == times_by_definition(START_NS, Fraction(1000, 7), 300)


def test_24_bits_keep_their_sign(tmp_path: Path) -> None:
    signal = EdfSignal(
        np.array([-(2**23), -1, 0, 1, 2**23 - 1]), 5, physical=("-8388608", "8388607"), digital=("-8388608", "8388607")
    )

    found = samples_of(opened(written(tmp_path, edf(bdf=True, signals=(signal,)).data(), "rec.bdf")))

    assert found.values_uv.tolist() == [-(2**23), -1, 0, 1, 2**23 - 1]


@pytest.mark.parametrize(
    ("unit", "factor"), [("uV", 1), ("UV", 1), ("\xb5V", 1), ("\xc2\xb5V", 1), ("mV", 1000), ("V", 10**6), ("nV", 0.001)]
)
def test_units_of_voltage_become_microvolts_once_whatever_value_unit_says(unit: str, factor: float, tmp_path: Path) -> None:
    signal = EdfSignal(wave(100), 100, unit=unit, physical=("-100", "100"), digital=("-1000", "1000"))

    found = samples_of(opened(written(tmp_path, edf(signals=(signal,)).data())))

    np.testing.assert_allclose(found.values_uv, wave(100) * 0.1 * factor, rtol=1e-12)


def test_a_reversed_physical_range_is_a_negative_gain(tmp_path: Path) -> None:
    signal = EdfSignal(wave(100), 100, physical=("1000", "-1000"), digital=("-1000", "1000"))

    assert samples_of(opened(written(tmp_path, edf(signals=(signal,)).data()))).values_uv.tolist() == (-wave(100)).tolist()


@pytest.mark.parametrize("bdf", [False, True])
def test_gaps_are_where_the_annotations_of_records_say(bdf: bool, tmp_path: Path) -> None:
    kind = ("BDF" if bdf else "EDF") + "+D"
    made = edf(times_s=["+0.25", "+1.25", "+7.5"], kind=kind, bdf=bdf)

    found = samples_of(opened(written(tmp_path, made.data()), channel="2"))

    np.testing.assert_allclose(found.values_uv, made.microvolts(1), rtol=1e-12, atol=1e-9)
    first = times_by_definition(START_NS + NANOSECONDS // 4, 100, 200)
    assert found.times_ns.tolist() == first + times_by_definition(START_NS + 15 * NANOSECONDS // 2, 100, 100)


def test_rounded_times_of_records_without_a_gap_do_not_move_samples(tmp_path: Path) -> None:
    made = edf(times_s=["+0", "+0.333", "+0.667"], kind="EDF+D", duration=".3333333", signals=(EdfSignal(wave(30), 10),))

    found = samples_of(opened(written(tmp_path, made.data())))

    assert found.times_ns.tolist() == times_by_definition(START_NS, 10 / Fraction(".3333333"), 30)


def test_with_a_given_start_the_first_sample_has_it_and_gaps_stay(tmp_path: Path) -> None:
    made = edf(times_s=["+5.25", "+9.25", "+10.25"], kind="EDF+D", recording="Startdate X X X X")

    times_ns = samples_of(opened(written(tmp_path, made.data()), channel="1", start_ns=START_NS)).times_ns

    assert times_ns[[0, 100]].tolist() == [START_NS, START_NS + 4 * NANOSECONDS]


@pytest.mark.parametrize(
    "changes",
    [
        {"date": "01.01.85", "time": "00.00.00"},
        {"date": "01.01.85"},
        {"date": "31.02.25"},
        {"date": "xx.xx.xx"},
        {"time": "25.00.00"},
        {"times_s": ["+0", "+1", "+2"], "recording": "Startdate X MRN-5551234 Borborygm X"},
        {"times_s": ["+0", "+1", "+2"], "recording": "Startdate 04-NOV-2025 X X X"},
        {"times_s": ["+0", "+1", "+2"], "recording": "Startdate 03-Foo-2025 X X X"},
    ],
    ids=str,
)
def test_edf_without_a_start_needs_one(changes: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, edf(**changes).data())

    assert "does not say when it was recorded: set INPUT_START_TIME" in refusal(path, channel="1", start_ns=None)
    assert samples_of(opened(path, channel="1", start_ns=7)).times_ns[0] == 7


@pytest.mark.parametrize(
    ("date", "plus", "year"), [("03.11.84", "2084", 2084), ("03.11.86", "1986", 1986), ("03.11.yy", "2099", 2099)]
)
def test_years_are_those_that_two_digits_mean_or_the_text_says(date: str, plus: str, year: int, tmp_path: Path) -> None:
    made = edf(date=date, times_s=["+0", "+1", "+2"], recording=f"Startdate 03-NOV-{plus} X X X")

    found = samples_of(opened(written(tmp_path, made.data()), channel="1")).times_ns[0]

    assert found == np.datetime64(f"{year}-11-03T14:30:00", "ns").astype(np.int64)


def _odd_frames(folder: Path) -> Path:
    """Write frames of three samples of 12 bits, so that every second one begins in the middle of a byte."""
    (folder / "odd.dat").write_bytes(wfdb_digits("212", wave(303)))
    lines = "".join(f"odd.dat 212 200 12 0 0 {checksum(wave(303)[at::3])} 0 {at}\n" for at in range(3))
    return written(folder, f"odd 3 100 101\n{lines}".encode(), "odd.hea")


def test_a_file_is_read_in_parts_that_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        written(tmp_path, edf(times_s=["+0", "+5", "+6"], kind="EDF+D").data()),
        write_wfdb(tmp_path),
        _odd_frames(tmp_path),
        save_dicom(dicom(dicom_group(["II", "I"])), tmp_path / "rec.dcm"),
    ]
    whole = [samples_of(opened(path, channel="#2", start_ns=0)) for path in paths]
    for module, name, size in (
        (folder_reader, "ROWS_READ_TOGETHER", 37),
        (edf_reader, "_BYTES_READ_TOGETHER", 500),
        (files, "MOST_ROWS_IN_MEMORY", 10),
    ):
        monkeypatch.setattr(module, name, size)

    for path, before in zip(paths, whole, strict=True):
        found = samples_of(opened(path, channel="#2", start_ns=0))
        assert found.times_ns.tolist() == before.times_ns.tolist()
        np.testing.assert_array_equal(found.values_uv, before.values_uv)


# --- DICOM ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 13))
def test_each_lead_of_a_real_12_lead_ecg_is_read_as_pydicom_reads_it(number: int) -> None:
    found = samples_of(opened(real_dicom(), channel=str(number)))

    np.testing.assert_array_equal(found.values_uv, pydicom.dcmread(real_dicom()).waveform_array(0)[:, number - 1])
    assert found.times_ns.tolist() == times_by_definition(1_359_111_559 * NANOSECONDS, 1000, 10_000)


def test_the_zone_the_offset_of_the_group_and_the_skew_of_the_channel_move_its_start(tmp_path: Path) -> None:
    group = dicom_group(MultiplexGroupTimeOffset="1500.5")
    group.ChannelDefinitionSequence[1].ChannelSampleSkew = "2"
    group.ChannelDefinitionSequence[1].ChannelTimeSkew = "0.25"
    path = save_dicom(dicom(group, moment="20251103153000.25+0100"), tmp_path / "rec.dcm")

    found = samples_of(opened(path, channel="Lead II"))

    assert found.times_ns[:2].tolist() == [START_NS + 2_004_500_000, START_NS + 2_006_500_000]


@pytest.mark.parametrize("tag", [{}, {"TimezoneOffsetFromUTC": "-0230"}])
def test_a_zone_of_the_whole_file_counts_too(tag: dict[str, str], tmp_path: Path) -> None:
    path = save_dicom(dicom(dicom_group(MultiplexGroupTimeOffset=None), **tag), tmp_path / "rec.dcm")

    assert samples_of(opened(path, channel="1")).times_ns[0] == START_NS + 250_000_000 + (9000 * NANOSECONDS if tag else 0)


@pytest.mark.parametrize("moment", ["", "2025", "20251103", "202511031430", "20251131143000"])
def test_dicom_without_an_exact_start_needs_one(moment: str, tmp_path: Path) -> None:
    path = save_dicom(dicom(moment=moment), tmp_path / "rec.dcm")

    assert "set INPUT_START_TIME" in refusal(path, channel="1", start_ns=None)
    assert samples_of(opened(path, channel="1", start_ns=7)).times_ns[0] == 7


def test_padding_is_an_invalid_row(tmp_path: Path) -> None:
    digits = np.stack((wave(200), wave(200)), axis=1)
    digits[[5, 9], 0] = -32768
    path = save_dicom(dicom(dicom_group(digits=digits, WaveformPaddingValue=b"\x00\x80")), tmp_path / "rec.dcm")

    found = samples_of(opened(path, channel="1"))

    assert np.flatnonzero(np.isnan(found.values_uv)).tolist() == [5, 9]


def test_groups_are_told_apart_and_derived_ones_left_out(tmp_path: Path) -> None:
    groups = (
        dicom_group(("Lead I",), WaveformOriginality="DERIVED"),
        dicom_group(("Lead I", "Lead II"), "500"),
        dicom_group(("Lead I", "Lead III"), "250", MultiplexGroupTimeOffset="2000"),
    )
    path = save_dicom(dicom(*groups), tmp_path / "rec.dcm")

    assert "4 channels (1 Lead I, 2 Lead II, 3 Lead I, 4 Lead III); INPUT_CHANNEL fits 2 of them" in refusal(
        path, channel="Lead I"
    )
    found = samples_of(opened(path, channel="3"))
    assert found.times_ns[:2].tolist() == [START_NS + 2_250_000_000, START_NS + 2_254_000_000]
    np.testing.assert_array_equal(found.values_uv, pydicom.dcmread(path).waveform_array(2)[:, 0])


def test_a_calibration_is_applied_whole(tmp_path: Path) -> None:
    group = dicom_group()
    channel = group.ChannelDefinitionSequence[0]
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = "0.0025", "1.5", "0.5"
    channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    path = save_dicom(dicom(group), tmp_path / "rec.dcm")

    expected = pydicom.dcmread(path).waveform_array(0)[:, 0] * 1000
    np.testing.assert_allclose(samples_of(opened(path, channel="1")).values_uv, expected, rtol=1e-12)


# --- damaged --------------------------------------------------------------------------------------------------------------------

Damage = Callable[[Path], Path]


def of_edf(**changes: Any) -> Damage:
    return lambda folder: written(folder, edf(**changes).data(), "rec.bdf" if changes.get("bdf") else "rec.edf")


def of_signal(**changes: Any) -> Damage:
    return of_edf(signals=(replace(EdfSignal(wave(300), 100), **changes),))


def cut(make: Damage, share: float, ending: str = "") -> Damage:
    """Return a file of which only a part is left; `ending` names another file of the record."""

    def made(folder: Path) -> Path:
        path = make(folder)
        other = path.with_suffix(ending) if ending else path
        data = other.read_bytes()
        other.write_bytes(data[: int(len(data) * share)])
        return path

    return made


def longer(make: Damage, ending: str = "") -> Damage:
    def made(folder: Path) -> Path:
        path = make(folder)
        with (path.with_suffix(ending) if ending else path).open("ab") as file:
            file.write(bytes(1000))
        return path

    return made


DAMAGED_EDF: dict[str, Damage] = {
    **{f"cut to {share}": cut(of_edf(), share) for share in (0, 0.0001, 0.05, 0.3, 0.5, 0.9, 0.9999)},
    "BDF cut": cut(of_edf(bdf=True), 0.7),
    "EDF+ cut": cut(of_edf(times_s=["+0", "+1", "+2"]), 0.8),
    "longer than it says": longer(of_edf()),
    "digital range empty": of_signal(digital=("5", "5")),
    "digital range reversed": of_signal(digital=("100", "-100")),
    "digital range beyond 16 bits": of_signal(digital=("-32769", "32767")),
    "digital range no number": of_signal(digital=("Zaphodea", "1")),
    "digital range not whole": of_signal(digital=("-1.5", "1")),
    "physical range empty": of_signal(physical=("7", "7")),
    "physical range not finite": of_signal(physical=("nan", "inf")),
    "physical range with a comma": of_signal(physical=("-1,5", "1,5")),
    "unit unknown": of_signal(unit="mmHg"),
    "unit mega": of_signal(unit="MV"),
    "unit missing": of_signal(unit=""),
    "unit a name": of_signal(unit="Zaphodea"),
    "not closed": of_edf(records="-1"),
    "no records": of_edf(records="0"),
    "terabytes": of_edf(records="99999999"),
    "records no number": of_edf(records="Zaphodea"),
    "duration 0": of_edf(duration="0"),
    "duration below 0": of_edf(duration="-1"),
    "duration tiny": of_edf(duration="1e-6"),
    "duration no number": of_edf(duration="Quintess"),
    "duration huge": of_edf(duration="9e99"),
    "gaps without annotations": of_edf(kind="EDF+D"),
    "gaps where there are none": of_edf(times_s=["+0", "+1", "+7"]),
    "a record without a time": of_edf(times_s=["+0", "Zaphodea", "+2"]),
    "records that overlap": of_edf(times_s=["+0", "+0.5", "+2"], kind="EDF+D"),
    "records that go back": of_edf(times_s=["+9", "+5", "+2"], kind="EDF+D"),
    "times beyond all years": of_edf(times_s=["+0", "+1", "+999999999999999"], kind="EDF+D"),
    "other version": of_edf(changes={0: b"9"}),
    "non-ASCII number of signals": of_edf(changes={252: "²".encode("latin-1")}),
    "fewer signals than the header is long": of_edf(changes={252: b"2   "}),
    "more signals than the header is long": of_edf(changes={252: b"4   "}),
    "no signals": of_edf(changes={252: b"0   "}),
    "header length wrong": of_edf(changes={184: b"99999999"}),
    "no samples in a record": of_edf(changes={256 + 3 * 216: b"0       "}),
    "samples below 0": of_edf(changes={256 + 3 * 216: b"-100    "}),
    "samples huge": of_edf(changes={256 + 3 * 216: b"99999999"}),
    "samples no number": of_edf(changes={256 + 3 * 216: b"Zaphodea"}),
    "only annotations": of_edf(signals=(), times_s=[], records="1"),
    "another file": lambda folder: written(folder, b"timestamp,source_id,ecg\n2025-11-03T14:30:00Z,Zaphodea,1\n"),
    "zeros": lambda folder: written(folder, bytes(5000)),
}

GOOD_LINE = "{first}\n{second}\n"


def of_wfdb(header: str | None = None, kind: str = "212") -> Damage:
    return lambda folder: write_wfdb(folder, kind, header=header)


def without_dat(folder: Path) -> Path:
    path = write_wfdb(folder)
    path.with_suffix(".dat").unlink()
    return path


def with_a_flipped_bit(folder: Path) -> Path:
    path = write_wfdb(folder)
    data = bytearray(path.with_suffix(".dat").read_bytes())
    data[400] ^= 4
    path.with_suffix(".dat").write_bytes(data)
    return path


def pipe_for_dat(folder: Path) -> Path:
    import os

    path = without_dat(folder)
    os.mkfifo(path.with_suffix(".dat"))
    return path


def link_for_dat(folder: Path) -> Path:
    path = write_wfdb(folder)
    (folder / "elsewhere").mkdir()
    path.with_suffix(".dat").rename(folder / "elsewhere" / "rec.dat")
    path.with_suffix(".dat").symlink_to(folder / "elsewhere" / "rec.dat")
    return path


def a_file_above(folder: Path) -> Path:
    (folder / "outside.dat").write_bytes(bytes(1503))
    (folder / "in").mkdir()
    return write_wfdb(folder / "in", header="{name} 1 128 501\n../outside.dat 212x2 200 12 0\n")


def of_line(line: str, *, first: str = "{name} 1 128 501") -> Damage:
    return of_wfdb(f"{first}\n{line}\n")


DAMAGED_WFDB: dict[str, Damage] = {
    **{f"samples cut to {share}": cut(of_wfdb(), share, ".dat") for share in (0, 0.001, 0.3, 0.5, 0.9, 0.998)},
    **{f"header cut to {share}": cut(of_wfdb("{name} 2 128 501\n" + GOOD_LINE), share) for share in (0, 0.05, 0.2)},
    "format 16 cut": cut(of_wfdb(kind="16"), 0.8, ".dat"),
    "samples longer": longer(of_wfdb(), ".dat"),
    "no samples file": without_dat,
    "a pipe for samples": pipe_for_dat,
    "a link out of the folder": link_for_dat,
    "a bit flipped": with_a_flipped_bit,
    "checksum wrong": of_line("{name}.dat 212x2 200 12 0 0 7 0 MLII"),
    "checksum no number": of_line("{name}.dat 212x2 200 12 0 0 Zaphodea 0 MLII"),
    "out of the folder": of_line("../../etc/passwd 212 200 12 0"),
    "out of the folder from the root": of_line("/etc/passwd 212 200 12 0"),
    "out of the folder as on Windows": of_line("..\\..\\etc\\passwd 212 200 12 0"),
    "a file that is there, out of the folder": a_file_above,
    "the folder above": of_line(".. 212 200 12 0"),
    "standard input": of_line("- 212 200 12 0"),
    "an address": of_line("http://example.invalid/r.dat 212 200 12 0"),
    "format unknown": of_line("{name}.dat 999 200 12 0"),
    "format of differences": of_line("{name}.dat 8 200 12 0"),
    "format FLAC": of_line("{name}.dat 516 200 12 0"),
    "format no number": of_line("{name}.dat Zaphodea 200 12 0"),
    "two formats in a file": of_wfdb("{name} 2 128 501\n{name}.dat 212 200\n{name}.dat 16 200\n"),
    "skew as long as the record": of_line("{name}.dat 212x2:501 200 12 0"),
    "frames of no samples": of_line("{name}.dat 212x0 200 12 0"),
    "frames of too many": of_line("{name}.dat 212x999999999 200 12 0"),
    "gain 0": of_line("{name}.dat 212x2 0 12 0"),
    "gain missing": of_line("{name}.dat 212x2"),
    "gain below 0": of_line("{name}.dat 212x2 -200 12 0"),
    "gain no number": of_line("{name}.dat 212x2 Zaphodea 12 0"),
    "gain not finite": of_line("{name}.dat 212x2 inf 12 0"),
    "baseline no number": of_line("{name}.dat 212x2 200(Zaphodea)/mV 12 0"),
    "unit unknown": of_line("{name}.dat 212x2 200/mmHg 12 0"),
    "unit a name": of_line("{name}.dat 212x2 200/Zaphodea 12 0"),
    "frequency 0": of_wfdb("{name} 2 0 501\n" + GOOD_LINE),
    "frequency below 0": of_wfdb("{name} 2 -128 501\n" + GOOD_LINE),
    "frequency huge": of_wfdb("{name} 2 1e12 501\n" + GOOD_LINE),
    "frequency no number": of_wfdb("{name} 2 Zaphodea 501\n" + GOOD_LINE),
    "frequency missing": of_wfdb("{name} 2\n" + GOOD_LINE),
    "terabytes": of_wfdb("{name} 2 128 999999999999999\n" + GOOD_LINE),
    "samples below 0": of_wfdb("{name} 2 128 -501\n" + GOOD_LINE),
    "more signals than lines": of_wfdb("{name} 3 128 501\n" + GOOD_LINE),
    "fewer signals than lines": of_wfdb("{name} 1 128 501\n" + GOOD_LINE),
    "no signals": of_wfdb("{name} 0 128 501\n"),
    "signals no number": of_wfdb("{name} Zaphodea 128 501\n" + GOOD_LINE),
    "several segments": of_wfdb("{name}/2 2 128 501\nseg1 250\nseg2 251\n"),
    "start no date": of_wfdb("{name} 2 128 501 14:30:00 31/02/2025\n" + GOOD_LINE),
    "start a name": of_wfdb("{name} 2 128 501 Zaphodea Quintessa\n" + GOOD_LINE),
    "start beyond all years": of_wfdb("{name} 2 128 501 14:30:00 01/01/9999\n" + GOOD_LINE),
    "signal line of one word": of_wfdb("{name} 2 128 501\n{first}\nZaphodea\n"),
    "zero bytes": of_wfdb("{name} 2 128 501\0\n" + GOOD_LINE),
    "a huge header": of_wfdb("{name} 2 128 501\n" + GOOD_LINE + "# Zaphodea\n" * 100_000),
}


def of_dicom(change: Callable[[Any], object] = lambda data_set: None, **of_group: Any) -> Damage:
    def made(folder: Path) -> Path:
        data_set = dicom(dicom_group(**of_group))
        change(data_set)
        return save_dicom(data_set, folder / "rec.dcm")

    return made


def channel_of(data_set: Any) -> Any:
    return data_set.WaveformSequence[0].ChannelDefinitionSequence[0]


def with_bytes(old: bytes, new: bytes) -> Damage:
    """Return a file in which bytes are others of the same length."""
    assert len(old) == len(new)

    def made(folder: Path) -> Path:
        path = of_dicom()(folder)
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
        return path

    return made


def in_syntax(text: str) -> Callable[[Any], object]:
    return lambda data_set: setattr(data_set.file_meta, "TransferSyntaxUID", text)


DEFLATED = "1.2.840.10008.1.2.1.99"


def appended(path: Path, data: bytes) -> Path:
    """Return a file with more behind its end."""
    path.write_bytes(path.read_bytes() + data)
    return path


def inflating_to(content: bytes, folder: Path) -> Path:
    """Return a deflated file whose elements are replaced by anything."""
    path = of_dicom(in_syntax(DEFLATED))(folder)
    data = path.read_bytes()
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    group_2_bytes = int.from_bytes(data[140:144], "little")
    path.write_bytes(data[: 144 + group_2_bytes] + packer.compress(content) + packer.flush())
    return path


DAMAGED_DICOM: dict[str, Damage] = {
    **{f"cut to {share}": cut(of_dicom(), share) for share in (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 0.99, 0.9999)},
    **{
        f"real one cut to {share}": cut(lambda folder: Path(shutil.copy(real_dicom(), folder)), share)
        for share in (0.01, 0.1, 0.5, 0.8)
    },
    "no waveforms": of_dicom(lambda data_set: delattr(data_set, "WaveformSequence")),
    "an empty sequence": of_dicom(lambda data_set: setattr(data_set, "WaveformSequence", [])),
    "only derived": of_dicom(WaveformOriginality="DERIVED"),
    "no data": of_dicom(WaveformData=None),
    "less data": of_dicom(WaveformData=b"\0\0" * 700),
    "more data": of_dicom(WaveformData=b"\0\0" * 7000),
    "fewer channels": of_dicom(NumberOfWaveformChannels=1),
    "more channels": of_dicom(NumberOfWaveformChannels=3),
    "fewer channels and as much data": of_dicom(NumberOfWaveformChannels=1, WaveformData=b"\0\0" * 700),
    "no channels": of_dicom(NumberOfWaveformChannels=0),
    "no samples": of_dicom(NumberOfWaveformSamples=0),
    "terabytes": of_dicom(NumberOfWaveformSamples=4_000_000_000),
    "frequency 0": of_dicom(hertz="0"),
    "frequency below 0": of_dicom(hertz="-500"),
    "frequency huge": of_dicom(hertz="1e12"),
    "frequency missing": of_dicom(SamplingFrequency=None),
    "frequency no number": with_bytes(b"DS\x04\x00500 ", b"DS\x04\x00Zaph"),
    "bits unknown": of_dicom(WaveformBitsAllocated=12),
    "bits missing": with_bytes(b"\x00\x54\x04\x10US", b"\x00\x54\x05\x10US"),
    "samples of mu-law": of_dicom(WaveformBitsAllocated=8, WaveformSampleInterpretation="MB"),
    "sensitivity missing": of_dicom(lambda data_set: delattr(channel_of(data_set), "ChannelSensitivity")),
    "sensitivity 0": of_dicom(lambda data_set: setattr(channel_of(data_set), "ChannelSensitivity", "0")),
    "sensitivity below 0": of_dicom(lambda data_set: setattr(channel_of(data_set), "ChannelSensitivity", "-2.5")),
    "correction 0": of_dicom(lambda data_set: setattr(channel_of(data_set), "ChannelSensitivityCorrectionFactor", "0")),
    "unit missing": of_dicom(lambda data_set: delattr(channel_of(data_set), "ChannelSensitivityUnitsSequence")),
    "unit unknown": of_dicom(
        lambda data_set: setattr(channel_of(data_set).ChannelSensitivityUnitsSequence[0], "CodeValue", "mm[Hg]")
    ),
    "unit a name": of_dicom(
        lambda data_set: setattr(channel_of(data_set).ChannelSensitivityUnitsSequence[0], "CodeValue", "Zaphodea")
    ),
    "padding shorter than a sample": of_dicom(
        WaveformBitsAllocated=32, WaveformSampleInterpretation="SL", WaveformData=bytes(700 * 2 * 4), WaveformPaddingValue=b"\0\0"
    ),
    "deflated and cut": cut(of_dicom(in_syntax(DEFLATED)), 0.9),
    "deflated with more behind it": lambda folder: appended(of_dicom(in_syntax(DEFLATED))(folder), b"Zaphodea"),
    "deflated text": lambda folder: inflating_to(b"Zaphodea" * 50, folder),
    "big endian by its word": with_bytes(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
    "no transfer syntax": with_bytes(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"),
    "start beyond all years": of_dicom(lambda data_set: setattr(data_set, "AcquisitionDateTime", "99991103143000")),
    "another file": lambda folder: written(folder, b"Zaphodea" * 500, "rec.dcm"),
}

DAMAGED = [
    pytest.param(damage, id=f"{kind}: {name}")
    for kind, damages in (("EDF", DAMAGED_EDF), ("WFDB", DAMAGED_WFDB), ("DICOM", DAMAGED_DICOM))
    for name, damage in damages.items()
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_with_a_sentence_that_shows_no_header(
    damage: Damage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = damage(tmp_path)

    sentence = refusal(path, channel="1")

    assert sentence.startswith("INPUT_FILE ")
    assert sentence.count("INPUT_FILE") == 1 or "INPUT_CHANNEL" in sentence
    assert "".join(capfd.readouterr()) == ""


@settings(max_examples=150)
@given(st.sampled_from(["edf", "hea", "dcm"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
def test_whatever_stands_in_a_header_the_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, ending: str, at: int, text: bytes
) -> None:
    folder = tmp_path_factory.mktemp("fuzzed")
    path = {
        "edf": lambda: written(folder, edf(times_s=["+0", "+1", "+2"]).data()),
        "hea": lambda: write_wfdb(folder),
        "dcm": lambda: save_dicom(dicom(), folder / "rec.dcm"),
    }[ending]()
    data = bytearray(path.read_bytes())
    at %= min(len(data), 1300)
    data[at : at + len(text)] = text
    path.write_bytes(data)

    try:
        found = samples_of(opened(path, channel="1", start_ns=START_NS))
    except (SourceRefused, SourceDenied) as error:
        said = str(error)
    else:
        said = ""
        assert (np.diff(found.times_ns) > 0).all()
    assert not any(secret in said for secret in SECRETS)
    shutil.rmtree(folder)


# --- names that do not tell the format --------------------------------------------------------------------------------------------


def test_a_recording_is_known_by_how_it_begins_where_its_name_does_not_tell(tmp_path: Path) -> None:
    written(tmp_path, edf().data(), "night.rec")
    written(tmp_path, edf(bdf=True).data(), "run3")
    save_dicom(dicom(), tmp_path / "1.2.840.113619.2")
    save_dicom(dicom(), tmp_path / "DICOMDIR")
    written(tmp_path, b"0 of 12 leads lack a label: Zaphodea", "README")

    found = samples_of(opened(tmp_path, channel="1"))

    assert np.bincount(found.source_codes).tolist() == [700, 300, 300]
    for name, rows in (("night.rec", 300), ("run3", 300), ("1.2.840.113619.2", 700)):
        assert len(samples_of(opened(tmp_path / name, channel="1"))) == rows
    assert opener_of(str(tmp_path / "README"), RecordingSettings()) is None


def test_a_deflated_file_is_read_as_the_same_one_that_is_not(tmp_path: Path) -> None:
    plain = samples_of(opened(save_dicom(dicom(), tmp_path / "plain.dcm"), channel="2"))

    found = samples_of(opened(of_dicom(in_syntax(DEFLATED))(tmp_path), channel="2"))

    assert found.times_ns.tolist() == plain.times_ns.tolist()
    assert found.values_uv.tolist() == plain.values_uv.tolist()


def test_a_deflated_file_is_not_unpacked_beyond_what_is_parsed_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_reader, "_MOST_BYTES", 1 << 20)

    assert "unpacks to more than 1,048,576 bytes" in refusal(inflating_to(bytes((1 << 20) + 1), tmp_path))


# --- several files --------------------------------------------------------------------------------------------------------------


def clinic(folder: Path) -> Path:
    """Write one file of each format, with an ECG in lead II, and what else lies beside them."""
    folder = folder / "Quintessa Zaphodea"
    folder.mkdir()
    written(folder, edf().data(), "Zaphodea b.edf")
    write_wfdb(
        folder,
        header="{name} 1 128 501 14:30:00 03/11/2025\n{name}.dat 212x2 200 12 0 0 {sum} 0 II\n".replace(
            "{sum}", str(_sum_of_both())
        ),
        name="c",
    )
    save_dicom(dicom(), folder / "Zaphodea a.dcm")
    (folder / "c.atr").write_bytes(b"\0\0")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / ".hidden.edf").write_bytes(b"\0")
    (folder / "README.txt").write_text("Zaphodea")
    return folder


def _sum_of_both() -> int:
    digits = wave(501)
    return checksum([*digits, *(-digits // 2)])


def test_a_folder_of_recordings_is_one_data_set_with_a_source_for_each_in_the_order_of_names(tmp_path: Path) -> None:
    folder = clinic(tmp_path)

    source = opened(folder, channel="II")
    found = samples_of(source)

    assert found.source_ids == ("recording-1", "recording-2", "recording-3")
    assert np.bincount(found.source_codes).tolist() == [700, 300, 1002]  # "Zaphodea a.dcm", "Zaphodea b.edf", "c.hea"
    assert (np.diff(found.times_ns) >= 0).all()
    assert len(samples_of(opened(folder, channel="II", sources=("recording-2",)))) == 300
    assert opened(f"{folder}/*.edf", channel="II").extent() is not None


def test_sources_of_several_files_can_be_named_together_or_each(tmp_path: Path) -> None:
    folder = clinic(tmp_path)

    assert samples_of(opened(folder, channel="II", source_ids=("a", "b", "a"))).source_ids == ("a", "b")
    assert samples_of(opened(folder, channel="II", source_ids=("a",))).source_ids == ("a",)
    sentence = refusal(folder, channel="II", source_ids=("a", "b"))
    assert "INPUT_SOURCE_ID has 2 names, and INPUT_FILE 3 recordings" in sentence


def test_one_bad_file_refuses_all_by_its_number(tmp_path: Path) -> None:
    folder = clinic(tmp_path)
    cut(lambda _: folder / "Zaphodea b.edf", 0.5)(tmp_path)

    assert refusal(folder, channel="II").startswith("INPUT_FILE: file 2 of 3 (in the order of their names) is cut off: ")


def test_tables_beside_recordings_are_refused(tmp_path: Path) -> None:
    folder = clinic(tmp_path)
    (folder / "more.csv").write_text("timestamp,source_id,ecg\n")

    assert "names 3 recordings and 1 CSV or Parquet files" in refusal(folder, channel="II")


def test_a_data_set_is_known_by_its_files_contents_not_by_their_names_or_channels(tmp_path: Path) -> None:
    folder = clinic(tmp_path)
    known = opened(folder, channel="II").data_set

    (folder / "Zaphodea b.edf").rename(folder / "z.edf")
    assert opened(folder, channel="II", source_ids=("a",)).data_set == known
    write_wfdb(
        folder,
        name="d",
        start="14:30:00 03/11/2025",
        header="{name} 1 128 501{start}\n{name}.dat 212x2 200 12 0 0 0 0 II\n".replace(" 0 0 0 0", f" 0 0 {_sum_of_both()} 0"),
    )
    assert opened(folder, channel="II").data_set != known

    single = written(tmp_path, edf().data())
    assert opened(single, channel="1").data_set == opened(single, channel="2").data_set


def test_at_another_given_start_it_is_another_data_set(tmp_path: Path) -> None:
    # Else the same samples would be released a second time, in other windows.
    path = write_wfdb(tmp_path)

    first, again, other = (opened(path, channel="1", start_ns=start_ns).data_set for start_ns in (0, 0, 1))

    assert first == again != other
    path = write_wfdb(tmp_path, start="14:30:00 03/11/2025")
    assert opened(path, channel="1", start_ns=0).data_set == opened(path, channel="1").data_set


def test_a_given_start_that_is_not_needed_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path, edf().data())

    source = opened(path, channel="1", start_ns=0)

    assert source.remarks == ("INPUT_FILE: it says when it was recorded, so INPUT_START_TIME is not used for it",)
    assert source.extent() == (START_NS, START_NS + 2_990_000_001)


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", 10)
    path = written(tmp_path, edf().data())
    source = opened(path, channel="1")
    path.write_bytes(edf(time="14.31.00").data())

    with pytest.raises(SourceRefused, match="was written to while it was read"):
        samples_of(source)


def test_what_is_no_recording_is_left_to_other_readers(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in (
        tmp_path / "empty",
        tmp_path / "ecg.csv",
        tmp_path / "ecg.parquet",
        tmp_path / "nothing.edf",
        tmp_path / "*.edf",
    ):
        assert opener_of(str(name), RecordingSettings()) is None


@pytest.mark.parametrize(("library", "ending"), [("edfio", ".edf"), ("edfio", ".bdf"), ("pydicom", ".dcm")])
def test_a_missing_library_is_a_sentence_with_the_command_that_brings_it(
    library: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, edf().data(), f"rec{ending}")
    monkeypatch.setitem(sys.modules, library, None)

    sentence = refusal(path, channel="1")

    assert (
        sentence
        == f"INPUT_FILE needs the Python package {library}, which is not installed: pip install -r requirements-formats.txt"
    )


@pytest.mark.parametrize(("library", "function", "ending"), [("edfio", "read_edf", ".edf"), ("pydicom", "dcmread", ".dcm")])
def test_what_a_library_says_of_a_file_is_not_passed_on(
    library: str,
    function: str,
    ending: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def says(*_: object, **__: object) -> None:
        warnings.warn("Zaphodea", stacklevel=2)
        logging.getLogger("pydicom").error("Zaphodea")
        raise ValueError("Zaphodea")

    path = save_dicom(dicom(), tmp_path / "rec.dcm") if ending == ".dcm" else written(tmp_path, edf().data())
    monkeypatch.setattr(sys.modules.get(library) or __import__(library), function, says)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises(SourceRefused, match=r"\(ValueError\)") as caught:
            opened(path, channel="1")

    assert "Zaphodea" not in str(caught.value)
    assert not heard
    assert library != "pydicom" or not caplog.records


def test_wfdb_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("edfio", "pydicom", "wfdb"):
        monkeypatch.setitem(sys.modules, library, None)

    assert len(samples_of(opened(write_wfdb(tmp_path), channel="1", start_ns=0))) == 501

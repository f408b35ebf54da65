"""Whatever is run again, with whatever settings and whatever is left of its memory: no interval of time is released twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import MakeWard
from tests.faults.oracle import Holdings
from tests.faults.ward import FULL, STREAMING, Ward, moment, seconds_ago
from tests.integration.service_process import run_service

pytestmark = pytest.mark.influxdb

HALF = {"QUERY_END_TIME": "2025-11-03T14:30:10Z"}


def with_late_rows(ward: Ward, seconds: int = 20) -> None:
    """Add a row to every window: a second release of one has other rows."""
    start_ns = ward.recording.start_ns
    lines = "\n".join(f"ecg,source_id=late ecg=1.0 {start_ns + second * 10**9 + 7}" for second in range(seconds))
    ward.server.write_lines(ward.recording.bucket, lines.encode())


def assert_untouched(before: Holdings, after: Holdings) -> None:
    """Fail unless everything that was held before still is, as it was, and nothing of it twice."""
    assert before.points.items() <= after.points.items()
    assert before.payloads <= after.payloads
    lines = after.csv_lines()
    assert before.csv_lines() <= lines
    keys = [line.rpartition(b",")[0] for line in lines.elements()]
    assert len(keys) == len(set(keys)), "one row for each time and source"
    assert after.api_records().total() == len(after.points), "the API holds no row twice either"


CHANGES = ("K_VALUE=20", "BATCH_SIZE_SECONDS=7", "BATCH_SIZE_SECONDS=4", "DEVICE_FILTER=wearer-001", "RESIDUAL=drop")


@pytest.mark.parametrize("change", CHANGES if FULL else CHANGES[:2])
def test_a_second_run_over_more_time_with_other_settings_releases_only_what_is_new(make_ward: MakeWard, change: str) -> None:
    """Row 23: overlapping one-shot ranges; another window length, k, DEVICE_FILTER or residual."""
    ward = make_ward(seconds=20)
    assert ward.run(HALF)[0] == 0
    before = ward.holdings()
    with_late_rows(ward)

    code, log = ward.run(dict([change.split("=")]))

    assert code == 0, log
    assert "were released before (K=5 record, hierarchy" in log
    after = ward.holdings()
    assert_untouched(before, after)
    new = [key for key in after.points if key not in before.points]
    assert new
    assert min(new)[0] >= "2025-11-03T14:30:10", "nothing new in what was released"


def test_a_stream_and_a_one_shot_run_over_the_same_time_share_it_without_overlap(make_ward: MakeWard) -> None:
    """Row 23: streaming and one-shot on one state folder, one after the other."""
    ward = make_ward(seconds=20, start_ns=seconds_ago(30))
    expected = ward.undisturbed()
    middle = {name: moment(ward.recording.start_ns + offset * 10**9) for name, offset in (("from", 5), ("to", 12))}
    assert ward.run({"QUERY_START_TIME": middle["from"], "QUERY_END_TIME": middle["to"]})[0] == 0

    with ward.start(STREAMING) as service:
        ward.wait_until_delivered(service)
        assert service.stop() == 0

    assert ward.holdings() == expected


@pytest.fixture
def backed_up(make_ward: MakeWard, tmp_path: Path) -> tuple[Ward, Path]:
    """A ward that released all, and a backup of its state folder from when it had released half."""
    ward = make_ward(seconds=20)
    assert ward.run(HALF)[0] == 0
    backup = tmp_path / "backup"
    shutil.copytree(ward.state, backup)
    assert ward.run()[0] == 0
    with_late_rows(ward)
    return ward, backup


def test_a_journal_from_an_old_backup_is_refused_until_the_gap_is_accepted(backed_up: tuple[Ward, Path]) -> None:
    """Row 23: journal restored from an old backup, beside the fence of today."""
    ward, backup = backed_up
    before = ward.holdings()
    for path in ward.state.glob("journal.sqlite*"):
        path.unlink()
    for path in backup.glob("journal.sqlite*"):
        shutil.copy(path, ward.state)

    code, log = ward.run()
    assert (code, "is older than" in log, "accept-gap" in log) == (78, True, True), log
    assert ward.holdings() == before
    printed = ward.state_command("--state-dir", str(ward.state), "accept-gap")
    code, log = ward.run()

    assert "will not be released again" in printed
    assert (code, "an accepted gap" in log) == (0, True), log
    assert ward.holdings() == before


def readable(ward: Ward) -> None:
    """Let the service's token read what it writes, as with one token for everything."""
    both = [ward.recording.bucket, ward.released]
    ward.settings |= {"INFLUX_OUTPUT_TOKEN": ward.server.make_token(read=both, write=both)}


@pytest.mark.parametrize("lost", ["everything", "fence and journal are old"] if FULL else ["everything"])
def test_a_lost_state_folder_is_refused_while_the_output_bucket_is_full(backed_up: tuple[Ward, Path], lost: str) -> None:
    """Row 23: state folder deleted, or an old backup of all of it put back, while the output bucket holds more than it knows."""
    ward, backup = backed_up
    readable(ward)
    before = ward.holdings()
    shutil.rmtree(ward.state)
    if lost != "everything":
        shutil.copytree(backup, ward.state)

    code, log = ward.run()
    assert (code, "accept-gap" in log) == (78, True), log
    assert ward.holdings() == before
    with ward.start(STREAMING) as service:
        assert service.exit_code() == 78, "nor by a stream"
    ward.state_command("accept-gap")
    code, log = ward.run()

    assert code == 0, log
    assert ward.holdings() == before


def test_a_second_instance_on_the_same_state_is_turned_away(ward: Ward, tmp_path: Path) -> None:
    """Row 17: two instances on one state folder: the second exits 75 and names the first."""
    other = tmp_path / "other"
    other.mkdir()
    with ward.start(STREAMING) as first:
        first.wait_for("Connected to InfluxDB")
        code, log = run_service(other, {**ward.settings, "STATE_DIR": ward.state})

    assert (code, f"process {first.process.pid} already works on STATE_DIR" in log) == (75, True), log
    assert not (other / "csv").exists() or not list((other / "csv").glob("*.csv"))


def test_another_key_is_refused_until_it_is_accepted(make_ward: MakeWard) -> None:
    """Row 23: another pseudonym key: the same wearers would get other names."""
    ward = make_ward(seconds=20)
    assert ward.run(HALF)[0] == 0
    before = ward.holdings()
    changed = {"PSEUDONYM_SALT": "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a"}

    refused, log = ward.run(changed)
    assert (refused, "the pseudonym key changed" in log) == (78, True), log
    assert "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a" not in log
    assert ward.holdings() == before
    accepted, _ = ward.run({**changed, "ACCEPT_NEW_PSEUDONYM_KEY": "true"})

    assert accepted == 0
    after = ward.holdings()
    assert_untouched(before, after)
    assert len(after.points) == 20 * 192
    assert len({name for _, name in after.points}) == 12

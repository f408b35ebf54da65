"""What a person does about the service's memory, typed as commands against a real server: verify, accept a gap, offer again, give up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.clinic import START_NS, Clinic, api_rows, csv_rows, load_first_minute
from tests.integration.service_process import run_service, state
from tests.servers.api_server import ApiServer, Reply

pytestmark = pytest.mark.influxdb

#: Six wearers, 360 rows a second each, four windows of five seconds.
SPAN = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:20Z"}
ROWS = 6 * 360 * 20

#: Windows of two wearers go to an API in one request.
TWO = {"DEVICE_FILTER": "mitbih-100,mitbih-102"}
ROWS_OF_TWO = 2 * 360 * 20
WINDOW_OF_TWO = 2 * 360 * 5
FIRST_WINDOW = "2025-11-03 14:30:00 - 2025-11-03 14:30:05"


@pytest.fixture
def settings(clinic: Clinic, api_server: ApiServer) -> dict[str, object]:
    load_first_minute(clinic)
    return {
        **clinic.settings,
        **SPAN,
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": api_server.endpoint,
        "INFLUX_VERIFY_TOKEN": clinic.server.make_token(read=[clinic.raw, clinic.released]),
    }


@pytest.fixture
def released(settings: dict[str, object], tmp_path: Path) -> Path:
    """The folder of a run that is done, with its `.env`."""
    code, log = run_service(tmp_path, settings)
    assert code == 0, log
    return tmp_path


def delete(clinic: Clinic, bucket: str, measurement: str, start: str, stop: str) -> None:
    clinic.server.ask(
        "POST",
        "/api/v2/delete",
        params={"org": clinic.server.org, "bucket": bucket},
        json={"start": start, "stop": stop, "predicate": f'_measurement="{measurement}"'},
    )


def in_container(folder: Path, settings: dict[str, object], *arguments: str) -> tuple[int, str]:
    """Run a command where the environment has the settings and there is no `.env`."""
    (folder / ".env").rename(folder / "elsewhere")
    try:
        return state(
            folder, *arguments, environment={"CSV_OUTPUT_DIR": "csv"} | {name: str(text) for name, text in settings.items()}
        )
    finally:
        (folder / "elsewhere").rename(folder / ".env")


def test_verify_finds_that_journal_source_and_outputs_agree_where_it_is_asked_to_look_and_counts_late_rows(
    released: Path, settings: dict[str, object], clinic: Clinic
) -> None:
    code, said = state(released, "verify")
    assert in_container(released, settings, "verify")[0] == 0

    assert code == 0, said
    assert "4 released windows" in said
    assert f"read       {ROWS} = {ROWS} released + 0 withheld + 0 invalid + 0 duplicate" in said
    assert said.count(f"{ROWS} released = {ROWS} taken + 0 set aside + 0 pending; holds {ROWS}") == 2
    assert f"{ROWS} released = {ROWS} taken + 0 set aside + 0 pending; cannot be read back" in said
    assert "OK: journal, source and outputs agree." in said
    clinic.server.write_lines(clinic.raw, f"ecg,source_id=mitbih-100 ecg=7i {START_NS + 1}".encode())
    code, said = state(released, "verify")
    assert (code, "late       1 rows" in said) == (0, True), said
    code, said = state(released, "verify", "--start", "2025-11-03T14:30:05Z", "--end", "2025-11-03T14:30:15Z")
    assert (code, "2 released windows" in said, "late       1 rows" in said) == (0, True, False), said


def test_rows_that_the_server_counts_twice_are_no_disagreement(
    settings: dict[str, object], clinic: Clinic, tmp_path: Path
) -> None:
    # Older rows come after newer ones were put into files: InfluxDB up to 2.7.12 then counts some of the newer ones twice (26711).
    newer = {"QUERY_START_TIME": "2025-11-03T14:30:10Z", "QUERY_END_TIME": "2025-11-03T14:30:20Z"}
    older = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:10Z"}
    assert run_service(tmp_path, {**settings, **newer})[0] == 0
    clinic.server.put_away(clinic.released)
    assert run_service(tmp_path, {**settings, **older})[0] == 0

    code, said = state(tmp_path, "verify")

    assert code == 0, said
    assert said.count(f"{ROWS} released = {ROWS} taken + 0 set aside + 0 pending; holds {ROWS}") == 2


def test_verify_names_the_window_of_which_rows_are_gone_wherever_that_is(released: Path, clinic: Clinic) -> None:
    path = released / "csv" / "ecg_anonymized_20251103_143000.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    for bucket, measurement in (
        *((clinic.released, "ecg_anonymized"), (clinic.released, "ecg_anonymized_windows"), (clinic.raw, "ecg")),
    ):
        delete(clinic, bucket, measurement, "2025-11-03T14:30:00Z", "2025-11-03T14:30:00.999Z")

    code, said = state(released, "verify")

    assert code == 1, said
    disagreements = [line for line in said.splitlines() if line.startswith("DISAGREES")]
    missing = [
        "should hold 10800 rows and holds 8640",
        "holds no summary of this window",
        f"csv:{released / 'csv'} should hold 10800",
    ]
    missing += ["10800 rows were read, the source holds 8640 now"]
    assert len(disagreements) == len(missing), said
    for what in missing:
        (line,) = [line for line in disagreements if what in line]
        assert FIRST_WINDOW in line


def test_verify_finds_windows_that_another_state_released(released: Path, settings: dict[str, object]) -> None:
    shutil.rmtree(released / "state")
    shutil.rmtree(released / "csv")
    # With a token that can only write, it cannot be seen that these windows were released.
    run_service(
        released,
        {**settings, "INFLUX_VERIFY_TOKEN": "", "QUERY_START_TIME": "2025-11-03T14:30:10Z", "OUTPUT_TO_API": "false"},
    )
    (released / ".env").write_text(
        "".join(
            f"{name}={value}\n"
            for name, value in {**settings, "STATE_DIR": released / "state", "CSV_OUTPUT_DIR": released / "csv"}.items()
        )
    )
    (released / ".env").chmod(0o600)

    code, said = state(released, "verify")

    assert code == 1, said
    assert "2025-11-03 14:30:00 - 2025-11-03 14:30:10: bucket" in said


def test_a_lost_state_folder_releases_nothing_twice_and_accepting_the_gap_is_the_way_on(
    released: Path, settings: dict[str, object], clinic: Clinic
) -> None:
    before = clinic.stored()
    shutil.rmtree(released / "state")
    clinic.server.write_lines(clinic.raw, f"ecg,source_id=mitbih-100 ecg=7i {START_NS + 1}".encode())

    refused, log = run_service(released, settings)
    accepted, said = in_container(released, settings, "accept-gap")
    code, after_log = run_service(released, {**settings, "QUERY_END_TIME": "2025-11-03T14:30:30Z"})

    assert (refused, "STATE_DIR knows nothing of" in log, "accept-gap" in log) == (78, True, True), log
    assert (accepted, "2025-11-03 14:30:00 - 2025-11-03 14:30:20 will not be released again" in said) == (0, True), said
    assert (code, "4 windows of" in after_log, "an accepted gap" in after_log) == (0, True, True), after_log
    stored = clinic.stored()
    assert {key: stored[key] for key in before} == before
    assert len(stored) == ROWS * 30 // 20


def test_what_an_output_refused_is_offered_again_and_then_taken(
    settings: dict[str, object], tmp_path: Path, api_server: ApiServer
) -> None:
    settings = {**settings, **TWO}
    api_server.script(Reply(store=True), Reply(status=422))
    code, log = run_service(tmp_path, settings)
    shown = state(tmp_path, "show")[1]

    api_server.script(Reply(status=400))
    still, said_still = state(tmp_path, "retry-set-aside")
    taken, said = state(tmp_path, "retry-set-aside")
    nothing, said_nothing = state(tmp_path, "retry-set-aside")

    assert code == 65, log
    assert f"api:{api_server.endpoint}: {ROWS_OF_TWO - WINDOW_OF_TWO} rows taken, {WINDOW_OF_TWO} set aside, 0 pending" in shown
    assert (still, f"took 0 rows, {WINDOW_OF_TWO} still refused" in said_still) == (65, True), said_still
    assert (taken, f"took {WINDOW_OF_TWO} rows" in said, f"{WINDOW_OF_TWO} rows were taken, 0 are still set aside" in said) == (
        0,
        True,
        True,
    ), said
    assert (nothing, "0 rows were taken, 0 are still set aside" in said_nothing) == (0, True)
    assert api_rows(api_server.stored()) == csv_rows(tmp_path / "csv")
    assert list((tmp_path / "state" / "set_aside").iterdir()) == []
    assert state(tmp_path, "verify")[0] == 0


def test_released_rows_whose_spool_file_is_lost_are_given_up_by_a_person_and_nothing_else_is(
    settings: dict[str, object], tmp_path: Path, api_server: ApiServer, clinic: Clinic
) -> None:
    settings = {**settings, **TWO, "MAX_RECORDS_PER_QUERY": "1", "RETRY_BUDGET_SECONDS": "0"}
    api_server.script(Reply(store=True), Reply(status=503))
    run_service(tmp_path, settings)
    pending = sorted((tmp_path / "state" / "spool").iterdir())
    pending[0].write_bytes(b"damaged")

    refused, log = run_service(tmp_path, settings)
    asked, said_first = state(tmp_path, "give-up-lost")
    given_up, said = state(tmp_path, "give-up-lost", "--yes")
    code, after_log = run_service(tmp_path, settings)

    assert (refused, "give-up-lost" in log) == (78, True), log
    assert (asked, "Nothing was given up" in said_first, "again with --yes" in said_first) == (64, True, True), said_first
    assert [path.read_bytes() for path in (tmp_path / "state" / "given_up").iterdir()] == [b"damaged"]
    assert (given_up, f"{WINDOW_OF_TWO} released rows will not be delivered to the outputs that lack them" in said) == (
        0,
        True,
    ), said
    assert code == 0, after_log
    assert len(api_rows(api_server.stored())) == ROWS_OF_TWO - WINDOW_OF_TWO
    assert clinic.stored() == csv_rows(tmp_path / "csv")
    verified, report = state(tmp_path, "verify")
    assert (
        verified,
        f"{ROWS_OF_TWO} released = {ROWS_OF_TWO - WINDOW_OF_TWO} taken + {WINDOW_OF_TWO} set aside + 0 pending" in report,
    ) == (0, True), report


@pytest.mark.parametrize("command", ["verify", "retry-set-aside"])
def test_a_command_that_needs_the_configuration_says_what_is_wrong_with_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / ".env").write_text("K_VALUE=1\nINFLUX_QUERY_LANGUAGE=flux\n", encoding="utf-8")
    (tmp_path / ".env").chmod(0o600)

    code, said = state(tmp_path, command)

    assert code == 78
    assert "K_VALUE must be" in said
    assert "INFLUX_TOKEN is required" in said


@pytest.mark.parametrize("command", ["verify", "accept-gap"])
def test_a_source_that_can_never_be_read_is_a_matter_of_configuration_and_not_of_reach(
    command: str, settings: dict[str, object], clinic: Clinic, tmp_path: Path
) -> None:
    odd = f"{clinic.raw}-odd"
    clinic.server.make_bucket(odd, shard_group_s=5400)
    changes = {"INFLUX_INPUT_BUCKET": odd, "STATE_DIR": tmp_path / "state"}
    changes |= {"INFLUX_TOKEN": clinic.server.make_token(read=[odd]), "INFLUX_VERIFY_TOKEN": clinic.server.token}
    (tmp_path / "state").mkdir()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in {**settings, **changes}.items()))

    code, said = state(tmp_path, command)

    assert (code, "only whole hours can be read" in said) == (78, True), said

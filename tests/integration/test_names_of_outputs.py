"""One destination is one output, however a setting spells it, and a journal that knows it by an older spelling goes on with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from service import exit_codes
from service.state.journal import Journal
from service.state.set_aside import SetAside
from tests.integration.clinic import Clinic
from tests.integration.service_process import run_service, state
from tests.servers.api_server import ApiServer, Reply

ROWS = 20
FILE = "all_20251103.csv"


def window(number: int) -> dict[str, object]:
    """Return the settings for a run over one window."""
    start, end = (f"2025-11-03T14:30:{second:02d}Z" for second in (5 * number, 5 * number + 5))
    return {"QUERY_START_TIME": start, "QUERY_END_TIME": end}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """The settings of a service that reads a file of four windows and writes CSV files, in a folder of its own."""
    rows = (f"2025-11-03T14:30:{second:02d}.{index:06d}Z,a,{index % 2}\n" for second in (0, 5, 10, 15) for index in range(ROWS))
    (tmp_path / "raw.csv").write_text(f"timestamp,source_id,ecg\n{''.join(rows)}", encoding="utf-8")
    return {
        "INPUT_FILE": tmp_path / "raw.csv",
        "OUTPUT_TO_INFLUX": "false",
        "CSV_OUTPUT_DIR": "./output",
        "STATE_DIR": tmp_path / "state",
        "CSV_FILENAME_PATTERN": "all_%Y%m%d.csv",
        "RETRY_BUDGET_SECONDS": 0,
    }


def outputs(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(folder / "state" / "journal.sqlite")) as db:
        return [name for (name,) in db.execute("SELECT name FROM outputs ORDER BY name")]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def call_as_earlier_versions_did(folder: Path, old_names: dict[str, str]) -> None:
    """Let a state folder know outputs by the names that settings spelled, as earlier versions wrote it."""
    SetAside(folder / "state" / "set_aside").rename_outputs(old_names)
    journal = Journal(folder / "state", data_set=None)
    journal.outputs.rename_outputs(old_names)
    journal.close()


def test_a_folder_is_one_output_however_it_is_spelled_now_or_was_by_an_earlier_version(
    settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "output")
    elsewhere, name = tmp_path / "x", f"csv:{os.path.realpath(tmp_path)}/output"
    elsewhere.mkdir()
    spellings = [("./output", "", tmp_path), (f"{tmp_path}/output/", "csv:output", elsewhere), ("link", "csv:./output", tmp_path)]
    for number, (spelled, old, here) in enumerate([*spellings, ("x/../output", "csv:{folder}/./output/", tmp_path)]):
        if old:
            call_as_earlier_versions_did(tmp_path, {name: old.format(folder=tmp_path)})

        code, log = run_service(here, {**settings, **window(number), "CSV_OUTPUT_DIR": spelled})

        assert code == 0, log
        assert not old or f"is called {name} from now on" in log
        assert outputs(tmp_path) == [name]
    assert files(tmp_path / "output") == [FILE], "no file was taken for another program's"
    assert len((tmp_path / "output" / FILE).read_text().splitlines()) == 1 + 4 * ROWS


def test_a_folder_that_is_moved_together_with_the_state_is_the_same_output_and_dropped_by_any_spelling(
    settings: dict[str, object], tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    settings |= {"STATE_DIR": "./state", "CSV_OUTPUT_DIR": "./output"}
    assert run_service(there, {**settings, **window(0)})[0] == 0
    there.rename(here)

    code, log = run_service(here, {**settings, **window(1)})

    assert code == 0, log
    assert outputs(here) == [f"csv:{here}/output"]
    assert files(here / "output") == [FILE]
    assert len((here / "output" / FILE).read_text().splitlines()) == 1 + 2 * ROWS
    assert state(here, "drop-output", "csv:other")[0] == exit_codes.USAGE
    code, said = state(here, "drop-output", "csv:./output/")
    assert (code, f"Output csv:{here}/output was forgotten" in said) == (exit_codes.DONE, True), said
    assert outputs(here) == []


def test_an_api_that_is_spelled_otherwise_keeps_what_waits_for_it_and_what_it_refused(
    settings: dict[str, object], api_server: ApiServer, tmp_path: Path
) -> None:
    endpoint = api_server.endpoint.replace("127.0.0.1", "localhost")
    settings |= {"OUTPUT_TO_API": "true", "API_ENDPOINT": endpoint}
    api_server.script(Reply(status=422))
    assert run_service(tmp_path, {**settings, **window(0)})[0] == exit_codes.SET_ASIDE
    api_server.script(*[Reply(status=503)] * 9)
    assert run_service(tmp_path, {**settings, **window(1)})[0] == exit_codes.UNREACHABLE
    api_server.reset()
    call_as_earlier_versions_did(tmp_path, {f"api:{endpoint}": f"api:{endpoint.replace('localhost', 'LocalHost')}/"})
    shouted = endpoint.replace("localhost", "LOCALHOST") + "/"

    code, log = run_service(tmp_path, {**settings, **window(2), "API_ENDPOINT": shouted})
    offered, said = state(tmp_path, "retry-set-aside")

    assert code == exit_codes.DONE, log
    assert outputs(tmp_path) == [f"api:{endpoint}", f"csv:{tmp_path}/output"]
    assert (offered, f"api:{endpoint} took {ROWS} rows" in said) == (exit_codes.DONE, True), said
    assert sorted(one["window_start"][:19] for one in api_server.stored()) == [
        f"2025-11-03T14:30:{s}" for s in ("00", "05", "10")
    ]
    assert not list((tmp_path / "state" / "set_aside").iterdir())


@pytest.mark.influxdb
def test_a_bucket_is_one_output_however_its_server_is_spelled(clinic: Clinic, tmp_path: Path) -> None:
    clinic.fill(ROWS, seconds=(0, 5))
    port, names = clinic.server.port, []
    for number, url in enumerate((f"http://LOCALHOST:{port}/", f"http://localhost:{port}")):
        code, log = run_service(
            tmp_path, {**clinic.settings, **window(number), "INFLUX_OUTPUT_URL": url, "OUTPUT_TO_CSV": "false"}
        )
        assert code == 0, log
        names += outputs(tmp_path)

    assert set(names) == {f"influxdb:http://localhost:{port}/{clinic.released}"}
    assert len(clinic.stored()) == 2 * ROWS

"""Attack 8: the pseudonym key changes unnoticed, so that one wearer is counted as two and links are lost, or made, by mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonymizer.pseudonyms import Pseudonymizer
from tests.attacks.recording import IDS, KEY, PSEUDONYMS, released_in, run, write_recording
from tests.integration.clinic import Clinic, load_first_minute
from tests.integration.service_process import run_service

OTHER_KEY = KEY[::-1]


def test_rows_alone_do_not_tell_that_the_key_changed() -> None:
    # Two wearers under one key look like two others under another: 64 hexadecimal digits each, nothing to tell them by.
    first, second = (set(Pseudonymizer(key.encode()).released_ids(IDS)) for key in (KEY, OTHER_KEY))

    assert not first & second
    assert {len(pseudonym) for pseudonym in first | second} == {64}


def test_another_key_gives_other_pseudonyms_and_another_key_id(tmp_path: Path) -> None:
    seen: list[set[str]] = []
    for key in (KEY, OTHER_KEY):
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        write_recording(folder / "recording.csv")
        code, _ = run(folder, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=key)
        assert code == 0
        seen.append({row[1] for row in released_in(folder)})

    assert len(seen[0]) == len(seen[1]) == 2
    assert not seen[0] & seen[1]
    assert Pseudonymizer(KEY.encode()).key_id != Pseudonymizer(OTHER_KEY.encode()).key_id


def test_a_changed_key_is_refused_until_it_is_confirmed(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    run(tmp_path, **PSEUDONYMS)
    changed = {**PSEUDONYMS, "PSEUDONYM_SALT": OTHER_KEY}

    code, log = run(tmp_path, **changed)
    assert code == 78
    assert "ACCEPT_NEW_PSEUDONYM_KEY=true" in log
    assert OTHER_KEY not in log

    code, _ = run(tmp_path, **changed, ACCEPT_NEW_PSEUDONYM_KEY="true")
    assert code == 0


@pytest.mark.influxdb
def test_after_a_rotation_every_window_says_under_which_key_its_pseudonyms_were_made(clinic: Clinic, tmp_path: Path) -> None:
    load_first_minute(clinic)
    halves = [
        {"QUERY_START_TIME": f"2025-11-03T14:30:{start}Z", "QUERY_END_TIME": end}
        for start, end in (("00", "2025-11-03T14:30:30Z"), ("30", "2025-11-03T14:31:00Z"))
    ]
    keys = [KEY, OTHER_KEY]
    # As PRIVACY.md has it: the new key in the same place, confirmed for one run.
    for half, key, confirmed in zip(halves, keys, ("false", "true"), strict=True):
        settings = {**clinic.settings, **half, "PSEUDONYM_SALT": key, "ACCEPT_NEW_PSEUDONYM_KEY": confirmed}
        code, log = run_service(tmp_path, settings)
        assert code == 0, log

    flux = (
        f"from(bucket: {json.dumps(clinic.released)}) |> range(start: 0) "
        '|> filter(fn: (r) => r._measurement == "ecg_anonymized_windows" and r._field == "key_id")'
    )
    said = [row["_value"] for row in sorted(clinic.server.rows(flux), key=lambda row: row["_time"])]
    assert said == [Pseudonymizer(key.encode()).key_id for key in keys for _ in range(6)]
    first, second = (
        {name for (time, name) in clinic.stored() if (time[11:19] >= "14:30:30") == later} for later in (False, True)
    )
    assert len(first) == len(second) == 6
    assert not first & second

"""A batch id names its data set, for all to see: it must not let anybody check a guess of what the file holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.attacks.recording import LONE_UV, PSEUDONYMS, run, write_recording
from tests.servers.api_server import ApiServer

#: What stands for the lone value while the attacker tries: every hundredth of a microvolt around where it must lie.
GUESSES = [round(2000 + number / 100, 2) for number in range(10_000)]


@pytest.mark.parametrize("settings", [PSEUDONYMS, {}], ids=["pseudonyms", "ids as they are"])
def test_a_reader_who_knows_a_file_but_for_one_value_cannot_find_it_by_the_batch_id(
    tmp_path: Path, api_server: ApiServer, settings: dict[str, str]
) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path, **settings, OUTPUT_TO_API="true", API_ENDPOINT=api_server.endpoint)[0] == 0
    said = api_server.stored()[0]["batch_id"].split("-")[0]
    known = (tmp_path / "recording.csv").read_text(encoding="utf-8")

    naive = _digest(known)
    found = {name: _values_that_fit(known, label) for name, label in (("naive", naive), ("ours", said))}

    assert found == {"naive": [LONE_UV[2]], "ours": []}


def test_the_same_file_has_the_same_name_wherever_it_is_released_under_one_key(tmp_path: Path, api_server: ApiServer) -> None:
    names = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_recording(folder / "recording.csv")
        run(folder, **PSEUDONYMS, OUTPUT_TO_API="true", API_ENDPOINT=api_server.endpoint)
        names.append(api_server.stored()[0]["batch_id"])
        api_server.reset()

    assert names[0] == names[1]


def _values_that_fit(known: str, label: str) -> list[float]:
    return [guess for guess in GUESSES if _digest(known.replace(str(LONE_UV[2]), str(guess))) == label]


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:12]

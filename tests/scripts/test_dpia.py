"""The draft of an impact assessment: what settings mean is said, what only the site knows is asked, and nothing private is in it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.attacks.recording import IDS, KEY, PSEUDONYMS, write_recording
from tests.documentation.pages import PRIVACY, ROOT, text_of
from tests.integration.service_process import Service, run_script

TOKEN = "a-token-of-the-assessment"
STREAM = {
    "INFLUX_URL": "http://influx.hospital.invalid:8086",
    "INFLUX_TOKEN": TOKEN,
    "INFLUX_ORG": "ward",
    "STREAMING_MODE": "true",
    "DEVICE_FILTER": ",".join(IDS),
    "COHORT_TAG": "ward",
    "COHORT": "3|x",
}

#: What an officer looks for.
PROVISIONS = (
    *("Art. 4(5)", "Art. 9", "Art. 17", "Art. 35", "EDPB Guidelines 01/2025"),
    *("Safe Harbor is not met", "Expert Determination"),
)


def drafted(folder: Path, settings: dict[str, object], *arguments: str) -> tuple[int, str, str]:
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    (folder / ".env").chmod(0o600)
    done = run_script("scripts/dpia.py", *arguments, folder=folder)
    path = folder / "dpia.md"
    return done.returncode, done.stdout, path.read_text(encoding="utf-8") if path.exists() else ""


def test_the_draft_of_an_assessment_says_what_these_settings_mean_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "advice.txt").write_text(
        f"CONFIDENTIAL\nSample: {IDS[0]}\n\nRecognition: three attackers\n  raw  12 of 12\n", encoding="utf-8"
    )
    of_ids, of_pseudonyms, of_rhythm = (
        drafted(tmp_path, {**STREAM, **changes}, *arguments)
        for changes, arguments in (
            ({}, ()),
            (
                {**PSEUDONYMS, "PSEUDONYM_PURPOSE": "registry-a", "K_UNIT": "source", "AUDIT_LOG": "audit"},
                ("--linkage", "advice.txt"),
            ),
            (
                {
                    **PSEUDONYMS,
                    "METHOD": "rhythm",
                    "PSEUDONYM_SALT": "changeme-changeme-2025",
                    "INFLUX_OUTPUT_URL": "https://out.invalid",
                },
                (),
            ),
        )
    )
    for code, said, text in (of_ids, of_pseudonyms, of_rhythm):
        assert code == 0, said
        assert f"with {text.count('[…]')} places to fill in" in said
        # Every row of a table has as many cells as the row above.
        for above, row in zip(text.splitlines(), text.splitlines()[1:], strict=False):
            assert not (above.startswith("|") and row.startswith("|")) or cells(above) == cells(row), row
        for private in (TOKEN, KEY, "changeme", *IDS):
            assert private not in text
        for provision in PROVISIONS:
            assert provision in text
        assert "the cohort ward=3\\|x, 2 sources named by DEVICE_FILTER" in text
        assert "**InfluxDB is reached without encryption** (http://influx.hospital.invalid:8086)" in text

    assert "as they are: the output is identified personal data" in of_ids[2]
    assert "**No**: ids are released as they are" in of_ids[2]
    assert "There is none: `PSEUDONYMIZE_SOURCE_ID=false`" in of_ids[2]
    assert "what keeps them apart" not in of_ids[2]
    assert "who holds the pseudonym key" not in of_ids[2]
    assert "weak separation" in of_pseudonyms[2]
    assert "One token reads raw data and writes the output" in of_pseudonyms[2]
    assert "5 different sources of its window" in of_pseudonyms[2]
    assert "Pseudonyms are for registry-a alone" in of_pseudonyms[2]
    assert "Recognition: three attackers\n  raw  12 of 12\n```" in of_pseudonyms[2]
    assert "no k is promised" in of_rhythm[2]
    assert "No measured value leaves; beat times do" in of_rhythm[2]
    assert "may leave as it was measured" not in of_rhythm[2]
    assert "**The key is weak**: it is made of common words" in of_rhythm[2]
    assert "weak separation" not in of_rhythm[2]


def test_every_figure_of_the_draft_stands_on_the_privacy_page() -> None:
    template = (ROOT / "operations" / "dpia_template.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d[\d.,]* %", template)

    assert len(figures) > 10
    assert [figure for figure in figures if figure not in text_of(PRIVACY)] == []


def cells(row: str) -> int:
    return row.replace("\\|", "").count("|")


def test_the_draft_counts_what_was_released_and_mistakes_are_sentences(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    given = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "STATE_DIR": tmp_path / "state", **PSEUDONYMS}
    with Service(tmp_path, given) as service:
        assert service.exit_code() == 0, service.log

    code, said, text = drafted(tmp_path, given)
    assert code == 0, said
    assert "1 window between 2025-11-03T14:30:00Z and 2025-11-03T14:30:05Z: 103 rows read" in text
    assert str(tmp_path / "recording.csv") not in text

    assert drafted(tmp_path, given, "--linkage", "no.txt")[:2] == (
        78,
        "❌ --linkage no.txt cannot be read (No such file or directory)\n",
    )
    (tmp_path / "empty.txt").touch()
    assert "is it what scripts/advise.py printed?" in drafted(tmp_path, given, "--linkage", "empty.txt")[1]
    assert drafted(tmp_path, given, "--to", "no/such/folder.md")[0] == 64
    assert "K_VALUE must be" in drafted(tmp_path, {**given, "K_VALUE": 1})[1]

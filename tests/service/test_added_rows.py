"""A file that grew keeps the name its windows were released under, and only free windows count as new."""

from __future__ import annotations

from pathlib import Path

from inputs.files import FileSource
from service.settings.declared import Settings
from service.settings.load import load
from service.state.journal import Journal
from service.wiring import data_set_label, make_source

FIRST = "timestamp,source_id,ecg\n2025-11-03T14:30:00Z,w,1\n"


def opened(path: Path) -> tuple[Settings, FileSource]:
    settings = load(path.parent / ".env", {"INPUT_FILE": str(path), "OUTPUT_TO_INFLUX": "false"}).settings
    source = make_source(settings)
    source.open()
    assert isinstance(source, FileSource)
    return settings, source


def label_of(path: Path) -> tuple[str, str]:
    """Return what a file is called in batch ids, and its digest."""
    settings, source = opened(path)
    journal = Journal(
        path.parent / "state", data_set=source.data_set, has_grown_from=lambda known: source.added_since(known) is not None
    )
    try:
        return data_set_label(settings, source, journal), source.data_set
    finally:
        journal.close()


def test_a_file_that_grew_keeps_its_name_in_batch_ids(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(FIRST, encoding="utf-8")
    before, digest = label_of(path)

    with path.open("a", encoding="utf-8") as file:
        file.write("2025-11-03T14:30:10Z,w,2\n")

    after, other_digest = label_of(path)
    assert (after, other_digest != digest) == (before, True)
    assert label_of(path)[0] == before, "and keeps it"


def test_the_times_of_added_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(FIRST, encoding="utf-8")
    digest = opened(path)[1].data_set
    with path.open("a", encoding="utf-8") as file:
        file.write("2025-11-03T14:30:10Z,w,2\noops,w,2\n2025-11-03T14:29:00Z,w,2\n2025-11-03T14:31:00Z,w,2\n")

    added = opened(path)[1].added_since(digest)

    assert added is not None
    assert sorted((added // 10**9 - 1_762_180_200).tolist()) == [-60, 10, 60]
    assert opened(path)[1].added_since("0" * 12) is None

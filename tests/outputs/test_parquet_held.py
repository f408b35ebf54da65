"""What Parquet files tell of releases: of one data set, in a span, without reading what names already rule out."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonymizer.errors import SourceRefused
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from operations.erasure.parquet_place import ParquetPlace
from operations.erasure.rows import Person, ReleasedWindows, Rule
from outputs.parquet_files import ParquetFiles
from outputs.parquet_held import HeldParquet
from outputs.parquet_places import Folder
from outputs.parquet_removal import OldParquet
from service.state.journal import Journal
from tests.outputs.batches import LENGTH_S, START_S, usual_batch

LABEL = "0123456789ab"
S = NANOSECONDS


class Counting(Folder):
    """Counts what is asked."""

    reads = 0
    listings = 0

    def read(self, path: str) -> bytes | None:
        self.reads += 1
        return super().read(path)

    def paths(self, folder: str, *, after: str = "", before: str = "") -> list[str]:
        self.listings += 1
        return super().paths(folder, after=after, before=before)


def window(number: int) -> Window:
    start_ns = (START_S + number * LENGTH_S) * S
    return Window(start_ns, start_ns + LENGTH_S * S)


@pytest.fixture
def place(tmp_path: Path) -> Counting:
    """Two chunks, the first with a gap, an hour apart; and another data set's windows between them."""
    made = Counting(tmp_path)
    for label, chunks in (("", ((0, 2), (720,))), ("another", ((300, 301),))):
        output = ParquetFiles(made, "hour", label=label)
        output.open({})
        for chunk in chunks:
            output.write_chunk([usual_batch(window=number) for number in chunk])
    return made


def test_the_windows_of_one_data_set_are_told_and_gaps_are_none_of_them(place: Counting) -> None:
    everything = Window(0, 2**63 - 2)

    assert HeldParquet(place, [LABEL]).released([LABEL], everything) == [window(0), window(2), window(720)]
    assert HeldParquet(place, ["another"]).released(["another"], everything) == [window(300), window(301)]
    assert HeldParquet(place, ["nobody"]).released(["nobody"], everything) == []
    assert HeldParquet(place, [LABEL]).rows_released(everything) == dict.fromkeys((window(n).start_ns for n in (0, 2, 720)), 6)


def test_only_what_reaches_into_a_span_is_read_and_listed_once(place: Counting) -> None:
    held = HeldParquet(place, [LABEL])

    assert held.released([LABEL], Window(window(2).start_ns + 1, window(3).end_ns)) == [window(2)]
    assert held.released([LABEL], Window(window(3).start_ns, window(700).end_ns)) == []
    assert held.released([LABEL], Window(window(720).end_ns, 2**63 - 2)) == []

    assert (place.reads, place.listings) == (1, 1)


def test_rows_are_counted_window_by_window(place: Counting) -> None:
    windows = WindowRange(window(0).start_ns, window(4).end_ns, LENGTH_S * S)

    assert HeldParquet(place, [LABEL]).rows_in(windows).tolist() == [6, 0, 6, 0, 0]
    assert HeldParquet(place, ["another"]).rows_in(windows).tolist() == [0, 0, 0, 0, 0]


def test_files_of_a_former_state_dir_are_found_and_erased_from_by_the_first_part_of_their_label_and_never_removed_for_their_age(
    tmp_path: Path,
) -> None:
    """Without pseudonyms a label is `<place>_<journal>`: another journal's has the same first part."""
    place, everything = Folder(tmp_path / "parquet"), Window(0, 2**63 - 2)
    for number, label in enumerate(("place_former", "place_ours", "placebo_ours", "other_former")):
        output = ParquetFiles(place, "hour", label=label)
        output.open({})
        output.write_chunk([usual_batch(window=number)])
    (folder,) = (tmp_path / "parquet" / "rows").glob("*/*")
    (folder / "place_former-²-5.parquet").write_bytes(b"a copy that a person named")
    labels, windows = ("place_ours", "place"), WindowRange(window(0).start_ns, window(4).end_ns, LENGTH_S * S)
    held, old = HeldParquet(place, labels), OldParquet(place, labels)
    first, second = window(0), window(1)

    assert (
        held.released(["place_ours", "place"], everything)
        == HeldParquet(place, ()).released(labels, everything)
        == [first, second]
    )
    assert held.rows_released(everything) == {first.start_ns: 6, second.start_ns: 6}
    assert held.rows_in(windows).tolist() == [6, 6, 0, 0, 0]
    assert [one.label for one in old.files(everything.end_ns)[0]] == ["place_ours"]
    assert old.files(everything.end_ns)[1] == 4

    journal = Journal(tmp_path / "state", data_set="any")
    erasure = ParquetPlace(place, labels, held.name, journal)
    rule = Rule(Person(frozenset({usual_batch().source_ids[0]})), ReleasedWindows([]), strict=False)
    outside = [cut.outside for cut in erasure.erase(rule, is_dry=True)]
    assert (len(outside), min(outside) > 0, erasure.other_data_sets()) == (2, True, 3)
    journal.close()


def test_a_damaged_summary_is_no_sign_that_nothing_was_released(place: Counting, tmp_path: Path) -> None:
    min(tmp_path.glob("windows/**/*.parquet")).write_bytes(b"PAR1 and so on")

    with pytest.raises(SourceRefused, match=r"windows/date=2025-11-03.* cannot be read as Parquet of ours"):
        HeldParquet(place, [LABEL]).released([LABEL], Window(0, 2**63 - 2))

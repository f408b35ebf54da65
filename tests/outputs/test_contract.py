"""Every output keeps the contract of `anonymizer/ports.py`, and outputs that are broken on purpose do not."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import outputs
from anonymizer.batch import Batch
from anonymizer.errors import OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.committed_file import Committed
from outputs.csv_files import CsvFiles
from outputs.csv_lines import encode
from tests.outputs.batches import Row
from tests.outputs.contract import CONTRACT, Promise
from tests.outputs.destinations import (
    SECRET,
    Destination,
    Files,
    InfluxDb,
    Memory,
    ParquetBucket,
    ParquetFolder,
    api,
    csv_files,
    csv_rows,
)

EVERY_DESTINATION = (
    "memory",
    "csv, a file for each window",
    "csv, a file for each minute",
    "csv, a file for each day",
    "csv, one file",
    "parquet, a folder for each hour",
    "parquet, a folder for each day",
    pytest.param("parquet, a bucket", marks=pytest.mark.s3),
    "api",
    pytest.param("influxdb", marks=pytest.mark.influxdb),
)

#: Modules that are no outputs, but parts of some.
NOT_AN_OUTPUT = {
    *("encoding", "influx_lines", "influx_refusals", "api_parts", "committed_file", "csv_lines", "csv_names"),
    *(
        "csv_held",
        "influx_claims",
        "placed_texts",
        "parquet_claims",
        "parquet_encoding",
        "parquet_held",
        "parquet_places",
        "parquet_removal",
    ),
}


@pytest.fixture
def destination(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Destination]:
    # A match, not a table: servers are started only for those who need them.
    made: Destination
    match request.param:
        case "memory":
            made = Memory()
        case "csv, a file for each window":
            made = csv_files(tmp_path, "ecg_%Y%m%d_%H%M%S.csv")
        case "csv, a file for each minute":
            made = csv_files(tmp_path, "%Y%m%d_%H%M.csv")
        case "csv, a file for each day":
            made = csv_files(tmp_path, "%Y%m%d.csv")
        case "csv, one file":
            made = csv_files(tmp_path, "ecg.csv")
        case "parquet, a folder for each hour" | "parquet, a folder for each day":
            made = ParquetFolder(tmp_path, "day" if "day" in request.param else "hour")
        case "parquet, a bucket":
            made = ParquetBucket(request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket"), tmp_path)
        case "api":
            made = api(request.getfixturevalue("api_server"), monkeypatch)
        case "influxdb":
            made = InfluxDb(request.getfixturevalue("output_bucket"))
        case unknown:
            raise AssertionError(unknown)
    yield made
    made.done()


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("destination", EVERY_DESTINATION, indirect=True)
def test_an_output_promises_that(destination: Destination, promise: Promise) -> None:
    promise(destination)


@pytest.mark.parametrize("module", sorted({name for _, name, _ in pkgutil.iter_modules(outputs.__path__)} - NOT_AN_OUTPUT))
def test_an_output_says_in_one_sentence_how_it_delivers(module: str) -> None:
    documentation = importlib.import_module(f"outputs.{module}").__doc__ or ""

    sentences = [line for line in documentation.splitlines() if line.startswith("Delivery: ")]

    assert len(sentences) == 1


class ReportsSuccess(CsvFiles):
    """Logs what goes wrong and reports success, as a well-known agent's file output does."""

    def write(self, batch: Batch) -> Receipt:
        try:
            return super().write(batch)
        except OutputError as error:
            print(f"could not write: {error}")
            return {}


class AppendsTwice(CsvFiles):
    """Never finds out that it has a batch already."""

    def write(self, batch: Batch) -> Receipt:
        self._recent = {}
        return super().write(batch)


class ForgetsReceipts(CsvFiles):
    """Believes the file instead of the receipt, and so keeps what a crash left behind."""

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        super().open(receipts)
        self._known = {
            name: replace(known, committed=Committed((self._folder / name).stat().st_size)) for name, known in self._known.items()
        }


class BeginsAgain(CsvFiles):
    """Starts every file anew."""

    def write(self, batch: Batch) -> Receipt:
        (self._folder / self._file_name(batch)).unlink(missing_ok=True)
        return super().write(batch)


class RaisesWhatItGets(CsvFiles):
    """Lets the operating system's own exceptions out."""

    def _unavailable(self, error: OSError) -> OutputUnavailable:
        raise error


class NeverForgets(CsvFiles):
    """Remembers something of every window for ever."""

    def write(self, batch: Batch) -> Receipt:
        super().write(batch)
        return {"key": batch.batch_id, "length": 0, "covered_ns": 0}


class BeginsWhenAsked(CsvFiles):
    """Writes before what it is about to do can be on record."""

    def intent(self, batch: Batch) -> Receipt | None:
        with (self._folder / self._file_name(batch)).open("ab") as file:
            file.write(encode(batch))
        return super().intent(batch)


class RemembersAnObject(CsvFiles):
    """Would remember what cannot be stored."""

    def intent(self, batch: Batch) -> Receipt | None:
        intent = super().intent(batch)
        return intent and {**intent, "window": batch.window}


class SaysTooMuch(CsvFiles):
    """Is helpful with samples."""

    def write(self, batch: Batch) -> Receipt:
        try:
            return super().write(batch)
        except OutputUnavailable:
            raise OutputUnavailable(f"cannot write the row of {batch.source_ids[0]}") from None


class ShowsItsToken(CsvFiles):
    """Has its token in its address."""

    def __init__(self, folder: Path, pattern: str) -> None:
        super().__init__(folder, pattern)
        self.name = f"csv:{folder}?token={SECRET}"


class GivesUp(CsvFiles):
    """Takes a full disk for a batch that will never be accepted."""

    def _unavailable(self, error: OSError) -> OutputUnavailable:
        raise OutputError("this will never do")


BROKEN = {
    ReportsSuccess: "a_failed_write_is_an_output_error",
    AppendsTwice: "a_batch_offered_again_is_stored_once",
    ForgetsReceipts: "batches_stored_just_before_a_crash_are_stored_once",
    BeginsAgain: "windows_may_come_in_any_order",
    RaisesWhatItGets: "a_failed_write_is_an_output_error",
    NeverForgets: "what_must_be_remembered_does_not_grow_with_the_windows",
    BeginsWhenAsked: "asking_what_to_put_on_record_changes_nothing",
    RemembersAnObject: "what_must_be_remembered_is_put_on_record_as_json",
    SaysTooMuch: "what_an_error_says_holds_neither_token_nor_source",
    ShowsItsToken: "it_can_be_described_without_a_secret",
    GivesUp: "a_failed_write_is_an_output_error",
}


@pytest.mark.parametrize(("broken", "promise"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", value))
def test_an_output_that_is_broken_breaks_the_contract(broken: type[CsvFiles], promise: str, tmp_path: Path) -> None:
    (checked,) = [candidate for candidate in CONTRACT if candidate.__name__ == promise]
    destination = Files(tmp_path, lambda folder: broken(folder, "%Y%m.csv"), csv_rows, "*.csv")

    with pytest.raises(AssertionError):
        checked(destination)


CARELESS: dict[str, Callable[[Row], Row]] = {
    "time": lambda row: row._replace(time_ns=row.time_ns // 1000 * 1000),
    "source": lambda row: row._replace(source_id=row.source_id.strip()),
    "value": lambda row: row._replace(value_uv=round(row.value_uv, 3)),
}


@pytest.mark.parametrize("change", CARELESS.values(), ids=CARELESS)
def test_a_row_that_changes_on_its_way_breaks_the_contract(change: Callable[[Row], Row], tmp_path: Path) -> None:
    def careless(path: Path) -> list[Row]:
        return [change(row) for row in csv_rows(path)]

    broken = {promise.__name__ for promise in CONTRACT if not _holds(promise, tmp_path / promise.__name__, careless)}

    assert broken == {"every_row_arrives_as_it_was_sent"}


def _holds(promise: Promise, folder: Path, read: Callable[[Path], list[Row]]) -> bool:
    folder.mkdir()
    try:
        promise(Files(folder, lambda path: CsvFiles(path, "%Y%m%d.csv"), read, "*.csv"))
    except AssertionError:
        return False
    return True

"""Where outputs under test write to, as seen from outside: read by other means than ours, and able to fail on request.

To add an output, add its destination here: the whole contract is tested on it (`contract.py`).
"""

from __future__ import annotations

import contextlib
import csv
import enum
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import duckdb
import pytest

from anonymizer.batch import Batch
from anonymizer.errors import OutputError, OutputUnavailable
from anonymizer.ports import Output, Receipt
from outputs import api_parts
from outputs.csv_files import CsvFiles
from outputs.http_api import ApiTarget, HttpApi
from outputs.influxdb import InfluxOutput, InfluxTarget
from outputs.memory import MemoryOutput
from outputs.parquet_encoding import Partition
from outputs.parquet_files import ParquetFiles
from outputs.parquet_places import Bucket as StoredBucket
from outputs.parquet_places import Folder
from testbed.s3_server import S3Server
from tests.conftest import Bucket
from tests.outputs.batches import Row, time_ns_of
from tests.servers.api_server import ApiServer, Reply
from transport.influx_connection import Address, InfluxConnection, InfluxFault
from transport.object_store import ObjectStore, StoreAccess, StoreFault

#: In place of a token; no message, name or log line may hold it.
SECRET = "s3cret-token-0123456789"

#: Few enough that a small batch needs several requests.
ROWS_PER_REQUEST = 4


class Fault(enum.Enum):
    """How a write can go wrong."""

    REFUSED = "nothing is stored"
    BROKEN_OFF = "a part is stored"
    UNANSWERED = "all of it is stored, but the output does not learn that"


class Destination(Protocol):
    """What the contract needs to know of one."""

    #: What must not appear anywhere: a token, if the destination has one.
    secret: str

    #: Whether what is stored outlives the output object.
    outlives: bool

    def output(self, fault: Fault | None = None) -> Output:
        """Return an output that writes here, not yet open; as another process would have it. With a fault, its first write goes wrong."""

    def refusing(self) -> Output | None:
        """Return an output of which the first write is refused in part, for good; None when the destination takes whatever has room.

        The others find that whatever was refused is fixed.
        """

    def rows(self) -> list[Row]:
        """Return every row a reader finds, those stored twice twice, sorted."""

    def done(self) -> None:
        """Close whatever the outputs that were made still hold open."""


#: What is wrong with the world during a write to a target.
World = Callable[[str], contextlib.AbstractContextManager[object]]


class FirstWriteFails:
    """An output during whose first write the world is not as it should be."""

    def __init__(self, output: Output, world: World) -> None:
        self._output = output
        self._world: World | None = world
        self.kind = output.kind
        self.name = output.name
        self.concurrency = output.concurrency

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        self._output.open(receipts)

    def target(self, batch: Batch) -> str:
        return self._output.target(batch)

    def intent(self, batch: Batch) -> Receipt | None:
        return self._output.intent(batch)

    def write(self, batch: Batch) -> Receipt | None:
        world, self._world = self._world, None
        with world(self.target(batch)) if world else contextlib.nullcontext():
            return self._output.write(batch)

    def close(self) -> None:
        self._output.close()


class Memory:
    """A list of this process."""

    secret = SECRET
    outlives = False

    def __init__(self) -> None:
        self._output = MemoryOutput()

    def output(self, fault: Fault | None = None) -> Output:
        failures: tuple[OutputError, ...] = () if fault is None else (OutputUnavailable("not now"),)
        self._output = MemoryOutput(failures)
        return self._output

    def refusing(self) -> Output | None:
        return None

    def done(self) -> None:
        """Nothing is held open."""

    def rows(self) -> list[Row]:
        batches = self._output.batches.values()
        return sorted(
            Row(int(time_ns), batch.source_ids[index], float(value))
            for batch in batches
            for time_ns, index, value in zip(batch.times_ns, batch.source_index, batch.values_uv, strict=True)
        )


class Files:
    """A folder.

    Args:
        make: Returns an output that writes there.
        read: Returns the rows of one file of it.
        pattern: Which of its files a reader takes for ours.
    """

    secret = SECRET
    outlives = True

    def __init__(self, folder: Path, make: Callable[[Path], Output], read: Callable[[Path], list[Row]], pattern: str) -> None:
        self._folder = folder
        self._make = make
        self._read = read
        self._pattern = pattern

    def output(self, fault: Fault | None = None) -> Output:
        output = self._make(self._folder)
        if fault is None:
            return output
        # Room for nothing more, or for a row or two and half of the next.
        worlds: dict[Fault, World] = {
            Fault.REFUSED: lambda target: full_disk(self._growing(target), spare_bytes=0),
            Fault.BROKEN_OFF: lambda target: full_disk(self._growing(target), spare_bytes=120),
            Fault.UNANSWERED: lambda target: lost_sync(),
        }
        return FirstWriteFails(output, worlds[fault])

    def refusing(self) -> Output | None:
        return None

    def rows(self) -> list[Row]:
        return sorted(row for path in self._folder.glob(self._pattern) for row in self._read(path))

    def _growing(self, target: str) -> Path:
        """Return the file that a write makes longer."""
        return Path(target)

    def done(self) -> None:
        """Nothing is held open."""


class ParquetFolder(Files):
    """A folder of Parquet files, none of which ever grows."""

    def __init__(self, folder: Path, partition: Partition) -> None:
        super().__init__(folder, lambda path: ParquetFiles(Folder(path), partition), parquet_rows, "rows/**/*.parquet")

    def _growing(self, target: str) -> Path:
        return self._folder / "none"


class ParquetBucket:
    """A bucket of the real S3 server.

    Args:
        server: The server.
        bucket: The bucket's name.
        folder: For what is looked at.
    """

    outlives = True

    def __init__(self, server: S3Server, bucket: str, folder: Path) -> None:
        self._server = server
        self._bucket = bucket
        self._folder = folder
        self.secret = server.secret_key

    def output(self, fault: Fault | None = None) -> Output:
        store = FailingStore(self._bucket, StoreAccess.of(self._server.variables()))
        output = ParquetFiles(StoredBucket(lambda: store, name=f"{self._server.url}/{self._bucket}", prefix="a/b"), "hour")
        return output if fault is None else FirstWriteFails(output, lambda target: store.failing(fault))

    def refusing(self) -> Output | None:
        return None

    def rows(self) -> list[Row]:
        objects = self._server.objects(self._bucket)
        found = []
        for number, key in enumerate(key for key in objects if key.startswith("a/b/rows/")):
            path = self._folder / f"{number}.parquet"
            path.write_bytes(objects[key])
            found += parquet_rows(path)
        return sorted(found)

    def done(self) -> None:
        """Nothing is held open."""


class FailingStore(ObjectStore):
    """A client that can be told to fail."""

    _failing: Fault | None = None

    def put_new(self, key: str, content: bytes) -> bool:
        if self._failing is Fault.REFUSED or (self._failing is Fault.BROKEN_OFF and "/windows/" in key):
            raise StoreFault(f"{self.name} cannot be reached")
        was_new = super().put_new(key, content)
        if self._failing is Fault.UNANSWERED and "/windows/" in key:
            raise StoreFault(f"{self.name} broke off its answer")
        return was_new

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        self._failing = fault
        try:
            yield
        finally:
            self._failing = None


class InfluxDb:
    """A bucket of the real server."""

    outlives = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._made: list[Output] = []
        self.secret = bucket.write_token

    def output(self, fault: Fault | None = None) -> Output:
        address = Address(url=self._bucket.server.url, org=self._bucket.server.org)
        target = InfluxTarget(
            bucket=self._bucket.name,
            measurement="ecg",
            field="ecg",
            source_tag="source_id",
            lines_per_write=ROWS_PER_REQUEST,
        )
        connection = FailingConnection(address, lambda: self.secret)
        output = InfluxOutput(connection, target)
        self._made.append(output)
        return output if fault is None else FirstWriteFails(output, lambda target: connection.failing(fault))

    def refusing(self) -> Output | None:
        output = self.output()
        assert isinstance(output, InfluxOutput)
        connection = output._connection
        assert isinstance(connection, FailingConnection)
        return FirstWriteFails(output, lambda target: connection.refusing(b"source_id=source-1"))

    def rows(self) -> list[Row]:
        question = (
            f'from(bucket: "{self._bucket.name}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg_anonymized")'
        )
        found = self._bucket.reader().rows(question)
        return sorted(Row(time_ns_of(row["_time"]), row["source_id"], float(row["_value"])) for row in found)

    def done(self) -> None:
        for output in self._made:
            output.close()


class FailingConnection(InfluxConnection):
    """A connection that can be told to fail."""

    _fault: Fault | None = None
    _refused: bytes | None = None
    _requests = 0

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        text = bytes(lines)
        if self._refused is not None and self._refused in text:
            raise InfluxFault(f"400 unable to parse '{text.decode()}'", status=400)
        self._requests += 1
        if self._fault is Fault.REFUSED or (self._fault is Fault.BROKEN_OFF and self._requests == 2):
            raise InfluxFault("connection refused or host unreachable")
        super().write(bucket, lines)
        if self._fault is Fault.UNANSWERED and b"_windows" in text:
            raise InfluxFault("no answer in time")

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        self._fault, self._requests = fault, 0
        try:
            yield
        finally:
            self._fault = None

    @contextlib.contextmanager
    def refusing(self, what: bytes) -> Iterator[None]:
        self._refused = what
        try:
            yield
        finally:
            self._refused = None


class Api:
    """The HTTP API of the tests."""

    secret = SECRET
    outlives = True

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._made: list[Output] = []

    def output(self, fault: Fault | None = None) -> Output:
        replies = {
            None: [],
            Fault.REFUSED: [Reply(status=503, body=SECRET)],
            Fault.BROKEN_OFF: [Reply(status=201, store=True), Reply(status=500, body=SECRET)],
            Fault.UNANSWERED: [Reply(drop=True, store=True)],
        }
        self._server.script(*replies[fault])
        self._made.append(HttpApi(ApiTarget(endpoint=self._server.endpoint), lambda: SECRET))
        return self._made[-1]

    def refusing(self) -> Output | None:
        output = self.output()
        self._server.script(Reply(status=201, store=True), Reply(status=400, body="patient-7"))
        return output

    def rows(self) -> list[Row]:
        return sorted(
            Row(time_ns_of(record["timestamp"]), record["source_id"], record["ecg"])
            for payload in self._server.stored()
            for record in payload["records"]
        )

    def done(self) -> None:
        for output in self._made:
            output.close()


def csv_files(folder: Path, pattern: str) -> Destination:
    return Files(folder, lambda path: CsvFiles(path, pattern), csv_rows, "*.csv")


def api(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Destination:
    monkeypatch.setattr(api_parts, "MOST_ROWS_PER_PART", ROWS_PER_REQUEST)
    return Api(server)


def csv_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file as Python's own module reads them; a file that holds half a line is no CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header == ["timestamp", "source_id", "ecg"]
    assert path.read_bytes().endswith(b"\n")
    return [Row(time_ns_of(time), source_id, float(value)) for time, source_id, value in rows]


def parquet_rows(path: Path) -> list[Row]:
    """Return the rows of a Parquet file as DuckDB reads them."""
    rows = duckdb.execute("SELECT epoch_ns(timestamp), source_id, ecg FROM read_parquet(?, hive_partitioning=false)", [str(path)])
    return [Row(*row) for row in rows.fetchall()]


@contextlib.contextmanager
def full_disk(path: Path, *, spare_bytes: int) -> Iterator[None]:
    """Let no file grow beyond the size of this one by more than so much: a part of what is written arrives, as on a full disk."""
    resource = pytest.importorskip("resource", reason="only POSIX can limit how large a file may grow")
    size = path.stat().st_size if path.exists() else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + spare_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def lost_sync() -> Iterator[None]:
    """Let what is written arrive, but say at the end that it may not have."""
    with pytest.MonkeyPatch.context() as patched:

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        patched.setattr(os, "fsync", fail)
        yield

"""Parquet files of a run that was killed, refused, slowed down or without room are those of a run that nothing disturbed."""

from __future__ import annotations

import io
import itertools
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service import crash_points, exit_codes
from testbed.s3_server import S3Server, start_s3_server
from tests.faults.ward import FULL, KILLED, wait_until
from tests.inputs.recording_files import edf
from tests.integration.service_process import KEY, Service, run_service, state
from tests.servers.tcp_proxy import Direction, Hang, Pass, Reset, TcpProxy
from tests.small_disks import mounted, remount

#: Where the rows lie in time: over a full hour.
START_S = 1_762_181_900  # 2025-11-03T14:58:20Z

SECONDS = 240 if not FULL else 1200

#: A wearer who is alone in some windows, which are withheld with K_UNIT=source.
ALONE = "withheld-wearer"

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three wearers at 4 Hz, and one who is alone for a while."""
    path = tmp_path_factory.mktemp("recording") / "raw.csv"
    chance = random.Random(20251103)
    rows = ["timestamp,source_id,ecg"]
    for quarter in range(4 * SECONDS):
        second, rest = divmod(quarter, 4)
        sources = (ALONE,) if second // 5 % 8 == 3 else ("a", "b", "c")
        rows += [f"{(START_S + second) * 1000 + rest * 250},{source},{chance.randrange(-300, 300)}" for source in sources]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


class Place:
    """Where a test's service writes to: a folder or a bucket."""

    def __init__(self, folder: Path, server: S3Server | None = None) -> None:
        self.folder = folder
        self.server = server
        self.bucket = folder.name.replace("_", "-").lower()
        if server:
            server.make_bucket(self.bucket)

    @property
    def settings(self) -> dict[str, object]:
        if self.server is None:
            return {"PARQUET_URL": self.folder / "parquet"}
        return {"PARQUET_URL": f"s3://{self.bucket}/a/b", **self.server.variables()}

    def files(self) -> Files:
        """Return every file that a reader sees."""
        if self.server:
            return {key.removeprefix("a/b/"): content for key, content in self.server.objects(self.bucket).items()}
        found = (path.relative_to(self.folder / "parquet") for path in (self.folder / "parquet").rglob("*.parquet"))
        return {str(path): (self.folder / "parquet" / path).read_bytes() for path in found if not path.name.startswith(".")}


def settings_for(recording: Path, place: Place, **changes: object) -> dict[str, object]:
    return {
        "INPUT_FILE": recording,
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_CSV": "false",
        "OUTPUT_TO_PARQUET": "true",
        "K_UNIT": "source",
        "K_VALUE": "2",
        # About two windows a chunk.
        "MAX_RECORDS_PER_QUERY": "480",
        "VERBOSE_LOGGING": "false",
        **place.settings,
        **changes,
    }


@pytest.fixture(scope="module")
def undisturbed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What a run writes that nothing disturbs."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    code, log = run_service(place.folder, settings_for(recording, place))
    assert code == 0, log
    files = place.files()
    assert len(files) > 2 * len(crash_points.ALL), "a chunk for each life"
    assert {path.partition("/hour=")[2][:2] for path in files} == {"14", "15"}
    assert not any(ALONE.encode() in content for content in files.values())
    # Nothing is lost, nothing doubled: as many rows as were released, each once.
    tables = [pq.read_table(io.BytesIO(content)) for path, content in files.items() if path.startswith("rows/")]
    rows = Counter(row for table in tables for row in zip(*(column.to_pylist() for column in table.columns[:2]), strict=True))
    assert set(rows.values()) == {1}
    assert f"{rows.total()} released" in log
    return files


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = tmp_path / f"place-{time.monotonic_ns()}"
    folder.mkdir()
    return Place(folder, request.getfixturevalue("s3_server") if request.param == "bucket" else None)


def test_a_run_killed_at_every_step_leaves_the_names_and_bytes_of_one_that_was_not(
    place: Place, recording: Path, undisturbed: Files
) -> None:
    """Row 1, life after life: the files of a chunk whose record was lost are recognised, whatever chunk that was."""
    settings = settings_for(recording, place)
    hits = itertools.cycle((1, 2)) if FULL else itertools.repeat(1)
    for point in crash_points.ALL:
        code, log = run_service(place.folder, settings, environment={crash_points.VARIABLE: f"{point}:{next(hits)}"})
        assert code == KILLED, (point, log)
        assert undisturbed.items() >= place.files().items(), point

    code, log = run_service(place.folder, settings)

    assert code == 0, log
    assert place.files() == undisturbed
    code, said = state(place.folder, "verify")
    assert (code, "OK: journal, source and outputs agree." in said) == (0, True), said


def test_a_run_killed_at_random_leaves_the_names_and_bytes_of_one_that_was_not(
    place: Place, recording: Path, undisturbed: Files
) -> None:
    """Row 2: in the middle of a write, of an answer, of anything."""
    settings, chance, kills = settings_for(recording, place), random.Random(7), 0
    for _ in range(60 if FULL else 5):
        with Service(place.folder, settings) as service:
            wait_until(lambda: service.log.count("📤") > 0 or service.process.poll() is not None, "a write", service=None)
            with suppress(Exception):
                service.process.wait(chance.uniform(0, 0.15))
            kills += service.process.poll() is None

    code, log = run_service(place.folder, settings)

    assert code == 0, log
    assert kills, "it was killed at least once"
    assert place.files() == undisturbed


@pytest.mark.s3
def test_a_store_that_is_down_slow_or_cut_is_waited_for(
    tmp_path: Path, recording: Path, undisturbed: Files, s3_server: S3Server
) -> None:
    """Rows 9, 13, 14: nothing is lost and nothing doubled by answers that are lost, or come too late."""
    place = Place(tmp_path, s3_server)
    with TcpProxy(s3_server.port) as proxy:
        through = settings_for(
            recording, place, AWS_ENDPOINT_URL=proxy.url, PARQUET_TIMEOUT_SECONDS="1", RETRY_BUDGET_SECONDS="60"
        )
        proxy.answers.become(Hang(10))
        with Service(tmp_path, through) as service:
            _wait_for(proxy.answers, service)
            # Each fault is there before the one before it is lifted, so that the next attempt meets it.
            for direction, fault, other in (
                (proxy.requests, Reset(300), proxy.answers),
                (proxy.answers, Reset(10), proxy.requests),
                (proxy.requests, Hang(500), proxy.answers),
            ):
                direction.become(fault)
                other.become(Pass())
                _wait_for(direction, service)
            proxy.refuse()
            proxy.cut()
            time.sleep(1)
            proxy.pass_all()
            proxy.listen()
            code = service.exit_code()
            log = service.log

    assert code == 0, log
    assert place.files() == undisturbed


def _wait_for(direction: Direction, service: Service) -> None:
    before = direction.fired
    wait_until(lambda: direction.fired > before, "a fault", service=service)


@pytest.mark.s3
def test_keys_that_are_wrong_and_buckets_that_are_not_there_end_a_run_with_a_sentence(
    tmp_path: Path, recording: Path, s3_server: S3Server
) -> None:
    """Row 11: exit 78 before anything is read, and no key in any line."""
    place = Place(tmp_path, s3_server)
    wrong: tuple[tuple[dict[str, object], str], ...] = (
        ({"AWS_SECRET_ACCESS_KEY": "s3cret" * 5}, "403"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "XAdminUserNotFound"),
        ({"PARQUET_URL": "s3://no-such-bucket/a"}, "NoSuchBucket"),
        ({"AWS_REGION": "eu-west-3"}, "AWS_REGION"),
    )
    for changes, expected in wrong:
        code, log = run_service(tmp_path, settings_for(recording, place, **changes))
        assert (code, expected in log, "❌" in log) == (exit_codes.CONFIGURATION, True, True), log
        assert "Traceback" not in log
        shown = [text for text in ("s3cret", "AKIANOBODY", s3_server.secret_key, s3_server.access_key) if text in log]
        assert not shown, log
        check_code, said = run_service(tmp_path, settings_for(recording, place, **changes), "--check", "--connect")
        assert (check_code, expected in said) == (exit_codes.CONFIGURATION, True), said
    assert place.files() == {}
    with start_s3_server(program=Path(s3_server.origin), is_read_only=True) as server:
        code, log = run_service(tmp_path, settings_for(recording, Place(tmp_path, server)))
    assert (code, "the right to store objects" in log, "📦" in log) == (exit_codes.CONFIGURATION, True, False), log


@pytest.mark.s3
def test_a_bucket_that_vanishes_is_waited_for_by_a_stream_and_keys_are_read_again(
    tmp_path: Path, recording: Path, s3_server: S3Server
) -> None:
    """Rows 11, 13: what was released waits in the spool, and is delivered once the cause is fixed."""
    with start_s3_server(program=Path(s3_server.origin)) as server:
        place = Place(tmp_path, server)
        secret = tmp_path / "secret"
        secret.write_text("wrong", encoding="utf-8")
        secret.chmod(0o600)
        changes = settings_for(recording, place, AWS_SECRET_ACCESS_KEY="", AWS_SECRET_ACCESS_KEY_FILE=secret)
        code, log = run_service(tmp_path, changes)
        assert code == exit_codes.CONFIGURATION, log
        secret.write_text(server.secret_key, encoding="utf-8")

        # Killed with chunks that wait, a server without the bucket, then the bucket again.
        point = f"{crash_points.AFTER_RELEASED}:3"
        assert run_service(tmp_path, changes, environment={crash_points.VARIABLE: point})[0] == KILLED
        kept = server.objects(place.bucket)
        server.remove_bucket(place.bucket)
        code, log = run_service(tmp_path, changes)
        assert (code, "NoSuchBucket" in log) == (exit_codes.CONFIGURATION, True), log
        server.make_bucket(place.bucket)
        for key, content in kept.items():
            server.put(place.bucket, key, content)
        code, log = run_service(tmp_path, changes)

        assert code == 0, log
        said = state(tmp_path, "verify")[1]
        assert "OK: journal, source and outputs agree." in said, said


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system as Linux does")
def test_a_full_disk_is_waited_for_and_leaves_no_half_file(tmp_path: Path, recording: Path, undisturbed: Files) -> None:
    """Row 15."""
    place = Place(tmp_path)
    folder = tmp_path / "parquet"
    folder.mkdir()
    with mounted(folder, "size=100k"):
        with Service(tmp_path, settings_for(recording, place, RETRY_BUDGET_SECONDS="60")) as service:
            service.wait_for("PARQUET_URL")
            wait_until(lambda: "No space left" in service.log, "a full disk", service=service)
            assert undisturbed.items() >= place.files().items()
            remount(folder, "size=20m")
            assert service.exit_code() == 0, service.log
        assert place.files() == undisturbed


def test_a_file_with_other_rows_is_never_replaced_and_ends_the_run(tmp_path: Path, recording: Path, undisturbed: Files) -> None:
    place = Place(tmp_path)
    name, next_name, *_ = sorted(undisturbed)
    other = undisturbed[next_name]
    planted = tmp_path / "parquet" / name
    planted.parent.mkdir(parents=True)
    planted.write_bytes(other)

    code, log = run_service(tmp_path, settings_for(recording, place))

    assert (code, "never replaced" in log) == (exit_codes.CONFIGURATION, True), log
    assert planted.read_bytes() == other
    planted.unlink()
    code, log = run_service(tmp_path, settings_for(recording, place))
    assert code == 0, log
    assert place.files() == undisturbed


def test_windows_that_a_lost_state_folder_released_are_released_by_no_other(
    place: Place, recording: Path, undisturbed: Files
) -> None:
    """Row 23: without pseudonyms, of a single file; the files themselves remember."""
    settings = settings_for(recording, place)
    assert run_service(place.folder, settings)[0] == 0
    shutil.rmtree(place.folder / "state")

    code, log = run_service(place.folder, {**settings, "K_VALUE": "3"})
    assert (code, "PARQUET_URL holds summaries of windows of this data set" in log) == (exit_codes.CONFIGURATION, True), log
    code, said = state(place.folder, "accept-gap")
    assert (code, "PARQUET_URL holds" in said) == (0, True), said
    code, log = run_service(place.folder, {**settings, "K_VALUE": "3"})

    assert code == 0, log
    assert "0 released" in log
    assert place.files() == undisturbed


@pytest.mark.parametrize("pseudonyms", [False, True], ids=["ids as they are", "pseudonyms"])
def test_recordings_whose_state_folder_is_lost_are_released_by_no_other(tmp_path: Path, pseudonyms: bool) -> None:
    """Row 23: of a folder, and of a glob that names the same recordings."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.edf").write_bytes(edf().data())
    given = {"INPUT_CHANNEL": "#1", "K_UNIT": "record", "PSEUDONYMIZE_SOURCE_ID": pseudonyms, "PSEUDONYM_SALT": KEY}
    place = Place(tmp_path)
    code, log = run_service(tmp_path, settings_for(folder, place, **given))
    assert (code, "600 released" in log) == (0, True), log
    before = place.files()

    for source in (folder, folder / "*.edf"):
        shutil.rmtree(tmp_path / "state")
        code, log = run_service(tmp_path, settings_for(source, place, **given))
        assert (code, "holds summaries of windows of this data set" in log) == (exit_codes.CONFIGURATION, True), log
    code, said = state(tmp_path, "accept-gap")
    assert (code, "PARQUET_URL holds 1 more released intervals" in said) == (0, True), said
    code, log = run_service(tmp_path, settings_for(folder, place, **given))

    assert (code, "0 released" in log, place.files() == before) == (0, True, True), log
    code, said = state(tmp_path, "verify")
    assert (code, "OK: journal, source and outputs agree." in said) == (0, True), said


def test_verify_finds_rows_and_summaries_that_are_gone_and_those_it_does_not_know(place: Place, recording: Path) -> None:
    settings = settings_for(recording, place)
    assert run_service(place.folder, settings)[0] == 0
    assert state(place.folder, "verify")[0] == 0

    for table, sentence in (("rows", "rows and holds 0"), ("windows", "holds no summary of this window")):
        with _without_a_file(place, table):
            code, said = state(place.folder, "verify")
            assert (code, sentence in said) == (exit_codes.DISAGREEMENT, True), said


@contextmanager
def _without_a_file(place: Place, table: str) -> Iterator[None]:
    root = place.server.folder_of(place.bucket) / "a/b" if place.server else place.folder / "parquet"
    path = sorted((root / table).rglob("*.parquet"))[1]
    content = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(content)


def test_a_run_that_begins_in_the_middle_of_an_hour_cuts_it_where_the_whole_hour_is_cut(
    tmp_path: Path, recording: Path, undisturbed: Files
) -> None:
    place = Place(tmp_path)
    middle = f"2025-11-03T15:00:{25:02}Z"
    assert run_service(tmp_path, settings_for(recording, place, QUERY_START_TIME=middle))[0] == 0

    code, log = run_service(tmp_path, settings_for(recording, place))

    assert code == 0, log
    different = undisturbed.items() ^ place.files().items()
    starts = sorted({int(path.rsplit("-", 2)[1]) for path, _ in different})
    # At most the chunk that the first run cut into is in two parts.
    assert len(starts) <= 3, starts

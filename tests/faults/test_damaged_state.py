"""Damage to the state folder: repaired, or refused with advice that works. Never silently from now, never released twice."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service import crash_points
from service.state.fence import Fence
from testbed.influxdb_server import InfluxServer
from testbed.wearers import Wearers
from tests.faults.oracle import Holdings
from tests.faults.ward import FULL, KILLED, Recording, Undisturbed, Ward, variant
from tests.servers.api_server import ApiServer

pytestmark = pytest.mark.influxdb

#: At so many places a bit is flipped, in the journal and in its write-ahead log each.
FLIPS = 40 if FULL else 1

Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Wounded:
    """A run that was killed half-way, with chunks released that not every output has, and late rows in what was released.

    A window that is released again gets other rows now, which shows.

    Args:
        ward: Where.
        kept: A copy of its folders as the kill left them.
        expected: What the outputs must hold in the end.
        payloads: What the API held when it was killed.
        released: How many windows were released.
    """

    ward: Ward
    kept: Path
    expected: Holdings
    payloads: frozenset[str]
    released: int

    def restore(self) -> None:
        """Put everything back to where the kill left it, but for InfluxDB, where what comes again replaces itself."""
        for name in ("state", "csv"):
            shutil.rmtree(self.ward.folder / name, ignore_errors=True)
            shutil.copytree(self.kept / name, self.ward.folder / name)
        self.ward.api.reset()

    def assert_complete(self) -> None:
        """Fail unless all outputs hold exactly what they must."""
        found = self.ward.holdings()
        assert found.files == self.expected.files
        assert found.points == self.expected.points
        assert self.payloads | set(found.payloads) == set(self.expected.payloads)

    def assert_nothing_doubled(self) -> None:
        """Fail unless what the outputs hold is a part of what they must."""
        found = self.ward.holdings()
        assert not found.csv_lines() - self.expected.csv_lines()
        assert found.points.items() <= self.expected.points.items()
        assert set(found.payloads) <= set(self.expected.payloads)


@pytest.fixture(scope="module")
def wounded(influxdb: InfluxServer, tmp_path_factory: pytest.TempPathFactory, undisturbed: Undisturbed) -> Iterator[Wounded]:
    with ApiServer() as api:
        folder = tmp_path_factory.mktemp("wounded")
        recording = Recording(influxdb, Wearers(6, hertz=32), seconds=12)
        ward = Ward(recording, folder, api, undisturbed)
        expected = ward.undisturbed()
        code, log = ward.run(environment={crash_points.VARIABLE: f"{crash_points.AFTER_WRITE}:15"})
        assert code == KILLED, log
        released = sum(one.end_ns - one.start_ns for one in Fence(ward.state / "fence").read().intervals) // 10**9
        assert ward.spooled(), "something waits for an output"
        late = [f"ecg,source_id=late ecg={second}.0 {recording.start_ns + second * 10**9 + 7}" for second in range(released)]
        influxdb.write_lines(recording.bucket, "\n".join(late).encode())
        kept = tmp_path_factory.mktemp("kept")
        for name in ("state", "csv"):
            shutil.copytree(folder / name, kept / name)
        yield Wounded(ward, kept, expected, frozenset(ward.holdings().payloads), released)


@pytest.fixture(autouse=True)
def _restored(wounded: Wounded) -> None:
    wounded.restore()


def journal(state: Path) -> Path:
    return state / "journal.sqlite"


def log_of(state: Path) -> Path:
    return state / "journal.sqlite-wal"


def cut(path_of: Callable[[Path], Path], share: float) -> Damage:
    def damage(state: Path) -> None:
        path = path_of(state)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def flip(path_of: Callable[[Path], Path], seed: int) -> Damage:
    def damage(state: Path) -> None:
        path, chance = path_of(state), random.Random(seed)
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)

    return damage


def fold_in(state: Path) -> None:
    """Let SQLite put everything into the one file, as it does when the service ends properly."""
    with contextlib.closing(sqlite3.connect(journal(state))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def after_folding(damage: Damage) -> Damage:
    def both(state: Path) -> None:
        fold_in(state)
        damage(state)

    return both


def change(statement: str) -> Damage:
    def damage(state: Path) -> None:
        with contextlib.closing(sqlite3.connect(journal(state))) as db:
            db.execute(statement)
            db.commit()

    return damage


def noise(state: Path) -> None:
    journal(state).write_bytes(random.Random(1).randbytes(20_000))


def take_away(*names: str) -> Damage:
    def damage(state: Path) -> None:
        for name in names:
            (state / name).unlink()

    return damage


def fence(state: Path) -> Path:
    return state / "fence"


DAMAGES: dict[str, Damage] = {
    "journal of length zero": after_folding(cut(journal, 0)),
    **{
        f"journal cut to {share:.1%}": after_folding(cut(journal, share))
        for share in ((0.001, 0.3, 0.999) if FULL else (0.3, 0.999))
    },
    "journal is noise": after_folding(noise),
    "journal of another version": change("PRAGMA user_version = 77"),
    "journal gone": after_folding(take_away("journal.sqlite")),
    "write-ahead log gone": take_away("journal.sqlite-wal"),
    **{f"write-ahead log cut to {share:.0%}": cut(log_of, share) for share in ((0.0, 0.3, 0.7, 0.99) if FULL else (0.7,))},
    "fence of length zero": cut(fence, 0),
    "fence cut": cut(fence, 0.5),
    "fence gone": take_away("fence"),
    "stream position moved by hand": change("INSERT INTO positions VALUES ('streaming', 4102444800000000000)"),
    "an output's position moved by hand": change("UPDATE outputs SET position = position + 1"),
    **{f"bit {seed} of the journal flipped": after_folding(flip(journal, seed)) for seed in range(FLIPS)},
    **{f"bit {seed} of the write-ahead log flipped": flip(log_of, seed) for seed in range(FLIPS)},
    **{f"bit {seed} of the fence flipped": flip(fence, seed) for seed in range(FLIPS)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_journal_is_repaired_or_refused_with_advice_and_releases_nothing_twice(
    wounded: Wounded, damage: Damage
) -> None:
    """Row 16: journal truncated, bit-flipped, of zero length, from another version, gone; fence likewise."""
    ward = wounded.ward
    damage(ward.state)

    code, log = ward.run()

    assert code in (0, 78), log
    assert "Traceback" not in log, log
    if code == 0:
        wounded.assert_complete()
        return
    wounded.assert_nothing_doubled()
    if "spool file" in log:
        # Without its last transactions the journal is as a moment before: it offers again what all have, of which the file may be gone.
        assert "give-up-lost" in log, log
        return
    assert any(advice in log for advice in ("accept-gap", "another data set", "Run that version")), log
    assert ward.api.stored() == [], "nothing was sent before it was refused"


@pytest.mark.parametrize("name", ["write-ahead log gone", "journal cut to 30.0%"] if FULL else ["write-ahead log gone"])
def test_the_advice_for_a_damaged_journal_works_and_nothing_is_released_twice(wounded: Wounded, name: str) -> None:
    """Row 16: after exit 78: moved away, accept-gap, and on from there; what was released stays as it was."""
    ward = wounded.ward
    DAMAGES[name](ward.state)
    code, log = ward.run()
    assert (code, "accept-gap" in log) == (78, True), log

    for path in ward.state.glob("journal.sqlite*"):
        path.rename(path.with_name(f"damaged-{path.name}"))
    printed = ward.state_command("accept-gap")
    code, log = ward.run()

    assert "will not be released again" in printed
    assert code == 0, log
    assert "were released before (an accepted gap)" in log
    wounded.assert_nothing_doubled()
    found = ward.holdings()
    after = f"{'2025-11-03T14:30'}:{wounded.released:02d}"
    unreleased = {key: value for key, value in wounded.expected.points.items() if key[0] >= after}
    assert unreleased
    assert unreleased.items() <= found.points.items(), "all that was not yet released is released now"
    assert len(found.payloads) == 12 - wounded.released


@pytest.mark.parametrize("what", ["cut", "flipped", "gone"] if FULL else ["flipped", "gone"])
def test_a_lost_spool_file_is_refused_with_advice_that_works_and_its_windows_are_not_read_again(
    wounded: Wounded, what: str
) -> None:
    """Row 16: a spool file that an output still needs is damaged or missing."""
    ward = wounded.ward
    path = ward.state / "spool" / ward.spooled()[0]
    content = bytearray(path.read_bytes())
    if what == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content if what == "flipped" else content[:-40])

    code, log = ward.run()

    assert code == 78, log
    assert "spool file" in log
    assert "give-up-lost" in log
    wounded.assert_nothing_doubled()
    printed = ward.state_command("give-up-lost", "--yes")
    assert printed
    code, log = ward.run()
    assert code in (0, 65), log
    wounded.assert_nothing_doubled()
    found = ward.holdings()
    lost = len(wounded.payloads) + found.payloads.total()
    assert lost >= 11, "one window may be missing at outputs that did not have it, no more"


def test_a_spool_file_that_was_not_released_is_removed_and_an_unfinished_one_too(wounded: Wounded) -> None:
    """Row 16: what a crash leaves in the spool without the journal knowing."""
    ward = wounded.ward
    spool = ward.state / "spool"
    some = sorted(spool.glob("*.spool"))[0].read_bytes()
    (spool / f"{900:012d}.spool").write_bytes(some)
    (spool / f"{901:012d}.spool.unfinished").write_bytes(some[:100])

    code, log = ward.run()

    assert code == 0, log
    wounded.assert_complete()
    assert list(spool.iterdir()) == []


def test_a_journal_that_another_program_locks_is_waited_for(wounded: Wounded) -> None:
    """Row 16: journal locked, for a moment."""
    ward = wounded.ward
    with contextlib.closing(sqlite3.connect(journal(ward.state), check_same_thread=False, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        release = threading.Timer(3, lambda: db.execute("ROLLBACK"))
        release.start()
        code, log = ward.run()
        release.join()

    assert code == 0, log
    wounded.assert_complete()


@variant
def test_a_journal_that_stays_locked_ends_a_one_shot_run_with_a_sentence_and_costs_nothing(wounded: Wounded) -> None:
    """Row 16: journal locked for good."""
    ward = wounded.ward
    with contextlib.closing(sqlite3.connect(journal(ward.state), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        code, log = ward.run({"RETRY_BUDGET_SECONDS": "1"})

    assert (code, "Traceback" in log) == (69, False), log
    assert "journal.sqlite cannot be used now" in log
    code, log = ward.run()
    assert code == 0, log
    wounded.assert_complete()


def test_a_state_folder_of_another_data_set_is_refused(wounded: Wounded) -> None:
    """Row 16: a journal from other settings: another measurement."""
    code, log = wounded.ward.run({"INFLUX_MEASUREMENT": "other"})

    assert (code, "belongs to another data set" in log) == (78, True), log
    wounded.assert_nothing_doubled()

"""Uses the disk as the service and the heartbeat tools do, and has every call of it fail with every errno: what do they make of it?

Run with `fail_calls.so` preloaded, in an empty folder that FAIL_UNDER names. Prints one JSON object: by use, call and errno's name, what
became of it. A use that does not work again afterwards, or lost something, ends the program.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anonymizer.errors import BatchRejected, ConfigurationError, JournalDamaged, OutputUnavailable, StateUnavailable
from anonymizer.windows import Window
from disk.durable_file import write_durably
from outputs.csv_files import CsvFiles
from scripts.heartbeat import ledger as heart_ledger
from scripts.heartbeat.command import LedgerUnusable, UsageError, WriteFailed
from service.state.epochs import Epoch
from service.state.fence import Fence
from service.state.instance_lock import AnotherInstance, InstanceLock
from service.state.journal import Journal
from service.state.set_aside import SetAside
from service.state.spool import Spool, SpoolDamaged
from tests.service.batches import PROMISE, make_batch

#: What a disk, a share or a process's limits answer. EINTR makes Python call again, for ever where it always fails: left to chance too.
SOME = ["EIO", "ENOSPC", "EMFILE", "EACCES", "EROFS", "EINVAL", "ESTALE", "EDQUOT", "ENOMEM"]

#: All that Linux documents for these calls, and what network file systems answer besides.
ALL = [
    *SOME,
    *["EAGAIN", "EBADF", "EBUSY", "EFBIG", "EISDIR", "ELOOP", "EMLINK", "ENAMETOOLONG", "ENFILE", "ENODEV", "ENOENT", "ENOLCK"],
    *["ENOSYS", "ENOTDIR", "ENXIO", "EOPNOTSUPP", "EOVERFLOW", "EPERM", "ETIMEDOUT", "ETXTBSY", "EXDEV"],
]

#: What fails, and with what: everything, where what becomes of it depends on more than that it failed. SQLite's own locks are left to
#: chance (tests/faults/test_calls.py): it asks for them again for seconds.
CALLS = {
    "open": ALL,
    "rename": [*SOME, "EINTR"],
    "unlink": [*SOME, "EINTR"],
    "mkdir": ALL,
    "stat": SOME,
    "chmod": ALL,
    "fchmod": ALL,
    "read": SOME,
    "write": SOME,
    "ftruncate": SOME,
    "fsync": SOME,
    "fsync-folder": ALL,
    "flock": ALL,
}

OUTCOMES: dict[type[BaseException], str] = {
    StateUnavailable: "waits",
    OutputUnavailable: "waits",
    WriteFailed: "waits",
    ConfigurationError: "refuses",
    LedgerUnusable: "refuses",
    UsageError: "refuses",
    AnotherInstance: "another instance",
    JournalDamaged: "damaged",
    SpoolDamaged: "damaged",
}


@dataclass(frozen=True)
class Use:
    """One use of the disk.

    Args:
        prepare: Makes what must be there in a new folder.
        act: Uses the disk; is tried again.
        holds: Whether all that must be there afterwards is there.
    """

    prepare: Callable[[Path], None]
    act: Callable[[Path], object]
    holds: Callable[[Path], bool] = lambda folder: True


def outcome_of(act: Callable[[Path], object], folder: Path) -> str:
    """Do it once; return what became of it."""
    try:
        act(folder)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is told)
        return next((word for kind, word in OUTCOMES.items() if isinstance(error, kind)), f"raises {error!r}")
    return "goes on"


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """Open the journal, without any failure of its own."""
    rule = os.environ.pop("FAIL_ALWAYS", None)
    journal = Journal(folder / "state", data_set="fake")
    if rule:
        os.environ["FAIL_ALWAYS"] = rule
    try:
        yield journal
    finally:
        os.environ.pop("FAIL_ALWAYS", None)
        journal.close()


def lock(folder: Path) -> None:
    """Take and leave the instance's lock."""
    InstanceLock(folder / "state").release()


def make_journal(folder: Path) -> None:
    """Make a journal with an output."""
    with opened(folder) as journal:
        journal.epochs.begin(Epoch(PROMISE, 5 * 10**9), now_ns=0)
        journal.outputs.add_outputs(["csv:x"])


def open_journal(folder: Path) -> None:
    """Open the journal as the service does."""
    Journal(folder / "state", data_set="fake").close()


def read_journal(folder: Path) -> None:
    """Ask it something."""
    with opened(folder) as journal:
        journal.outputs.positions()


def write_journal(folder: Path) -> None:
    """Have it remember something."""
    with opened(folder) as journal:
        journal.move_stream(7)


def journal_holds(folder: Path) -> bool:
    """Return whether it remembers that."""
    with opened(folder) as journal:
        return journal.stream_position_ns() == 7 and len(journal.outputs.positions()) == 1


def make_fence(folder: Path) -> None:
    """Make a fence that knows one release."""
    (folder / "state").mkdir()
    Fence(folder / "state" / "fence").replace([Window(0, 5)])


def advance_fence(folder: Path) -> None:
    """Let it know another."""
    fence = Fence(folder / "state" / "fence")
    fence.read()
    outcome_as_state(lambda: fence.add([Window(7, 9)], [Window(0, 5), Window(7, 9)]))


def fence_holds(folder: Path) -> bool:
    """Return whether it knows both."""
    return Fence(folder / "state" / "fence").read().intervals == [Window(0, 5), Window(7, 9)]


def spool_of(folder: Path) -> Spool:
    """Return the spool, made without any failure."""
    return Spool(folder / "state" / "spool")


def make_spool(folder: Path) -> None:
    """Make the folder."""
    spool_of(folder)


def fill_spool(folder: Path) -> None:
    """Store a chunk."""
    spool_of(folder).write(1, [make_batch(1)])


def spool_holds(folder: Path) -> bool:
    """Return whether the chunk is there and nothing else is."""
    return [batch.batch_id for batch in spool_of(folder).read(1)] == [make_batch(1).batch_id] and spool_of(folder).numbers() == {
        1
    }


def set_aside(folder: Path) -> None:
    """Keep what an output refused."""
    SetAside(folder / "state" / "set_aside").keep(make_batch(1), output="api:x", rejection=BatchRejected("422"))


def read_set_aside(folder: Path) -> list[str]:
    """Read it again."""
    return [one.batch().batch_id for one in SetAside(folder / "state" / "set_aside").all()]


def csv_of(folder: Path) -> CsvFiles:
    """Return the CSV output."""
    return CsvFiles(folder / "csv", "all_%Y.csv")


WRITERS: dict[Path, CsvFiles] = {}


def write_csv(folder: Path, index: int) -> None:
    """Bring a batch to the one file, as an output that lives on does."""
    output = WRITERS.setdefault(folder, csv_of(folder))
    output.intent(make_batch(index))
    output.write(make_batch(index))


def make_csv(folder: Path) -> None:
    """Bring the first batch."""
    (folder / "csv").mkdir()
    write_csv(folder, 1)


def csv_lines(folder: Path, *lines: int) -> bool:
    """Return whether the files hold a header and so many rows, each once."""
    contents = [path.read_text() for path in (folder / "csv").glob("*.csv")]
    return [len(set(text.splitlines())) for text in contents] == list(lines) and all(
        text.count("\n") == lines[0] for text in contents
    )


def csv_beside_another(folder: Path) -> None:
    """Put another program's file where ours will be."""
    (folder / "csv").mkdir()
    (folder / "csv" / "all_1970.csv").write_text("mine\n")


def append_to_ledger(folder: Path) -> None:
    """Append an entry."""
    heart_ledger.append(folder / "ledger.jsonl", b'{"n":1}\n', lock_wait_s=0)


def make_ledger(folder: Path) -> None:
    """Make a ledger with an entry."""
    (folder / "ledger.jsonl").write_bytes(b'{"n":0}\n')


def read_ledger(folder: Path) -> None:
    """Read it all."""
    list(heart_ledger.read_ledger(str(folder / "ledger.jsonl")))


def ledger_holds(folder: Path, *contents: bytes) -> bool:
    """Return whether it holds just that."""
    return (folder / "ledger.jsonl").read_bytes() in contents


USES: dict[str, Use] = {
    "lock STATE_DIR": Use(nothing, lock),
    "open the journal": Use(make_journal, open_journal),
    "read the journal": Use(make_journal, read_journal),
    "write the journal": Use(make_journal, write_journal, journal_holds),
    "advance the fence": Use(make_fence, advance_fence, fence_holds),
    "write a report": Use(
        nothing,
        lambda folder: outcome_as_state(lambda: write_durably(folder / "whole", b"new")),
        lambda folder: (folder / "whole").read_bytes() == b"new" and len(list(folder.iterdir())) == 1,
    ),
    "write to the spool": Use(make_spool, fill_spool, spool_holds),
    "read from the spool": Use(fill_spool, lambda folder: spool_of(folder).read(1), spool_holds),
    "list the spool": Use(fill_spool, lambda folder: spool_of(folder).numbers(), spool_holds),
    "remove from the spool": Use(fill_spool, lambda folder: spool_of(folder).remove(1)),
    "move a spool file aside": Use(
        fill_spool,
        lambda folder: spool_of(folder).move_aside(1),
        lambda folder: len(list((folder / "state" / "given_up").iterdir())) == 1,
    ),
    "set a batch aside": Use(nothing, set_aside, lambda folder: len(read_set_aside(folder)) == 1),
    "read what was set aside": Use(set_aside, read_set_aside, lambda folder: len(read_set_aside(folder)) == 1),
    "open CSV_OUTPUT_DIR": Use(nothing, lambda folder: csv_of(folder).open({}), lambda folder: (folder / "csv").is_dir()),
    "begin a CSV file": Use(
        lambda folder: (folder / "csv").mkdir(), lambda folder: write_csv(folder, 1), lambda folder: csv_lines(folder, 5)
    ),
    "begin a CSV file where another's is": Use(
        csv_beside_another,
        lambda folder: write_csv(folder, 1),
        lambda folder: csv_lines(folder, 5) and len(list((folder / "csv").glob("*previous-1"))) == 1,
    ),
    "append to a CSV file": Use(make_csv, lambda folder: write_csv(folder, 2), lambda folder: csv_lines(folder, 9)),
    "begin a heartbeat ledger": Use(nothing, append_to_ledger, lambda folder: ledger_holds(folder, b'{"n":1}\n')),
    "append to a heartbeat ledger": Use(
        make_ledger, append_to_ledger, lambda folder: ledger_holds(folder, b'{"n":0}\n{"n":1}\n')
    ),
    "read a heartbeat ledger": Use(make_ledger, read_ledger),
}


def outcome_as_state(act: Callable[[], object]) -> None:
    """Do what the parts that write whole files do with its errors."""
    try:
        act()
    except OSError as error:
        raise StateUnavailable(str(error)) from None


def try_once(use: Use, call: str, code: str, folder: Path) -> str | None:
    """Have one call fail; return what became of it, None where the use makes no such call."""
    notes = Path(os.environ["FAIL_NOTES"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    WRITERS.clear()
    use.prepare(folder)
    failed_before = notes.stat().st_size if notes.exists() else 0
    os.environ["FAIL_ALWAYS"] = f"{call}:{getattr(errno, code)}:"
    # So that permissions have to be set: the call that makes a file cannot.
    umask_before = os.umask(0o277)
    found = outcome_of(use.act, folder)
    os.umask(umask_before)
    os.environ.pop("FAIL_ALWAYS", None)
    if (notes.stat().st_size if notes.exists() else 0) == failed_before:
        return None
    if found != "goes on":
        again = outcome_of(use.act, folder)
        if again != "goes on":
            found = f"{found}, then {again} for ever"
    if not use.holds(folder):
        found = f"{found}, and then it does not hold what it must: {sorted(map(str, folder.rglob('*')))}"
    return found


def main() -> None:
    """Try everything; print what became of it."""
    heart_ledger.LOCK_WAIT_S = 0.0
    folder = Path(sys.argv[1]) / "place"
    table: dict[str, dict[str, dict[str, str]]] = {}
    for name, use in USES.items():
        for call, codes in CALLS.items():
            for code in codes:
                with contextlib.redirect_stderr(io.StringIO()):
                    found = try_once(use, call, code, folder)
                if found is None:
                    break
                table.setdefault(name, {}).setdefault(call, {})[code] = found
    print(json.dumps(table))


if __name__ == "__main__":
    main()

"""Signals at any moment, and standard streams that are closed, full, gone or not read: a run ends, and what it releases is the same."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service import exit_codes
from tests.faults.streams import USELESS, close_all, terminal, unread_pipe
from tests.faults.ward import FULL, slow_disk, wait_until
from tests.integration.service_process import KEY, ROOT, Service, run_service, state

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

# A process is forked here to be given streams that are closed; Python 3.12 warns where there are threads.
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="terminals, pipes and signals are Linux's here"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]

#: How long after a signal a process may live, and after a second one; a busy machine is forgiven.
MOST_S, AT_ONCE_S = 30.0, 4.0

#: Before our handlers are there, a signal ends the process as it ends any other.
UNHANDLED = {-signal.SIGINT, -signal.SIGTERM}

SECONDS, ROWS = 100, 24

#: A stream that never gets beyond asking for its database again and again.
BACKING_OFF: Mapping[str, object] = {
    "STREAMING_MODE": "true",
    "INFLUX_URL": "http://127.0.0.1:9",
    "INFLUX_ORG": "ward",
    "INFLUX_TOKEN": "t",
    "PSEUDONYMIZE_SOURCE_ID": "true",
    "PSEUDONYM_SALT": KEY,
}


@dataclass(frozen=True)
class Backfill:
    """A file of ECG that takes a second or so to release, in many small windows; and what must come of it."""

    settings: Mapping[str, object]
    released: Mapping[str, bytes] = field(default_factory=dict)

    def start(self, folder: Path, changes: Mapping[str, object] | None = None, **streams: Any) -> Service:
        return Service(folder, {**self.settings, **(changes or {})}, **streams)

    def assert_released(self, folder: Path) -> None:
        assert files(folder / "csv") == self.released


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


@pytest.fixture(scope="module")
def backfill(tmp_path_factory: pytest.TempPathFactory) -> Backfill:
    folder = tmp_path_factory.mktemp("backfill")
    rows = [
        f"2025-11-03T14:{second // 60:02d}:{second % 60:02d}.{row:03d}Z,{'abc'[row % 3]},{row % 4}"
        for second in range(SECONDS)
        for row in range(ROWS)
    ]
    (folder / "recording.csv").write_text("\n".join(["timestamp,source_id,ecg", *rows, ""]), encoding="utf-8")
    settings: dict[str, object] = {
        "INPUT_FILE": folder / "recording.csv",
        "OUTPUT_TO_INFLUX": "false",
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": KEY,
        "BATCH_SIZE_SECONDS": "1",
        "MAX_RECORDS_PER_QUERY": "1",
        "CSV_FILENAME_PATTERN": "w_%H%M.csv",
    }
    code, log = run_service(folder, settings)
    assert code == 0, log
    return Backfill(settings, files(folder / "csv"))


# Signals at any moment


@pytest.mark.parametrize("kind", ["wait", "start", "log"])
def test_a_process_is_stopped_wherever_a_signal_meets_it(kind: str) -> None:
    """A handler that takes a lock hangs for good when it interrupts the thread that holds it."""
    draw = random.Random(kind)
    for _ in range(40 if FULL else 1):
        processes = [tight_loop(kind) for _ in range(6)]
        time.sleep(draw.uniform(0, 0.3))
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [ended(process) for process in processes]
        assert codes == [0] * 6, "one never ended"


def tight_loop(kind: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.tight_loop", kind], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    return process


def ended(process: subprocess.Popen[bytes], within_s: float = MOST_S) -> int | None:
    """Return how the process ended; None if it did not in time."""
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
    finally:
        if process.stderr is not None:
            process.stderr.close()


def test_runs_that_are_stopped_at_random_moments_end_and_lose_nothing(backfill: Backfill, tmp_path: Path) -> None:
    """Row 3 a thousand times: while it is loaded, starts, works, ends; once or twice, by either signal."""
    complaints: list[str] = []
    threads = [
        threading.Thread(target=stop_often, args=(backfill, tmp_path / str(number), number, complaints)) for number in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert complaints == []


def stop_often(backfill: Backfill, folder: Path, seed: int, complaints: list[str]) -> None:
    """Start and stop runs in one folder, then let one finish; say what went wrong."""
    folder.mkdir()
    draw = random.Random(seed)
    for _ in range(200 if FULL else 3):
        with backfill.start(folder, start_new_session=True) as service:
            time.sleep(draw.uniform(0, 1.5))
            number = draw.choice([signal.SIGINT, signal.SIGTERM])
            service.process.send_signal(number)
            if draw.random() < 0.3:
                time.sleep(draw.uniform(0, 0.1))
                service.process.send_signal(number)
            code = ended(service.process)
            if not (is_pythons_own(service.log) or (code in UNHANDLED | {0, 128 + number} and "Traceback" not in service.log)):
                complaints.append(f"{code} after {number}:\n{service.log}")
    code, log = run_service(folder, backfill.settings)
    if code or files(folder / "csv") != backfill.released:
        complaints.append(f"{code} at the end:\n{log}")


#: The line of the program from which on Ctrl+C is no longer Python's.
LINES_BEFORE = 12


def is_pythons_own(log: str) -> bool:
    """Return whether Ctrl+C came before the program's first lines were done: then Python ends in its own words."""
    lines = [int(line) for line in re.findall(r'central_anonymizer.py", line (\d+)', log)]
    return "KeyboardInterrupt" in log and all(line <= LINES_BEFORE for line in lines)


def wait_until_it_hears(folder: Path) -> None:
    """Wait until a service has its handlers, which it has before it looks at its state."""
    wait_until((folder / "state" / "lock").exists, "the start")


# Signals during


def test_a_run_that_is_interrupted_while_it_is_loaded_says_nothing(backfill: Backfill, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    with backfill.start(tmp_path, environment={"PYTHONPATH": str(tmp_path)}) as service:
        service.wait_for("loading")
        assert service.stop(signal.SIGINT, within_s=MOST_S) == -signal.SIGINT
        assert service.log == "loading\n"
    assert files(tmp_path / "state") == {}


def test_a_run_that_its_outputs_hold_up_is_stopped_and_loses_nothing(backfill: Backfill, tmp_path: Path) -> None:
    held_up = {"OUTPUT_TO_API": "true", "API_ENDPOINT": "http://127.0.0.1:9", "SPOOL_MAX_BYTES": 1}
    with backfill.start(tmp_path, held_up) as service:
        service.wait_for("⏸️ Reading pauses")
        assert service.stop(within_s=MOST_S) == exit_codes.TERMINATED

    assert state(tmp_path, "drop-output", "api:http://127.0.0.1:9")[0] == 0
    assert run_service(tmp_path, backfill.settings)[0] == 0
    backfill.assert_released(tmp_path)


# SIGHUP


def test_a_hang_up_that_rotates_logs_is_logged_and_ignored(tmp_path: Path) -> None:
    with Service(tmp_path, BACKING_OFF) as service:
        service.wait_for("trying again in")
        for _ in range(3):
            service.process.send_signal(signal.SIGHUP)
        service.wait_for("SIGHUP does not stop this process; SIGTERM does")
        time.sleep(0.3)
        assert service.process.poll() is None
        assert service.stop(within_s=AT_ONCE_S) == exit_codes.DONE


def test_a_one_shot_run_goes_on_after_a_hang_up(backfill: Backfill, tmp_path: Path) -> None:
    with backfill.start(tmp_path, environment=slow_disk(tmp_path, "w_", 0.02)) as service:
        wait_until_it_hears(tmp_path)
        service.process.send_signal(signal.SIGHUP)
        assert service.exit_code() == 0
        assert "SIGHUP does not stop this process" in service.log
    backfill.assert_released(tmp_path)


def test_a_hang_up_ends_a_run_that_was_started_at_a_terminal(backfill: Backfill, tmp_path: Path) -> None:
    with terminal() as (_, its), Service(tmp_path, BACKING_OFF, stdin=its) as service:
        service.wait_for("trying again in")
        assert service.stop(signal.SIGHUP, within_s=AT_ONCE_S) == exit_codes.DONE
    with terminal() as (_, its), backfill.start(tmp_path, stdin=its, environment=slow_disk(tmp_path, "w_", 0.1)) as service:
        service.wait_for("🔒 Anonymizing batch")
        assert service.stop(signal.SIGHUP, within_s=MOST_S) == exit_codes.HUNG_UP


def test_a_hang_up_does_not_end_a_run_that_was_started_with_nohup(tmp_path: Path) -> None:
    with terminal() as (_, its):
        ignoring: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
        with Service(tmp_path, BACKING_OFF, stdin=its, **ignoring) as service:
            service.wait_for("trying again in")
            service.process.send_signal(signal.SIGHUP)
            service.wait_for("SIGHUP does not stop this process")
            assert service.stop(within_s=AT_ONCE_S) == exit_codes.DONE


# Streams that are not read


@pytest.mark.parametrize("streams", ["stdout", "both"])
def test_a_stream_whose_log_is_not_read_is_stopped_all_the_same(tmp_path: Path, streams: str) -> None:
    with unread_pipe(tmp_path) as pipe:
        stderr = pipe if streams == "both" else subprocess.DEVNULL
        with Service(tmp_path, BACKING_OFF, stdout=pipe, stderr=stderr) as service:
            wait_until_it_hears(tmp_path)
            assert service.stop(within_s=MOST_S) == exit_codes.DONE


def test_a_second_signal_ends_a_process_whose_log_is_not_read_at_once(tmp_path: Path) -> None:
    with unread_pipe(tmp_path) as pipe, Service(tmp_path, BACKING_OFF, stdout=pipe, stderr=pipe) as service:
        wait_until_it_hears(tmp_path)
        service.process.send_signal(signal.SIGTERM)
        assert service.stop(within_s=AT_ONCE_S) in (exit_codes.DONE, exit_codes.TERMINATED)


def test_a_run_whose_log_is_not_read_is_interrupted_within_seconds(backfill: Backfill, tmp_path: Path) -> None:
    with unread_pipe(tmp_path) as pipe, backfill.start(tmp_path, stdout=pipe, stderr=pipe) as service:
        wait_until_it_hears(tmp_path)
        assert service.stop(within_s=MOST_S) == exit_codes.TERMINATED


@pytest.mark.parametrize("blocks", [True, False], ids=["a pipe", "a pipe that does not block"])
def test_a_log_that_is_read_slowly_is_complete(backfill: Backfill, tmp_path: Path, blocks: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocks)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with backfill.start(tmp_path, {"VERBOSE_LOGGING": "false"}, stdout=writing) as service:
        os.close(writing)
        log = b""
        while piece := os.read(reading, 1500):
            log += piece
            time.sleep(0.05)
        assert service.exit_code(within_s=MOST_S) == 0
    os.close(reading)
    lines = log.decode().splitlines()
    assert sum("🔒 Anonymizing batch" in line for line in lines) == SECONDS
    assert any(f"🏁 Done: {SECONDS} windows" in line for line in lines)
    assert "missing" not in log.decode()


# Streams that are closed, full or gone


@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
def test_a_run_without_a_stream_releases_the_same_and_ends_the_same(
    backfill: Backfill, tmp_path: Path, useless: Callable[[], dict[str, Any]]
) -> None:
    with tempfile.TemporaryFile() as said:
        given = useless()
        with backfill.start(tmp_path, **{"stderr": said, **given}) as service:
            assert service.exit_code() == 0
        said.seek(0)
        assert said.read() == b""
    close_all(given)
    backfill.assert_released(tmp_path)
    assert (tmp_path / "state" / "journal.sqlite").read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("useless", USELESS)
def test_a_stream_without_a_stream_goes_on_and_is_stopped_as_ever(tmp_path: Path, useless: str) -> None:
    given = USELESS[useless]()
    with Service(tmp_path, BACKING_OFF, **given) as service:
        wait_until_it_hears(tmp_path)
        assert service.process.poll() is None
        if useless == "nothing at all":
            # What a library writes to standard error must not end in the journal: no file of ours takes a closed stream's place.
            ends = [str(Path(f"/proc/{service.process.pid}/fd/{number}").readlink()) for number in range(3)]
            assert ends == [os.devnull] * 3
        assert service.stop(within_s=MOST_S) == exit_codes.DONE
        assert "Traceback" not in service.log
    close_all(given)


def test_a_reader_that_leaves_in_the_middle_changes_nothing(backfill: Backfill, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with backfill.start(tmp_path, stdout=writing, stderr=writing) as service:
        os.close(writing)
        assert os.read(reading, 100)
        os.close(reading)
        assert service.exit_code() == 0
    backfill.assert_released(tmp_path)


# The progress bar


class Screen:
    """A terminal with a process on it, as when a user types its command.

    Args:
        arguments: For Python.
        folder: Where it runs.
        more: Variables besides what every process needs.
    """

    def __init__(self, folder: Path, more: Mapping[str, str]) -> None:
        self.pid, self._ours = pty.fork()
        if not self.pid:
            os.chdir(folder)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
            environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "xterm", "PYTHONUTF8": "1", **more}
            os.execve(sys.executable, [sys.executable, str(ROOT / "central_anonymizer.py")], environment)
        self.shown = b""

    def wait_for(self, text: bytes, within_s: float = 30) -> None:
        deadline_s = time.monotonic() + within_s
        while text not in self.shown:
            assert time.monotonic() < deadline_s, self.shown
            self._look()

    def _look(self) -> bool:
        """Read what is shown; return whether there is anybody to show more."""
        if not select.select([self._ours], [], [], 0.05)[0]:
            return True
        try:
            piece = os.read(self._ours, 65536)
        except OSError:
            piece = b""
        self.shown += piece
        return bool(piece)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        os.close(self._ours)

    def exit_code(self, within_s: float = MOST_S, *, reads: bool = True) -> int:
        deadline_s = time.monotonic() + within_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline_s:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"still running: {self.shown!r}")
            if reads:
                self._look()
            else:
                time.sleep(0.05)


@pytest.fixture
def screen(backfill: Backfill, tmp_path: Path) -> Screen:
    return on_screen(backfill, tmp_path)


def on_screen(backfill: Backfill, tmp_path: Path, **more: str) -> Screen:
    lines = {"CSV_OUTPUT_DIR": tmp_path / "csv", "STATE_DIR": tmp_path / "state", "VERBOSE_LOGGING": "false", **backfill.settings}
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
    env_file.chmod(0o600)
    return Screen(tmp_path, more)


def test_a_bar_shows_how_far_the_run_is_below_its_log(backfill: Backfill, tmp_path: Path, screen: Screen) -> None:
    assert screen.exit_code(60) == 0
    screen.close()

    shown = screen.shown.decode()
    assert f"{SECONDS}/{SECONDS}" in shown
    assert "rows/s" in shown
    assert shown.count("🔒 Anonymizing batch") == SECONDS
    assert f"🏁 Done: {SECONDS} windows" in shown
    backfill.assert_released(tmp_path)


def test_ctrl_c_at_a_bar_interrupts_the_run(backfill: Backfill, tmp_path: Path) -> None:
    screen = on_screen(backfill, tmp_path, **slow_disk(tmp_path, "w_", 0.1))
    screen.wait_for(f"/{SECONDS}".encode())
    screen.type(b"\x03")
    assert screen.exit_code() == exit_codes.INTERRUPTED
    screen.close()

    assert b"Traceback" not in screen.shown
    assert run_service(tmp_path, backfill.settings)[0] == 0
    backfill.assert_released(tmp_path)


def test_neither_a_stopped_terminal_nor_an_unread_log_holds_a_run_up(backfill: Backfill, tmp_path: Path, screen: Screen) -> None:
    """Both at once, since each waits for its reader as long as the service ever does."""
    (unread := tmp_path / "unread").mkdir()
    with unread_pipe(unread) as pipe, backfill.start(unread, stdout=pipe, stderr=pipe) as service:
        screen.wait_for(f"/{SECONDS}".encode())
        screen.type(b"\x13")
        assert screen.exit_code(60) == 0
        screen.close()
        assert service.exit_code(within_s=60) == 0
    backfill.assert_released(tmp_path)
    backfill.assert_released(unread)


def test_a_terminal_that_is_stopped_does_not_keep_a_run_from_being_interrupted(screen: Screen) -> None:
    screen.wait_for(f"/{SECONDS}".encode())
    screen.type(b"\x13")
    time.sleep(0.3)
    os.kill(screen.pid, signal.SIGTERM)
    assert screen.exit_code() in (exit_codes.TERMINATED, 0)
    screen.close()


def test_a_terminal_that_is_closed_ends_the_run_in_order(backfill: Backfill, tmp_path: Path, screen: Screen) -> None:
    screen.wait_for(f"/{SECONDS}".encode())
    screen.close()
    assert screen.exit_code(reads=False) in (exit_codes.HUNG_UP, 0)

    assert run_service(tmp_path, backfill.settings)[0] == 0
    backfill.assert_released(tmp_path)

"""The service never waits long for a reader of its log. Lines not written are counted."""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from service.telemetry import log_writer as logs
from service.telemetry.log_writer import LogWriter

MISSING = re.compile(r"(\d+) log lines are missing here")


class Pipe:
    """A pipe with a log at one end."""

    def __init__(self, *, waits_for_reader: bool, most_lines: int = 10) -> None:
        self.reading, writing = os.pipe()
        self._writing: TextIO = os.fdopen(writing, "w", encoding="utf-8")
        self.writer = LogWriter(self._writing, waits_for_reader=waits_for_reader, most_lines=most_lines)
        self.log = logging.getLogger("ecg_anonymizer")
        self.log.addHandler(self.writer)
        self.log.setLevel(logging.INFO)
        self.said = ""

    def read(self, size: int) -> None:
        self.said += os.read(self.reading, size).decode()

    def read_all(self) -> list[str]:
        """Read until everything is written; return the lines."""
        reader = threading.Thread(target=self._read_to_the_end)
        reader.start()
        self.writer.flush()
        self.close()
        reader.join()
        return self.said.splitlines()

    def _read_to_the_end(self) -> None:
        while piece := os.read(self.reading, 65536):
            self.said += piece.decode()

    def close(self) -> None:
        self.log.removeHandler(self.writer)
        self.log.setLevel(logging.NOTSET)
        self.writer.close()
        if not self._writing.closed:
            self._writing.close()


MakePipe = Callable[..., Pipe]


@pytest.fixture
def make_pipe() -> Iterator[MakePipe]:
    made: list[Pipe] = []

    def make(**how: bool) -> Pipe:
        made.append(Pipe(**how))
        return made[-1]

    yield make
    for pipe in made:
        os.close(pipe.reading)


#: So long that a pipe takes some sixty.
LINE = "x" * 1000


def test_a_run_with_an_end_waits_for_a_reader_that_is_slow_and_loses_no_line(make_pipe: MakePipe) -> None:
    pipe = make_pipe(waits_for_reader=True)

    def read_slowly() -> None:
        while len(pipe.said) < 150_000 and select.select([pipe.reading], [], [], 3)[0]:
            time.sleep(0.02)
            pipe.read(3000)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    for number in range(200):
        pipe.log.info("%d %s", number, LINE)
    reader.join()

    assert pipe.read_all() == [f"{number} {LINE}" for number in range(200)]


def test_a_stream_leaves_lines_out_at_once_and_says_how_many_and_where(make_pipe: MakePipe) -> None:
    pipe = make_pipe(waits_for_reader=False)
    began_s = time.monotonic()
    for number in range(500):
        pipe.log.info("%d %s", number, LINE)
    assert time.monotonic() - began_s < 4, "or it waited for a reader"
    pipe.read(65536)
    time.sleep(0.3)
    pipe.log.info("500 %s", LINE)

    lines = pipe.read_all()
    next_number = 0
    for line in lines:
        if found := MISSING.search(line):
            next_number += int(found[1])
        else:
            assert line.split()[0] == str(next_number)
            next_number += 1
    assert next_number == 501
    assert len(lines) < 200


def test_a_reader_that_has_stopped_is_waited_for_once(make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_DEAD_AFTER_S", 0.5)
    monkeypatch.setattr(logs, "_DEAD_AT_END_S", 0.5)
    pipe = make_pipe(waits_for_reader=True)
    write_500(pipe)

    lines = pipe.read_all()
    counts = [int(found[1]) for line in lines if (found := MISSING.search(line))]
    assert len(lines) - len(counts) + sum(counts) == 500


def test_a_log_that_is_not_read_does_not_delay_a_stop(make_pipe: MakePipe) -> None:
    pipe = make_pipe(waits_for_reader=True)
    pipe.writer.hurry()
    write_500(pipe)
    pipe.read_all()


def write_500(pipe: Pipe) -> None:
    began_s = time.monotonic()
    for number in range(500):
        pipe.log.info("%d %s", number, LINE)
    pipe.writer.flush()
    assert time.monotonic() - began_s < 30, "or it waited for each line anew"


def test_lines_that_a_full_disk_did_not_take_are_counted_once_it_takes_some(make_pipe: MakePipe) -> None:
    class Disk(list[str]):
        is_full = True

        def write(self, text: str) -> None:
            if self.is_full:
                raise OSError(28, "No space left on device")
            self.append(text)

        def flush(self) -> None: ...

        def fileno(self) -> int:
            raise OSError

    disk, pipe = Disk(), make_pipe(waits_for_reader=True)
    pipe.log.removeHandler(pipe.writer)
    pipe.writer = LogWriter(disk, waits_for_reader=True)  # type: ignore[arg-type]
    pipe.log.addHandler(pipe.writer)
    for _ in range(3):
        pipe.log.info("lost")
        pipe.writer.flush()
    busy_s = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - busy_s < 0.1, "it is not asked again and again"
    disk.is_full = False
    pipe.log.info("written")
    pipe.read_all()

    assert "".join(disk).splitlines() == [
        "⚠️ 3 log lines are missing here: they could not be written to standard output",
        "written",
    ]


def test_missing_lines_are_told_where_only_errors_are_logged(make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)
    pipe = make_pipe(waits_for_reader=False)
    pipe.log.setLevel(logging.ERROR)
    for number in range(500):
        pipe.log.error("%d %s", number, LINE)

    lines = pipe.read_all()
    assert sum(int(found[1]) if (found := MISSING.search(line)) else 1 for line in lines) == 500

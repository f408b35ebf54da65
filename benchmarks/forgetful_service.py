"""The service without durable state: no spool, no fence, and a journal in memory. Only to measure what these cost.

What it releases can be lost, and released twice: never run it on data that matters.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import central_anonymizer
import service.delivery.outbox
import service.state.fence
import service.state.journal_file
import service.state.spool


def _connect_to_nothing(_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def _write_nothing(_path: Path, _content: bytes, **_options: object) -> int:
    return 0


def _encode_nothing(_batches: object, **_options: object) -> bytes:
    return b""


#: What is replaced; the last two keep all chunks in memory, so that none is read back from the spool.
_FORGOTTEN = (
    (service.state.journal_file, "_connect", _connect_to_nothing),
    (service.state.spool, "write_durably", _write_nothing),
    (service.state.spool, "encode", _encode_nothing),
    (service.state.fence, "write_durably", _write_nothing),
    (service.delivery.outbox, "_CHUNKS_IN_MEMORY", 1 << 30),
    (service.delivery.outbox, "_ROWS_IN_MEMORY", 1 << 60),
)

if __name__ == "__main__":
    for module, name, stand_in in _FORGOTTEN:
        assert hasattr(module, name)
        setattr(module, name, stand_in)
    sys.exit(central_anonymizer.main([]))

"""Python loads this by its name when the folder is on PYTHONPATH: it notes what the process asks of the disk, in order.

SIGKILL cannot show a missing fsync: what was written stays in the kernel, and only a power cut would take it. So each fsync and each
renaming is written, as it is done, to the file that ECG_SYNCS_FILE names. ECG_SLOW_SYNC=name:seconds makes a slow disk of the one that
holds files whose names begin so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_NOTES = os.open(os.environ["ECG_SYNCS_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

_true_fsync, _true_replace, _true_rename = os.fsync, os.replace, os.rename


_SLOW_NAME, _, _SLOW_S = os.environ.get("ECG_SLOW_SYNC", ":").partition(":")


def _fsync(descriptor: int) -> None:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    if _SLOW_NAME and path.name.startswith(_SLOW_NAME):
        time.sleep(float(_SLOW_S))
    _true_fsync(descriptor)
    os.write(_NOTES, f"sync {path}\n".encode())


def _replace(old: Any, new: Any, **options: Any) -> None:
    _true_replace(old, new, **options)
    os.write(_NOTES, f"name {new}\n".encode())


def _rename(old: Any, new: Any, **options: Any) -> None:
    _true_rename(old, new, **options)
    os.write(_NOTES, f"name {new}\n".encode())


vars(os).update(fsync=_fsync, replace=_replace, rename=_rename)

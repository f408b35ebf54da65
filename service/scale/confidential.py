"""What workers must know and the scheduler must not: tasks carry the name of a file in SPOOL_URL, which only the service may read.

Everything in a task passes through the scheduler, and anyone who reads along could guess ids and values from digests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from anonymizer.errors import StateUnavailable
from anonymizer.exclusion import Exclusion
from service.state.shared_spool import SharedSpool

#: The exclusion of a list without ids.
NONE_EXCLUDED = Exclusion(b"", {})


@dataclass(frozen=True, slots=True)
class Confidential:
    """The content of such a file.

    Args:
        fingerprint: The digests that a worker must have in common with the coordinator, and that could be matched by guessing.
        exclusion: Whose rows are not released.
    """

    fingerprint: Mapping[str, str] = field(repr=False)
    exclusion: Exclusion = NONE_EXCLUDED

    def encode(self) -> bytes:
        """Return it as text; the same for the same content."""
        found = self.exclusion
        # With the key, ids can be guessed: it is only written if it is needed.
        key = found.key.hex() if found.until_ns else ""
        content = {"fingerprint": dict(self.fingerprint), "key": key, "until_ns": dict(found.until_ns)}
        return json.dumps(content, sort_keys=True).encode()


def decode(content: bytes) -> Confidential:
    """Return what `encode` has written."""
    found = json.loads(content)
    return Confidential(found["fingerprint"], Exclusion(bytes.fromhex(found["key"]), found["until_ns"]))


class HandOver:
    """Puts such files into the spool, for one run. Safe for use from several threads.

    Args:
        spool: Where workers read them.
        label: The data set's label.
        fingerprint: As in `Confidential`.
    """

    def __init__(self, spool: SharedSpool, label: str, fingerprint: Mapping[str, str]) -> None:
        self._spool = spool
        self._label = label
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        # By whether ids are excluded: the last such file, and the one without, which deliveries carry.
        self._names: dict[bool, tuple[Exclusion, str]] = {}

    def name_for(self, exclusion: Exclusion = NONE_EXCLUDED) -> str:
        """Return the name of the file with that exclusion, once it is there.

        Raises:
            StateUnavailable: SPOOL_URL cannot be used now.
        """
        has_ids = bool(exclusion.until_ns)
        with self._lock:
            if has_ids not in self._names or self._names[has_ids][0].until_ns != exclusion.until_ns:
                self._names[has_ids] = exclusion, self._put(exclusion)
            return self._names[has_ids][1]

    def put_again(self) -> None:
        """Put the files there again, if they are gone; a worker could not read one of them, or another file."""
        with self._lock, suppress(StateUnavailable):
            for exclusion, _ in self._names.values():
                self._put(exclusion)

    def _put(self, exclusion: Exclusion) -> str:
        return self._spool.hand_over(self._label, Confidential(self._fingerprint, exclusion).encode())

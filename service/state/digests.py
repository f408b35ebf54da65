"""Keyed digests: how the journal recognises filters, a file, and paths again without storing them in the clear.

All keys come from one secret, the journal's random name (documentation/decisions/034-one-secret-for-digests.md). So a digest in a log, a
trail or a message confirms no guess; a digest in the journal confirms one only to a reader of the whole journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from anonymizer.pseudonyms import derived_key, keyed_digest

#: The prefix of keyed digests; earlier versions recorded plain ones, or the text itself.
KEYED = "keyed:"

#: What keys are derived for. A change would forget who is excluded.
_DIGESTS, _EXCLUSION = "digests in the journal", "excluded sources"

_FILTER_DIGITS = 16
_PATH_DIGITS = 32


@dataclass(frozen=True)
class Digests:
    """Makes the keyed digests of one journal.

    Args:
        secret: The journal's random name.
    """

    secret: str = field(repr=False)

    @cached_property
    def key(self) -> bytes:
        """The key of every digest but those of excluded sources."""
        return derived_key(self.secret.encode(), _DIGESTS)

    @property
    def exclusion_key(self) -> bytes:
        """The key of the digests of excluded sources, which workers get too."""
        return derived_key(self.secret.encode(), _EXCLUSION)

    def of_filters(self, digest: str) -> str:
        """Return what stands for the plain digest of filters."""
        return of_filters(self.key, digest)

    def of_file(self, digest: str) -> str:
        """Return what stands for the plain digest of an input file."""
        return KEYED + keyed_digest(self.key, b"\0file " + digest.encode())

    def of_path(self, path: str) -> str:
        """Return what stands for the path of a data set's file."""
        return KEYED + keyed_digest(self.key, b"\0path " + path.encode())[:_PATH_DIGITS]

    def of_state(self, state: str) -> str:
        """Return what stands for the state of a data set's file, which may be a digest of its content."""
        return keyed_digest(self.key, b"\0state " + state.encode())[:_PATH_DIGITS]


def of_filters(key: bytes, digest: str) -> str:
    """Return what stands for the plain digest of filters under a key."""
    return KEYED + keyed_digest(key, b"\0selection " + digest.encode())[:_FILTER_DIGITS]

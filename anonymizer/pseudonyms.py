"""Keyed pseudonyms: HMAC-SHA256 under a secret key (RFC 2104, FIPS 180-4).

A pseudonym cannot be reversed without the key. With it, anybody can recompute a pseudonym, and all windows of a source have the same one.
An unkeyed hash would not protect: device ids are few and easily guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import lru_cache

#: Shorter keys can be found by brute force; RFC 2104 recommends the length of the hash, 32 bytes.
MINIMUM_KEY_BYTES = 16

#: The key's id is the HMAC of this text. It cannot be a source id: tags contain no NUL.
_KEY_ID_TEXT = b"\x00ecg-anonymizer key id"

#: Hexadecimal digits of the key's id: enough to tell two keys apart, too few to be a pseudonym.
_KEY_ID_DIGITS = 16

#: The command that messages about a bad key suggest.
MAKE_A_KEY = 'python3 -c "import secrets; print(secrets.token_hex(32))"'


#: A passphrase that is stretched: 128 bits of salt or more, in hexadecimal, then the passphrase.
STRETCHED = re.compile(rb"scrypt:([0-9A-Fa-f]{32,}):(.+)", re.DOTALL)

#: The cost of one guess at a passphrase: half a second and 128 MiB (RFC 7914). OpenSSL asks for a little more than 128 · r · N bytes.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 17, 8, 1
_SCRYPT_MOST_BYTES = (1 << 28) + (1 << 20)

#: The salt of every derived key (RFC 5869): fixed, since the key itself is random.
_DERIVATION_SALT = b"ecg-anonymizer derived keys"


class ShortKey(ValueError):
    """The key has fewer bytes than `MINIMUM_KEY_BYTES`."""


def keyed_digest(key: bytes, message: bytes) -> str:
    """Return HMAC-SHA256 of `message` under `key`, as 64 lower-case hexadecimal digits."""
    return hmac.digest(key, message, hashlib.sha256).hex()


def check_key(key: bytes) -> None:
    """Raise ShortKey unless `key` is long enough to resist guessing. The message does not contain the key."""
    if len(key) < MINIMUM_KEY_BYTES:
        raise ShortKey(f"needs at least {MINIMUM_KEY_BYTES} bytes (32 recommended), got {len(key)}; make one with: {MAKE_A_KEY}")


@lru_cache(maxsize=8)
def stretched(key: bytes) -> bytes:
    """Return the key to use for the bytes that were given: those bytes, or what scrypt makes of `scrypt:<salt>:<passphrase>`.

    Nothing else is interpreted: decoding hexadecimal would change every pseudonym made so far.
    """
    form = STRETCHED.fullmatch(key)
    if form is None:
        return key
    salt, passphrase = bytes.fromhex(form[1].decode() if len(form[1]) % 2 == 0 else f"{form[1].decode()}0"), form[2]
    return hashlib.scrypt(passphrase, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=_SCRYPT_MOST_BYTES, dklen=32)


def derived_key(key: bytes, purpose: str) -> bytes:
    """Return a key of its own for a purpose, 32 bytes (HKDF-SHA256, RFC 5869). It tells nothing of other purposes' keys.

    It makes no guess at `key` harder.
    """
    extracted = hmac.digest(_DERIVATION_SALT, key, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)


def key_id_of(key: bytes) -> str:
    """Return the id of a key, which tells two keys apart."""
    return keyed_digest(key, _KEY_ID_TEXT)[:_KEY_ID_DIGITS]


def without_line_end(content: bytes) -> bytes:
    """Return the content of a secret's file without one trailing line end, which editors and `echo` add. Nothing else is stripped."""
    return content[:-2] if content.endswith(b"\r\n") else content.removesuffix(b"\n")


class Pseudonymizer:
    """Replaces source ids by their keyed digest, computed once per source.

    Args:
        key: The secret, at least `MINIMUM_KEY_BYTES` bytes, already stretched if it is a passphrase.

    Raises:
        ShortKey: The key is too short.
    """

    def __init__(self, key: bytes) -> None:
        check_key(key)
        self._key = key
        self._known: dict[str, str] = {}
        self.key_id = key_id_of(key)

    def __repr__(self) -> str:
        return f"Pseudonymizer(key_id={self.key_id!r})"

    def released_id(self, source_id: str) -> str:
        """Return the pseudonym of one source id (UTF-8), as 64 hexadecimal digits."""
        pseudonym = self._known.get(source_id)
        if pseudonym is None:
            pseudonym = self._known[source_id] = keyed_digest(self._key, source_id.encode())
        return pseudonym

    def released_ids(self, source_ids: Iterable[str]) -> tuple[str, ...]:
        """Return the pseudonyms of source ids, in their order."""
        return tuple(map(self.released_id, source_ids))


class KeptIds:
    """Releases source ids unchanged, when pseudonyms are off."""

    key_id = ""

    def released_ids(self, source_ids: Iterable[str]) -> tuple[str, ...]:
        """Return the ids unchanged."""
        return tuple(source_ids)

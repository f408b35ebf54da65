"""Pseudonyms are HMAC-SHA256 of the id under the key: nothing shorter, nothing unkeyed, and the key stays inside."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer import pseudonyms
from anonymizer.pseudonyms import MINIMUM_KEY_BYTES, KeptIds, Pseudonymizer, ShortKey, check_key, keyed_digest

KEY = b"correct horse battery staple 123"

KEYS = st.binary(min_size=MINIMUM_KEY_BYTES, max_size=130)


def hmac_by_its_definition(key: bytes, message: bytes) -> str:
    """RFC 2104: H((K ⊕ opad) ‖ H((K ⊕ ipad) ‖ message)), K padded with zeros to the 64 bytes of a block, hashed first if longer."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()


def test_the_published_test_vector_comes_out() -> None:
    # RFC 4231, test case 1.
    expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"

    assert keyed_digest(b"\x0b" * 20, b"Hi There") == expected
    assert Pseudonymizer(b"\x0b" * 20).released_id("Hi There") == expected


@given(key=KEYS, source_id=st.text())
def test_a_pseudonym_is_the_hmac_of_the_id_in_utf_8_for_keys_of_any_length(key: bytes, source_id: str) -> None:
    message = source_id.encode("utf-8")

    pseudonym = Pseudonymizer(key).released_id(source_id)

    assert pseudonym == hmac_by_its_definition(key, message) == hmac.new(key, message, "sha256").hexdigest()
    assert pseudonym != hashlib.sha256(message).hexdigest()


@given(ids=st.lists(st.text(), unique=True))
def test_different_ids_stay_different_and_in_their_order(ids: list[str]) -> None:
    names = Pseudonymizer(KEY)

    released = names.released_ids(ids)

    assert len(set(released)) == len(ids)
    assert list(released) == [names.released_id(source_id) for source_id in ids]


@given(source_id=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_the_key_id_is_not_the_digest_of_any_id_nor_the_beginning_of_one(source_id: str) -> None:
    names = Pseudonymizer(KEY)

    assert names.key_id != names.released_id(source_id)
    assert not names.released_id(source_id).startswith(names.key_id)


def test_the_key_id_is_made_from_the_key_too_short_to_be_a_pseudonym_and_no_unkeyed_hash() -> None:
    ids = {Pseudonymizer(KEY[:-1] + bytes([last])).key_id for last in range(256)}

    assert len(ids) == 256
    assert all(len(key_id) < 64 for key_id in ids)
    assert Pseudonymizer(KEY).key_id == Pseudonymizer(KEY).key_id
    unkeyed = [hashlib.sha256(KEY).hexdigest(), hashlib.sha1(KEY).hexdigest(), hashlib.md5(KEY).hexdigest(), KEY.hex()]
    assert not any(digest.startswith(Pseudonymizer(KEY).key_id) for digest in unkeyed)


@pytest.mark.parametrize("key", [b"", b"k", b"Zq9!vW", b"k" * 15])
def test_a_key_of_fewer_than_16_bytes_is_refused_and_not_shown(key: bytes) -> None:
    for refuse in (check_key, Pseudonymizer):
        with pytest.raises(ShortKey, match=f"at least 16 bytes .* got {len(key)}") as refused:
            refuse(key)
        assert "Zq9" not in str(refused.value)
        assert b"Zq9!vW".hex() not in str(refused.value)
    check_key(b"k" * MINIMUM_KEY_BYTES)
    assert MINIMUM_KEY_BYTES == 16


def test_printing_shows_neither_key_nor_ids() -> None:
    names = Pseudonymizer(KEY)
    names.released_id("wearer-7")

    for shown in (repr(names), str(names), f"{names}"):
        assert shown == f"Pseudonymizer(key_id={names.key_id!r})"


def test_a_pseudonym_is_computed_once_for_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Pseudonymizer(KEY)
    computed: list[bytes] = []

    def counting(key: bytes, message: bytes) -> str:
        computed.append(message)
        return keyed_digest(key, message)

    monkeypatch.setattr(pseudonyms, "keyed_digest", counting)
    for _ in range(3):
        names.released_ids(["a", "b", "a"])

    assert computed == [b"a", b"b"]


@given(ids=st.lists(st.text()))
def test_without_pseudonyms_ids_leave_as_they_are(ids: list[str]) -> None:
    assert KeptIds().released_ids(ids) == tuple(ids)
    assert KeptIds().key_id == ""

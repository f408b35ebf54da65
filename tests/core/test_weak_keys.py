"""Keys that a person thought up are refused, keys made by chance are accepted, and what is said of them never shows them."""

from __future__ import annotations

import base64
import codecs
import hashlib
import random
import zlib
from collections.abc import Callable

import pytest

from anonymizer.pseudonyms import derived_key, stretched
from anonymizer.weak_keys import doubts_about, why_refused
from tests.core.thought_up_keys import FORMS, thought_up

THOUGHT_UP = {
    "it has few different characters": ["a" * 32, "0" * 64, "abababababababab", "deadbeef" * 8],
    "it repeats itself": [
        "7c1e4fa09b3d582611e0c94da5f87b36" + "7c1e4fa09b3d582611e0c94da5f87b36"[::-1],
        "001a2b7c1e4f001a2ba09b3d001a2b582611001a2be0c94d001a2ba5f87b001a",
        "0123456789abcdef" * 4,
        "Passwort!Passwort!",
        "s3cr3t-k3y-s3cr3t-k3y-",
    ],
    "it is a sequence": [
        "abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlk",
        "qwertyuiopasdfgh",
        "1q2w3e4r5t6y7u8i",
        "ABCDEFGH12345678",
        (b"Kardiologie 7".hex() + "0" * 64)[:64],
    ],
    "it is a sequence, or numbers": [bytes((128 + 13 * at) % 256 for at in range(32)).hex()],
    "it is the digest of a common word": [
        *(hashlib.sha256(word).hexdigest() for word in (b"hospital", b"Dragon\n", b"", b"42")),
        hashlib.sha256(hashlib.md5(b"secret").hexdigest().encode()).hexdigest().upper(),
        hashlib.md5(b"heart").hexdigest() + hashlib.md5(b"salt").hexdigest(),
        base64.b64encode(hashlib.sha512(b"iloveyou").digest()).decode(),
    ],
    "it is the beginning of a public key": [
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ",
        "AAAAC3NzaC1lZDI1NTE5AAAAIB9f1aiNmYRKYz6NzNrlMgQM4jNIJZmZYky9jy/j2Mur",
    ],
    "it is compressed text": [base64.b64encode(zlib.compress(b"Kardiologie, Station 7, Universitaetsspital", 9)).decode()],
    "it is text in another encoding": [
        *(
            text.encode(encoding).hex()
            for text, encoding in (
                ("病院心電図秘密鍵文字列東京大阪京都", "shift_jis"),
                ("我们医院今天有七个病人和两位医生在", "utf-16-be"),
            )
        ),
        "Kardiologie, Station sieben, Haus 3".encode("cp500").hex(),
    ],
    "it is a number that everybody knows": ["243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89"],
    "its scrypt salt was not made by chance": [
        f"scrypt:{salt}:seven horses wander over the moor"
        for salt in ("00112233445566778899aabbccddeeff", b"Kardiologie Zuri".hex())
    ],
    "its passphrase has no letters": ["scrypt:7c1e4fa09b3d582611e0c94da5f87b36:2008/05/12-2025/10/07-20250113"],
    "it is made of common words": [
        *("changeme-changeme", "change-me-please-now", "my-secret-salt-2025", "this-is-a-secret-key", "P@ssw0rdP@ssw0rd1"),
        "scrypt:7c1e4fa09b3d582611e0c94da5f87b36:correct-horse-battery-staple",
        *("your-secret-salt-here", "supersecretsalt123", "PSEUDONYM_SALT_32_BYTES", "correct horse battery staple"),
    ],
    "it has 32 hexadecimal digits and needs 64": ["7c1e4fa09b3d582611e0c94da5f87b36", hashlib.md5(b"hospital").hexdigest()],
    "it is text in hexadecimal digits": [b"the quick brown fox jumps over it".hex()],
    "it is text in base64": [
        base64.b64encode(b"ask the cardiology department, room 4711").decode().rstrip("=")[::-1],
        codecs.encode(base64.b64encode(b"ask the cardiology department, room 4711").decode(), "rot13"),
        base64.b64encode(b"ask the cardiology department for the key").decode(),
    ],
    "it is made of words": [
        "V13nn4EkgACCESS4u7umnKARDIOLOGIEJu11u5H4r13y",
        "UBEFRNEFRANYK4i3eERTVFGELK4i3eFGNEJNEF5hc3ez4a",
        "B770F7hqlZBHAGNVA81plp13UNEYRLSEVGMTRBETRC3cc3e",
        "ZTAHCS13um4Sgc3YTREWQr3v1rWERDNAu0y3v01IEGROEG",
        "BeTheJumpsBrownQuickOverLazyTheThatFoxIs705",
        "KeyForCardiologyDepartmentUniversityHospitalZurich1",
        "Dr4gonW4terloo77Bicycl3Riv3rM0untainG4rdenCof33",
    ],
    "it has 36 characters and needs 43": ["f47ac10b-58cc-4372-a567-0e02b2c3d479"],
    "it is text, which": ["+41 44 255 11 11 is the number of the ward, isn't it"],
    "its passphrase has 23 characters": ["scrypt:7c1e4fa09b3d582611e0c94da5f87b36:" + "abcdefg hijkl mnopq xyz"],
    "after scrypt: it needs": [
        "scrypt:7c1e4fa09b3d582611e0c94da5f87b3:seven horses wander over the moor",
        "scrypt:seven horses wander",
    ],
}


@pytest.mark.parametrize(("why", "key"), [(why, key) for why, keys in THOUGHT_UP.items() for key in keys])
def test_a_key_that_is_easy_to_guess_is_refused_with_its_reason_and_not_shown(why: str, key: str) -> None:
    reason = why_refused(key.encode())
    (doubt,) = (doubt for doubt in doubts_about(key.encode()) if doubt.startswith("is easy to guess: "))

    assert reason.startswith(why)
    assert reason in doubt
    assert key not in reason + doubt


def test_of_the_keys_that_people_make_none_is_accepted() -> None:
    accepted = {form for form, key in thought_up(200 * len(FORMS), seed=1) if not why_refused(key)}

    assert accepted == set()


def test_a_digest_of_anything_but_a_common_word_cannot_be_told_from_a_random_key() -> None:
    # Said in PRIVACY.md: only the command that makes the key can promise chance.
    assert not why_refused(hashlib.sha256(b"hospital of Zermatt").hexdigest().encode())


@pytest.mark.parametrize(
    "key",
    [
        "dd0a18d6f3b8ae2f4ca8f2e865633333362d0762dff900e755862c3d4d94cdf1",  # a digit six times in a row
        "3082546791c8fcffc12fff56c5b18b7894c34bca9bd8ee8429a73206e06ae3a9",  # two bytes as a certificate has them, and no third
        "LqdxPvWbKAJUzfnGeRTmysHcXEQgYkwBZIVoatFNMuD=",  # no digit
    ],
)
def test_what_one_random_key_in_some_thousands_has_is_no_reason_to_refuse_it(key: str) -> None:
    assert why_refused(key.encode()) == ""


def test_a_key_made_by_chance_is_hardly_ever_refused() -> None:
    chance = random.Random(7)
    draws: dict[str, Callable[[], bytes]] = {
        "64 hexadecimal digits": lambda: chance.randbytes(32).hex().encode(),
        "128 capitals": lambda: chance.randbytes(64).hex().upper().encode(),
        "base64": lambda: base64.b64encode(chance.randbytes(32)),
        "base64url": lambda: base64.urlsafe_b64encode(chance.randbytes(48)).rstrip(b"="),
        "base64 of hexadecimal digits": lambda: base64.b64encode(chance.randbytes(32).hex().encode() + b"\n"),
        "bytes": lambda: chance.randbytes(32),
        "more bytes": lambda: b" " + chance.randbytes(60) + b"\n",
        "scrypt": lambda: f"scrypt:{chance.randbytes(16).hex()}:seven horses wander over the moor".encode(),
    }
    for name, draw in draws.items():
        refused = sum(bool(why_refused(draw())) for _ in range(500))
        assert refused <= 3, name


@pytest.mark.parametrize(
    ("key", "doubt"),
    [
        (b"7c1e4fa09b3d582611e0c94da5f87b36 ", "begins or ends with a blank or line end"),
        (b"\n7c1e4fa09b3d582611e0c94da5f87b36", "begins or ends with a blank or line end"),
        (b"'7c1e4fa09b3d582611e0c94da5f87b36'", "begins and ends with a quote"),
        (b"\xef\xbb\xbf7c1e4fa09b3d582611e0c94da5f87b36", "begins with a byte order mark"),
    ],
)
def test_what_another_program_may_read_in_another_way_is_reported(key: bytes, doubt: str) -> None:
    assert [one.startswith(doubt) for one in doubts_about(key) if not one.startswith("is easy")] == [True]


def test_only_a_passphrase_is_interpreted_and_its_salt_is_read_as_hexadecimal() -> None:
    digits = "7c1e4fa09b3d582611e0c94da5f87b36"
    expected = hashlib.scrypt(b"a:b c", salt=bytes.fromhex(digits), n=1 << 17, r=8, p=1, maxmem=1 << 29, dklen=32)

    assert stretched(f"scrypt:{digits}:a:b c".encode()) == expected
    for key in (digits.encode() * 2, b"scrypt:short", base64.b64encode(bytes(32)), b"\xff" * 40):
        assert stretched(key) == key


def test_derived_keys_are_those_of_hkdf_and_differ_for_each_purpose() -> None:
    key = bytes(range(32))
    hkdf = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf")
    from cryptography.hazmat.primitives.hashes import SHA256

    for purpose in ("registry-a", "registry-b", "Zürich"):
        other = hkdf.HKDF(SHA256(), 32, b"ecg-anonymizer derived keys", purpose.encode())
        assert derived_key(key, purpose) == other.derive(key)
